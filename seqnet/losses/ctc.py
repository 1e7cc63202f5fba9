"""The loss of connectionist temporal classification."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet.common.checks import WrongValueError, check_bool, check_count, first_place
from seqnet.common.types import Array, Shape, Tensor, TensorLike
from seqnet.losses.logits import softmax_logits
from seqnet.losses.loss import SequenceLoss, function_of
from seqnet.losses.targets import spell
from seqnet.ops.ctc import CTCLoss
from seqnet.registry import register


@register("loss", "ctc")
class CTC(SequenceLoss):
    """Minus the log probability of labels whose places in a sequence are unknown.

    ``l = -log(sum_a prod_t p[t, a_t])`` over all alignments a: paths of one class for each step
    that become the labels when repeated classes are merged and then blanks removed (Graves et al.,
    "Connectionist temporal classification", ICML 2006). There is one value for each sequence, so
    sample weights are (batch,), and it is not divided by the number of labels.

    Predictions are ``(batch, time, classes)``: a softmax, or logits. One class is the blank.
    Targets are labels ``(batch, length)``, integers padded at the end with the number of the blank
    or with negative numbers; in `seqnet.Model.fit` also a list of sequences of any lengths. Masked
    steps of the predictions are left out, so each sequence has its own number of steps.

    Labels that need more steps than there are, one for each and one between two equal ones, have no
    alignment. In a model they are an error where the number of steps is known before anything is
    compiled. Else the loss is infinite, and its gradient 0.

    Parameters
    ----------
    mask_index : int
        The class number of the blank.
    zero_infinity : bool
        Sequences whose labels have no alignment have the loss 0 instead, and are no error.
    **kwargs
        ``name``, ``reduction`` and ``dtype`` of `Loss`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> loss = seqnet.losses.CTC()
    >>> logits = np.zeros((1, 2, 3))  # 3 of the 9 paths are label 1: (1, 1), (0, 1) and (1, 0)
    >>> round(float(np.exp(-loss([[1]], logits))) * 9, 5)
    3.0
    """

    registered_name = "ctc"
    targets_have_steps = False

    def __init__(self, mask_index: int = 0, zero_infinity: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.mask_index = check_count(mask_index, "mask_index", 0)
        self.zero_infinity = check_bool(zero_infinity, "zero_infinity")

    def call(self, y_true: Tensor, y_pred: Tensor, mask: TensorLike | None = None) -> Tensor:
        y_true, y_pred = pt.as_tensor_variable(y_true), pt.as_tensor_variable(y_pred)
        if y_true.ndim != 2 or y_pred.ndim != 3:
            raise ValueError(
                f"{self.name} takes labels (batch, length) and predictions (batch, time, classes), "
                f"got {y_true.ndim} and {y_pred.ndim} axes."
            )
        if np.dtype(y_true.dtype).kind not in "iu":
            raise TypeError(f"{self.name} takes integer class numbers, got {y_true.dtype}.")
        classes = y_pred.type.shape[2]
        if classes is not None and self.mask_index >= classes:
            raise ValueError(self.no_blank(classes))
        logits = softmax_logits(y_pred)
        logits = y_pred if logits is None else logits
        lengths = pt.sum(pt.ge(y_true, 0) & pt.neq(y_true, self.mask_index), axis=1)
        present = pt.ones(y_pred.shape[:2], "bool") if mask is None else pt.as_tensor_variable(mask)
        values = CTCLoss(self.mask_index)(logits, present, y_true, lengths)
        if not self.zero_infinity:
            return values
        return pt.switch(pt.isinf(values), pt.zeros_like(values), values)

    def no_blank(self, classes: int) -> str:
        """Return the message for a blank that is no class."""
        return (
            f"The blank of {self.name} is the class mask_index={self.mask_index}, but there are "
            f"{classes} classes, 0 to {classes - 1}."
        )

    def target_shape(self, output_shape: Shape) -> Shape:
        return (output_shape[0], None)

    def check_targets(self, y: Array, output_shape: Shape, name: str) -> None:
        if y.dtype.kind not in "iu":
            raise TypeError(
                f"{self.name} takes integer class numbers, but {name} has the dtype {y.dtype}. "
                f"Convert with {name}.astype('int32')."
            )
        if len(output_shape) != 3:
            raise ValueError(
                f"{self.name} needs an output of shape (batch, time, classes), but the model's "
                f"output has the shape {spell(output_shape)}. For an output at each step, the last "
                "recurrent layer takes return_sequences=True."
            )
        if y.ndim != 2:
            raise ValueError(
                f"{self.name} takes labels of shape (batch, length), but {name} has the shape "
                f"{spell(y.shape)}."
            )
        classes = output_shape[-1] or 0
        if self.mask_index >= classes:
            raise ValueError(self.no_blank(classes))
        if (y >= classes).any():
            where = first_place(y >= classes)
            raise WrongValueError(
                f"{name} holds class {y[where]} at {{where}}, but the model's output has {classes} "
                f"classes, 0 to {classes - 1}.",
                where,
            )
        label = self.is_label(y)
        hole = ~label[:, :-1] & label[:, 1:]
        if hole.any():
            where = first_place(hole)
            raise WrongValueError(
                f"{name} holds the blank or padding, {y[where]}, at {{where}}, before a label: "
                "padding comes after all labels, such as pad_sequences(labels, padding='post').",
                where,
            )

    def check_steps(self, y: Array, steps: Array, name: str) -> None:
        if self.zero_infinity:
            return
        label = self.is_label(y)
        repeated = label[:, 1:] & (y[:, 1:] == y[:, :-1])
        counts, repeats = label.sum(axis=1), repeated.sum(axis=1)
        wrong = counts + repeats > steps
        if wrong.any():
            row = int(np.argmax(wrong))
            more = f", {repeats[row]} of them equal to the one before" if repeats[row] else ""
            raise ValueError(
                f"{name}[{row}] has {counts[row]} labels{more}, so it needs {counts[row]} "
                f"+ {repeats[row]} steps, but the output has {steps[row]} steps there. Use longer "
                "inputs or fewer labels; CTC(zero_infinity=True) ignores such sequences."
            )

    def is_label(self, y: Array) -> Array:
        """Return where there is a label and not padding."""
        return (y >= 0) & (y != self.mask_index)


ctc = function_of(CTC)

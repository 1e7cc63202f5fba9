"""Cross-entropies, computed from logits if the predictions are a softmax or sigmoid."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytensor.tensor as pt

from seqnet import config
from seqnet.checks import WrongValueError, check_bool, check_number, first_place
from seqnet.losses.logits import log_probabilities, pick_class, sigmoid_logits, softmax_logits
from seqnet.losses.loss import Loss
from seqnet.losses.targets import (
    check_distributions,
    check_probabilities,
    fits,
    paired,
    spell,
    steps_hint,
)
from seqnet.ops.crossentropy import SoftmaxCrossEntropy
from seqnet.registry import register
from seqnet.types import Array, Shape, Tensor, TensorLike


@register("loss", "sparse_categorical_crossentropy")
class SparseCategoricalCrossentropy(Loss):
    """Minus the log probability of the target class; targets are class numbers.

    ``l = -log softmax(z)[y]``, computed as ``logsumexp(z) - z[y]``. Predictions have shape
    ``(batch, ..., classes)``, targets ``(batch, ...)`` and an integer dtype: no one-hot is made.

    Parameters
    ----------
    from_logits : bool
        The predictions are logits and not probabilities. Not needed for a model that ends with a
        softmax.

    Examples
    --------
    >>> import seqnet
    >>> loss = seqnet.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> loss.name
    'sparse_categorical_crossentropy'
    """

    registered_name = "sparse_categorical_crossentropy"
    after = ("softmax",)

    def __init__(self, from_logits: bool = False):
        self.from_logits = check_bool(from_logits, "from_logits")

    def __call__(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name, classes=True)
        if np.dtype(y_true.dtype).kind not in "iu":
            raise TypeError(f"{self.name} takes integer class numbers, got {y_true.dtype}.")
        logits = y_pred if self.from_logits else softmax_logits(y_pred)
        if logits is None:
            return -pick_class(log_probabilities(y_pred), y_true)
        return SoftmaxCrossEntropy()(logits, y_true)

    def check_targets(self, y: Array, output_shape: Shape, name: str) -> None:
        if y.dtype.kind not in "iu":
            raise TypeError(
                f"{self.name} takes integer class numbers, but {name} has the dtype {y.dtype}. "
                f"Convert with {name}.astype('int32'), or use categorical_crossentropy for "
                "one-hot targets."
            )
        if not fits(y.shape, output_shape[:-1]):
            hint = steps_hint(y.shape, output_shape[:-1])
            if fits(y.shape, output_shape):
                hint = " For one-hot targets use categorical_crossentropy."
            elif y.shape[-1:] == (1,) and fits(y.shape[:-1], output_shape[:-1]):
                hint = f" Drop the last axis: {name}[..., 0]."
            raise ValueError(
                f"{self.name} needs one class number for each prediction: {name} of shape "
                f"{spell(output_shape[:-1])} for an output of shape {spell(output_shape)}, got "
                f"{spell(y.shape)}.{hint}"
            )
        classes = cast(int, output_shape[-1])
        if y.size and (y.min() < 0 or y.max() >= classes):
            where = first_place((y < 0) | (y >= classes))
            known = f"{classes} classes, 0 to {classes - 1}."
            if classes == 1:
                known = (
                    "one unit: two classes want two units, or a sigmoid and binary_crossentropy."
                )
            raise WrongValueError(
                f"{name} holds class {y[where]} at {{where}}, but the model's output has {known}",
                where,
            )


@register("loss", "categorical_crossentropy")
class CategoricalCrossentropy(Loss):
    """Cross-entropy with target distributions: ``-sum_k y_k log p_k``.

    Parameters
    ----------
    from_logits : bool
        The predictions are logits. Not needed for a model that ends with a softmax.
    label_smoothing : float
        A number s from 0 to 1: targets become ``y (1 - s) + s / classes`` (Szegedy et al., 2016).
    """

    registered_name = "categorical_crossentropy"
    after = ("softmax",)

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0):
        self.from_logits = check_bool(from_logits, "from_logits")
        if not 0 <= check_number(label_smoothing, "label_smoothing") <= 1:
            raise ValueError(f"label_smoothing is a share from 0 to 1, got {label_smoothing}.")
        self.label_smoothing = label_smoothing

    def __call__(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        y_true = pt.cast(y_true, y_pred.dtype)
        if self.label_smoothing:
            share = pt.cast(self.label_smoothing / y_pred.shape[-1], y_pred.dtype)
            y_true = y_true * np.asarray(1 - self.label_smoothing, y_pred.dtype) + share
        return -pt.sum(y_true * log_probabilities(y_pred, self.from_logits), axis=-1)

    def check_targets(self, y: Array, output_shape: Shape, name: str) -> None:
        super().check_targets(y, output_shape, name)
        check_distributions(y, name, self.name)

    def ignored_target(self, shape: tuple[int, ...]) -> Array:
        """Return one-hot rows of class 0."""
        target = np.zeros(shape)
        target[..., :1] = 1
        return target

    def hint(self, y: Array) -> str:
        if y.dtype.kind in "iu":
            return " For integer class numbers use sparse_categorical_crossentropy."
        return ""


@register("loss", "binary_crossentropy")
class BinaryCrossentropy(Loss):
    """Mean over the last axis of ``-y log p - (1 - y) log(1 - p)``.

    From logits z this is ``softplus(z) - y z``, which never saturates.

    Parameters
    ----------
    from_logits : bool
        The predictions are logits. Not needed for a model that ends with a sigmoid.
    """

    registered_name = "binary_crossentropy"
    after = ("sigmoid", "hard_sigmoid", "softmax")

    def __init__(self, from_logits: bool = False):
        self.from_logits = check_bool(from_logits, "from_logits")

    def __call__(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        y_true, y_pred = paired(y_true, y_pred, self.name)
        y = pt.cast(y_true, y_pred.dtype)
        logits = y_pred if self.from_logits else sigmoid_logits(y_pred)
        if logits is None:
            limits = np.finfo(y_pred.dtype)  # in float32, 1 - epsilon may be 1
            one = np.asarray(1, dtype=y_pred.dtype)
            low = np.asarray(max(config.epsilon(), limits.tiny), dtype=y_pred.dtype)
            p = pt.clip(y_pred, low, one - np.maximum(low, limits.epsneg))
            return pt.mean(-y * pt.log(p) - (one - y) * pt.log1p(-p), axis=-1)
        return pt.mean(pt.softplus(logits) - y * logits, axis=-1)

    def check_targets(self, y: Array, output_shape: Shape, name: str) -> None:
        super().check_targets(y, output_shape, name)
        check_probabilities(y, name, self.name)

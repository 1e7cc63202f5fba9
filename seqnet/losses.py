"""Losses: one value per example or step, never reduced here.

The training step weights and averages them: ``sum(w * m * l) / sum(w * m)`` with sample weights
``w`` and mask ``m``. Cross-entropies are computed from logits: where a prediction is the softmax
or sigmoid of something, that something is used, so that a confident mistake neither saturates nor
loses its gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import pytensor.tensor as pt
from pytensor.raise_op import CheckAndRaise

from seqnet import config
from seqnet.checks import WrongValueError, check_bool, check_number, first_place
from seqnet.logits import log_probabilities, pick_class, sigmoid_logits, softmax_logits
from seqnet.ops.crossentropy import SoftmaxCrossEntropy
from seqnet.registry import Configurable, register
from seqnet.registry import get as _get
from seqnet.targets import (
    axis_hint,
    check_distributions,
    check_probabilities,
    fits,
    paired,
    spell,
    steps_hint,
)


class Loss(Configurable, ABC):
    """A value for each example or step: ``loss(y_true, y_pred)`` on symbolic arrays.

    `y_pred` has shape ``(batch, ..., features)``; the value has shape ``(batch, ...)``.
    """

    after: tuple[str, ...] = ()
    """Activations of a last layer whose outputs this loss takes as probabilities; () is all."""

    from_logits = False

    @abstractmethod
    def __call__(self, y_true, y_pred):
        """Return the unreduced loss."""

    def check_targets(self, y: np.ndarray, output_shape: tuple[int | None, ...], name: str) -> None:
        """Raise ``ValueError`` or ``TypeError`` if targets `y` cannot belong to these outputs.

        `output_shape` is that of the model's output, the batch and unknown lengths as None.
        """
        if y.dtype.kind not in "fiub":
            raise TypeError(f"{name} must hold numbers, got the dtype {y.dtype}.")
        if not fits(y.shape, output_shape):
            raise ValueError(
                f"{self.name} compares {name} with the model's output of shape "
                f"{spell(output_shape)}, but {name} has shape {spell(y.shape)}."
                f"{self.hint(y) or axis_hint(y.shape, output_shape, name)}"
            )

    def hint(self, y: np.ndarray) -> str:
        """Say what else the caller may have meant."""
        return ""

    def ignored_target(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return a target that this loss allows, to stand where nothing counts.

        `shape` is that of one target: of ``y`` without the axes of samples and steps.
        """
        return np.zeros(shape)

    @property
    def name(self) -> str:
        """The registered name of this loss."""
        return getattr(self, "registered_name", type(self).__name__)


@register("loss", "sparse_categorical_crossentropy")
class SparseCategoricalCrossentropy(Loss):
    """Minus the log probability of the target class; targets are class numbers.

    ``l = -log softmax(z)[y]``, computed as ``logsumexp(z) - z[y]``. Predictions have shape
    ``(batch, ..., classes)``, targets ``(batch, ...)`` and an integer dtype: no one-hot is made.

    Parameters
    ----------
    from_logits : bool
        The predictions are logits and not probabilities. A softmax at the end of the model is
        recognised without this.

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

    def __call__(self, y_true, y_pred):
        y_true, y_pred = paired(y_true, y_pred, self.name, classes=True)
        if np.dtype(y_true.dtype).kind not in "iu":
            raise TypeError(f"{self.name} takes integer class numbers, got {y_true.dtype}.")
        logits = y_pred if self.from_logits else softmax_logits(y_pred)
        if logits is None:
            return -pick_class(log_probabilities(y_pred), y_true)
        return SoftmaxCrossEntropy()(logits, y_true)

    def check_targets(self, y, output_shape, name):
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
        classes = output_shape[-1]
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


@register("loss", "masked_loss")
class MaskedLoss(SparseCategoricalCrossentropy):
    """The sparse cross-entropy at a range of steps of each sequence, as `masked_loss` has it.

    In `seqnet.Model.fit` and `evaluate` targets are then a tuple ``(labels, codelengths,
    label_starts)``: class numbers ``(samples, time)`` or a list of (time,), and for each sequence
    how many steps count and the first of them. Labels at other steps may hold anything. The figure
    is the mean over the steps of all ranges, and so is each metric's.

    Parameters
    ----------
    from_logits : bool
        As in `SparseCategoricalCrossentropy`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.layers import Embedding, GRU, Dense
    >>> layers = [Embedding(9, 4), GRU(4, return_sequences=True), Dense(9, "softmax")]
    >>> model = seqnet.Model(layers)
    >>> model.compile("adam", "masked_loss")
    >>> X = [[1, 2, 3], [4, 5]]
    >>> history = model.fit(X, (X, [1, 2], [2, 0]), verbose=0)     # the last step; both steps
    """

    registered_name = "masked_loss"


@register("loss", "categorical_crossentropy")
class CategoricalCrossentropy(Loss):
    """Cross-entropy with target distributions: ``-sum_k y_k log p_k``.

    Parameters
    ----------
    from_logits : bool
        The predictions are logits. A softmax at the end of the model is recognised without this.
    label_smoothing : float
        A share s from 0 to 1: targets become ``y (1 - s) + s / classes`` (Szegedy et al., 2016).
    """

    registered_name = "categorical_crossentropy"
    after = ("softmax",)

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0):
        self.from_logits = check_bool(from_logits, "from_logits")
        if not 0 <= check_number(label_smoothing, "label_smoothing") <= 1:
            raise ValueError(f"label_smoothing is a share from 0 to 1, got {label_smoothing}.")
        self.label_smoothing = label_smoothing

    def __call__(self, y_true, y_pred):
        y_true, y_pred = paired(y_true, y_pred, self.name)
        y_true = pt.cast(y_true, y_pred.dtype)
        if self.label_smoothing:
            share = pt.cast(self.label_smoothing / y_pred.shape[-1], y_pred.dtype)
            y_true = y_true * np.asarray(1 - self.label_smoothing, y_pred.dtype) + share
        return -pt.sum(y_true * log_probabilities(y_pred, self.from_logits), axis=-1)

    def check_targets(self, y, output_shape, name):
        super().check_targets(y, output_shape, name)
        check_distributions(y, name, self.name)

    def ignored_target(self, shape):
        """Return one-hot rows of class 0."""
        target = np.zeros(shape)
        target[..., :1] = 1
        return target

    def hint(self, y):
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
        The predictions are logits. A sigmoid at the end of the model is recognised without this.
    """

    registered_name = "binary_crossentropy"
    after = ("sigmoid", "hard_sigmoid", "softmax")

    def __init__(self, from_logits: bool = False):
        self.from_logits = check_bool(from_logits, "from_logits")

    def __call__(self, y_true, y_pred):
        y_true, y_pred = paired(y_true, y_pred, self.name)
        y = pt.cast(y_true, y_pred.dtype)
        logits = y_pred if self.from_logits else sigmoid_logits(y_pred)
        if logits is None:
            limits = np.finfo(y_pred.dtype)  # which may not tell 1 - epsilon from 1
            one = np.asarray(1, dtype=y_pred.dtype)
            low = np.asarray(max(config.epsilon(), limits.tiny), dtype=y_pred.dtype)
            p = pt.clip(y_pred, low, one - np.maximum(low, limits.epsneg))
            return pt.mean(-y * pt.log(p) - (one - y) * pt.log1p(-p), axis=-1)
        return pt.mean(pt.softplus(logits) - y * logits, axis=-1)

    def check_targets(self, y, output_shape, name):
        super().check_targets(y, output_shape, name)
        check_probabilities(y, name, self.name)


@register("loss", "mean_squared_error", "mse")
class MeanSquaredError(Loss):
    """Mean over the last axis of ``(y_true - y_pred)^2``."""

    registered_name = "mean_squared_error"

    def __call__(self, y_true, y_pred):
        y_true, y_pred = paired(y_true, y_pred, self.name)
        return pt.mean(pt.sqr(pt.cast(y_true, y_pred.dtype) - y_pred), axis=-1)


@register("loss", "mean_absolute_error", "mae")
class MeanAbsoluteError(Loss):
    """Mean over the last axis of ``|y_true - y_pred|``."""

    registered_name = "mean_absolute_error"

    def __call__(self, y_true, y_pred):
        y_true, y_pred = paired(y_true, y_pred, self.name)
        return pt.mean(pt.abs(pt.cast(y_true, y_pred.dtype) - y_pred), axis=-1)


def masked_loss(predictions, padded_labels, codelengths, label_starts):
    """Sum the cross-entropy over a range of steps of each sequence (theano_lstm's function).

    ``loss[i] = -sum(log(predictions[i, t, padded_labels[i, t]]))`` over the steps t from
    ``label_starts[i]`` to ``label_starts[i] + codelengths[i] - 1``. Labels are read at the same t
    as predictions; what stands outside of the range is never read.

    The gradient is ``-g[i] / predictions[i, t, label]`` for the gradients g of the result.
    (theano_lstm's own is ``-1 / (predictions[i, t, label] g[i])``, which is right for g = 1 only.)
    As the loss of `seqnet.Model.compile` it stands for `MaskedLoss`.

    Parameters
    ----------
    predictions : float variable or array (batch, time, classes)
        Probabilities.
    padded_labels : integer (batch, time)
        Class numbers.
    codelengths, label_starts : integer (batch,)
        How many steps count, and the first of them.

    Returns
    -------
    variable (batch,)

    Raises
    ------
    ValueError
        At once if ranks or dtypes are others; when computed if a range ends after the last step.
    IndexError
        When computed, if a label within a range is no class.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> p = np.full((2, 3, 5), 0.2)
    >>> labels = np.array([[0, 0, 4], [1, 2, 0]])
    >>> loss = seqnet.losses.masked_loss(p, labels, np.array([1, 2]), np.array([2, 0]))
    >>> loss.eval(mode=seqnet.backend.mode()).round(6).tolist()
    [1.609438, 3.218876]
    """
    given = []
    for name, value, rank, kinds, what in (
        ("predictions", predictions, 3, "f", "floats"),
        ("padded_labels", padded_labels, 2, "iu", "integers"),
        ("codelengths", codelengths, 1, "iu", "integers"),
        ("label_starts", label_starts, 1, "iu", "integers"),
    ):
        variable = pt.as_tensor_variable(value)
        if variable.ndim != rank or np.dtype(variable.dtype).kind not in kinds:
            raise ValueError(
                f"{name} must hold {what} and have rank {rank}, got {variable.dtype} and rank "
                f"{variable.ndim}."
            )
        given.append(variable)
    predictions, labels, lengths, starts = given
    time = predictions.shape[1]
    steps = pt.arange(time)[None, :]
    ends = starts + lengths
    inside = pt.all(starts >= 0) & pt.all(lengths >= 0) & pt.all(ends <= time)
    starts = CheckAndRaise(ValueError, "A range of masked_loss has steps that are not there.")(
        starts, inside
    )
    counted = (steps >= starts[:, None]) & (steps < ends[:, None])
    # Where nothing counts, class 0 and probability 1 are read: no gradient passes, not even NaN.
    picked = pick_class(predictions, pt.switch(counted, labels, 0))
    one = np.asarray(1, dtype=predictions.dtype)
    return -pt.sum(pt.log(pt.switch(counted, picked, one)), axis=1)


def get(identifier: str | dict | Callable) -> Callable:
    """Return the loss of a name, a saved configuration, an object or your own function.

    Examples
    --------
    >>> from seqnet import losses
    >>> losses.get("mse").name
    'mean_squared_error'
    """
    if identifier is masked_loss:
        return MaskedLoss()
    return _get("loss", identifier)


def guess(y_pred, y: np.ndarray) -> Loss:
    """Choose the loss that goes with a model's last layer and the targets at hand.

    A softmax gives a categorical cross-entropy (sparse if the targets are class numbers), a
    sigmoid the binary cross-entropy, anything else the mean squared error.
    """
    if softmax_logits(y_pred) is not None:
        if y.ndim == y_pred.ndim - 1 and y.dtype.kind in "iu":
            return SparseCategoricalCrossentropy()
        return CategoricalCrossentropy()
    if sigmoid_logits(y_pred) is not None:
        return BinaryCrossentropy()
    return MeanSquaredError()

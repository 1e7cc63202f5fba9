"""Cross-entropies, computed from logits if the predictions are a softmax or sigmoid."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytensor.tensor as pt

from seqnet import config
from seqnet.common.checks import check_bool
from seqnet.common.types import Array, Shape, Tensor
from seqnet.losses.logits import (
    log_probabilities,
    pick_class,
    sigmoid_logits,
    softmax_logits,
    to_last_axis,
)
from seqnet.losses.loss import Loss, check_axis, check_share, function_of, number
from seqnet.losses.targets import (
    check_class_numbers,
    check_distributions,
    check_probabilities,
    paired,
)
from seqnet.ops.crossentropy import SoftmaxCrossEntropy
from seqnet.ops.sampled_softmax import sampled_crossentropy
from seqnet.registry import register


@register("loss", "sparse_categorical_crossentropy")
class SparseCategoricalCrossentropy(Loss):
    """Minus the log probability of the target class; targets are class numbers.

    ``l = -log softmax(z)[y]``, computed as ``logsumexp(z) - z[y]``. Predictions have shape
    ``(batch, ..., classes)``, targets ``(batch, ...)`` or ``(batch, ..., 1)`` and an integer dtype:
    no one-hot is made. Predictions that are not known to be a softmax are divided by their sum
    over the classes and clipped at epsilon (`seqnet.config.epsilon`, 1e-7 by default), as in
    Keras 3. After a `SampledSoftmax` the loss is estimated from a sample of the classes in
    training.

    Parameters
    ----------
    from_logits : bool
        The predictions are logits and not probabilities. Not needed for a model that ends with a
        softmax.
    ignore_class : int, optional
        Targets of this class number, such as -1 or 255, do not count: in the loss as if they were
        masked, in training also in the metrics.
    axis : int
        The axis of the classes. In a model it is the last one, -1.
    **kwargs
        ``name``, ``reduction`` and ``dtype`` of `Loss`.

    Examples
    --------
    >>> import seqnet
    >>> loss = seqnet.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    >>> round(float(loss([1, -1], [[1.0, 3.0], [0.5, 0.5]])), 5)  # -log(3 / 4)
    0.28768
    """

    registered_name = "sparse_categorical_crossentropy"
    after = ("softmax",)

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.from_logits = check_bool(from_logits, "from_logits")
        whole = isinstance(ignore_class, (int, np.integer)) and not isinstance(ignore_class, bool)
        if ignore_class is not None and not whole:
            raise TypeError(f"ignore_class is a class number, got {ignore_class!r}.")
        self.ignore_class = ignore_class
        self.axis = check_axis(axis)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_pred = to_last_axis(pt.as_tensor_variable(y_pred), self.axis)
        y_true, y_pred = paired(y_true, y_pred, self.name, classes=True)
        if np.dtype(y_true.dtype).kind not in "iu":
            raise TypeError(f"{self.name} takes integer class numbers, got {y_true.dtype}.")
        counted = self.counted(y_true)
        if counted is not None:
            y_true = pt.switch(counted, y_true, pt.zeros_like(y_true))
        values = self.of_class(y_true, y_pred)
        return values if counted is None else pt.switch(counted, values, pt.zeros_like(values))

    def of_class(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return minus the log probability of class numbers; the classes are the last axis."""
        logits = y_pred if self.from_logits else softmax_logits(y_pred)
        sampled = sampled_crossentropy(y_pred, y_true)
        if sampled is not None:
            return sampled
        if logits is None:
            return -pick_class(log_probabilities(y_pred), y_true)
        return cast(Tensor, SoftmaxCrossEntropy()(logits, y_true))

    def counted(self, y_true: Tensor) -> Tensor | None:
        return None if self.ignore_class is None else pt.neq(y_true, self.ignore_class)

    def target_shape(self, output_shape: Shape) -> Shape:
        return output_shape[:-1]

    def check_targets(self, y: Array, output_shape: Shape, name: str) -> None:
        self.check_last_axis()
        check_class_numbers(y, output_shape, name, self.name, self.ignore_class)


class DistributionLoss(Loss):
    """The base of cross-entropies with targets that are distributions over the classes."""

    after = ("softmax",)

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.from_logits = check_bool(from_logits, "from_logits")
        self.label_smoothing = check_share(label_smoothing, "label_smoothing")
        self.axis = check_axis(axis)

    def paired(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        y_true, y_pred = super().paired(y_true, y_pred)
        if self.label_smoothing:
            share = pt.cast(self.label_smoothing / y_pred.shape[-1], y_pred.dtype)
            y_true = y_true * number(1 - self.label_smoothing, y_pred) + share
        return y_true, y_pred

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


@register("loss", "categorical_crossentropy")
class CategoricalCrossentropy(DistributionLoss):
    """Cross-entropy with target distributions: ``-sum_k y_k log p_k``.

    Predictions that are not known to be a softmax are divided by their sum over the classes and
    clipped at epsilon (`seqnet.config.epsilon`, 1e-7 by default), as in Keras 3.

    Parameters
    ----------
    from_logits : bool
        The predictions are logits. Not needed for a model that ends with a softmax.
    label_smoothing : float
        A number s from 0 to 1: targets become ``y (1 - s) + s / classes`` (Szegedy et al., 2016).
    axis : int
        The axis of the classes. In a model it is the last one, -1.
    **kwargs
        ``name``, ``reduction`` and ``dtype`` of `Loss`.

    Examples
    --------
    >>> import seqnet
    >>> loss = seqnet.losses.CategoricalCrossentropy()
    >>> round(float(loss([[0, 1]], [[1.0, 3.0]])), 5)  # -log(3 / 4)
    0.28768
    """

    registered_name = "categorical_crossentropy"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = self.paired(y_true, y_pred)
        return -pt.sum(y_true * log_probabilities(y_pred, self.from_logits), axis=-1)


class ProbabilityLoss(Loss):
    """The base of cross-entropies with targets that are probabilities of two classes."""

    after = ("sigmoid", "hard_sigmoid", "softmax")

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.from_logits = check_bool(from_logits, "from_logits")
        self.label_smoothing = check_share(label_smoothing, "label_smoothing")
        self.axis = check_axis(axis)

    def paired(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        y_true, y_pred = super().paired(y_true, y_pred)
        if self.label_smoothing:
            y_true = y_true * number(1 - self.label_smoothing, y_pred)
            y_true = y_true + number(0.5 * self.label_smoothing, y_pred)
        return y_true, y_pred

    def crossentropy(self, y: Tensor, y_pred: Tensor) -> Tensor:
        """Return ``-y log p - (1 - y) log(1 - p)`` for each output."""
        logits = y_pred if self.from_logits else sigmoid_logits(y_pred)
        if logits is not None:
            return pt.softplus(logits) - y * logits
        limits = np.finfo(y_pred.dtype)  # in float32, 1 - epsilon may be 1
        one = number(1, y_pred)
        low = number(max(config.epsilon(), limits.tiny), y_pred)
        p = pt.clip(y_pred, low, one - np.maximum(low, limits.epsneg))
        return -y * pt.log(p) - (one - y) * pt.log1p(-p)

    def check_targets(self, y: Array, output_shape: Shape, name: str) -> None:
        super().check_targets(y, output_shape, name)
        check_probabilities(y, name, self.name)


@register("loss", "binary_crossentropy", "bce")
class BinaryCrossentropy(ProbabilityLoss):
    """Mean over the last axis of ``-y log p - (1 - y) log(1 - p)``.

    From logits z this is ``softplus(z) - y z``, which never saturates. Predictions that are not
    known to be a sigmoid are clipped to the range from epsilon to 1 - epsilon
    (`seqnet.config.epsilon`, 1e-7 by default), as in Keras 3.

    Parameters
    ----------
    from_logits : bool
        The predictions are logits. Not needed for a model that ends with a sigmoid.
    label_smoothing : float
        A number s from 0 to 1: targets become ``y (1 - s) + s / 2``.
    axis : int
        The axis of the mean. In a model it is the last one, -1.
    **kwargs
        ``name``, ``reduction`` and ``dtype`` of `Loss`.

    Examples
    --------
    >>> import seqnet
    >>> round(float(seqnet.losses.BinaryCrossentropy()([[1, 0]], [[0.5, 0.75]])), 5)
    1.03972
    """

    registered_name = "binary_crossentropy"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return pt.mean(self.crossentropy(*self.paired(y_true, y_pred)), axis=-1)


sparse_categorical_crossentropy = function_of(SparseCategoricalCrossentropy)
categorical_crossentropy = function_of(CategoricalCrossentropy)
binary_crossentropy = function_of(BinaryCrossentropy)

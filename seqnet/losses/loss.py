"""The base class of losses: values for each step, sample weights and the reduction."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from seqnet import backend, config
from seqnet.common.checks import check_number
from seqnet.common.types import Array, Shape, Tensor, TensorLike
from seqnet.losses.logits import cast_output, to_last_axis
from seqnet.losses.reduction import step_weights, weighted_sum
from seqnet.losses.targets import axis_hint, fits, paired, spell
from seqnet.ops.count import count
from seqnet.registry import Configurable, refuse_arguments

REDUCTIONS = ("sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none", None)

FUNCTIONS: dict[Callable, type[Loss]] = {}
"""The losses as functions, and the classes that stand for them in a model."""


class Loss(Configurable):
    """The base class of losses.

    A subclass defines ``call(y_true, y_pred)``, which returns a value for each example or step:
    for `y_pred` of shape ``(batch, ..., features)`` the values have shape ``(batch, ...)``.
    Training averages these values with sample weights and masks. Calling the loss itself applies
    sample weights and the reduction: arrays give a number or an array, PyTensor variables a
    variable.

    Parameters
    ----------
    name : str, optional
        The name as a metric. The default is the registered name, or the name of the class.
    reduction : str, optional
        How a call reduces the values l with the sample weights w, with Keras's names:

        - ``"sum_over_batch_size"`` and ``"mean"``: ``sum(w l) / n``, n the number of values;
        - ``"mean_with_sample_weight"``: ``sum(w l) / sum(w)``;
        - ``"sum"``: ``sum(w l)``;
        - ``"none"`` or None: the values ``w l``.

        In training there are masks m, too. Every mean is then ``sum(w m l) / sum(w m)``, so that
        padding and steps of weight 0 change nothing; ``"sum"`` is ``sum(w m l)``, and ``"none"``
        is an error. The log of an epoch averages the batches' losses by their ``sum(w m)``.
    dtype : str, optional
        The float type of the computation. By default variables keep theirs, and arrays are
        computed in `seqnet.config.floatx`.

    Examples
    --------
    >>> import numpy as np, pytensor.tensor as pt, seqnet
    >>> class FourthPower(seqnet.losses.Loss):
    ...     def call(self, y_true, y_pred):
    ...         return pt.mean((y_true - y_pred) ** 4, axis=-1)
    >>> y_true, y_pred = np.array([[0.0, 1.0], [2.0, 2.0]]), np.ones((2, 2))
    >>> float(FourthPower()(y_true, y_pred))
    0.75
    >>> FourthPower(reduction="none")(y_true, y_pred, sample_weight=[1, 3]).tolist()
    [0.5, 3.0]
    """

    after: tuple[str, ...] = ()
    """Activations of the last layer whose outputs this loss accepts as probabilities; () is any."""

    from_logits: bool = False

    axis: int = -1
    """The axis of the features or classes."""

    reduction: str | None = "sum_over_batch_size"

    dtype: str | None = None
    needs_targets: bool = True
    """Whether there are targets; False if the outputs alone are the loss."""

    registered_name: str

    def __init__(
        self,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: str | None = None,
        **unknown: Any,
    ):
        refuse_arguments(type(self), unknown)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"The name of a loss is text, got {name!r}.")
        if reduction not in REDUCTIONS:
            known = ", ".join(map(repr, REDUCTIONS))
            raise ValueError(f"reduction is one of {known}, got {reduction!r}.")
        self.name = name or self.name
        self.reduction = reduction
        self.dtype = None if dtype is None else config.check_float_dtype(dtype)

    @abstractmethod
    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the value of each example or step: without weights, not reduced."""

    def values(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        """Return what `call` does, in the dtype of the loss if it has one."""
        y_true, y_pred = pt.as_tensor_variable(y_true), pt.as_tensor_variable(y_pred)
        return self.call(y_true, y_pred if self.dtype is None else cast_output(y_pred, self.dtype))

    def counted(self, y_true: Tensor) -> Tensor | None:
        """Return which targets are used, one bool for each value of the loss; None for all."""

    def __call__(
        self, y_true: TensorLike, y_pred: TensorLike, sample_weight: TensorLike | None = None
    ) -> Tensor | Array:
        """Return the loss: the values with sample weights and the reduction applied.

        Parameters
        ----------
        y_true, y_pred : array or variable
            The shapes are those of `call`. Predictions (..., 1) and targets (...) go together.
        sample_weight : array or variable, optional
            Not negative; (batch,), or one number for each value. A value of weight 0 does not
            count, even if it is NaN.

        Returns
        -------
        number, array or variable
            A variable if an argument is one.
        """
        given = [y_true, y_pred] + ([] if sample_weight is None else [sample_weight])
        if any(isinstance(value, Variable) for value in given):
            return self._reduced(*map(pt.as_tensor_variable, given))
        names = ("y_true", "y_pred", "sample_weight")
        dtype = self.dtype or config.floatx()
        arrays = [as_numbers(v, n, dtype) for v, n in zip(given, names, strict=False)]
        if sample_weight is not None and (arrays[2] < 0).any():
            raise ValueError("sample_weight holds negative numbers; weights are 0 or more.")
        variables = [pt.tensor(dtype=a.dtype, shape=a.shape) for a in arrays]
        function = backend.compile(variables, [self._reduced(*variables)], name=self.name)
        return function(*arrays)[0][()]

    def _reduced(self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the reduced loss of variables."""
        kept = y_pred.dtype if y_pred.dtype.startswith("float") else config.floatx()
        values = pt.cast(self.values(y_true, y_pred), self.dtype or kept)
        counted = self.counted(y_true)
        if weight is not None:
            weight = pt.cast(fitting(weight, values, self.name), values.dtype)
        weights = step_weights(values, weight, counted)
        if self.reduction in ("none", None):
            if weights is None:
                return values
            return pt.switch(pt.gt(weights, 0), weights * values, pt.zeros_like(values))
        total = weighted_sum(values, weights)
        if self.reduction == "sum":
            return total
        if self.reduction != "mean_with_sample_weight":
            weights = step_weights(values, None, counted)
        if weights is None:
            return total / pt.maximum(count(values), number(1, values))
        over = pt.sum(weights)
        return total / pt.switch(pt.gt(over, 0), over, pt.ones_like(over))

    def paired(self, y_true: Tensor, y_pred: Tensor) -> tuple[Tensor, Tensor]:
        """Return targets and predictions as float variables of one shape, `axis` moved to the end.

        Raises
        ------
        ValueError
            If the shapes differ: nothing is broadcast.
        """
        y_true, y_pred = paired(y_true, y_pred, self.name)
        y_true = to_last_axis(y_true, self.axis)
        return pt.cast(y_true, y_pred.dtype), to_last_axis(y_pred, self.axis)

    def target_shape(self, output_shape: Shape) -> Shape:
        """Return the shape of the targets for an output of some shape."""
        return output_shape

    def check_targets(self, y: Array, output_shape: Shape, name: str) -> None:
        """Raise ``ValueError`` or ``TypeError`` if targets `y` do not match these outputs.

        `output_shape` is the shape of the model's output, the batch and unknown lengths as None.
        """
        self.check_last_axis()
        if y.dtype.kind not in "fiub":
            raise TypeError(f"{name} must hold numbers, got the dtype {y.dtype}.")
        if not fits(y.shape, output_shape):
            raise ValueError(
                f"{self.name} compares {name} with the model's output of shape "
                f"{spell(output_shape)}, but {name} has shape {spell(y.shape)}."
                f"{self.hint(y) or axis_hint(y.shape, output_shape)}"
            )

    def check_last_axis(self) -> None:
        """Raise if a loss for a model works along another axis than the last one."""
        if self.axis != -1:
            raise ValueError(
                f"{self.name} has axis={self.axis}. In a model the last axis of the output holds "
                "the features or classes: use axis=-1, and move the axis in the model if needed."
            )

    def hint(self, y: Array) -> str:
        """Return advice about other losses for such targets."""
        return ""

    def ignored_target(self, shape: tuple[int, ...]) -> Array:
        """Return a valid target for steps that are masked or have the weight 0.

        `shape` is the shape of one target: of ``y`` without the axes of samples and steps.
        """
        return np.zeros(shape)

    @property
    def name(self) -> str:
        """The name given, or else the registered name of this loss."""
        default = getattr(self, "registered_name", type(self).__name__)
        return self.__dict__.get("_name", default)

    @name.setter
    def name(self, name: str) -> None:
        self._name = name


class SequenceLoss(Loss):
    """The base of losses with one value for each sequence, of predictions at each of its steps.

    A subclass defines ``call(y_true, y_pred, mask=None)``, which returns values ``(batch,)`` for
    predictions ``(batch, time, features)``. The mask ``(batch, time)`` is True where there is data;
    sequences without any do not count. In a model sample weights are ``(batch,)``.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from seqnet.losses import SequenceLoss
    >>> class EndDistance(SequenceLoss):
    ...     targets_have_steps = False
    ...
    ...     def call(self, y_true, y_pred, mask=None):
    ...         return pt.sum((y_true - y_pred[:, -1]) ** 2, axis=-1)
    >>> float(EndDistance()([[1.0]], [[[5.0], [3.0]]]))
    4.0
    """

    targets_have_steps = True
    """Whether there is a target for each step of the predictions."""

    of_batch: bool = False
    """Whether there is one value for all sequences of a batch, which takes no sample weights."""

    @abstractmethod
    def call(self, y_true: Tensor, y_pred: Tensor, mask: TensorLike | None = None) -> Tensor:
        """Return the value of each sequence: without weights, not reduced."""

    def values(
        self, y_true: TensorLike, y_pred: TensorLike, mask: TensorLike | None = None
    ) -> Tensor:
        """Return what `call` does, in the dtype of the loss if it has one."""
        y_true, y_pred = pt.as_tensor_variable(y_true), pt.as_tensor_variable(y_pred)
        y_pred = y_pred if self.dtype is None else cast_output(y_pred, self.dtype)
        return self.call(y_true, y_pred, mask)

    def of_sequences(self, y_true: Tensor, y_pred: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return a value for each sequence: the mean value of a batch, if that is all there is."""
        values = self.values(y_true, y_pred, mask)
        if not self.of_batch:
            return values
        return pt.mean(values) + pt.zeros((y_pred.shape[0],), values.dtype)

    def check_steps(self, y: Array, steps: Array, name: str) -> None:
        """Raise ``ValueError`` if targets do not go with the numbers of steps (samples,)."""


def values_function(loss: Callable) -> Callable:
    """Return the function of a loss that gives a value for each step: for training and metrics.

    Examples
    --------
    >>> from seqnet.losses import Huber, values_function
    >>> values_function(Huber()).__name__, values_function(len).__name__
    ('values', 'len')
    """
    return loss.values if isinstance(loss, Loss) else loss


def function_of(cls: type[Loss]) -> Callable[..., Tensor | Array]:
    """Return a loss as a function of ``(y_true, y_pred, ...)`` that returns values, not reduced."""

    def function(
        y_true: TensorLike, y_pred: TensorLike, *arguments: Any, **options: Any
    ) -> Tensor | Array:
        return cls(*arguments, **{**options, "reduction": "none"})(y_true, y_pred)

    first = list(inspect.signature(function).parameters.values())[:2]
    options = []
    if cls.__init__ is not Loss.__init__:
        own = inspect.signature(cls).parameters.values()
        options = [p for p in own if p.kind is p.POSITIONAL_OR_KEYWORD]
    function.__signature__ = inspect.Signature([*first, *options])  # type: ignore[attr-defined]
    function.__name__ = function.__qualname__ = cls.registered_name
    function.__module__ = cls.__module__
    function.__doc__ = (
        f"Return the values of `{cls.__name__}` for each example or step, not reduced.\n\n"
        f"The arguments after the first two are those of `{cls.__name__}`. Arrays give an array, "
        "PyTensor\nvariables a variable. In `seqnet.Model.compile` it stands for the class."
    )
    FUNCTIONS[function] = cls
    return function


def as_numbers(values: TensorLike, name: str, dtype: str) -> Array:
    """Return an argument of a call as an array of a float type; targets may be integers."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold numbers, got the dtype {array.dtype}.")
    whole = name == "y_true" and array.dtype.kind in "iub"
    return np.ascontiguousarray(array, "int64" if whole else dtype).reshape(array.shape)


def fitting(weight: Tensor, values: Tensor, name: str) -> Tensor:
    """Return sample weights that go with values, without an axis of one that these lack."""
    if weight.ndim == values.ndim + 1 and weight.type.shape[-1] == 1:
        weight = weight[..., 0]
    pairs = zip(weight.type.shape, values.type.shape, strict=False)
    differ = any(w not in (None, 1) and v is not None and w != v for w, v in pairs)
    if weight.ndim > values.ndim or differ:
        raise ValueError(
            f"sample_weight of {name} has the shape {spell(weight.type.shape)}, but the values "
            f"have the shape {spell(values.type.shape)}: give a weight for each value, or for each "
            "example."
        )
    return weight


def number(value: float, like: Tensor) -> Array:
    """Return a number in the float type of a variable."""
    return np.asarray(value, dtype=like.dtype)


def check_share(value: float, name: str) -> float:
    """Return a number from 0 to 1, or raise."""
    if not 0 <= check_number(value, name) <= 1:
        raise ValueError(f"{name} is a share from 0 to 1, got {value}.")
    return value


def check_axis(value: int) -> int:
    """Return the number of an axis, or raise."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"axis is the number of an axis, got {value!r}.")
    return int(value)

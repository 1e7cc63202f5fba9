"""The base class of metrics: sums over batches, and a number from them."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from seqnet import backend, config
from seqnet.common.locking import COMPILING
from seqnet.common.types import Array, ArrayLike, Tensor
from seqnet.losses.logits import cast_output
from seqnet.losses.reduction import step_weights, symbolic
from seqnet.registry import Configurable


class Metric(Configurable):
    """The base class of metrics.

    A metric adds up statistics over batches, and computes its result from the totals. So the
    result is exact for any sizes of batches. A subclass names its statistics in `sums`, defines
    the symbolic `statistics` of a batch, and `compute_result` in NumPy. A metric that is a mean
    over steps is simpler: see `MeanMetricWrapper`, or pass a function to `seqnet.Model.compile`.

    Parameters
    ----------
    name : str, optional
        The name in the logs. Default: the registered name of the class.
    dtype : str, optional
        The float type that the statistics of a batch are computed in. Default: that of the
        model's output, and `seqnet.config.floatx` for arrays. Totals are float64.

    Examples
    --------
    >>> import seqnet
    >>> from seqnet.metrics import Metric, weighted_sum
    >>> class LargestError(Metric):
    ...     sums = ("large", "steps")
    ...
    ...     def statistics(self, y_true, y_pred, sample_weight):
    ...         large = abs(y_true - y_pred).max(axis=-1) > 0.5
    ...         return {
    ...             "large": weighted_sum(large, sample_weight),
    ...             "steps": sample_weight.sum(),
    ...         }
    ...
    ...     def compute_result(self, large, steps):
    ...         return large / steps
    >>> LargestError()([[0.0, 0.0], [1.0, 1.0]], [[0.1, 0.9], [1.0, 1.2]])
    0.5
    """

    sums: tuple[str, ...]
    """The names of the statistics."""

    direction: str | None = None
    """``"max"`` if a larger result is better, ``"min"`` if a smaller one is."""

    registered_name: str

    def __init__(self, name: str | None = None, dtype: str | None = None):
        if name is not None:
            self.name = name
        self.dtype = dtype

    # Used if the constructor of a subclass does not call this one.
    dtype: str | None = None
    _name: str | None = None
    _totals: list | None = None

    @property
    def name(self) -> str:
        """The name in the logs."""
        if self._name is not None:
            return self._name
        default = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()
        return getattr(self, "registered_name", default)

    @name.setter
    def name(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"The name of a metric is text, got {name!r}.")
        self._name = name

    @abstractmethod
    def statistics(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor
    ) -> dict[str, Tensor]:
        """Return the sums over a batch by name, as symbolic variables of any shape.

        Parameters
        ----------
        y_true : variable
            The targets.
        y_pred : variable (batch, ..., features)
            The predictions.
        sample_weight : variable (batch, ...)
            The weight of each step. It is 0 where a mask excludes the step, and then `y_true` and
            `y_pred` may hold anything: see `weighted_sum`.
        """

    @abstractmethod
    def compute_result(self, *sums: Any) -> Any:
        """Return the result, a number or an array, from the totals in the order of `sums`.

        The totals are float64 numbers and arrays. They may all be 0.
        """

    def of_logits(self) -> Metric:
        """Return the same metric for predictions that are logits."""
        return self

    @property
    def scalar(self) -> bool:
        """Whether the result is one number, as logs need it."""
        return True

    # ---- in a graph

    def graph(
        self, y_true: Tensor, y_pred: Tensor, weight: Tensor | None, mask: Tensor | None
    ) -> list[Tensor]:
        """Return the statistics of a batch in the order of `sums`.

        `weight` is (batch,) or (batch, time), `mask` bool of such a shape.
        """
        steps = y_pred[..., 0] if y_pred.ndim > 1 else y_pred
        weights = step_weights(steps, weight, mask)
        weights = pt.ones_like(steps) if weights is None else weights
        y_pred = self.converted(y_pred)
        return self.listed(
            symbolic(self.statistics, (y_true, y_pred, weights), f"The metric {self.name!r}")
        )

    def converted(self, y_pred: Tensor) -> Tensor:
        """Return predictions in the float type of this metric."""
        if self.dtype is None or self.dtype == y_pred.dtype:
            return y_pred
        return cast_output(y_pred, self.dtype)

    def listed(self, statistics: Any) -> list[Tensor]:
        """Return statistics by name as a list, or raise if some are missing or unknown."""
        if not isinstance(statistics, dict) or set(statistics) != set(self.sums):
            got = list(statistics) if isinstance(statistics, dict) else repr(statistics)
            raise TypeError(
                f"statistics of the metric {self.name!r} must return a dictionary with the names "
                f"in `sums`, {list(self.sums)}, got {got}."
            )
        return [pt.as_tensor_variable(statistics[name]) for name in self.sums]

    # ---- on arrays

    def update_state(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> None:
        """Add the statistics of a batch of arrays.

        Parameters
        ----------
        y_true : array
        y_pred : array (batch, ..., features) or (batch,)
        sample_weight : array (batch,) or (batch, ...), optional
            A step of weight 0 counts nothing.
        """
        self.add_batch([y_true, y_pred], sample_weight)

    def result(self) -> Any:
        """Return the result over all batches since the last `reset_state`; 0 without any."""
        return self.result_of(self._totals)

    def reset_state(self) -> None:
        """Forget all batches."""
        self._totals = None

    def __call__(self, *arrays: ArrayLike, **options: Any) -> Any:
        """Add the statistics of a batch, as `update_state`, and return the result so far."""
        self.update_state(*arrays, **options)
        return self.result()

    def add_batch(self, arrays: Sequence[ArrayLike], sample_weight: ArrayLike | None) -> None:
        """Add the statistics of a batch of arrays, by a function compiled at first use."""
        given = [self.as_array(array, array is arrays[-1]) for array in arrays]
        if len(given) > 1 and given[-1].ndim == 1:  # one output, as an axis of features
            given = [array[:, None] if array.ndim == 1 else array for array in given]
        steps = max(1, given[-1].ndim - 1) if len(given) > 1 else given[-1].ndim
        if sample_weight is not None:
            weight = np.asarray(sample_weight, given[-1].dtype)
            if weight.ndim == steps + 1 and weight.shape[-1] == 1:
                weight = weight[..., 0]
            if weight.ndim > steps or weight.shape != given[-1].shape[: weight.ndim]:
                raise ValueError(
                    f"sample_weight of the metric {self.name!r} must have the first axes of the "
                    f"predictions, which have the shape {given[-1].shape}; got {weight.shape}."
                )
            given.append(weight)
        # The size of the last axis is known to the function: some metrics are chosen by it.
        rank = given[len(arrays) - 1].ndim
        sizes = [a.shape[-1:] if a.ndim == rank > 1 else () for a in given]
        key = (sample_weight is not None, *[(a.dtype.name, a.ndim) for a in given], *sizes)
        functions: dict[tuple, Callable] = self.__dict__.setdefault("_functions", {})
        if key not in functions:
            with COMPILING:
                functions[key] = self.compiled(given, sizes, sample_weight is not None)
        found = [np.asarray(value, "float64") for value in functions[key](*given)]
        before = self._totals or [0.0] * len(found)
        self._totals = [total + value for total, value in zip(before, found, strict=True)]

    def compiled(
        self, arrays: Sequence[Array], sizes: Sequence[tuple[int, ...]], weighted: bool
    ) -> Callable:
        """Return a function of arrays like these, perhaps with weights, to their statistics."""
        variables = [
            pt.tensor(dtype=a.dtype.name, shape=(None,) * (a.ndim - len(last)) + last)
            for a, last in zip(arrays, sizes, strict=True)
        ]
        weight = variables.pop() if weighted else None
        given = variables if weight is None else [*variables, weight]
        graph: Callable = self.graph
        return backend.compile(given, graph(*variables, weight, None), name=self.name)

    def as_array(self, values: ArrayLike, floats: bool) -> Array:
        """Return values as an array of this metric's float type, or of integers."""
        if isinstance(values, Variable):
            raise TypeError(
                f"The metric {self.name!r} is called on arrays. In a graph of your own use a loss, "
                "or PyTensor's functions."
            )
        array = np.asarray(values)
        whole = array.dtype.kind in "iub" and not floats
        return np.ascontiguousarray(array, "int32" if whole else self.dtype or config.floatx())

    def result_of(self, totals: Sequence | None) -> Any:
        """Return the result from totals; 0 if there was no batch."""
        if totals is None:
            return 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            result = np.asarray(self.compute_result(*totals))
        return result if result.ndim else result.item()

    def __getstate__(self) -> dict:
        """Return the state to copy and pickle, without compiled functions."""
        return {k: v for k, v in self.__dict__.items() if k != "_functions"}


def divide_no_nan(numerator: Any, denominator: Any) -> Any:
    """Return a quotient of arrays or numbers, 0 where the denominator is 0.

    Examples
    --------
    >>> from seqnet.metrics import divide_no_nan
    >>> divide_no_nan([1.0, 2.0], [2.0, 0.0]).tolist()
    [0.5, 0.0]
    """
    numerator, denominator = np.asarray(numerator), np.asarray(denominator)
    zero = denominator == 0
    return np.where(zero, 0.0, numerator / np.where(zero, 1.0, denominator))

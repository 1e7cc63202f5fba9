"""From the values of steps to sums: sample weights, masks, and checks of returned values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from seqnet.common.types import Tensor, TensorLike


def step_weights(values: Tensor, weight: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Return the weight of each of a loss's values, of the same shape; None for all ones.

    `weight` is (batch,) or (batch, time), `mask` bool; their axes are the first ones of the values.
    A mask with more axes than the values counts nothing.
    """
    total = None
    if weight is not None:
        total = weight
        for _ in range(values.ndim - weight.ndim):
            total = total[..., None]
    if mask is not None and mask.ndim <= values.ndim:
        present = pt.cast(mask, values.dtype)
        for _ in range(values.ndim - mask.ndim):
            present = present[..., None]
        total = present if total is None else total * present
    return total if total is None else total + pt.zeros_like(values)


def weighted_sum(values: TensorLike, weights: Tensor | None) -> Tensor:
    """Return ``sum(weights * values)`` over the axes of the weights.

    A value of weight 0 counts nothing, even NaN.

    Parameters
    ----------
    values : variable, shape of the weights and perhaps more axes
    weights : variable, optional
        None is 1 for every value, and the sum is over all axes.

    Returns
    -------
    variable
        Its shape is the shape of the values without the axes of the weights.

    Examples
    --------
    >>> import numpy as np, pytensor.tensor as pt, seqnet
    >>> values = np.array([[1.0, 2.0], [3.0, np.nan], [5.0, 6.0]])  # 3 steps, 2 classes
    >>> total = seqnet.metrics.weighted_sum(values, pt.constant([1.0, 0.0, 2.0]))
    >>> total.eval(mode=seqnet.backend.mode()).tolist()
    [11.0, 14.0]
    """
    values = pt.as_tensor_variable(values)
    if weights is None:
        return pt.sum(values)
    axes = tuple(range(weights.ndim))
    for _ in range(values.ndim - weights.ndim):
        weights = weights[..., None]
    return pt.sum(pt.switch(pt.gt(weights, 0), weights * values, pt.zeros_like(values)), axis=axes)


def name_of(function: object) -> str:
    """Return what a loss is called in messages."""
    return getattr(function, "name", getattr(function, "__name__", type(function).__name__))


def values_of(function: Callable, y_true: Tensor, output: Tensor, what: str) -> Tensor:
    """Return the values of a loss or a metric, perhaps a user's own, as a variable."""
    values = symbolic(function, (y_true, output), what)
    if not isinstance(values, (Variable, np.ndarray, np.number, int, float)):
        kind = "None: does it end without a return?" if values is None else f"{values!r}."
        raise TypeError(
            f"{what} must return a PyTensor variable, one value for each example or step, but it "
            f"returned {kind}"
        )
    return pt.as_tensor_variable(values)


def symbolic(function: Callable, variables: tuple, what: str) -> object:
    """Return what a function of variables returns; its errors say what it was called with."""
    try:
        return function(*variables)
    except Exception as error:
        error.add_note(
            f"{what} was called with PyTensor variables (y_true, y_pred). It is made of PyTensor's "
            "functions, such as pytensor.tensor.mean; an array to be indexed by a variable is "
            "made one first: pytensor.tensor.as_tensor_variable(array)[y_true]."
        )
        raise

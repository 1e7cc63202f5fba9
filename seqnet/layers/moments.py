"""Means and variances over the unmasked steps, for layers that normalise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytensor.tensor as pt

from seqnet.common.types import Tensor
from seqnet.layers.calling import with_ndim


def moments(
    x: Tensor, axes: Sequence[int], present: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the mean and the variance over axes, and how many values they are of.

    Parameters
    ----------
    x : variable
    axes : sequence of int
        They remain, with size 1.
    present : bool variable, optional
        Where there is data; its axes are the first ones of x.

    Returns
    -------
    mean, variance, count
        Without any data both are 0. The variance is that of the values themselves, divided by their
        number. The count is None if all values are data.
    """
    if present is None:
        mean = pt.mean(x, axis=axes, keepdims=True)
        return mean, pt.mean(pt.sqr(x - mean), axis=axes, keepdims=True), None
    kept, zero = with_ndim(present, x.ndim), np.asarray(0, dtype=x.dtype)
    inside = math.prod(x.shape[axis] for axis in axes if axis >= present.ndim)
    count = pt.cast(pt.sum(kept, axis=axes, keepdims=True) * inside, x.dtype)
    over = pt.maximum(count, np.asarray(1, dtype=x.dtype))
    mean = pt.sum(pt.switch(kept, x, zero), axis=axes, keepdims=True) / over
    squares = pt.switch(kept, pt.sqr(x - mean), zero)
    return mean, pt.sum(squares, axis=axes, keepdims=True) / over, count

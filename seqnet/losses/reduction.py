"""From the values of steps to sums: sample weights and masks."""

from __future__ import annotations

import pytensor.tensor as pt

from seqnet.types import Tensor


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


def weighted_sum(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return ``sum(weights * values)``; a value of weight 0 counts nothing, even NaN."""
    if weights is None:
        return pt.sum(values)
    return pt.sum(pt.switch(pt.gt(weights, 0), weights * values, pt.zeros_like(values)))

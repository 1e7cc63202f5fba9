"""Normalisation of each step over its features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seqnet.common.checks import check_axis
from seqnet.common.types import Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.moments import moments
from seqnet.layers.normalization import Normalization
from seqnet.registry import register


@register("layer")
class LayerNormalization(Normalization):
    """Normalise each step over its features, then scale and shift (Ba et al., 2016).

    ``gamma (x - mean) / sqrt(variance + epsilon) + beta``, with the mean and the variance of each
    step's features. Steps do not depend on each other, and training does not differ from
    prediction.

    Parameters
    ----------
    axis : int or sequence of int
        The axes that are normalised together, whose sizes must be known. With a mask, they cannot
        be axes of steps.
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether there is a beta, and a gamma; both have the shape of the axes.
    beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer
        Names or objects of `seqnet.initializers` and `seqnet.regularizers`.
    beta_constraint, gamma_constraint
        Names or objects of `seqnet.constraints`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.LayerNormalization(epsilon=0.0)
    >>> layer(np.array([[1.0, 3.0], [10.0, 30.0]])).tolist()
    [[-1.0, 1.0], [-1.0, 1.0]]
    """

    def __init__(self, axis: int | Sequence[int] = -1, epsilon: float = 0.001, **kwargs: Any):
        super().__init__(epsilon, **kwargs)
        axes = axis if isinstance(axis, (list, tuple)) else [axis]
        checked = [check_axis(one, "An axis of LayerNormalization") for one in axes]
        self.axis = checked if isinstance(axis, (list, tuple)) else checked[0]

    @property
    def non_causal(self) -> str:  # type: ignore[override]
        """Why it cannot run step by step: it normalises over steps."""
        axes = [self.axis] if isinstance(self.axis, int) else self.axis
        return "normalises over all steps" if 1 in axes else ""

    def parameter_axes(self, ndim: int) -> list[int]:
        return self.own_axes(self.axis, ndim)

    def masking_hint(self) -> str:
        return "Normalise over the features alone (axis=-1)."

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        x, axes = self.floats(inputs), self.parameter_axes(inputs.ndim)
        if mask is not None and axes[0] < mask.ndim:
            raise self.mask_error()
        mean, variance, _ = moments(x, axes)
        return self.scaled(self.normalized(x, mean, variance))

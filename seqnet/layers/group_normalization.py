"""Normalisation of each sequence over groups of its features."""

from __future__ import annotations

from typing import Any

from seqnet.common.checks import check_count
from seqnet.common.types import Shape, Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.moments import moments
from seqnet.layers.normalization import Normalization
from seqnet.registry import register


@register("layer")
class GroupNormalization(Normalization):
    """Normalise each example over its steps and groups of features (Wu and He, 2018).

    Input and output ``(batch, ..., features)``: ``gamma (x - mean) / sqrt(variance + epsilon) +
    beta``, with the mean and the variance of the features of a group at all unmasked steps.

    Parameters
    ----------
    groups : int
        It divides the number of features; -1 is a group for each feature.
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether there is a beta, and a gamma; both have the shape (features,).
    beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer
        Names or objects of `seqnet.initializers` and `seqnet.regularizers`.
    beta_constraint, gamma_constraint
        Names or objects of `seqnet.constraints`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.GroupNormalization(groups=1, epsilon=0.0)
    >>> layer(np.array([[[1.0], [3.0]]])).tolist()
    [[[-1.0], [1.0]]]
    """

    non_causal = "normalises over all steps"

    def __init__(self, groups: int = 32, epsilon: float = 0.001, **kwargs: Any):
        super().__init__(epsilon, **kwargs)
        self.groups = groups if groups == -1 else check_count(groups, "groups")

    def build(self, input_shape: Shape) -> None:
        features = self.needed_features(input_shape)
        self.number = features if self.groups == -1 else self.groups
        if features % self.number:
            raise ValueError(
                f"Layer {self.display_name!r} (GroupNormalization) has {self.number} groups, which "
                f"do not divide the {features} features of its input."
            )
        super().build(input_shape)

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        x, sizes = self.floats(inputs), tuple(inputs.shape)
        grouped = x.reshape((*sizes[:-1], self.number, -1), ndim=x.ndim + 1)
        axes = [axis for axis in range(1, grouped.ndim) if axis != grouped.ndim - 2]
        mean, variance, _ = moments(grouped, axes, mask)
        return self.scaled(self.normalized(grouped, mean, variance).reshape(sizes, ndim=x.ndim))

"""Normalisation of each feature over the steps of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.tensor.sharedvar import TensorSharedVariable

from seqnet import initializers
from seqnet.common.checks import check_axis, check_number
from seqnet.common.types import Shape, Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.moments import moments
from seqnet.layers.normalization import Normalization
from seqnet.registry import Identifier, register


@register("layer")
class BatchNormalization(Normalization):
    """Normalise each feature over a batch, then scale and shift (Ioffe and Szegedy, 2015).

    ``gamma (x - mean) / sqrt(variance + epsilon) + beta``. In training, the mean and the variance
    are those of the unmasked steps of the batch, and moving averages follow them::

        moving_mean     = momentum moving_mean     + (1 - momentum) mean
        moving_variance = momentum moving_variance + (1 - momentum) variance

    Otherwise the moving averages are used: in evaluation and prediction, and also in training if
    `trainable` is False, as in Keras 3. They are weights that optimizers do not change, and are
    saved and resumed with the others.

    Parameters
    ----------
    axis : int
        The axis of the features.
    momentum : float
        In ``[0, 1]``.
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether there is a beta, and a gamma; both have the shape (features,).
    beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer
        Names or objects of `seqnet.initializers` and `seqnet.regularizers`.
    beta_constraint, gamma_constraint
        Names or objects of `seqnet.constraints`.
    moving_mean_initializer, moving_variance_initializer
        Names or objects of `seqnet.initializers`.

    Notes
    -----
    The variance is divided by the number of steps, not by one less. A batch without any unmasked
    step leaves the moving averages as they are.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.BatchNormalization(epsilon=0.0)
    >>> layer(np.array([[1.0], [3.0]])).tolist()     # by the moving averages
    [[1.0], [3.0]]
    >>> layer(np.array([[1.0], [3.0]]), training=True).tolist()
    [[-1.0], [1.0]]
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Identifier = "zeros",
        gamma_initializer: Identifier = "ones",
        moving_mean_initializer: Identifier = "zeros",
        moving_variance_initializer: Identifier = "ones",
        **kwargs: Any,
    ):
        super().__init__(epsilon, center, scale, beta_initializer, gamma_initializer, **kwargs)
        self.axis = check_axis(axis, "The axis of BatchNormalization")
        self.momentum = check_number(momentum, "momentum")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum!r}.")
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)

    def parameter_axes(self, ndim: int) -> list[int]:
        return self.own_axes(self.axis, ndim)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        shape = self.parameter_shape(input_shape)
        self.moving_mean = self.add_weight(
            "moving_mean", shape, self.moving_mean_initializer, trainable=False
        )
        self.moving_variance = self.add_weight(
            "moving_variance", shape, self.moving_variance_initializer, trainable=False
        )

    def structure(self) -> tuple:
        return (*super().structure(), self.trainable)

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        x, moving = self.floats(inputs), (self.moving_mean, self.moving_variance)
        if not (context.training and self.trainable):
            mean, variance = (self.along(weight, x.ndim) for weight in moving)
            return self.scaled(self.normalized(x, mean, variance))
        own = self.parameter_axes(x.ndim)
        axes = [axis for axis in range(x.ndim) if axis not in own]
        mean, variance, count = moments(x, axes, context.present(mask))
        for weight, value in zip(moving, (mean, variance), strict=True):
            self.follow(weight, value, count, context)
        return self.scaled(self.normalized(x, mean, variance))

    def follow(
        self,
        weight: TensorSharedVariable,
        value: Tensor,
        count: Tensor | None,
        context: CallContext,
    ) -> None:
        """Store the next value of a moving average, which is unchanged without data."""
        before = context.updates.get(weight, weight)
        kept = np.asarray(self.momentum, dtype=weight.dtype)
        rest = np.asarray(1 - self.momentum, dtype=weight.dtype)
        after = kept * before + rest * value.flatten()
        if count is not None:
            after = pt.switch(pt.gt(count.flatten(), 0), after, before)
        context.assign(weight, after)

"""Noise that is added to the inputs, or multiplies them, while training."""

from __future__ import annotations

from typing import Any

import pytensor.tensor as pt

from seqnet.common.hyperparameters import Hyperparameter, Rate, numbers_of
from seqnet.common.types import Shape, Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.seeded import Seeded
from seqnet.registry import register


class Noise(Seeded):
    """The base of layers that draw a normal value for each element while training."""

    takes_several_inputs = False

    def build(self, input_shape: Shape) -> None:
        self.generator = self.add_generator()

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@register("layer")
class GaussianNoise(Noise):
    """Add normal values of mean 0 during training.

    Parameters
    ----------
    stddev : float
        Their standard deviation. It can be set at any time, also during training; a new graph is
        compiled only if it becomes 0 or was 0.
    seed : int, optional
        As for `Dropout`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.GaussianNoise(0.1)
    >>> layer(np.ones((1, 2))).tolist()          # not training: nothing is added
    [[1.0, 1.0]]
    """

    stddev = Hyperparameter()

    def __init__(self, stddev: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.stddev = stddev

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        if not context.training or self.stddev == 0:
            return inputs
        stddev = pt.cast(numbers_of(self)["stddev"], inputs.dtype)
        return inputs + stddev * context.normal(self.generator, tuple(inputs.shape), inputs.dtype)


@register("layer")
class GaussianDropout(Noise):
    """Multiply by normal values of mean 1 during training (Srivastava et al., 2014, section 10).

    Their standard deviation is ``sqrt(rate / (1 - rate))``, that of dropout's factors.

    Parameters
    ----------
    rate : float
        In ``[0, 1)``. It can be set at any time, also during training; a new graph is compiled only
        if it becomes 0 or was 0.
    seed : int, optional
        As for `Dropout`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.GaussianDropout(0.5)
    >>> layer(np.ones((1, 2))).tolist()          # not training: nothing is changed
    [[1.0, 1.0]]
    """

    rate = Rate()

    def __init__(self, rate: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = rate

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        if not context.training or self.rate == 0:
            return inputs
        rate = numbers_of(self)["rate"]
        stddev = pt.cast(pt.sqrt(rate / (1 - rate)), inputs.dtype)
        drawn = context.normal(self.generator, tuple(inputs.shape), inputs.dtype)
        return inputs * (1 + stddev * drawn)

"""Repetition of a vector along time."""

from __future__ import annotations

from typing import Any, cast

import pytensor.tensor as pt

from seqnet.common.checks import check_count
from seqnet.common.types import Shape, Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.registry import register


@register("layer")
class RepeatVector(Layer):
    """Repeat a vector at every step of a sequence, as between an encoder and a decoder.

    Input ``(batch, features)``, output ``(batch, n, features)``.

    Parameters
    ----------
    n : int
        Number of steps.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.RepeatVector(2)(np.array([[1.0, 2.0]])).tolist()
    [[[1.0, 2.0], [1.0, 2.0]]]
    """

    input_axes = ("batch", "features")
    supports_masking = False
    non_causal = "makes all steps from one input"

    def __init__(self, n: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.n = check_count(n, "The n of RepeatVector")

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        steps = pt.alloc(inputs[:, None, :], inputs.shape[0], self.n, inputs.shape[1])
        return cast(Tensor, steps)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.n, input_shape[1])

"""Layers that apply an activation."""

from __future__ import annotations

from typing import Any

from seqnet import activations
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.registry import Identifier, register
from seqnet.types import Shape, Tensor


@register("layer")
class Activation(Layer):
    """Apply an activation to every element (softmax: over the last axis).

    Parameters
    ----------
    activation : str or callable
        A name of `seqnet.activations` or a function of a PyTensor variable.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Activation("relu")(np.array([[-1.0, 2.0]])).eval().tolist()
    [[0.0, 2.0]]
    """

    takes_several_inputs = False

    def __init__(self, activation: Identifier | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        return activations.apply(self.activation, inputs)


@register("layer")
class Softmax(Layer):
    """Exponentials normalised over the last axis: ``exp(x_k) / sum_j exp(x_j)``.

    Works on ``(batch, classes)`` and ``(batch, time, classes)``. A cross-entropy that follows uses
    the logits, so nothing saturates.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Softmax()(np.zeros((1, 2))).eval().tolist()
    [[0.5, 0.5]]
    """

    takes_several_inputs = False

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        return activations.softmax(inputs)

"""Layers that apply an activation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet import activations
from seqnet.common.checks import check_axis
from seqnet.common.types import Shape, Tensor
from seqnet.layers.calling import own_axis, with_ndim
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.registry import Identifier, register


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
    >>> seqnet.layers.Activation("relu")(np.array([[-1.0, 2.0]])).tolist()
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
class Identity(Layer):
    """Return the input.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Identity()(np.ones((1, 2))).tolist()
    [[1.0, 1.0]]
    """

    takes_several_inputs = False

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        return inputs


@register("layer")
class Softmax(Layer):
    """Exponentials normalised over an axis: ``exp(x_k) / sum_j exp(x_j)``.

    Works on ``(batch, classes)`` and ``(batch, time, classes)``. A cross-entropy that follows uses
    the logits, so nothing saturates.

    Parameters
    ----------
    axis : int
        With an axis of steps, masked steps get 0, and the others add up to 1.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Softmax()(np.zeros((1, 2))).tolist()
    [[0.5, 0.5]]
    """

    takes_several_inputs = False

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = check_axis(axis, "The axis of Softmax")

    @property
    def non_causal(self) -> str:  # type: ignore[override]
        """Why it cannot run step by step: it normalises over steps."""
        return "normalises over all steps" if self.axis == 1 else ""

    def check_axes(self, input_shape: Shape) -> None:
        own_axis(self, self.axis, len(input_shape))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        axis = own_axis(self, self.axis, inputs.ndim)
        if mask is None or axis >= mask.ndim:
            return activations.softmax(inputs, axis)
        present = with_ndim(mask, inputs.ndim)
        least = np.asarray(np.finfo(inputs.dtype).min, dtype=inputs.dtype)
        shares = activations.softmax(pt.switch(present, inputs, least), axis)
        return pt.switch(present, shares, np.asarray(0, dtype=inputs.dtype))

"""An input scaled by one learned gate for each example and step."""

from __future__ import annotations

from typing import Any

import pytensor.tensor as pt

from seqnet.common.types import Shape, Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.dense import Dense
from seqnet.registry import Identifier, register


@register("layer")
class GatedInput(Dense):
    """Scale the input by one learned gate: ``output = gate * inputs``.

    ``gate = activation(inputs @ kernel + bias)``, one number between 0 and 1 for each example and
    step. Input ``(batch, ..., features)``, output of the same shape.

    Source: `GatedInput` of theano_lstm, whose gate also depends on the state of the layer above and
    which returns only the gate. Here the gate depends only on the input and is applied to it; a
    gate that depends on a state is part of a cell (see `Recurrent.step`).

    Weights: `kernel` (features, 1), `bias` (1,).

    Parameters
    ----------
    activation : str or callable
        Of the gate, by default sigmoid.
    **kwargs
        See `Dense`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.GatedInput(kernel_initializer="zeros")])
    >>> model.predict(np.array([[2.0, 4.0]], "float32")).tolist()      # half open
    [[1.0, 2.0]]
    """

    def __init__(self, *, activation: Identifier | None = "sigmoid", **kwargs: Any):
        super().__init__(1, activation, **kwargs)

    @classmethod
    def parameters(cls) -> list[str]:
        return [name for name in super().parameters() if name != "units"]  # always 1

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        gate = super().call(inputs, mask, context)
        return pt.specify_broadcastable(gate, gate.ndim - 1) * pt.cast(inputs, self.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

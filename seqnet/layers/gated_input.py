"""An input scaled by one learned gate for each example and step."""

from __future__ import annotations

import pytensor.tensor as pt

from seqnet.layers.dense import Dense
from seqnet.registry import register


@register("layer")
class GatedInput(Dense):
    """Let an input pass as far as one learned number says: ``output = gate * inputs``.

    ``gate = activation(inputs @ kernel + bias)``, one number between 0 and 1 for each example and
    step. Input ``(batch, ..., features)``, output of the same shape.

    Source: `GatedInput` of theano_lstm, whose gate also reads the state of the layer above, and
    which gives the gate alone. Here it is a layer like any other, so it reads its input alone and
    applies its gate; a gate that reads a state belongs into a cell (see `Recurrent.step`).

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

    def __init__(self, *, activation="sigmoid", **kwargs):
        super().__init__(1, activation, **kwargs)

    @classmethod
    def parameters(cls):
        return [name for name in super().parameters() if name != "units"]  # it is always one

    def call(self, inputs, mask, context):
        gate = super().call(inputs, mask, context)
        return pt.specify_broadcastable(gate, gate.ndim - 1) * pt.cast(inputs, self.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

"""An input scaled by one learned gate for each example and step."""

from __future__ import annotations

import pytensor.tensor as pt

from seqnet import activations, initializers, regularizers
from seqnet.layers.dense import affine
from seqnet.layers.layer import Layer
from seqnet.registry import register


@register("layer")
class GatedInput(Layer):
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
    use_bias : bool
    kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer
        Names or objects of `seqnet.initializers` and `seqnet.regularizers`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.GatedInput(kernel_initializer="zeros")])
    >>> model.predict(np.array([[2.0, 4.0]], "float32")).tolist()      # half open
    [[1.0, 2.0]]
    """

    def __init__(
        self,
        *,
        activation="sigmoid",
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)

    def build(self, input_shape):
        if len(input_shape) < 2:
            raise ValueError(
                f"Layer {self.display_name!r} (GatedInput) takes (batch, ..., features), got the "
                f"shape {input_shape}."
            )
        features = self.needed_features(input_shape)
        self.kernel = self.add_weight(
            "kernel", (features, 1), self.kernel_initializer, regularizer=self.kernel_regularizer
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                "bias", (1,), self.bias_initializer, regularizer=self.bias_regularizer
            )

    def call(self, inputs, mask, phase):
        inputs = pt.cast(inputs, self.dtype)
        gate = self.activation(affine(inputs, self.kernel, self.bias, phase.kernels))
        return pt.specify_broadcastable(gate, gate.ndim - 1) * inputs

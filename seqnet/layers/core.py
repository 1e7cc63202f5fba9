"""Layers without weights: activations, dropout, masking, and a layer applied to every step."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt

from seqnet import activations, registry
from seqnet.layers.layer import Layer
from seqnet.losses import softmax_logits
from seqnet.ops.dropout import dropout_mask
from seqnet.registry import register


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

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, inputs, mask, phase):
        return self.activation(inputs)


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

    def call(self, inputs, mask, phase):
        return activations.softmax(inputs)


@register("layer")
class Dropout(Layer):
    """Set a share of the inputs to zero during training and scale the rest up.

    Kept values are multiplied by ``1 / (1 - rate)`` (inverted dropout, Srivastava et al., 2014),
    so that prediction needs no change.

    Parameters
    ----------
    rate : float
        Share that is dropped, in ``[0, 1)``. (theano_lstm and Keras 1 call this p.)
    noise_shape : tuple, optional
        Shape of the mask, None for the input's own size and 1 for "the same along this axis":
        ``(None, 1, None)`` draws one mask per sequence.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.Dropout(0.5)
    >>> layer(np.ones((1, 3))).eval().tolist()          # not training: nothing is dropped
    [[1.0, 1.0, 1.0]]
    """

    def __init__(self, rate: float, *, noise_shape=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"The rate is the share to drop, in [0, 1); got {rate}.")
        self.rate = float(rate)
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)

    def build(self, input_shape):
        self.generator = self.add_generator()

    def call(self, inputs, mask, phase):
        if not phase.training or self.rate == 0:
            return inputs
        sizes = tuple(inputs.shape)
        if self.noise_shape is not None:
            if len(self.noise_shape) != inputs.ndim:
                raise ValueError(
                    f"noise_shape {self.noise_shape} of layer {self.display_name!r} does not have "
                    f"the rank {inputs.ndim} of its input."
                )
            sizes = tuple(
                own if n is None else n for own, n in zip(sizes, self.noise_shape, strict=True)
            )
        current = phase.updates.get(self.generator, self.generator)
        phase.updates[self.generator], kept = dropout_mask(current, sizes, self.rate, inputs.dtype)
        if self.noise_shape is not None:
            ones = [axis for axis, n in enumerate(self.noise_shape) if n == 1]
            kept = pt.specify_broadcastable(kept, *ones) if ones else kept
        return inputs * kept


@register("layer")
class Masking(Layer):
    """Mark steps as padding: those whose features all equal `mask_value`.

    Input and output ``(batch, time, features)``; later layers get the mask, and the masked steps
    become zero (as in Keras).

    Parameters
    ----------
    mask_value : float
        The value that means padding; it must be finite.

    Examples
    --------
    >>> import seqnet
    >>> layer = seqnet.layers.Masking(mask_value=-1.0)
    """

    input_rank = 3

    def __init__(self, mask_value: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        if not np.isfinite(mask_value):
            raise ValueError(f"mask_value must be finite, got {mask_value}.")
        self.mask_value = float(mask_value)

    def rank_hint(self):
        return " (batch, time, features)"

    def call(self, inputs, mask, phase):
        present = self.compute_mask(inputs, mask)
        return pt.switch(present[:, :, None], inputs, np.asarray(0, dtype=inputs.dtype))

    def compute_mask(self, inputs, mask):
        value = np.asarray(self.mask_value, dtype=inputs.dtype)
        present = pt.any(pt.neq(inputs, value), axis=-1)
        return present if mask is None else mask & present


@register("layer")
class TimeDistributed(Layer):
    """Apply a layer to every step of a sequence by itself.

    Input ``(batch, time, ...)``; the wrapped layer sees ``(batch * time, ...)``. `Dense`,
    `Softmax`, `Activation` and `Dropout` do this on their own and need no wrapping.

    Parameters
    ----------
    layer : Layer

    Examples
    --------
    >>> import seqnet
    >>> layer = seqnet.layers.TimeDistributed(seqnet.layers.Dense(8))
    """

    def __init__(self, layer: Layer, **kwargs):
        if isinstance(layer, dict):
            layer = registry.get("layer", layer)
        super().__init__(dtype=kwargs.pop("dtype", layer.dtype), **kwargs)
        self.layer = layer
        self.needs_length = layer.needs_length

    @classmethod
    def _revive(cls, value, custom_objects):
        if isinstance(value, dict) and "name" in value:
            return registry.get("layer", value, custom_objects)
        return value

    def build(self, input_shape):
        if len(input_shape) < 3:
            raise ValueError(
                f"Layer {self.display_name!r} (TimeDistributed) takes (batch, time, ...), got the "
                f"shape {input_shape}."
            )
        own_name = self.layer.display_name.rpartition("/")[2]
        self.layer.name = f"{self.display_name}/{own_name}"
        self.layer.ensure_built((None, *input_shape[2:]))
        self.weights = self.layer.weights
        self.penalties = self.layer.penalties
        self.generators = self.layer.generators

    def call(self, inputs, mask, phase):
        sizes = tuple(inputs.shape)
        steps = inputs.reshape((-1, *sizes[2:]), ndim=inputs.ndim - 1)
        output = self.layer.call(steps, None, phase)
        whole = (sizes[0], sizes[1], *tuple(output.shape)[1:])
        logits = softmax_logits(output)
        if logits is not None:  # the softmax goes outside, where a loss can see it
            return activations.softmax(logits.reshape(whole, ndim=output.ndim + 1))
        return output.reshape(whole, ndim=output.ndim + 1)

    def compute_output_shape(self, input_shape):
        inner = self.layer.compute_output_shape((None, *input_shape[2:]))
        return (*input_shape[:2], *inner[1:])

"""Layers that hold other layers: one applied to every step, and one read in both directions."""

from __future__ import annotations

import pytensor.tensor as pt

from seqnet import activations, registry
from seqnet.layers.calling import masks_together
from seqnet.layers.layer import Layer
from seqnet.layers.recurrent import Recurrent
from seqnet.layers.states import Stateful
from seqnet.logits import softmax_logits
from seqnet.registry import register


class Wrapper(Layer):
    """A layer around another one; its own dtype is that one's unless given.

    It has no weights besides those of the layers that it wraps, so it is `trainable` where one of
    them is, and setting that sets it for all of them.

    Parameters
    ----------
    layer : Layer
    """

    def __init__(self, layer: Layer, **kwargs):
        if not isinstance(layer, Layer):
            raise TypeError(f"{type(self).__name__} wraps a layer, got {layer!r}.")
        super().__init__(**({"dtype": layer.dtype} | kwargs))
        self.layer = layer
        if "trainable" in kwargs:
            layer.trainable = self._trainable

    @property
    def trainable(self) -> bool:
        """Whether training changes weights of a wrapped layer; set, it is set for all of them."""
        return any(layer.trainable for layer in self.inner_layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.inner_layers:
            layer.trainable = value

    def get_config(self):
        return {name: v for name, v in super().get_config().items() if name != "trainable"}

    @classmethod
    def _revive(cls, value, custom_objects):
        if isinstance(value, dict) and "name" in value:
            return registry.get("layer", value, custom_objects)
        return value

    @property
    def inner_layers(self) -> tuple[Layer, ...]:
        """The wrapped layer."""
        return (self.layer,)

    @property
    def needs_length(self) -> bool:
        """What the wrapped layers need."""
        return any(layer.needs_length for layer in self.inner_layers)

    def build_inner(self, layer: Layer, prefix: str, input_shape) -> None:
        """Name and build a wrapped layer, and enter what it has as this one's."""
        own_name = layer.display_name.rpartition("/")[2].removeprefix(prefix)
        layer.name = f"{self.display_name}/{prefix}{own_name}"
        layer.ensure_built(input_shape)
        self.enter(layer)


@register("layer")
class TimeDistributed(Wrapper):
    """Apply a layer to every step of a sequence by itself.

    Input ``(batch, time, ...)``; the wrapped layer sees ``(batch * time, ...)``. `Dense`,
    `Softmax`, `Activation` and `Dropout` do this on their own and need no wrapping.

    Parameters
    ----------
    layer : Layer

    Notes
    -----
    A mask ``(batch, time)`` goes past the wrapped layer to the next one. Of a mask with more axes,
    such as ``(batch, sentences, words)`` from an `Embedding` of sentences, the wrapped layer gets
    each step's own part. If it uses that up, as an `LSTM` does that gives one vector for each
    sentence, the next layer gets the mask ``(batch, sentences)`` of the sentences that have a word;
    one without is padding.

    Examples
    --------
    >>> import seqnet
    >>> layer = seqnet.layers.TimeDistributed(seqnet.layers.Dense(8))
    """

    def __init__(self, layer: Layer, **kwargs):
        super().__init__(layer, **kwargs)
        if self.layer.has_multiple_outputs:
            raise ValueError(
                f"TimeDistributed applies a layer of one output; {self.layer.display_name!r} gives "
                "several (return_state=True)."
            )

    def check_axes(self, input_shape):
        if len(input_shape) < 3:
            raise ValueError(
                f"Layer {self.display_name!r} (TimeDistributed) takes (batch, time, ...), got the "
                f"shape {input_shape}."
            )

    @property
    def integer_input(self) -> bool:
        """What the wrapped layer takes."""
        return self.layer.integer_input

    def check_input(self, values, name):
        self.layer.check_input(values, name)

    def build(self, input_shape):
        self.build_inner(self.layer, "", (None, *input_shape[2:]))

    def call(self, inputs, mask, context):
        sizes = tuple(inputs.shape)
        steps = inputs.reshape((-1, *sizes[2:]), ndim=inputs.ndim - 1)
        output = self.layer(steps, mask=self.inner_mask(mask), context=context)
        whole = (sizes[0], sizes[1], *tuple(output.shape)[1:])
        logits = softmax_logits(output)
        if logits is not None:  # the softmax goes outside, where a loss can see it
            return activations.softmax(logits.reshape(whole, ndim=output.ndim + 1))
        return output.reshape(whole, ndim=output.ndim + 1)

    @staticmethod
    def inner_mask(mask):
        """Return the part of a mask that lies within the steps, (batch * time, ...), or None."""
        if mask is None or mask.ndim < 3:
            return None
        return mask.reshape((-1, *tuple(mask.shape)[2:]), ndim=mask.ndim - 1)

    def compute_output_shape(self, input_shape):
        inner = self.layer.compute_output_shape((None, *input_shape[2:]))
        return (*input_shape[:2], *inner[1:])

    def compute_mask(self, inputs, mask):
        sizes = tuple(inputs.shape)
        steps = inputs.reshape((-1, *sizes[2:]), ndim=inputs.ndim - 1)
        inner = self.layer.compute_mask(steps, self.inner_mask(mask))
        outer = mask
        if outer is not None and outer.ndim > 2:
            outer = outer.any(axis=tuple(range(2, outer.ndim)))
        if inner is not None:
            inner = inner.reshape((*sizes[:2], *tuple(inner.shape)[1:]), ndim=inner.ndim + 1)
        return masks_together(outer, inner)

    def known_mask(self, values):
        return self.layer.known_mask(values)


MERGES = {
    "concat": lambda forth, back: pt.concatenate([forth, back], axis=-1),
    "sum": lambda forth, back: forth + back,
    "mul": lambda forth, back: forth * back,
    "ave": lambda forth, back: (forth + back) / 2,
    None: lambda forth, back: [forth, back],
}


@register("layer")
class Bidirectional(Wrapper, Stateful):
    """Read a sequence from both ends with two recurrent layers and merge their outputs.

    Input ``(batch, time, features)``; output ``(batch, units)``, or ``(batch, time, units)`` if the
    layer has `return_sequences`; twice the units with ``"concat"``. At each step the second half
    has read from the end of the sequence to that step (its outputs are turned round again, into
    the order of the input). Each half keeps its state at masked steps, so a sequence's own end is
    where the second half starts, wherever the padding is. Source: Schuster and Paliwal,
    "Bidirectional recurrent neural networks" (1997); arguments as in Keras 3.

    Parameters
    ----------
    layer : Recurrent
        The first half; the second is made like it, with `go_backwards` turned round and weights of
        its own.
    merge_mode : "concat", "sum", "mul", "ave" or None
        How the two outputs become one; None gives the list of both (not in a stack of layers).
    backward_layer : Recurrent, optional
        The second half, where it differs from the first.

    Notes
    -----
    With `return_state` a call gives [output, *states of the first half, *states of the second], in
    the order in which `initial_state` takes them. With `stateful` both halves carry their states
    on; only the first half's are those of a longer sequence.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.layers import LSTM, Bidirectional
    >>> model = seqnet.Model([Bidirectional(LSTM(4, return_sequences=True))])
    >>> model.predict(np.zeros((2, 3, 5), "float32"), verbose=0).shape
    (2, 3, 8)
    """

    input_axes = ("batch", "time", "features")
    non_causal = "reads from both ends"

    def __init__(self, layer, merge_mode: str | None = "concat", backward_layer=None, **kwargs):
        super().__init__(layer, **kwargs)
        if not isinstance(self.layer, Recurrent):
            raise TypeError(f"Bidirectional wraps a recurrent layer, got {self.layer!r}.")
        if self.input_shape is None:
            self.input_shape = self.layer.input_shape
        if merge_mode not in list(MERGES):
            known = ", ".join(repr(mode) for mode in MERGES)
            raise ValueError(f"merge_mode is one of {known}; got {merge_mode!r}.")
        self.merge_mode = merge_mode
        self.backward_layer = turned_round(self.layer) if backward_layer is None else backward_layer
        self._check_halves()
        if "trainable" in kwargs:
            self.trainable = kwargs["trainable"]

    def _check_halves(self) -> None:
        forth, back = self.inner_layers
        if not isinstance(back, Recurrent) or forth is back:
            raise TypeError(f"backward_layer is another recurrent layer, got {back!r}.")
        if forth.go_backwards == back.go_backwards:
            raise ValueError(
                "The two halves of a Bidirectional read in opposite directions: give "
                f"backward_layer go_backwards={not forth.go_backwards}."
            )
        same = ["return_sequences", "return_state", "stateful", "dtype"]
        same += ["units"] if self.merge_mode in ("sum", "mul", "ave") else []
        for name in same:
            if getattr(forth, name) != getattr(back, name):
                raise ValueError(
                    f"The two halves of a Bidirectional must have the same {name}, got "
                    f"{getattr(forth, name)!r} and {getattr(back, name)!r}."
                )

    @property
    def inner_layers(self) -> tuple[Layer, ...]:
        """The two halves."""
        return (self.layer, self.backward_layer)

    @property
    def has_multiple_outputs(self) -> bool:
        """A call gives a list with `return_state` and without a merge."""
        return self.layer.return_state or self.merge_mode is None

    @property
    def stateful(self) -> bool:
        """Whether the halves carry their states from batch to batch."""
        return self.layer.stateful

    def runs_as(self, way_of):
        ways = [half.runs_as(way_of) for half in self.inner_layers]
        return ways[0] if ways[0] == ways[1] else " and ".join(ways)

    def build(self, input_shape):
        self.needed_features(input_shape)
        self.build_inner(self.layer, "forward_", input_shape)
        self.build_inner(self.backward_layer, "backward_", input_shape)

    def call(self, inputs, mask, context, initial_state=None):
        outputs, last = [], []
        for half, given in zip(self.inner_layers, self.halves_of(initial_state), strict=True):
            result = half(inputs, mask=mask, context=context, initial_state=given)
            output, *states = result if half.return_state else [result]
            turn = half.go_backwards and half.return_sequences
            outputs.append(output[:, ::-1] if turn else output)
            last += states
        merged = MERGES[self.merge_mode](*outputs)
        if not self.layer.return_state:
            return merged
        return [*(merged if isinstance(merged, list) else [merged]), *last]

    def halves_of(self, states) -> tuple:
        """Return the initial states of each half, from those of both in one list."""
        if states is None:
            return (None, None)
        names = [f"{half.name}/{n}" for half in self.inner_layers for n in half.state_names]
        if not isinstance(states, (list, tuple)) or len(states) != len(names):
            raise ValueError(
                f"Layer {self.display_name!r} takes initial_state as a list of {len(names)}: "
                f"{', '.join(names)}."
            )
        first = len(self.layer.state_names)
        return (list(states[:first]), list(states[first:]))

    def compute_output_shape(self, input_shape):
        shapes = [half.compute_output_shape(input_shape) for half in self.inner_layers]
        if self.merge_mode == "concat":
            return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))
        return shapes[0]

    def compute_mask(self, inputs, mask):
        return mask if self.layer.return_sequences else None


def turned_round(layer: Recurrent) -> Recurrent:
    """Return a new layer with the arguments of another that reads the other way."""
    arguments = {name: getattr(layer, name) for name in layer.parameters()}
    return type(layer)(**(arguments | {"go_backwards": not layer.go_backwards}))

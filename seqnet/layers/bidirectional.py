"""Two recurrent layers that read a sequence from both ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytensor.tensor as pt

from seqnet.common.types import Shape, Tensor, TensorLike
from seqnet.layers.calling import items_of
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.layers.recurrent import Loop
from seqnet.layers.states import InitialState, Stateful
from seqnet.layers.wrapper import Wrapper
from seqnet.ops.recurrence import Recurrence
from seqnet.registry import register

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
    has read from the end of the sequence to that step; its outputs are reversed into the order of
    the input. Each half keeps its state at masked steps, so the second half starts at the
    last unmasked step of each sequence, wherever the padding is. Source: Schuster and Paliwal,
    "Bidirectional recurrent neural networks" (1997); arguments as in Keras 3.

    Parameters
    ----------
    layer : recurrent layer
        The forward layer. By default the backward layer has the same arguments, the opposite
        `go_backwards`, and separate weights.
    merge_mode : "concat", "sum", "mul", "ave" or None
        How the two outputs are merged; None returns the list of both (not in a model).
    backward_layer : recurrent layer, optional
        The backward layer, if it differs from the forward layer.

    Notes
    -----
    With `return_state` a call returns ``[output, *forward states, *backward states]``, in the order
    in which `initial_state` takes them. With `stateful` both halves carry their states; only those
    of the forward half continue a longer sequence. With `resets`, the forward half starts anew at
    the first step of each sequence in a row, and the backward half at the last one.

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

    def __init__(
        self,
        layer: Loop,
        merge_mode: str | None = "concat",
        backward_layer: Loop | None = None,
        **kwargs: Any,
    ):
        super().__init__(layer, **kwargs)
        if not isinstance(self.layer, Loop):
            raise TypeError(f"Bidirectional wraps a recurrent layer, got {self.layer!r}.")
        if self.input_shape is None:
            self.input_shape = self.layer.input_shape
        if merge_mode not in list(MERGES):
            known = ", ".join(repr(mode) for mode in MERGES)
            raise ValueError(f"merge_mode is one of {known}; got {merge_mode!r}.")
        self.merge_mode = merge_mode
        self.backward_layer = (
            reversed_layer(self.layer) if backward_layer is None else backward_layer
        )
        self._check_halves()
        if "trainable" in kwargs:
            self.trainable = kwargs["trainable"]

    def _check_halves(self) -> None:
        forth, back = self.inner_layers
        if not isinstance(back, Loop) or forth is back:
            raise TypeError(f"backward_layer is another recurrent layer, got {back!r}.")
        if forth.go_backwards == back.go_backwards:
            raise ValueError(
                "The two halves of a Bidirectional read in opposite directions: give "
                f"backward_layer go_backwards={not forth.go_backwards}."
            )
        same = ["return_sequences", "return_state", "stateful", "dtype_policy"]
        same += ["units"] if self.merge_mode in ("sum", "mul", "ave") else []
        for name in same:
            if getattr(forth, name) != getattr(back, name):
                raise ValueError(
                    f"The two halves of a Bidirectional must have the same {name}, got "
                    f"{getattr(forth, name)!r} and {getattr(back, name)!r}."
                )

    @property
    def forward_layer(self) -> Loop:
        """The half that reads forwards."""
        return cast(Loop, self.layer)

    @property
    def inner_layers(self) -> tuple[Layer, ...]:
        """The two halves."""
        return (self.layer, self.backward_layer)

    @property
    def has_multiple_outputs(self) -> bool:  # type: ignore[override]
        """A call returns a list with `return_state` or without a merge."""
        return self.layer.return_state or self.merge_mode is None

    @property
    def stateful(self) -> bool:  # type: ignore[override]
        """Whether the halves carry their states from batch to batch."""
        return self.layer.stateful

    def runs_as(self, execution_mode: Callable[[Recurrence], str]) -> str:
        modes = [half.runs_as(execution_mode) for half in self.inner_layers]
        return modes[0] if modes[0] == modes[1] else " and ".join(modes)

    def build(self, input_shape: Shape) -> None:
        self.needed_features(input_shape)
        self.build_inner(self.layer, "forward_", input_shape)
        self.build_inner(self.backward_layer, "backward_", input_shape)

    def call(
        self,
        inputs: Tensor,
        mask: Tensor | None,
        context: CallContext,
        initial_state: InitialState | None = None,
        resets: TensorLike | None = None,
    ) -> Tensor | list[Tensor]:
        outputs: list[Tensor] = []
        last: list[Tensor] = []
        for half, given in zip(self.inner_layers, self.halves_of(initial_state), strict=True):
            result = half(inputs, mask=mask, context=context, initial_state=given, resets=resets)
            output, *states = result if isinstance(result, list) else [result]
            outputs.append(output[:, ::-1] if half.reverses_time else output)
            last += states
        merged = MERGES[self.merge_mode](*outputs)
        if not self.layer.return_state:
            return merged
        return [*(merged if isinstance(merged, list) else [merged]), *last]

    def halves_of(self, states: InitialState | None) -> tuple:
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

    def compute_output_shape(self, input_shape: Shape, resets_shape: Shape | None = None) -> Any:
        outputs: list[Shape] = []
        last: list[Shape] = []
        halves: tuple[Any, ...] = self.inner_layers
        for half in halves:
            output, *states = items_of(half.compute_output_shape(input_shape, resets_shape))
            outputs.append(output)
            last += states
        if self.merge_mode == "concat":
            outputs = [
                (*outputs[0][:-1], sum(half.loop_cell.output_size for half in self.inner_layers))
            ]
        elif self.merge_mode is not None:
            outputs = outputs[:1]
        return [*outputs, *last] if self.has_multiple_outputs else outputs[0]

    def compute_mask(
        self, inputs: Tensor, mask: Tensor | None = None
    ) -> Tensor | list[Tensor | None] | None:
        found = mask if self.layer.return_sequences else None
        if not self.has_multiple_outputs:
            return found
        outputs = 2 if self.merge_mode is None else 1
        states = sum(len(half.state_names) for half in (self.layer, self.backward_layer))
        return [found] * outputs + [None] * (states if self.layer.return_state else 0)


def reversed_layer(layer: Loop) -> Loop:
    """Return a new layer with the arguments of another and the opposite direction."""
    return same_arguments(layer, go_backwards=not layer.go_backwards)


def same_arguments(value: Any, **changes: Any) -> Any:
    """Return a new layer with the arguments of another, and so for layers among the arguments."""
    if isinstance(value, (list, tuple)):
        return [same_arguments(item) for item in value]
    if not isinstance(value, Layer):
        return value
    arguments = {name: same_arguments(v) for name, v in value.current_arguments().items()}
    return type(value)(**(arguments | changes))

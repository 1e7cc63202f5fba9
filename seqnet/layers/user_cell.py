"""Cells that users write as layers of one step, in the way of Keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytensor.tensor as pt

from seqnet import registry
from seqnet.common.checks import check_count
from seqnet.common.types import Shape, Tensor
from seqnet.layers.calling import call_layer, describe, signature_of_call
from seqnet.layers.cell import (
    CellInLoop,
    CellLayer,
    Drawn,
    LoopStep,
    check_extras,
    trace_with_output,
)
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.ops.step import check_states


class UserCell(CellInLoop):
    """A layer with ``call(inputs, states) -> output, new states`` as a cell.

    Parameters
    ----------
    layer : Layer
        With the attribute `state_size`, a number or a list of them, or else `units`, and
        optionally `output_size`.
    """

    gates = ("x",)

    def __init__(self, layer: Layer):
        self.layer = layer
        self.dtype, self.dtype_policy = layer.dtype, layer.dtype_policy
        sizes = getattr(layer, "state_size", None)
        sizes = getattr(layer, "units", None) if sizes is None else sizes
        if sizes is None:
            raise TypeError(
                f"{describe(layer)} is no cell: it has no state_size, the size of its state or a "
                "list of the sizes of several."
            )
        several = list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]
        self._sizes = tuple(check_count(n, f"The state_size of {describe(layer)}") for n in several)
        self.state_names = tuple(f"state{k}" for k in range(len(self._sizes)))
        size = getattr(layer, "output_size", None)
        self._output_size = self._sizes[0] if size is None else check_count(size, "output_size")
        self.units = self._sizes[0]
        self._features: int | None = None

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return self._sizes

    @property
    def output_size(self) -> int:
        return self._output_size

    @property
    def input_size(self) -> int | None:
        return self._features

    def build_in_loop(self, input_shape: Shape) -> None:
        self._features = input_shape[-1]
        batch = input_shape[0]
        shapes: list[Shape] = [(batch, size) for size in self._sizes]
        self.layer.ensure_built((batch, input_shape[-1]), states_shape=shapes)

    def within(
        self, x: tuple[Tensor, ...], states: Sequence[Tensor], recur: Callable, drawn: Drawn
    ) -> tuple[Tensor, list[Tensor]]:
        return self.advance(x[0], states, drawn)

    def trace(self, drawn: Drawn) -> LoopStep:
        found = trace_with_output(self, drawn, describe(self.layer))
        check_extras(self.layer, found.step)
        return found

    def advance(
        self, inputs: Tensor, states: Sequence[Tensor], drawn: Drawn
    ) -> tuple[Tensor, list[Tensor]]:
        if inputs.dtype != self.dtype:
            inputs = pt.cast(inputs, self.dtype)
        found = call_layer(self.layer, inputs, None, CallContext(), {"states": list(states)})
        what = describe(self.layer)
        if not isinstance(found, list) or len(found) != 2:
            raise TypeError(f"The call of {what} must return two things: output, new states.")
        output, new = cast("list[Any]", found)
        return output, check_states(new if isinstance(new, list) else [new], self.state_names, what)


class LayerOfStep(CellInLoop):
    """A layer without states, such as `Dense`, that is applied at each step of a loop."""

    gates = ("x",)
    state_names = ()
    state_sizes = ()
    units = 0

    def __init__(self, layer: Layer):
        self.layer = layer
        self.dtype, self.dtype_policy = layer.dtype, layer.dtype_policy
        self._features: int | None = None

    @property
    def output_size(self) -> int:
        return self._output_size

    @property
    def input_size(self) -> int | None:
        return self._features

    def build_in_loop(self, input_shape: Shape) -> None:
        self._features = input_shape[-1]
        shape = (input_shape[0], input_shape[-1])
        self.layer.ensure_built(shape)
        if self.layer.generators:
            raise ValueError(
                f"{describe(self.layer)} draws random numbers, but within a loop it would draw "
                "none. Use the dropout and recurrent_dropout of the cells."
            )
        found = self.layer.compute_output_shape(shape)
        if len(found) != 2 or found[1] is None:
            raise ValueError(
                f"{describe(self.layer)} must return (batch, features) for one step {shape}, got "
                f"the shape {found}."
            )
        self._output_size = int(found[1])

    def trace(self, drawn: Drawn) -> LoopStep:
        raise TypeError(f"{describe(self.layer)} has no state.")

    def within(
        self, x: tuple[Tensor, ...], states: Sequence[Tensor], recur: Callable, drawn: Drawn
    ) -> tuple[Tensor, list[Tensor]]:
        return self.advance(x[0], states, drawn)

    def advance(
        self, inputs: Tensor, states: Sequence[Tensor], drawn: Drawn
    ) -> tuple[Tensor, list[Tensor]]:
        output = call_layer(self.layer, inputs, None, CallContext(), {})
        if isinstance(output, list):
            raise TypeError(f"{describe(self.layer)} must return one output for each step.")
        return output, []


def cell_in_loop(cell: Any, owner: str, stateless: bool = False) -> CellInLoop:
    """Return what a recurrent layer needs of a cell that a user passes, or raise.

    With `stateless` it may be a layer without states, too.
    """
    if isinstance(cell, CellLayer):
        cell.check_as_cell()
        return cell
    if isinstance(cell, Layer) and "states" in signature_of_call(type(cell).call).takes:
        return UserCell(cell)
    if stateless and isinstance(cell, Layer) and cell.input_axes[1:2] != ("time",):
        return LayerOfStep(cell)
    raise TypeError(
        f"{owner} takes cells: objects of Cell such as LSTMCell(4), or layers with "
        f"call(inputs, states) and state_size; got {cell!r}."
    )


def revived_cell(value: Any, custom_objects: dict[str, Any] | None) -> Any:
    """Return an argument from a file, with configurations of cells as cells."""
    if isinstance(value, list):
        return [revived_cell(item, custom_objects) for item in value]
    if isinstance(value, dict) and "name" in value:
        return registry.get("layer", value, custom_objects)
    return value

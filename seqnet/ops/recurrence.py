"""The recurrence, written once: one step applied along time, and its gradient.

Everything here is time-major, ``(time, batch, features)``; layers are batch-major outside. This is
the only file of seqnet with a call of `pytensor.scan` or a loop over time.

The story in four parts:

1. `seqnet.ops.step` says what one step is, and what its gradient is.
2. `run_loop` applies a body along time, as a scan or as a Python loop (`seqnet.ops.unrolled`).
3. `Recurrence` is the whole forward loop as one Op. Besides the states it gives the products with
   the recurrent kernel, which the gradient needs.
4. `RecurrenceGradient` is a second loop, backwards in time, of the step's own gradient. Elementwise
   work is done again there, products are not; and the kernel's gradient is one product after the
   loop, never one for each step.

Both Ops are defined by these loops. A backend may compute them otherwise: seqnet's own mode runs
both as one compiled kernel each, made from the same step (`seqnet.backend.recurrence`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.replace import graph_replace

from seqnet.ops.graph_op import GraphOp, SymbolicShape, connected, like
from seqnet.ops.step import TracedStep, run_step, step_gradient
from seqnet.ops.unrolled import UnrolledStep, stack_steps, unstack_steps
from seqnet.types import Tensor


def run_loop(
    body: Callable,
    sequences: Sequence[Tensor],
    states: Sequence[Tensor],
    constants: Sequence[Tensor],
    *,
    unroll: bool,
    length: int | None,
    backwards: bool = False,
) -> list[Tensor]:
    """Apply `body` along time and return all its outputs' histories, (time, batch, ...).

    ``body(*sequence_values, *states, *constants)`` gives the new states, then whatever else should
    be kept of each step. With `backwards` time runs from the end; histories are in time's order all
    the same.
    """
    if not unroll:
        # Built once, on variables without a history: what a body replaces in its own graph then
        # never reaches back into the graph that its constants come from.
        examples = [v.type() for v in (*(s[0] for s in sequences), *states, *constants)]
        outputs: list[Tensor] = list(body(*examples))

        def step(*values: Tensor) -> list[Tensor]:
            replaced = dict(zip(examples, values, strict=True))
            return cast("list[Tensor]", graph_replace(outputs, replaced, strict=False))

        result = pytensor.scan(
            step,
            sequences=list(sequences),
            outputs_info=[*states, *[None] * (len(outputs) - len(states))],
            non_sequences=list(constants),
            go_backwards=backwards,
            strict=True,
            return_updates=False,
        )
        histories = list(result) if isinstance(result, (list, tuple)) else [result]
        return [h[::-1] for h in histories] if backwards else histories
    if length is None:
        raise ValueError("An unrolled recurrence needs its number of steps.")
    steps = [unstack_steps(s, length) for s in sequences]
    apply = UnrolledStep.of(body, [s[0] for s in steps], states, constants)
    current, kept = list(states), cast("list[list[Tensor]]", [[]] * length)
    for t in reversed(range(length)) if backwards else range(length):
        outputs = apply(*[s[t] for s in steps], *current, *constants)
        kept[t] = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        current = kept[t][: len(states)]
    return [stack_steps(values) for values in zip(*kept, strict=True)]


class RecurrenceOp(GraphOp):
    """What `Recurrence` and `RecurrenceGradient` share: a cell, and the names of its inputs.

    Parameters
    ----------
    step : TracedStep
    names : tuple of str
        What the inputs of the recurrence are, in order: ``projected`` (time, batch, gates * units)
        and ``recurrent_kernel`` (units, gates * units); then, where present, ``bias`` (gates * units,), the
        initial states ``state0``, ``state1``, ... (batch, size), ``mask`` (time, batch) bool,
        ``dropout`` (batch, units), and whatever else the step refers to as ``extra0``, ...
    unroll : bool
        Build the steps one by one instead of a scan.
    fused : bool or "auto"
        Whether a backend may, must or must not compute it as one kernel.
    backwards : bool
        Run from the last step to the first; histories come in that order.
    layer : str
        The name of the layer, for messages.
    """

    __props__: tuple[str, ...] = ("step", "names", "unroll", "fused", "backwards", "layer")

    def __init__(
        self,
        step: TracedStep,
        names: Sequence[str],
        unroll: bool = False,
        fused: bool | str = "auto",
        backwards: bool = False,
        layer: str = "",
    ) -> None:
        self.step, self.names, self.unroll = step, tuple(names), unroll
        self.fused, self.backwards, self.layer = fused, backwards, layer

    def named(self, inputs: Sequence) -> dict:
        """Return the inputs of the recurrence by name."""
        return dict(zip(self.names, inputs, strict=False))

    def loop(
        self,
        body: Callable,
        sequences: Sequence[Tensor],
        states: Sequence[Tensor],
        constants: Sequence[Tensor],
        length: int | None,
        backwards: bool,
    ) -> list:
        """Run a loop as a scan or unrolled; one step needs no scan."""
        if self.fused is True:
            raise ValueError(
                f"Layer {self.layer!r} has fused=True, but the function is compiled in a mode that "
                "has no kernels. Use seqnet's own backend 'auto', or fused='auto'."
            )
        return run_loop(
            body,
            sequences,
            states,
            constants,
            unroll=self.unroll or length == 1,
            length=length,
            backwards=backwards,
        )

    def constants(self, given: dict) -> tuple[list, Callable]:
        """Return the loop's constants, and a function that reads a step's copies of them."""
        known = ("recurrent_kernel", "bias", "dropout")
        names = [n for n in given if n in known or n.startswith("extra")]

        def read(
            values: Sequence[Tensor],
        ) -> tuple[Tensor, Tensor | None, list[Tensor], Tensor | None]:
            found = dict(zip(names, values, strict=True))
            extras = [found[n] for n in names if n.startswith("extra")]
            return found["recurrent_kernel"], found.get("bias"), extras, found.get("dropout")

        return [given[n] for n in names], read

    def initial_states(self, given: dict) -> list:
        """Return the states before the first step, (batch, units); zeros where not given."""
        if "state0" in given:
            return [given[f"state{k}"] for k in range(len(self.step.states))]
        # A symbolic size: a static one of 1 would make the state a broadcastable type that the
        # step does not return.
        batch, units = given["projected"].shape[1], given["recurrent_kernel"].shape[0]
        zero = np.asarray(0, dtype=self.step.dtype)
        sizes = [units if n == self.step.units else n + 0 * units for n in self.step.state_sizes]
        return [pt.alloc(zero, batch, size) for size in sizes]

    def in_order(self, sequence: Tensor) -> Tensor:
        """Return a sequence in the order in which the loop reads it, or back again."""
        return sequence[::-1] if self.backwards else sequence


WITHOUT_GRADIENT = ("mask", "dropout")


class Recurrence(RecurrenceOp):
    """All steps of a cell.

    Its outputs are the states' histories (time, batch, size), the last states (batch, size), then
    the histories of every product with the recurrent kernel, then those of what was multiplied.
    """

    __props__ = RecurrenceOp.__props__

    def define(self, *inputs: Tensor) -> list[Tensor]:
        given = self.named(inputs)
        constants, read = self.constants(given)
        sequences = [self.in_order(given["projected"])]
        if "mask" in given:
            sequences.append(self.in_order(given["mask"]))
        step, states = self.step, self.initial_states(given)

        def body(x: Tensor, *values: Tensor) -> list[Tensor]:
            mask, values = (values[0], values[1:]) if "mask" in given else (None, values)
            kernel, bias, extras, dropout = read(values[len(states) :])

            def product(operand: Tensor, gates: Sequence[str]) -> Tensor:
                result = pt.dot(operand, step.columns(kernel, gates))
                return result if bias is None else result + step.columns(bias, gates)

            new, products, operands = run_step(
                step, x, values[: len(states)], product, extras, mask, dropout
            )
            return [*new, *products, *operands]

        length = given["projected"].type.shape[0]
        found = self.loop(body, sequences, states, constants, length, backwards=False)
        histories, kept = found[: len(states)], found[len(states) :]
        return [*histories, *(h[-1] for h in histories), *kept]

    def outputs_for(self, projected: Tensor, kernel: Tensor, *others: Tensor) -> list[Tensor]:
        time, batch, _ = projected.type.shape
        units = kernel.type.shape[0]
        sizes = [None if n == 1 else n for n in self.step.state_sizes]
        histories = [like(projected, 3, (time, batch), n) for n in sizes]
        lasts = [like(projected, 2, (batch,), n) for n in sizes]
        products = [like(projected, 3, (time, batch)) for _ in self.step.products]
        operands = [like(projected, 3, (time, batch), units) for _ in self.step.products]
        return [*histories, *lasts, *products, *operands]

    def shapes(
        self, projected: SymbolicShape, kernel: SymbolicShape, *others: SymbolicShape
    ) -> list[SymbolicShape]:
        (time, batch, _), units = projected, kernel[0]
        sizes = [units if n == self.step.units else n for n in self.step.state_sizes]
        products = [(time, batch, len(p.gates) * units) for p in self.step.products]
        operands = [(time, batch, units) for _ in products]
        histories, lasts = [(time, batch, n) for n in sizes], [(batch, n) for n in sizes]
        return [*histories, *lasts, *products, *operands]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[name not in WITHOUT_GRADIENT] * len(node.outputs) for name in self.names]

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        present = connected(output_grads)
        count = len(self.step.states)
        if any(present[2 * count :]):  # the gradient of a gradient asks for those of products
            found = super().pullback(inputs, outputs, output_grads)
            return [
                disconnected_type() if name in WITHOUT_GRADIENT else d
                for name, d in zip(self.names, found, strict=True)
            ]
        gradient = RecurrenceGradient(
            *(getattr(self, name) for name in RecurrenceOp.__props__),
            present=tuple(present[: 2 * count]),
        )
        used = [g for g, there in zip(output_grads, present, strict=True) if there]
        kept = [*outputs[:count], *outputs[2 * count :]]
        found = iter(gradient(*inputs, *kept, *used, return_list=True))
        return [disconnected_type() if n in WITHOUT_GRADIENT else next(found) for n in self.names]


class RecurrenceGradient(RecurrenceOp):
    """The gradients of a `Recurrence` with respect to its inputs but the mask and the dropout mask.

    Its inputs are those of the recurrence, the histories of the states, of the products and of
    what was multiplied, and the gradients of those histories and last states that have one
    (`present`).
    """

    __props__ = (*RecurrenceOp.__props__, "present")

    def __init__(self, *args: Any, present: tuple[bool, ...]) -> None:
        super().__init__(*args)
        self.present = present

    def parts(self, inputs: Sequence) -> tuple[dict, list, list, list, list, list]:
        """Return the recurrence's inputs, the histories, products, operands, and gradients.

        Of these there are two lists, of the histories and of the last states, None for none.
        """
        given, rest = self.named(inputs), list(inputs[len(self.names) :])
        count, products = len(self.step.states), len(self.step.products)
        histories, rest = rest[:count], rest[count:]
        values, operands = rest[:products], rest[products : 2 * products]
        found = iter(rest[2 * products :])
        gradients = [next(found) if there else None for there in self.present]
        return given, histories, values, operands, gradients[:count], gradients[count:]

    def define(self, *inputs: Tensor) -> list[Tensor]:
        given, histories, values, operands, of_histories, of_lasts = self.parts(inputs)
        step, initial = self.step, self.initial_states(given)
        count = len(initial)
        before = [
            pt.concatenate([first[None], history[:-1]], axis=0)
            for first, history in zip(initial, histories, strict=True)
        ]
        constants, read = self.constants(given)
        incoming = [d for d in of_histories if d is not None]
        sequences = [self.in_order(given["projected"]), *before, *values, *incoming]
        if "mask" in given:
            sequences.append(self.in_order(given["mask"]))

        def body(*values_of_step: Tensor) -> list[Tensor]:
            found = list(values_of_step)
            mask = found.pop(len(sequences) - 1) if "mask" in given else None
            x, old, found = found[0], found[1 : 1 + count], found[1 + count :]
            products, found = found[: len(values)], found[len(values) :]
            arriving, found = iter(found[: len(incoming)]), found[len(incoming) :]
            carried, found = found[:count], found[count:]
            d_new = [
                d if of_history is None else d + next(arriving)
                for d, of_history in zip(carried, of_histories, strict=True)
            ]
            kernel, _, extras, dropout = read(found)
            return step_gradient(step, x, old, products, d_new, kernel, extras, mask, dropout)

        start = [
            pt.zeros_like(state) if d is None else d
            for state, d in zip(initial, of_lasts, strict=True)
        ]
        length = given["projected"].type.shape[0]
        found = self.loop(body, sequences, start, constants, length, backwards=True)
        d_states, d_projected, found = found[:count], found[count], found[count + 1 :]
        d_products, d_extras = found[: len(values)], found[len(values) :]
        gradients = {"projected": self.in_order(d_projected)}
        gradients["recurrent_kernel"] = self.assemble(
            [pt.dot(flat(u).T, flat(d)) for u, d in zip(operands, d_products, strict=True)],
            given["recurrent_kernel"],
        )
        if "bias" in given:
            sums = [flat(d).sum(axis=0) for d in d_products]
            gradients["bias"] = self.assemble(sums, given["bias"])
        gradients |= {f"state{k}": d[0] for k, d in enumerate(d_states)}
        gradients |= {f"extra{k}": d.sum(axis=0) for k, d in enumerate(d_extras)}
        return [gradients[name] for name in self.names if name not in WITHOUT_GRADIENT]

    def assemble(self, parts: list, whole: Tensor) -> Tensor:
        """Put gradients for the columns of each product together, for all gates in order.

        Columns of `whole` that belong to a gate in no product have a gradient of zero.
        """
        products, step = self.step.products, self.step
        if len(parts) == 1 and products[0].gates == step.gates:
            return parts[0]
        size, columns = step.units, []
        for gate in step.gates:
            uses = [
                part[..., p.gates.index(gate) * size : (p.gates.index(gate) + 1) * size]
                for part, p in zip(parts, products, strict=True)
                if gate in p.gates
            ]
            columns.append(sum(uses[1:], uses[0]) if uses else pt.zeros_like(whole[..., :size]))
        return columns[0] if len(columns) == 1 else pt.concatenate(columns, axis=-1)

    def outputs_for(self, *inputs: Tensor) -> list[Tensor]:
        wanted = zip(self.names, inputs, strict=False)
        return [v.type() for name, v in wanted if name not in WITHOUT_GRADIENT]

    def shapes(self, *shapes: SymbolicShape) -> list[SymbolicShape]:
        wanted = zip(self.names, shapes, strict=False)
        return [shape for name, shape in wanted if name not in WITHOUT_GRADIENT]


def recurrence(
    step: TracedStep,
    projected: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    states: Sequence | None = None,
    mask: Tensor | None = None,
    dropout: Tensor | None = None,
    *,
    unroll: bool = False,
    fused: bool | str = "auto",
    backwards: bool = False,
    layer: str = "",
) -> tuple[list, list]:
    """Apply a cell's step at every time; return the histories and the last states.

    Parameters
    ----------
    step : TracedStep
    projected : variable (time, batch, gates * units)
        The projected input.
    kernel : variable (units, gates * units)
        The recurrent kernel.
    bias : variable (gates * units,), optional
        Added to the product with the recurrent kernel.
    states : list of variables, each (batch, units), optional
        The states before the first step, zeros by default.
    mask : variable (time, batch), bool, optional
        True where there is data.
    dropout : variable (batch, units), optional
        Multiplies what every product with the recurrent kernel is made of, the same at every
        step; a constant for the gradient.
    unroll, fused, backwards, layer
        See `RecurrenceOp`.

    Returns
    -------
    histories : list of variables, each (time, batch, units)
    lasts : list of variables, each (batch, units)
    """
    inputs = {"projected": projected, "recurrent_kernel": kernel}
    if bias is not None:
        inputs["bias"] = bias
    inputs |= {f"state{k}": state for k, state in enumerate(states or ())}
    if mask is not None:
        inputs["mask"] = mask
    if dropout is not None:
        inputs["dropout"] = dropout
    inputs |= {f"extra{k}": extra for k, extra in enumerate(step.extras)}
    op = Recurrence(step, tuple(inputs), unroll, fused, backwards, layer)
    outputs, count = op(*inputs.values(), return_list=True), len(step.states)
    return outputs[:count], outputs[count : 2 * count]


def flat(history: Tensor) -> Tensor:
    """Return (time, batch, features) as (time * batch, features)."""
    return history.reshape((-1, history.shape[2]))

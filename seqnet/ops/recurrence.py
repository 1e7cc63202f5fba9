"""The recurrence: one step applied along time, and its gradient.

All arrays are time-major here, ``(time, batch, features)``; layers are batch-major. This is the
only module of seqnet that calls `pytensor.scan` or loops over time.

1. `seqnet.ops.step` defines one step and its gradient.
2. `run_loop` applies a body along time, as a scan or as a Python loop (`seqnet.ops.unrolled`).
3. `Recurrence` is the forward loop as one Op. It returns the states, and the products with the
   recurrent kernel, which the gradient needs.
4. `RecurrenceGradient` is a second loop, backwards in time, over the gradient of the step. It
   computes elementwise operations again, but not the products. The gradient of the recurrent kernel
   is one product after the loop instead of one for each step.

Both Ops are defined by these loops. seqnet's own mode runs each as one compiled kernel instead,
which is generated from the same step (`seqnet.backend.recurrence`).
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

from seqnet.common.types import Tensor
from seqnet.ops.bfloat16 import dot
from seqnet.ops.graph_op import GraphOp, SymbolicShape, connected, like
from seqnet.ops.step import Extra, TracedStep, run_step, step_gradient
from seqnet.ops.unrolled import UnrolledStep, stack_steps, unstack_steps


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
    """Apply `body` along time and return the histories of its outputs, (time, batch, ...).

    ``body(*sequence_values, *states, *constants)`` returns the new states, then other values of
    each step to keep. With `backwards` the loop runs from the last step to the first. Histories are
    in the order of time in both cases.
    """
    if not unroll:
        # Built once, on new input variables, so that replacements in the graph of the body do not
        # traverse the graph that its constants are computed by.
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
    """The base class of `Recurrence` and `RecurrenceGradient`.

    Parameters
    ----------
    step : TracedStep
    names : tuple of str
        The inputs of the recurrence, in order: ``projected`` (time, batch, gates * units); then, if
        present, ``recurrent_kernel`` (units, gates * units) and ``bias`` (gates * units,),
        the initial states ``state0``, ``state1``, ... (batch, size), ``mask`` (time, batch) bool,
        and the other variables that the step uses, ``extra0``, ...
    unroll : bool
        Build the steps one by one instead of a scan.
    fused : bool or "auto"
        Whether to run as one compiled kernel; "auto" does so where possible.
    backwards : bool
        Run from the last step to the first. Histories are in that order.
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
        """Run a loop as a scan or unrolled. A single step needs no scan."""
        if self.fused is True:
            raise ValueError(
                f"Layer {self.layer!r} has fused=True, but the function is compiled in a mode that "
                "has no compiled kernels. Use seqnet's own backend 'auto', or fused='auto'."
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

    def extra(self, name: str) -> Extra | None:
        """Return the extra of the step that an input is, or None."""
        return self.step.extras[int(name[5:])] if name.startswith("extra") else None

    def has_gradient(self, name: str) -> bool:
        """Return whether the gradient of an input is computed."""
        extra = self.extra(name)
        return name != "mask" if extra is None else extra.has_gradient

    def sequences(self, given: dict) -> dict:
        """Return the inputs that have a value for each step, by name, in the order of the loop."""

        def of_each_step(name: str) -> bool:
            extra = self.extra(name)
            return name in ("projected", "mask") if extra is None else extra.of_each_step

        return {n: self.in_order(v) for n, v in given.items() if of_each_step(n)}

    def constants(self, given: dict) -> dict:
        """Return the inputs that are the same at every step, by name."""

        def is_constant(name: str) -> bool:
            extra = self.extra(name)
            if extra is None:
                return name in ("recurrent_kernel", "bias")
            return not extra.of_each_step

        return {n: v for n, v in given.items() if is_constant(n)}

    def extras(self, values: dict) -> list:
        """Return the values of the extras of the step from those of all inputs by name."""
        return [values[f"extra{k}"] for k in range(len(self.step.extras))]

    def initial_states(self, given: dict) -> list:
        """Return the states before the first step, (batch, units); zeros by default."""
        if "state0" in given:
            return [given[f"state{k}"] for k in range(len(self.step.states))]
        # The size is symbolic. A static size of 1 would make the type of the state broadcastable,
        # unlike the type that the step returns.
        batch = given["projected"].shape[1]
        # That of a weight, if there is one, because that of the input depends on earlier loops.
        rows = given["recurrent_kernel"].shape[0] if "recurrent_kernel" in given else None
        symbol, zero = batch if rows is None else rows, np.asarray(0, dtype=self.step.dtype)
        return [pt.alloc(zero, batch, self.size(n, rows, symbol)) for n in self.step.state_sizes]

    def size(self, number: int, rows: Any, symbol: Any) -> Any:
        """Return a size as a symbol; the recurrent kernel has as many rows as the first state."""
        same = rows is not None and number == self.step.state_sizes[0]
        return rows if same else number + 0 * symbol

    def in_order(self, sequence: Tensor) -> Tensor:
        """Reverse a sequence if the loop runs backwards."""
        return sequence[::-1] if self.backwards else sequence


class Recurrence(RecurrenceOp):
    """All steps of a recurrence.

    Its outputs are the histories of the states (time, batch, size), the last states (batch, size),
    the histories of the products with the recurrent kernel, and the histories of their operands.
    """

    __props__ = RecurrenceOp.__props__

    def define(self, *inputs: Tensor) -> list[Tensor]:
        given = self.named(inputs)
        sequences, constants = self.sequences(given), self.constants(given)
        step, states = self.step, self.initial_states(given)

        def body(*given_values: Tensor) -> list[Tensor]:
            now, old, fixed = split(given_values, len(sequences), len(states), len(constants))
            values = dict(zip(sequences, now, strict=True)) | dict(
                zip(constants, fixed, strict=True)
            )
            kernel, bias = values.get("recurrent_kernel"), values.get("bias")

            def product(operand: Tensor, gates: Sequence[str]) -> Tensor:
                return step.product(operand, gates, cast("Tensor", kernel), bias)

            x, mask = values["projected"], values.get("mask")
            new, products, operands = run_step(step, x, old, product, self.extras(values), mask)
            return [*new, *products, *operands]

        length = given["projected"].type.shape[0]
        found = self.loop(
            body,
            list(sequences.values()),
            states,
            list(constants.values()),
            length,
            backwards=False,
        )
        histories, kept = found[: len(states)], found[len(states) :]
        return [*histories, *(h[-1] for h in histories), *kept]

    def outputs_for(self, projected: Tensor, *others: Tensor) -> list[Tensor]:
        time, batch, _ = projected.type.shape
        sizes = [None if n == 1 else n for n in self.step.state_sizes]
        histories = [like(projected, 3, (time, batch), n) for n in sizes]
        lasts = [like(projected, 2, (batch,), n) for n in sizes]
        products = [like(projected, 3, (time, batch)) for _ in self.step.products]
        rows = others[0].type.shape[0] if self.step.products else None
        operands = [like(projected, 3, (time, batch), rows) for _ in self.step.products]
        return [*histories, *lasts, *products, *operands]

    def shapes(self, projected: SymbolicShape, *others: SymbolicShape) -> list[SymbolicShape]:
        time, batch, _ = projected
        rows = others[0][0] if self.step.products else None
        sizes: list[Any] = list(self.step.state_sizes)
        if rows is not None:
            sizes = [self.size(n, rows, rows) for n in sizes]
        products = [(time, batch, len(p.gates) * self.step.units) for p in self.step.products]
        operands = [(time, batch, sizes[0]) for _ in products]
        histories, lasts = [(time, batch, n) for n in sizes], [(batch, n) for n in sizes]
        return [*histories, *lasts, *products, *operands]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[self.has_gradient(name)] * len(node.outputs) for name in self.names]

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        present = connected(output_grads)
        count = len(self.step.states)
        if any(present[2 * count :]):  # the gradient of a gradient
            found = super().pullback(inputs, outputs, output_grads)
            return [
                d if self.has_gradient(name) else disconnected_type()
                for name, d in zip(self.names, found, strict=True)
            ]
        gradient = RecurrenceGradient(
            *(getattr(self, name) for name in RecurrenceOp.__props__),
            present=tuple(present[: 2 * count]),
        )
        used = [g for g, there in zip(output_grads, present, strict=True) if there]
        kept = [*outputs[:count], *outputs[2 * count :]]
        found = iter(gradient(*inputs, *kept, *used, return_list=True))
        return [next(found) if self.has_gradient(n) else disconnected_type() for n in self.names]


class RecurrenceGradient(RecurrenceOp):
    """The gradients of a `Recurrence` with respect to its inputs, except masks.

    Its inputs are those of the recurrence, the histories of the states, products and operands, and
    the gradients of the histories and last states that are connected to the cost (`present`).
    """

    __props__ = (*RecurrenceOp.__props__, "present")

    def __init__(self, *args: Any, present: tuple[bool, ...]) -> None:
        super().__init__(*args)
        self.present = present

    def parts(self, inputs: Sequence) -> tuple[dict, list, list, list, list, list]:
        """Return the inputs of the recurrence, the histories, products, operands, and gradients.

        The gradients are two lists, of the histories and of the last states, with None for those
        that are not connected to the cost.
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
        sequences, constants = self.sequences(given), self.constants(given)
        incoming = [d for d in of_histories if d is not None]
        in_turn = [*sequences.values(), *before, *values, *incoming]

        def body(*values_of_step: Tensor) -> list[Tensor]:
            now, old, products, arriving, carried, fixed = split(
                values_of_step,
                *(len(sequences), count, len(values), len(incoming), count, len(constants)),
            )
            named = dict(zip(sequences, now, strict=True)) | dict(
                zip(constants, fixed, strict=True)
            )
            given_now = iter(arriving)
            d_new = [
                d if of_history is None else d + next(given_now)
                for d, of_history in zip(carried, of_histories, strict=True)
            ]
            x, kernel = named["projected"], named.get("recurrent_kernel")
            extras, mask = self.extras(named), named.get("mask")
            return step_gradient(step, x, old, products, d_new, kernel, extras, mask)

        start = [
            pt.zeros_like(state) if d is None else d
            for state, d in zip(initial, of_lasts, strict=True)
        ]
        length = given["projected"].type.shape[0]
        found = self.loop(body, in_turn, start, list(constants.values()), length, backwards=True)
        d_states, d_projected, found = found[:count], found[count], found[count + 1 :]
        d_products, d_extras = found[: len(values)], found[len(values) :]
        gradients = {"projected": self.in_order(d_projected)}
        if "recurrent_kernel" in given:
            gradients["recurrent_kernel"] = self.assemble(
                [
                    dot(flat(u).T, flat(d), step.bfloat16)
                    for u, d in zip(operands, d_products, strict=True)
                ],
                given["recurrent_kernel"],
            )
        if "bias" in given:
            sums = [flat(d).sum(axis=0) for d in d_products]
            gradients["bias"] = self.assemble(sums, given["bias"])
        gradients |= {f"state{k}": d[0] for k, d in enumerate(d_states)}
        trained = [k for k, extra in enumerate(step.extras) if extra.has_gradient]
        for k, d in zip(trained, d_extras, strict=True):
            of_each_step = step.extras[k].of_each_step
            gradients[f"extra{k}"] = self.in_order(d) if of_each_step else d.sum(axis=0)
        return [gradients[name] for name in self.names if self.has_gradient(name)]

    def assemble(self, parts: list, whole: Tensor) -> Tensor:
        """Concatenate the gradients of the columns of all gates, given those of each product.

        The columns of `whole` of a gate that is in no product have a gradient of zero.
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
        return [v.type() for name, v in wanted if self.has_gradient(name)]

    def shapes(self, *shapes: SymbolicShape) -> list[SymbolicShape]:
        wanted = zip(self.names, shapes, strict=False)
        return [shape for name, shape in wanted if self.has_gradient(name)]


def recurrence(
    step: TracedStep,
    projected: Tensor,
    recurrent_kernel: Tensor | None = None,
    bias: Tensor | None = None,
    states: Sequence | None = None,
    mask: Tensor | None = None,
    *,
    unroll: bool = False,
    fused: bool | str = "auto",
    backwards: bool = False,
    layer: str = "",
) -> tuple[list, list]:
    """Apply a step at every time; return the histories and the last states.

    Parameters
    ----------
    step : TracedStep
    projected : variable (time, batch, gates * units)
        The projected input.
    recurrent_kernel : variable (units, gates * units), optional
        The recurrent kernel. A step without a product with it takes none.
    bias : variable (gates * units,), optional
        Added to the product with the recurrent kernel.
    states : list of variables, each (batch, units), optional
        The states before the first step, zeros by default.
    mask : variable (time, batch), bool, optional
        True where there is data.
    unroll, fused, backwards, layer
        See `RecurrenceOp`.

    Returns
    -------
    histories : list of variables, each (time, batch, units)
    lasts : list of variables, each (batch, units)
    """
    inputs = {"projected": projected}
    if recurrent_kernel is not None:
        inputs["recurrent_kernel"] = recurrent_kernel
    if bias is not None:
        inputs["bias"] = bias
    inputs |= {f"state{k}": state for k, state in enumerate(states or ())}
    if mask is not None:
        inputs["mask"] = mask
    inputs |= {f"extra{k}": extra.variable for k, extra in enumerate(step.extras)}
    op = Recurrence(step, tuple(inputs), unroll, fused, backwards, layer)
    outputs, count = op(*inputs.values(), return_list=True), len(step.states)
    return outputs[:count], outputs[count : 2 * count]


def flat(history: Tensor) -> Tensor:
    """Return (time, batch, features) as (time * batch, features)."""
    return history.reshape((-1, history.shape[2]))


def split(values: Sequence, *counts: int) -> list[list]:
    """Return the values in consecutive lists of some lengths."""
    rest = iter(values)
    return [[next(rest) for _ in range(count)] for count in counts]

"""The recurrence, written once: one step applied along time, and its gradient.

Everything here is time-major, ``(time, batch, features)``; layers are batch-major outside. This is
the only file of seqnet with a call of `pytensor.scan` or a loop over time.

The story in four parts:

1. `seqnet.ops.cell` says what one step is, and what its gradient is.
2. `run_loop` applies a body along time, as a scan or as a Python loop (`seqnet.ops.unrolled`).
3. `Iterated` is the whole forward loop as one differentiable Op. Besides the states it gives the
   products with the recurrent kernel, which the gradient needs.
4. Its gradient is a second loop, backwards in time, of the step's own gradient. Elementwise work is
   done again there, products are not; and the kernel's gradient is one product after the loop,
   never one for each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytensor
import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.gradient import disconnected_type
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import graph_inputs

from seqnet.ops.affine import connected
from seqnet.ops.cell import Cell, matrix_like, run_step, step_gradient
from seqnet.ops.unrolled import Step, stack, unstack


def run_loop(
    body: Callable, sequences, states, constants, *, unroll: bool, length, backwards=False
):
    """Apply `body` along time and return all its outputs' histories, (time, batch, ...).

    ``body(*sequence_values, *states, *constants)`` gives the new states, then whatever else should
    be kept of each step. With `backwards` time runs from the end; histories are in time's order all
    the same.
    """
    if not unroll:
        # Built once, on variables without a history: what a body replaces in its own graph then
        # never reaches back into the graph that its constants come from.
        examples = [v.type() for v in (*(s[0] for s in sequences), *states, *constants)]
        outputs = list(body(*examples))

        def step(*values):
            return graph_replace(outputs, dict(zip(examples, values, strict=True)), strict=False)

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
    steps = [unstack(s, length) for s in sequences]
    apply = Step.of(body, [s[0] for s in steps], states, constants)
    current, kept = list(states), [None] * length
    for t in reversed(range(length)) if backwards else range(length):
        outputs = apply(*[s[t] for s in steps], *current, *constants)
        kept[t] = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        current = kept[t][: len(states)]
    return [stack(values) for values in zip(*kept, strict=True)]


def iterate(
    cell: Cell,
    projected,
    states: Sequence,
    kernel,
    bias=None,
    mask=None,
    dropout=None,
    *,
    unroll: bool = False,
    length: int | None = None,
) -> list:
    """Apply a cell's step at every time and return each state after every step.

    Parameters
    ----------
    cell : Cell
    projected : variable (time, batch, gates * units)
        The projected input.
    states : list of variables, each (batch, units)
        The states before the first step.
    kernel : variable (units, gates * units)
        The recurrent kernel.
    bias : variable (gates * units,), optional
        Added to the product with the recurrent kernel.
    mask : variable (time, batch), bool, optional
        True where there is data.
    dropout : variable (batch, units), optional
        Multiplies what every product with the recurrent kernel is made of, the same at every
        step; a constant for the gradient.
    unroll : bool
        Build the steps one by one, in a Python loop, and not as a scan.
    length : int, optional
        The number of steps; needed by `unroll`.

    Returns
    -------
    list of variables, each (time, batch, units)
    """
    inputs = {"projected": projected, "kernel": kernel}
    inputs |= {f"state{k}": state for k, state in enumerate(states)}
    if bias is not None:
        inputs["bias"] = bias
    if mask is not None:
        inputs["mask"] = mask
    if dropout is not None:
        inputs["dropout"] = dropout
    inputs |= {f"extra{k}": shared for k, shared in enumerate(shared_of(cell, projected, states))}
    loop = Iterated(cell, inputs, len(states), unroll, length)
    return loop(*inputs.values(), return_list=True)[: len(states)]


def shared_of(cell: Cell, projected, states) -> list[SharedVariable]:
    """Return the shared variables a step refers to on its own."""
    x, before = matrix_like(projected), [matrix_like(s) for s in states]
    new, products = run_step(cell, x, before, lambda h, gates: matrix_like(x), {})
    roots = graph_inputs([*new, *(p.operand for p in products)])
    return list(dict.fromkeys(v for v in roots if isinstance(v, SharedVariable)))


WITHOUT_GRADIENT = ("mask", "dropout")


class Iterated(OpFromGraph):
    """The forward loop of a cell as one Op with a gradient of its own; inlined when compiled.

    Its outputs are the states' histories, then, for every product with the recurrent kernel, the
    histories of the product and of what was multiplied.
    """

    def __init__(self, cell: Cell, given: dict, states: int, unroll: bool, length: int | None):
        self.cell, self.states, self.unroll, self.length = cell, states, unroll, length
        self.names = tuple(given)
        inputs = {name: variable.type() for name, variable in given.items()}
        self.shared = [v for name, v in given.items() if name.startswith("extra")]
        self.products: list[tuple[str, ...]] = []
        super().__init__(list(inputs.values()), self.forward(**inputs), inline=True)

    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other

    def constants(self, given: dict) -> tuple[list, Callable]:
        """Return the loop's constants, and a function that reads a step's copies of them."""
        known = ("kernel", "bias", "dropout")
        names = [n for n in given if n in known or n.startswith("extra")]

        def read(values):
            found = dict(zip(names, values, strict=True))
            extras = [found[n] for n in names if n.startswith("extra")]
            return (
                found["kernel"],
                found.get("bias"),
                dict(zip(self.shared, extras, strict=True)),
                found.get("dropout"),
            )

        return [given[n] for n in names], read

    def forward(self, projected, kernel, **others):
        """Build the forward loop."""
        given = {"kernel": kernel, **others}
        constants, read = self.constants(given)
        mask = others.get("mask")
        sequences = [projected] if mask is None else [projected, mask]

        def body(*values):
            values = list(values)
            x = values.pop(0)
            step_mask = None if mask is None else values.pop(0)
            kernel, bias, extras, dropout = read(values[self.states :])

            def product(h, gates):
                result = pt.dot(h, self.cell.columns(kernel, gates))
                return result if bias is None else result + self.cell.columns(bias, gates)

            new, products = run_step(
                self.cell, x, values[: self.states], product, extras, step_mask, dropout
            )
            self.products = [p.gates for p in products]
            return [*new, *(v for p in products for v in (p.value, p.operand))]

        states = [others[f"state{k}"] for k in range(self.states)]
        return run_loop(body, sequences, states, constants, unroll=self.unroll, length=self.length)

    def connection_pattern(self, node):
        return [[name not in WITHOUT_GRADIENT] * len(node.outputs) for name in self.names]

    def pullback(self, inputs, outputs, gradients):
        """Build the loop backwards in time, then the gradients of weights in one product each."""
        given = dict(zip(self.names, inputs, strict=True))
        histories, saved = outputs[: self.states], outputs[self.states :]
        initial = [given[f"state{k}"] for k in range(self.states)]
        there = connected(gradients)
        if any(there[self.states :]):
            raise NotImplementedError("The products inside a recurrence have no gradient.")
        of_histories = [g for g, yes in zip(gradients, there, strict=True) if yes]
        before = [
            pt.concatenate([first[None], history[:-1]], axis=0)
            for first, history in zip(initial, histories, strict=True)
        ]
        constants, read = self.constants(given)
        products = saved[0::2]
        sequences = [given["projected"], *before, *products, *of_histories]
        if "mask" in given:
            sequences.append(given["mask"])

        def body(*values):
            values = list(values)
            step_mask = values.pop(len(sequences) - 1) if "mask" in given else None
            x, old, values = values[0], values[1 : 1 + self.states], values[1 + self.states :]
            kept, values = values[: len(products)], values[len(products) :]
            incoming, values = values[: len(of_histories)], values[len(of_histories) :]
            carried, values = values[: self.states], values[self.states :]
            incoming = iter(incoming)
            d_new = [
                d + next(incoming) if yes else d
                for d, yes in zip(carried, there[: self.states], strict=True)
            ]
            kernel, _, extras, dropout = read(values)
            return step_gradient(self.cell, x, old, kept, d_new, kernel, extras, step_mask, dropout)

        zeros = [pt.zeros_like(state) for state in initial]
        results = run_loop(
            body,
            sequences,
            zeros,
            constants,
            unroll=self.unroll,
            length=self.length,
            backwards=True,
        )
        d_states = [h[0] for h in results[: self.states]]
        d_projected, *rest = results[self.states :]
        d_products, of_extras = rest[: len(products)], rest[len(products) :]
        found = {"projected": d_projected, "kernel": None, "bias": None}
        found["kernel"] = self.assemble(
            [pt.dot(flat(u).T, flat(d)) for u, d in zip(saved[1::2], d_products, strict=True)]
        )
        if "bias" in given:
            found["bias"] = self.assemble([flat(d).sum(axis=0) for d in d_products])
        found |= {f"state{k}": d for k, d in enumerate(d_states)}
        found |= {f"extra{k}": d.sum(axis=0) for k, d in enumerate(of_extras)}
        return [disconnected_type() if n in WITHOUT_GRADIENT else found[n] for n in self.names]

    def assemble(self, parts: list):
        """Put gradients for the columns of each product together, for all gates in order."""
        if len(parts) == 1 and self.products[0] == self.cell.gates:
            return parts[0]
        size, columns = self.cell.units, []
        for gate in self.cell.gates:
            uses = [
                part[..., gates.index(gate) * size : (gates.index(gate) + 1) * size]
                for part, gates in zip(parts, self.products, strict=True)
                if gate in gates
            ]
            columns.append(sum(uses[1:], uses[0]))
        return pt.concatenate(columns, axis=-1)


def flat(history):
    """Return (time, batch, features) as (time * batch, features)."""
    return history.reshape((-1, history.shape[2]))

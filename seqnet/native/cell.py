"""Translate a step written with PyTensor to C functions of a cell and its gradient.

1. The step is traced once on placeholder variables and read as `Expressions`.
2. PyTensor differentiates it. The gradient is read into the same `Expressions`, so that common
   subexpressions are shared.
3. The values that the forward pass saves for the gradient are selected: results of `exp`, `tanh`
   and `sigmoid`, and products with the recurrent kernel. Cheap arithmetic is computed again, and
   states are available in any case.
4. Both become block functions in one small C source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from . import emit
from .expression import TRANSCENDENTAL, Expressions

if TYPE_CHECKING:
    from pytensor.graph.basic import Variable
    from pytensor.tensor.variable import TensorVariable


class CellSource:
    """A traced step: its expressions, the values it saves and the C source of its two functions."""

    def __init__(self, step: Callable, gates: int, states: int, dtype: str) -> None:
        import pytensor
        import pytensor.tensor as pt

        def placeholders(name: str, count: int) -> list[TensorVariable]:
            return [pt.matrix(f"{name}{i}", dtype=dtype) for i in range(count)]

        x, r, before = (
            placeholders("x", gates),
            placeholders("r", gates),
            placeholders("state", states),
        )
        returned = step(tuple(x), tuple(r), tuple(before))
        after = [cast("Variable", pt.tensor_copy(pt.as_tensor(s))) for s in returned]
        if len(after) != states:
            raise ValueError(f"the step returned {len(after)} states; it must return {states}")
        incoming = placeholders("gradient", states)
        wrt = [*x, *r, *before]
        known_grads: dict[Variable, Variable] = dict(zip(after, incoming, strict=True))
        slopes = pytensor.grad(
            None,
            wrt,
            known_grads=known_grads,
            disconnected_inputs="ignore",
            return_disconnected="none",
        )
        e = self.expressions = Expressions(dtype)

        def inputs(name: str, count: int) -> list[int]:
            return [e.add("input", name, i) for i in range(count)]

        self.x, self.r, self.before = (
            inputs("x", gates),
            inputs("r", gates),
            inputs("state", states),
        )
        carried, given = inputs("carried", states), inputs("given", states)
        known = dict(zip([*x, *r, *before], [*self.x, *self.r, *self.before], strict=True))
        self.after = [e.number(v) for v in e.read(after, known)]
        known.update(
            zip(
                incoming,
                [e.add("add", *pair) for pair in zip(carried, given, strict=True)],
                strict=True,
            )
        )
        values = [
            e.constant(0.0) if s is None else e.number(e.read([s], known)[0])
            for s in cast("list[Variable | None]", slopes)
        ]
        dx, dr, d_before = values[:gates], values[gates : 2 * gates], values[2 * gates :]

        self.distinct = [g for g in range(gates) if dr[g] != dx[g]]
        outputs = [*dx, *(dr[g] for g in self.distinct), *d_before]
        self.saved = self._choose_saved(outputs, {*carried, *given})
        kept = [*self.x, *self.before, *self.after, *self.saved]
        self.needs_projected = bool(set(self.x) & set(e.needed(outputs, kept)) - set(self.after))
        self.source = emit.unit(
            dtype,
            [
                emit.block_function(
                    "cell", e, [*self.x, *self.r, *self.before], [*self.after, *self.saved]
                ),
                emit.block_function("cell_gradient", e, [*kept, *carried, *given], outputs),
            ],
        )

    def _choose_saved(self, outputs: Sequence[int], late: set[int]) -> list[int]:
        """Return the values, besides inputs and states, that the forward pass must save."""
        e = self.expressions
        saved, seen = set(), set()
        stack = list(outputs)
        while stack:
            value = stack.pop()
            if (
                value in seen
                or value in late
                or value in self.after
                or value in self.x
                or value in self.before
            ):
                continue
            seen.add(value)
            forward = not late & set(e.needed([value]))
            if value in self.r or (forward and e.nodes[value][0] in TRANSCENDENTAL):
                saved.add(value)
            else:
                stack.extend(e.arguments(value))
        return sorted(saved)

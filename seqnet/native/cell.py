"""From a step written with PyTensor to the C of a cell and its gradient.

1. The step is traced once on placeholder variables and read as `Expressions`.
2. PyTensor differentiates it; the gradient is read into the same `Expressions`, so that the two
   share what they share.
3. What the gradient needs of the forward pass is chosen: results of `exp`, `tanh` and `sigmoid` are
   saved, and products with the recurrent matrix, which nothing else keeps; cheap arithmetic is done
   again; states are there anyway.
4. Both become block functions in one small C text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import emit
from .expression import TRANSCENDENTAL, Expressions


class Cell:
    """A traced step: its expressions, what it saves and the C of its two functions."""

    def __init__(self, step: Callable, gates: int, states: int, dtype: str) -> None:
        import pytensor
        import pytensor.tensor as pt

        def placeholders(name, count):
            return [pt.matrix(f"{name}{i}", dtype=dtype) for i in range(count)]

        x, r, before = (
            placeholders("x", gates),
            placeholders("r", gates),
            placeholders("state", states),
        )
        after = [pt.tensor_copy(pt.as_tensor(s)) for s in step(tuple(x), tuple(r), tuple(before))]
        if len(after) != states:
            raise ValueError(f"the step gave {len(after)} states; it must give {states}")
        incoming = placeholders("gradient", states)
        wrt = [*x, *r, *before]
        slopes = pytensor.grad(
            None,
            wrt,
            known_grads=dict(zip(after, incoming, strict=True)),
            disconnected_inputs="ignore",
            return_disconnected="none",
        )
        e = self.expressions = Expressions(dtype)

        def inputs(name, count):
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
        slopes = [e.constant(0.0) if s is None else e.number(e.read([s], known)[0]) for s in slopes]
        dx, dr, d_before = slopes[:gates], slopes[gates : 2 * gates], slopes[2 * gates :]

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
        """The values that the gradient takes from the forward pass, besides inputs and states."""
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

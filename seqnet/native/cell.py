"""Translate a step written with PyTensor to C functions of a cell and its gradient.

1. The step is traced once on placeholder variables and read as `Expressions`.
2. PyTensor differentiates it. The gradient is read into the same `Expressions`, so that common
   subexpressions are shared.
3. The values that the forward pass saves for the gradient are selected: results of `exp`, `tanh`
   and `sigmoid`, and products with the recurrent kernel. Cheap arithmetic is computed again, and
   states are available in any case. A step without products saves nothing.
4. Both become block functions in one small C source. The left operands of the products, if they
   are not states themselves, and their gradients are two more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from . import emit
from .expression import TRANSCENDENTAL, Expressions

if TYPE_CHECKING:
    from pytensor.graph.basic import Variable
    from pytensor.tensor.variable import TensorVariable


class Other(NamedTuple):
    """An array that a step takes beside its projected input and its states."""

    kind: Literal["vector", "batch", "sequence", "matrix"]
    """``(units,)``; ``(batch, units)``; ``(time, batch, units)``, one value for each step; or
    ``(rows, columns)``, which a step of a `ProgramKernel` multiplies by."""
    gradient: bool = True
    """Whether its gradient is computed."""


class CellSource:
    """A traced step: its expressions, the values it saves and the C source of its functions.

    The arguments are those of `RecurrenceKernel`.
    """

    def __init__(
        self,
        step: Callable,
        gates: int,
        states: int,
        dtype: str,
        others: Sequence[Other] = (),
        operands: Callable | None = None,
    ) -> None:
        import pytensor.tensor as pt

        def placeholders(name: str, count: int) -> list[TensorVariable]:
            return [pt.matrix(f"{name}{i}", dtype=dtype) for i in range(count)]

        x, r = placeholders("x", gates), placeholders("r", gates)
        before, more = placeholders("state", states), placeholders("other", len(others))
        given_others = (tuple(more),) if others else ()
        returned = step(tuple(x), tuple(r), tuple(before), *given_others)
        after = copies(returned)
        if len(after) != states:
            raise ValueError(f"the step returned {len(after)} states; it must return {states}")
        incoming = placeholders("gradient", states)
        trained = [v for v, other in zip(more, others, strict=True) if other.gradient]
        e = self.expressions = Expressions(dtype)

        def inputs(name: str, count: int) -> list[int]:
            return [e.add("input", name, i) for i in range(count)]

        self.x, self.r = inputs("x", gates), inputs("r", gates)
        self.before, self.others = inputs("state", states), inputs("other", len(others))
        carried, given = inputs("carried", states), inputs("given", states)
        known = dict(
            zip(
                [*x, *r, *before, *more],
                [*self.x, *self.r, *self.before, *self.others],
                strict=True,
            )
        )
        self.after = [e.number(v) for v in e.read(after, known)]
        # After the step was read, because what is not elementwise may have no gradient here.
        slopes = slopes_of(after, incoming, [*x, *r, *before, *trained])
        known.update(
            zip(
                incoming,
                [e.add("add", *pair) for pair in zip(carried, given, strict=True)],
                strict=True,
            )
        )
        # After the step was read, which names what cannot be a kernel.
        slopes = slopes_of(after, incoming, [*x, *r, *before, *trained])
        values = e.gradients(slopes, known)
        dx, dr, d_before = values[:gates], values[gates : 2 * gates], values[2 * gates :]
        d_before, d_others = d_before[:states], d_before[states:]
        of_each_step = [other.kind == "sequence" for other in others if other.gradient]
        self.sums = [e.add("input", "sum", i) for i in range(of_each_step.count(False))]

        used = set(e.needed([*self.after, *values]))
        self.has_products = not used.isdisjoint(self.r)
        self.distinct = [g for g in range(gates) if self.has_products and dr[g] != dx[g]]
        d_sequences = [d for d, each in zip(d_others, of_each_step, strict=True) if each]
        added = [d for d, each in zip(d_others, of_each_step, strict=True) if not each]
        sums = [e.add("add", *pair) for pair in zip(self.sums, added, strict=True)]
        outputs = [*dx, *(dr[g] for g in self.distinct), *d_sequences, *d_before, *sums]
        late = {*carried, *given, *self.sums}
        # Without products, the inputs of the step are enough to compute its values again.
        self.saved = self._choose_saved(outputs, late) if self.has_products else []
        given_forwards = [*self.x, *self.r, *self.before, *self.others]
        kept = [*self.x, *self.before, *self.after, *self.saved]
        arguments = [*kept, *self.others, *carried, *given, *self.sums]
        read = set(e.needed(outputs, arguments))
        self.needs_projected = bool(set(self.x) & read - set(self.after))
        functions = [
            emit.block_function("cell", e, given_forwards, [*self.after, *self.saved]),
            emit.block_function("cell_gradient", e, arguments, outputs),
        ]
        self.operand_of, self.computed = [0] * gates, 0
        if operands is not None and self.has_products:
            functions += self._operands(operands, before, more, trained, of_each_step, known)
        self.source = emit.unit(dtype, functions)

    def _operands(
        self,
        operands: Callable,
        before: list,
        more: list,
        trained: list,
        of_each_step: list[bool],
        known: dict,
    ) -> list[str]:
        """Set `operand_of` and `computed`; return the two functions of the operands."""
        import pytensor.tensor as pt

        e, states = self.expressions, len(before)
        wanted = [before[0] if v is None else v for v in operands(tuple(before), tuple(more))]
        values = [e.number(v) for v in e.read(wanted, known)]
        sources = list(dict.fromkeys(v for v in values if v not in self.before))
        places = {v: i for i, v in enumerate([*self.before, *sources])}
        self.operand_of, self.computed = [places[v] for v in values], len(sources)
        if not sources:
            return []
        computed = copies([wanted[values.index(v)] for v in sources])
        incoming = [pt.matrix(f"d_operand{i}", dtype=v.type.dtype) for i, v in enumerate(computed)]
        arriving = [e.add("input", "d_operand", i) for i in range(len(computed))]
        carried = [e.add("input", "carried", i) for i in range(states)]
        slopes = slopes_of(computed, incoming, [*before, *trained])
        known = known | dict(zip(incoming, arriving, strict=True))
        found = e.gradients(slopes, known)
        for slope, each in zip(slopes[states:], of_each_step, strict=True):
            if each and slope is not None:
                raise e.unavailable(
                    "a product with the recurrent kernel of a sequence that has a gradient"
                )
        added = [d for d, each in zip(found[states:], of_each_step, strict=True) if not each]
        outputs = [
            e.add("add", *pair)
            for pair in zip([*carried, *self.sums], [*found[:states], *added], strict=True)
        ]
        given = [*self.before, *self.others]
        return [
            emit.block_function("compute_operands", e, given, sources),
            emit.block_function(
                "operands_gradient", e, [*given, *carried, *arriving, *self.sums], outputs
            ),
        ]

    def _choose_saved(self, outputs: Sequence[int], late: set[int]) -> list[int]:
        """Return the values, besides inputs and states, that the forward pass must save."""
        e = self.expressions
        saved, seen = set(), set()
        available = {*late, *self.after, *self.x, *self.before, *self.others}
        stack = list(outputs)
        while stack:
            value = stack.pop()
            if value in seen or value in available:
                continue
            seen.add(value)
            forward = not late & set(e.needed([value]))
            if value in self.r or (forward and e.nodes[value][0] in TRANSCENDENTAL):
                saved.add(value)
            else:
                stack.extend(e.arguments(value))
        return sorted(saved)


def copies(values: Sequence) -> list[Variable]:
    """Return copies of variables, which are new variables with gradients of their own."""
    import pytensor.tensor as pt

    return [cast("Variable", pt.tensor_copy(pt.as_tensor(v))) for v in values]


def slopes_of(outputs: Sequence, gradients: Sequence, wrt: Sequence) -> list[Variable | None]:
    """Return the gradients of variables given those of outputs; None where there is none."""
    import pytensor

    found = pytensor.grad(
        None,
        list(wrt),
        known_grads=dict(zip(outputs, gradients, strict=True)),
        disconnected_inputs="ignore",
        return_disconnected="none",
    )
    return cast("list[Variable | None]", found)

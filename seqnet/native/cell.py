"""Translate a step written with PyTensor to C functions of a cell and its gradient.

1. The step is traced once on placeholder variables and read as `Expressions`.
2. PyTensor differentiates it. The gradient is read into the same `Expressions`, so that common
   subexpressions are shared.
3. The values that the forward pass saves for the gradient are selected: results of `exp`, `tanh`
   and `sigmoid`, and products with the recurrent kernel. Cheap arithmetic is computed again, and
   states are available in any case. A step without products saves nothing.
4. Both become block functions in one small C source. The left operands of the products, if they
   are not states themselves, and their gradients are two more.
5. Sums over the units divide a function into stages, between which the sums are computed. What is
   computed from sums alone is one number for each row, and a function of its own.
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


class Stage(NamedTuple):
    """A part of a function between two sums over the units; `stage` in ``src/recurrence.c``."""

    function: str | None
    row_function: str | None
    terms: int
    saved: tuple[int, int]
    rows: tuple[int, int]


class Plan:
    """The stages in which a function with sums over the units is computed.

    Parameters
    ----------
    e
        The expressions that the values belong to.
    outputs, given
        Values: those that the function computes, and those that it takes.

    Attributes
    ----------
    level : dict
        For each value that is needed, the number of sums, one after the other, that it depends on.
    top : int
        The largest level.
    rows : list of int
        The values with one number for each row that are stored: for each level the sums, and then
        the values computed from sums alone that other values or `outputs` are computed from.
    """

    def __init__(self, e: Expressions, outputs: Sequence[int], given: Sequence[int]) -> None:
        self.e, self.given = e, list(given)
        self.level: dict[int, int] = {}
        known = set(given)
        needed = e.needed(outputs, given)
        for v in needed:
            below = [self.level[a] for a in e.arguments(v)] if v not in known else []
            self.level[v] = max(below, default=0) + (v not in known and e.nodes[v][0] == "sum")
        self.top = max(self.level.values(), default=0)
        inner = [v for v in needed if v not in known]
        is_sum = {v for v in inner if e.nodes[v][0] == "sum"}
        read = set(outputs).union(*(e.arguments(v) for v in inner if not e.is_row(v)))
        derived = [
            v for v in inner if v in read and e.is_row(v) and v not in is_sum and v != e.units
        ]
        levels = range(self.top + 1)
        self.sums = [[v for v in is_sum if self.level[v] == n] for n in levels]
        self.sums = [sorted(sums) for sums in self.sums]
        self.derived = [[v for v in derived if self.level[v] == n] for n in levels]
        self.rows = [v for n in levels for v in [*self.sums[n], *self.derived[n]]]
        self.has_rows = bool(self.rows) or e.units in needed

    def expensive(self) -> list[int]:
        """Return the values that are expensive to compute, of all stages but the last."""
        e = self.e
        return [
            v
            for v, level in self.level.items()
            if level < self.top and e.nodes[v][0] in TRANSCENDENTAL and not e.is_row(v)
        ]

    def stages(self, name: str, saved: Sequence[int], first_row: int = 0) -> list[Stage]:
        """Return the stages; the first row value is stored at `first_row`."""
        found, row = [], first_row
        for n in range(self.top + 1):
            start = row + len(self.sums[n])
            row = start + len(self.derived[n])
            before = sum(self.level[v] < n for v in saved)
            until = sum(self.level[v] <= n for v in saved)
            terms = len(self.sums[n + 1]) if n < self.top else 0
            found.append(
                Stage(
                    f"{name}_stage{n}" if n < self.top else None,
                    f"{name}_rows{n}" if self.derived[n] else None,
                    terms,
                    (before, until),
                    (start, row),
                )
            )
        return found

    def functions(
        self,
        name: str,
        arguments: Sequence[int],
        outputs: Sequence[int],
        saved: Sequence[int],
        rows: Sequence[int],
    ) -> list[str]:
        """Return the source of the functions of all stages; the last one has the name `name`.

        They take the arguments, the saved values, all row values, and the number of units.
        """
        e, found = self.e, []

        def at(n: int) -> list[int | None]:
            return [v if v not in new or self.level[v] <= n else None for v in rows]

        new = {v for n in range(self.top + 1) for v in [*self.sums[n], *self.derived[n]]}
        mine = new | set(self.given)
        count = len(arguments) + len(saved)
        single = range(count, count + len(rows) + 1)
        for n, stage in enumerate(self.stages(name, saved)):
            available = [v if v in mine else None for v in at(n)]
            if stage.row_function:
                before = [None if v in self.derived[n] else v for v in available]
                inputs: list[int | None] = [*before, e.units]
                found.append(
                    emit.block_function(
                        stage.row_function, e, inputs, self.derived[n], [len(before)]
                    )
                )
            known = [v if self.level[v] < n else None for v in saved]
            results = [v for v in saved if self.level[v] == n]
            if n < self.top:
                terms = [e.number(e.arguments(v)[0]) for v in self.sums[n + 1]]
                results = [*terms, *results]
            else:
                results = [*outputs, *results]
            inputs = [*arguments, *known, *available, e.units]
            found.append(emit.block_function(stage.function or name, e, inputs, results, single))
        return found


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
        forward = Plan(
            e, [*self.after, *self.saved], [*self.x, *self.r, *self.before, *self.others]
        )
        if forward.top:  # what a later stage would compute again
            self.saved += [v for v in forward.expensive() if v not in self.saved]
            forward = Plan(e, [*self.after, *self.saved], forward.given)
            self.saved.sort(key=lambda v: (forward.level[v], v))
        kept = [*self.x, *self.before, *self.after, *self.saved]
        arguments = [*kept, *self.others, *carried, *given, *self.sums]
        backward = Plan(e, outputs, [*arguments, *forward.rows])
        self.needs_projected = bool(set(self.x) & backward.level.keys() - set(self.after))
        self.rows = [*forward.rows, *backward.rows]
        self.stages: list[Stage] = []
        self.gradient_stages: list[Stage] = []
        functions = []
        if forward.has_rows or backward.has_rows:
            self.stages = forward.stages("cell", self.saved)
            functions += forward.functions("cell", forward.given, self.after, self.saved, self.rows)
            self.gradient_stages = backward.stages("cell_gradient", [], len(forward.rows))
            functions += backward.functions("cell_gradient", arguments, outputs, [], self.rows)
        else:
            functions += [
                emit.block_function("cell", e, forward.given, [*self.after, *self.saved]),
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
        if any(e.nodes[v][0] == "sum" for v in e.needed(sources)):
            raise e.unavailable("a product with the recurrent kernel of what has sums over units")
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
        available |= {v for v in e.needed(self.after) if e.nodes[v][0] == "sum"}
        stack = list(outputs)
        while stack:
            value = stack.pop()
            if value in seen or value in available:
                continue
            seen.add(value)
            forward = not late & set(e.needed([value])) and not e.is_row(value)
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

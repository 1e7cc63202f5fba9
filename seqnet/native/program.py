"""A recurrence of any step of elementwise functions, sums and products, as one compiled kernel.

`RecurrenceKernel` is for cells with one product with the recurrent kernel, of the states. This
module is for all other steps: products with any number of matrices, of what the step has computed
before; sums and largest values over columns; states of different sizes; columns that are taken
apart and concatenated.

1. The products of the step are replaced by placeholders. What remains is elementwise, and is read
   in ranges of columns (`columns`).
2. PyTensor differentiates it, product by product, from the last to the first.
3. Values have a level: the number of products and reductions, one after the other, that they
   depend on. A level is one function for each width of its outputs. Functions and products, level
   by level, are the instructions of one step, forwards and backwards. ``src/program.c`` runs them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import Structure, addressof, c_double, c_long, c_void_p
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import emit, memory
from .cell import Other, copies, slopes_of
from .columns import REDUCTIONS, Columns, Leaf, Segment
from .compiler import KernelUnavailable
from .core import address, core_and, count_call, get_num_threads
from .expression import TRANSCENDENTAL
from .recording import keep, run
from .recurrence import RecurrenceGradients
from .steps import copy_into

if TYPE_CHECKING:
    from pytensor.graph.basic import Variable

MAX_PLACES = 160  # as in src/program.c
KEEPS, NOTHING = -2, -1  # as in src/program.c


class StepProduct(NamedTuple):
    """A product within a step: of `operand` (batch, rows) and columns of a matrix.

    The result is given as one placeholder or as several, each of some columns.
    """

    operand: Variable
    matrix: int
    """0 is the recurrent kernel, 1 + k the k-th of the others."""
    start: int
    values: Sequence[Variable]
    widths: Sequence[int]


class StepGraph(NamedTuple):
    """A step as variables. All are (batch, columns), and elementwise beside the products."""

    inputs: Sequence[Variable]
    input_sizes: Sequence[int]
    states: Sequence[Variable]
    state_sizes: Sequence[int]
    others: Sequence[Variable]
    """Those that are matrices are not used."""
    kinds: Sequence[Other]
    other_sizes: Sequence[int | None]
    products: Sequence[StepProduct]
    new_states: Sequence[Variable]


class Buffer(NamedTuple):
    """Where values are: the arena or array, and the offset in it in columns."""

    arena: str
    number: int
    offset: int = 0
    shift: int = 0


class Output(NamedTuple):
    """A value that a direction computes, and where it goes."""

    value: int
    width: int | None
    to: Buffer
    masked: tuple[Buffer | None, Buffer | None] | None
    """What it is where the mask is False: the sum of two, zero, or, for None, what it was."""


class ProductCall(NamedTuple):
    """A product of one direction."""

    number: int
    operand: Buffer
    to: Buffer
    level: int
    accumulate: bool


class Function(NamedTuple):
    """A call of a generated function."""

    name: str
    columns: int
    inputs: list[Buffer]
    outputs: list[Buffer]
    masked: list[tuple[Buffer | None, Buffer | None] | None]


LATE = ("carried", "given", "arriving")
"""The kinds of inputs that only the gradient has."""


class Arenas:
    """Places for values of one step, by arena: the offset of each, in columns."""

    def __init__(self, lanes: int) -> None:
        self.lanes, self.totals = lanes, dict.fromkeys(ARENAS, 0)
        self.widths: dict[tuple[str, int], tuple[int, int]] = {}

    def new(self, arena: str, width: int | None) -> Buffer:
        """Return a new place; a width of None is one number for each row."""
        padded = 1 if width is None else -(-width // self.lanes) * self.lanes
        index = len(self.widths)
        self.widths[arena, index] = (self.totals[arena], padded)
        self.totals[arena] += padded
        return Buffer(arena, index)


ARENAS = ("kept", "scratch", "carried", "gradients", "sums")
"""Arenas: values kept for the gradient, values of one step, gradients of the states (two steps),
gradients of products (all steps), and gradients that are summed over all steps."""


class Direction:
    """The instructions of a step in one direction.

    Parameters
    ----------
    e
        The expressions of all values.
    name
        Prefix of the names of functions.
    arenas
        Where new values are stored, and the arena of those that are not outputs.
    """

    def __init__(self, e: Columns, name: str, arenas: Arenas, arena: str) -> None:
        self.e, self.name, self.arenas, self.arena = e, name, arenas, arena
        self.leaf_levels: dict[tuple[str, int], int] = {}
        self.known: dict[int, Buffer] = {}  # values that are stored before the step
        self.rows: dict[int, Buffer] = {}  # sums, and functions of sums
        self._levels: dict[int, int] = {}
        self.products: list[ProductCall] = []
        self.instructions: list[Function | ProductCall] = []
        self.sources: list[str] = []

    def level(self, value: int) -> int:
        """Return the number of products and reductions that a value depends on."""
        for v in self.e.needed([value], [*self.known, *self._levels]):
            if v in self._levels:
                continue
            operation, *arguments = self.e.nodes[v]
            if v in self.known or operation == "constant":
                self._levels[v] = 0
            elif operation == "input":
                self._levels[v] = self.leaf_levels.get((arguments[0], arguments[1]), 0)
            else:
                below = max((self._levels[a] for a in self.e.arguments(v)), default=0)
                self._levels[v] = below + (operation in REDUCTIONS)
        return self._levels[value]

    def expensive(self, values: Sequence[int]) -> list[int]:
        """Return values that are expensive, and that a later level would compute again."""
        e, top = self.e, max(map(self.level, values), default=0)
        return [
            v
            for v in e.needed(values, [*self.known])
            if v not in self.known
            and e.nodes[v][0] in TRANSCENDENTAL
            and not e.is_row(v)
            and self.level(v) < top
        ]

    def build(self, outputs: Sequence[Output], place_of: Any) -> None:
        """Make the instructions; ``place_of(value)`` is where a leaf is."""
        e, known = self.e, [*self.known]
        wanted = [o.value for o in outputs]
        inner = [v for v in e.needed(wanted, known) if v not in self.known]
        for v in inner:
            self.level(v)
        reductions = [v for v in inner if e.nodes[v][0] in REDUCTIONS]
        read = set(wanted).union(*(e.arguments(v) for v in inner if not e.is_row(v)))
        derived = [
            v for v in inner if v in read and e.is_row(v) and e.arguments(v) and v not in reductions
        ]
        for v in [*reductions, *derived]:
            self.rows[v] = self.arenas.new(self.arena, None)
        stored = {o.value: o for o in outputs if o.width is not None and not e.is_row(o.value)}
        stored = {v: o for v, o in stored.items() if e.nodes[v][0] in TRANSCENDENTAL}
        top = max([0, *(self.level(v) for v in inner), *(p.level for p in self.products)])
        for level in range(top + 1):
            self.instructions += [p for p in self.products if p.level == level]
            self._row_function(level, derived, outputs, place_of)
            self._functions(level, reductions, outputs, stored, place_of)

    def _row_function(
        self, level: int, derived: Sequence[int], outputs: Sequence[Output], place_of: Any
    ) -> None:
        now: list[tuple] = [(v, self.rows[v], None) for v in derived if self.level(v) == level]
        now += [
            (o.value, o.to, o.masked)
            for o in outputs
            if o.width is None and self.level(o.value) == level
        ]
        if not now:
            return
        before = {v: b for v, b in self.rows.items() if v not in derived or self.level(v) < level}
        self._add(f"{self.name}_rows{level}", 0, now, [], before, place_of)

    def _functions(
        self,
        level: int,
        reductions: Sequence[int],
        outputs: Sequence[Output],
        stored: dict[int, Output],
        place_of: Any,
    ) -> None:
        e = self.e
        before = {v: b for v, b in self.rows.items() if self.level(v) <= level}
        before |= {v: o.to for v, o in stored.items() if self.level(v) < level}
        groups: dict[int, tuple[list, list]] = {}
        for o in outputs:
            if o.width is not None and self.level(o.value) == level:
                groups.setdefault(o.width, ([], []))[0].append((o.value, o.to, o.masked))
        for v in reductions:
            if self.level(v) == level + 1:
                width = e.width(e.arguments(v)[0])
                assert width is not None
                groups.setdefault(width, ([], []))[1].append((v, self.rows[v], None))
        for number, (width, (now, totals)) in enumerate(groups.items()):
            name = f"{self.name}_{level}_{number}"
            self._add(name, width, now, totals, before, place_of)

    def _add(
        self,
        name: str,
        columns: int,
        now: Sequence[tuple],
        totals: Sequence[tuple],
        before: dict[int, Buffer],
        place_of: Any,
    ) -> None:
        e = self.e
        terms = [e.arguments(v)[0] for v, *_ in totals]
        available = {**before, **self.known}
        needed = e.needed([*(v for v, *_ in now), *terms], list(available))
        inputs = [v for v in needed if v in available or e.nodes[v][0] == "input"]
        places = [available[v] if v in available else place_of(v) for v in inputs]
        if columns:
            single = [i for i, v in enumerate(inputs) if e.is_row(v)]
        else:
            single = [i for i, p in enumerate(places) if p.arena == "size"]
        values = [v for v, *_ in now]
        self.sources.append(
            emit.block_function(name, e, inputs, values, single, [v for v, *_ in totals])
        )
        results = [*now, *totals]
        if len(inputs) > MAX_PLACES or len(results) > MAX_PLACES:
            raise KernelUnavailable(f"the step has too many values ({MAX_PLACES} fit)")
        self.instructions.append(
            Function(name, columns, places, [b for _, b, _ in results], [m for *_, m in results])
        )


class StepProgram:
    """The instructions of a step and of its gradient, and their C source."""

    def __init__(self, step: StepGraph, dtype: str, lanes: int) -> None:
        import pytensor.tensor as pt

        self.step = step
        e = self.expressions = Columns(dtype)
        self.arenas = Arenas(lanes)
        self.products = step.products
        for name, variables, sizes in (
            ("x", step.inputs, step.input_sizes),
            ("before", step.states, step.state_sizes),
            ("other", step.others, step.other_sizes),
        ):
            for k, (v, size) in enumerate(zip(variables, sizes, strict=True)):
                e.leaves[v] = Leaf(name, k, size)
        for p, product in enumerate(step.products):
            offset = 0
            for v, width in zip(product.values, product.widths, strict=True):
                e.leaves[v] = Leaf("result", p, width, offset)
                offset += width
        after = copies(step.new_states)
        operands = copies([p.operand for p in step.products])
        self.after = [
            self._checked(e.segments(v), size)
            for v, size in zip(after, step.state_sizes, strict=True)
        ]
        self.operands = [e.segments(v) for v in operands]
        self.trained = [k for k, o in enumerate(step.kinds) if o.gradient and o.kind != "matrix"]
        # ---- the gradient, from the last product to the first
        incoming = [pt.matrix(f"d{k}", dtype=dtype) for k in range(len(after))]
        arriving = [pt.matrix(f"arriving{p}", dtype=dtype) for p in range(len(operands))]
        for k, (v, size) in enumerate(zip(incoming, step.state_sizes, strict=True)):
            e.leaves[v] = Leaf("carried+given", k, size)
        for p, (v, segments) in enumerate(zip(arriving, self.operands, strict=True)):
            e.leaves[v] = Leaf("arriving", p, segments[-1].end)
        known = dict(zip(after, incoming, strict=True))
        self.d_results: list[list[Segment]] = [[] for _ in operands]
        for p in reversed(range(len(operands))):
            product = step.products[p]
            slopes = slopes_of([*known], [*known.values()], product.values)
            if all(slope is None for slope in slopes):
                continue
            self.d_results[p] = self._joined(slopes, product.widths)
            known[operands[p]] = arriving[p]
        others = [step.others[k] for k in self.trained]
        slopes = slopes_of([*known], [*known.values()], [*step.inputs, *step.states, *others])
        count, states = len(step.inputs), len(step.states)
        self.d_inputs = self._joined(slopes[:count], step.input_sizes)
        self.d_before = [
            self._joined([s], [n])
            for s, n in zip(slopes[count : count + states], step.state_sizes, strict=True)
        ]
        self.d_others: list[Any] = []
        for k, slope in zip(self.trained, slopes[count + states :], strict=True):
            size = step.other_sizes[k]
            if size is None:
                row = e.constant(0.0) if slope is None else e.row(slope)
                self.d_others.append([Segment(0, 1, row)])
            else:
                self.d_others.append(self._joined([slope], [size]))
        self._forward()
        self._backward()
        self.sources = [emit.unit(dtype, d.sources) for d in (self.forward, self.backward)]

    def _checked(self, segments: list[Segment], size: int) -> list[Segment]:
        if segments[-1].end != size:
            raise KernelUnavailable("a new state has another size than the state")
        return segments

    def _joined(self, slopes: Sequence, widths: Sequence[int]) -> list[Segment]:
        """Return gradients, each of some columns, as segments of all columns."""
        found, start = [], 0
        for slope, width in zip(slopes, widths, strict=True):
            if slope is None:
                found.append(Segment(start, start + width, self.expressions.constant(0.0)))
            else:
                segments = self._checked(self.expressions.segments(slope), width)
                found += [Segment(start + a, start + b, v) for a, b, v in segments]
            start += width
        return found

    # ---- forwards
    def _forward(self) -> None:
        e, step, arenas = self.expressions, self.step, self.arenas
        direction = self.forward = Direction(e, "forward", arenas, "kept")
        outputs: list[Output] = []
        self.operand_places: list[Buffer] = []
        self.results = [arenas.new("scratch", sum(p.widths)) for p in step.products]
        saved = self._choose_saved()
        for p, segments in enumerate(self.operands):
            level = max(direction.level(s.value) for s in segments)
            direction.leaf_levels["result", p] = level + 1
            place = self._state_of(segments)
            if place is None:
                place = arenas.new("kept", segments[-1].end)
                outputs += [
                    Output(s.value, s.end - s.start, shifted(place, s.start), (None, None))
                    for s in segments
                ]
            self.operand_places.append(place)
            direction.products.append(
                ProductCall(p, place, self.results[p], level + 1, accumulate=False)
            )
        states = [s for segments in self.after for s in segments]
        everything = [*(s.value for s in states), *(o.value for o in outputs), *saved]
        saved += [v for v in direction.expensive(everything) if v not in saved]
        for k, segments in enumerate(self.after):
            for s in segments:
                old = Buffer("before", k, s.start)
                to = Buffer("after", k, s.start)
                outputs.append(Output(s.value, s.end - s.start, to, (old, None)))
        self.saved = {}
        for v in saved:
            width = e.width(v)
            self.saved[v] = arenas.new("kept", width)
            outputs.append(Output(v, width, self.saved[v], None))
        direction.build(outputs, self._place)

    def _state_of(self, segments: list[Segment]) -> Buffer | None:
        """Return the place of the state before the step that an operand is, or None."""
        if len(segments) != 1:
            return None
        operation, *arguments = self.expressions.nodes[segments[0].value]
        if operation != "input" or arguments[0] != "before":
            return None
        return Buffer("before", arguments[1], arguments[2])

    def _place(self, value: int) -> Buffer:
        """Return where an input of the expressions is."""
        _, kind, index, *columns = self.expressions.nodes[value]
        offset = columns[0] if columns else 0
        if kind == "result":
            return shifted(self.results[index], offset)
        if kind == "arriving":
            return shifted(self.arriving[index], offset)
        if kind == "carried":
            return shifted(self.incoming[index], offset)
        if kind == "sum":
            return shifted(self.sums[index], offset)
        if kind == "x":
            offset += sum(self.step.input_sizes[:index])
            return Buffer("x", 0, offset)
        return Buffer(kind, index, offset)

    def _gradients(self) -> list[int]:
        parts = [*self.d_results, self.d_inputs, *self.d_before, *self.d_others]
        return [s.value for segments in parts for s in segments]

    def _choose_saved(self) -> list[int]:
        """Return the values, besides inputs and states, that the gradient needs."""
        e, saved, seen = self.expressions, [], set()
        after = {s.value for segments in self.after for s in segments}
        forward = [*after, *(s.value for segments in self.operands for s in segments)]
        computed = set(e.needed(forward))
        stack, kept = self._gradients(), set()
        while stack:
            v = stack.pop()
            operation, *arguments = e.nodes[v]
            if v in seen or v in after:
                continue
            seen.add(v)
            if operation == "input":
                if arguments[0] == "result":
                    kept.add(arguments[1])
                continue
            if v in computed and operation in REDUCTIONS:
                continue
            late = any(e.nodes[u][0] == "input" and e.nodes[u][1] in LATE for u in e.needed([v]))
            if not late and not e.is_row(v) and operation in TRANSCENDENTAL:
                saved.append(v)
            else:
                stack.extend(e.arguments(v))
        for p in kept:
            self.results[p] = self.arenas.new("kept", sum(self.step.products[p].widths))
        return sorted(saved)

    # ---- backwards
    def _backward(self) -> None:
        e, step, arenas = self.expressions, self.step, self.arenas
        direction = self.backward = Direction(e, "backward", arenas, "scratch")
        for k, segments in enumerate(self.after):
            for s in segments:
                if e.nodes[s.value][0] not in ("input", "constant"):
                    direction.known[s.value] = Buffer("after", k, s.start)
        direction.known |= self.saved | self.forward.rows
        self.arriving: list[Buffer] = []
        self.sums: dict[int, Buffer] = {}
        outputs: list[Output] = []
        self.incoming = [arenas.new("carried", n)._replace(shift=1) for n in step.state_sizes]
        zero = (None, None)
        projected = [
            Output(s.value, s.end - s.start, Buffer("d_x", 0, s.start), zero) for s in self.d_inputs
        ]
        outputs += projected
        self.gradient_places: list[Buffer | None] = []
        found: dict[tuple, Buffer] = {}
        self.arriving = [arenas.new("scratch", segments[-1].end) for segments in self.operands]
        for p in reversed(range(len(step.products))):
            segments = self.d_results[p]
            if not segments:
                self.gradient_places.insert(0, None)
                continue
            level = max(direction.level(s.value) for s in segments)
            direction.leaf_levels["arriving", p] = level + 1
            key = tuple(segments)
            place = found.get(key) or self._place_in(segments, self.d_inputs)
            if place is None:
                place = arenas.new("gradients", segments[-1].end)
                outputs += [
                    Output(s.value, s.end - s.start, shifted(place, s.start), zero)
                    for s in segments
                ]
            found[key] = place
            self.gradient_places.insert(0, place)
            direction.products.append(ProductCall(p, place, self.arriving[p], level + 1, False))
        for k, segments in enumerate(self.d_before):
            for s in segments:
                to = shifted(self.incoming[k]._replace(shift=0), s.start)
                now = shifted(self.incoming[k], s.start)
                given = Buffer("given", k, s.start)
                outputs.append(Output(s.value, s.end - s.start, to, (now, given)))
        for k, segments in zip(self.trained, self.d_others, strict=True):
            size, each = step.other_sizes[k], step.kinds[k].kind == "sequence"
            if not each:
                self.sums[k] = arenas.new("sums", size)
            for s in segments:
                width = None if size is None else s.end - s.start
                if each:
                    outputs.append(Output(s.value, width, Buffer("d_other", k, s.start), zero))
                    continue
                columns = () if size is None else (s.start, s.end)
                total = e.add("add", e.add("input", "sum", k, *columns), s.value)
                outputs.append(Output(total, width, shifted(self.sums[k], s.start), None))
        again = direction.expensive([o.value for o in outputs])
        for v in again:
            outputs.append(Output(v, e.width(v), arenas.new("scratch", e.width(v)), None))
        direction.build(outputs, self._place)

    def _place_in(self, segments: list[Segment], whole: list[Segment]) -> Buffer | None:
        """Return the place of segments within those of the gradient of the input, or None."""
        for first in whole:
            start = first.start
            moved = [Segment(start + a, start + b, v) for a, b, v in segments]
            if set(moved) <= set(whole):
                return Buffer("d_x", 0, start)
        return None


def shifted(buffer: Buffer, offset: int) -> Buffer:
    """Return the place some columns further."""
    return buffer._replace(offset=buffer.offset + offset)


# ---- the compiled kernel --------------------------------------------------------------------
class _Place(Structure):  # place in src/program.c
    _fields_ = [(name, c_long) for name in ("data", "time_step", "slots", "shift", "row_step")]


class _Instruction(Structure):  # instruction in src/program.c
    _fields_ = [
        ("function", c_void_p),
        *((name, c_long) for name in ("columns", "inputs", "outputs")),
        *((name, c_void_p) for name in ("in_", "out", "masked")),
        *((name, c_long) for name in ("matrix", "accumulate")),
    ]


class _Matrix(Structure):  # matrix in src/program.c
    _fields_ = [
        ("data", c_void_p),
        *((name, c_long) for name in ("row_step", "depth", "columns", "transposed")),
        *((name, c_void_p) for name in ("bias", "packed", "packed_bias")),
    ]


class _WeightGradient(Structure):  # weight_gradient in src/program.c
    _fields_ = [
        *((name, c_long) for name in ("operand", "gradient", "rows", "columns")),
        ("to", c_void_p),
        ("to_row", c_long),
        ("column_sums", c_void_p),
    ]


class _Program(Structure):  # program in src/program.c
    _fields_ = [
        *((name, c_long) for name in ("time", "batch", "backwards", "instructions")),
        *((name, c_void_p) for name in ("instruction", "place", "mask")),
        *((name, c_long) for name in ("mask_time_step", "mask_batch_step", "matrices")),
        ("matrix", c_void_p),
        ("weights", c_long),
        ("weight", c_void_p),
        ("scratch", c_void_p),
        ("operations", c_double),
    ]


class _Packed:
    """The instructions of a direction as C structures, and the places that they use."""

    def __init__(
        self, direction: Direction, arenas: Arenas, library: ctypes.CDLL, more: Sequence[Buffer]
    ) -> None:
        self.places: dict[Buffer, int] = {}
        self.kept: list = []
        instructions = []
        for i in direction.instructions:
            if isinstance(i, ProductCall):
                given = [self._array([i.operand]), self._array([i.to]), None]
                instructions.append(
                    _Instruction(None, 0, 1, 1, *given, i.number, int(i.accumulate))
                )
                continue
            function = ctypes.cast(library[i.name], c_void_p)
            masked = (c_long * (2 * len(i.masked)))()
            for k, rule in enumerate(i.masked):
                pair = [KEEPS, NOTHING]
                if rule is not None:
                    pair = [NOTHING if b is None else self.number(b) for b in rule]
                masked[2 * k], masked[2 * k + 1] = pair
            self.kept.append(masked)
            given = [self._array(i.inputs), self._array(i.outputs), addressof(masked)]
            sizes = i.columns, len(i.inputs), len(i.outputs)
            instructions.append(_Instruction(function, *sizes, *given, 0, 0))
        for buffer in more:
            self.number(buffer)
        self.count = len(instructions)
        self.instructions = (_Instruction * self.count)(*instructions)
        # Arrays from which the table of places is computed at each call.
        sources = list(dict.fromkeys((b.arena, b.number) for b in self.places))
        self.inner = [s for s in sources if s[0] in ARENAS]
        self.outer = [s for s in sources if s[0] not in ARENAS]
        numbers = {s: k for k, s in enumerate([*self.inner, *self.outer])}
        self.source = np.array([numbers[b.arena, b.number] for b in self.places], np.int64)
        self.offset = np.array([b.offset for b in self.places], np.int64)
        self.shift = np.array([b.shift for b in self.places], np.int64)
        self.arena = np.array([ARENAS.index(arena) for arena, _ in self.inner], np.int64)
        layout = [arenas.widths[s] for s in self.inner]
        self.start = np.array([start for start, _ in layout], np.int64)
        self.width = np.array([width for _, width in layout], np.int64)

    def number(self, buffer: Buffer) -> int:
        """Return the number of a place."""
        return self.places.setdefault(buffer, len(self.places))

    def _array(self, buffers: Sequence[Buffer]) -> int:
        found = (c_long * max(1, len(buffers)))(*(self.number(b) for b in buffers))
        self.kept.append(found)
        return addressof(found)

    def table(
        self,
        arenas: Sequence[tuple[int, int, int]],
        outer: dict[tuple[str, int], tuple[int, int, int, int]],
        batch: int,
        size: int,
    ) -> np.ndarray:
        """Return all places, given (address, columns, slots) of each arena and those of arrays."""
        address_of, columns, slots = np.array(arenas, np.int64).T
        rows = np.empty((len(self.inner) + len(self.outer), 4), np.int64)
        inner = rows[: len(self.inner)]
        inner[:, 0] = address_of[self.arena] + self.start * (batch * size)
        inner[:, 1] = columns[self.arena] * batch
        inner[:, 2] = slots[self.arena]
        inner[:, 3] = self.width
        for k, source in enumerate(self.outer):
            rows[len(self.inner) + k] = outer[source]
        table = np.empty((len(self.source), 5), np.int64)
        table[:, [0, 1, 2, 4]] = rows[self.source]
        table[:, 0] += self.offset * size
        table[:, 3] = self.shift
        return table


class Kept(NamedTuple):
    """What `ProgramKernel.backward` needs of `forward`."""

    histories: list[np.ndarray]  # of each state, (time + 1, batch, size)
    values: np.ndarray


class ProgramKernel:
    """A compiled recurrence of one step; the sizes of the batch and of time are those of a call.

    Its methods are those of `RecurrenceKernel`.

    Raises
    ------
    KernelUnavailable
        If the step uses an operation that is not supported, or there is no compiler.
    """

    def __init__(self, step: StepGraph, dtype: str) -> None:
        # PyTensor keeps Ops, and with them their kernels, for the life of the process. A kernel
        # therefore keeps no variables, which would keep a whole graph.
        self.dtype = np.dtype(dtype)
        self.gates, self.states = len(step.inputs), len(step.states)
        self.others = tuple(step.kinds)
        self.state_sizes, self.other_sizes = tuple(step.state_sizes), tuple(step.other_sizes)
        self._input_columns = sum(step.input_sizes)
        self._products = [(p.matrix, p.start, sum(p.widths)) for p in step.products]
        program = StepProgram(step, self.dtype.name, 64 // self.dtype.itemsize)
        self._core, libraries = core_and(self.dtype.name, *program.sources)
        self._sizes = np.array(program.expressions.sizes or [0.0], self.dtype)
        widest = max([1, *step.state_sizes])
        self._zeros = np.zeros(widest, self.dtype)
        self._forward = _Packed(program.forward, program.arenas, libraries[0], [])
        self._weights = [
            (p, program.operand_places[p], place)
            for p, place in enumerate(program.gradient_places)
            if place is not None
        ]
        more = [b for _, *pair in self._weights for b in pair]
        self._backward = _Packed(program.backward, program.arenas, libraries[1], more)
        self._depths = [segments[-1].end for segments in program.operands]
        self._arenas, self._sums, self._incoming = program.arenas, program.sums, program.incoming
        widths = [columns for _, _, columns in self._products]
        self._packed = [
            max(n * pad(k), (k + 1) * pad(n)) for k, n in zip(self._depths, widths, strict=True)
        ]
        products = sum(k * n for k, n in zip(self._depths, widths, strict=True))
        self._work = 2 * products + 64 * sum(step.state_sizes)

    def forward(
        self,
        projected: np.ndarray,
        recurrent_kernel: np.ndarray | None = None,
        recurrent_bias: np.ndarray | None = None,
        initial_states: Sequence[np.ndarray] | None = None,
        mask: np.ndarray | None = None,
        save: bool = True,
        others: Sequence[np.ndarray] = (),
    ) -> tuple[list[np.ndarray], Kept | None]:
        """Return every state after every step; see `RecurrenceKernel.forward`."""
        time, batch = projected.shape[:2]
        histories = []
        for k, size in enumerate(self.state_sizes):
            history = memory.empty((time + 1, batch, size), self.dtype)
            if initial_states is None:
                history[0] = 0
            else:
                copy_into(history[0], initial_states[k])
            histories.append(history)
        slots = time if save else 1
        kept = memory.empty((slots * batch * self._arenas.totals["kept"],), self.dtype)
        if time and batch:
            arrays, alive = self._given(projected, others, histories)
            arenas = {"kept": (kept, slots)}
            matrices = recurrent_kernel, recurrent_bias, others
            self._run(self._forward, False, (time, batch), arenas, arrays, matrices, mask)
            keep(alive, projected, others)
            del alive
        count_call("recurrence.forward")
        return [history[1:] for history in histories], Kept(histories, kept) if save else None

    def backward(
        self,
        recurrent_kernel: np.ndarray | None,
        states: Sequence[np.ndarray],
        saved: Kept,
        grads: Sequence[np.ndarray | None],
        *,
        projected: np.ndarray,
        recurrent_bias: np.ndarray | None = None,
        initial_states: Sequence[np.ndarray] | None = None,
        mask: np.ndarray | None = None,
        final_grads: Sequence[np.ndarray | None] | None = None,
        others: Sequence[np.ndarray] = (),
    ) -> RecurrenceGradients:
        """Return the gradients of all arguments; see `RecurrenceKernel.backward`."""
        totals = self._arenas.totals
        time, batch = projected.shape[:2]
        d_projected = memory.empty(projected.shape, self.dtype)
        d_others: list[np.ndarray | None] = [None] * len(others)
        arrays, alive = self._given(projected, others, saved.histories)
        arrays["d_x", 0] = sequence(d_projected)
        for k, other in enumerate(self.others):
            if not other.gradient or other.kind == "matrix":
                continue
            size = self.other_sizes[k]
            if other.kind == "sequence":
                last = () if size is None else (size,)
                d_others[k] = found = memory.empty((time, batch, *last), self.dtype)
                arrays["d_other", k] = sequence(found)
        for k, g in enumerate(grads):
            if g is None:
                arrays["given", k] = (address(self._zeros), 0, 1, 0)
            else:
                arrays["given", k] = sequence(g)
        carried = memory.empty((2, batch * totals["carried"]), self.dtype)
        carried[time % 2] = 0
        for k, (start, size) in enumerate(self._carried()):
            if final_grads is not None and final_grads[k] is not None:
                self._block(carried[time % 2], start, size, batch)[:] = final_grads[k]
        sums = np.zeros((batch * totals["sums"],), self.dtype)
        gradients = memory.empty((time * batch * totals["gradients"],), self.dtype)
        arenas = {
            "kept": (saved.values, max(1, time)),
            "carried": (carried, 2),
            "gradients": (gradients, max(1, time)),
            "sums": (sums, 1),
        }
        d_kernel, d_bias = (
            None if array is None else np.zeros(array.shape, self.dtype)
            for array in (recurrent_kernel, recurrent_bias)
        )
        for k, other in enumerate(self.others):
            if other.gradient and other.kind == "matrix":
                d_others[k] = np.zeros(others[k].shape, self.dtype)
        if time and batch:
            matrices = recurrent_kernel, None, others
            weights = d_kernel, d_bias, d_others
            self._run(self._backward, True, (time, batch), arenas, arrays, matrices, mask, weights)
        count_call("recurrence.backward")
        del alive
        d_initial = None
        if initial_states is not None:
            found = carried[0]
            d_initial = [
                self._block(found, start, size, batch).copy() for start, size in self._carried()
            ]
        for k, place in self._sums.items():
            start, _ = self._arenas.widths["sums", place.number]
            columns = self.other_sizes[k]
            if columns is None:
                total = sums[start * batch : (start + 1) * batch].reshape(batch, 1)
            else:
                total = self._block(sums, start, columns, batch)
            vector = self.others[k].kind == "vector"
            d_others[k] = total.sum(axis=0) if vector else np.ascontiguousarray(total)
        used = [
            d.reshape(a.shape)
            for d, a, other in zip(d_others, others, self.others, strict=True)
            if d is not None and other.gradient
        ]
        return RecurrenceGradients(d_projected, d_kernel, d_bias, d_initial, used)

    def _carried(self) -> list[tuple[int, int]]:
        widths = self._arenas.widths
        return [
            (widths["carried", b.number][0], size)
            for b, size in zip(self._incoming, self.state_sizes, strict=True)
        ]

    def _block(self, arena: np.ndarray, start: int, size: int, batch: int) -> np.ndarray:
        """Return the values (batch, size) at a place of an arena with one slot."""
        padded = pad(size, 64 // self.dtype.itemsize)
        flat = arena[start * batch : (start + padded) * batch]
        return flat.reshape(batch, padded)[:, :size]

    def _given(
        self,
        projected: np.ndarray,
        others: Sequence[np.ndarray],
        histories: Sequence[np.ndarray],
    ) -> tuple[dict, list[np.ndarray]]:
        """Return the places of the arrays of both directions, and arrays that must stay alive."""
        time, batch = projected.shape[:2]
        self._check("projected", projected, (time, batch, self._input_columns))
        if len(others) != len(self.others):
            raise ValueError(f"others must be {len(self.others)} arrays, got {len(others)}")
        arrays = {("x", 0): sequence(projected)}
        for k in range(len(self._sizes)):
            arrays["size", k] = (address(self._sizes[k : k + 1]), 0, 1, 0)
        for k, (history, size) in enumerate(zip(histories, self.state_sizes, strict=True)):
            start, step = address(history), batch * size
            arrays["before", k] = (start, step, time + 1, size)
            arrays["after", k] = (start + step * self.dtype.itemsize, step, time + 1, size)
        alive = []
        for k, (array, other) in enumerate(zip(others, self.others, strict=True)):
            if other.kind == "matrix":
                continue
            columns = self.other_sizes[k]
            shape = (time, batch) if other.kind == "sequence" else (batch,)
            if columns is None:
                array = np.ascontiguousarray(
                    np.broadcast_to(array.reshape(array.shape[:-1]), shape)
                )
            else:
                array = np.broadcast_to(array, (*shape, columns))
                if array.strides[-1] != array.itemsize:
                    array = np.ascontiguousarray(array)
            self._check(f"others[{k}]", array, array.shape)
            arrays["other", k] = sequence(array, other.kind == "sequence")
            alive.append(array)
        return arrays, alive

    def _check(self, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
        last = not array.size or array.shape[-1] == 1 or array.strides[-1] == array.itemsize
        if array.shape != shape or array.dtype != self.dtype or not last:
            raise ValueError(
                f"{name} must be {self.dtype}{shape} with its last axis contiguous, got "
                f"{array.dtype}{array.shape} with strides {array.strides}"
            )

    def _run(
        self,
        packed: _Packed,
        backwards: bool,
        sizes: tuple[int, int],
        arenas: dict[str, tuple[np.ndarray, int]],
        arrays: dict,
        matrices: tuple[np.ndarray | None, np.ndarray | None, Sequence],
        mask: np.ndarray | None,
        gradients: tuple[np.ndarray | None, np.ndarray | None, Sequence] | None = None,
    ) -> None:
        """Run the instructions of a direction on all steps."""
        time, batch = sizes
        item, totals = self.dtype.itemsize, self._arenas.totals
        work = self._work * batch * time * (2 if backwards else 1)
        threads = get_num_threads() if work > 100_000 else 1
        scratch_size = batch * totals["scratch"] + 64
        room = scratch_size + sum(self._packed) + threads * self._core.gemm_scratch_size + 64
        scratch = memory.scratch(room * item)
        table = packed.table(
            [
                (address(arenas[name][0]), totals[name], arenas[name][1])
                if name in arenas
                else (scratch, totals[name], 1)
                for name in ARENAS
            ],
            arrays,
            batch,
            item,
        )
        at = scratch + scratch_size * item
        kept, structures = [], []
        for (number, start, columns), depth, room in zip(
            self._products, self._depths, self._packed, strict=True
        ):
            array: Any = matrices[2][number - 1] if number else matrices[0]
            if array.strides[-1] != item and array.size:
                array = np.ascontiguousarray(array)
            kept.append(array)
            bias = None
            if not number and matrices[1] is not None:
                bias = address(matrices[1]) + start * item
            data = address(array) + start * item
            structures.append(
                _Matrix(
                    *(data, array.strides[0] // item, depth, columns, int(backwards), bias, at),
                    at + depth * pad(columns) * item,
                )
            )
            at += room * item
        matrix = (_Matrix * len(structures))(*structures)
        jobs = []
        d_kernel, d_bias, d_others = gradients or (None, None, ())
        for p, operand, place in self._weights if gradients else ():
            number, start, columns = self._products[p]
            array, sums = d_kernel, d_bias
            if number:
                array, sums = d_others[number - 1], None
            if array is None:
                continue
            to = address(array) + start * item
            at_sums = None if sums is None else address(sums) + start * item
            numbers = packed.number(operand), packed.number(place)
            jobs.append(
                _WeightGradient(*numbers, self._depths[p], columns, to, array.shape[1], at_sums)
            )
        weight = (_WeightGradient * len(jobs))(*jobs)
        masks = (None, 0, 0) if mask is None else (address(mask), *mask.strides)
        program = _Program(
            *(time, batch, int(backwards), packed.count, addressof(packed.instructions)),
            *(table.ctypes.data, *masks, len(structures), addressof(matrix)),
            *(len(jobs), addressof(weight), at, work),
        )
        run(self._core.run_program, program, threads, self, kept, table, matrix, weight, mask)


def pad(size: int, multiple: int = 64) -> int:
    """Return a size rounded up; by default to panels of any width of vectors."""
    return -(-size // multiple) * multiple


def sequence(array: np.ndarray, of_each_step: bool = True) -> tuple[int, int, int, int]:
    """Return the place of an array (time, batch, columns), or without time, or without columns."""
    item = array.itemsize
    if not of_each_step:
        return address(array), 0, 1, array.strides[0] // item
    return address(array), array.strides[0] // item, 1 << 40, array.strides[1] // item

"""Read PyTensor graphs of matrices (batch, columns), in ranges of columns.

A step may take matrices apart and put them together: columns are sliced, split and concatenated, in
the step itself and in its gradient. `Columns` reads a graph range by range, so that no operation
remains that moves data: each range is an elementwise function of ranges of the leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from .expression import PASSED, Expressions

if TYPE_CHECKING:
    from pytensor.graph.basic import Apply, Variable

REDUCTIONS = ("sum", "largest")
"""Operations over the columns, whose values are one number for each row."""

Range: TypeAlias = tuple[int, int] | None
"""Columns from the first to before the second; None for one number for each row."""


class Leaf(NamedTuple):
    """A variable that a graph is computed from: columns of an array, or a number for each row.

    A kind such as ``"carried+given"`` is the sum of two arrays.
    """

    kind: str
    number: int
    width: int | None
    offset: int = 0


class Segment(NamedTuple):
    """A value of some columns."""

    start: int
    end: int
    value: int


class Columns(Expressions):
    """Expressions of ranges of columns.

    Inputs are ``("input", kind, index, start, end)`` for columns of an array, and ``("input", kind,
    index)`` for one number for each row.

    Parameters
    ----------
    dtype
        ``"float32"`` or ``"float64"``.

    Attributes
    ----------
    leaves : dict
        The `Leaf` of each variable that graphs are computed from.
    sizes : list of float
        The numbers of columns that expressions compute with: ``("input", "size", k)``.
    """

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        self.leaves: dict[Variable, Leaf] = {}
        self.sizes: list[float] = []
        self._rows: dict[int, bool] = {}
        self._widths: dict[Variable, int | None] = {}
        self._cuts: dict[Variable, frozenset[int]] = {}
        self._shapes: dict[Variable, int] = {}
        self._integers: dict[Variable, np.ndarray] = {}
        self._measured: set[Variable] = set()  # integers that are sizes, or computed from sizes
        self._values: dict[tuple[Variable, Range], int] = {}

    # ---- queries
    def is_row(self, value: int) -> bool:
        """Return whether a value is one number for each row: a sum, or a function of sums."""
        if value not in self._rows:
            node = self.nodes[value]
            arguments = [a for a in self.arguments(value) if self.value_of(a) is None]
            self._rows[value] = (
                node[0] in REDUCTIONS
                or (node[0] == "input" and len(node) == 3)
                or (bool(arguments) and all(map(self.is_row, arguments)))
            )
        return self._rows[value]

    def width(self, value: int) -> int | None:
        """Return how many columns a value has; None for one number for each row, and constants."""
        operation, *arguments = self.nodes[value]
        if operation == "input":
            return arguments[3] - arguments[2] if len(arguments) == 4 else None
        if operation == "constant" or self.is_row(value):
            return None
        return next(w for a in arguments if (w := self.width(a)) is not None)

    def size(self, number: float) -> int:
        """Return the value of a number of columns. It is an argument of the generated code."""
        if number not in self.sizes:
            self.sizes.append(number)
        return self.add("input", "size", self.sizes.index(number))

    # ---- reading
    def segments(self, variable: Variable) -> list[Segment]:
        """Return a variable (batch, columns) as values of ranges of its columns.

        Raises
        ------
        KernelUnavailable
            If it is not an elementwise function of columns of the leaves and of sums over columns.
        """
        self._prepare(variable)
        width = self._widths[variable]
        if width is None:
            return [Segment(0, 1, self.number(self._value(variable, None)))]
        return [
            Segment(a, b, self.number(self._value(variable, (a, b))))
            for a, b in self._ranges(variable, 0, width)
        ]

    def row(self, variable: Variable) -> int:
        """Return the value of a variable (batch, 1) or (batch,)."""
        self._prepare(variable)
        return self.number(self._value(variable, None))

    def _prepare(self, output: Variable) -> None:
        """Find the widths of all variables, where columns are cut, and the values of sizes."""
        from pytensor.graph.traversal import io_toposort

        for node in io_toposort([*self.leaves], [output]):
            for v in (*node.inputs, *node.outputs):
                if v.owner is None or v in self.leaves:
                    self._prepare_root(v)
            if all(v in self._widths for v in node.outputs):
                continue
            if self._is_size(node):
                continue
            if self._computes_size(node):
                storage = [[None] for _ in node.outputs]
                node.op.perform(node, [self._known_integer(v) for v in node.inputs], storage)
                for v, (found,) in zip(node.outputs, storage, strict=True):
                    self._set(v, None, integer=np.asarray(found))
                    if self._measures(node):
                        self._measured.add(v)
            else:
                for k, v in enumerate(node.outputs):
                    self._set(v, *self._layout(node, k))
        self._prepare_root(output)

    def _prepare_root(self, v: Variable) -> None:
        if (v not in self._widths and v.owner is None) or v in self.leaves:
            leaf = self.leaves.get(v)
            self._set(v, leaf.width if leaf else width_of_type(v))

    def _set(
        self,
        v: Variable,
        width: int | None,
        cuts: Iterable[int] = (),
        integer: np.ndarray | None = None,
    ) -> None:
        self._widths[v] = width
        self._cuts[v] = frozenset(c for c in cuts if width is not None and 0 < c < width)
        if integer is not None:
            self._integers[v] = integer

    def _is_size(self, node: Apply) -> bool:
        """Note the number of columns of a variable, if a node asks for it."""
        name, output = type(node.op).__name__, node.outputs[0]
        if name == "Shape":
            self._shapes[output] = self._widths[node.inputs[0]] or 1
        elif name == "Elemwise" and len(node.inputs) == 1 and node.inputs[0] in self._shapes:
            self._shapes[output] = self._shapes[node.inputs[0]]  # a cast
        elif name == "Subtensor" and node.inputs[0] in self._shapes and len(node.inputs) == 2:
            if self._integer(node.inputs[1]) in (1, -1):
                self._set(output, None, integer=np.asarray(self._shapes[node.inputs[0]]))
                self._measured.add(output)
        else:
            return False
        self._widths.setdefault(output, None)
        return True

    def _computes_size(self, node: Apply) -> bool:
        """Return whether a node computes with sizes alone."""
        known = [v in self._integers or getattr(v, "data", None) is not None for v in node.inputs]
        kinds = {getattr(v.type, "dtype", "")[:3] for v in node.outputs}
        return all(known) and (self._measures(node) or kinds == {"int"})

    def _measures(self, node: Apply) -> bool:
        return any(v in self._measured for v in node.inputs)

    def _known_integer(self, v: Variable) -> np.ndarray:
        found = self._integers.get(v)
        return v.data if found is None else found  # type: ignore[attr-defined]

    def _integer(self, v: Variable) -> int:
        if v not in self._integers and getattr(v, "data", None) is None:
            raise self.unavailable(f"it depends on a number that is computed in the step: {v}")
        return int(self._known_integer(v))

    def _layout(self, node: Apply, number: int) -> tuple[int | None, Iterable[int]]:
        """Return the width of an output of a node, and where its columns are cut."""
        name, output = type(node.op).__name__, node.outputs[number]
        if output.type.ndim < 2 or output.type.broadcastable[1]:
            return None, ()
        if name == "Join":
            starts = self._starts(node)
            cuts = {*starts[1:-1]}
            for start, v in zip(starts, self._joined(node), strict=False):
                cuts |= {start + c for c in self._cuts[v]}
            return starts[-1], cuts
        if name == "Split":
            start, end = self._split(node, number)
            return end - start, [c - start for c in self._cuts[node.inputs[0]]]
        if name == "Subtensor":
            start, end = self._slice(node, 1)
            return end - start, [c - start for c in self._cuts[node.inputs[0]]]
        if name == "IncSubtensor":
            start, end = self._slice(node, 2)
            inner = {start + c for c in self._cuts[node.inputs[1]]}
            return self._widths[node.inputs[0]], {start, end, *self._cuts[node.inputs[0]]} | inner
        if name == "Alloc":
            width = self._integer(node.inputs[-1])
            return width, self._cuts[node.inputs[0]]
        wide = [v for v in node.inputs if self._widths[v] is not None]
        widths = {self._widths[v] for v in wide}
        if len(widths) != 1:
            raise self.unavailable(f"{self._named(node)} of a variable of unknown size")
        return widths.pop(), set().union(*(self._cuts[v] for v in wide))

    @staticmethod
    def _named(node: Apply) -> str:
        return f"the operation {node.op}"

    def _axis(self, node: Apply, place: int) -> int:
        """Return the axis of a concatenation or split; since PyTensor 3.1 the Op has it."""
        axis = getattr(node.op, "axis", None)
        return self._integer(node.inputs[place]) if axis is None else axis

    @staticmethod
    def _joined(node: Apply) -> list[Variable]:
        """Return what a concatenation joins."""
        return node.inputs[0 if hasattr(node.op, "axis") else 1 :]

    def _starts(self, node: Apply) -> list[int]:
        """Return where each part of a concatenation starts, and the end."""
        if self._axis(node, 0) % 2 != 1:
            raise self.unavailable("a concatenation along the batch")
        widths = [self._widths[v] for v in self._joined(node)]
        return [0, *np.cumsum([1 if w is None else w for w in widths]).tolist()]

    def _split(self, node: Apply, number: int) -> tuple[int, int]:
        if self._axis(node, 1) % 2 != 1:
            raise self.unavailable("a split of the batch")
        sizes = node.inputs[-1]
        if sizes not in self._integers and getattr(sizes, "data", None) is None:
            raise self.unavailable("a split into parts of unknown size")
        ends = np.cumsum(self._known_integer(sizes))
        return int(ends[number - 1]) if number else 0, int(ends[number])

    def _slice(self, node: Apply, first: int) -> tuple[int, int]:
        """Return the columns that a slice takes; `first` is the number of inputs before indices."""
        from pytensor.tensor.subtensor import indices_from_subtensor

        width = self._widths[node.inputs[0]]
        index = list(indices_from_subtensor(node.inputs[first:], node.op.idx_list))
        rows, columns = (*index, slice(None), slice(None))[:2]
        if node.inputs[0].type.ndim != 2 or rows != slice(None) or width is None:
            raise self.unavailable(f"{self._named(node)} takes rows of the batch")
        if not isinstance(columns, slice):
            place = self._integer(columns) % width
            return place, place + 1
        first_column, last, step = (
            None if v is None else self._integer(v)
            for v in (columns.start, columns.stop, columns.step)
        )
        start, end, stride = slice(first_column, last, step).indices(width)
        if stride != 1:
            raise self.unavailable(f"{self._named(node)} takes columns that are not adjacent")
        return start, max(start, end)

    def _ranges(self, v: Variable, start: int, end: int) -> list[tuple[int, int]]:
        cuts = sorted({start, end, *(c for c in self._cuts[v] if start < c < end)})
        return list(pairwise(cuts))

    def _value(self, variable: Variable, columns: Range) -> int:
        stack: list[tuple[Variable, Range]] = [(variable, columns)]
        pending: dict = {}
        while stack:
            item = stack[-1]
            if item in self._values:
                stack.pop()
                continue
            if item not in pending:
                pending[item] = self._parts(*item)
            combine, parts = pending[item]
            missing = [part for part in parts if part not in self._values]
            if missing:
                stack += missing
            else:
                self._values[item] = combine([self._values[part] for part in parts])
                stack.pop()
        return self._values[variable, columns]

    def _parts(self, v: Variable, columns: Range) -> tuple[Callable, list]:
        """Return of which ranges of other variables a value is computed, and the function."""
        if v in self.leaves:
            leaf = self.leaves[v]
            place = () if columns is None else (leaf.offset + columns[0], leaf.offset + columns[1])
            first, *more = leaf.kind.split("+")

            def read(_: Sequence[int]) -> int:
                value = self.add("input", first, leaf.number, *place)
                for kind in more:
                    value = self.add("add", value, self.add("input", kind, leaf.number, *place))
                return value

            return read, []
        if v in self._integers:
            number = float(self._integers[v].flat[0])
            return lambda _: (self.size if v in self._measured else self.constant)(number), []
        if v.owner is None:
            return lambda _: self._constant(v, columns), []
        node, name = v.owner, type(v.owner.op).__name__
        if name == "Elemwise":
            parts = [(u, None if self._widths[u] is None else columns) for u in node.inputs]
            number = node.outputs.index(v)
            return lambda values: self._scalar(node.op.scalar_op, node, values)[number], parts
        if name == "RoundToBfloat16":
            parts = [(node.inputs[0], None if self._widths[node.inputs[0]] is None else columns)]
            return lambda values: self.add("bfloat16", self.number(values[0])), parts
        if name in ("Sum", "Max"):
            return self._reduction(node, "sum" if name == "Sum" else "largest")
        if name in ("DimShuffle", "ExpandDims", "Squeeze"):
            return self._first, [self._reshaped(node)]
        first = node.inputs[0]
        if name in (*PASSED, "SpecifyShape", "TensorFromScalar", "ScalarFromTensor", "Alloc"):
            wide = self._widths[first] is not None
            return self._first, [(first, columns if wide else None)]
        if name == "Join":
            assert columns is not None
            starts = self._starts(node)
            k = sum(start <= columns[0] for start in starts[1:])
            part = self._joined(node)[k]
            if self._widths[part] is None:
                return self._first, [(part, None)]
            return self._first, [(part, (columns[0] - starts[k], columns[1] - starts[k]))]
        if name in ("Subtensor", "Split"):
            start, _ = (
                self._slice(node, 1)
                if name == "Subtensor"
                else self._split(node, node.outputs.index(v))
            )
            if columns is None:  # one column, as one number for each row
                return lambda values: self.add("sum", values[0]), [(first, (start, start + 1))]
            return self._first, [(first, (columns[0] + start, columns[1] + start))]
        if name == "IncSubtensor":
            return self._replaced(node, columns)
        raise self.unavailable(f"{self._named(node)} is not elementwise or not known")

    @staticmethod
    def _first(values: Sequence[int]) -> int:
        return values[0]

    def _constant(self, v: Variable, columns: Range) -> int:
        data = getattr(v, "data", None)
        if data is None:
            raise self.unavailable(f"{v} is not one of the declared inputs")
        data = np.asarray(data)
        if columns is not None and data.ndim:
            data = data[..., columns[0] : columns[1]]
        if data.size != 1 and not (data.size and (data == data.flat[0]).all()):
            raise self.unavailable(f"the constant {v} is more than one number")
        return self.constant(data.flat[0])

    def _reshaped(self, node: Apply) -> tuple[Variable, Range]:
        before, after = node.inputs[0], node.outputs[0]
        kinds = before.type, after.type
        if all(getattr(before.type, "broadcastable", ())):
            return before, None
        same = kinds[0].ndim == kinds[1].ndim == 2 and not kinds[1].broadcastable[0]
        if same or has_rows(node):
            return before, None if self._widths[before] is None else (0, 1)
        raise self.unavailable(f"{self._named(node)} moves axes")

    def _reduction(self, node: Apply, kind: str) -> tuple[Callable, list]:
        (v,), axes = node.inputs, node.op.axis
        if v.type.ndim != 2 or axes is None or tuple(axes) != (1,):
            raise self.unavailable(f"{node.op} is not over the last axis, that of the columns")
        width = self._widths[v]
        if width is None:
            return lambda values: self.number(values[0]), [(v, None)]
        ranges = self._ranges(v, 0, width)

        def reduced(values: Sequence[int]) -> int:
            found = []
            for (a, b), value in zip(ranges, values, strict=True):
                value = self.number(value)
                if self.is_row(value) or self.value_of(value) is not None:
                    found.append(
                        self.add("mul", value, self.size(b - a)) if kind == "sum" else value
                    )
                else:
                    found.append(self.add(kind, value))
            total = found[0]
            for value in found[1:]:
                total = self.add("add" if kind == "sum" else "maximum", total, value)
            return total

        return reduced, [(v, columns) for columns in ranges]

    def _replaced(self, node: Apply, columns: Range) -> tuple[Callable, list]:
        whole, part = node.inputs[:2]
        start, end = self._slice(node, 2)
        if columns is None:
            raise self.unavailable(f"{self._named(node)} of one number for each row")
        inside = start <= columns[0] and columns[1] <= end
        if not inside:
            return self._first, [(whole, columns)]
        narrow = self._widths[part] is None
        new = (part, None if narrow else (columns[0] - start, columns[1] - start))
        if node.op.set_instead_of_inc:
            return self._first, [new]
        return lambda values: self.add("add", *map(self.number, values)), [(whole, columns), new]


def width_of_type(v: Variable) -> int | None:
    """Return the number of columns of a constant; None if it has one or is no matrix."""
    if v.type.__class__.__name__ != "TensorType" or v.type.ndim < 2 or v.type.broadcastable[1]:
        return None
    return v.type.shape[1]


def has_rows(node: Apply) -> bool:
    """Return whether a node only adds or removes the last axis, of size 1: (batch,), (batch, 1)."""
    before, after = node.inputs[0].type, node.outputs[0].type
    if (before.ndim, after.ndim) == (2, 1):
        return before.broadcastable[1] and not before.broadcastable[0]
    return (before.ndim, after.ndim) == (1, 2) and tuple(after.broadcastable) == (False, True)

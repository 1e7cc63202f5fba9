"""Lookup of table rows by index, its gradient, and updates of single rows.

The gradient of a table is zero except for the rows that were looked up. `touched_rows` finds these
in a graph, so that an optimizer can update them alone. The cost of a step then depends on the
number of these rows and not on the size of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import pytensor.tensor as pt
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op, OutputStorageType
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor.exceptions import ShapeError
from pytensor.tensor.sharedvar import TensorSharedVariable

from seqnet.common.types import Array, Tensor
from seqnet.ops.graph_op import GraphOp, SymbolicShape, like


def assert_in_range(ids: Tensor, count: Tensor | int, what: str) -> Tensor:
    """Return integers with a check that raises `IndexError` unless all are in ``[0, count)``.

    Without it, -1 would select the last row. JAX cannot raise errors, so its mode removes the
    check.

    Parameters
    ----------
    ids : integer variable
    count : int or integer variable
    what : str
        Name of the integers in the message.
    """
    top = f"{count})" if isinstance(count, int) else "the number of rows)"
    check = CheckAndRaise(IndexError, f"{what} are not all in [0, {top}.")
    return cast("Tensor", check(ids, pt.all((ids >= 0) & (ids < count))))


class Gather(GraphOp):
    """``table[ids]``: rows of a table (rows, width) by ids (...) of any shape: (..., width).

    Parameters
    ----------
    what : str
        Name of the ids in error messages.
    """

    __props__ = ("what",)

    def __init__(self, what: str = "The numbers that are looked up") -> None:
        self.what = what

    def define(self, table: Tensor, ids: Tensor) -> list[Tensor]:
        count = table.type.shape[0] or table.shape[0]
        rows = table[assert_in_range(ids.flatten(), count, self.what)]
        return [rows.reshape((*tuple(ids.shape), table.shape[1]))]

    def outputs_for(self, table: Tensor, ids: Tensor) -> list[Tensor]:
        return [like(table, ids.ndim + 1, ids.type.shape, table.type.shape[1])]

    def shapes(self, table: SymbolicShape, ids: SymbolicShape) -> list[SymbolicShape]:
        return [(*ids, table[1])]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True], [False]]

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        table, ids = cast("Sequence[Tensor]", inputs)
        count = table.type.shape[0] or table.shape[0]
        rows = ScatterAdd(self.what)(output_grads[0], ids, count)
        return [rows, disconnected_type()]


class ScatterAdd(GraphOp):
    """Sum the rows (..., width) with the same id (...) into a table (count, width)."""

    __props__ = ("what",)

    def __init__(self, what: str = "The numbers that are looked up") -> None:
        self.what = what

    def define(self, rows: Tensor, ids: Tensor, count: Tensor) -> list[Tensor]:
        flat = rows.reshape((-1, rows.shape[-1]))
        table = pt.zeros((count, rows.shape[-1]), dtype=rows.dtype)
        flat_ids = assert_in_range(ids.flatten(), count, self.what)
        return [pt.inc_subtensor(table[flat_ids], flat)]

    def outputs_for(self, rows: Tensor, ids: Tensor, count: Tensor) -> list[Tensor]:
        known = getattr(count, "data", None)
        return [like(rows, 2, (None if known is None else int(known),), rows.type.shape[-1])]

    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        node, shapes = given[-2:]
        return [(node.inputs[2], shapes[0][-1])]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True], [False], [False]]


class SumRows(GraphOp):
    """Sum the rows (..., width) with the same id (...): n unique ids (n,) and sums (n, width)."""

    __props__ = ()

    def define(self, rows: Tensor, ids: Tensor) -> list[Tensor]:
        unique, place = pt.unique(ids.flatten(), return_inverse=True)
        summed = ScatterAdd()(rows.reshape((-1, rows.shape[-1])), place, unique.shape[0])
        return [pt.cast(unique, "int64"), summed]

    def outputs_for(self, rows: Tensor, ids: Tensor) -> list[Tensor]:
        return [pt.vector(dtype="int64"), like(rows, 2, (None,), rows.type.shape[-1])]

    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        raise ShapeError("the number of unique ids depends on their values")

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[False, True], [False, False]]


class SetRows(Op):
    """Replace some rows of a table (count, ...): unique ids (n,) and new rows (n, ...).

    The virtual machine runs it in place if no other node needs the old table.
    """

    __props__ = ("inplace",)

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace
        if inplace:
            self.destroy_map = {0: [0]}

    def in_place(self) -> SetRows:
        """Return the Op that works in place."""
        return SetRows(inplace=True)

    def make_node(self, *inputs: Variable) -> Apply:
        table, ids, rows = inputs
        return Apply(self, [table, ids, rows], [table.type()])

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        table, ids, rows = inputs
        table = table if self.inplace else table.copy()
        table[ids] = rows
        outputs[0][0] = table

    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        return [given[-1][0]]


class Touched(NamedTuple):
    """The rows of a table that have a gradient: their ids (n,) and gradients (n, width)."""

    ids: Tensor
    gradients: Tensor


FEW_ROWS = 1024
"""Tables with fewer rows are updated completely, which takes less time than finding the rows."""


def touched_rows(table: TensorSharedVariable, gradient: Tensor) -> Touched | None:
    """Return the rows of a table that have a gradient, or None if all rows may have one.

    Only a table with a single use, a lookup, has such a gradient.
    """
    node = gradient.owner
    if node is None or not isinstance(node.op, ScatterAdd):
        return None
    if table.get_value(borrow=True).shape[0] < FEW_ROWS:
        return None
    return Touched(*SumRows()(*node.inputs[:2]))

"""Rows of a table by number, the gradient of that, and changes of some rows only.

The gradient of a table is zero but for the rows that were looked up. `touched_rows` finds them in a
graph, so that an optimizer can leave the others alone: a step then costs what it touches, not what
the table holds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.raise_op import CheckAndRaise

from seqnet.ops.affine import KernelOp, like, memory_order, rows_of


def checked(ids, count, what: str):
    """Return integers that are an ``IndexError`` where they are computed outside of ``[0, count)``.

    For graphs without kernels, where -1 would be the last row. JAX cannot raise: there the check is
    left out.

    Parameters
    ----------
    ids : integer variable
    count : int or integer variable
    what : str
        What the message calls the integers.
    """
    top = f"{count})" if isinstance(count, int) else "the number of rows)"
    check = CheckAndRaise(IndexError, f"{what} are not all in [0, {top}.")
    return check(ids, pt.all((ids >= 0) & (ids < count)))


def look_up(kernels, table: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return ``table[ids]``; of ids (batch, time) it lies time by time in memory."""
    if ids.ndim == 2:
        return kernels.gather(table, ids.T).transpose(1, 0, 2)
    return kernels.gather(table, ids)


def sum_rows(kernels, rows: np.ndarray, ids: np.ndarray, count: int) -> np.ndarray:
    """Return (count, width): the sum of the rows (..., width) of each number in `ids` (...)."""
    order = memory_order(rows)
    return kernels.scatter_add(rows.transpose(*order, rows.ndim - 1), ids.transpose(order), count)


class Gather(KernelOp):
    """``table[ids]``: (rows, width) and integers of any shape give (..., width).

    Two-dimensional numbers, (batch, time), are looked up time by time, so that the result lies in
    memory as a recurrence reads it.
    """

    def make_node(self, table, ids):
        return Apply(self, [table, ids], [like(table, ids.ndim + 1, ids.type.shape)])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = look_up(self.kernels, *inputs)

    def infer_shape(self, *given):  # (node, shapes); older PyTensors put the graph first
        shapes = given[-1]
        return [(*shapes[1], shapes[0][1])]

    def connection_pattern(self, node):
        return [[True], [False]]

    def pullback(self, inputs, outputs, gradients):
        table, ids = inputs
        rows = ScatterAdd(self.kernels)(gradients[0], ids, table.shape[0])
        return [rows, disconnected_type()]


class ScatterAdd(KernelOp):
    """Sum rows with the same number: (..., width), numbers (...) and the count of rows."""

    def make_node(self, rows, ids, count):
        return Apply(self, [rows, ids, pt.as_tensor_variable(count)], [like(rows, 2)])

    def perform(self, node, inputs, outputs):
        rows, ids, count = inputs
        outputs[0][0] = sum_rows(self.kernels, rows, ids, int(count))

    def infer_shape(self, *given):  # (node, shapes); older PyTensors put the graph first
        node, shapes = given[-2:]
        return [(node.inputs[2], shapes[0][-1])]


class SumRows(KernelOp):
    """Sum rows with the same number: (..., width) and (...) give (n,) numbers and (n, width)."""

    def make_node(self, rows, ids):
        return Apply(self, [rows, ids], [pt.vector(dtype="int64"), like(rows, 2)])

    def perform(self, node, inputs, outputs):
        rows, ids = inputs
        order = memory_order(rows)
        flat = ids.transpose(order).reshape(-1)
        unique, place = np.unique(flat, return_inverse=True)
        outputs[0][0] = unique.astype("int64")
        outputs[1][0] = self.kernels.scatter_add(
            rows_of(rows, order), place.reshape(-1), len(unique)
        )


class SetRows(Op):
    """A table with some rows replaced: (count, ...), different numbers (n,), (n, ...).

    The virtual machine lets it work in place where nothing else needs the old table.
    """

    __props__ = ("inplace",)

    def __init__(self, inplace: bool = False):
        self.inplace = inplace
        if inplace:
            self.destroy_map = {0: [0]}

    def in_place(self) -> SetRows:
        """Return the Op that works in place."""
        return SetRows(inplace=True)

    def make_node(self, table, ids, rows):
        return Apply(self, [table, ids, rows], [table.type()])

    def perform(self, node, inputs, outputs):
        table, ids, rows = inputs
        table = table if self.inplace else table.copy()
        table[ids] = rows
        outputs[0][0] = table

    def infer_shape(self, *given):
        return [given[-1][0]]


class Touched(NamedTuple):
    """The rows of a table that have a gradient: their numbers (n,) and gradients (n, width)."""

    ids: object
    gradients: object


FEW_ROWS = 1024
"""Tables with fewer rows are updated whole: that costs less than finding the rows."""


def touched_rows(table, gradient) -> Touched | None:
    """Return the touched rows of a table from its gradient, or None if it has others too.

    Only a table that is looked up, once, and used for nothing else has such a gradient.
    """
    node = gradient.owner
    if node is None or not isinstance(node.op, ScatterAdd):
        return None
    if table.get_value(borrow=True).shape[0] < FEW_ROWS:
        return None
    return Touched(*SumRows(node.op.kernels)(*node.inputs[:2]))

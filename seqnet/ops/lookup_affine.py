"""An affine map of looked up rows, which need not be multiplied one by one.

A text of 1,600 characters has at most 65 different ones. It is less work to multiply the 65 rows of
the table and to look up the products than to look up 1,600 rows and to multiply those. The gradient
is summed by row before it is multiplied, for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply, Variable

from seqnet.ops.affine import Affine, AffineGradient
from seqnet.ops.graph_op import GraphOp, SymbolicShape, like
from seqnet.ops.lookup import FEW_ROWS, Gather, ScatterAdd
from seqnet.types import Tensor


def looked_up(x: Tensor) -> tuple | None:
    """Return the small table and the numbers that `x` is looked up with, None if it is not."""
    if x.owner is None or not isinstance(x.owner.op, Gather):
        return None
    table, ids = x.owner.inputs
    rows = table.type.shape[0]
    return None if rows is None or rows >= FEW_ROWS else (table, ids)


class LookupAffine(GraphOp):
    """``table[ids] @ kernel + bias``: (rows, features), integers (...) give (..., units)."""

    __props__ = ()

    def define(self, table: Tensor, ids: Tensor, kernel: Tensor, *bias: Tensor) -> list[Tensor]:
        return [Affine()(Gather()(table, ids), kernel, *bias)]

    def outputs_for(
        self, table: Tensor, ids: Tensor, kernel: Tensor, *bias: Tensor
    ) -> list[Tensor]:
        return [like(table, ids.ndim + 1, ids.type.shape, kernel.type.shape[1])]

    def shapes(
        self, table: SymbolicShape, ids: SymbolicShape, kernel: SymbolicShape, *bias: SymbolicShape
    ) -> list[SymbolicShape]:
        return [(*ids, kernel[1])]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True], [False], *[[True] for _ in node.inputs[2:]]]

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        table, ids, kernel, *bias = inputs
        of_table, *of_weights = LookupAffineGradient()(table, ids, kernel, *output_grads)
        return [of_table, disconnected_type(), *of_weights[: 1 + len(bias)]]


class LookupAffineGradient(GraphOp):
    """The gradients of a `LookupAffine`'s table, kernel and bias."""

    __props__ = ()

    def define(self, table: Tensor, ids: Tensor, kernel: Tensor, gradient: Tensor) -> list[Tensor]:
        of_kernel, of_bias = AffineGradient()(Gather()(table, ids), gradient)
        of_rows = Affine()(gradient, kernel.T)
        return [ScatterAdd()(of_rows, ids, table.shape[0]), of_kernel, of_bias]

    def outputs_for(
        self, table: Tensor, ids: Tensor, kernel: Tensor, gradient: Tensor
    ) -> list[Tensor]:
        return [table.type(), kernel.type(), like(kernel, 1, kernel.type.shape[1:])]

    def shapes(
        self,
        table: SymbolicShape,
        ids: SymbolicShape,
        kernel: SymbolicShape,
        gradient: SymbolicShape,
    ) -> list[SymbolicShape]:
        return [table, kernel, (kernel[1],)]

"""An affine map of table rows that are looked up, computed with one product for each table row.

A text of 1,600 characters may have 65 distinct ones. Multiplying the 65 rows of the table and
looking up the products is less work than multiplying 1,600 rows. For the same reason the gradients
of equal rows are summed before they are multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply, Variable

from seqnet.common.types import Tensor
from seqnet.ops.affine import Affine, AffineGradient, ProductOp
from seqnet.ops.graph_op import SymbolicShape, like
from seqnet.ops.lookup import FEW_ROWS, Gather, ScatterAdd


def match_small_lookup(x: Tensor) -> tuple | None:
    """Return the table and ids if `x` is a lookup in a small table, else None."""
    if x.owner is None or not isinstance(x.owner.op, Gather):
        return None
    table, ids = x.owner.inputs
    rows = table.type.shape[0]
    return None if rows is None or rows >= FEW_ROWS else (table, ids)


class LookupAffine(ProductOp):
    """``table[ids] @ kernel + bias``: a table (rows, features) and ids (...) to (..., units).

    With `bfloat16`, the gradient rounds the sums of the rows of each id.
    """

    def define(self, table: Tensor, ids: Tensor, kernel: Tensor, *bias: Tensor) -> list[Tensor]:
        return [Affine(self.bfloat16)(Gather()(table, ids), kernel, *bias)]

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
        gradient = LookupAffineGradient(self.bfloat16)
        d_table, *d_weights = gradient(table, ids, kernel, *output_grads)
        return [d_table, disconnected_type(), *d_weights[: 1 + len(bias)]]


class LookupAffineGradient(ProductOp):
    """The gradients of the table, kernel and bias of a `LookupAffine`."""

    def define(self, table: Tensor, ids: Tensor, kernel: Tensor, gradient: Tensor) -> list[Tensor]:
        if self.bfloat16:
            summed = ScatterAdd()(gradient, ids, table.shape[0])
            return [Affine(True)(summed, kernel.T), *AffineGradient(True)(table, summed)]
        d_kernel, d_bias = AffineGradient()(Gather()(table, ids), gradient)
        d_rows = Affine()(gradient, kernel.T)
        return [ScatterAdd()(d_rows, ids, table.shape[0]), d_kernel, d_bias]

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

"""The squared norms of several arrays as one Op, for clipping, logs and diagnostics."""

from __future__ import annotations

from collections.abc import Sequence

import pytensor.tensor as pt
from pytensor.graph.basic import Apply

from seqnet.common.types import Tensor
from seqnet.ops.graph_op import GraphOp, SymbolicShape


class SquaredNorms(GraphOp):
    """The sum of the squares of each input: float64 (inputs,)."""

    __props__ = ()

    def define(self, *arrays: Tensor) -> list[Tensor]:
        return [pt.stack([pt.sum(pt.sqr(pt.cast(a, "float64"))) for a in arrays])]

    def outputs_for(self, *arrays: Tensor) -> list[Tensor]:
        return [pt.dvector()]

    def shapes(self, *shapes: SymbolicShape) -> list[SymbolicShape]:
        return [(pt.constant(len(shapes)),)]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True] for _ in node.inputs]


def squared_norms(arrays: Sequence) -> Tensor:
    """Return the squared norms of arrays, float64 (arrays,).

    In float64 the square of every float32 except 0 is positive. The square of a float64 below
    1e-162 is 0.
    """
    return SquaredNorms()(*arrays)

"""The scores of additive attention as one Op, without an array of all its activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytensor.tensor as pt
from pytensor.graph.basic import Apply, Variable

from seqnet.common.types import Tensor
from seqnet.ops.graph_op import GraphOp, SymbolicShape


def activations_of(query: Tensor, key: Tensor) -> Tensor:
    """Return ``tanh(query + key)``, (batch, queries, steps, features)."""
    return pt.tanh(query[:, :, None, :] + key[:, None, :, :])


class AdditiveScores(GraphOp):
    """``sum(scale * tanh(query + key))`` over the features, (batch, queries, steps).

    The query is ``(batch, queries, features)``, the key ``(batch, steps, features)`` and the scale
    ``(features,)``.
    """

    __props__ = ()

    def define(self, query: Tensor, key: Tensor, scale: Tensor) -> list[Tensor]:
        return [(activations_of(query, key) * scale).sum(axis=-1)]

    def outputs_for(self, query: Tensor, key: Tensor, scale: Tensor) -> list[Tensor]:
        (batch, queries, _), (_, steps, _) = query.type.shape, key.type.shape
        return [pt.tensor(dtype=query.dtype, shape=(batch, queries, steps))]

    def shapes(
        self, query: SymbolicShape, key: SymbolicShape, scale: SymbolicShape
    ) -> list[SymbolicShape]:
        return [(query[0], query[1], key[1])]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True] for _ in node.inputs]

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        return list(AdditiveScoresGradient()(*inputs, *output_grads))


class AdditiveScoresGradient(GraphOp):
    """The gradients of the query, the key and the scale of `AdditiveScores`."""

    __props__ = ()

    def define(self, query: Tensor, key: Tensor, scale: Tensor, gradient: Tensor) -> list[Tensor]:
        activated = activations_of(query, key)
        each = gradient[:, :, :, None]
        slopes = each * (1 - pt.sqr(activated)) * scale
        return [slopes.sum(axis=2), slopes.sum(axis=1), (each * activated).sum(axis=(0, 1, 2))]

    def outputs_for(
        self, query: Tensor, key: Tensor, scale: Tensor, gradient: Tensor
    ) -> list[Tensor]:
        return [cast(Tensor, v.type()) for v in (query, key, scale)]

    def shapes(self, *shapes: SymbolicShape) -> list[SymbolicShape]:
        return list(shapes[:3])

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True] * 3 for _ in node.inputs]

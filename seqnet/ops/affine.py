"""An affine map of the last axis, ``x @ kernel + bias``, and the gradient of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from pytensor.graph.basic import Apply, Variable

from seqnet.common.types import Tensor
from seqnet.ops.bfloat16 import dot
from seqnet.ops.graph_op import GraphOp, SymbolicShape, like


class ProductOp(GraphOp):
    """The base class of Ops that multiply matrices.

    Parameters
    ----------
    bfloat16 : bool
        Round the operands of the product to bfloat16, and those of its gradients.
    """

    __props__ = ("bfloat16",)

    def __init__(self, bfloat16: bool = False) -> None:
        self.bfloat16 = bfloat16


class Affine(ProductOp):
    """``x @ kernel + bias``: ``(..., features)`` to ``(..., units)``.

    The kernel is ``(features, units)`` and the bias, if present, ``(units,)``.
    """

    def define(self, x: Tensor, kernel: Tensor, *bias: Tensor) -> list[Tensor]:
        rows = x if x.ndim == 2 else x.reshape((-1, x.shape[-1]))
        product = dot(rows, kernel, self.bfloat16)
        if bias:
            product = product + bias[0]
        if x.ndim == 2:
            return [product]
        return [product.reshape((*tuple(x.shape)[:-1], kernel.shape[1]))]

    def outputs_for(self, x: Tensor, kernel: Tensor, *bias: Tensor) -> list[Tensor]:
        return [like(x, leading=x.type.shape[:-1], last=kernel.type.shape[1])]

    def shapes(
        self, x: SymbolicShape, kernel: SymbolicShape, *bias: SymbolicShape
    ) -> list[SymbolicShape]:
        return [(*x[:-1], kernel[1])]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True] for _ in node.inputs]

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        x, kernel, *bias = cast("Sequence[Tensor]", inputs)
        (gradient,) = output_grads
        d_weights = AffineGradient(self.bfloat16)(x, gradient)
        return [Affine(self.bfloat16)(gradient, kernel.T), *d_weights[: 1 + len(bias)]]


class AffineGradient(ProductOp):
    """The gradients of the kernel and bias of an affine map, from its input and output gradient."""

    def define(self, x: Tensor, gradient: Tensor) -> list[Tensor]:
        rows = x.reshape((-1, x.shape[-1]))
        gradient_rows = gradient.reshape((-1, gradient.shape[-1]))
        return [dot(rows.T, gradient_rows, self.bfloat16), gradient_rows.sum(axis=0)]

    def outputs_for(self, x: Tensor, gradient: Tensor) -> list[Tensor]:
        features, units = x.type.shape[-1], gradient.type.shape[-1]
        return [like(x, 2, (features,), units), like(x, 1, (units,))]

    def shapes(self, x: SymbolicShape, gradient: SymbolicShape) -> list[SymbolicShape]:
        return [(x[-1], gradient[-1]), (gradient[-1],)]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True, False], [True, True]]

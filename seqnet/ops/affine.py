"""``x @ kernel + bias`` over the last axis, and the gradient of its weights."""

from __future__ import annotations

import pytensor.tensor as pt

from seqnet.ops.graph_op import GraphOp, like


class Affine(GraphOp):
    """``(..., features) @ (features, units) + (units,)`` gives ``(..., units)``."""

    __props__ = ()

    def define(self, x, kernel, *bias):
        rows = x if x.ndim == 2 else x.reshape((-1, x.shape[-1]))
        product = pt.dot(rows, kernel)
        if bias:
            product = product + bias[0]
        if x.ndim == 2:
            return [product]
        return [product.reshape((*tuple(x.shape)[:-1], kernel.shape[1]))]

    def outputs_for(self, x, kernel, *bias):
        return [like(x, leading=x.type.shape[:-1], last=kernel.type.shape[1])]

    def shapes(self, x, kernel, *bias):
        return [(*x[:-1], kernel[1])]

    def connection_pattern(self, node):
        return [[True] for _ in node.inputs]

    def pullback(self, inputs, outputs, output_grads):
        x, kernel, *bias = inputs
        (gradient,) = output_grads
        of_weights = AffineGradient()(x, gradient)
        return [Affine()(gradient, kernel.T), *of_weights[: 1 + len(bias)]]


class AffineGradient(GraphOp):
    """The gradients of an affine map's kernel and bias, from its input and output gradient."""

    __props__ = ()

    def define(self, x, gradient):
        rows = x.reshape((-1, x.shape[-1]))
        gradient_rows = gradient.reshape((-1, gradient.shape[-1]))
        return [pt.dot(rows.T, gradient_rows), gradient_rows.sum(axis=0)]

    def outputs_for(self, x, gradient):
        features, units = x.type.shape[-1], gradient.type.shape[-1]
        return [like(x, 2, (features,), units), like(x, 1, (units,))]

    def shapes(self, x, gradient):
        return [(x[-1], gradient[-1]), (gradient[-1],)]

    def connection_pattern(self, node):
        return [[True, False], [True, True]]

"""``x @ kernel + bias`` over the last axis, as one Op with one Op for the weights' gradient.

Rows are multiplied in the order they have in memory. A sequence computed time-major and seen
batch-major through a transpose is never copied for a product.
"""

from __future__ import annotations

import numpy as np
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.tensor.type import TensorType


def memory_order(x: np.ndarray) -> tuple[int, ...]:
    """Return the order of the axes but the last in which `x` lies in memory, slowest first."""
    if x.ndim == 3:  # by far the most frequent
        first, second, _ = x.strides
        return (0, 1) if abs(first) >= abs(second) else (1, 0)
    if x.ndim == 2:
        return (0,)
    return tuple(sorted(range(x.ndim - 1), key=lambda axis: -abs(x.strides[axis])))


def rows_of(x: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Return `x` as (rows, features), the leading axes taken in the given order."""
    if x.ndim == 2:
        return x
    return x.transpose(*order, x.ndim - 1).reshape(-1, x.shape[-1])


def shape_back(rows: np.ndarray, shape: tuple[int, ...], order: tuple[int, ...]) -> np.ndarray:
    """Undo `rows_of` for an array of leading `shape` and any number of features."""
    if len(order) == 1:
        return rows
    inverse = order if len(order) == 2 else sorted(range(len(order)), key=order.__getitem__)
    ordered = rows.reshape(*[shape[axis] for axis in order], rows.shape[-1])
    return ordered.transpose(*inverse, len(order))


def affine(kernels, x: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None = None):
    """Return ``x @ kernel + bias`` over the last axis."""
    order = memory_order(x)
    return shape_back(kernels.gemm(rows_of(x, order), kernel, bias=bias), x.shape, order)


def affine_gradient(kernels, x: np.ndarray, gradient: np.ndarray):
    """Return the gradients of an affine map's kernel and bias."""
    order = memory_order(x)
    return kernels.gemm(rows_of(x, order).T, rows_of(gradient, order), column_sums=True)


class KernelOp(Op):
    """An Op computed by one of the functions of `seqnet.kernels`, which it is given."""

    __props__: tuple[str, ...] = ("kernels",)

    def __init__(self, kernels):
        self.kernels = kernels

    def __str__(self):
        return type(self).__name__


def like(variable, ndim: int | None = None, leading: tuple[int | None, ...] = ()):
    """Return a new variable of another's dtype, of its rank or `ndim`.

    `leading` are the sizes of the first axes, as far as they are known.
    """
    rank = variable.ndim if ndim is None else ndim
    return TensorType(variable.dtype, (*leading, *[None] * (rank - len(leading))))()


class Affine(KernelOp):
    """``(..., features) @ (features, units) + (units,)`` gives ``(..., units)``."""

    def make_node(self, x, kernel, *bias):
        return Apply(self, [x, kernel, *bias], [like(x, leading=x.type.shape[:-1])])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = affine(self.kernels, *inputs)

    def infer_shape(self, *given):  # (node, shapes); older PyTensors put the graph first
        shapes = given[-1]
        return [(*shapes[0][:-1], shapes[1][1])]

    def pullback(self, inputs, outputs, gradients):
        x, kernel, *bias = inputs
        (gradient,) = gradients
        of_weights = AffineGradient(self.kernels)(x, gradient)
        return [Affine(self.kernels)(gradient, kernel.T), *of_weights[: 1 + len(bias)]]


class AffineGradient(KernelOp):
    """The gradients of an affine map's kernel and bias, from its input and output gradient."""

    def make_node(self, x, gradient):
        return Apply(self, [x, gradient], [like(x, 2), like(x, 1)])

    def perform(self, node, inputs, outputs):
        outputs[0][0], outputs[1][0] = affine_gradient(self.kernels, *inputs)

    def infer_shape(self, *given):  # (node, shapes); older PyTensors put the graph first
        shapes = given[-1]
        features, units = shapes[0][-1], shapes[1][-1]
        return [(features, units), (units,)]


def connected(gradients) -> list[bool]:
    """Tell which output gradients there are."""
    return [not isinstance(g.type, DisconnectedType) for g in gradients]

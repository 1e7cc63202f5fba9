"""An affine map of looked up rows, which need not be multiplied one by one.

A text of 1,600 characters has at most 65 different ones: it is less work to multiply the 65 rows of
the table and to look up the products than to look up 1,600 rows and to multiply those. The gradient
is summed by row before it is multiplied, for the same reason.
"""

from __future__ import annotations

from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply

from seqnet.ops.affine import KernelOp, affine, affine_gradient, like
from seqnet.ops.lookup import FEW_ROWS, Gather, look_up, sum_rows


def looked_up(x) -> tuple | None:
    """Return the small table and the numbers that `x` is looked up with, None if it is not."""
    if x.owner is None or not isinstance(x.owner.op, Gather):
        return None
    table, ids = x.owner.inputs
    rows = table.type.shape[0]
    return None if rows is None or rows >= FEW_ROWS else (table, ids)


class LookupAffine(KernelOp):
    """``table[ids] @ kernel + bias``: (rows, features), integers (...) give (..., units).

    Which of the two ways is shorter depends on how many numbers there are, and is chosen anew at
    each call.
    """

    def make_node(self, table, ids, kernel, *bias):
        output = like(table, ids.ndim + 1, ids.type.shape)
        return Apply(self, [table, ids, kernel, *bias], [output])

    def perform(self, node, inputs, outputs):
        table, ids, *weights = inputs
        if len(table) <= ids.size:
            outputs[0][0] = look_up(self.kernels, affine(self.kernels, table, *weights), ids)
        else:
            outputs[0][0] = affine(self.kernels, look_up(self.kernels, table, ids), *weights)

    def infer_shape(self, *given):  # (node, shapes); older PyTensors put the graph first
        _, ids, kernel, *_ = given[-1]
        return [(*ids, kernel[1])]

    def connection_pattern(self, node):
        return [[True], [False], *[[True] for _ in node.inputs[2:]]]

    def pullback(self, inputs, outputs, gradients):
        table, ids, kernel, *bias = inputs
        of_table, *of_weights = LookupAffineGradient(self.kernels)(table, ids, kernel, *gradients)
        return [of_table, disconnected_type(), *of_weights[: 1 + len(bias)]]


class LookupAffineGradient(KernelOp):
    """The gradients of a `LookupAffine`'s table, kernel and bias."""

    def make_node(self, table, ids, kernel, gradient):
        outputs = [table.type(), kernel.type(), like(kernel, 1)]
        return Apply(self, [table, ids, kernel, gradient], outputs)

    def perform(self, node, inputs, outputs):
        table, ids, kernel, gradient = inputs
        rows = len(table)
        if rows <= ids.size:
            summed = sum_rows(self.kernels, gradient, ids, rows)
            of_weights = affine_gradient(self.kernels, table, summed)
            of_table = affine(self.kernels, summed, kernel.T)
        else:
            x = look_up(self.kernels, table, ids)
            of_weights = affine_gradient(self.kernels, x, gradient)
            of_table = sum_rows(self.kernels, affine(self.kernels, gradient, kernel.T), ids, rows)
        for storage, value in zip(outputs, (of_table, *of_weights), strict=True):
            storage[0] = value

    def infer_shape(self, *given):  # (node, shapes); older PyTensors put the graph first
        table, _, kernel, _ = given[-1]
        return [table, kernel, (kernel[1],)]

"""Rows of a table by number, and the gradient of that, each as one Op."""

from __future__ import annotations

import pytensor.tensor as pt
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply

from seqnet.ops.affine import KernelOp, like, memory_order


class Gather(KernelOp):
    """``table[ids]``: (rows, width) and integers of any shape give (..., width).

    Two-dimensional numbers, (batch, time), are looked up time by time, so that the result lies in
    memory as a recurrence reads it.
    """

    def make_node(self, table, ids):
        return Apply(self, [table, ids], [like(table, ids.ndim + 1, ids.type.shape)])

    def perform(self, node, inputs, outputs):
        table, ids = inputs
        if ids.ndim == 2:
            outputs[0][0] = self.kernels.gather(table, ids.T).transpose(1, 0, 2)
        else:
            outputs[0][0] = self.kernels.gather(table, ids)

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
        order = memory_order(rows)
        outputs[0][0] = self.kernels.scatter_add(
            rows.transpose(*order, rows.ndim - 1), ids.transpose(order), int(count)
        )

    def infer_shape(self, *given):  # (node, shapes); older PyTensors put the graph first
        node, shapes = given[-2:]
        return [(node.inputs[2], shapes[0][-1])]

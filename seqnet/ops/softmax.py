"""Softmax and its logarithm over the last axis, by one pass of a kernel."""

from __future__ import annotations

from types import ModuleType

from pytensor.graph.basic import Apply
from pytensor.graph.rewriting.basic import GraphRewriter, dfs_rewriter, node_rewriter
from pytensor.tensor.special import LogSoftmax, Softmax

from seqnet.ops.affine import KernelOp, memory_order, rows_of, shape_back


class RowSoftmax(KernelOp):
    """``softmax(x)`` over the last axis of (..., classes), or with `log` its logarithm.

    It has no gradient: PyTensor's own Ops give way to it once all gradients are there.
    """

    __props__ = ("kernels", "log")

    def __init__(self, kernels, log: bool = False):
        super().__init__(kernels)
        self.log = log

    def make_node(self, x):
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, outputs):
        (x,) = inputs
        order = memory_order(x)
        run = self.kernels.log_softmax if self.log else self.kernels.softmax
        outputs[0][0] = shape_back(run(rows_of(x, order)), x.shape, order)

    def infer_shape(self, *given):
        return given[-1]


def by_kernels(kernels: ModuleType) -> GraphRewriter:
    """Return what replaces PyTensor's softmaxes over the last axis."""

    @node_rewriter([Softmax, LogSoftmax])
    def replace(fgraph, node):
        (x,) = node.inputs
        if node.op.axis != (x.ndim - 1,) or x.dtype not in ("float32", "float64"):
            return False
        return [RowSoftmax(kernels, isinstance(node.op, LogSoftmax))(x)]

    return dfs_rewriter(replace)

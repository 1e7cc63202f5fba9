"""Cross-entropy of a softmax with class numbers, as one Op with one Op for its gradient."""

from __future__ import annotations

from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply

from seqnet.ops.affine import KernelOp, like, memory_order, rows_of, shape_back


class SoftmaxCrossEntropy(KernelOp):
    """``logsumexp(z) - z[y]``: logits (..., classes) and class numbers (...) give (...)."""

    def make_node(self, logits, targets):
        loss = like(logits, logits.ndim - 1, logits.type.shape[:-1])
        return Apply(self, [logits, targets], [loss])

    def perform(self, node, inputs, outputs):
        logits, targets = inputs
        order = memory_order(logits)
        loss, _ = self.kernels.softmax_cross_entropy(
            rows_of(logits, order), targets.transpose(order).reshape(-1), gradient=False
        )
        outputs[0][0] = shape_back(loss[:, None], logits.shape[:-1], order)[..., 0]

    def infer_shape(self, *given):  # (node, shapes); older PyTensors put the graph first
        shapes = given[-1]
        return [shapes[1]]

    def connection_pattern(self, node):
        return [[True], [False]]

    def pullback(self, inputs, outputs, gradients):
        gradient = SoftmaxCrossEntropyGradient(self.kernels)(*inputs, *gradients)
        return [gradient, disconnected_type()]


class SoftmaxCrossEntropyGradient(KernelOp):
    """``(softmax(z) - onehot(y)) g`` for logits z, class numbers y and the losses' gradient g."""

    def make_node(self, logits, targets, gradient):
        return Apply(self, [logits, targets, gradient], [logits.type()])

    def perform(self, node, inputs, outputs):
        logits, targets, gradient = inputs
        order = memory_order(logits)
        _, rows = self.kernels.softmax_cross_entropy(
            rows_of(logits, order),
            targets.transpose(order).reshape(-1),
            gradient.transpose(order).reshape(-1),
        )
        outputs[0][0] = shape_back(rows, logits.shape[:-1], order)

    def infer_shape(self, *given):  # (node, shapes); older PyTensors put the graph first
        shapes = given[-1]
        return [shapes[0]]

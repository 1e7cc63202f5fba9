"""Cross-entropy of a softmax with class numbers, and its slope, in one pass over the logits."""

from __future__ import annotations

from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply

from seqnet.ops.affine import KernelOp, like, memory_order, rows_of, shape_back


class SoftmaxCrossEntropy(KernelOp):
    """``logsumexp(z) - z[y]``: logits z (..., classes) and class numbers y (...) give (...).

    The second output is the derivative ``softmax(z) - onehot(y)``, (..., classes), which costs
    little while the exponentials are at hand; with `slope` False it is not computed.
    """

    __props__ = ("kernels", "slope")
    default_output = 0

    def __init__(self, kernels, slope: bool = True):
        super().__init__(kernels)
        self.slope = slope

    def make_node(self, logits, targets):
        loss = like(logits, logits.ndim - 1, logits.type.shape[:-1])
        return Apply(self, [logits, targets], [loss, logits.type()])

    def perform(self, node, inputs, outputs):
        logits, targets = inputs
        order = memory_order(logits)
        loss, slope = self.kernels.softmax_cross_entropy(
            rows_of(logits, order), targets.transpose(order).reshape(-1), gradient=self.slope
        )
        outputs[0][0] = shape_back(loss[:, None], logits.shape[:-1], order)[..., 0]
        outputs[1][0] = shape_back(slope, logits.shape[:-1], order) if self.slope else logits

    def infer_shape(self, *given):
        logits, targets = given[-1]
        return [targets, logits]

    def connection_pattern(self, node):
        return [[True, False], [False, False]]

    def pullback(self, inputs, outputs, gradients):
        return [outputs[1] * gradients[0][..., None], disconnected_type()]

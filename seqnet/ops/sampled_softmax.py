"""A softmax over many classes, and an estimate of its cross-entropy from a sample of them."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply

from seqnet.common.types import Tensor
from seqnet.ops.affine import Affine
from seqnet.ops.ctc import LOWEST
from seqnet.ops.graph_op import GraphOp, SymbolicShape, like
from seqnet.ops.lookup import Gather


def class_scores(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Return ``x @ kernel.T + bias`` for a kernel (classes, features)."""
    return Affine()(x, kernel.T, bias)


class SampledOutput(GraphOp):
    """``softmax(x @ kernel.T + bias)``, with a sample of classes for the loss that follows.

    Inputs are x (..., features), kernel (classes, features), bias (classes,), the sampled class
    numbers (samples,), and for each the logarithm of how often it is expected in a sample
    (samples,). The output is exact; the loss takes the inputs instead.
    """

    __props__ = ()

    def define(
        self, x: Tensor, kernel: Tensor, bias: Tensor, sampled: Tensor, log_expected: Tensor
    ) -> list[Tensor]:
        return [pt.special.softmax(class_scores(x, kernel, bias), axis=-1)]

    def outputs_for(self, x: Tensor, kernel: Tensor, *others: Tensor) -> list[Tensor]:
        return [like(x, leading=x.type.shape[:-1], last=kernel.type.shape[0])]

    def shapes(
        self, x: SymbolicShape, kernel: SymbolicShape, *others: SymbolicShape
    ) -> list[SymbolicShape]:
        return [(*x[:-1], kernel[0])]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True], [True], [True], [False], [False]]


def sampled_crossentropy(y_pred: Tensor, targets: Tensor) -> Tensor | None:
    """Return the estimated cross-entropy (...) of a `SampledOutput` and targets (...), else None.

    The sum over all other classes is estimated by the sampled ones, each divided by how often it is
    expected. Sampled targets are left out, so that the estimate of the sum has no bias.
    """
    node = y_pred.owner
    if node is None or not isinstance(node.op, SampledOutput):
        return None
    x, kernel, bias, sampled, log_expected = node.inputs
    x = x.reshape((-1, x.shape[-1]))
    y = targets.flatten()
    ids = pt.concatenate([pt.cast(y, "int64"), pt.cast(sampled, "int64")])
    rows, biases = Gather("The class numbers")(kernel, ids), bias[ids]
    count = y.shape[0]
    of_target = pt.sum(x * rows[:count], axis=1) + biases[:count]
    of_sample = class_scores(x, rows[count:], biases[count:] - log_expected)
    hit = pt.eq(y[:, None], sampled[None])
    of_sample = pt.switch(hit, np.asarray(LOWEST, x.dtype), of_sample)
    scores = pt.concatenate([of_target[:, None], of_sample], axis=1)
    values = -pt.special.log_softmax(scores, axis=-1)[:, 0]
    return values.reshape(targets.shape)

"""Cross-entropy of a softmax with integer targets, and its derivative, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytensor.tensor as pt
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply, Variable

from seqnet.common.types import Tensor
from seqnet.ops.graph_op import GraphOp, SymbolicShape, like
from seqnet.ops.lookup import assert_in_range


class SoftmaxCrossEntropy(GraphOp):
    """``logsumexp(z) - z[y]`` of logits z (..., classes) and class indices y (...): (...).

    The second output is the derivative ``softmax(z) - onehot(y)``, (..., classes). It reuses the
    exponentials of the first.
    """

    __props__ = ()
    default_output = 0

    def define(self, logits: Tensor, targets: Tensor) -> list[Tensor]:
        rows = logits.reshape((-1, logits.shape[-1]))
        classes = logits.type.shape[-1] or logits.shape[-1]
        flat = assert_in_range(targets.flatten(), classes, "The class numbers")
        place = (pt.arange(flat.shape[0]), flat)
        loss = -pt.special.log_softmax(rows, axis=-1)[place]
        softmax = pt.special.softmax(rows, axis=-1)
        slope = pt.inc_subtensor(softmax[place], pt.constant(-1, dtype=logits.dtype))
        return [loss.reshape(targets.shape), slope.reshape(logits.shape)]

    def outputs_for(self, logits: Tensor, targets: Tensor) -> list[Tensor]:
        return [like(logits, logits.ndim - 1, logits.type.shape[:-1]), logits.type()]

    def shapes(self, logits: SymbolicShape, targets: SymbolicShape) -> list[SymbolicShape]:
        return [targets, logits]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True, True], [False, False]]

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        d_loss, d_slope = output_grads
        if not hasattr(d_loss.type, "dtype") or hasattr(d_slope.type, "dtype"):
            # The derivative itself is differentiated: a gradient of a gradient.
            d_logits, _ = super().pullback(inputs, outputs, output_grads)
            return [d_logits, disconnected_type()]
        return [outputs[1] * cast("Tensor", d_loss)[..., None], disconnected_type()]

"""How many numbers an array has."""

from __future__ import annotations

import pytensor.tensor as pt
from pytensor.gradient import disconnected_type

from seqnet.ops.graph_op import GraphOp, like


class Count(GraphOp):
    """The size of an array as a float of its dtype: one node instead of PyTensor's five."""

    __props__ = ()

    def define(self, x):
        return [pt.cast(x.size, x.dtype)]

    def outputs_for(self, x):
        return [like(x, 0)]

    def shapes(self, x):
        return [()]

    def connection_pattern(self, node):
        return [[False]]

    def pullback(self, inputs, outputs, output_grads):
        return [disconnected_type()]


def count(x):
    """Return the size of an array as a float of its dtype."""
    return Count()(x)

"""The squared norms of all gradients, as one Op: to clip by, to log, and to see trouble by."""

from __future__ import annotations

from collections.abc import Sequence

import pytensor.tensor as pt
from pytensor.graph.basic import Apply

from seqnet.ops.affine import KernelOp


class SquaredNorms(KernelOp):
    """The sum of the squares of each of its inputs: float64 (inputs,)."""

    def make_node(self, *arrays):
        return Apply(self, list(arrays), [pt.dvector()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = self.kernels.squared_norms(inputs)

    def infer_shape(self, *given):
        return [(pt.constant(len(given[-1])),)]


def squared_norms(arrays: Sequence, kernels=None):
    """Return the squared norms of arrays, float64 (arrays,); `kernels` is the `Phase`'s.

    Only arrays of one dtype are measured by a kernel. Every float32 but 0 has a square above 0 in
    float64; the square of a float64 below 1e-162 is 0.
    """
    if kernels is not None and len({a.dtype for a in arrays}) == 1:
        return SquaredNorms(kernels)(*arrays)
    return pt.stack([pt.sum(pt.sqr(pt.cast(a, "float64"))) for a in arrays])

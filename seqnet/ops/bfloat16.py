"""Rounding to bfloat16, for products of mixed precision.

The operands of a product are rounded to bfloat16, to nearest even, and stay arrays of float32. A
product of two rounded numbers is exact in float32, so that only sums are rounded further.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.ops import ViewOp
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op, OutputStorageType

from seqnet.common.types import Array, Tensor
from seqnet.ops.graph_op import SymbolicShape


class RoundToBfloat16(Op):
    """The nearest bfloat16 numbers of a float32 array, as float32.

    Numbers below 1.2e-38 become zero, as in the instructions of processors. The gradient is that
    of the identity.
    """

    __props__ = ()

    def make_node(self, *inputs: Variable) -> Apply:
        x = pt.as_tensor_variable(inputs[0])
        if x.type.dtype != "float32":
            raise TypeError(f"Only float32 is rounded to bfloat16, got {x.type.dtype}.")
        return Apply(self, [x], [x.type()])

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        outputs[0][0] = round_to_bfloat16(inputs[0])

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        return list(output_grads)

    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        return given[-1]


def round_to_bfloat16(x: Array) -> Array:
    """Return the nearest bfloat16 numbers of a float32 array, as float32.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.ops.bfloat16 import round_to_bfloat16
    >>> round_to_bfloat16(np.float32([1.001, 1.004, 3.14159])).tolist()
    [1.0, 1.0078125, 3.140625]
    """
    bits = np.array(x, dtype="float32").view("uint32")
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) & 0xFFFF0000
    rounded = np.where(bits & 0x7F800000, rounded, bits & 0x80000000)
    return np.where(np.isnan(x), x, rounded.view("float32"))


class RoundGradient(ViewOp):
    """The identity; a gradient that passes is rounded to bfloat16."""

    __props__ = ()

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        return [cast("Variable", RoundToBfloat16()(output_grads[0]))]


def dot(a: Tensor, b: Tensor, bfloat16: bool = False) -> Tensor:
    """Return the product of two matrices.

    With `bfloat16` its operands are rounded, and so are those of the products of its gradient.
    """
    if not bfloat16:
        return cast("Tensor", pt.dot(a, b))
    return cast("Tensor", RoundGradient()(pt.dot(RoundToBfloat16()(a), RoundToBfloat16()(b))))

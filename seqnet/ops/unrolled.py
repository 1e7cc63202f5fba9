"""The Ops of an unrolled loop: one for a step, and two that split and stack a sequence.

Unrolling copies the step once for each time. With a node for each operation this makes tens of
thousands of nodes, which take minutes to rewrite. With a single node for a step, a loop of a
thousand steps is a graph of a few thousand nodes, and the step is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import OutputStorageType
from pytensor.tensor.exceptions import ShapeError
from pytensor.tensor.type import TensorType

from seqnet.common.types import Array, Tensor
from seqnet.ops.graph_op import GraphOp, SymbolicShape, apply_op


class UnrolledStep(OpFromGraph):
    """One step of a loop: from sequence values, states and constants to the outputs of the body."""

    @classmethod
    def of(
        cls, body: Callable, values: Sequence, states: Sequence, constants: Sequence
    ) -> UnrolledStep:
        """Create the step of a body, given example arguments."""
        inputs = [v.type() for v in (*values, *states, *constants)]
        outputs = list(body(*inputs))
        step = cls(inputs, outputs, on_unused_input="ignore")
        step.body = (inputs, outputs)
        return step

    body: tuple[list[Tensor], list[Tensor]] = ([], [])
    """The inputs and outputs of the inner graph."""

    run: Callable | None = None
    """The compiled inner graph, set by the backend."""

    @cached_property
    def graph_hash(self) -> int:
        """The hash of the inner graph: each of many nodes asks for it."""
        return super().__hash__()

    __eq__ = OpFromGraph.__eq__

    def __hash__(self) -> int:
        return self.graph_hash

    def __str__(self) -> str:
        return type(self).__name__

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        if self.run is None:
            super().perform(node, inputs, outputs)
            return
        for storage, value in zip(outputs, self.run(*inputs), strict=True):
            storage[0] = value

    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        # Inferring shapes through a thousand copies of the inner graph takes minutes.
        raise ShapeError


class UnstackSteps(GraphOp):
    """Split a sequence (time, ...) into its steps (...)."""

    __props__ = ("length",)
    is_inline = False

    def __init__(self, length: int) -> None:
        self.length = length
        self.view_map = {t: [0] for t in range(length)}

    def define(self, whole: Tensor) -> list[Tensor]:
        return [whole[t] for t in range(self.length)]

    def outputs_for(self, whole: Tensor) -> list[Tensor]:
        step = TensorType(whole.type.dtype, whole.type.shape[1:])
        return [step() for _ in range(self.length)]

    def shapes(self, whole: SymbolicShape) -> list[SymbolicShape]:
        return [whole[1:]] * self.length

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        (whole,) = inputs
        if len(whole) != self.length:
            raise ValueError(
                f"An unrolled recurrence built for {self.length} steps got {len(whole)}."
            )
        for storage, value in zip(outputs, whole, strict=True):
            storage[0] = value

    def pullback(
        self, inputs: Sequence[Variable], outputs: Sequence[Variable], gradients: Sequence[Variable]
    ) -> list[Variable]:
        zero = [pt.zeros_like(v) for v in outputs[:1]]
        known = [g if hasattr(g.type, "dtype") else zero[0] for g in gradients]
        return [stack_steps(known)]


class StackSteps(GraphOp):
    """Stack steps (...) to a sequence (time, ...)."""

    __props__ = ()
    is_inline = False

    empty: Callable = staticmethod(np.empty)
    """Allocates the output; a backend may set a faster function."""

    def define(self, *steps: Tensor) -> list[Tensor]:
        return [pt.stack(steps, axis=0)]

    def outputs_for(self, *steps: Tensor) -> list[Tensor]:
        first = steps[0].type
        return [TensorType(first.dtype, (len(steps), *first.shape))()]

    def shapes(self, *steps: SymbolicShape) -> list[SymbolicShape]:
        return [(len(steps), *steps[0])]

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        shape = (len(inputs), *inputs[0].shape)
        outputs[0][0] = np.stack(inputs, out=self.empty(shape, inputs[0].dtype))

    def pullback(
        self, inputs: Sequence[Variable], outputs: Sequence[Variable], gradients: Sequence[Variable]
    ) -> list[Variable]:
        return list(unstack_steps(gradients[0], len(inputs)))


def unstack_steps(variable: Variable, length: int) -> list:
    """Return the steps (...) of a sequence (time, ...)."""
    return apply_op(UnstackSteps(length), variable)


def stack_steps(steps: Sequence) -> Tensor:
    """Return steps (...) stacked to a sequence (time, ...)."""
    return cast("Tensor", StackSteps()(*steps))

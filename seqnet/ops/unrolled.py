"""The Ops of an unrolled loop: one for a step, and two that split and stack a sequence.

Unrolling copies the step once for each time. With a node for each operation this makes tens of
thousands of nodes, which take minutes to rewrite. With a single node for a step, a loop of a
thousand steps is a graph of a few thousand nodes, and the step is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import OutputStorageType
from pytensor.tensor.exceptions import ShapeError

from seqnet.ops.graph_op import SymbolicShape
from seqnet.types import Array, Tensor


class OpaqueGraph(OpFromGraph):
    """A graph that stays one node and is not inlined. It is equal only to itself."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __str__(self) -> str:
        return type(self).__name__


class UnrolledStep(OpaqueGraph):
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

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        if self.run is None:
            super().perform(node, inputs, outputs)
            return
        for storage, value in zip(outputs, self.run(*inputs), strict=True):
            storage[0] = value

    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        # Inferring shapes through a thousand copies of the inner graph takes minutes.
        raise ShapeError


class UnstackSteps(OpaqueGraph):
    """Split a sequence (time, ...) into its steps (...)."""

    def __init__(self, variable: Variable, length: int) -> None:
        self.length = length
        whole = variable.type()
        super().__init__([whole], [whole[t] for t in range(length)])
        self.view_map = {t: [0] for t in range(length)}

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        (whole,) = inputs
        if len(whole) != self.length:
            raise ValueError(
                f"An unrolled recurrence built for {self.length} steps got {len(whole)}."
            )
        for storage, value in zip(outputs, whole, strict=True):
            storage[0] = value

    # PyTensor 3.0 calls it with (graph, node, shapes), later releases with (node, shapes).
    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        shapes = given[-1]
        return [shapes[0][1:]] * self.length

    def pullback(
        self, inputs: Sequence[Variable], outputs: Sequence[Variable], gradients: Sequence[Variable]
    ) -> list[Variable]:
        zero = [pt.zeros_like(v) for v in outputs[:1]]
        known = [g if hasattr(g.type, "dtype") else zero[0] for g in gradients]
        return [stack_steps(known)]


class StackSteps(OpaqueGraph):
    """Stack steps (...) to a sequence (time, ...)."""

    def __init__(self, steps: Sequence) -> None:
        parts = [v.type() for v in steps]
        super().__init__(parts, [pt.stack(parts, axis=0)])

    empty: Callable = staticmethod(np.empty)
    """Allocates the output; a backend may set a faster function."""

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        shape = (len(inputs), *inputs[0].shape)
        outputs[0][0] = np.stack(inputs, out=self.empty(shape, inputs[0].dtype))

    # PyTensor 3.0 calls it with (graph, node, shapes), later releases with (node, shapes).
    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        node, shapes = given[-2:]
        return [(len(node.inputs), *shapes[0])]

    def pullback(
        self, inputs: Sequence[Variable], outputs: Sequence[Variable], gradients: Sequence[Variable]
    ) -> list[Variable]:
        return list(unstack_steps(gradients[0], len(inputs)))


def unstack_steps(variable: Variable, length: int) -> list:
    """Return the steps (...) of a sequence (time, ...)."""
    return UnstackSteps(variable, length)(variable, return_list=True)


def stack_steps(steps: Sequence) -> Tensor:
    """Return steps (...) stacked to a sequence (time, ...)."""
    return StackSteps(steps)(*steps)

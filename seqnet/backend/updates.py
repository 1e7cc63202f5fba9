"""The updates of many shared variables by the same expression, as one Op.

An optimizer updates every weight by the same equation. After PyTensor has fused each update into
one elementwise node, `merge_updates` merges equal nodes into one: a single call of a compiled
kernel, which works in place, instead of a node for each weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast

import pytensor.tensor as pt
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph, Output
from pytensor.graph.op import Op, OutputStorageType
from pytensor.scalar import basic as scalar
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.type import TensorType

from seqnet.backend.kernel_ops import native
from seqnet.common.types import Array
from seqnet.ops.graph_op import SymbolicShape, apply_op

Value = TypeVar("Value")


class SharedUpdates(Op):
    """Several elementwise nodes of the same expression; their inputs are concatenated.

    Parameters
    ----------
    kernel : ElementwiseKernel
    updated : tuple of tuple of int
        For each node and each of its outputs, the index of the input that it updates.
    inplace : bool
        Overwrite the old values.

    PyTensor keeps one Op of those that are equal for the life of the process. Models with the same
    optimizer and the same number of weights share it.
    """

    __props__ = ("kernel", "updated", "inplace")

    def __init__(
        self,
        kernel: native.ElementwiseKernel,
        updated: tuple[tuple[int, ...], ...],
        inplace: bool = False,
    ) -> None:
        self.kernel, self.updated, self.inplace = kernel, updated, inplace
        if inplace:
            old = [k * self.inputs + i for k, each in enumerate(updated) for i in each]
            self.destroy_map = {output: [i] for output, i in enumerate(old)}

    def __str__(self) -> str:
        where = ", inplace" if self.inplace else ""
        return f"SharedUpdates{{{len(self.updated)} weights{where}}}"

    def in_place(self) -> SharedUpdates:
        """Return the Op that works in place."""
        return SharedUpdates(self.kernel, self.updated, inplace=True)

    @property
    def inputs(self) -> int:
        """The number of inputs of each node."""
        return self.kernel.inputs

    def make_node(self, *inputs: Variable) -> Apply:
        return Apply(self, list(inputs), [v.type() for v in self.old_values(inputs)])

    def groups(self, inputs: Sequence[Value]) -> list[Sequence[Value]]:
        """Return the inputs of each node."""
        return [inputs[k : k + self.inputs] for k in range(0, len(inputs), self.inputs)]

    def old_values(self, inputs: Sequence[Value]) -> list[Value]:
        """Return the inputs that the outputs update."""
        pairs = zip(self.groups(inputs), self.updated, strict=True)
        return [group[i] for group, updated in pairs for i in updated]

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        outs = self.updated if self.inplace else [None] * len(self.updated)
        calls = list(zip(self.groups(inputs), outs, strict=True))
        results = [array for arrays in self.kernel.each(calls) for array in arrays]
        for storage, array in zip(outputs, results, strict=True):
            storage[0] = array

    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        return self.old_values(given[-1])


def merge_updates(fgraph: FunctionGraph) -> None:
    """Replace the elementwise nodes whose outputs are only updates of shared variables."""
    alike: dict = {}
    if not fgraph.update_mapping:  # None if there are no updates
        return
    for node in fgraph.toposort():
        updated = updated_inputs(fgraph, node)
        if updated is not None:
            numbers = tuple(is_number(v) for v in node.inputs)
            key = (node.op.scalar_op, numbers, node.outputs[0].type.dtype)
            alike.setdefault(key, []).append((node, updated))
    for (scalar_op, numbers, dtype), found in alike.items():
        try:
            kernel = update_kernel(scalar_op, numbers, dtype)
        except native.KernelUnavailable:
            continue
        inputs = [without_axes(v) for node, _ in found for v in node.inputs]
        op = SharedUpdates(kernel, tuple(updated for _, updated in found))
        outputs = [output for node, _ in found for output in node.outputs]
        pairs = zip(outputs, apply_op(op, *inputs), strict=True)
        fgraph.replace_all_validate(list(pairs), reason="merge_updates")


@lru_cache(maxsize=64)
def update_kernel(
    scalar_op: scalar.ScalarOp, numbers: tuple[bool, ...], dtype: str
) -> native.ElementwiseKernel:
    """Return the compiled kernel of a scalar function whose inputs are numbers or arrays."""
    variables = [TensorType(dtype, () if number else (None,))() for number in numbers]
    return native.ElementwiseKernel(variables, apply_op(Elemwise(scalar_op), *variables))


def updated_inputs(fgraph: FunctionGraph, node: Apply) -> tuple[int, ...] | None:
    """Return the index of the input that each output updates, or None for any other node."""
    mapping = cast("dict[int, int]", fgraph.update_mapping)  # declared otherwise by PyTensor
    if not isinstance(node.op, Elemwise):
        return None
    if len({v.type.dtype for v in (*node.inputs, *node.outputs)}) > 1:
        return None
    if any(any(v.type.broadcastable) and not is_number(v) for v in node.inputs):
        return None
    updated = []
    for output in node.outputs:
        clients = fgraph.clients[output]
        if is_number(output) or len(clients) != 1 or not isinstance(clients[0][0].op, Output):
            return None
        place = mapping.get(clients[0][0].op.idx)
        if place is None or fgraph.inputs[place] not in node.inputs:
            return None
        updated.append(node.inputs.index(fgraph.inputs[place]))
    return tuple(updated)


def is_number(variable: Variable) -> bool:
    """Return whether a variable is a single number, of any rank."""
    return all(variable.type.broadcastable)


def without_axes(variable: Variable) -> Variable:
    """Return a single number as a scalar, and an array unchanged."""
    if not is_number(variable):
        return variable
    while variable.owner is not None and isinstance(variable.owner.op, DimShuffle):
        variable = variable.owner.inputs[0]
    return variable if variable.type.ndim == 0 else pt.reshape(variable, ())

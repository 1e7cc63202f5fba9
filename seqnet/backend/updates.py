"""New values of many shared variables by one expression, as one Op.

An optimizer changes every weight by the same equation. Once PyTensor has fused each into one
elementwise node, `merge_updates` makes one node of all that are alike: one call of one kernel,
which works in place, instead of a node for each weight.
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
from seqnet.ops.graph_op import SymbolicShape, apply_op
from seqnet.types import Array

Value = TypeVar("Value")


class SharedUpdates(Op):
    """Several elementwise nodes of one expression; the inputs are theirs, one after the other.

    Parameters
    ----------
    kernel : ElementwiseKernel
    updated : tuple of tuple of int
        For each node and each of its outputs, which input of the node it is the new value of.
    inplace : bool
        Write new values over the old ones.

    PyTensor keeps one Op of those that are equal, for good: models with the same optimizer and as
    many weights share one.
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

    def in_place(self) -> SharedUpdates:
        """Return the Op that works in place."""
        return SharedUpdates(self.kernel, self.updated, inplace=True)

    @property
    def inputs(self) -> int:
        """How many inputs each node has."""
        return self.kernel.inputs

    def make_node(self, *inputs: Variable) -> Apply:
        return Apply(self, list(inputs), [v.type() for v in self.old_values(inputs)])

    def groups(self, inputs: Sequence[Value]) -> list[Sequence[Value]]:
        """Return the inputs of each node."""
        return [inputs[k : k + self.inputs] for k in range(0, len(inputs), self.inputs)]

    def old_values(self, inputs: Sequence[Value]) -> list[Value]:
        """Return the inputs that the outputs are the new values of."""
        pairs = zip(self.groups(inputs), self.updated, strict=True)
        return [group[i] for group, updated in pairs for i in updated]

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        calls = []
        for group, updated in zip(self.groups(inputs), self.updated, strict=True):
            out = [group[i] if self.inplace and writes_to(group[i]) else None for i in updated]
            calls.append((group, out))
        results = [array for arrays in self.kernel.each(calls) for array in arrays]
        for storage, array in zip(outputs, results, strict=True):
            storage[0] = array

    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        return self.old_values(given[-1])


def writes_to(array: Array) -> bool:
    """Tell whether a kernel can write to an array."""
    return array.flags.c_contiguous and array.flags.writeable


def merge_updates(fgraph: FunctionGraph) -> None:
    """Replace the elementwise nodes that only give new values of shared variables."""
    alike: dict = {}
    if not fgraph.update_mapping:  # None where there are no updates
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
    """Return the kernel of a scalar function whose inputs are numbers or arrays."""
    variables = [TensorType(dtype, () if number else (None,))() for number in numbers]
    return native.ElementwiseKernel(variables, apply_op(Elemwise(scalar_op), *variables))


def updated_inputs(fgraph: FunctionGraph, node: Apply) -> tuple[int, ...] | None:
    """Return which input each output of a node is the new value of, None if it is not so simple."""
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
    """Tell whether a variable is one number, of any rank."""
    return all(variable.type.broadcastable)


def without_axes(variable: Variable) -> Variable:
    """Return a number as a scalar; arrays as they are."""
    if not is_number(variable):
        return variable
    while variable.owner is not None and isinstance(variable.owner.op, DimShuffle):
        variable = variable.owner.inputs[0]
    return variable if variable.type.ndim == 0 else pt.reshape(variable, ())

"""A compiled function as a list of kernel calls, which can run without Python.

`capture` runs the nodes of a function once and notes the calls of compiled kernels. What depends on
weights and shapes alone is computed here, once. All else must be a kernel or a view of an array;
the error says which operation is neither.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any, NamedTuple

import numpy as np
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.tensor.shape import Shape, Shape_i

from seqnet.backend.elementwise import KernelElemwise
from seqnet.backend.kernel_ops import (
    KernelOp,
    RowSoftmax,
    compute_affine,
    compute_gather,
    compute_lookup_affine,
)
from seqnet.backend.modes import native
from seqnet.backend.recurrence import KernelLastStates, KernelRecurrence
from seqnet.common.types import Array

KERNELS_ALONE = (compute_affine, compute_gather, compute_lookup_affine)
"""Functions of `KernelOp` that only call kernels and make views."""


class NotCapturedError(Exception):
    """A function cannot run without Python; the message says why."""


class Captured(NamedTuple):
    """A function that was run once, and the calls of kernels that it consists of."""

    kernels: Any
    """The module of the compiled kernels."""
    noted: Any
    """The calls."""
    outputs: list[Array]


def capture(function: Any, arguments: Sequence[Array], repeats: int = 1) -> Captured:
    """Run a compiled function, and note the calls of compiled kernels.

    Parameters
    ----------
    function : function
        From `seqnet.backend.compile`.
    arguments : list of array
        The function can be computed again for other values in the same arrays.
    repeats : int
        How often that is to be expected.

    Raises
    ------
    NotCapturedError
        If another operation than a compiled kernel depends on the arguments.
    """
    kernels = native()
    if kernels is None:
        raise NotCapturedError("the compiled kernels are not used")
    graph = function.maker.fgraph
    values: dict[Variable, Array] = {}
    varying: set[Variable] = set()
    for k, (variable, container) in enumerate(
        zip(graph.inputs, function.input_storage, strict=True)
    ):
        given = k < len(arguments)
        values[variable] = arguments[k] if given else container.storage[0]
        if given:
            varying.add(variable)
    nodes = graph.toposort()
    with kernels.recording() as noted:
        for node in nodes:
            inputs = [v.data if isinstance(v, Constant) else values[v] for v in node.inputs]
            if varying.isdisjoint(node.inputs) or is_of_shapes(node):
                found, before = performed(node, inputs), len(noted.calls)
                del noted.calls[before:]
            else:
                found = run_node(node, inputs, varying, repeats, noted)
                varying.update(node.outputs)
            values.update(zip(node.outputs, found, strict=True))
    outputs = [v.data if isinstance(v, Constant) else values[v] for v in graph.outputs]
    noted.kept.append([values, outputs, function])
    return Captured(kernels, noted, outputs)


def is_of_shapes(node: Apply) -> bool:
    """Return whether an operation depends only on the shapes of its inputs."""
    return isinstance(node.op, (Shape, Shape_i))


def performed(node: Apply, inputs: Sequence[Array]) -> list[Array]:
    """Return the outputs of a node."""
    outputs: list[list] = [[None] for _ in node.outputs]
    node.op.perform(node, list(inputs), outputs)
    return [storage[0] for storage in outputs]


def run_node(
    node: Apply, inputs: Sequence[Array], varying: Set[Variable], repeats: int, noted: Any
) -> list[Array]:
    """Return the outputs of a node that depends on the arguments, or raise."""
    op = node.op
    if isinstance(op, (KernelRecurrence, KernelLastStates)):
        return op.views(inputs)
    if isinstance(op, KernelOp) and op.run is compute_lookup_affine:
        table, ids, *weights = inputs
        if varying.isdisjoint([v for v in node.inputs if v is not node.inputs[1]]):
            if len(table) <= ids.size * repeats:  # less work: all rows of the table once
                before = len(noted.calls)
                (projected,) = compute_affine(table, *weights)
                del noted.calls[before:]
                return list(compute_gather(projected, ids))
            return list(compute_affine(*compute_gather(table, ids), *weights))
    if isinstance(op, (KernelElemwise, RowSoftmax)) or (
        isinstance(op, KernelOp) and op.run in KERNELS_ALONE
    ):
        return performed(node, inputs)
    found = performed(node, inputs)
    for value in found:
        shared = isinstance(value, np.ndarray) and any(
            np.may_share_memory(value, array) for array in inputs
        )
        if not shared:
            raise NotCapturedError(f"{op} is not a compiled kernel")
    return found

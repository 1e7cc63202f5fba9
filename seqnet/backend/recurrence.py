"""A whole recurrence, and its gradient, as one compiled kernel each.

The compiled kernel is generated from the traced step of the recurrence
(`seqnet.ops.step.TracedStep`), so that each equation exists once. `lower_recurrences` decides which
recurrences of a graph run this way. All others are built as loops.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op, OutputStorageType
from pytensor.link.c.type import generic

from seqnet.backend.kernel_ops import native
from seqnet.ops.graph_op import SymbolicShape, apply_op, like
from seqnet.ops.recurrence import Recurrence, RecurrenceGradient
from seqnet.ops.step import TracedStep, rebuild
from seqnet.types import Array, Tensor

log = logging.getLogger("seqnet")

_found: WeakKeyDictionary = WeakKeyDictionary()


def compiled_kernel(step: TracedStep) -> native.RecurrenceKernel | str:
    """Return the kernel compiled from a step, or the reason why it cannot be compiled."""
    if step not in _found:
        try:
            _found[step] = compile_step(step)
        except native.KernelUnavailable as unavailable:
            _found[step] = str(unavailable)
    return _found[step]


def compile_step(step: TracedStep) -> native.RecurrenceKernel:
    """Return the kernel compiled from a step, or raise `KernelUnavailable` with the reason."""
    if step.extras:
        names = ", ".join(str(extra.name or extra) for extra in step.extras)
        raise native.KernelUnavailable(f"its step uses weights or variables of its own: {names}")
    if set(step.state_sizes) != {step.units}:
        raise native.KernelUnavailable("its states differ in size")
    for product in step.products:
        if product.operand.owner.inputs[0] is not step.states[0]:
            raise native.KernelUnavailable(
                "the step multiplies more than the state by the recurrent kernel"
            )

    def elementwise_step(
        x: Sequence[Tensor], r: Sequence[Tensor], states: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        values = dict(zip(step.inputs, x, strict=True)) | dict(
            zip(step.states, states, strict=True)
        )
        for product in step.products:
            columns = [r[step.gates.index(gate)] for gate in product.gates]
            values |= dict(zip(product.values, columns, strict=True))
        return tuple(rebuild(step.new_states, values))

    return native.RecurrenceKernel.of(
        elementwise_step, len(step.gates), len(step.states), step.dtype
    )


def why_not_fused(op: Recurrence) -> str:
    """Return why a recurrence cannot run as one compiled kernel; an empty text if it can."""
    if op.unroll:
        return "unroll=True"
    if op.fused is False:
        return "fused=False"
    if "dropout" in op.names:
        return "compiled kernels do not support recurrent_dropout"
    compiled = compiled_kernel(op.step)
    return compiled if isinstance(compiled, str) else ""


def lower_recurrences(fgraph: FunctionGraph) -> None:
    """Replace the recurrences of a graph and their gradients by compiled kernels where possible.

    The compiled kernel saves what its gradient needs in a private layout. A recurrence and its
    gradients are therefore replaced together or not at all.
    """
    for node in list(fgraph.toposort()):
        if not isinstance(node.op, Recurrence):
            continue
        op, count = node.op, len(node.op.step.states)
        reason, gradients = why_not_fused(op), gradients_of(fgraph, node)
        if not reason and gradients is None:
            reason = "a gradient of its gradient is taken"
        if reason:
            if op.fused == "auto" and not op.unroll:
                log.info("Layer %r runs as a scan: %s.", op.layer, reason)
            continue
        compiled = cast("native.RecurrenceKernel", compiled_kernel(op.step))
        forward = KernelRecurrence(compiled, op.names, op.backwards, save=bool(gradients))
        *states, saved = apply_op(forward, *node.inputs)
        replaced = list(zip(node.outputs[: 2 * count], states, strict=True))
        for gradient in gradients or ():
            backward = KernelRecurrenceGradient(
                compiled, op.names, gradient.op.present, op.backwards
            )
            _, _, _, _, of_histories, of_lasts = gradient.op.parts(gradient.inputs)
            used = [d for d in (*of_histories, *of_lasts) if d is not None]
            found = apply_op(backward, *node.inputs, *states[:count], saved, *used)
            replaced += zip(gradient.outputs, found, strict=True)
        # Last first: what depends on the recurrence is replaced before the recurrence itself.
        fgraph.replace_all_validate(replaced[::-1], reason="lower_recurrences")


def gradients_of(fgraph: FunctionGraph, node: Apply) -> list[Apply] | None:
    """Return the gradients of a recurrence, or None if other nodes read its products."""
    count = len(node.op.step.states)
    inputs = [*node.inputs, *node.outputs[:count], *node.outputs[2 * count :]]
    clients = [client for v in node.outputs for client, _ in fgraph.clients[v]]
    found = [
        client
        for client in dict.fromkeys(clients)
        if isinstance(client.op, RecurrenceGradient)
        and client.op.step is node.op.step
        and client.inputs[: len(inputs)] == inputs
    ]
    readers = {client for v in node.outputs[2 * count :] for client, _ in fgraph.clients[v]}
    return found if readers <= set(found) else None


class KernelRecurrence(Op):
    """All steps of a recurrence as one compiled kernel.

    Its outputs are the histories of the states, the last states, and what the gradient needs.

    Parameters
    ----------
    compiled : seqnet.native.RecurrenceKernel
    names : tuple of str
        The meaning of each input; see `seqnet.ops.recurrence.RecurrenceOp`.
    backwards : bool
        Run from the last step to the first. Histories are in that order.
    save : bool
        Save what the gradient needs.
    """

    __props__ = ("compiled", "names", "backwards", "save")

    def __init__(
        self, compiled: native.RecurrenceKernel, names: tuple[str, ...], backwards: bool, save: bool
    ) -> None:
        self.compiled, self.names, self.backwards, self.save = compiled, names, backwards, save

    def __str__(self) -> str:
        return f"KernelRecurrence({', '.join(self.names)})"

    def make_node(self, *inputs: Variable) -> Apply:
        projected, recurrent_kernel = inputs[:2]
        time, batch, _ = projected.type.shape
        units, states = recurrent_kernel.type.shape[0], self.compiled.states
        outputs: list[Variable] = [like(projected, 3, (time, batch), units) for _ in range(states)]
        outputs += [like(projected, 2, (batch,), units) for _ in range(states)]
        return Apply(self, list(inputs), [*outputs, generic()])

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        given = named(self.names, inputs, self.compiled.states)
        projected, mask = given["projected"], given["mask"]
        histories, saved = self.compiled.forward(
            projected[::-1] if self.backwards else projected,
            given["recurrent_kernel"],
            given["bias"],
            given["initial_states"],
            mask[::-1] if mask is not None and self.backwards else mask,
            save=self.save,
        )
        for storage, history in zip(outputs, histories, strict=False):
            storage[0] = history
        for storage, history in zip(outputs[len(histories) :], histories, strict=False):
            storage[0] = history[-1].copy()
        outputs[-1][0] = saved

    # PyTensor 3.0 calls it with (graph, node, shapes), later releases with (node, shapes).
    def infer_shape(self, *given: Any) -> list[SymbolicShape | None]:
        shapes = given[-1]
        (time, batch, _), units = shapes[0], shapes[1][0]
        states = self.compiled.states
        return [(time, batch, units)] * states + [(batch, units)] * states + [None]


class KernelRecurrenceGradient(Op):
    """The gradient of `KernelRecurrence` with respect to all its inputs but the mask.

    Its inputs are those of the recurrence, the histories, the saved values, and the gradients of
    the histories and last states that are connected to the cost (`present`).
    """

    __props__ = ("compiled", "names", "present", "backwards")

    def __init__(
        self,
        compiled: native.RecurrenceKernel,
        names: tuple[str, ...],
        present: tuple[bool, ...],
        backwards: bool,
    ) -> None:
        self.compiled, self.names = compiled, names
        self.present, self.backwards = present, backwards

    def __str__(self) -> str:
        return f"KernelRecurrenceGradient({', '.join(self.names)})"

    def make_node(self, *inputs: Variable) -> Apply:
        wanted = [v.type() for n, v in zip(self.names, inputs, strict=False) if n != "mask"]
        return Apply(self, list(inputs), wanted)

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        states, count = self.compiled.states, len(self.names)
        given = named(self.names, inputs, states)
        rest = iter(inputs[count + states + 1 :])
        grads = [next(rest) if connected else None for connected in self.present]
        projected, mask = given["projected"], given["mask"]
        if self.backwards:
            projected = projected[::-1]
            mask = None if mask is None else mask[::-1]
        result = self.compiled.backward(
            given["recurrent_kernel"],
            inputs[count : count + states],
            inputs[count + states],
            [None if g is None else rows_contiguous(g) for g in grads[:states]],
            projected=projected,
            recurrent_bias=given["bias"],
            initial_states=given["initial_states"],
            mask=mask,
            final_grads=grads[states:] if any(self.present[states:]) else None,
        )
        of_projected = result.projected[::-1] if self.backwards else result.projected
        values: list[Array | None] = [of_projected, result.recurrent_kernel]
        values += [] if given["bias"] is None else [result.recurrent_bias]
        values += result.initial_states or []
        for storage, value in zip(outputs, values, strict=True):
            storage[0] = value

    # PyTensor 3.0 calls it with (graph, node, shapes), later releases with (node, shapes).
    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        shapes = given[-1]
        return [s for n, s in zip(self.names, shapes, strict=False) if n != "mask"]


def named(names: tuple[str, ...], inputs: Sequence[Array], states: int) -> dict:
    """Return the inputs of a recurrence by name, None for those that are absent."""
    given = dict(zip(names, inputs, strict=False))
    initial = [given.get(f"state{k}") for k in range(states)]
    return {
        "projected": given["projected"],
        "recurrent_kernel": given["recurrent_kernel"],
        "bias": given.get("bias"),
        "initial_states": None if initial[0] is None else initial,
        "mask": given.get("mask"),
    }


def rows_contiguous(array: np.ndarray) -> np.ndarray:
    """Return the array, copied if its last axis is not contiguous."""
    if array.strides[-1] == array.itemsize or array.shape[-1] == 1:
        return array
    return np.ascontiguousarray(array)

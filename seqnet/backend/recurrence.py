"""A whole recurrence, and its gradient, as one compiled kernel each.

The compiled kernel is generated from the traced step of the recurrence
(`seqnet.ops.step.TracedStep`), so that each equation exists once. `lower_recurrences` decides which
recurrences of a graph run this way. All others are built as loops.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias, cast
from weakref import WeakKeyDictionary

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op, OutputStorageType
from pytensor.graph.traversal import ancestors, graph_inputs, io_toposort
from pytensor.link.c.type import generic
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import DimShuffle
from pytensor.tensor.math import Dot
from pytensor.tensor.rewriting.ofg import inline_ofg_node
from pytensor.tensor.sharedvar import TensorSharedVariable
from pytensor.tensor.type import TensorType

from seqnet.backend.kernel_ops import function_of, native, uses_bfloat16
from seqnet.common.types import Array, Tensor
from seqnet.ops.affine import Affine
from seqnet.ops.bfloat16 import RoundGradient, RoundToBfloat16
from seqnet.ops.graph_op import SymbolicShape, apply_op, like
from seqnet.ops.lookup_affine import LookupAffine
from seqnet.ops.recurrence import Recurrence, RecurrenceGradient
from seqnet.ops.step import Extra, TracedStep, rebuild

log = logging.getLogger("seqnet")

_found: WeakKeyDictionary = WeakKeyDictionary()
_kernels: dict[tuple | None, Kernel] = {}
"""The kernels of this process by the structure of their step."""

Kernel: TypeAlias = "native.RecurrenceKernel | native.ProgramKernel"
"""A recurrence that is elementwise beside one product, or one of any step."""


def compiled_kernel(step: TracedStep) -> Kernel | str:
    """Return the kernel compiled from a step, or the reason why it cannot be compiled."""
    if step not in _found:
        key = structure_of(step)
        try:
            _found[step] = _kernels.get(key) or compile_step(step)
            if key is not None:
                _kernels[key] = _found[step]
        except native.KernelUnavailable as unavailable:
            _found[step] = str(unavailable)
    return _found[step]


def structure_of(step: TracedStep) -> tuple | None:
    """Return what the kernel of a step depends on: equal structures have the same kernel.

    It has no variables, so that it does not keep the graph of a model. It is None for a step that
    uses a variable that is no constant and none of its inputs.
    """
    placeholders = [e.placeholder for e in step.extras]
    values = [v for product in step.products for v in product.values]
    roots: list[Tensor] = [*step.inputs, *step.states, *placeholders, *values]
    numbers: dict[Variable, int] = {v: k for k, v in enumerate(roots)}
    outputs = [*step.new_states, *(product.operand for product in step.products)]

    def reference(v: Variable) -> Hashable:
        return v.signature() if isinstance(v, Constant) else numbers[v]

    try:
        nodes = []
        for node in io_toposort(roots, outputs):
            nodes.append((node.op, *map(reference, node.inputs)))
            numbers |= {v: len(numbers) + k for k, v in enumerate(node.outputs)}
        results = tuple(map(reference, outputs))
    except KeyError:
        return None
    extras = [
        (e.variable.type, tuple(known_sizes(e.variable)), e.of_each_step, e.has_gradient)
        for e in step.extras
    ]
    return (
        (step.gates, step.units, step.dtype, step.state_sizes, step.input_sizes),
        step.bfloat16 and uses_bfloat16(),
        tuple(product.gates for product in step.products),
        tuple(v.type for v in roots),
        tuple(nodes),
        results,
        tuple(extras),
    )


def compile_step(step: TracedStep) -> Kernel:
    """Return the kernel compiled from a step, or raise `KernelUnavailable` with the reason."""
    kernel = elementwise_kernel(step)
    return native.ProgramKernel(graph_of(step), step.dtype) if kernel is None else kernel


def elementwise_kernel(step: TracedStep) -> native.RecurrenceKernel | None:
    """Return the kernel of a step that is elementwise beside one product of the states, or None."""
    if {*step.state_sizes, *step.input_sizes} != {step.units}:
        return None
    fixed = {*step.states, *(extra.placeholder for extra in step.extras)}
    operands: list[Tensor | None] = [None] * len(step.gates)
    for product in step.products:
        for gate in product.gates:
            place = step.gates.index(gate)
            if operands[place] not in (None, source := product.operand.owner.inputs[0]):
                return None
            operands[place] = source
        roots = graph_inputs([product.operand])
        if any(v not in fixed and not isinstance(v, Constant) for v in roots):
            return None

    def values(states: Sequence[Tensor], extras: Sequence[Tensor]) -> dict:
        placeholders = [extra.placeholder for extra in step.extras]
        return dict(zip(step.states, states, strict=True)) | dict(
            zip(placeholders, extras, strict=True)
        )

    def elementwise_step(
        x: Sequence[Tensor],
        r: Sequence[Tensor],
        states: Sequence[Tensor],
        extras: Sequence[Tensor] = (),
    ) -> tuple[Tensor, ...]:
        known = values(states, extras) | dict(zip(step.inputs, x, strict=True))
        for product in step.products:
            columns = [r[step.gates.index(gate)] for gate in product.gates]
            known |= dict(zip(product.values, columns, strict=True))
        return tuple(rebuild(step.new_states, known))

    def operands_of(states: Sequence[Tensor], extras: Sequence[Tensor]) -> list[Tensor | None]:
        known = values(states, extras)
        return [None if v is None else rebuild([v], known)[0] for v in operands]

    try:
        others = [other_of(extra, step.dtype) for extra in step.extras]
        return native.RecurrenceKernel.of(
            elementwise_step,
            len(step.gates),
            len(step.states),
            step.dtype,
            others,
            operands_of,
            bfloat16=step.bfloat16 and uses_bfloat16(),
        )
    except native.KernelUnavailable:
        return None


def graph_of(step: TracedStep) -> native.StepGraph:
    """Return a step as a kernel of any products takes it, or raise `KernelUnavailable`."""
    outputs = inlined([*step.new_states, *(product.operand for product in step.products)])
    rounds = step.bfloat16 and uses_bfloat16()
    outputs = rebuild(outputs, {v.outputs[0]: v.inputs[0] for v in rounded_extras(step, outputs)})
    nodes = io_toposort([], outputs)
    places: dict[Variable, int] = {e.placeholder: k for k, e in enumerate(step.extras)}
    dots = [node for node in nodes if is_product(node)]
    matrices = set()
    for node in dots:
        left, right = node.inputs
        if right not in places or step.extras[places[right]].of_each_step or right.type.ndim != 2:
            raise native.KernelUnavailable(
                f"its step multiplies {named_variable(left)} by {named_variable(right)}, which is "
                "not a matrix that is the same at every step"
            )
        matrices.add(right)
    values: dict = {}
    others, kinds, sizes = [], [], list[Any]()
    for extra in step.extras:
        v = extra.placeholder
        kind, size = layout_of(extra, step.dtype, nodes, v in matrices)
        new = TensorType(step.dtype, (None, 1 if size is None else None))(name=v.name)
        others.append(new)
        kinds.append(kind)
        sizes.append(size)
        if v not in matrices:
            values |= {v: new} if v.type.ndim == 2 else dict.fromkeys(widened(v, nodes), new)
    results = [pt.matrix(dtype=step.dtype) for _ in dots]
    values |= dict(zip((node.outputs[0] for node in dots), results, strict=True))
    if rounds:  # as `seqnet.ops.bfloat16.dot` does; the recurrent kernel is rounded before the loop
        of_kernel = [v for product in step.products for v in product.values]
        values |= {v: RoundGradient()(v) for v in of_kernel}
    found = rebuild([*outputs, *(node.inputs[0] for node in dots)], values)
    count, own = len(step.new_states), len(step.products)
    new_states, operands = found[:count], found[count:]
    if rounds:
        operands[:own] = [RoundToBfloat16()(operand) for operand in operands[:own]]
    products = []
    for product, operand in zip(step.products, operands, strict=False):
        for start, gates in adjacent(product.gates, step.gates):
            columns: list = [product.values[product.gates.index(gate)] for gate in gates]
            widths = [step.units] * len(gates)
            products.append(native.StepProduct(operand, 0, start * step.units, columns, widths))
    for node, operand, result in zip(dots, operands[own:], results, strict=True):
        place = places[node.inputs[1]]
        products.append(native.StepProduct(operand, 1 + place, 0, [result], [sizes[place]]))
    return native.StepGraph(
        step.inputs,
        step.input_sizes,
        step.states,
        step.state_sizes,
        others,
        kinds,
        sizes,
        in_order(products),
        new_states,
    )


def rounded_extras(step: TracedStep, outputs: Sequence[Variable]) -> list[Apply]:
    """Return the nodes of a step that round extras which it uses in no other way.

    These are weights. They are rounded before the loop.
    """
    nodes = io_toposort([], list(outputs))
    found = []
    for extra in step.extras:
        clients = [node for node in nodes if extra.placeholder in node.inputs]
        if len(clients) == 1 and isinstance(clients[0].op, RoundToBfloat16):
            found += clients
    return found


def rounded_inputs(op: Recurrence, inputs: Sequence[Variable]) -> list[Variable]:
    """Return the inputs of a recurrence of any step, with weights that are rounded to bfloat16."""
    step, names = op.step, set()
    if step.bfloat16 and step.products and uses_bfloat16():
        names.add("recurrent_kernel")
    places: dict[Variable, int] = {e.placeholder: k for k, e in enumerate(step.extras)}
    outputs = inlined([*step.new_states, *(product.operand for product in step.products)])
    names |= {f"extra{places[node.inputs[0]]}" for node in rounded_extras(step, outputs)}
    return [
        cast("Variable", RoundToBfloat16()(v)) if name in names else v
        for name, v in zip(op.names, inputs, strict=True)
    ]


def inlined(outputs: Sequence[Variable]) -> list:
    """Return a graph with the Ops that are defined by graphs replaced by these, as softmax is.

    Where kernels do not round to bfloat16, rounding is removed.
    """
    while True:
        values: dict = {}
        for node in io_toposort([], list(outputs)):
            if isinstance(node.op, RoundToBfloat16) and not uses_bfloat16():
                values[node.outputs[0]] = node.inputs[0]
                break
            if isinstance(node.op, OpFromGraph):
                values.update(zip(node.outputs, inline_ofg_node(node), strict=True))
                break
        if not values:
            return list(outputs)
        outputs = rebuild(outputs, values)


def is_product(node: Apply) -> bool:
    """Return whether a node is a product of two matrices."""
    op = node.op.core_op if isinstance(node.op, Blockwise) else node.op
    return isinstance(op, Dot) and all(v.type.ndim == 2 for v in node.inputs)


def named_variable(variable: Variable) -> str:
    """Return how a message names a variable of a step."""
    return variable.name or str(variable)


def layout_of(
    extra: Extra, dtype: str, nodes: Sequence[Apply], is_matrix: bool
) -> tuple[native.Other, int | None]:
    """Return how a kernel takes an extra, and its columns; None is one number for each row."""
    placeholder = extra.placeholder
    kind, name = placeholder.type, named_variable(extra.variable)
    sizes = known_sizes(extra.variable)
    if is_matrix:
        if None in sizes:
            raise native.KernelUnavailable(
                f"its step multiplies by a matrix of unknown size: {name}"
            )
        return native.Other("matrix", extra.has_gradient), sizes[1]
    other = other_of(extra, dtype)
    rows = 1 if extra.of_each_step else 0
    if kind.ndim <= rows or (kind.ndim == 2 and kind.broadcastable[1]):
        return other, None
    size = sizes[-1]
    if size is None:  # that of an elementwise operation
        clients = [n.outputs[0].type for n in nodes if placeholder in n.inputs]
        size = next((t.shape[1] for t in clients if t.ndim == 2 and t.shape[1]), None)
    if size is None:
        raise native.KernelUnavailable(f"its step uses a variable of unknown size: {name}")
    return other, size


def known_sizes(variable: Variable) -> tuple:
    """Return the shape of a variable as far as it is known; sizes of weights are known."""
    shared = [v for v in graph_inputs([variable]) if isinstance(v, TensorSharedVariable)]
    values = {v: TensorType(v.dtype, v.get_value(borrow=True).shape)() for v in shared}
    return rebuild([variable], values)[0].type.shape


def widened(variable: Variable, nodes: Sequence[Apply]) -> list[Variable]:
    """Return a variable of fewer axes as its clients see it, with two axes."""
    return [
        node.outputs[0]
        for node in nodes
        if isinstance(node.op, DimShuffle)
        and node.inputs[0] is variable
        and node.outputs[0].type.ndim == 2
    ]


def adjacent(asked: Sequence[str], gates: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Return gates in runs whose columns are adjacent, each with the place of its first."""
    runs: list[tuple[int, list[str]]] = []
    for gate in asked:
        place = gates.index(gate)
        if runs and place == runs[-1][0] + len(runs[-1][1]):
            runs[-1][1].append(gate)
        else:
            runs.append((place, [gate]))
    return runs


def in_order(products: Sequence[native.StepProduct]) -> list[native.StepProduct]:
    """Return products in an order in which each operand is known."""
    rest, found = list(products), []
    below = {id(p): set(ancestors([p.operand])) for p in rest}
    while rest:
        waiting = {v for p in rest for v in p.values}
        ready = [p for p in rest if not below[id(p)] & waiting]
        found += ready
        rest = [p for p in rest if p not in ready]
    return found


def other_of(extra: Extra, dtype: str) -> native.Other:
    """Return how a kernel takes an extra of a step, or raise `KernelUnavailable`."""
    kind, name = extra.placeholder.type, extra.variable.name or str(extra.variable)
    if kind.dtype != dtype:
        raise native.KernelUnavailable(
            f"its step uses a variable of {kind.dtype} and not of {dtype}: {name}"
        )
    if kind.ndim > 2:
        raise native.KernelUnavailable(f"its step uses a variable of {kind.ndim} axes: {name}")
    if extra.of_each_step:
        return native.Other("sequence", extra.has_gradient)
    same = kind.ndim < 2 or kind.broadcastable[0]
    return native.Other("vector" if same else "batch", extra.has_gradient)


def why_not_fused(op: Recurrence) -> str:
    """Return why a recurrence cannot run as one compiled kernel; an empty text if it can."""
    if op.unroll:
        return "unroll=True"
    if op.fused is False:
        return "fused=False"
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
        compiled = cast("Kernel", compiled_kernel(op.step))
        inputs = list(node.inputs)
        if isinstance(compiled, native.ProgramKernel):
            inputs = rounded_inputs(op, inputs)
        if not gradients and not any(fgraph.clients[v] for v in node.outputs[:count]):
            lasts = last_states(op, inputs, compiled)
            pairs = zip(node.outputs[count : 2 * count], lasts, strict=True)
            fgraph.replace_all_validate(list(pairs), reason="lower_recurrences")
            continue
        forward = KernelRecurrence(compiled, op.names, op.backwards, save=bool(gradients))
        *states, saved = apply_op(forward, *inputs)
        replaced = list(zip(node.outputs[: 2 * count], states, strict=True))
        for gradient in gradients or ():
            backward = KernelRecurrenceGradient(
                compiled, op.names, gradient.op.present, op.backwards
            )
            _, _, _, _, of_histories, of_lasts = gradient.op.parts(gradient.inputs)
            used = [d for d in (*of_histories, *of_lasts) if d is not None]
            found = apply_op(backward, *inputs, *states[:count], saved, *used)
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


class KernelOfRecurrence(Op):
    """The base class of `KernelRecurrence` and `KernelRecurrenceGradient`."""

    compiled: Kernel
    names: tuple[str, ...]
    backwards: bool

    def state_sizes(self, columns: Any) -> list:
        """Return the size of each state, given the columns of the projected input."""
        known = self.compiled.state_sizes
        if known is not None:
            return [*known]
        units = None if columns is None else columns // self.compiled.gates
        return [units] * self.compiled.states

    def has_gradient(self, name: str) -> bool:
        """Return whether the gradient of an input is computed."""
        if name.startswith("extra"):
            return self.compiled.others[int(name[5:])].gradient
        return name != "mask"

    def others(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the other arrays that the step takes, sequences in the order of the loop."""
        given = dict(zip(self.names, inputs, strict=False))
        return [
            self.in_order(given[f"extra{k}"], other) for k, other in enumerate(self.compiled.others)
        ]

    def in_order(self, array: Array, other: native.Other) -> Array:
        """Reverse a sequence if the loop runs backwards."""
        return array[::-1] if self.backwards and other.kind == "sequence" else array


class KernelRecurrence(KernelOfRecurrence):
    """All steps of a recurrence as one compiled kernel.

    Its outputs are the histories of the states, the last states, and what the gradient needs.

    Parameters
    ----------
    compiled : seqnet.native.RecurrenceKernel or seqnet.native.ProgramKernel
    names : tuple of str
        The meaning of each input; see `seqnet.ops.recurrence.RecurrenceOp`.
    backwards : bool
        Run from the last step to the first. Histories are in that order.
    save : bool
        Save what the gradient needs.
    """

    __props__ = ("compiled", "names", "backwards", "save")

    def __init__(
        self, compiled: Kernel, names: tuple[str, ...], backwards: bool, save: bool
    ) -> None:
        self.compiled, self.names, self.backwards, self.save = compiled, names, backwards, save

    def __str__(self) -> str:
        return f"KernelRecurrence({', '.join(self.names)})"

    def make_node(self, *inputs: Variable) -> Apply:
        time, batch, columns = inputs[0].type.shape
        sizes = open_sizes(self.state_sizes(columns))
        outputs: list[Variable] = [like(inputs[0], 3, (time, batch), n) for n in sizes]
        outputs += [like(inputs[0], 2, (batch,), n) for n in sizes]
        return Apply(self, list(inputs), [*outputs, generic()])

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        count = self.compiled.states
        for k, value in enumerate(self.views(inputs)):
            outputs[k][0] = value.copy() if count <= k < 2 * count else value

    def views(self, inputs: Sequence[Array]) -> list:
        """Return the outputs; the last states are views of the histories."""
        given = named(self.names, inputs, self.compiled.states)
        projected, mask = given["projected"], given["mask"]
        histories, saved = self.compiled.forward(
            projected[::-1] if self.backwards else projected,
            given["recurrent_kernel"],
            given["bias"],
            given["initial_states"],
            mask[::-1] if mask is not None and self.backwards else mask,
            save=self.save,
            others=self.others(inputs),
        )
        return [*histories, *(history[-1] for history in histories), saved]

    # PyTensor 3.0 calls it with (graph, node, shapes), later releases with (node, shapes).
    def infer_shape(self, *given: Any) -> list[SymbolicShape | None]:
        shapes = given[-1]
        time, batch, columns = shapes[0]
        sizes = self.state_sizes(columns)
        return [*((time, batch, n) for n in sizes), *((batch, n) for n in sizes), None]


STEPS_OF_PART, SIZE_OF_PART = 256, 2**20
"""A part of a sequence has this number of steps, or as many more as have this number of values."""


class KernelLastStates(KernelOfRecurrence):
    """The last states of a recurrence, in memory that does not grow with the number of steps.

    The sequence is divided into parts, each of which starts from the last states of the part
    before. The input of each part is projected when it is needed.

    Parameters
    ----------
    compiled, names, backwards
        See `KernelRecurrence`.
    project : callable, optional
        Computes the projected input, ``(batch, time, gates * units)``, from the first `inputs`
        inputs of the node, of which the one at `sequence` has steps, ``(batch, time, ...)``.
        Without it, the first input is the projected input as `KernelRecurrence` takes it.
    inputs, sequence : int
    units : int
    """

    __props__ = ("compiled", "names", "backwards", "project", "inputs", "sequence", "units")

    def __init__(
        self,
        compiled: Kernel,
        names: tuple[str, ...],
        backwards: bool,
        project: Callable | None = None,
        inputs: int = 1,
        sequence: int = 0,
        *,
        units: int,
    ) -> None:
        self.compiled, self.names, self.backwards = compiled, names, backwards
        self.project, self.inputs, self.sequence = project, inputs, sequence
        self.units = units

    def __str__(self) -> str:
        return f"KernelLastStates({', '.join(self.names)})"

    def make_node(self, *inputs: Variable) -> Apply:
        sizes = open_sizes(self.state_sizes(self.compiled.gates * self.units))
        kinds = [TensorType(self.compiled.dtype.name, (None, n)) for n in sizes]
        return Apply(self, list(inputs), [kind() for kind in kinds])

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        for storage, state in zip(outputs, self.views(inputs), strict=True):
            storage[0] = state.copy()  # its memory may be that of a whole part

    def views(self, inputs: Sequence[Array]) -> list:
        """Return the outputs as views of the last part of the histories."""
        source = list(inputs[: self.inputs])
        given = dict(zip(self.names[1:], inputs[self.inputs :], strict=True))
        axis = 0 if self.project is None else 1
        time, batch = source[self.sequence].shape[axis], source[self.sequence].shape[1 - axis]
        columns = self.compiled.gates * self.units
        size = max(STEPS_OF_PART, SIZE_OF_PART // max(1, batch * columns))
        states: list | None = None
        if "state0" in given:
            states = [given[f"state{k}"] for k in range(self.compiled.states)]
        in_time = {n for n in given if n == "mask" or self.is_sequence(n)}
        for first in range(0, time, size):
            last = min(first + size, time)
            steps = slice(time - last, time - first) if self.backwards else slice(first, last)
            if self.project is None:
                projected = source[0][steps]
            else:
                parts = list(source)
                parts[self.sequence] = source[self.sequence][:, steps]
                projected = self.project(*parts)[0].transpose(1, 0, 2)
            part = {n: v[steps] if n in in_time else v for n, v in given.items()}
            mask = part.get("mask")
            histories, _ = self.compiled.forward(
                projected[::-1] if self.backwards else projected,
                given.get("recurrent_kernel"),
                given.get("bias"),
                states,
                mask[::-1] if mask is not None and self.backwards else mask,
                save=False,
                others=self.others((projected, *part.values())),
            )
            states = [history[-1] for history in histories]
        return cast(list, states)

    def is_sequence(self, name: str) -> bool:
        """Return whether an input is an extra of the step with a value for each step."""
        return name.startswith("extra") and self.compiled.others[int(name[5:])].kind == "sequence"

    # PyTensor 3.0 calls it with (graph, node, shapes), later releases with (node, shapes).
    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        shapes = given[-1]
        batch = shapes[self.sequence][1 if self.project is None else 0]
        sizes = self.state_sizes(self.compiled.gates * self.units)
        return [(batch, n + 0 * batch) for n in sizes]


def last_states(op: Recurrence, inputs: Sequence[Variable], compiled: Kernel) -> list[Variable]:
    """Return the last states of a recurrence whose other outputs are not used."""
    projected, *others = inputs
    source, project, place = [projected], None, 0
    shuffled = projected.owner
    if shuffled is not None and isinstance(shuffled.op, DimShuffle):
        affine = shuffled.inputs[0].owner
        if shuffled.op.new_order == (1, 0, 2) and affine is not None:
            place = SEQUENCES.get(type(affine.op), -1)
            if place >= 0:
                source, project = affine.inputs, function_of(affine.op)
    options = (project, len(source), max(place, 0))
    forward = KernelLastStates(compiled, op.names, op.backwards, *options, units=op.step.units)
    return apply_op(forward, *source, *others)


SEQUENCES: dict[type[Op], int] = {Affine: 0, LookupAffine: 1}
"""Which input has the steps, of Ops that project the input of a recurrence."""


class KernelRecurrenceGradient(KernelOfRecurrence):
    """The gradient of `KernelRecurrence` with respect to all its inputs, except masks.

    Its inputs are those of the recurrence, the histories, the saved values, and the gradients of
    the histories and last states that are connected to the cost (`present`).
    """

    __props__ = ("compiled", "names", "present", "backwards")

    def __init__(
        self,
        compiled: Kernel,
        names: tuple[str, ...],
        present: tuple[bool, ...],
        backwards: bool,
    ) -> None:
        self.compiled, self.names = compiled, names
        self.present, self.backwards = present, backwards

    def __str__(self) -> str:
        return f"KernelRecurrenceGradient({', '.join(self.names)})"

    def make_node(self, *inputs: Variable) -> Apply:
        given = zip(self.names, inputs, strict=False)
        return Apply(self, list(inputs), [v.type() for n, v in given if self.has_gradient(n)])

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
            cast("Any", inputs[count + states]),
            [None if g is None else rows_contiguous(g) for g in grads[:states]],
            projected=projected,
            recurrent_bias=given["bias"],
            initial_states=given["initial_states"],
            mask=mask,
            final_grads=grads[states:] if any(self.present[states:]) else None,
            others=self.others(inputs),
        )
        of_projected = result.projected[::-1] if self.backwards else result.projected
        values: list[Array | None] = [of_projected]
        values += [] if given["recurrent_kernel"] is None else [result.recurrent_kernel]
        values += [] if given["bias"] is None else [result.recurrent_bias]
        values += result.initial_states or []
        trained = [other for other in self.compiled.others if other.gradient]
        values += [self.in_order(d, o) for d, o in zip(result.others, trained, strict=True)]
        for storage, value in zip(outputs, values, strict=True):
            storage[0] = value

    # PyTensor 3.0 calls it with (graph, node, shapes), later releases with (node, shapes).
    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        shapes = given[-1]
        return [s for n, s in zip(self.names, shapes, strict=False) if self.has_gradient(n)]


def open_sizes(sizes: Sequence) -> list:
    """Return static sizes of axes; one of 1 is unknown, because it would be broadcastable."""
    return [None if n == 1 else n for n in sizes]


def named(names: tuple[str, ...], inputs: Sequence[Array], states: int) -> dict:
    """Return the inputs of a recurrence by name, None for those that are absent."""
    given = dict(zip(names, inputs, strict=False))
    initial = [given.get(f"state{k}") for k in range(states)]
    return {
        "projected": given["projected"],
        "recurrent_kernel": given.get("recurrent_kernel"),
        "bias": given.get("bias"),
        "initial_states": None if initial[0] is None else initial,
        "mask": given.get("mask"),
    }


def rows_contiguous(array: np.ndarray) -> np.ndarray:
    """Return the array, copied if its last axis is not contiguous."""
    if array.strides[-1] == array.itemsize or array.shape[-1] == 1:
        return array
    return np.ascontiguousarray(array)

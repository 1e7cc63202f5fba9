"""One traced step of a recurrence, and its gradient.

The `step` method of a cell is a Python function of PyTensor variables. `trace_step` calls it once
on placeholders and records the resulting graph. The scan, the unrolled loop, the gradient and the
compiled kernel are all built from this graph, so they compute the same equations.

This module also implements masks: where the mask of a step is False, every state keeps its value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import Op
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import ancestors, graph_inputs, io_toposort
from pytensor.scalar.basic import Cast
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.math import Prod, Sum
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.type import TensorType

from seqnet.common.types import Tensor
from seqnet.ops.bfloat16 import dot


class StepInput(Op):
    """Marks a variable that is computed before the loop, within a step; see `drawn`, `each_step`.

    `trace_step` replaces it by a placeholder.
    """

    __props__ = ("of_each_step", "has_gradient")

    def __init__(self, of_each_step: bool, has_gradient: bool) -> None:
        self.of_each_step, self.has_gradient = of_each_step, has_gradient

    def make_node(self, *inputs: Variable) -> Apply:
        variable = pt.as_tensor_variable(inputs[0])
        kind = variable.type
        if self.of_each_step:
            if kind.ndim < 2:
                raise ValueError(
                    "each_step takes a sequence (time, batch, ...), got a variable of "
                    f"{kind.ndim} axes."
                )
            kind = TensorType(kind.dtype, kind.shape[1:])
        return Apply(self, [variable], [kind()])

    def perform(self, node: Apply, inputs: Sequence, outputs: Any) -> None:
        raise ValueError("each_step and drawn can only be used within the step of a recurrence.")

    def pullback(self, inputs: Sequence, outputs: Sequence, gradients: Sequence) -> list[Variable]:
        return [disconnected_type() for _ in inputs]


def drawn(variable: Tensor) -> Tensor:
    """Return a variable that was drawn at random before the loop, to be used within a step.

    It has the same value at every step, and no gradient. Other variables that are computed before
    the loop, such as weights, are used in a step as they are.
    """
    return cast("Tensor", StepInput(False, False)(variable))


def each_step(sequence: Tensor, *, gradient: bool = True) -> Tensor:
    """Return the value of a sequence at the current step, to be used within a step.

    Parameters
    ----------
    sequence : variable (time, batch, ...)
        Computed before the loop, in the order of the input, such as one mask for each step.
    gradient : bool
        Whether it has a gradient. Masks that are drawn have none.

    Returns
    -------
    variable (batch, ...)
    """
    return cast("Tensor", StepInput(True, gradient)(sequence))


@dataclass(frozen=True, eq=False)
class Extra:
    """A variable that a step uses beside its input and states; it is computed before the loop.

    Attributes
    ----------
    variable : variable
        Its value before the loop: of all steps, or with `of_each_step` (time, ...).
    placeholder : variable
        Its value within the step.
    of_each_step : bool
    has_gradient : bool
    """

    variable: Tensor
    placeholder: Tensor
    of_each_step: bool = False
    has_gradient: bool = True


@dataclass(frozen=True, eq=False)
class Product:
    """A product with the recurrent kernel within a step.

    Attributes
    ----------
    operand : variable (batch, units)
        The left operand.
    gates : tuple of str
        The gates whose columns of the recurrent kernel are the right operand.
    values : list of variables, each (batch, units)
        Placeholders of the result, one for each of these gates.
    """

    operand: Tensor
    gates: tuple[str, ...]
    values: list[Tensor]


@dataclass(frozen=True, eq=False)
class TracedStep:
    """A traced step.

    Attributes
    ----------
    gates : tuple of str
    units : int
    dtype : str
    state_sizes : tuple of int
        The last axis of each state; `units` for most.
    inputs : list of variables, each (batch, units)
        Placeholders of the projected input of each gate.
    states : list of variables, each (batch, size)
        Placeholders of the states before the step.
    products : list of Product
        In the order in which the step computes them.
    new_states : list of variables, each (batch, size)
        The states after the step, of dtype `dtype`.
    input_sizes : tuple of int
        The last axis of each input; `units` unless the step gets its input as it is.
    extras : list of Extra
        Other variables that the step uses, such as its own weights. What the step computes from
        them alone is computed before the loop.
    bfloat16 : bool
        Whether the operands of the products with the recurrent kernel are rounded to bfloat16, and
        those of their gradients.
    """

    gates: tuple[str, ...]
    units: int
    dtype: str
    state_sizes: tuple[int, ...]
    inputs: list[Tensor]
    states: list[Tensor]
    products: list[Product]
    new_states: list[Tensor]
    extras: list[Extra]
    input_sizes: tuple[int, ...]
    bfloat16: bool = False

    def split(self, joined: Tensor, gates: Sequence[str] | None = None) -> list:
        """Split (batch, gates * units) into a (batch, units) array for each gate."""
        count, size = len(self.gates if gates is None else gates), self.units
        if count == 1:
            return [joined]
        return [joined[:, k * size : (k + 1) * size] for k in range(count)]

    def product(
        self, operand: Tensor, gates: Sequence[str], kernel: Tensor, bias: Tensor | None
    ) -> Tensor:
        """Return the product of an operand (batch, units) with the recurrent kernel, and its bias.

        The result is (batch, gates * units) of some gates.
        """
        result = dot(operand, self.columns(kernel, gates), self.bfloat16)
        return result if bias is None else cast("Tensor", result + self.columns(bias, gates))

    def columns(self, weight: Tensor, gates: Sequence[str]) -> Tensor:
        """Return the columns of a weight (..., gates * units) that belong to some gates."""
        if tuple(gates) == self.gates:
            return weight
        places, size = [self.gates.index(g) for g in gates], self.units
        first, last = places[0], places[-1]
        if places == list(range(first, last + 1)):
            return weight[..., first * size : (last + 1) * size]
        return join([weight[..., k * size : (k + 1) * size] for k in places])


def trace_step(
    step: Callable,
    gates: Sequence[str],
    state_names: Sequence[str],
    units: int,
    dtype: str,
    name: str = "The cell",
    state_sizes: Sequence[int] | None = None,
    dropout: Sequence[Tensor] = (),
    input_size: int | None = None,
    bfloat16: bool = False,
) -> TracedStep:
    """Call a step once on placeholders and return its graph.

    Constants of a wider float type than `dtype`, such as the ``0.9`` of ``0.9 * h`` or a NumPy
    array of float64, are rounded to `dtype`, so that they do not widen the states.

    Parameters
    ----------
    step : callable
        ``step(x, states, recur) -> new states``; see `seqnet.layers.Recurrent.step`.
    gates, state_names : sequences of str
    units : int
    dtype : str
    name : str
        Name of the cell in messages.
    state_sizes : sequence of int, optional
        `units` for each state by default.
    dropout : sequence of variables, each (batch, units), optional
        Dropout masks of the operands of all products with the recurrent kernel, drawn before the
        loop: one for all gates, or one for each gate.
    input_size : int, optional
        The last axis of the input of each gate; `units` by default.
    bfloat16 : bool
        See `TracedStep`.

    Raises
    ------
    ValueError, TypeError
        If the step uses a gate that does not exist, or does not return its states.
    """
    gates = tuple(gates)
    sizes = tuple(state_sizes or (units for _ in state_names))
    widths = tuple(input_size or units for _ in gates)
    inputs = [placeholder(f"x_{g}", n, dtype) for g, n in zip(gates, widths, strict=True)]
    states = [placeholder(*pair, dtype) for pair in zip(state_names, sizes, strict=True)]
    products: list[Product] = []

    def recur(h: Tensor, *asked: str) -> tuple[Tensor, ...]:
        asked = asked or gates
        unknown = [gate for gate in asked if gate not in gates]
        if unknown:
            raise ValueError(
                f"{name} asks recur for the gate {unknown[0]!r}, but its gates are "
                f"{', '.join(map(repr, gates))}."
            )
        if len(set(asked)) < len(asked):
            raise ValueError(f"{name} asks recur for one gate twice: {', '.join(asked)}.")
        values = [placeholder(f"recurrent_{gate}", units, dtype) for gate in asked]
        if len(dropout) > 1:
            for gate, value in zip(asked, values, strict=True):
                kept = h * drawn(dropout[gates.index(gate)])
                products.append(Product(copied(kept), (gate,), [value]))
            return tuple(values)
        operand = h * drawn(dropout[0]) if dropout else h
        # A copy is a new variable, so that its gradient can be computed.
        products.append(Product(copied(operand), tuple(asked), values))
        return tuple(values)

    new = step(tuple(inputs), tuple(states), recur)
    new = check_states(new, state_names, name)
    found, extras = without_markers([*new, *(p.operand for p in products)])
    found = in_precision(found, dtype)
    known = {*inputs, *states, *(v for p in products for v in p.values)}
    known |= {extra.placeholder for extra in extras}
    found, others = hoist(found, known, name)
    new, operands = found[: len(new)], found[len(new) :]
    products = [
        Product(operand, p.gates, p.values) for operand, p in zip(operands, products, strict=True)
    ]
    check_shapes(new, state_names, sizes, name)
    # Copies, so that a state that is returned unchanged is a new variable as well.
    new = [copied(v) for v in new]
    extras += others
    return TracedStep(
        gates, units, dtype, sizes, inputs, states, products, new, extras, widths, bfloat16
    )


def without_markers(outputs: Sequence) -> tuple[list, list[Extra]]:
    """Replace the variables of `drawn` and `each_step` in a graph by placeholders."""
    extras: dict[tuple, Extra] = {}
    replaced: dict[Variable, Variable] = {}
    for v in ancestors(outputs):
        if v.owner is None or not isinstance(op := v.owner.op, StepInput):
            continue
        (before,) = v.owner.inputs
        if (op, before) not in extras:
            placeholder = v.type(name=before.name)
            extras[op, before] = Extra(before, placeholder, op.of_each_step, op.has_gradient)
        replaced[v] = extras[op, before].placeholder
    if not replaced:
        return list(outputs), []
    return clone_replace(list(outputs), replaced), list(extras.values())


def hoist(outputs: Sequence, known: set, name: str) -> tuple[list, list[Extra]]:
    """Replace what a step computes from other variables alone by placeholders.

    `known` has the placeholders that differ from step to step. The results of float dtype that do
    not depend on them, such as weights and functions of weights, become extras of the step, and so
    do constants that are more than one number.
    """
    dependent, extras = set(known), {}

    def take(v: Variable) -> None:
        roots = list(graph_inputs([v]))
        fixed = all(isinstance(root, Constant) for root in roots)
        if v in dependent or v in extras or (fixed and all(getattr(v.type, "broadcastable", ()))):
            return
        if any(isinstance(root.type, RandomType) for root in roots):
            raise ValueError(
                f"{name} draws random numbers in its step. They would be the same at every step: "
                "use the dropout and recurrent_dropout of the layer, or draw them before the loop."
            )
        if v.owner is None or np.dtype(v.type.dtype).kind == "f":
            extras[v] = Extra(cast("Tensor", v), v.type(name=v.name), has_gradient=not fixed)
        else:
            for each in v.owner.inputs:
                take(each)

    for node in io_toposort(list(known), list(outputs)):
        if any(v in dependent for v in node.inputs):
            dependent.update(node.outputs)
            for v in node.inputs:
                take(v)
    for v in outputs:
        take(v)
    if not extras:
        return list(outputs), []
    replaced: dict[Variable, Variable] = {v: extra.placeholder for v, extra in extras.items()}
    return clone_replace(list(outputs), replaced), list(extras.values())


def placeholder(name: str, size: int, dtype: str) -> Tensor:
    """Return a variable (batch, size). A size of 1 is not static: it would be broadcastable."""
    return TensorType(dtype, (None, None if size == 1 else size))(name=name)


def check_states(new: object, state_names: Sequence[str], name: str) -> list:
    """Return the states of a step as variables, or raise an error if they are invalid."""
    wanted = f"a tuple of its {len(state_names)} new states ({', '.join(state_names)})"
    if not isinstance(new, (tuple, list)):
        raise TypeError(f"{name} must return {wanted} from its step, got {type(new).__name__}.")
    if len(new) != len(state_names):
        raise ValueError(f"{name} must return {wanted} from its step, got {len(new)}.")
    found = []
    for value, state in zip(new, state_names, strict=True):
        try:
            value = pt.as_tensor_variable(value)
        except (TypeError, ValueError, NotImplementedError):
            raise TypeError(
                f"{name} must return its new state {state!r} as a variable, got "
                f"{type(value).__name__}."
            ) from None
        if value.ndim != 2 or np.dtype(value.dtype).kind not in "fiub":
            raise ValueError(
                f"{name} must return its new state {state!r} as numbers of shape (batch, units), "
                f"got {value.ndim} axes of dtype {value.dtype}."
            )
        found.append(value)
    return found


def check_shapes(
    states: Sequence[Tensor], state_names: Sequence[str], sizes: Sequence[int], name: str
) -> None:
    """Raise ``ValueError`` if the static shape of a new state is not ``(batch, size)``."""
    for value, state, size in zip(states, state_names, sizes, strict=True):
        rows, columns = value.type.shape
        if rows == 1 or columns not in (None, size):
            raise ValueError(
                f"{name} must return its new state {state!r} in the shape (batch, {size}), got "
                f"{value.type.shape}."
            )


def in_precision(outputs: Sequence, dtype: str) -> list:
    """Return outputs of a dtype, with wider float constants of their graph rounded to it."""
    wide: dict[Variable, Variable] = {
        v: pt.constant(np.asarray(v.data, dtype=dtype))
        for v in ancestors(outputs)
        if isinstance(v, Constant)
        and isinstance(v.type, TensorType)
        and is_wide(v.type.dtype, dtype)
    }
    values: dict[Variable, Variable] = dict(wide)
    for node in io_toposort(list(wide), list(outputs)) if wide else ():
        replaced = [values.get(v, v) for v in node.inputs]
        if all(new is old for new, old in zip(replaced, node.inputs, strict=True)):
            continue
        op, kind = node.op, getattr(node.outputs[0].type, "dtype", None)
        if isinstance(op, (Sum, Prod)) and is_wide(kind, dtype):
            # A sum of wide numbers keeps their dtype as its own.
            narrow = type(op)(axis=op.axis, dtype=dtype)
            values[node.outputs[0]] = cast("Variable", narrow(*replaced))
        elif isinstance(op, Elemwise) and isinstance(op.scalar_op, Cast) and is_wide(kind, dtype):
            values[node.outputs[0]] = pt.cast(replaced[0], dtype)
        else:
            new_node = node.clone_with_new_inputs(replaced, strict=False)
            values.update(zip(node.outputs, new_node.outputs, strict=True))
    outputs = [values.get(v, v) for v in outputs]
    return [v if v.dtype == dtype else pt.cast(v, dtype) for v in outputs]


def is_wide(kind: str | None, dtype: str) -> bool:
    """Return whether a dtype is a float of more bytes than another."""
    kinds = np.dtype(kind), np.dtype(dtype)
    return kinds[0].kind == "f" and kinds[0].itemsize > kinds[1].itemsize


def rebuild(outputs: Sequence, values: dict) -> list:
    """Return a graph with some of its variables replaced.

    `values` maps variables to their replacements. Intermediate results are added to it, so that
    later calls share them.
    """
    for node in io_toposort(list(values), list(outputs)):
        if all(v in values for v in node.outputs):
            continue
        replaced = [values.get(v, v) for v in node.inputs]
        new = node.clone_with_new_inputs(replaced, strict=False)
        values.update(zip(node.outputs, new.outputs, strict=True))
    return [values.get(v, v) for v in outputs]


def run_step(
    step: TracedStep,
    x: Tensor,
    states: Sequence[Tensor],
    product: Callable,
    extras: Sequence = (),
    mask: Tensor | None = None,
) -> tuple[list, list, list]:
    """Run one step; return the new states, and the value and operand of each product.

    ``product(operand, gates)`` returns (batch, gates * units). Where the mask, (batch,) bool, is
    False, the states keep their values. `extras` are the values of `step.extras`.
    """
    values = dict(zip(step.inputs, step.split(x), strict=True))
    values |= dict(zip(step.states, states, strict=True))
    values |= dict(zip((e.placeholder for e in step.extras), extras, strict=True))
    found, operands = [], []
    for p in step.products:
        (operand,) = rebuild([p.operand], values)
        value = product(operand, p.gates)
        values |= dict(zip(p.values, step.split(value, p.gates), strict=True))
        found.append(value)
        operands.append(operand)
    new = rebuild(step.new_states, values)
    if mask is not None:
        # A switch and not a product, so that a NaN from padding does not reach the state.
        kept = zip(new, states, strict=True)
        new = [pt.switch(mask[:, None], value, old) for value, old in kept]
    return new, found, operands


def step_gradient(
    step: TracedStep,
    x: Tensor,
    old: Sequence[Tensor],
    products: Sequence[Tensor],
    d_new: Sequence[Tensor],
    recurrent_kernel: Tensor | None,
    extras: Sequence = (),
    mask: Tensor | None = None,
) -> list:
    """Return the gradients of one step, given those of its new states.

    Parameters
    ----------
    step : TracedStep
    x, old : variables
        The step's input (batch, gates * units) and the states before it (batch, units).
    products : list of variables
        The values of its products with the recurrent kernel.
    d_new : list of variables
        The gradients of the new states.
    recurrent_kernel, extras, mask
        As `run_step` and `Recurrence` take them.

    Returns
    -------
    list of variables
        The gradients of the old states, of the input, of each product, and of each
        extra that has one.
    """
    if mask is not None:
        passing = [pt.switch(mask[:, None], 0, d) for d in d_new]
        d_new = [pt.switch(mask[:, None], d, 0) for d in d_new]
    known: dict[Variable, Variable] = dict(zip(step.new_states, d_new, strict=True))
    d_products: list = [None] * len(step.products)

    def gradients(wrt: Sequence[Tensor]) -> list[Tensor]:
        found = pytensor.grad(
            None,
            wrt,
            known_grads=known,
            disconnected_inputs="ignore",
            return_disconnected="zero",
        )
        # PyTensor's gradient of a comparison is a zero of its own default dtype.
        return in_precision(cast("list[Tensor]", found), step.dtype)

    for k in reversed(range(len(step.products))):
        product = step.products[k]
        d_products[k] = join(gradients(product.values))
        kernel = step.columns(cast("Tensor", recurrent_kernel), product.gates)
        known[product.operand] = dot(d_products[k], kernel.T, step.bfloat16)
    trained = [e.placeholder for e in step.extras if e.has_gradient]
    found = gradients([*step.states, *step.inputs, *trained])
    d_old, found = found[: len(old)], found[len(old) :]
    d_x, d_extras = join(found[: len(step.inputs)]), found[len(step.inputs) :]
    values = dict(zip(step.inputs, step.split(x), strict=True))
    values |= dict(zip(step.states, old, strict=True))
    values |= dict(zip((e.placeholder for e in step.extras), extras, strict=True))
    for product, value in zip(step.products, products, strict=True):
        values |= dict(zip(product.values, step.split(value, product.gates), strict=True))
    replacements = cast("dict[Variable, Variable]", values)
    results = clone_replace([*d_old, d_x, *d_products, *d_extras], replacements)
    if mask is not None:
        for k, d in enumerate(passing):
            results[k] = results[k] + d
    return results


def copied(variable: Tensor) -> Tensor:
    """Return a copy of a variable, which is a new variable with its own gradient."""
    return cast("Tensor", pt.tensor_copy(pt.as_tensor_variable(variable)))


def join(gates: Sequence) -> Tensor:
    """Concatenate the (..., units) arrays of gates."""
    return gates[0] if len(gates) == 1 else pt.concatenate(list(gates), axis=-1)

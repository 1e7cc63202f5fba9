"""One step of a recurrence, traced once: what it computes, and its gradient.

A cell's `step` is a Python function of PyTensor variables. `trace` calls it once, on placeholders.
The scan, the unrolled loop, the gradient and the compiled kernel are all made from the graph that
comes out, so they cannot disagree about what the step is.

The mask rule is here, too: a step whose mask is False keeps every state as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.graph.basic import Constant
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import ancestors, graph_inputs, io_toposort
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.type import TensorType


@dataclass(frozen=True, eq=False)
class Product:
    """One product of a step with the recurrent kernel.

    Attributes
    ----------
    operand : variable (batch, units)
        What is multiplied.
    gates : tuple of str
        Whose columns of the recurrent kernel it is multiplied with.
    values : list of variables, each (batch, units)
        Placeholders of the result, one for each of these gates.
    """

    operand: object
    gates: tuple[str, ...]
    values: list


@dataclass(frozen=True, eq=False)
class Cell:
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
        In the order in which the step asked for them.
    new_states : list of variables, each (batch, size)
        The states after the step, of the cell's dtype.
    extras : list of variables
        Whatever else the step refers to, such as weights of its own.
    """

    gates: tuple[str, ...]
    units: int
    dtype: str
    state_sizes: tuple[int, ...]
    inputs: list
    states: list
    products: list[Product]
    new_states: list
    extras: list

    def split(self, joined, gates: Sequence[str] | None = None) -> list:
        """Cut (batch, gates * units) into one (batch, units) array for each gate."""
        count, size = len(self.gates if gates is None else gates), self.units
        if count == 1:
            return [joined]
        return [joined[:, k * size : (k + 1) * size] for k in range(count)]

    def columns(self, weight, gates: Sequence[str]):
        """Return the columns of a weight (..., gates * units) that belong to some gates."""
        if tuple(gates) == self.gates:
            return weight
        places, size = [self.gates.index(g) for g in gates], self.units
        first, last = places[0], places[-1]
        if places == list(range(first, last + 1)):
            return weight[..., first * size : (last + 1) * size]
        return join([weight[..., k * size : (k + 1) * size] for k in places])


def trace(
    step: Callable,
    gates: Sequence[str],
    state_names: Sequence[str],
    units: int,
    dtype: str,
    name: str = "The cell",
    state_sizes: Sequence[int] | None = None,
) -> Cell:
    """Call a step once on placeholders and return what it computes.

    Numbers and arrays of a wider float type than the cell's, such as the ``0.9`` of ``0.9 * h`` or
    a NumPy array of float64, are rounded to the cell's type, so that they do not widen the states.

    Parameters
    ----------
    step : callable
        ``step(x, states, recur) -> new states``; see `seqnet.layers.Recurrent.step`.
    gates, state_names : sequences of str
    units : int
    dtype : str
    name : str
        What the cell is called in messages.
    state_sizes : sequence of int, optional
        `units` for each state by default.

    Raises
    ------
    ValueError, TypeError
        If the step asks for a gate that does not exist, or does not return its states.
    """
    gates = tuple(gates)
    inputs = [pt.matrix(f"x_{gate}", dtype=dtype) for gate in gates]
    states = [pt.matrix(state, dtype=dtype) for state in state_names]
    products: list[Product] = []

    def recur(h, *asked):
        asked = asked or gates
        unknown = [gate for gate in asked if gate not in gates]
        if unknown:
            raise ValueError(
                f"{name} asks recur for the gate {unknown[0]!r}, but its gates are "
                f"{', '.join(map(repr, gates))}."
            )
        if len(set(asked)) < len(asked):
            raise ValueError(f"{name} asks recur for one gate twice: {', '.join(asked)}.")
        values = [pt.matrix(f"recurrent_{gate}", dtype=dtype) for gate in asked]
        # A variable of its own, so that its gradient can be asked for.
        products.append(Product(pt.tensor_copy(pt.as_tensor_variable(h)), tuple(asked), values))
        return tuple(values)

    new = step(tuple(inputs), tuple(states), recur)
    new = check_states(new, state_names, name)
    found = in_precision([*new, *(p.operand for p in products)], dtype)
    new, operands = found[: len(new)], found[len(new) :]
    products = [
        Product(operand, p.gates, p.values) for operand, p in zip(operands, products, strict=True)
    ]
    known = {*inputs, *states, *(v for p in products for v in p.values)}
    roots = dict.fromkeys(graph_inputs([*new, *operands]))
    extras = [v for v in roots if v not in known and not isinstance(v, Constant)]
    for extra in extras:
        if isinstance(extra.type, RandomType):
            raise ValueError(
                f"{name} draws random numbers in its step. They would be the same at every step: "
                "use the dropout and recurrent_dropout of the layer, or draw them before the loop."
            )
    # Copies, so that a state which is returned unchanged is a variable of its own, too.
    new = [pt.tensor_copy(v) for v in new]
    sizes = tuple(state_sizes or (units for _ in states))
    return Cell(gates, units, dtype, sizes, inputs, states, products, new, extras)


def check_states(new, state_names: Sequence[str], name: str) -> list:
    """Return the states that a step returned as variables, or say what is wrong with them."""
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


def in_precision(outputs: Sequence, dtype: str) -> list:
    """Return a graph with its wider float constants rounded to a dtype, and outputs of it."""
    wide = {
        v: pt.constant(np.asarray(v.data, dtype=dtype))
        for v in ancestors(outputs)
        if isinstance(v, Constant)
        and isinstance(v.type, TensorType)
        and np.dtype(v.dtype).kind == "f"
        and np.dtype(v.dtype).itemsize > np.dtype(dtype).itemsize
    }
    if wide:
        outputs = clone_replace(list(outputs), wide, rebuild_strict=False)
    return [v if v.dtype == dtype else pt.cast(v, dtype) for v in outputs]


def rebuild(outputs: Sequence, values: dict) -> list:
    """Return a graph rebuilt on other values of some of its variables.

    `values` maps variables to what takes their place; what is computed from them is added to it, so
    that later calls share it.
    """
    for node in io_toposort(list(values), list(outputs)):
        if all(v in values for v in node.outputs):
            continue
        replaced = [values.get(v, v) for v in node.inputs]
        new = node.clone_with_new_inputs(replaced, strict=False)
        values.update(zip(node.outputs, new.outputs, strict=True))
    return [values.get(v, v) for v in outputs]


def run_step(
    cell: Cell, x, states, product: Callable, extras: Sequence = (), mask=None, dropout=None
) -> tuple[list, list, list]:
    """Run one step; return the new states, and the value and operand of each product.

    ``product(operand, gates)`` gives (batch, gates * units). The mask, (batch,) bool, keeps the old
    states where it is False. `dropout`, (batch, units), multiplies the operand of every product.
    """
    values = dict(zip(cell.inputs, cell.split(x), strict=True))
    values |= dict(zip(cell.states, states, strict=True))
    values |= dict(zip(cell.extras, extras, strict=True))
    found, operands = [], []
    for p in cell.products:
        (operand,) = rebuild([p.operand], values)
        operand = operand if dropout is None else operand * dropout
        value = product(operand, p.gates)
        values |= dict(zip(p.values, cell.split(value, p.gates), strict=True))
        found.append(value)
        operands.append(operand)
    new = rebuild(cell.new_states, values)
    if mask is not None:
        # A switch and not arithmetic: a NaN computed from padding must not reach the state.
        kept = zip(new, states, strict=True)
        new = [pt.switch(mask[:, None], value, old) for value, old in kept]
    return new, found, operands


def step_gradient(
    cell: Cell, x, old, products, d_new, kernel, extras: Sequence = (), mask=None, dropout=None
) -> list:
    """Return the gradients of one step from those of its new states.

    Parameters
    ----------
    cell : Cell
    x, old : variables
        The step's input (batch, gates * units) and the states before it (batch, units).
    products : list of variables
        The values of its products with the recurrent kernel.
    d_new : list of variables
        The gradients of the new states.
    kernel, extras, mask, dropout
        As `run_step` and `Recurrence` take them.

    Returns
    -------
    list of variables
        The gradients of the old states, of the input, of each product, and of each extra.
    """
    if mask is not None:
        passing = [pt.switch(mask[:, None], 0, d) for d in d_new]
        d_new = [pt.switch(mask[:, None], d, 0) for d in d_new]
    known = dict(zip(cell.new_states, d_new, strict=True))
    d_products: list = [None] * len(cell.products)

    def gradients(wrt):
        return pytensor.grad(
            None,
            wrt,
            known_grads=known,
            disconnected_inputs="ignore",
            return_disconnected="zero",
        )

    for k in reversed(range(len(cell.products))):
        product = cell.products[k]
        d_products[k] = join(gradients(product.values))
        d_operand = pt.dot(d_products[k], cell.columns(kernel, product.gates).T)
        known[product.operand] = d_operand if dropout is None else d_operand * dropout
    found = gradients([*cell.states, *cell.inputs, *cell.extras])
    d_old, found = found[: len(old)], found[len(old) :]
    d_x, d_extras = join(found[: len(cell.inputs)]), found[len(cell.inputs) :]
    values = dict(zip(cell.inputs, cell.split(x), strict=True))
    values |= dict(zip(cell.states, old, strict=True)) | dict(zip(cell.extras, extras, strict=True))
    for product, value in zip(cell.products, products, strict=True):
        values |= dict(zip(product.values, cell.split(value, product.gates), strict=True))
    results = clone_replace([*d_old, d_x, *d_products, *d_extras], values)
    if mask is not None:
        for k, d in enumerate(passing):
            results[k] = results[k] + d
    return results


def matrix_like(variable):
    """Return a new matrix variable of another variable's dtype."""
    return pt.matrix(dtype=variable.dtype)


def join(gates: Sequence):
    """Put one (..., units) array for each gate side by side."""
    return gates[0] if len(gates) == 1 else pt.concatenate(list(gates), axis=-1)

"""What one step of a recurrence computes, and its gradient; one time, no loop.

The rule of masks is here: a step whose mask is False keeps every state as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytensor
import pytensor.tensor as pt
from pytensor.graph.replace import clone_replace


@dataclass(frozen=True, eq=False)
class Cell:
    """What one step computes.

    Attributes
    ----------
    step : callable
        ``step(x, states, recur) -> new states``; see `seqnet.layers.Recurrent.step`.
    gates : tuple of str
    units : int
    """

    step: Callable
    gates: tuple[str, ...]
    units: int

    def split(self, joined, gates: Sequence[str]) -> tuple:
        """Cut (batch, gates * units) into one (batch, units) array for each gate."""
        if len(gates) == 1:
            return (joined,)
        size = self.units
        return tuple(joined[:, k * size : (k + 1) * size] for k in range(len(gates)))

    def columns(self, weight, gates: Sequence[str]):
        """Return the columns of a weight (..., gates * units) that belong to some gates."""
        if tuple(gates) == self.gates:
            return weight
        first, last = (self.gates.index(g) for g in (gates[0], gates[-1]))
        return weight[..., first * self.units : (last + 1) * self.units]


@dataclass
class Product:
    """One product with the recurrent kernel that a step asked for."""

    operand: object
    gates: tuple[str, ...]
    value: object


def run_step(cell: Cell, x, states, product: Callable, extras: dict, mask=None, dropout=None):
    """Run one step; return the new states and the products it asked for.

    `product(operand, gates)` gives (batch, gates * units). `extras` replaces shared variables the
    step refers to. The mask, (batch,) bool, keeps the old states where it is False. `dropout`,
    (batch, units), multiplies the operand of every product.
    """
    products: list[Product] = []

    def recur(h, *gates):
        gates = gates or cell.gates
        operand = operand_of(h, dropout)
        value = product(operand, gates)
        products.append(Product(operand, gates, value))
        return cell.split(value, gates)

    new = list(cell.step(cell.split(x, cell.gates), tuple(states), recur))
    if extras:
        found = [*new, *(p.operand for p in products), *(p.value for p in products)]
        found = clone_replace(found, extras)
        new, rest = found[: len(new)], found[len(new) :]
        for p, operand, value in zip(
            products, rest[: len(products)], rest[len(products) :], strict=True
        ):
            p.operand, p.value = operand, value
    if mask is not None:
        # A switch and not arithmetic: a NaN computed from padding must not reach the state.
        kept = zip(new, states, strict=True)
        new = [pt.switch(mask[:, None], value, old) for value, old in kept]
    return new, products


def operand_of(h, dropout=None):
    """Return what is multiplied for `h`: a variable of its own, whose gradient can be asked for."""
    return pt.tensor_copy(h if dropout is None else h * dropout)


def step_gradient(
    cell: Cell, x, old, kept, d_new, kernel, extras: dict, mask=None, dropout=None
) -> list:
    """Return the gradients of one step from those of its new states.

    Parameters
    ----------
    cell : Cell
    x, old : variables
        The step's input (batch, gates * units) and the states before it (batch, units).
    kept : list of variables
        The values of its products with the recurrent kernel, in the order it asked for them.
    d_new : list of variables
        The gradients of the new states.
    kernel, extras, mask, dropout
        As `run_step` takes them.

    Returns
    -------
    list of variables
        The gradients of the old states, of the input, of each product, and of each extra.
    """
    if mask is not None:
        passing = [pt.switch(mask[:, None], 0, d) for d in d_new]
        d_new = [pt.switch(mask[:, None], d, 0) for d in d_new]
    gate_inputs = [matrix_like(x) for _ in cell.gates]
    products: list[Product] = []
    parts: list[list] = []
    remaining = list(kept)

    def recur(h, *gates):
        gates = gates or cell.gates
        operand = operand_of(h, dropout)
        values = [matrix_like(x) for _ in gates]
        parts.append(values)
        products.append(Product(operand, gates, remaining.pop(0)))
        return tuple(values)

    states = [matrix_like(s) for s in old]
    new = [pt.tensor_copy(s) for s in cell.step(tuple(gate_inputs), tuple(states), recur)]
    known = dict(zip(new, d_new, strict=True))
    d_products: list = [None] * len(products)

    def gradients(wrt):
        return pytensor.grad(
            None,
            wrt,
            known_grads=known,
            disconnected_inputs="ignore",
            return_disconnected="zero",
        )

    for k in reversed(range(len(products))):
        d_products[k] = join(gradients(parts[k]))
        columns = cell.columns(kernel, products[k].gates)
        known[products[k].operand] = pt.dot(d_products[k], columns.T)
    extra_shared = list(extras)
    found = gradients([*gate_inputs, *states, *extra_shared])
    d_x = join(found[: len(gate_inputs)])
    d_old = found[len(gate_inputs) : len(gate_inputs) + len(states)]
    d_extras = found[len(gate_inputs) + len(states) :]
    values = dict(zip(gate_inputs, cell.split(x, cell.gates), strict=True))
    values |= dict(zip(states, old, strict=True)) | extras
    for product, names in zip(products, parts, strict=True):
        values |= dict(zip(names, cell.split(product.value, product.gates), strict=True))
    results = clone_replace([*d_old, d_x, *d_products, *d_extras], values)
    if mask is not None:
        for k, d in enumerate(passing):
            results[k] = results[k] + d
    return results


def matrix_like(variable):
    """Return a new matrix variable of another variable's dtype."""
    return pt.matrix(dtype=variable.dtype)


def join(gates: Sequence):
    """Put one (batch, units) array for each gate side by side."""
    return gates[0] if len(gates) == 1 else pt.concatenate(list(gates), axis=1)

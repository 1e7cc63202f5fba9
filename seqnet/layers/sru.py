"""The simple recurrent unit, with its highway connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytensor.tensor as pt

from seqnet import constraints, initializers, regularizers
from seqnet.common.checks import check_bool, check_number
from seqnet.common.types import Array, Shape, Tensor
from seqnet.layers.cell import Cell, Drawn
from seqnet.layers.recurrent import Recurrent
from seqnet.registry import Identifier, register


@register("layer")
class SRUCell(Cell):
    """The simple recurrent unit::

        f = sigmoid(x W_f + v_f c + b_f)           forget gate
        r = sigmoid(x W_r + v_r c + b_r)           reset gate
        c' = f c + (1 - f) x W_c                   cell
        h' = r c' + (1 - r) s x                    output, with a highway connection

    If x has another size than `units`, the highway connection takes ``x W_x`` for x. With
    `rescale`, ``s = sqrt(1 + 2 exp(highway_bias))``, which keeps the variance of x through many
    layers; otherwise ``s = 1``. The gates see the cell one unit at a time, so all matrix products
    are computed before the loop over time. Weights: `kernel` W (features, 3 units) in the order
    f, r, c, or (features, 4 units) with W_x; `recurrent_kernel` (2, units), the rows v_f and v_r;
    `bias` (2 units,), b_f and b_r. Source: Lei, Zhang, Wang, Dai and Artzi, "Simple recurrent units
    for highly parallelizable recurrence" (2018), arXiv 1709.02755.

    Parameters
    ----------
    units : int
    highway_bias : float
        The first value of b_r.
    rescale : bool
    activation : str or callable, optional
        Of the cell in the equation of ``h'``; none by default, as in the paper.
    recurrent_initializer, recurrent_regularizer, recurrent_constraint
        Of v_f and v_r; by default they start as `seqnet.initializers.GlorotUniform` does.
    **kwargs
        See `Cell`; `dropout` leaves the highway connection as it is, and `recurrent_dropout` is an
        error, because there is no recurrent product.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> cell = seqnet.layers.SRUCell(4)
    >>> output, states = cell(np.zeros((2, 4)), cell.get_initial_state(2))
    >>> output.shape, cell.kernel.get_value().shape
    ((2, 4), (4, 12))
    """

    gates = ("f", "r", "c", "x")
    state_names = ("h", "c")
    uses_recur = False

    def __init__(
        self,
        units: int,
        *,
        highway_bias: float = 0.0,
        rescale: bool = True,
        activation: Identifier | None = None,
        recurrent_initializer: Identifier = "glorot_uniform",
        recurrent_regularizer: Identifier | None = None,
        recurrent_constraint: Identifier | None = None,
        **kwargs: Any,
    ):
        super().__init__(units, activation=activation, **kwargs)
        self.highway_bias = check_number(highway_bias, "highway_bias")
        self.rescale = check_bool(rescale, "rescale")
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self.recurrent_constraint = constraints.get(recurrent_constraint)

    def kernel_columns(self, features: int) -> int:
        self.highway_of_input = features == self.units
        return (3 if self.highway_of_input else 4) * self.units

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.add_recurrent_kernel((2, self.units))

    def build_bias(self, columns: int) -> None:
        super().build_bias(2 * self.units)

    def initial_bias(self, shape: tuple[int, ...]) -> Array:
        bias = super().initial_bias(shape).copy()
        bias[self.units :] += np.asarray(self.highway_bias, bias.dtype)
        return bias

    def input_bias(self) -> Tensor | None:
        if self.bias is None:
            return None
        others = self.kernel.shape[1] - 2 * self.units
        return pt.concatenate([self.bias, pt.zeros((others,), dtype=self.dtype)])

    def project(self, inputs: Tensor, drawn: Drawn) -> Tensor:
        projected = super().project(inputs, drawn)
        if not self.highway_of_input:
            return projected
        return pt.concatenate([projected, pt.cast(inputs, self.dtype)], axis=-1)

    def step(
        self,
        x: tuple[Tensor, ...],
        states: tuple[Tensor, ...],
        recur: Callable[..., tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        (x_f, x_r, x_c, highway), (_, c) = x, states
        peepholes = cast(Tensor, self.recurrent_kernel)
        f = pt.sigmoid(x_f + peepholes[0] * c)
        r = pt.sigmoid(x_r + peepholes[1] * c)
        c = x_c + f * (c - x_c)
        scale = float(np.sqrt(1 + 2 * np.exp(self.highway_bias))) if self.rescale else 1.0
        highway = scale * highway
        return highway + r * (self.activation(c) - highway), c


@register("layer")
class SRU(Recurrent, SRUCell):  # type: ignore[misc]  # it is called on sequences
    """The cell `SRUCell` applied along time, with its equations and weights.

    Input ``(batch, time, features)``; output ``(batch, units)``, the last step's, or
    ``(batch, time, units)`` with `return_sequences`.

    Parameters
    ----------
    units : int
        Size of the states and of the output.
    **kwargs
        The arguments of `SRUCell` and `Cell` for the step, and those of `RNN` for the loop.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.SRU(4, return_sequences=True), seqnet.layers.SRU(4)])
    >>> model.predict(np.zeros((2, 3, 5), "float32"), verbose=0).shape
    (2, 4)
    """

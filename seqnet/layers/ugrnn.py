"""The update gate recurrent network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seqnet import activations
from seqnet.common.checks import check_bool
from seqnet.common.types import Array, Tensor
from seqnet.layers.cell import Cell
from seqnet.layers.recurrent import Recurrent
from seqnet.registry import Identifier, register


@register("layer")
class UGRNNCell(Cell):
    """The update gate RNN, gates g, c::

        g = recurrent_activation(x W_g + h U_g + b_g)      update gate
        c = activation(x W_c + h U_c + b_c)                candidate
        h' = g h + (1 - g) c

    Weights: `kernel` W (features, 2 units), `recurrent_kernel` U (units, 2 units), `bias`
    (2 units,). Source: Collins, Sohl-Dickstein and Sussillo, "Capacity and trainability in
    recurrent neural networks" (2016), arXiv 1611.09913.

    Parameters
    ----------
    units : int
    recurrent_activation : str or callable
        Of the gate, by default sigmoid.
    unit_forget_bias : bool
        Start the bias of the gate at one, so that the state is mostly kept at first.
    **kwargs
        See `Cell`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> cell = seqnet.layers.UGRNNCell(4)
    >>> output, states = cell(np.zeros((2, 5)), cell.get_initial_state(2))
    >>> output.shape, len(states)
    ((2, 4), 1)
    """

    gates = ("g", "c")
    state_names = ("h",)

    def __init__(
        self,
        units: int,
        *,
        recurrent_activation: Identifier | None = "sigmoid",
        unit_forget_bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(units, **kwargs)
        self.recurrent_activation = activations.get(recurrent_activation)
        self.unit_forget_bias = check_bool(unit_forget_bias, "unit_forget_bias")

    def initial_bias(self, shape: tuple[int, ...]) -> Array:
        bias = super().initial_bias(shape).copy()
        if self.unit_forget_bias:
            bias[: self.units] = 1
        return bias

    def step(
        self,
        x: tuple[Tensor, ...],
        states: tuple[Tensor, ...],
        recur: Callable[..., tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        (x_g, x_c), (h,) = x, states
        r_g, r_c = recur(h)
        g = self.recurrent_activation(x_g + r_g)
        return (g * h + (1 - g) * self.activation(x_c + r_c),)


@register("layer")
class UGRNN(Recurrent, UGRNNCell):  # type: ignore[misc]  # it is called on sequences
    """The cell `UGRNNCell` applied along time, with its equations and weights.

    Input ``(batch, time, features)``; output ``(batch, units)``, the last step's, or
    ``(batch, time, units)`` with `return_sequences`.

    Parameters
    ----------
    units : int
        Size of the state and of the output.
    **kwargs
        The arguments of `UGRNNCell` and `Cell` for the step, and those of `RNN` for the loop.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.UGRNN(4)])
    >>> model.predict(np.zeros((2, 3, 5), "float32"), verbose=0).shape
    (2, 4)
    """

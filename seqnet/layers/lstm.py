"""Long short-term memory with a forget gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seqnet import activations
from seqnet.checks import check_bool
from seqnet.layers.cell import Cell
from seqnet.layers.recurrent import Recurrent
from seqnet.registry import Identifier, register
from seqnet.types import Array, Tensor


@register("layer")
class LSTMCell(Cell):
    """Long short-term memory, gates in Keras's order i, f, c, o::

        i = recurrent_activation(x W_i + h U_i + b_i)        input gate
        f = recurrent_activation(x W_f + h U_f + b_f)        forget gate
        g = activation(x W_c + h U_c + b_c)                  candidate
        o = recurrent_activation(x W_o + h U_o + b_o)        output gate
        c' = f c + i g                                       cell
        h' = o activation(c')                                output

    Weights: `kernel` W (features, 4 units), `recurrent_kernel` U (units, 4 units), `bias`
    (4 units,). Sources: Hochreiter and Schmidhuber (1997); the forget gate of Gers, Schmidhuber
    and Cummins (2000); no peepholes.

    Parameters
    ----------
    units : int
    recurrent_activation : str or callable
        Of the three gates, by default sigmoid.
    unit_forget_bias : bool
        Start the forget gate's bias at one (Jozefowicz et al., 2015).
    **kwargs
        See `Cell`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> cell = seqnet.layers.LSTMCell(4)
    >>> output, states = cell(np.zeros((2, 5)), cell.get_initial_state(2))
    >>> output.shape, len(states)
    ((2, 4), 2)
    """

    gates = ("i", "f", "c", "o")
    state_names = ("h", "c")

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
            bias[self.units : 2 * self.units] = 1
        return bias

    def step(
        self,
        x: tuple[Tensor, ...],
        states: tuple[Tensor, ...],
        recur: Callable[..., tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        h, c = states
        i, f, g, o = (x_k + r_k for x_k, r_k in zip(x, recur(h), strict=True))
        i, f, o = (self.recurrent_activation(gate) for gate in (i, f, o))
        c = f * c + i * self.activation(g)
        return o * self.activation(c), c


@register("layer")
class LSTM(Recurrent, LSTMCell):  # type: ignore[misc]  # it is called on sequences
    """The cell `LSTMCell` applied along time, with its equations and weights.

    Input ``(batch, time, features)``; output ``(batch, units)``, the last step's, or
    ``(batch, time, units)`` with `return_sequences`.

    Parameters
    ----------
    units : int
        Size of the state and of the output.
    **kwargs
        The arguments of `LSTMCell` and `Cell` for the step, and those of `RNN` for the loop.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.LSTM(4)])
    >>> model.predict(np.zeros((2, 3, 5), "float32"), verbose=0).shape
    (2, 4)
    """

"""The plain recurrent cell of Elman (1990)."""

from __future__ import annotations

from collections.abc import Callable

from seqnet.common.types import Tensor
from seqnet.layers.cell import Cell
from seqnet.layers.recurrent import Recurrent
from seqnet.registry import register


@register("layer")
class SimpleRNNCell(Cell):
    """Elman's recurrent layer: ``h' = activation(x kernel + h recurrent_kernel + bias)``.

    Weights: `kernel` (features, units), `recurrent_kernel` (units, units), `bias` (units,). For
    the arguments see `Cell`. Source: Elman, "Finding structure in time" (1990).

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> cell = seqnet.layers.SimpleRNNCell(4)
    >>> output, states = cell(np.zeros((2, 5)), cell.get_initial_state(2))
    >>> output.shape, len(states)
    ((2, 4), 1)
    """

    gates = ("h",)
    state_names = ("h",)

    def step(
        self,
        x: tuple[Tensor, ...],
        states: tuple[Tensor, ...],
        recur: Callable[..., tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        (x_h,), (h,) = x, states
        (r_h,) = recur(h)
        return (self.activation(x_h + r_h),)


@register("layer")
class SimpleRNN(Recurrent, SimpleRNNCell):  # type: ignore[misc]  # it is called on sequences
    """The cell `SimpleRNNCell` applied along time, with its equations and weights.

    Input ``(batch, time, features)``; output ``(batch, units)``, the last step's, or
    ``(batch, time, units)`` with `return_sequences`.

    Parameters
    ----------
    units : int
        Size of the state and of the output.
    **kwargs
        The arguments of `SimpleRNNCell` and `Cell` for the step, and those of `RNN` for the loop.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.SimpleRNN(4, return_sequences=True)])
    >>> model.predict(np.zeros((2, 3, 5), "float32"), verbose=0).shape
    (2, 3, 4)
    """

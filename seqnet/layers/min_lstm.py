"""The minimal LSTM whose gates do not depend on the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytensor.tensor as pt

from seqnet.common.types import Tensor
from seqnet.layers.cell import Cell
from seqnet.layers.recurrent import Recurrent
from seqnet.registry import Identifier, register


@register("layer")
class MinLSTMCell(Cell):
    """The minLSTM, gates f, i, h::

        f = sigmoid(x W_f + b_f)                   forget gate
        i = sigmoid(x W_i + b_i)                   input gate
        n = activation(x W_h + b_h)                candidate
        h' = f / (f + i) h + i / (f + i) n

    Neither gates nor candidate depend on the state, so all matrix products are computed before the
    loop over time. The ratio is computed from logarithms, ``f / (f + i) = sigmoid(log f - log i)``,
    so that it is defined where both gates round to 0. Weights: `kernel` W (features, 3 units),
    `bias` (3 units,). Source: Feng, Tung, Ahmed, Bengio and Hajimirsadeghi, "Were RNNs all we
    needed?" (2024), arXiv 2410.01201, section 3.2 and appendix on log-space.

    Parameters
    ----------
    units : int
    activation : str or callable, optional
        Of the candidate; none by default, as in the paper.
    **kwargs
        See `Cell`; those for a recurrent kernel, which this cell does not have, are errors.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> cell = seqnet.layers.MinLSTMCell(4)
    >>> output, states = cell(np.zeros((2, 5)), cell.get_initial_state(2))
    >>> output.shape, len(states)
    ((2, 4), 1)
    """

    gates = ("f", "i", "h")
    state_names = ("h",)
    uses_recur = False

    def __init__(self, units: int, *, activation: Identifier | None = None, **kwargs: Any):
        super().__init__(units, activation=activation, **kwargs)

    def step(
        self,
        x: tuple[Tensor, ...],
        states: tuple[Tensor, ...],
        recur: Callable[..., tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        (x_f, x_i, x_h), (h,) = x, states
        # log sigmoid(v) = -softplus(-v)
        share = pt.sigmoid(pt.softplus(-x_f) - pt.softplus(-x_i))  # i / (f + i)
        return (h + share * (self.activation(x_h) - h),)


@register("layer")
class MinLSTM(Recurrent, MinLSTMCell):  # type: ignore[misc]  # it is called on sequences
    """The cell `MinLSTMCell` applied along time, with its equations and weights.

    Input ``(batch, time, features)``; output ``(batch, units)``, the last step's, or
    ``(batch, time, units)`` with `return_sequences`.

    Parameters
    ----------
    units : int
        Size of the state and of the output.
    **kwargs
        The arguments of `MinLSTMCell` and `Cell` for the step, and those of `RNN` for the loop.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.MinLSTM(4)])
    >>> model.predict(np.zeros((2, 3, 5), "float32"), verbose=0).shape
    (2, 4)
    """

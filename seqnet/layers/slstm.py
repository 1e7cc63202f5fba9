"""The LSTM with exponential gates and a normaliser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytensor.tensor as pt

from seqnet.common.types import Tensor
from seqnet.layers.cell import Cell
from seqnet.layers.recurrent import Recurrent
from seqnet.registry import register


@register("layer")
class SLSTMCell(Cell):
    """The sLSTM, gates i, f, z, o, where each gate's sum is ``x W + h U + b``::

        z = activation(z sum)                      candidate
        o = sigmoid(o sum)                         output gate
        log i = i sum                              input gate
        log f = log sigmoid(f sum)                 forget gate
        m' = max(log f + m, log i)                 stabiliser
        i = exp(log i - m')
        f = exp(log f + m - m')
        c' = f c + i z                             cell
        n' = f n + i                               normaliser
        h' = o c' / n'                             output

    The input gate is exponential. The stabiliser scales cell and normaliser by the same number, so
    that no exponential overflows, and h' is as without it. Where nothing has been stored yet
    (``n = 0``), ``m' = log i``. Weights: `kernel` W (features, 4 units), `recurrent_kernel` U
    (units, 4 units), `bias` (4 units,). Source: Beck et al., "xLSTM: extended long short-term
    memory" (2024), arXiv 2405.04517, section 2.2, with the sigmoid as forget gate, one head and
    neither convolution nor normalisation around it.

    Parameters
    ----------
    units : int
    **kwargs
        See `Cell`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> cell = seqnet.layers.SLSTMCell(4)
    >>> output, states = cell(np.zeros((2, 5)), cell.get_initial_state(2))
    >>> output.shape, len(states)
    ((2, 4), 4)
    """

    gates = ("i", "f", "z", "o")
    state_names = ("h", "c", "n", "m")

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(units, **kwargs)

    def step(
        self,
        x: tuple[Tensor, ...],
        states: tuple[Tensor, ...],
        recur: Callable[..., tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        h, c, n, m = states
        log_i, x_f, x_z, x_o = (a + b for a, b in zip(x, recur(h), strict=True))
        # log sigmoid(v) = -softplus(-v). Where n is 0, so is c, and f may be any finite number.
        kept = pt.switch(pt.eq(n, 0), log_i, m - pt.softplus(-x_f))
        m = pt.maximum(kept, log_i)
        i, f = pt.exp(log_i - m), pt.exp(kept - m)
        c, n = f * c + i * self.activation(x_z), f * n + i
        return pt.sigmoid(x_o) * c / n, c, n, m


@register("layer")
class SLSTM(Recurrent, SLSTMCell):  # type: ignore[misc]  # it is called on sequences
    """The cell `SLSTMCell` applied along time, with its equations and weights.

    Input ``(batch, time, features)``; output ``(batch, units)``, the last step's, or
    ``(batch, time, units)`` with `return_sequences`.

    Parameters
    ----------
    units : int
        Size of the states and of the output.
    **kwargs
        The arguments of `SLSTMCell` and `Cell` for the step, and those of `RNN` for the loop.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.SLSTM(4)])
    >>> model.predict(np.zeros((2, 3, 5), "float32"), verbose=0).shape
    (2, 4)
    """

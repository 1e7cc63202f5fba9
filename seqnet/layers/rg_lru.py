"""The real-gated linear recurrent unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet.common.checks import check_number
from seqnet.common.types import Array, Shape, Tensor
from seqnet.layers.cell import Cell
from seqnet.layers.recurrent import Recurrent
from seqnet.registry import Identifier, register


@register("layer")
class RGLRUCell(Cell):
    """The real-gated linear recurrent unit, a diagonal linear recurrence; gates r, i, u::

        r = sigmoid(x W_r + b_r)                   recurrence gate
        i = sigmoid(x W_i + b_i)                   input gate
        u = activation(x W_u + b_u)                input
        a = sigmoid(L) ** (exponent r)             decay
        h' = a h + sqrt(1 - a ** 2) (i u)

    The state is multiplied by a number for each unit, so all matrix products are computed before
    the loop over time. The factor ``sqrt(1 - a ** 2)`` keeps the variance of the state. The first
    value of the weight L is such that ``sigmoid(L) ** exponent`` is spread evenly from `min_decay`
    to `max_decay` over the units. Weights: `kernel` W (features, 3 units), `bias` (3 units,),
    `decay_logit` L (units,). Source: De et al., "Griffin: mixing gated linear recurrences with
    local attention for efficient language models" (2024), arXiv 2402.19427, section 2.4. There,
    the linear map W_u and a convolution come before the unit.

    Parameters
    ----------
    units : int
    exponent : float
        The constant c of the paper.
    min_decay, max_decay : float
        Between 0 and 1: the decay of one step where the recurrence gate is fully open.
    activation : str or callable, optional
        Of the input; none by default, as in the paper.
    **kwargs
        See `Cell`; those for a recurrent kernel, which this cell does not have, are errors.

    Notes
    -----
    ``1 - a ** 2`` is computed as ``-expm1(2 log a)``, which is exact for decays near 1. For its
    gradient it is at least 1e-12.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> cell = seqnet.layers.RGLRUCell(4)
    >>> output, states = cell(np.zeros((2, 5)), cell.get_initial_state(2))
    >>> output.shape, len(states)
    ((2, 4), 1)
    """

    gates = ("r", "i", "u")
    state_names = ("h",)
    uses_recur = False

    def __init__(
        self,
        units: int,
        *,
        exponent: float = 8.0,
        min_decay: float = 0.9,
        max_decay: float = 0.999,
        activation: Identifier | None = None,
        **kwargs: Any,
    ):
        super().__init__(units, activation=activation, **kwargs)
        self.exponent = check_number(exponent, "exponent")
        self.min_decay = check_number(min_decay, "min_decay")
        self.max_decay = check_number(max_decay, "max_decay")
        if not 0 < self.exponent < np.inf:
            raise ValueError(f"exponent must be above 0 and finite, got {exponent}.")
        if not 0 < self.min_decay <= self.max_decay < 1:
            raise ValueError(
                "min_decay and max_decay must be above 0 and below 1, and the first one at most "
                f"the second one, got {min_decay} and {max_decay}."
            )

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.decay_logit = self.add_weight(
            "decay_logit", (self.units,), lambda shape, dtype: self.initial_logits()
        )

    def initial_logits(self) -> Array:
        """Return the first value of L."""
        decay = np.linspace(self.min_decay, self.max_decay, self.units) ** (1 / self.exponent)
        return (np.log(decay) - np.log1p(-decay)).astype(self.dtype)

    def step(
        self,
        x: tuple[Tensor, ...],
        states: tuple[Tensor, ...],
        recur: Callable[..., tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        (x_r, x_i, x_u), (h,) = x, states
        log_a = -self.exponent * pt.softplus(-self.decay_logit) * pt.sigmoid(x_r)
        kept = pt.sqrt(pt.maximum(-pt.expm1(2 * log_a), 1e-12))
        return (pt.exp(log_a) * h + kept * (pt.sigmoid(x_i) * self.activation(x_u)),)


@register("layer")
class RGLRU(Recurrent, RGLRUCell):  # type: ignore[misc]  # it is called on sequences
    """The cell `RGLRUCell` applied along time, with its equations and weights.

    Input ``(batch, time, features)``; output ``(batch, units)``, the last step's, or
    ``(batch, time, units)`` with `return_sequences`.

    Parameters
    ----------
    units : int
        Size of the state and of the output.
    **kwargs
        The arguments of `RGLRUCell` and `Cell` for the step, and those of `RNN` for the loop.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.RGLRU(4)])
    >>> model.predict(np.zeros((2, 3, 5), "float32"), verbose=0).shape
    (2, 4)
    """

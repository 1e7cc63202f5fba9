"""The minimal gated recurrent unit whose gate does not depend on the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seqnet import activations
from seqnet.common.types import Tensor
from seqnet.layers.cell import Cell
from seqnet.layers.recurrent import Recurrent
from seqnet.registry import Identifier, register


@register("layer")
class MinGRUCell(Cell):
    """The minGRU, gates z, h::

        z = recurrent_activation(x W_z + b_z)      update gate
        n = activation(x W_h + b_h)                candidate
        h' = (1 - z) h + z n

    Neither gate nor candidate depends on the state, so all matrix products are computed before the
    loop over time. Weights: `kernel` W (features, 2 units), `bias` (2 units,). Source: Feng, Tung,
    Ahmed, Bengio and Hajimirsadeghi, "Were RNNs all we needed?" (2024), arXiv 2410.01201,
    section 3.1.

    Parameters
    ----------
    units : int
    activation : str or callable, optional
        Of the candidate; none by default, as in the paper.
    recurrent_activation : str or callable
        Of the gate, by default sigmoid.
    **kwargs
        See `Cell`; those for a recurrent kernel, which this cell does not have, are errors.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> cell = seqnet.layers.MinGRUCell(4)
    >>> output, states = cell(np.zeros((2, 5)), cell.get_initial_state(2))
    >>> output.shape, len(states)
    ((2, 4), 1)
    """

    gates = ("z", "h")
    state_names = ("h",)
    uses_recur = False

    def __init__(
        self,
        units: int,
        *,
        activation: Identifier | None = None,
        recurrent_activation: Identifier | None = "sigmoid",
        **kwargs: Any,
    ):
        super().__init__(units, activation=activation, **kwargs)
        self.recurrent_activation = activations.get(recurrent_activation)

    def step(
        self,
        x: tuple[Tensor, ...],
        states: tuple[Tensor, ...],
        recur: Callable[..., tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        (x_z, x_h), (h,) = x, states
        z = self.recurrent_activation(x_z)
        return (h + z * (self.activation(x_h) - h),)


@register("layer")
class MinGRU(Recurrent, MinGRUCell):  # type: ignore[misc]  # it is called on sequences
    """The cell `MinGRUCell` applied along time, with its equations and weights.

    Input ``(batch, time, features)``; output ``(batch, units)``, the last step's, or
    ``(batch, time, units)`` with `return_sequences`.

    Parameters
    ----------
    units : int
        Size of the state and of the output.
    **kwargs
        The arguments of `MinGRUCell` and `Cell` for the step, and those of `RNN` for the loop.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.MinGRU(4)])
    >>> model.predict(np.zeros((2, 3, 5), "float32"), verbose=0).shape
    (2, 4)
    """

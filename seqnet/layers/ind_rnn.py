"""The independently recurrent network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seqnet import constraints, initializers, regularizers
from seqnet.common.types import Shape, Tensor
from seqnet.layers.cell import Cell
from seqnet.layers.recurrent import Recurrent
from seqnet.registry import Identifier, register


@register("layer")
class IndRNNCell(Cell):
    """The independently recurrent network: ``h' = activation(x W + u h + b)``.

    Each unit sees its own state only. The loop over time has no matrix product, and layers are
    meant to be stacked. Weights: `kernel` W (features, units), `recurrent_kernel` u (units,),
    `bias` (units,). Source: Li, Li, Cook, Zhu and Gao, "Independently recurrent neural network
    (IndRNN): building a longer and deeper RNN" (2018), arXiv 1803.04831.

    Parameters
    ----------
    units : int
    activation : str or callable
        By default relu, as in the paper.
    recurrent_initializer, recurrent_regularizer, recurrent_constraint
        Of u. By default it starts uniform from 0 to 1. The paper bounds the absolute value of u to
        ``2 ** (1 / steps)`` for sequences of some number of steps, so that relu does not let
        states grow: pass a constraint for it.
    **kwargs
        See `Cell`; `recurrent_dropout` is an error, because there is no recurrent product.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> cell = seqnet.layers.IndRNNCell(4)
    >>> output, states = cell(np.zeros((2, 5)), cell.get_initial_state(2))
    >>> output.shape, len(states)
    ((2, 4), 1)
    """

    gates = ("h",)
    state_names = ("h",)
    uses_recur = False

    def __init__(
        self,
        units: int,
        *,
        activation: Identifier | None = "relu",
        recurrent_initializer: Identifier | None = None,
        recurrent_regularizer: Identifier | None = None,
        recurrent_constraint: Identifier | None = None,
        **kwargs: Any,
    ):
        super().__init__(units, activation=activation, **kwargs)
        self.recurrent_initializer = (
            initializers.RandomUniform(0.0, 1.0)
            if recurrent_initializer is None
            else initializers.get(recurrent_initializer)
        )
        self.recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self.recurrent_constraint = constraints.get(recurrent_constraint)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.add_recurrent_kernel((self.units,))

    def step(
        self,
        x: tuple[Tensor, ...],
        states: tuple[Tensor, ...],
        recur: Callable[..., tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        (x_h,), (h,) = x, states
        return (self.activation(x_h + self.recurrent_kernel * h),)


@register("layer")
class IndRNN(Recurrent, IndRNNCell):  # type: ignore[misc]  # it is called on sequences
    """The cell `IndRNNCell` applied along time, with its equations and weights.

    Input ``(batch, time, features)``; output ``(batch, units)``, the last step's, or
    ``(batch, time, units)`` with `return_sequences`.

    Parameters
    ----------
    units : int
        Size of the state and of the output.
    **kwargs
        The arguments of `IndRNNCell` and `Cell` for the step, and those of `RNN` for the loop.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.IndRNN(4)])
    >>> model.predict(np.zeros((2, 3, 5), "float32"), verbose=0).shape
    (2, 4)
    """

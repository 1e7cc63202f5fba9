"""The gated recurrent unit, with the reset gate before or after the recurrent product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seqnet import activations
from seqnet.common.checks import check_bool
from seqnet.common.types import Tensor
from seqnet.layers.cell import Cell
from seqnet.layers.recurrent import Recurrent
from seqnet.registry import Identifier, register


@register("layer")
class GRUCell(Cell):
    """Gated recurrent unit, gates in Keras's order z, r, h::

        z = recurrent_activation(x W_z + h U_z + b_z)        update gate
        r = recurrent_activation(x W_r + h U_r + b_r)        reset gate
        n = activation(x W_h + b_h + r (h U_h + c_h))        candidate, reset_after=True
        n = activation(x W_h + b_h + (r h) U_h)              candidate, reset_after=False
        h' = z h + (1 - z) n

    Weights: `kernel` (features, 3 units), `recurrent_kernel` (units, 3 units), `bias` (2, 3 units)
    with `reset_after` (one for the input, one for the recurrent product) and (3 units,) without.
    Sources: Cho et al. (2014) apply the reset gate before the product; cuDNN, PyTorch and Keras 3
    after it.

    Parameters
    ----------
    units : int
    recurrent_activation : str or callable
        Of the two gates, by default sigmoid.
    reset_after : bool
        Apply the reset gate after the recurrent product (the default of Keras 3).
    layer_normalization : bool
        Normalise the products with the input and with the state over the units of the two gates,
        and of the candidate,
        ``gain (x - mean) / sqrt(variance + 0.001)``, before they and the bias are added.
        Weights: `input_gain` and `recurrent_gain` (3 units,). Source: Ba, Kiros and
        Hinton, "Layer normalization" (2016).
    **kwargs
        See `Cell`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> cell = seqnet.layers.GRUCell(4)
    >>> output, states = cell(np.zeros((2, 5)), cell.get_initial_state(2))
    >>> output.shape, len(states)
    ((2, 4), 1)
    """

    gates = ("z", "r", "h")
    state_names = ("h",)

    def __init__(
        self,
        units: int,
        *,
        recurrent_activation: Identifier | None = "sigmoid",
        reset_after: bool = True,
        layer_normalization: bool = False,
        **kwargs: Any,
    ):
        super().__init__(units, **kwargs)
        self.recurrent_activation = activations.get(recurrent_activation)
        self.reset_after = check_bool(reset_after, "reset_after")
        self.layer_normalization = check_bool(layer_normalization, "layer_normalization")

    @property
    def normalized_gates(self) -> tuple[tuple[str, ...], ...]:
        return (("z", "r"), ("h",))

    def build_bias(self, columns: int) -> None:
        self.bias = self.add_weight(
            "bias",
            (2, columns) if self.reset_after else (columns,),
            lambda shape, dtype: self.initial_bias(shape),
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
        )
        if self.reset_after:
            self.recurrent_bias = self.bias[1]

    def input_bias(self) -> Tensor | None:
        return self.bias[0] if self.bias is not None and self.reset_after else self.bias

    def step(
        self,
        x: tuple[Tensor, ...],
        states: tuple[Tensor, ...],
        recur: Callable[..., tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        x_z, x_r, x_h = x
        (h,) = states
        if self.reset_after:
            r_z, r_r, r_h = recur(h)
        else:
            r_z, r_r = recur(h, "z", "r")
        z = self.recurrent_activation(x_z + r_z)
        r = self.recurrent_activation(x_r + r_r)
        if not self.reset_after:
            (r_h,) = recur(r * h, "h")
            candidate = self.activation(x_h + r_h)
        else:
            candidate = self.activation(x_h + r * r_h)
        return (z * h + (1 - z) * candidate,)


@register("layer")
class GRU(Recurrent, GRUCell):  # type: ignore[misc]  # it is called on sequences
    """The cell `GRUCell` applied along time, with its equations and weights.

    Input ``(batch, time, features)``; output ``(batch, units)``, the last step's, or
    ``(batch, time, units)`` with `return_sequences`.

    Parameters
    ----------
    units : int
        Size of the state and of the output.
    **kwargs
        The arguments of `GRUCell` and `Cell` for the step, and those of `RNN` for the loop.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.GRU(4)])
    >>> model.predict(np.zeros((2, 3, 5), "float32"), verbose=0).shape
    (2, 4)
    """

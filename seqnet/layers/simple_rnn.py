"""The plain recurrent cell of Elman (1990)."""

from __future__ import annotations

from collections.abc import Callable

from seqnet.layers.recurrent import Recurrent
from seqnet.registry import register
from seqnet.types import Tensor


@register("layer")
class SimpleRNN(Recurrent):
    """Elman's recurrent layer: ``h' = activation(x kernel + h recurrent_kernel + bias)``.

    Weights: `kernel` (features, units), `recurrent_kernel` (units, units), `bias` (units,). For
    the arguments see `Recurrent`. Source: Elman, "Finding structure in time" (1990).

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.SimpleRNN(4, return_sequences=True)])
    >>> model.predict(np.zeros((2, 3, 5), "float32"), verbose=0).shape
    (2, 3, 4)
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

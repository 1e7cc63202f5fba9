"""Long short-term memory with a forget gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet import activations
from seqnet.common.checks import check_bool, check_count
from seqnet.common.hyperparameters import Rate
from seqnet.common.types import Array, Shape, Tensor
from seqnet.layers.cell import Cell
from seqnet.layers.moments import moments
from seqnet.layers.recurrent import Recurrent
from seqnet.registry import Identifier, register


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
    and Cummins (2000).

    Parameters
    ----------
    units : int
    recurrent_activation : str or callable
        Of the three gates, by default sigmoid.
    unit_forget_bias : bool
        Start the forget gate's bias at one (Jozefowicz et al., 2015).
    output_activation : str or callable, optional
        Of the cell in the equation of ``h'``; by default that of `activation`. ``"linear"`` for
        none.
    peepholes : bool
        The gates see the cell: ``p_i c`` and ``p_f c`` are added within the activations of i and
        f, and ``p_o c'`` within that of o. Weight: `peephole_kernel` (3, units), the rows p_i,
        p_f and p_o. Source: Gers, Schraudolph and Schmidhuber, "Learning precise timing with LSTM
        recurrent networks" (2002).
    coupled_gates : bool
        ``f = 1 - i`` instead of a forget gate of its own. The kernels have the gates i, c, o, and
        the rows of `peephole_kernel` are p_i and p_o. Source: Greff et al., "LSTM: a search space
        odyssey" (2017).
    projection : int, optional
        The size of a projected output ``h' = (o activation(c')) P``, which has the weight
        `projection_kernel` P (units, projection). The state h has this size, and
        `recurrent_kernel` as many rows. Source: Sak, Senior and Beaufays, "Long short-term memory
        recurrent neural network architectures for large scale acoustic modeling" (2014), without
        the non-recurrent projection.
    cell_zoneout : float
        The rate of `zoneout` of the cell c. That of the argument `zoneout` is of the output h.
    layer_normalization : bool
        Normalise the products with the input and with the state over the units of all gates,
        ``gain (x - mean) / sqrt(variance + 0.001)``, before they and the bias are added; and
        the cell in the equation of ``h'``.
        Weights: `input_gain` and `recurrent_gain` (4 units,),
        `cell_gain` and `cell_shift` (units,). Source: Ba, Kiros and
        Hinton, "Layer normalization" (2016).
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

    gates: tuple[str, ...] = ("i", "f", "c", "o")
    state_names = ("h", "c")
    cell_zoneout = Rate()

    def __init__(
        self,
        units: int,
        *,
        recurrent_activation: Identifier | None = "sigmoid",
        unit_forget_bias: bool = True,
        output_activation: Identifier | None = None,
        peepholes: bool = False,
        coupled_gates: bool = False,
        projection: int | None = None,
        cell_zoneout: float = 0.0,
        layer_normalization: bool = False,
        **kwargs: Any,
    ):
        super().__init__(units, **kwargs)
        self.recurrent_activation = activations.get(recurrent_activation)
        self.unit_forget_bias = check_bool(unit_forget_bias, "unit_forget_bias")
        self.output_activation = (
            self.activation if output_activation is None else activations.get(output_activation)
        )
        self.peepholes = check_bool(peepholes, "peepholes")
        self.coupled_gates = check_bool(coupled_gates, "coupled_gates")
        self.projection = None if projection is None else check_count(projection, "projection")
        if self.coupled_gates:
            self.gates = ("i", "c", "o")
        self.cell_zoneout = cell_zoneout
        self.layer_normalization = check_bool(layer_normalization, "layer_normalization")

    @property
    def zoneout_rates(self) -> tuple[str, ...]:
        return ("zoneout", "cell_zoneout")

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return (self.projection or self.units, self.units)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if self.peepholes:
            rows = len(self.gates) - 1
            self.peephole_kernel = self.add_weight(
                "peephole_kernel", (rows, self.units), self.recurrent_initializer
            )
        if self.layer_normalization:
            self.cell_gain = self.add_weight("cell_gain", (self.units,), "ones")
            self.cell_shift = self.add_weight("cell_shift", (self.units,), "zeros")
        if self.projection:
            self.projection_kernel = self.add_weight(
                "projection_kernel", (self.units, self.projection), self.kernel_initializer
            )

    def initial_bias(self, shape: tuple[int, ...]) -> Array:
        bias = super().initial_bias(shape).copy()
        if self.unit_forget_bias and not self.coupled_gates:
            bias[self.units : 2 * self.units] = 1
        return bias

    def step(
        self,
        x: tuple[Tensor, ...],
        states: tuple[Tensor, ...],
        recur: Callable[..., tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        h, c = states
        z = {gate: x_k + r_k for gate, x_k, r_k in zip(self.gates, x, recur(h), strict=True)}
        peep = dict(zip((g for g in self.gates if g != "c"), self.peephole_rows(), strict=False))

        def gate(name: str, cell: Tensor) -> Tensor:
            seen = z[name] + peep[name] * cell if peep else z[name]
            return self.recurrent_activation(seen)

        i = gate("i", c)
        f = 1 - i if self.coupled_gates else gate("f", c)
        c = f * c + i * self.activation(z["c"])
        h = gate("o", c) * self.output_activation(self.normed_cell(c))
        return pt.dot(h, self.projection_kernel) if self.projection else h, c

    def normed_cell(self, c: Tensor) -> Tensor:
        """Return the cell, with `layer_normalization` normalised over the units."""
        if not self.layer_normalization:
            return c
        mean, variance, _ = moments(c, (1,))
        size = pt.sqrt(variance + np.asarray(0.001, self.dtype))
        return self.cell_gain * (c - mean) / size + self.cell_shift

    def peephole_rows(self) -> list[Tensor]:
        """Return the weights of the peepholes, (units,) for each gate; none without peepholes."""
        if not self.peepholes:
            return []
        return [self.peephole_kernel[k] for k in range(len(self.gates) - 1)]


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

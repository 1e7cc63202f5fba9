"""Cells for the contract tests: seqnet's own, and some written as users write theirs.

Every registered subclass of `Recurrent` is tested, CONTRIBUTING's cell too.
"""

import inspect
import re
from pathlib import Path

import numpy as np
import pytensor.tensor as pt
import pytest

from seqnet import registry
from seqnet.layers import GRU, LSTM, RNN, SRU, Cell, GRUCell, Layer, LSTMCell, Recurrent
from seqnet.layers.layer import snake_case
from seqnet.ops.step import each_step
from seqnet.registry import register

CONTRIBUTING = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
exec(re.search(r"## Add a cell\n.*?```python\n(.*?)```", CONTRIBUTING, re.DOTALL)[1])


@register("layer")
class ZhouUnit(Recurrent):
    """The minimal gated unit of Zhou et al. (2016), as a custom cell in one class.

    ``f = sigmoid(x W_f + h U_f + b_f)``, ``h' = (1 - f) h + f tanh(x W_h + (f h) U_h + b_h)``.
    """

    gates = ("f", "h")
    state_names = ("h",)

    def step(self, x, states, recur):
        x_f, x_h = x
        (h,) = states
        (r_f,) = recur(h, "f")
        f = pt.sigmoid(x_f + r_f)
        (r_h,) = recur(f * h, "h")
        return ((1 - f) * h + f * self.activation(x_h + r_h),)


@register("layer")
class Leaky(Recurrent):
    """A leaky integrator, with a plain Python number and a class attribute as a parameter."""

    gates = ("h",)
    leak = 0.9

    def step(self, x, states, recur):
        (h,) = states
        (x_h,), (r_h,) = x, recur(h)
        return (self.leak * h + 0.1 * pt.tanh(x_h + r_h),)


@register("layer")
class Peephole(Recurrent):
    """An LSTM with peephole connections: additional weights from the cell state to the gates."""

    gates = ("i", "f", "c", "o")
    state_names = ("h", "c")

    def build(self, input_shape):
        super().build(input_shape)
        self.peep = [self.add_weight(f"peep_{g}", (self.units,), "uniform") for g in "ifo"]

    def step(self, x, states, recur):
        h, c = states
        i, f, g, o = (a + b for a, b in zip(x, recur(h), strict=True))
        p_i, p_f, p_o = self.peep
        c_new = pt.sigmoid(f + p_f * c) * c + pt.sigmoid(i + p_i * c) * pt.tanh(g)
        return pt.sigmoid(o + p_o * c_new) * pt.tanh(c_new), c_new


@register("layer")
class GateByGate(Recurrent):
    """Calls `recur` once for each gate."""

    gates = ("c", "g")

    def step(self, x, states, recur):
        (h,) = states
        (r_g,) = recur(h, "g")
        (r_c,) = recur(h, "c")
        c, g = pt.tanh(x[0] + r_c), pt.sigmoid(x[1] + r_g + 1.0)
        return [g * h + (1 - g) * c]


@register("layer")
class UnusedKernel(Recurrent):
    """It has a recurrent kernel, and no product with it."""

    gates = ("z", "h")

    def step(self, x, states, recur):
        (h,) = states
        z = pt.sigmoid(x[0])
        return ((1.0 - z) * h + z * x[1],)


@register("layer")
class NormedWithoutProduct(Recurrent):
    """Sums over the units, and no product."""

    gates = ("h", "f")
    state_names = ("h", "c")
    uses_recur = False

    def step(self, x, states, recur):
        h, c = states
        c = pt.sigmoid(x[1]) * layer_norm(c, 1.0) + x[0]
        return 0.5 * h + pt.tanh(c), c


@register("layer")
class TwoSizes(Recurrent):
    """A slow memory of another size than the output; uses a float64 NumPy array."""

    gates = ("h",)
    state_names = ("h", "m")
    memory = 3

    @property
    def state_sizes(self):
        return (self.units, self.memory)

    def build(self, input_shape):
        super().build(input_shape)
        self.write = self.add_weight("write", (self.units, self.memory), "glorot_uniform")
        self.read = self.add_weight("read", (self.memory, self.units), "glorot_uniform")

    def step(self, x, states, recur):
        h, m = states
        rates = np.linspace(0.5, 0.9, self.memory)
        m = rates * m + (1 - rates) * pt.tanh(pt.dot(h, self.write))
        return pt.tanh(x[0] + recur(h)[0] + pt.dot(m, self.read)), m


@register("layer")
class SubsetOfGates(Recurrent):
    """Calls `recur` for two of three gates that are not adjacent, in another order."""

    gates = ("a", "b", "c")

    def step(self, x, states, recur):
        (h,) = states
        r_c, r_a = recur(h, "c", "a")
        a = pt.sigmoid(x[0] + r_a)
        return (a * h + (1 - a) * pt.tanh(x[1] + x[2] + r_c),)


@register("layer")
class Coupled(Recurrent):
    """Arrays of NumPy, functions of weights, and a product with what is not the state itself."""

    gates = ("f", "c")
    state_names = ("h", "c")

    def build(self, input_shape):
        super().build(input_shape)
        self.gain = self.add_weight("gain", (2, self.units), "uniform")
        self.scale = self.add_weight("scale", (), "ones")

    def step(self, x, states, recur):
        h, c = states
        rates = np.linspace(0.5, 0.9, self.units)
        r_f, r_c = recur(pt.tanh(c * self.gain[0]) + h)
        f = pt.sigmoid(x[0] + r_f) * rates
        c = f * c + (1 - f) * pt.tanh(self.scale * (x[1] + r_c)) * pt.softplus(self.gain[1])
        return pt.tanh(c), c


def layer_norm(x, gain):
    """Normalise over the units, with the variance of the values themselves."""
    mean = pt.mean(x, axis=-1, keepdims=True)
    return gain * (x - mean) / pt.sqrt(pt.var(x, axis=-1, keepdims=True) + 1e-3)


@register("layer")
class LayerNormLSTM(Recurrent):
    """Ba et al. (2016): the products of each gate and the cell are normalised over the units."""

    gates = ("i", "f", "c", "o")
    state_names = ("h", "c")

    def build(self, input_shape):
        super().build(input_shape)
        self.gains = [self.add_weight(f"gain_{g}", (self.units,), "ones") for g in "ifcoz"]

    def step(self, x, states, recur):
        h, c = states
        products = zip(x, recur(h), self.gains, strict=False)
        i, f, g, o = (a + layer_norm(r, gain) for a, r, gain in products)
        c = pt.sigmoid(f) * c + pt.sigmoid(i) * pt.tanh(g)
        return pt.sigmoid(o) * pt.tanh(layer_norm(c, self.gains[4])), c


@register("layer")
class Zoneout(Recurrent):
    """Krueger et al. (2017): a share of the units keeps its values at each step."""

    gates = ("h",)
    kept = 0.4

    def run(self, sequence, *others):
        # Neither random nor different from step to step, so that it is the same on every path and
        # for every part of a sequence.
        kept = pt.cast(pt.eq(pt.arange(self.units) % 3, 0), self.dtype)
        self.keep = kept + pt.zeros((*tuple(sequence.shape)[:2], self.units), self.dtype)
        return super().run(sequence, *others)

    def trace(self, drawn):
        if not hasattr(self, "keep"):
            self.keep = pt.tensor3(dtype=self.dtype)
        return super().trace(drawn)

    def step(self, x, states, recur):
        (h,) = states
        keep = each_step(self.keep)
        return (keep * h + (1 - keep) * pt.tanh(x[0] + recur(h)[0]),)


@register("layer")
class Network(Recurrent):
    """A small network from hidden to hidden: ``h2 = tanh(h A + a)``, ``h' = tanh(x + h2 B)``."""

    gates = ("h",)
    uses_recur = False

    def build(self, input_shape):
        super().build(input_shape)
        self.first = self.add_weight("first", (self.units, 5), "glorot_uniform")
        self.shift = self.add_weight("shift", (5,), "uniform")
        self.second = self.add_weight("second", (5, self.units), "glorot_uniform")

    def step(self, x, states, recur):
        (h,) = states
        inner = pt.tanh(h @ self.first + self.shift)
        return (pt.tanh(x[0] + pt.dot(inner, self.second)),)


@register("layer")
class Mixture(Recurrent):
    """Columns that are taken apart, a product of both states, a softmax, and a largest value."""

    gates = ("a", "b")
    state_names = ("h", "m")

    @property
    def state_sizes(self):
        return (self.units, self.units + 3)

    def build(self, input_shape):
        super().build(input_shape)
        size = sum(self.state_sizes)
        self.both = self.add_weight("both", (size, size), "glorot_uniform")

    def step(self, x, states, recur):
        h, m = states
        z = pt.dot(pt.concatenate([h, m], axis=1), self.both)
        share = pt.special.softmax(z[:, self.units :], axis=-1)
        (r,) = recur(pt.tanh(z[:, : self.units]), "b")
        new = pt.tanh(x[0] + r - 0.1 * pt.max(h, axis=1, keepdims=True))
        kept = pt.concatenate([m[:, 1 : self.units + 1] + x[1], 1 - share[:, -3:]], axis=1)
        return new, share * kept


@register("layer")
class KerasStyleCell(Layer):
    """A cell in the way of Keras: a layer of one step with its own weights and a size of state."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer="uniform", name="kernel"
        )
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, self.units), initializer="uniform", name="recurrent_kernel"
        )

    def call(self, inputs, states):
        (h,) = states
        new = pt.tanh(pt.dot(inputs, self.kernel) + pt.dot(h, self.recurrent_kernel))
        output = 0.9 * new + 0.1 * h
        return output, [output]


def registered_cells():
    """Return every registered recurrent layer that is its own cell, by name."""
    classes = [v for v in registry._registered["layer"].values() if inspect.isclass(v)]
    return {snake_case(c.__name__): (c, {}) for c in classes if issubclass(c, Recurrent)}


CELLS = {
    **registered_cells(),
    "gru_reset_before": (GRU, {"reset_after": False}),
    "sru_without_rescaling": (SRU, {"rescale": False, "activation": "tanh"}),
    "lstm_peepholes": (LSTM, {"peepholes": True, "output_activation": "relu"}),
    "lstm_normalized": (LSTM, {"layer_normalization": True}),
    "gru_normalized": (GRU, {"layer_normalization": True, "reset_after": False}),
    "lstm_clipped": (LSTM, {"gradient_clip": 100.0, "coupled_gates": True}),
    "gru_clipped": (GRU, {"gradient_clip": 100.0, "recurrent_activation": "mish"}),
}


class OverCells:
    """Makes `RNN` of some cells with the call of a recurrent layer: ``cls(units, **options)``."""

    def __init__(self, state_names, cells, output):
        self.state_names, self.cells, self.output = state_names, cells, output

    def __call__(self, units, dtype=None, **options):
        return RNN(self.cells(units, dtype), **options)


def registered_alone():
    """Return `RNN` of every registered cell of one step that has no layer of its own, by name."""
    classes = [v for v in registry._registered["layer"].values() if inspect.isclass(v)]
    alone = [c for c in classes if issubclass(c, Cell) and not issubclass(c, Recurrent)]
    inside = {base for c in classes if issubclass(c, Recurrent) for base in c.__mro__}
    return {
        f"rnn_of_{snake_case(c.__name__)}": (
            OverCells(c.state_names, lambda units, dtype, c=c: c(units, dtype=dtype), "h"),
            {},
        )
        for c in alone
        if c not in inside
    }


RNNS = {
    **registered_alone(),
    "rnn_of_lstm": (
        OverCells(("h", "c"), lambda units, dtype: LSTMCell(units, dtype=dtype), "h"),
        {},
    ),
    "rnn_of_keras_style": (
        OverCells(("state0",), lambda units, dtype: KerasStyleCell(units, dtype=dtype), "state0"),
        {},
    ),
    "rnn_of_a_stack": (
        OverCells(
            ("0_h", "0_c", "1_h"),
            lambda units, dtype: [LSTMCell(units + 1, dtype=dtype), GRUCell(units, dtype=dtype)],
            "1_h",
        ),
        {},
    ),
    "rnn_of_a_layer_and_a_user_cell": (
        OverCells(
            ("0_h", "1_state0"),
            lambda units, dtype: [Leaky(3, dtype=dtype), KerasStyleCell(units, dtype=dtype)],
            "1_state0",
        ),
        {},
    ),
}
ALL = CELLS | RNNS


QUICK = ("lstm", "gru", "two_sizes", "min_gru", "network")
"""The cells that the quick tests run over; all others are in the slow set."""


def over_cells(names, quick=QUICK):
    """Run a test over cells, given by name; those that are not in `quick` are slow tests."""
    slow = pytest.mark.slow
    cells = [name if name in quick else pytest.param(name, marks=slow) for name in names]
    return pytest.mark.parametrize("cell", cells)


def output_state(cell):
    """Return the name of the state that is the output of a cell of `ALL`."""
    cls = ALL[cell][0]
    return cls.output if isinstance(cls, OverCells) else cls.state_names[0]

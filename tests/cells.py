"""Cells for the contract tests: seqnet's own, and some written as users write theirs."""

import numpy as np
import pytensor.tensor as pt

from seqnet.layers import GRU, LSTM, Recurrent, SimpleRNN
from seqnet.ops.step import each_step
from seqnet.registry import register


@register("layer")
class MinimalGatedUnit(Recurrent):
    """The unit of Zhou et al. (2016), written as a user would: a cell in one class.

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
    """A leaky integrator: a plain Python number, an attribute that is no constructor argument."""

    gates = ("h",)
    leak = 0.9

    def step(self, x, states, recur):
        (h,) = states
        (x_h,), (r_h,) = x, recur(h)
        return (self.leak * h + 0.1 * pt.tanh(x_h + r_h),)


@register("layer")
class Peephole(Recurrent):
    """An LSTM whose gates see the cell through weights of its own."""

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
class MinGRU(Recurrent):
    """Feng et al. (2024): the gates depend on the input alone, so nothing is multiplied."""

    gates = ("z", "h")

    def step(self, x, states, recur):
        (h,) = states
        z = pt.sigmoid(x[0])
        return ((1.0 - z) * h + z * x[1],)


@register("layer")
class UGRNN(Recurrent):
    """Collins et al. (2017): one update gate; gates asked for one by one, in any order."""

    gates = ("c", "g")

    def step(self, x, states, recur):
        (h,) = states
        (r_g,) = recur(h, "g")
        (r_c,) = recur(h, "c")
        c, g = pt.tanh(x[0] + r_c), pt.sigmoid(x[1] + r_g + 1.0)
        return [g * h + (1 - g) * c]


@register("layer")
class TwoSizes(Recurrent):
    """A slow memory of another size beside the output, and an array of NumPy's float64."""

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
    """Asks for two of three gates, not the neighbouring ones, and in another order."""

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

    def run(self, sequence, mask, states, context):
        # Not drawn at random, so that it is the same on every path.
        places = pt.arange(self.units) + pt.arange(sequence.shape[0])[:, None, None]
        self.keep = pt.cast(pt.eq(places % 3, 0), self.dtype) + 0 * sequence[..., : self.units]
        return super().run(sequence, mask, states, context)

    def traced(self, dropout=()):
        if not hasattr(self, "keep"):
            self.keep = pt.tensor3(dtype=self.dtype)
        return super().traced(dropout)

    def step(self, x, states, recur):
        (h,) = states
        keep = each_step(self.keep)
        return (keep * h + (1 - keep) * pt.tanh(x[0] + recur(h)[0]),)


CELLS = {
    "simple_rnn": (SimpleRNN, {}),
    "lstm": (LSTM, {}),
    "gru": (GRU, {}),
    "gru_reset_before": (GRU, {"reset_after": False}),
    "minimal_gated_unit": (MinimalGatedUnit, {}),
    "leaky": (Leaky, {}),
    "peephole": (Peephole, {}),
    "coupled": (Coupled, {}),
    "zoneout": (Zoneout, {}),
    "layer_norm_lstm": (LayerNormLSTM, {}),
    "min_gru": (MinGRU, {}),
    "ugrnn": (UGRNN, {}),
    "two_sizes": (TwoSizes, {}),
    "subset_of_gates": (SubsetOfGates, {}),
}

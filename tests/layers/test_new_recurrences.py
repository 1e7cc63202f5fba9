"""Recurrences of papers against their equations in NumPy, written step by step."""

import numpy as np
import pytensor.tensor as pt
import pytest
from helpers import random_arrays, run_cell
from reference import load_arrays
from reference.numpy_layers import sigmoid

import seqnet
from seqnet import backend, layers
from seqnet.layers import (
    RGLRU,
    RNN,
    SLSTM,
    SRU,
    IndRNN,
    MinGRU,
    MinLSTM,
    Recurrent,
    StackedRNNCells,
)

RNG = np.random.default_rng(0)
MASK = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=bool)
WITHOUT_PRODUCT = [MinGRU, MinLSTM, SRU, RGLRU, IndRNN]


def split(a, w, count):
    """Return the products with the input, one for each gate."""
    return np.split(a @ w["kernel"] + w.get("bias", 0), count, axis=-1)


def min_gru(x, w, h):
    z, n = split(x, w, 2)
    z = sigmoid(z)
    return ((1 - z) * h + z * n,)


def min_lstm(x, w, h):
    f, i, n = split(x, w, 3)
    f, i = sigmoid(f), sigmoid(i)
    return (f / (f + i) * h + i / (f + i) * n,)


def sru(x, w, h, c):
    v, b = w["recurrent_kernel"], np.split(w["bias"], 2)
    x_f, x_r, x_c, highway = np.split(x @ w["kernel"], 4, axis=-1)
    f, r = sigmoid(x_f + v[0] * c + b[0]), sigmoid(x_r + v[1] * c + b[1])
    c = f * c + (1 - f) * x_c
    return r * c + (1 - r) * np.sqrt(3) * highway, c


def rglru(x, w, h):
    r, i, u = split(x, w, 3)
    a = sigmoid(w["decay_logit"]) ** (8 * sigmoid(r))
    return (a * h + np.sqrt(1 - a**2) * sigmoid(i) * u,)


def ugrnn(x, w, h):
    g, c = split(x, w, 2)
    u_g, u_c = np.split(h @ w["recurrent_kernel"], 2, axis=-1)
    g = sigmoid(g + u_g)
    return (g * h + (1 - g) * np.tanh(c + u_c),)


def ind_rnn(x, w, h):
    return (np.maximum(x @ w["kernel"] + w["bias"] + w["recurrent_kernel"] * h, 0),)


STEPS = {f.__name__: f for f in (min_gru, min_lstm, sru, rglru, ugrnn, ind_rnn)}


@pytest.mark.parametrize("path", ["scan", "fused"])
@pytest.mark.parametrize("cell", STEPS)
def test_the_values_are_those_of_the_equations(cell, path):
    arrays = random_arrays(cell, 4, 5, 2, mask=MASK)
    names = ("h", "c") if cell == "sru" else ("h",)
    states, outputs = [arrays[f"{name}0"] for name in names], []
    for t in range(5):
        new = STEPS[cell](arrays["x"][:, t], arrays, *states)
        kept = MASK[:, t, None]
        states = [np.where(kept, a, b) for a, b in zip(new, states, strict=True)]
        outputs.append(states[0])
    result = run_cell(cell, arrays, path)
    np.testing.assert_allclose(result["y"], np.stack(outputs, axis=1), rtol=1e-10, atol=1e-12)


# ------------------------------------------------------------------------------ sLSTM


@pytest.mark.parametrize("path", ["scan", "fused"])
@pytest.mark.parametrize("name", ["slstm", "slstm_of_large_gates", "slstm_with_states"])
def test_slstm_is_that_of_the_xlstm_package(name, path):
    arrays = load_arrays("xlstm")[name]
    states = ("h", "c", "n", "m")
    if "n0" not in arrays:
        arrays |= {f"{s}0": np.zeros_like(arrays["y"][:, 0]) for s in states}
    result = run_cell("slstm", arrays, path)
    expected = {k: v for k, v in arrays.items() if k.startswith("d_") or k == "y"}
    expected |= {k: v for k, v in arrays.items() if k.endswith("_last")}
    assert {
        "d_x",
        "d_kernel",
        "d_recurrent_kernel",
        "d_bias",
        "n_last",
        "m_last",
    } <= expected.keys()
    for key, value in expected.items():
        scale = 1e-10 * max(1, abs(value).max())
        np.testing.assert_allclose(result[key], value, rtol=1e-9, atol=scale, err_msg=key)


def test_slstm_stays_finite_where_exponentials_overflow():
    x = 300 * RNG.normal(size=(3, 40, 5)).astype("float32")
    model = seqnet.Model([SLSTM(4, return_sequences=True)])
    model.compile("sgd", "mse")
    assert np.isfinite(model.predict(x)).all()
    model.train_on_batch(x, np.zeros((3, 40, 4), "float32"))
    assert all(np.isfinite(w).all() for w in model.get_weights())


# ------------------------------------------------------------------ without a product


@pytest.mark.parametrize("cls", WITHOUT_PRODUCT)
def test_the_loop_has_no_product_in_any_path(cls):
    for options in ({"fused": False}, {"unroll": True}, {}):
        layer = cls(3, **options)
        layer.ensure_built((None, 4, 3))
        step = layer.trace(layer.no_masks()).step
        assert not step.products
        assert layer.recurrent_weights() == (None, None)
    if backend.native() is not None:
        assert layer.runs_as(backend.execution_mode) == "fused"


@pytest.mark.parametrize("cls", WITHOUT_PRODUCT)
def test_steps_by_hand_are_the_sequence(cls):
    layer = cls(3, return_sequences=True)
    model = seqnet.Model([layer, layers.Dense(2)])
    x = RNG.normal(size=(2, 6, 3)).astype("float32")
    expected, states, found = model.predict(x), None, []
    for t in range(6):
        output, states = model.step(x[:, t], states)
        found.append(output)
    np.testing.assert_allclose(np.stack(found, axis=1), expected, rtol=1e-5, atol=1e-6)


def test_arguments_for_a_kernel_that_does_not_exist_are_refused():
    for name, value in {
        "recurrent_dropout": 0.2,
        "recurrent_dropout_per_gate": True,
        "recurrent_initializer": "zeros",
        "recurrent_regularizer": "l2",
        "recurrent_constraint": "non_neg",
    }.items():
        with pytest.raises(ValueError, match=rf"MinGRU has no recurrent kernel.*{name}"):
            MinGRU(3, **{name: value})
    layer = MinGRU(3)
    layer.recurrent_dropout = 0.5
    model = seqnet.Model([layer])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"MinGRU has no recurrent kernel.*recurrent_dropout"):
        model.train_on_batch(np.zeros((1, 2, 3)), np.zeros((1, 3)))


def test_a_step_that_uses_recur_without_a_kernel_is_an_error():
    class Contradiction(Recurrent):
        gates = ("h",)
        uses_recur = False

        def step(self, x, states, recur):
            return (pt.tanh(x[0] + recur(states[0])[0]),)

    with pytest.raises(ValueError, match=r"calls recur in its step.*uses_recur = False"):
        seqnet.Model([Contradiction(3)]).predict(np.zeros((1, 2, 3)))


# ---------------------------------------------------------------------------- residual


def test_a_residual_stack_is_layers_whose_inputs_are_added():
    cells = [layers.GRUCell(3), layers.MinGRUCell(3), layers.IndRNNCell(3)]
    stack = seqnet.Model([RNN(StackedRNNCells(cells, residual=True), return_sequences=True)])
    stack.build((None, None, 2))
    x = seqnet.Input((None, 2))
    h = layers.GRU(3, return_sequences=True)(x)
    for layer in (layers.MinGRU, IndRNN):
        h = layers.add([h, layer(3, return_sequences=True)(h)])
    graph = seqnet.Model(x, h)
    graph.set_weights(stack.get_weights())
    values = RNG.normal(size=(4, 5, 2)).astype("float32")
    for model in (stack, graph):
        model.compile("sgd", "mse")
        model.train_on_batch(values, np.ones((4, 5, 3), "float32"), mask=MASK)
    for a, b in zip(stack.get_weights(), graph.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    expected, states = stack.predict(values), None
    np.testing.assert_allclose(expected, graph.predict(values), rtol=1e-5, atol=1e-6)
    for t in range(5):
        output, states = stack.step(values[:, t], states)
        np.testing.assert_allclose(output, expected[:, t], rtol=1e-5, atol=1e-6)


def test_a_residual_stack_needs_outputs_of_one_size():
    stack = StackedRNNCells([layers.GRUCell(3), layers.GRUCell(4)], residual=True)
    with pytest.raises(ValueError, match="one size, got 3, 4"):
        seqnet.Model([RNN(stack)]).build((None, None, 2))


# --------------------------------------------------------------------------- one by one


def test_the_highway_of_sru_is_the_input_itself_if_the_sizes_are_equal():
    layer = SRU(3, highway_bias=-40.0, rescale=False, dropout=0.5, return_sequences=True)
    layer.ensure_built((None, None, 3))
    assert [w.get_value().shape for w in layer.weights] == [(3, 9), (2, 3), (6,)] or [
        w.get_value().shape for w in layer.weights
    ] == [(3, 9), (6,), (2, 3)]
    x = RNG.normal(size=(2, 4, 3)).astype("float32")
    np.testing.assert_allclose(layer(x), x, rtol=1e-6)  # the reset gate is closed
    projected = SRU(4)
    projected.ensure_built((None, None, 3))
    assert projected.kernel.get_value().shape == (3, 16)


def test_min_lstm_is_defined_where_both_gates_round_to_zero():
    layer = MinLSTM(1, use_bias=False)
    layer.ensure_built((None, None, 1))
    layer.set_weights([np.array([[1.0, 1.0, 0.01]], "float32")])
    np.testing.assert_allclose(layer(np.full((1, 1, 1), -300, "float32")), [[-1.5]], rtol=1e-6)


def test_rglru_starts_with_decays_of_the_given_range_and_checks_it():
    layer = RGLRU(5, min_decay=0.5, max_decay=0.9)
    layer.ensure_built((None, None, 2))
    decays = sigmoid(layer.decay_logit.get_value().astype("float64")) ** 8
    np.testing.assert_allclose(decays, np.linspace(0.5, 0.9, 5), rtol=1e-5)
    for options in ({"min_decay": 0}, {"max_decay": 1}, {"min_decay": 0.9, "max_decay": 0.8}):
        with pytest.raises(ValueError, match="min_decay and max_decay"):
            RGLRU(2, **options)
    with pytest.raises(ValueError, match="exponent"):
        RGLRU(2, exponent=0)


def test_rglru_has_finite_gradients_where_nothing_decays():
    layer = RGLRU(1, return_sequences=True)
    model = seqnet.Model([layer])
    model.compile("sgd", "mse")
    x = np.full((1, 3, 1), 1.0, "float32")
    model.build((None, None, 1))
    layer.set_weights([np.array([[-200.0, 1, 1]]), np.zeros(3), layer.decay_logit.get_value()])
    model.train_on_batch(x, np.ones((1, 3, 1), "float32"))
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_a_step_may_compare_its_states_in_float32():
    class Bounded(Recurrent):
        gates = ("h",)

        def step(self, x, states, recur):
            (h,) = states
            new = 0.9 * pt.switch(h > 1, 1, h) + pt.tanh(x[0] + recur(h)[0])
            return (pt.switch(pt.eq(new, 0), h, new),)

    x = RNG.normal(size=(2, 5, 3)).astype("float32")
    losses = []
    for fused in (False, "auto"):
        seqnet.set_random_seed(0)
        model = seqnet.Model([Bounded(3, fused=fused)])
        model.compile("sgd", "mse")
        losses.append([model.train_on_batch(x, np.ones((2, 3))) for _ in range(3)])
        if fused and backend.native() is not None:
            assert model.layers[0].runs_as(backend.execution_mode) == "fused"
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)

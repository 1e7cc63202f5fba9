"""Zoneout, layer normalisation and clipped gradients, on every path, against NumPy."""

import copy

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from cells import Leaky
from helpers import skip_without_kernel
from reference.numpy_layers import sigmoid

import seqnet
from seqnet import backend
from seqnet.layers import GRU, LSTM, RNN, CallContext, Dense, GRUCell, LSTMCell, SimpleRNN

MASK = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0]], dtype=bool)
PATHS = {"scan": {"fused": False}, "unroll": {"unroll": True}, "fused": {"fused": True}}
EVERY_PATH = pytest.mark.parametrize("path", PATHS)
LOOP_AND_KERNEL = pytest.mark.parametrize(
    "path", [pytest.param(p, marks=pytest.mark.slow) if p == "unroll" else p for p in PATHS]
)
X = np.random.default_rng(0).normal(size=(3, 4, 3))
COTANGENT = np.random.default_rng(1).normal(size=(3, 4, 2))


def made(cls, path, **options):
    if path == "fused":
        skip_without_kernel(cls, options)
    seqnet.set_random_seed(5)
    layer = cls(2, dtype="float64", return_sequences=True, **PATHS[path], **options)
    layer.ensure_built((None, 4, 3))
    return layer


def run(layer, training):
    """Return the outputs, and the gradients of their weighted sum in the input and the weights."""
    x = pt.tensor("x", dtype="float64", shape=(None, 4, 3))
    context = CallContext(training=training)
    y = layer(x, mask=pt.constant(MASK), context=context)
    wanted = pytensor.grad(pt.sum(y * pt.constant(COTANGENT)), [x, *layer.weights])
    return backend.compile([x], [y, *wanted], context.updates, name="test")(X)


def lstm_with(layer, kept_h, kept_c):
    """Return the outputs of an LSTM that keeps shares of its states (time, batch, units)."""
    kernel, recurrent, bias = layer.get_weights()
    h, c, outputs = np.zeros((3, 2)), np.zeros((3, 2)), []
    for t in range(4):
        i, f, g, o = np.split(X[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        cell = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        output = sigmoid(o) * np.tanh(cell)
        on = MASK[:, t, None]
        h = np.where(on, kept_h[t] * h + (1 - kept_h[t]) * output, h)
        c = np.where(on, kept_c[t] * c + (1 - kept_c[t]) * cell, c)
        outputs.append(h)
    return np.stack(outputs, axis=1)


@LOOP_AND_KERNEL
def test_training_keeps_units_at_random_and_evaluation_their_expectation(path):
    layer = made(LSTM, path, zoneout=0.3, cell_zoneout=0.6)
    generator = copy.deepcopy(layer.generators[1].get_value())
    kept = [(generator.uniform(size=(4, 3, 2)) < rate).astype(float) for rate in (0.3, 0.6)]
    assert all(0 < mask.mean() < 1 for mask in kept)
    np.testing.assert_allclose(run(layer, True)[0], lstm_with(layer, *kept), rtol=1e-12)
    shares = [np.full(4, 0.3), np.full(4, 0.6)]
    np.testing.assert_allclose(run(layer, False)[0], lstm_with(layer, *shares), rtol=1e-12)


@pytest.mark.parametrize("cls", [LSTM, GRU, Leaky])
@pytest.mark.parametrize("path", ["unroll", "fused"])
def test_gradients_of_zoneout_are_those_of_the_scan(path, cls):
    found = [run(made(cls, way, zoneout=0.4), True) for way in ("scan", path)]
    for scanned, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, scanned, rtol=1e-11, atol=1e-13)


def test_a_stack_draws_for_each_cell_and_trains():
    layer = RNN([GRUCell(3, zoneout=0.2), LSTMCell(2, zoneout=0.1, cell_zoneout=0.5)])
    model = seqnet.Model([layer, Dense(1)])
    model.compile("adam", "mse")
    first, second = (model.train_on_batch(X, X[:, 0, :1]) for _ in range(2))
    assert np.isfinite([first, second]).all()
    assert len(set(layer.generators)) == 4


@EVERY_PATH
def test_gradients_are_clipped_at_each_step_before_they_are_passed_on(path):
    layer = made(SimpleRNN, path, gradient_clip=0.3, activation="linear")
    kernel, recurrent, _ = layer.get_weights()
    y, d_x, d_kernel, d_recurrent, d_bias = run(layer, True)
    d, d_z = np.zeros((3, 2)), np.zeros((4, 3, 2))
    for t in reversed(range(4)):
        d = d + COTANGENT[:, t]
        d_z[t] = np.where(MASK[:, t, None], np.clip(d, -0.3, 0.3), 0)
        d = np.where(MASK[:, t, None], d_z[t] @ recurrent.T, d)
    assert (abs(d_z) == 0.3).any()
    before = np.concatenate([np.zeros((3, 1, 2)), y[:, :-1]], axis=1)
    np.testing.assert_allclose(d_x, np.einsum("tbu,fu->btf", d_z, kernel), rtol=1e-11)
    np.testing.assert_allclose(d_kernel, np.einsum("btf,tbu->fu", X, d_z), rtol=1e-11)
    np.testing.assert_allclose(d_recurrent, np.einsum("bth,tbu->hu", before, d_z), rtol=1e-11)
    np.testing.assert_allclose(d_bias, d_z.sum(axis=(0, 1)), rtol=1e-11)


def normalise(x):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 0.001)


@LOOP_AND_KERNEL
def test_layer_normalization_of_an_lstm_is_that_of_ba_et_al(path):
    layer = made(LSTM, path, layer_normalization=True)
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    kernel, recurrent, bias, g_x, g_h, g_c, b_c = layer.get_weights()
    h, c, outputs = np.zeros((3, 2)), np.zeros((3, 2)), []
    for t in range(4):
        z = g_x * normalise(X[:, t] @ kernel) + g_h * normalise(h @ recurrent) + bias
        i, f, g, o = np.split(z, 4, axis=1)
        cell = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        output = sigmoid(o) * np.tanh(g_c * normalise(cell) + b_c)
        on = MASK[:, t, None]
        h, c = np.where(on, output, h), np.where(on, cell, c)
        outputs.append(h)
    np.testing.assert_allclose(run(layer, True)[0], np.stack(outputs, axis=1), rtol=1e-10)


@LOOP_AND_KERNEL
def test_layer_normalization_of_a_gru_normalises_the_candidate_apart(path):
    layer = made(GRU, path, layer_normalization=True)
    rng = np.random.default_rng(2)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    kernel, recurrent, (bias, _), g_x, g_h = layer.get_weights()
    layer.set_weights([kernel, recurrent, np.stack([bias, 0 * bias]), g_x, g_h])

    def normed(product, gain):
        return gain * np.hstack([normalise(product[:, :4]), normalise(product[:, 4:])])

    h, outputs = np.zeros((3, 2)), []
    for t in range(4):
        x = np.split(normed(X[:, t] @ kernel, g_x) + bias, 3, axis=1)
        r = np.split(normed(h @ recurrent, g_h), 3, axis=1)
        z, reset = sigmoid(x[0] + r[0]), sigmoid(x[1] + r[1])
        new = z * h + (1 - z) * np.tanh(x[2] + reset * r[2])
        h = np.where(MASK[:, t, None], new, h)
        outputs.append(h)
    np.testing.assert_allclose(run(layer, True)[0], np.stack(outputs, axis=1), rtol=1e-10)


@pytest.mark.parametrize("cls", [LSTM, GRU])
def test_clipped_gradients_stay_in_float32(cls):
    layer = cls(2, gradient_clip=0.1)
    y = layer(pt.tensor("x", dtype="float32", shape=(None, None, 3)))
    assert pytensor.grad(pt.sum(y), layer.kernel).dtype == "float32"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"zoneout": 1.0}, ValueError, r"zoneout is the share to drop, in \[0, 1\); got 1.0"),
        ({"cell_zoneout": -0.1}, ValueError, "cell_zoneout is the share"),
        ({"gradient_clip": 0.0}, ValueError, "gradient_clip must be above 0 or None, got 0.0"),
        ({"gradient_clip": "1"}, TypeError, "gradient_clip must be a number, got '1'"),
    ],
)
def test_invalid_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        LSTM(2, **options)

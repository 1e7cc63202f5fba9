"""Dropout in recurrent layers: one mask per sequence, for the input or for the state."""

import copy
import itertools

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from cells import CELLS, ZhouUnit, over_cells
from helpers import random_arrays, run_cell, skip_without_kernel
from pytensor.graph.replace import clone_replace
from pytensor.scan.op import Scan
from reference.numpy_layers import sigmoid

import seqnet
from seqnet import backend
from seqnet.backend.recurrence import KernelRecurrence
from seqnet.layers import GRU, LSTM, CallContext, Dense, SimpleRNN

MASK = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0]], dtype=bool)
PATHS = {"scan": {"fused": False}, "unroll": {"unroll": True}, "fused": {}}
EVERY_PATH = pytest.mark.parametrize("path", PATHS)
EVERY_CELL = over_cells(
    [name for name, (cls, _) in CELLS.items() if cls.uses_recur],
    ("lstm", "gru", "minimal_gated_unit", "zoneout"),
)


def drawn(layer, *sizes):
    """Return the next masks of the layer's generator, drawn with NumPy."""
    generator = copy.deepcopy(layer.generators[0].get_value())
    rates = [rate for rate in (layer.dropout, layer.recurrent_dropout) if rate]
    return [
        (generator.uniform(size=size) >= rate) / (1 - rate)
        for rate, size in zip(rates, sizes, strict=True)
    ]


def built(cell, arrays, path, **options):
    cls, own = CELLS[cell]
    if path == "fused":
        skip_without_kernel(cls, own)
    options |= PATHS[path] | own
    layer = cls(2, dtype="float64", return_sequences=True, **options)
    layer.ensure_built((None, 4, 3))
    layer.set_weights([arrays[w.name.rpartition("/")[2]] for w in layer.weights])
    return layer


def zero_states(layer, batch):
    """Return initial states of zeros by the names of the reference."""
    sizes = zip(layer.state_names, layer.state_sizes, strict=True)
    return {f"{name}0": np.zeros((batch, size)) for name, size in sizes}


def training(layer, mask=None):
    """Compile the output, and the gradients of its weighted sum in x and all weights."""
    x = pt.tensor("x", dtype="float64", shape=(None, 4, 3))
    context = CallContext(training=True)
    y = layer(x, mask=None if mask is None else pt.constant(mask), context=context)
    cotangent = pt.dtensor3("cotangent")
    gradients = pytensor.grad(pt.sum(y * cotangent), [x, *layer.weights])
    return backend.compile([x, cotangent], [y, *gradients], context.updates, name="test")


@EVERY_PATH
@pytest.mark.parametrize("cell", ["lstm", "gru", "zhou_unit"])
def test_input_dropout_is_the_layer_on_inputs_with_dropped_features(cell, path):
    arrays = random_arrays(cell, 3, 4, 2, mask=MASK)
    layer = built(cell, arrays, path, dropout=0.4)
    (kept,) = drawn(layer, (3, 3))
    assert 0 < (kept == 0).sum() < 9
    y, d_x, *d_weights = training(layer, MASK)(arrays["x"], arrays["cotangent"])
    zeros = zero_states(layer, 3)
    expected = run_cell(cell, arrays | zeros | {"x": arrays["x"] * kept[:, None]})
    np.testing.assert_allclose(y, expected["y"], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(d_x, expected["d_x"] * kept[:, None], rtol=1e-10, atol=1e-13)
    for weight, gradient in zip(layer.weights, d_weights, strict=True):
        name = "d_" + weight.name.rpartition("/")[2]
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("path", ["scan", "unroll"])
def test_recurrent_dropout_multiplies_the_state_in_every_recurrent_product(path):
    """The minimal gated unit written out: dropout applies to both products, h U_f and (f h) U_h."""
    arrays = random_arrays("zhou_unit", 3, 4, 2, mask=MASK)
    layer = built("zhou_unit", arrays, path, recurrent_dropout=0.4)
    (kept,) = drawn(layer, (3, 2))
    assert 0 < (kept == 0).sum() < 6
    y = training(layer, MASK)(arrays["x"], arrays["cotangent"])[0]
    k_f, k_h = np.split(arrays["kernel"], 2, axis=1)
    u_f, u_h = np.split(arrays["recurrent_kernel"], 2, axis=1)
    b_f, b_h = np.split(arrays["bias"], 2)
    h, outputs = np.zeros((3, 2)), []
    for t in range(4):
        x = arrays["x"][:, t]
        f = sigmoid(x @ k_f + (h * kept) @ u_f + b_f)
        new = (1 - f) * h + f * np.tanh(x @ k_h + (f * h * kept) @ u_h + b_h)
        h = np.where(MASK[:, t, None], new, h)
        outputs.append(h)
    np.testing.assert_allclose(y, np.stack(outputs, axis=1), rtol=1e-12)


@EVERY_PATH
@EVERY_CELL
def test_recurrent_dropout_of_one_sequence_is_a_recurrent_kernel_with_dropped_rows(cell, path):
    arrays = random_arrays(cell, 1, 4, 2, mask=MASK[1:2])
    layer = built(cell, arrays, path, recurrent_dropout=0.5)
    for seed in range(20):  # until there is a mask that drops one of the two and keeps one
        layer.generators[0].set_value(np.random.default_rng(seed))
        (kept,) = drawn(layer, (1, 2))
        if set(kept[0]) == {0.0, 2.0}:
            break
    assert set(kept[0]) == {0.0, 2.0}
    y, d_x, *d_weights = training(layer, MASK[1:2])(arrays["x"], arrays["cotangent"])
    zeros = zero_states(layer, 1)
    rows = {"recurrent_kernel": arrays["recurrent_kernel"] * kept[0][:, None]}
    expected = run_cell(cell, arrays | zeros | rows)
    np.testing.assert_allclose(y, expected["y"], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(d_x, expected["d_x"], rtol=1e-10, atol=1e-13)
    found = dict(zip([w.name.rpartition("/")[2] for w in layer.weights], d_weights, strict=True))
    expected["d_recurrent_kernel"] *= kept[0][:, None]
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, expected[f"d_{name}"], rtol=1e-10, atol=1e-12)


@EVERY_PATH
@EVERY_CELL
def test_gradients_through_dropout_are_the_numerical_ones(cell, path):
    arrays = random_arrays(cell, 3, 4, 2)
    layer = built(cell, arrays, path, dropout=0.3, recurrent_dropout=0.3)
    context = CallContext(training=True)
    x = pt.tensor("x", dtype="float64", shape=(None, 4, 3))
    y = layer(
        x, mask=pt.constant(MASK), context=context
    )  # the same masks at each call: updates are not stored

    def value(point, kernel):
        given = {x: pt.specify_shape(point, (None, 4, 3))}
        given[layer.recurrent_kernel] = pt.specify_shape(kernel, layer.recurrent_kernel.type.shape)
        return clone_replace(y, given)

    points = [arrays["x"], arrays["recurrent_kernel"]]
    rng = np.random.default_rng(0)
    pytensor.gradient.verify_grad(value, points, rng=rng, mode=backend.mode(), eps=1e-6)


def cells_and_masks():
    """Yield every cell with one mask for all gates and one for each; the quick set has two."""
    for case in itertools.product(("lstm", "gru", "ugrnn", "peephole"), (False, True)):
        quick = case in (("lstm", False), ("gru", True))
        yield pytest.param(*case, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("cell", "per_gate"), list(cells_and_masks()))
def test_every_path_drops_the_same_as_a_scan(cell, per_gate):
    results = []
    for way in ("scan", "unroll", "fused"):
        seqnet.set_random_seed(1)
        arrays = random_arrays(cell, 3, 4, 2)
        own = {"recurrent_dropout": 0.3, "recurrent_dropout_per_gate": per_gate}
        layer = built(cell, arrays, way, dropout=0.3, **own)
        f = training(layer, MASK)
        results.append([f(arrays["x"], arrays["cotangent"]) for _ in range(2)])
    for calls in zip(*results, strict=True):
        for scan, unroll, fused in zip(*calls, strict=True):
            np.testing.assert_allclose(unroll, scan, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(fused, scan, rtol=1e-12, atol=1e-14)
    assert not np.allclose(results[0][0][0], results[0][1][0])  # new masks at each call


def test_masks_are_drawn_for_each_sequence_and_feature_once():
    layer = SimpleRNN(
        30, dropout=0.5, activation="linear", use_bias=False, return_sequences=True, dtype="float64"
    )
    layer.ensure_built((None, None, 30))
    layer.set_weights([np.eye(30), np.zeros((30, 30))])
    x = pt.tensor("x", dtype="float64", shape=(None, None, 30))
    context = CallContext(training=True)
    y = backend.compile([x], [layer(x, context=context)], context.updates, name="test")(
        np.ones((20, 6, 30))
    )[0]
    assert set(np.unique(y)) == {0.0, 2.0}
    np.testing.assert_array_equal(y, np.repeat(y[:, :1], 6, axis=1))
    assert 0.4 < (y == 0).mean() < 0.6
    assert not np.array_equal(y[0], y[1])


def test_prediction_and_a_rate_of_zero_drop_nothing():
    arrays = random_arrays("gru", 3, 4, 2)
    zeros = {"h0": np.zeros((3, 2))}
    expected = run_cell("gru", arrays | zeros)["y"]
    layer = built("gru", arrays, "fused", dropout=0.5, recurrent_dropout=0.5)
    x = pt.tensor("x", dtype="float64", shape=(None, 4, 3))
    context = CallContext()
    y = backend.compile([x], [layer(x, context=context)], name="test")(arrays["x"])[0]
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    assert not context.updates
    assert not built("gru", arrays, "fused", dropout=0.0).generators


def has(function, kind):
    return any(isinstance(node.op, kind) for node in function.maker.fgraph.toposort())


@pytest.mark.parametrize("per_gate", [False, True])
def test_training_with_dropout_stays_fused(per_gate):
    if backend.native() is None:
        pytest.skip("The compiled kernels are not available here.")
    arrays = random_arrays("lstm", 3, 4, 2)
    own = {"recurrent_dropout": 0.5, "recurrent_dropout_per_gate": per_gate}
    layer = built("lstm", arrays, "fused", dropout=0.5, **own)
    assert layer.runs_as(backend.execution_mode) == "fused"
    function = training(layer)
    assert has(function, KernelRecurrence)
    assert not has(function, Scan)


@EVERY_PATH
def test_a_mask_for_each_gate_drops_the_state_of_that_gate(path):
    arrays = random_arrays("gru", 3, 4, 2, mask=MASK)
    own = {"recurrent_dropout": 0.4, "recurrent_dropout_per_gate": True}
    layer = built("gru", arrays, path, **own)
    generator = copy.deepcopy(layer.generators[0].get_value())
    kept = [(generator.uniform(size=(3, 2)) >= 0.4) / 0.6 for _ in range(3)]
    y = training(layer, MASK)(arrays["x"], arrays["cotangent"])[0]
    kernels = np.split(arrays["recurrent_kernel"], 3, axis=1)
    b, b_r = (np.split(row, 3) for row in arrays["bias"])
    h = np.zeros((3, 2))
    for t in range(4):
        x = np.split(arrays["x"][:, t] @ arrays["kernel"], 3, axis=1)
        r = [(h * m) @ u + c for m, u, c in zip(kept, kernels, b_r, strict=True)]
        z, reset = sigmoid(x[0] + b[0] + r[0]), sigmoid(x[1] + b[1] + r[1])
        new = z * h + (1 - z) * np.tanh(x[2] + b[2] + reset * r[2])
        h = np.where(MASK[:, t, None], new, h)
        np.testing.assert_allclose(y[:, t], h, rtol=1e-12)


def test_a_file_keeps_the_generators_and_training_continues_exactly(tmp_path):
    x = np.random.default_rng(0).normal(size=(8, 4, 3))
    model = seqnet.Model([GRU(4, dropout=0.3, recurrent_dropout=0.3), Dense(1)])
    model.compile("adam", "mse")
    y = x[:, 0, :1]
    first = model.train_on_batch(x, y)
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    assert again.layers[0].recurrent_dropout == 0.3
    ahead = [model.train_on_batch(x, y) for _ in range(2)]
    assert [again.train_on_batch(x, y) for _ in range(2)] == ahead
    assert first not in ahead


def test_inputs_of_integers_stay_in_the_layers_float_type():
    layer = LSTM(2, dropout=0.5)
    y = layer(pt.tensor("x", dtype="int32", shape=(None, None, 3)), training=True)
    assert y.dtype == "float32"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dropout": 1.0}, ValueError, r"dropout is the share to drop, in \[0, 1\); got 1.0"),
        ({"recurrent_dropout": -0.1}, ValueError, "recurrent_dropout is the share"),
        ({"dropout": "half"}, TypeError, "dropout must be a number, got 'half'"),
        ({"recurrent_dropout_per_gate": 1.5}, TypeError, "recurrent_dropout_per_gate"),
    ],
)
def test_invalid_rates_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        LSTM(2, **options)


def test_a_custom_cell_supports_both_kinds_of_dropout():
    layer = ZhouUnit(2, dropout=0.2, recurrent_dropout=0.2)
    assert layer.get_config()["recurrent_dropout"] == 0.2

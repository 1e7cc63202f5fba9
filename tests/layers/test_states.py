"""Initial, final and carried states of recurrent layers."""

import logging

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from cells import CELLS, ZhouUnit, over_cells
from helpers import assert_same, random_arrays, run_cell, skip_without_kernel
from pytensor.graph.replace import clone_replace

import seqnet
from seqnet import backend
from seqnet.generation import Stepper
from seqnet.layers import GRU, LSTM, Bidirectional, CallContext, Dense, Embedding, SimpleRNN

PATHS = {"scan": {"fused": False}, "unroll": {"unroll": True}, "fused": {"fused": True}}
EVERY_PATH = pytest.mark.parametrize("path", PATHS)
MASK = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
X = np.random.default_rng(20261122).normal(size=(4, 4, 3))


def options_of(path, cls=LSTM, **own):
    if path == "fused":
        skip_without_kernel(cls, own)
    return PATHS[path] | {"dtype": "float64"} | own


def symbolic(features=3, length=4):
    return pt.tensor("x", dtype="float64", shape=(None, length, features))


# --------------------------------------------------------------------------- return_state


@EVERY_PATH
@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
def test_return_state_gives_the_output_and_every_last_state(cell, path):
    cls, _ = CELLS[cell]
    layer = cls(2, return_sequences=True, return_state=True, **options_of(path))
    x, mask = symbolic(), pt.constant(MASK)
    output = layer(x, mask=mask, context=CallContext())
    assert isinstance(output, list)
    assert len(output) == 1 + len(layer.state_names)
    y, *states = backend.compile([x], output, name="test")(X)
    zeros = {f"{name}0": np.zeros((4, 2)) for name in layer.state_names}
    weights = {w.name.rpartition("/")[2]: w.get_value() for w in layer.weights}
    arrays = {"x": X, "mask": MASK, "cotangent": np.ones((4, 4, 2))} | zeros | weights
    expected = run_cell(cell, arrays)
    assert_same(
        {"y": y} | {f"{n}_last": s for n, s in zip(layer.state_names, states, strict=True)},
        {n: v for n, v in expected.items() if not n.startswith("d_")},
        tolerance=1e-13,
    )


def test_return_state_without_sequences_gives_the_last_output_twice():
    layer = GRU(2, return_state=True, dtype="float64")
    x = symbolic()
    y, h = backend.compile([x], layer(x), name="test")(X)
    np.testing.assert_array_equal(y, h)


@pytest.mark.parametrize(
    "layer",
    [
        LSTM(2, return_state=True, name="memory"),
        Bidirectional(LSTM(2, return_state=True), name="memory"),
        Bidirectional(LSTM(2), merge_mode=None, name="memory"),
    ],
)
def test_a_layer_of_several_outputs_is_refused_in_a_stack(layer):
    with pytest.raises(ValueError, match=r"'memory'.*has several outputs"):
        seqnet.Model([layer])


# -------------------------------------------------------------------------- initial_state


@EVERY_PATH
@over_cells(CELLS)
def test_passed_initial_states_give_the_results_of_the_reference(cell, path):
    cls, own = CELLS[cell]
    arrays = random_arrays(cell, 4, 4, 2, mask=MASK)
    layer = cls(2, return_sequences=True, **options_of(path, cls, **own))
    layer.ensure_built((None, 4, 3))
    layer.set_weights([arrays[w.name.rpartition("/")[2]] for w in layer.weights])
    x = symbolic()
    before = [pt.dmatrix(name) for name in layer.state_names]
    y = layer(x, mask=pt.constant(MASK), context=CallContext(), initial_state=before)
    f = backend.compile([x, *before], [y], name="test")
    (result,) = f(arrays["x"], *[arrays[f"{name}0"] for name in layer.state_names])
    np.testing.assert_allclose(result, run_cell(cell, arrays)["y"], rtol=1e-12, atol=1e-14)


@EVERY_PATH
@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_initial_states_are_arrays_per_sample_or_shared_by_all(batch, units, path):
    layer = LSTM(units, **options_of(path))
    x, context = symbolic(), CallContext()
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 1, units))
    for_all = [rows[0, 0], pt.constant(rows[1])]
    each = [np.repeat(row, batch, axis=0).astype("float32").astype("float64") for row in rows]
    same = [np.asarray(row, "float32") for row in each]  # another float type is cast
    outputs = [
        layer(x, initial_state=states, context=context)
        for states in (for_all, each, same, [np.zeros(units)] * 2)
    ]
    one, every, cast, zero = backend.compile([x], outputs, name="test")(X[:batch])
    np.testing.assert_allclose(one, every, rtol=1e-5)
    np.testing.assert_allclose(cast, every, rtol=1e-12)
    plain = backend.compile([x], [layer(x, context=context)], name="test")(X[:batch])[0]
    np.testing.assert_allclose(zero, plain, rtol=1e-12)
    assert not np.allclose(one, plain)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([np.zeros((4, 2))], "a list of 2; got 1"),
        ([np.zeros((4, 2)), np.zeros((4, 3))], r"c of layer 'lstm' must have the shape \(batch, 2"),
        ([np.zeros((4, 2)), np.zeros((1, 4, 2))], "c of layer 'lstm' must have"),
    ],
)
def test_invalid_initial_states_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        LSTM(2)(symbolic(), initial_state=given)


def test_final_states_of_one_layer_can_be_initial_states_of_another():
    """An encoder gives its states to a decoder."""
    first = GRU(2, return_state=True, dtype="float64")
    second = GRU(2, return_sequences=True, dtype="float64")
    x = symbolic(length=None)
    _, state = first(x)
    y = second(x, initial_state=state)
    second.set_weights(first.get_weights())
    whole = GRU(2, return_sequences=True, dtype="float64")
    expected = whole(x)
    whole.set_weights(first.get_weights())
    f = backend.compile([x], [y], name="test")
    g = backend.compile([x], [expected], name="test")
    twice = np.concatenate([X, X], axis=1)
    np.testing.assert_allclose(f(X)[0], g(twice)[0][:, 4:], rtol=1e-12)


# -------------------------------------------------------------------- learned initial states


@EVERY_PATH
@pytest.mark.parametrize("units", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("cls", [LSTM, GRU, ZhouUnit])
def test_gradients_of_learned_initial_states_are_the_numerical_ones(cls, units, path):
    layer = cls(units, learn_initial_state=True, return_sequences=True, **options_of(path, cls))
    layer.ensure_built((None, 4, 3))
    names = [w.name.rpartition("/")[2] for w in layer.weights]
    assert names[-len(cls.state_names) :] == [f"initial_{n}" for n in cls.state_names]
    context = CallContext(training=True)
    y = layer(pt.constant(X), mask=pt.constant(MASK), context=context)

    def value(*learned):
        fixed = [
            pt.specify_shape(v, w.type.shape)
            for w, v in zip(layer.initial_state, learned, strict=True)
        ]
        return clone_replace(y, dict(zip(layer.initial_state, fixed, strict=True)))

    rng = np.random.default_rng(1)
    points = [rng.normal(size=units) for _ in cls.state_names]
    pytensor.gradient.verify_grad(value, points, rng=rng, mode=backend.mode(), eps=1e-6)


@EVERY_PATH
def test_training_learns_the_initial_state(path):
    """A cell that keeps its state, trained on a constant, must learn that initial state."""
    layer = SimpleRNN(
        1, activation="linear", learn_initial_state=True, use_bias=False, **options_of(path)
    )
    model = seqnet.Model([layer])
    x = np.zeros((4, 3, 1))
    model.build((None, 3, 1))
    layer.set_weights([np.zeros((1, 1)), np.ones((1, 1)), np.zeros(1)])
    model.compile(seqnet.optimizers.SGD(0.1), "mse")
    model.fit(x, np.full((4, 1), 0.5), epochs=200, verbose=0)
    _kernel, recurrent, start = layer.get_weights()
    np.testing.assert_allclose(start * recurrent[0, 0] ** 3, 0.5, rtol=1e-3)
    assert start[0] > 0.3


def test_a_stepper_starts_from_the_learned_states_and_a_file_keeps_them(tmp_path):
    model = seqnet.Model([LSTM(2, learn_initial_state=True, dtype="float64")])
    model.build((None, None, 3))
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    stepper = Stepper(model)
    for t in range(4):
        output = stepper(X[:, t])
    np.testing.assert_allclose(output, model.predict(X), rtol=1e-10)
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


# ------------------------------------------------------------------------------- stateful


def stateful_model(path="fused", cls=LSTM, **options):
    seqnet.set_random_seed(3)
    own = (options_of(path, cls) if path else {"dtype": "float64"}) | options
    layers = [cls(2, stateful=True, return_sequences=True, **own), Dense(1, dtype="float64")]
    return seqnet.Model(layers)


LONG = np.random.default_rng(4).normal(size=(3, 8, 2))
TARGET = np.random.default_rng(5).normal(size=(3, 8, 1))
HALVES = (slice(0, 4), slice(4, 8))


@EVERY_PATH
@pytest.mark.parametrize("cls", [LSTM, GRU, ZhouUnit])
def test_two_halves_of_a_stateful_run_equal_the_whole(cls, path):
    model = stateful_model(path, cls)
    whole = model.predict(LONG)
    halves = [model.predict_on_batch(LONG[:, part]) for part in HALVES]
    np.testing.assert_allclose(np.concatenate(halves, axis=1), whole, rtol=1e-10, atol=1e-13)
    assert not np.allclose(model.predict(LONG[:, 4:]), whole[:, 4:])  # it starts from zeros


@EVERY_PATH
def test_masked_halves_equal_the_masked_whole(path):
    model = stateful_model(path)
    mask = np.concatenate([MASK[:3], MASK[1:]], axis=1)
    whole = model.predict(LONG, mask=mask)
    halves = [model.predict_on_batch(LONG[:, part], mask=mask[:, part]) for part in HALVES]
    np.testing.assert_allclose(np.concatenate(halves, axis=1), whole, rtol=1e-10, atol=1e-13)


@EVERY_PATH
def test_training_carries_its_states_without_their_gradient(path):
    """Computes both halves; the initial state of the second is a constant in its gradient."""
    model = stateful_model(path)
    model.compile(seqnet.optimizers.SGD(0.1), "mse")
    model.build((None, 4, 2))
    layer, _dense = model.layers
    start, by_hand = model.get_weights(), []
    plain = LSTM(2, return_sequences=True, return_state=True, dtype="float64", fused=False)
    plain.ensure_built((None, None, 2))
    x, y = symbolic(features=2, length=None), pt.dtensor3("y")
    before = [pt.dmatrix(n) for n in "hc"]
    output, *last = plain(x, initial_state=before)
    kernel, bias = pt.dmatrix("kernel"), pt.dvector("bias")
    loss = ((output @ kernel + bias - y) ** 2).mean()
    weights = [*plain.weights, kernel, bias]
    gradients = pytensor.grad(loss, weights)
    f = backend.compile([x, y, kernel, bias, *before], [loss, *last, *gradients], name="hand")
    values, states = start, [np.zeros((3, 2))] * 2
    for part in HALVES:
        plain.set_weights(values[:3])
        figure, *rest = f(LONG[:, part], TARGET[:, part], *values[3:], *states)
        states, values = rest[:2], [v - 0.1 * g for v, g in zip(values, rest[2:], strict=True)]
        by_hand.append(float(figure))
    losses = [model.train_on_batch(LONG[:, part], TARGET[:, part]) for part in HALVES]
    np.testing.assert_allclose(losses, by_hand, rtol=1e-10)
    for mine, expected in zip(model.get_weights(), values, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-12)
    for mine, expected in zip(layer.get_states(), states, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-12)


def test_evaluation_and_prediction_keep_the_training_states():
    model = stateful_model(None)
    model.compile("sgd", "mse")
    model.train_on_batch(LONG, TARGET)
    layer = model.layers[0]
    before = layer.get_states()
    first = model.evaluate(LONG, TARGET, batch_size=2), model.predict(LONG, batch_size=2)
    model.test_on_batch(LONG, TARGET), model.predict_on_batch(LONG)
    own = layer.get_states("test"), layer.get_states("predict")
    second = model.evaluate(LONG, TARGET, batch_size=2), model.predict(LONG, batch_size=2)
    assert first[0] == second[0]
    np.testing.assert_array_equal(first[1], second[1])
    for a, b in zip(before, layer.get_states(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(own, (layer.get_states("test"), layer.get_states("predict")), strict=True):
        np.testing.assert_array_equal(a, b)
    model.fit(LONG, TARGET, shuffle=False, validation_data=(LONG, TARGET), verbose=0)
    np.testing.assert_array_equal(own[0], layer.get_states("test"))


def test_evaluation_carries_separate_states_across_batches():
    model = stateful_model(None)
    model.compile("sgd", "mse")
    rows = np.concatenate([LONG[:, :4], LONG[:, 4:]])  # two consecutive batches of three
    targets = np.concatenate([TARGET[:, :4], TARGET[:, 4:]])
    whole = model.evaluate(LONG, TARGET)
    assert model.evaluate(rows, targets, batch_size=3) == pytest.approx(whole, rel=1e-10)
    outputs = model.predict(rows, batch_size=3)
    np.testing.assert_allclose(
        np.concatenate([outputs[:3], outputs[3:]], axis=1), model.predict(LONG), rtol=1e-10
    )


def test_fit_carries_states_across_batches():
    rows = np.concatenate([LONG[:, :4], LONG[:, 4:]])
    targets = np.concatenate([TARGET[:, :4], TARGET[:, 4:]])
    fitted, stepped = stateful_model(None), stateful_model(None)
    for model in (fitted, stepped):
        model.compile("sgd", "mse")
        model.build((None, None, 2))
    stepped.set_weights(fitted.get_weights())
    fitted.fit(rows, targets, batch_size=3, epochs=2, shuffle=False, verbose=0)
    for part in [*HALVES, *HALVES]:
        stepped.train_on_batch(LONG[:, part], TARGET[:, part])
    for a, b in zip(
        fitted.get_weights() + fitted.layers[0].get_states(),
        stepped.get_weights() + stepped.layers[0].get_states(),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@EVERY_PATH
def test_a_batch_of_another_size_starts_from_zeros(path):
    model = stateful_model(path)
    fresh = model.predict(LONG[:2, :4])
    model.predict_on_batch(LONG[:, :4])
    np.testing.assert_allclose(model.predict_on_batch(LONG[:2, :4]), fresh, rtol=1e-12)
    assert [s.shape for s in model.layers[0].get_states("predict")] == [(2, 2)] * 2
    # The next batch of the same size continues from these states.
    assert not np.allclose(model.predict_on_batch(LONG[:2, :4]), fresh)
    assert model.predict_on_batch(LONG[:1, :4]).shape == (1, 4, 1)


@EVERY_PATH
def test_a_batch_and_units_of_one_carry_their_states(path):
    model = seqnet.Model([SimpleRNN(1, stateful=True, return_sequences=True, **options_of(path))])
    whole = model.predict(LONG[:1])
    halves = [model.predict_on_batch(LONG[:1, part]) for part in HALVES]
    np.testing.assert_allclose(np.concatenate(halves, axis=1), whole, rtol=1e-10)


def test_states_are_read_set_and_reset():
    model = stateful_model(None)
    layer = model.layers[0]
    with pytest.raises(ValueError, match="not built"):
        layer.get_states()
    fresh = model.predict_on_batch(LONG[:, :4])
    after = layer.get_states("predict")
    on = model.predict_on_batch(LONG[:, 4:])
    layer.set_states(after, "predict")
    np.testing.assert_array_equal(model.predict_on_batch(LONG[:, 4:]), on)
    model.reset_states()
    assert [s.shape for s in layer.get_states("predict")] == [(0, 2)] * 2
    np.testing.assert_array_equal(model.predict_on_batch(LONG[:, :4]), fresh)
    assert [s.shape for s in layer.get_states()] == [(0, 2)] * 2  # no training so far


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([np.zeros((3, 2))], "carries 2 states, but 1 were given"),
        ([np.zeros((3, 2)), np.zeros((3, 1))], r"\(batch, 2\), \(batch, 2\); got"),
        ([np.zeros((3, 2)), np.zeros((4, 2))], r"\(batch, 2\), \(batch, 2\); got"),
        ([np.zeros(2), np.zeros(2)], r"\(batch, 2\), \(batch, 2\); got"),
    ],
)
def test_invalid_states_are_refused_and_none_is_set(values, message):
    layer = LSTM(2, stateful=True)
    layer.ensure_built((None, None, 3))
    with pytest.raises(ValueError, match=message):
        layer.set_states(values)
    assert [s.shape for s in layer.get_states()] == [(0, 2)] * 2


def test_names_of_runs_and_layers_without_states_are_refused():
    layer = LSTM(2, stateful=True)
    layer.ensure_built((None, None, 3))
    with pytest.raises(ValueError, match="A run is one of train, test, predict"):
        layer.get_states("validation")
    with pytest.raises(ValueError, match="'gru' is not stateful"):
        GRU(2).get_states()
    with pytest.raises(ValueError, match="contradict"):
        LSTM(2, stateful=True, learn_initial_state=True)


def test_a_file_keeps_carried_states_and_training_continues_exactly(tmp_path):
    model = stateful_model(None)
    model.add(Bidirectional(GRU(2, stateful=True, dtype="float64")))
    model.add(Dense(1, dtype="float64"))
    model.compile("adam", "mse")
    model.train_on_batch(LONG[:, :4], TARGET[:, 0])
    model.predict_on_batch(LONG[:2])
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    for run in ("train", "test", "predict"):
        for mine, its in zip(model.layers, again.layers, strict=True):
            if mine.stateful:
                for a, b in zip(mine.get_states(run), its.get_states(run), strict=True):
                    np.testing.assert_array_equal(a, b)
    assert again.train_on_batch(LONG[:, 4:], TARGET[:, 0]) == model.train_on_batch(
        LONG[:, 4:], TARGET[:, 0]
    )
    np.testing.assert_array_equal(
        again.predict_on_batch(LONG[:2]), model.predict_on_batch(LONG[:2])
    )
    model.load_weights(tmp_path / "model.h5")  # a file with states also has weights


def test_a_stepper_starts_from_zeros_and_does_not_change_carried_states():
    model = seqnet.Model([Embedding(5, 3), LSTM(2, stateful=True)])
    tokens = np.array([[1, 2, 3]])
    expected = model.predict(tokens)
    model.predict_on_batch(tokens)
    states = model.layers[1].get_states("predict")
    stepper = Stepper(model)
    for t in range(3):
        output = stepper(tokens[:, t])
    np.testing.assert_allclose(output, expected, rtol=1e-5)
    for a, b in zip(states, model.layers[1].get_states("predict"), strict=True):
        np.testing.assert_array_equal(a, b)


@EVERY_PATH
def test_ragged_sequences_keep_their_order(path):
    model = stateful_model(path)
    rows = [LONG[0, :5], LONG[1, :2], LONG[0, 5:], LONG[1, 2:]]
    outputs = model.predict(rows, batch_size=2)
    whole = model.predict(LONG[:2])
    np.testing.assert_allclose(np.concatenate([outputs[0], outputs[2]]), whole[0], rtol=1e-10)
    np.testing.assert_allclose(np.concatenate([outputs[1], outputs[3]]), whole[1], rtol=1e-10)


def test_shuffling_with_carried_states_is_reported(caplog):
    model = stateful_model(None)
    with caplog.at_level(logging.WARNING, logger="seqnet"):
        model.fit(LONG, TARGET, verbose=0, shuffle=False)
        assert not caplog.records
        model.fit(LONG, TARGET, verbose=0)
    assert "shuffle=False" in caplog.text


def test_a_stateful_layer_called_alone_does_not_store_states():
    layer = SimpleRNN(2, stateful=True, return_sequences=True, dtype="float64")
    x = symbolic(length=None)
    context = CallContext()
    y = layer(x, context=context)
    assert len(context.updates) == 1
    f = backend.compile([x], [y], context.updates, name="test")
    halves = [f(X[:, :2])[0], f(X[:, 2:])[0]]
    layer.reset_states()
    np.testing.assert_allclose(np.concatenate(halves, axis=1), f(X)[0], rtol=1e-12)

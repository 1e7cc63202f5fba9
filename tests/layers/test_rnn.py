"""`RNN`, cells and stacks of cells: Keras's values, calls by hand, files, resuming, errors."""

import json

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from cells import KerasStyleCell, Leaky, ZhouUnit
from helpers import Plug
from reference import load_arrays

import seqnet
from seqnet import backend, layers
from seqnet.callbacks import BackupAndRestore
from seqnet.layers import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    Cell,
    Dense,
    GRUCell,
    Layer,
    LSTMCell,
    SimpleRNNCell,
    StackedRNNCells,
)

STORED = load_arrays("keras_cells")
X = np.random.default_rng(0).normal(size=(4, 6, 3))
MASK = np.array([[1] * 6, [0, 1, 0, 1, 1, 0], [1, 0, 0, 0, 0, 0], [0] * 6], dtype=bool)


def stored_of(arrays, name):
    return [arrays[f"{name}_{k}"] for k in range(len(arrays)) if f"{name}_{k}" in arrays]


def made_like(arrays, **loop):
    """Return the cell, or RNN, of a stored case with its weights."""
    cells = [getattr(layers, n)(dtype="float64", **c) for n, c in json.loads(str(arrays["cells"]))]
    options = json.loads(str(arrays["options"]))
    cell = cells if len(cells) > 1 else cells[0]
    if options is not None:
        layer = RNN(cell, **options, **loop)
    else:
        layer = StackedRNNCells(cell) if len(cells) > 1 else cell
    layer.ensure_built((None, *arrays["x"].shape[1:]))
    layer.set_weights(stored_of(arrays, "weight"))
    return layer


# ------------------------------------------------------------------------ Keras's values


@pytest.mark.parametrize("path", ["auto", pytest.param("scan", marks=pytest.mark.slow), "unroll"])
@pytest.mark.parametrize("name", [n for n in STORED if not n.startswith("call")])
def test_rnn_has_the_values_and_gradients_of_keras(name, path):
    arrays = STORED[name]
    options = {"auto": {}, "scan": {"fused": False}, "unroll": {"unroll": True}}[path]
    layer = made_like(arrays, **options)
    x = pt.tensor("x", dtype="float64", shape=arrays["x"].shape)
    states = [pt.dmatrix() for _ in layer.state_names]
    mask = pt.constant(arrays["mask"]) if "mask" in arrays else None
    y, *last = layer(x, mask=mask, initial_state=states)
    wanted = [x, *states, *layer.weights]
    gradients = pytensor.grad(pt.sum(y * arrays["cotangent"]), wanted)
    f = backend.compile([x, *states], [y, *last, *gradients], name="test")
    found = f(arrays["x"], *stored_of(arrays, "state"))
    expected = [arrays["y"], *stored_of(arrays, "last"), arrays["d_x"]]
    expected += [*stored_of(arrays, "d_state"), *stored_of(arrays, "d_weight")]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", [n for n in STORED if n.startswith("call")])
def test_a_cell_called_by_hand_has_the_values_of_keras(name):
    arrays = STORED[name]
    cell = made_like(arrays)
    states = stored_of(arrays, "state")
    y, last = cell(arrays["x"], states)
    np.testing.assert_allclose(y, arrays["y"], rtol=1e-10, atol=1e-12)
    for one, other in zip(last, stored_of(arrays, "last"), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    x = pt.tensor("x", dtype="float64", shape=arrays["x"].shape)
    variables = [pt.dmatrix() for _ in states]
    symbolic, _ = cell(x, variables)
    gradients = pytensor.grad(pt.sum(symbolic * arrays["cotangent"]), [x, *cell.weights])
    found = backend.compile([x, *variables], gradients, name="test")(arrays["x"], *states)
    for one, other in zip(found, [arrays["d_x"], *stored_of(arrays, "d_weight")], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


# -------------------------------------------------------------------- one mechanism


@pytest.mark.parametrize(
    ("layer", "cell"), [(LSTM, LSTMCell), (GRU, GRUCell), (layers.SimpleRNN, SimpleRNNCell)]
)
def test_a_layer_is_rnn_over_its_cell(layer, cell):
    outputs = []
    for make in (lambda: layer(4), lambda: RNN(cell(4))):
        seqnet.set_random_seed(0)
        model = seqnet.Model([make(), Dense(1)])
        model.compile("adam", "mse")
        model.fit(X, X[:, 0, :1], epochs=2, verbose=0)
        assert "fused" in model.layers[0].runs_as(backend.execution_mode) or not backend.native()
        outputs.append(model.predict(X))
    np.testing.assert_array_equal(*outputs)


def test_weights_keep_their_names_in_a_layer_and_have_those_of_the_cell_in_rnn():
    names = []
    for layer in (LSTM(2, name="a"), RNN(LSTMCell(2), name="a"), RNN([GRUCell(2), LSTMCell(3)])):
        layer.ensure_built((None, None, 3))
        names.append([weight.name for weight in layer.weights])
    assert names[0] == ["a/kernel", "a/recurrent_kernel", "a/bias"]
    assert names[1] == [f"a/lstm_cell/{n}" for n in ("kernel", "recurrent_kernel", "bias")]
    assert names[2][0] == "rnn/stacked_rnn_cells/0_gru_cell/kernel"
    assert names[2][-1] == "rnn/stacked_rnn_cells/1_lstm_cell/bias"


def test_a_stack_of_cells_is_a_stack_of_layers():
    seqnet.set_random_seed(1)
    stack = seqnet.Model([RNN([LSTMCell(4), ZhouUnit(3), SimpleRNNCell(2)])])
    stack.build((None, None, 3))
    each = seqnet.Model(
        [LSTM(4, return_sequences=True), ZhouUnit(3, return_sequences=True), layers.SimpleRNN(2)]
    )
    each.build((None, None, 3))
    each.set_weights(stack.get_weights())
    np.testing.assert_allclose(
        stack.predict(X, mask=MASK), each.predict(X, mask=MASK), rtol=2e-5, atol=1e-6
    )


class TwoOutputs(Layer):
    """A cell whose output is none of its states, of another size, with a layer inside."""

    def __init__(self, size, **options):
        super().__init__(**options)
        self.size = size
        self.state_size, self.output_size = [size, 2], 5
        self.inside, self.read = Dense(size, "tanh"), Dense(5)

    def call(self, inputs, states):
        h, total = states
        h = 0.5 * h + self.inside(inputs)
        return self.read(h), [h, total + inputs[:, :2]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"unroll": True}])
def test_an_output_that_is_no_state(options, dtype):
    seqnet.config.set_floatx(dtype)
    layer = RNN(TwoOutputs(3), return_sequences=True, return_state=True, **options)
    x = pt.tensor("x", dtype=dtype, shape=(4, 6, 3))
    y, *last = layer(x, mask=pt.constant(MASK))
    assert [v.type.shape[-1] for v in last] == [3, 2]
    cost = pt.sum(y**2)
    f = backend.compile([x], [y, *last, *pytensor.grad(cost, layer.weights)], name="test")
    y, h, total, *gradients = f(X.astype(dtype))
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
    kernel, bias, read, read_bias = layer.get_weights()
    state, output = np.zeros((4, 3)), np.zeros((4, 5))
    for t in range(6):
        new = 0.5 * state + np.tanh(X[:, t] @ kernel + bias)
        here = MASK[:, t, None]
        state = np.where(here, new, state)
        output = np.where(here, new @ read + read_bias, output)
        np.testing.assert_allclose(y[:, t], output, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(h, state, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(total, (X[:, :, :2] * MASK[..., None]).sum(1), rtol=1e-5, atol=1e-6)


# ----------------------------------------------------------------------------- by hand


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_by_hand_are_the_layer(dtype):
    stack = StackedRNNCells([LSTMCell(4, dtype=dtype), Leaky(3, dtype=dtype)])
    model = seqnet.Model([RNN(stack, return_sequences=True)])
    whole = model.predict(X)
    states = stack.get_initial_state(4)
    for t in range(6):
        output, states = stack(X[:, t], states)
        assert output.dtype == dtype
        np.testing.assert_allclose(output, whole[:, t], rtol=2e-5, atol=1e-6)


def test_a_cell_alone_has_one_state_without_a_list():
    cell = GRUCell(2)
    output, (state,) = cell(X[:, 0], np.zeros((4, 2)))
    np.testing.assert_array_equal(output, state)


def test_dropout_by_hand_is_that_of_training():
    cell = LSTMCell(3, dropout=0.5, recurrent_dropout=0.5, dtype="float64")
    x, states = pt.tensor("x", dtype="float64", shape=(4, 3)), [np.ones((4, 3))] * 2
    outputs = [cell(x, states, training=training)[0] for training in (False, True)]
    still, dropped = backend.compile([x], outputs, name="test")(X[:, 0])
    np.testing.assert_allclose(still, cell(X[:, 0], states)[0], rtol=1e-12)
    assert not np.allclose(still, dropped)


@pytest.mark.parametrize(
    ("x", "states", "message"),
    [
        (X[:, 0], None, r"'lstm_cell' .*its 2 states \(h, c\): cell\(x, states\)"),
        (X, [np.zeros((4, 2))] * 2, r"takes numbers of the shape \(batch, features\).*\(4, 6, 3\)"),
        (X[:, 0], [np.zeros((4, 2))], r"takes the states h \(4, 2\), c \(4, 2\).*got \(4, 2\)"),
        (X[:, 0], [np.zeros((4, 3))] * 2, r"takes the states h \(4, 2\), c \(4, 2\)"),
        (X[:, 0], [np.zeros((3, 2))] * 2, "for an input of 4 rows"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(x, states, message):
    with pytest.raises((TypeError, ValueError), match=message):
        LSTMCell(2)(x, states)


def model_of_everything():
    cells = [LSTMCell(4, dropout=0.2, recurrent_dropout=0.2), GRUCell(3), KerasStyleCell(2)]
    return seqnet.Model([RNN(cells, return_sequences=True, stateful=True), Dense(1)])


def test_a_model_is_saved_loaded_copied_and_resumed(tmp_path):
    y = X[:, :, :1]

    def run(stop):
        seqnet.set_random_seed(5)
        model = model_of_everything()
        model.compile("adam", "mse")
        backup = BackupAndRestore(tmp_path / "run")
        try:
            model.fit(
                X, y, batch_size=2, epochs=4, verbose=0, callbacks=[backup, Plug(stop)], mask=MASK
            )
        except RuntimeError:
            return None
        return model

    whole = run(None)
    assert run(3) is None
    resumed = run(None)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    whole.reset_states()
    expected = whole.predict(X)
    whole.reset_states()
    whole.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(again.predict(X), expected)
    assert again.layers[0].get_config() == whole.layers[0].get_config()


def test_stateful_and_truncated_gradients():
    seqnet.set_random_seed(2)
    model = seqnet.Model([RNN([LSTMCell(4), GRUCell(3)], return_sequences=True, stateful=True)])
    halves = [model.predict_on_batch(part) for part in (X[:, :3], X[:, 3:])]
    assert [s.shape for s in model.layers[0].get_states("predict")] == [(4, 4), (4, 4), (4, 3)]
    model.reset_states()
    np.testing.assert_allclose(
        model.predict_on_batch(X), np.concatenate(halves, axis=1), rtol=1e-5, atol=1e-6
    )
    plain = seqnet.Model([RNN([LSTMCell(4), GRUCell(3)], return_sequences=True), Dense(1)])
    plain.compile("adam", "mse")
    history = plain.fit(X, X[:, :, :1], epochs=8, tbptt=2, verbose=0).history["loss"]
    assert history[-1] < history[0]


def test_both_directions_of_a_stack():
    layer = Bidirectional(RNN([LSTMCell(4), GRUCell(3)], return_sequences=True))
    model = seqnet.Model([layer])
    assert model.predict(X, mask=MASK).shape == (4, 6, 6)
    cells = [half.cell for half in layer.inner_layers]
    assert not {id(w) for w in cells[0].weights} & {id(w) for w in cells[1].weights}


def test_training_of_a_cell_can_be_switched_off():
    layer = RNN([LSTMCell(4), GRUCell(3)], trainable=False)
    layer.ensure_built((None, None, 3))
    assert not layer.trainable_weights
    layer.trainable = True
    layer.cell.cells[0].trainable = False
    assert len(layer.trainable_weights) == 3


# ----------------------------------------------------------------------- options of loops


@pytest.mark.parametrize("options", [{}, {"fused": False}, {"unroll": True}])
def test_outputs_of_a_backwards_layer_in_the_order_of_time(options):
    x, mask = pt.tensor("x", dtype="float64", shape=(4, 6, 3)), pt.constant(MASK)
    kept = {"go_backwards": True, "return_sequences": True, "dtype": "float64"} | options
    back, ordered = LSTM(3, **kept), LSTM(3, return_in_order=True, **kept)
    for layer in (back, ordered):
        layer.ensure_built((None, 6, 3))
    ordered.set_weights(back.get_weights())
    f = backend.compile([x], [back(x, mask=mask), ordered(x, mask=mask)], name="test")
    reverse, found = f(X)
    np.testing.assert_array_equal(found, reverse[:, ::-1])
    assert ordered.compute_mask(x, mask) is mask
    assert not ordered.reverses_time


def test_zero_output_for_mask_with_reversed_outputs():
    layer = LSTM(3, go_backwards=True, return_sequences=True, zero_output_for_mask=True)
    output = seqnet.Model([layer]).predict(X, mask=MASK)
    np.testing.assert_array_equal(output.any(axis=2), MASK[:, ::-1])


@pytest.mark.parametrize("options", [{}, {"fused": False}, {"unroll": True}])
def test_a_constant_initial_state_is_that_of_every_sequence(options):
    layer = GRU(3, initial_state_value=0.5, dtype="float64", **options)
    x = pt.tensor("x", dtype="float64", shape=(4, 6, 3))
    given = layer(x, initial_state=np.full(3, 0.5))
    one, other = backend.compile([x], [layer(x), given], name="test")(X)
    np.testing.assert_allclose(one, other, rtol=1e-12)
    np.testing.assert_array_equal(layer.get_initial_state(2)[0], np.full((2, 3), 0.5))
    learned = GRU(3, initial_state_value=0.5, learn_initial_state=True)
    learned.ensure_built((None, None, 3))
    np.testing.assert_array_equal(learned.get_weights()[-1], np.full(3, 0.5))
    with pytest.raises(ValueError, match="initial_state_value contradict"):
        GRU(3, initial_state_value=0.5, stateful=True)


@pytest.mark.parametrize(("mode", "carried"), [("training", "train"), ("evaluation", "predict")])
def test_states_are_carried_in_training_or_in_evaluation_only(mode, carried):
    model = seqnet.Model([GRU(3, stateful=mode), Dense(1)])
    model.compile("sgd", "mse")
    model.fit(X, X[:, 0, :1], epochs=1, verbose=0, shuffle=False)
    first, second = model.predict_on_batch(X), model.predict_on_batch(X)
    assert np.array_equal(first, second) == (mode == "training")
    for run in ("train", "predict"):
        filled = len(model.layers[0].get_states(run)[0]) > 0
        assert filled == (run == carried)
    with pytest.raises(ValueError, match="'training' or 'evaluation', got 'always'"):
        GRU(3, stateful="always")


# ------------------------------------------------------------------------ options of LSTM


def numpy_lstm(layer, x, mask):
    """Return the outputs and last states of an LSTM with options, by its equations."""
    found = {w.name.partition("/")[2]: w.get_value() for w in layer.weights}
    c, h = np.zeros((len(x), layer.units)), np.zeros((len(x), layer.state_sizes[0]))
    outputs = []
    for t in range(x.shape[1]):
        z = x[:, t] @ found["kernel"] + h @ found["recurrent_kernel"] + found["bias"]
        z = dict(zip(layer.gates, np.split(z, len(layer.gates), axis=1), strict=True))
        p = found.get("peephole_kernel", np.zeros((3, layer.units)))
        i = 1 / (1 + np.exp(-(z["i"] + p[0] * c)))
        f = 1 - i if layer.coupled_gates else 1 / (1 + np.exp(-(z["f"] + p[1] * c)))
        new = f * c + i * np.tanh(z["c"])
        o = 1 / (1 + np.exp(-(z["o"] + p[1 if layer.coupled_gates else 2] * new)))
        output = o * (np.maximum(new, 0) if layer.output_activation is relu else np.tanh(new))
        output = output @ found["projection_kernel"] if layer.projection else output
        here = mask[:, t, None]
        c, h = np.where(here, new, c), np.where(here, output, h)
        outputs.append(h)
    return np.stack(outputs, axis=1), h, c


relu = seqnet.activations.relu
LSTM_OPTIONS = {
    "peepholes": {"peepholes": True},
    "coupled": {"coupled_gates": True, "peepholes": True},
    "projection": {"projection": 2, "output_activation": "relu"},
    "wide": {"projection": 5, "coupled_gates": True},
}


@pytest.mark.parametrize("path", ["auto", "unroll"])
@pytest.mark.parametrize("name", LSTM_OPTIONS)
def test_options_of_lstm_compute_their_equations(name, path):
    options = LSTM_OPTIONS[name] | ({"unroll": True} if path == "unroll" else {})
    layer = LSTM(3, return_sequences=True, return_state=True, dtype="float64", **options)
    x = pt.tensor("x", dtype="float64", shape=(4, 6, 3))
    y, *last = layer(x, mask=pt.constant(MASK))
    layer.set_weights([np.sin(w + np.arange(w.size).reshape(w.shape)) for w in layer.get_weights()])
    gradients = pytensor.grad(pt.sum(y**2), layer.weights)
    f = backend.compile([x], [y, *last, *gradients], name="test")
    found = f(X)
    for one, other in zip(found[:3], numpy_lstm(layer, X, MASK), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    for place, weight in enumerate(layer.weights):
        value = weight.get_value()
        value.flat[1] += 1e-6
        weight.set_value(value)
        above = np.sum(numpy_lstm(layer, X, MASK)[0] ** 2)
        value.flat[1] -= 2e-6
        weight.set_value(value)
        slope = (above - np.sum(numpy_lstm(layer, X, MASK)[0] ** 2)) / 2e-6
        value.flat[1] += 1e-6
        weight.set_value(value)
        np.testing.assert_allclose(found[3 + place].flat[1], slope, rtol=1e-5, atol=1e-7)
    assert layer.weights[1].get_value().shape == (layer.state_sizes[0], 3 * len(layer.gates))


def test_options_of_lstm_are_saved_and_work_in_both_directions(tmp_path):
    seqnet.set_random_seed(0)
    layer = LSTM(4, projection=3, peepholes=True, coupled_gates=True, return_sequences=True)
    model = seqnet.Model([Bidirectional(layer), Dense(1)])
    assert model.predict(X).shape == (4, 6, 1)
    assert model.layers[0].compute_output_shape((None, 6, 3)) == (None, 6, 6)
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


# ------------------------------------------------------------------------------- errors


def wrong_cell(result, state_size=2):
    class Wrong(Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.state_size = state_size

        def call(self, inputs, states):
            return result(inputs, states)

    return Wrong(name="mine")


WRONG_CELLS = {
    "no pair": (lambda x, s: s[0], "mine' .*must return two things: output, new states"),
    "another number": (lambda x, s: (s[0], s + s), r"mine' .*1 new states \(state0\).*got 2"),
    "another size": (
        lambda x, s: (x[:, :1], [pt.concatenate([s[0], s[0]], axis=1)]),
        r"mine' .*new state 'state0' in the shape \(batch, 2\), got \(None, 4\)",
    ),
    "another rank": (lambda x, s: (x, [s[0].sum()]), "mine' .*new state 'state0' as numbers"),
    "another dtype": (lambda x, s: (x, [s[0] * 1j]), "mine' .*'state0' as numbers.*complex"),
    "a variable that is no weight": (
        lambda x, s: (s[0], [s[0] * pytensor.shared(np.ones(2, "float32"), name="scale")]),
        "mine' .*shared variable scale in its step, which is not one of its weights",
    ),
}


@pytest.mark.parametrize("name", WRONG_CELLS)
def test_a_wrong_cell_is_refused_by_name_before_anything_is_compiled(name, monkeypatch):
    result, message = WRONG_CELLS[name]
    monkeypatch.setattr(backend, "compile", lambda *given, **options: pytest.fail("compiled"))
    with pytest.raises((TypeError, ValueError), match=message):
        seqnet.Model([RNN(wrong_cell(result))]).predict(X)


def test_a_wrong_step_within_a_stack_is_named():
    class Short(Cell):
        gates, state_names = ("h",), ("h", "c")

        def step(self, x, states, recur):
            return (states[0],)

    with pytest.raises(ValueError, match=r"Short.* a tuple of its 2 new states \(h, c\).*got 1"):
        seqnet.Model([RNN([LSTMCell(2), Short(3)])]).predict(X)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RNN(Dense(3)), "RNN takes cells.*got <Dense 'dense'>"),
        (lambda: RNN(3), "RNN takes cells.*got 3"),
        (lambda: RNN([]), r"takes a list of cells, got \[\]"),
        (lambda: RNN([LSTMCell(2), 3]), "StackedRNNCells takes cells.*got 3"),
        (lambda: RNN([(c := LSTMCell(2)), c]), "the same cell twice"),
        (lambda: RNN([LSTMCell(2), GRUCell(2, dtype="float64")]), "one dtype, got float32 and"),
        (lambda: RNN(LSTMCell(2), dtype="float64"), "dtype float64 and its cell float32"),
        (lambda: RNN(wrong_cell(None, state_size=None)), "mine' .*is no cell.*state_size"),
        (lambda: RNN(wrong_cell(None, state_size=[2, 0])), "state_size of Layer 'mine'"),
        (lambda: RNN(LSTM(2, stateful=True)), "option of RNN"),
        (lambda: RNN(LSTMCell(2), units=3), "RNN takes no argument 'units'"),
    ],
)
def test_what_is_no_cell_is_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


# --------------------------------------------------------------------------- model.step


def test_a_model_stepped_by_hand_is_the_model():
    model = seqnet.Model([RNN([LSTMCell(4), GRUCell(3)], return_sequences=True), Dense(2)])
    whole = model.predict(X)
    states = None
    for t in range(6):
        output, states = model.step(X[:, t], states)
        np.testing.assert_allclose(output, whole[:, t], rtol=1e-5, atol=1e-6)
    again, _ = model.step(X[:, 0])
    np.testing.assert_allclose(again, whole[:, 0], rtol=1e-5, atol=1e-6)


def test_a_functional_model_stepped_by_hand_is_the_model():
    sequence, context = seqnet.Input((None, 3), name="sequence"), seqnet.Input((2,), name="context")
    h = LSTM(4, return_sequences=True)(sequence)
    each = Dense(2, name="each")(h)
    last = Dense(1, name="last")(layers.Add()([GRU(4)(h), Dense(4)(context)]))
    model = seqnet.Model([sequence, context], {"each": each, "last": last})
    fixed = X[:, 0, :2]
    whole = model.predict({"sequence": X, "context": fixed})
    states = None
    for t in range(6):
        outputs, states = model.step({"sequence": X[:, t], "context": fixed}, states)
        np.testing.assert_allclose(outputs["each"], whole["each"][:, t], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(outputs["last"], whole["last"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "states", "message"),
    [
        (X, None, "The step must have 2 axes.*without time"),
        (X[:, 0], [np.zeros((4, 2))], r"states .* are lstm/h \(batch, 4\), lstm/c.*got \(4, 2\)"),
        (X[:, 0], [np.zeros((3, 4))] * 2, "those of 3 sequences, but this step has 4"),
        (X[:, 0] * np.nan, None, "The step"),
    ],
)
def test_a_step_that_does_not_fit_is_refused(x, states, message):
    model = seqnet.Model([LSTM(4)])
    model.build((None, None, 3))
    with pytest.raises(ValueError, match=message):
        model.step(x, states)

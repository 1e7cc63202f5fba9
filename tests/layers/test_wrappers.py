import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from cells import CELLS, ZhouUnit
from reference import numpy_layers

import seqnet
from seqnet import backend, registry
from seqnet.generation import Stepper
from seqnet.layers import (
    GRU,
    LSTM,
    Bidirectional,
    CallContext,
    Dense,
    Masking,
    SimpleRNN,
    TimeDistributed,
)

X = np.random.default_rng(1997).normal(size=(4, 5, 3))
# No masked step; padding before, between and after; padding after; all steps masked.
MASK = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=bool)
NUMPY_CELLS = {
    "simple_rnn": numpy_layers.SimpleRNNCell(),
    "lstm": numpy_layers.LSTMCell(),
    "gru": numpy_layers.GRUCell(),
}
PATHS = {"scan": {"fused": False}, "unroll": {"unroll": True}, "fused": {}}


# ------------------------------------------------------------------------ time distributed


def test_time_distributed_dense_equals_dense():
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    inner = Dense(5, "softmax", dtype="float64")
    layer = TimeDistributed(inner)
    symbolic = pt.tensor("x", dtype="float64", shape=(None, None, 4))
    f = backend.compile([symbolic], [layer(symbolic), inner(symbolic)], name="test")
    ours, expected = f(x)
    assert ours.shape == (2, 3, 5)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    assert layer.compute_output_shape((None, None, 4)) == (None, None, 5)
    assert layer.weights == inner.weights


def test_time_distributed_applies_a_recurrent_layer_at_every_step():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 2))
    inner = LSTM(5, dtype="float64")
    layer = TimeDistributed(inner)
    symbolic = pt.tensor("x", dtype="float64", shape=(None, None, None, 2))
    steps = pt.tensor("steps", dtype="float64", shape=(None, None, 2))
    f = backend.compile([symbolic, steps], [layer(symbolic), inner(steps)], name="test")
    ours, expected = f(x, x[:, 1])
    np.testing.assert_allclose(ours[:, 1], expected, rtol=1e-12)


@pytest.mark.parametrize("path", PATHS)
def test_a_model_with_a_sequence_at_every_step_trains(path):
    """Sequences of vectors at every step, also ragged; the inner layer uses any path."""
    seqnet.set_random_seed(0)
    inner = LSTM(2, dtype="float64", **PATHS[path])
    model = seqnet.Model([TimeDistributed(inner), GRU(2, return_sequences=True, dtype="float64")])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 2))
    whole = model.predict(x)
    shorter = model.predict([x[0], x[1, :2]])
    np.testing.assert_allclose(shorter[0], whole[0], rtol=1e-10)
    np.testing.assert_allclose(shorter[1], whole[1, :2], rtol=1e-10)
    assert model.fit(x, whole, tbptt=2, verbose=0).history["loss"][0] < 1e-20


@pytest.mark.parametrize("wrap", [TimeDistributed, Bidirectional])
def test_nested_stateful_layers_are_found(wrap, caplog):
    steps = {"return_sequences": wrap is Bidirectional}
    model = seqnet.Model([wrap(LSTM(2, stateful=True, **steps))])
    model.compile("sgd", "mse")
    x = np.ones((2, 3, 4, 2)) if wrap is TimeDistributed else X
    y = np.zeros(model.predict(x).shape)
    assert model.stateful
    assert not any(s.size for s in model.layers[0].inner_layers[0].get_states())
    with pytest.raises(ValueError, match=f"tbptt does not support layer '{model.layers[0].name}'"):
        model.fit(x, y, tbptt=2, shuffle=False, verbose=0)
    with caplog.at_level("WARNING", logger="seqnet"):
        model.fit(x, y, verbose=0)
    assert "shuffle=False" in caplog.text
    inner = model.layers[0].inner_layers[0]
    before = inner.get_states()
    assert before[0].any()
    model.evaluate(x, y), model.predict(x), model.test_on_batch(x, y)
    np.testing.assert_array_equal(inner.get_states(), before)
    model.reset_states()
    assert not inner.get_states()[0].size


def test_time_distributed_names_do_not_grow_when_it_round_trips():
    layer = TimeDistributed(Dense(2, kernel_regularizer="l2"), name="each")
    layer.ensure_built((None, None, 3))
    names = [w.name for w in layer.weights]
    assert names == ["each/dense/kernel", "each/dense/bias"]
    assert len(layer.penalties) == 1
    for _ in range(2):
        layer = registry.get("layer", registry.serialize(layer))
        layer.ensure_built((None, None, 3))
    assert [w.name for w in layer.weights] == names


def test_time_distributed_accepts_only_layers_with_one_output():
    with pytest.raises(ValueError, match="'lstm' returns several"):
        TimeDistributed(LSTM(2, return_state=True))
    with pytest.raises(TypeError, match="wraps a layer"):
        TimeDistributed("dense")


def test_a_frozen_wrapped_layer_keeps_its_weights():
    model = seqnet.Model([TimeDistributed(Dense(2, trainable=False)), LSTM(1)])
    model.compile("sgd", "mse")
    model.build((None, None, 3))
    before = model.get_weights()
    model.fit(X, X[:, 0, :1], verbose=0)
    same = [np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert same == [True, True, False, False, False]


# --------------------------------------------------------------------------- bidirectional


def compiled_bidirectional(layer, length=None):
    layer.ensure_built((None, length, 3))
    rng = np.random.default_rng(5)
    layer.set_weights([rng.normal(size=w.get_value().shape) for w in layer.weights])
    x = pt.tensor("x", dtype="float64", shape=(None, length, 3))
    mask = pt.matrix("mask", dtype="bool")
    context = CallContext(training=True)
    y = layer(x, mask=mask, context=context)
    gradients = pytensor.grad(pt.sum(y**2), [x, *layer.weights])
    return backend.compile([x, mask], [y, *gradients], name="test")


def reference(cell, layer, x):
    """Compute both directions for one unpadded sequence (time, features) in NumPy."""
    halves = []
    for half, sequence in ((layer.layer, x), (layer.backward_layer, x[::-1])):
        weights = {w.name.rpartition("/")[2]: w.get_value() for w in half.weights}
        y, _, _ = numpy_layers.recurrent(NUMPY_CELLS[cell], sequence[None], weights)
        halves.append(y[0])
    return halves[0], halves[1][::-1]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cell", NUMPY_CELLS)
def test_each_direction_ignores_padding(cell, path):
    layer = Bidirectional(CELLS[cell][0](2, return_sequences=True, dtype="float64", **PATHS[path]))
    y = compiled_bidirectional(layer, 5)(X, MASK)[0]
    assert y.shape == (4, 5, 4)
    for row, kept in enumerate(MASK[:3]):
        forth, back = reference(cell, layer, X[row, kept])
        expected = np.concatenate([forth, back], axis=1)
        np.testing.assert_allclose(y[row, kept], expected, rtol=1e-10, atol=1e-13)
    np.testing.assert_array_equal(y[3], 0)


@pytest.mark.parametrize(
    ("mode", "merged"),
    [
        ("concat", lambda a, b: np.concatenate([a, b])),
        ("sum", np.add),
        ("mul", np.multiply),
        ("ave", lambda a, b: (a + b) / 2),
    ],
)
def test_each_direction_returns_its_last_output_without_return_sequences(mode, merged):
    layer = Bidirectional(LSTM(2, dtype="float64"), merge_mode=mode)
    y = compiled_bidirectional(layer)(X, MASK)[0]
    for row, kept in enumerate(MASK[:3]):
        forth, back = reference("lstm", layer, X[row, kept])
        np.testing.assert_allclose(y[row], merged(forth[-1], back[0]), rtol=1e-10)
    assert layer.compute_output_shape((None, 5, 3)) == (None, y.shape[1])


@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave"])
def test_outputs_keep_their_float_type(mode):
    layer = Bidirectional(GRU(1), merge_mode=mode)
    x = pt.tensor("x", dtype="float32", shape=(None, None, 3))
    y = layer(x)
    assert y.dtype == "float32"
    assert layer.compute_output_shape((None, None, 3)) == (None, 2 if mode == "concat" else 1)


def test_padding_changes_nothing_about_values_or_gradients():
    layer = Bidirectional(GRU(2, dtype="float64"))
    f = compiled_bidirectional(layer)
    short, mask = X[:2, :3], np.ones((2, 3), bool)
    y, d_x, *d_weights = f(short, mask)
    for before, between, after in [(2, 0, 0), (0, 2, 0), (0, 0, 2), (1, 2, 3)]:
        places = np.array([before, before + 1 + between, before + 2 + between])
        padded = np.full((2, 3 + before + between + after, 3), 7.0)
        there = np.zeros(padded.shape[:2], bool)
        padded[:, places], there[:, places] = short, True
        y2, d_x2, *d_weights2 = f(padded, there)
        np.testing.assert_allclose(y2, y, rtol=1e-12)
        np.testing.assert_allclose(d_x2[:, places], d_x, rtol=1e-10, atol=1e-14)
        assert not d_x2[~there].any()
        for a, b in zip(d_weights2, d_weights, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def test_weights_are_named_after_their_direction_and_initialized_separately():
    layer = Bidirectional(LSTM(2, kernel_regularizer="l2", dropout=0.5), name="both")
    layer.ensure_built((None, None, 3))
    names = ["kernel", "recurrent_kernel", "bias"]
    expected = [f"both/{half}_lstm/{n}" for half in ("forward", "backward") for n in names]
    assert [w.name for w in layer.weights] == expected
    assert len(layer.penalties) == len(layer.generators) == 2
    assert not np.array_equal(layer.weights[0].get_value(), layer.weights[3].get_value())


def test_bidirectional_names_do_not_grow_when_it_round_trips():
    layer = Bidirectional(ZhouUnit(2), backward_layer=GRU(3, go_backwards=True, name="b"))
    for _ in range(3):
        layer.ensure_built((None, None, 3))
        names = [w.name for w in layer.weights]
        assert names[0] == "bidirectional/forward_zhou_unit/kernel"
        assert names[3] == "bidirectional/backward_b/kernel"
        layer = registry.get("layer", registry.serialize(layer))


def test_the_backward_layer_is_copied_with_unregistered_objects():
    first = LSTM(2, kernel_initializer=lambda shape, dtype: np.full(shape, 0.5, dtype))
    layer = Bidirectional(first)
    layer.ensure_built((None, None, 3))
    assert (layer.backward_layer.get_weights()[0] == 0.5).all()
    assert layer.backward_layer.go_backwards
    assert not first.go_backwards


def test_a_model_with_bidirectional_layers_trains_saves_and_loads(tmp_path):
    custom = {"ZhouUnit": ZhouUnit}
    model = seqnet.Model(
        [
            Masking(input_shape=(None, 3)),
            Bidirectional(LSTM(3, return_sequences=True, dropout=0.1)),
            Bidirectional(ZhouUnit(2), merge_mode="sum", backward_layer=None),
            Dense(1),
        ]
    )
    model.compile(seqnet.optimizers.Adam(0.03), "mse")
    y = X[:, :, 0].sum(axis=1, keepdims=True)
    losses = model.fit(X, y, epochs=60, verbose=0).history["loss"]
    assert losses[-1] < 0.2 * losses[0]
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5", custom_objects=custom)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert again.train_on_batch(X, y) == model.train_on_batch(X, y)


def test_states_of_both_directions_are_returned_and_accepted():
    layer = Bidirectional(LSTM(2, return_state=True, return_sequences=True, dtype="float64"))
    x = pt.tensor("x", dtype="float64", shape=(None, None, 3))
    states = [pt.dmatrix() for _ in range(4)]
    outputs = layer(x, initial_state=states)
    assert len(outputs) == 5
    f = backend.compile([x, *states], outputs, name="test")
    given = [np.full((4, 2), 0.1 * k) for k in range(4)]
    y, h, _, back_h, _ = f(X, *given)
    np.testing.assert_array_equal(y[:, -1, :2], h)
    np.testing.assert_array_equal(y[:, 0, 2:], back_h)
    forth, back = layer.inner_layers
    alone = [forth(x, initial_state=states[:2]), back(x, initial_state=states[2:])]
    g = backend.compile([x, *states], [alone[0][0], alone[1][0][:, ::-1]], name="test")
    np.testing.assert_array_equal(np.concatenate(g(X, *given), axis=-1), y)
    with pytest.raises(ValueError, match="list of 4: bidirectional/forward_lstm/h"):
        layer(x, initial_state=states[:2])


def test_without_merge_mode_both_outputs_are_returned():
    layer = Bidirectional(GRU(2), merge_mode=None)
    assert len(layer(pt.tensor("x", dtype="float32", shape=(None, None, 3)))) == 2


def test_the_input_shape_is_that_of_the_wrapped_layer():
    model = seqnet.Model([Bidirectional(LSTM(2, input_shape=(5, 3)))])
    assert model.built
    assert model.compute_output_shape((None, 5, 3)) == (None, 4)


def test_stateful_bidirectional_carries_the_states_of_both_directions():
    model = seqnet.Model([Bidirectional(GRU(2, stateful=True))])
    first, second = (model.predict_on_batch(X) for _ in range(2))
    assert (first[:, :2] != second[:, :2]).any()
    assert (first[:, 2:] != second[:, 2:]).any()
    layer = model.layers[0]
    assert [s.shape for s in layer.get_states("predict")] == [(4, 2)] * 2
    layer.reset_states()
    np.testing.assert_array_equal(model.predict_on_batch(X), first)
    layer.set_states([np.zeros((4, 2))] * 2, "predict")
    np.testing.assert_array_equal(model.predict_on_batch(X), first)
    with pytest.raises(ValueError, match="carries 2 states, but 1"):
        layer.set_states([np.zeros((4, 2))])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda: (Dense(2),), TypeError, "wraps a recurrent layer"),
        (lambda: (LSTM(2), "max"), ValueError, "merge_mode is one of 'concat'.*got 'max'"),
        (lambda: (LSTM(2), "sum", LSTM(2)), ValueError, "give backward_layer go_backwards=True"),
        (lambda: (LSTM(2), "sum", Dense(2)), TypeError, "another recurrent layer"),
        (
            lambda: (LSTM(2), "sum", GRU(3, go_backwards=True)),
            ValueError,
            "same units, got 2 and 3",
        ),
        (
            lambda: (LSTM(2), "concat", GRU(3, go_backwards=True, return_sequences=True)),
            ValueError,
            "same return_sequences",
        ),
    ],
)
def test_incompatible_directions_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Bidirectional(*arguments())


def test_bidirectional_cannot_run_step_by_step():
    model = seqnet.Model([Bidirectional(SimpleRNN(2), name="both")])
    model.build((None, None, 3))
    with pytest.raises(ValueError, match="'both' reads from both ends"):
        Stepper(model)


def test_the_summary_shows_how_both_directions_run():
    assert Bidirectional(LSTM(2, unroll=True)).runs_as(backend.execution_mode) == "unroll"
    mixed = Bidirectional(
        LSTM(2, fused=False), backward_layer=LSTM(2, unroll=True, go_backwards=True)
    )
    assert mixed.runs_as(backend.execution_mode) == "scan and unroll"
    assert mixed.needs_length
    assert not Bidirectional(LSTM(2)).needs_length

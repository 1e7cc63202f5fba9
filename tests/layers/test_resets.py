"""`resets=`: several sequences in one row are the same as each in a row of its own."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from cells import ALL, over_cells
from helpers import skip_without_kernel

import seqnet
from seqnet import backend
from seqnet.layers import GRU, LSTM, RNN, Bidirectional, Dense, Embedding, GRUCell

PATHS = {"scan": {"fused": False}, "unroll": {"unroll": True}, "fused": {"fused": True}}
EVERY_PATH = pytest.mark.parametrize("path", PATHS)

# Three rows of nine steps: (start, length) of the sequences in each; the mask has holes.
ROWS = [[(0, 4), (4, 3)], [(0, 1), (1, 2), (3, 6)], [(2, 5)]]
MASK = np.zeros((3, 9), dtype=bool)
RESETS = np.zeros((3, 9), dtype=bool)
for row, places in enumerate(ROWS):
    for start, length in places:
        MASK[row, start : start + length] = RESETS[row, start] = True
MASK[0, [1, 4]] = MASK[1, [6, 8]] = False  # a first step and a last one, too


def segments(resets, mask):
    """Return the row and the steps, (9,) bool, of each sequence of packed rows."""
    found = []
    for row, flags in enumerate(resets):
        number = np.cumsum(flags)
        found += [(row, (number == k) & mask[row]) for k in range(number[-1] + 1)]
    return [(row, steps) for row, steps in found if steps.any()]


def packed_and_separate(layer, masked=True, dtype="float64"):
    """Return outputs and gradients of packed rows, and of each sequence in a row of its own.

    The layer has `return_sequences`; the gradients are of the input and the weights.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 9, 3)).astype(dtype)
    mask = MASK if masked else np.ones_like(MASK)
    resets = RESETS if masked else RESETS | (np.arange(9) % 4 == 0)
    rows, alone = map(np.array, zip(*segments(resets, mask), strict=True))
    layer.ensure_built((None, 9, 3))
    size = layer.compute_output_shape((None, 9, 3))[-1]
    weights = rng.normal(size=(3, 9, size)).astype(dtype) * mask[..., None]

    def computed(x, weights, **options):
        given = pt.tensor(dtype=dtype, shape=(None, 9, 3))
        y = layer(given, **{name: pt.constant(value) for name, value in options.items()})
        found = pytensor.grad(pt.sum(y * pt.constant(weights)), [given, *layer.weights])
        return backend.compile([given], [y, *found], name="test")(x)

    y, d_x, *found = computed(x, weights, resets=resets, **({"mask": mask} if masked else {}))
    y_alone, d_alone, *expected = computed(x[rows], weights[rows] * alone[..., None], mask=alone)
    for array in (y, d_x, y_alone, d_alone):
        assert np.isfinite(array).all()
    for whole, parts in ((y, y_alone), (d_x, d_alone)):
        summed = np.zeros_like(whole)
        np.add.at(summed, rows, parts * alone[..., None])
        found.append(whole * mask[..., None])
        expected.append(summed)
    return found, expected


def assert_close(found, expected, tolerance=1e-9):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance / 10)


@EVERY_PATH
@pytest.mark.parametrize("masked", [True, pytest.param(False, marks=pytest.mark.slow)])
@over_cells(ALL, ("lstm", "two_sizes"))
def test_packed_rows_are_separate_sequences(cell, masked, path):
    cls, own = ALL[cell]
    if path == "fused":
        skip_without_kernel(cls, own)
    seqnet.set_random_seed(2)
    layer = cls(3, dtype="float64", return_sequences=True, **(PATHS[path] | own))
    assert_close(*packed_and_separate(layer, masked))


@EVERY_PATH
@pytest.mark.parametrize(
    "options",
    [
        {"learn_initial_state": True, "initial_state_value": 0.3},
        {"initial_state_value": -0.4, "go_backwards": True, "return_in_order": True},
    ],
)
def test_a_reset_starts_from_the_initial_state_of_the_layer(options, path):
    if path == "fused":
        skip_without_kernel(LSTM, {})
    layer = LSTM(3, dtype="float64", return_sequences=True, **(PATHS[path] | options))
    if layer.learn_initial_state:
        layer.ensure_built((None, 9, 3))
        layer.set_weights([w + 0.1 * np.arange(w.shape[-1]) for w in layer.get_weights()])
    assert_close(*packed_and_separate(layer))


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_packed_rows_in_float32(cell):
    cls, own = ALL[cell]
    layer = cls(17, dtype="float32", return_sequences=True, **own)
    assert_close(*packed_and_separate(layer, dtype="float32"), 2e-4)


def test_the_backward_half_of_bidirectional_resets_at_the_ends():
    layer = Bidirectional(GRU(3, dtype="float64", return_sequences=True), dtype="float64")
    assert_close(*packed_and_separate(layer))


def test_a_nan_of_the_sequence_before_does_not_matter():
    layer = RNN(GRUCell(2), return_sequences=True)
    x = np.ones((1, 4, 3), "float32")
    x[0, 1] = np.nan
    y = layer(x, resets=np.array([[0, 0, 1, 0]], dtype=bool))
    np.testing.assert_array_equal(y[:, 2:], layer(x[:, 2:]))
    assert np.isnan(y[0, 1]).all()


def test_an_initial_state_that_is_given_holds_before_the_first_reset_only():
    layer = GRU(2, return_sequences=True, return_state=True)
    x, h = np.random.default_rng(0).normal(size=(2, 5, 3)), np.full((2, 2), 0.5)
    resets = np.array([[0, 0, 0, 1, 0], [1, 0, 0, 0, 0]], dtype=bool)
    y, last = layer(x, initial_state=[h], resets=resets)
    given, plain = layer(x[:1, :3], initial_state=[h[:1]])[0], layer(x[:1, 3:])[0]
    np.testing.assert_allclose(y[0], np.concatenate([given[0], plain[0]]), rtol=1e-6)
    np.testing.assert_allclose(y[1], layer(x[1:])[0][0], rtol=1e-6)
    np.testing.assert_array_equal(last, y[:, -1])


def packed_model(**options):
    """Return a model with resets as an input."""
    seqnet.set_random_seed(3)
    x, resets = (
        seqnet.Input((None, 3), name="x"),
        seqnet.Input((None,), dtype="bool", name="resets"),
    )
    y = LSTM(4, return_sequences=True, **options)(x, resets=resets)
    return seqnet.Model([x, resets], Dense(1)(y))


def data(time=8):
    rng = np.random.default_rng(1)
    resets = rng.random((4, time)) < 0.3
    return {"x": rng.normal(size=(4, time, 3)).astype("float32"), "resets": resets}


def test_resets_are_an_input_of_a_model_and_saved_with_it(tmp_path):
    model = packed_model()
    found = model.predict(data())
    model.save(tmp_path / "model.h5")
    np.testing.assert_array_equal(seqnet.load_model(tmp_path / "model.h5").predict(data()), found)
    assert not np.allclose(found, model.predict({**data(), "resets": np.zeros((4, 8), bool)}))
    states, outputs = None, []
    for t in range(8):
        output, states = model.step({name: a[:, t] for name, a in data().items()}, states)
        outputs.append(output)
    np.testing.assert_allclose(np.stack(outputs, axis=1), found, rtol=1e-5, atol=1e-6)


def test_resets_of_sequences_of_different_lengths():
    model, rows = packed_model(), [5, 8, 2]
    X = {name: [a[k, :n] for k, n in enumerate(rows)] for name, a in data().items()}
    found = model.predict(X)
    for k, n in enumerate(rows):
        alone = model.predict({name: a[k : k + 1, :n] for name, a in data().items()})
        np.testing.assert_allclose(found[k], alone[0], rtol=1e-5, atol=1e-6)


def test_windows_and_carried_states_start_anew_where_they_are_reset():
    whole, X = packed_model(), data()
    y = np.ones((4, 8, 1))
    mask = np.ones((4, 8), dtype=bool)
    X["resets"][:, 3:5], mask[:, 3], X["resets"][:, 3] = False, False, True
    stateful = packed_model(stateful=True)
    parts = [
        stateful.predict({n: a[:, t : t + 4] for n, a in X.items()}, mask={"x": mask[:, t : t + 4]})
        for t in (0, 4)
    ]
    np.testing.assert_allclose(
        np.concatenate(parts, axis=1)[mask],
        whole.predict(X, mask={"x": mask})[mask],
        rtol=1e-5,
        atol=1e-6,
    )
    losses = []
    for options in ({}, {"tbptt": 4}):
        model = packed_model()
        model.compile(seqnet.optimizers.SGD(1e-30), "mse")
        fitted = model.fit(X, y, mask={"x": mask}, verbose=0, shuffle=False, **options)
        losses += fitted.history["loss"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_token_that_begins_a_sequence_resets_the_state():
    tokens = seqnet.Input((None,), name="tokens")
    starts = pt.eq(tokens, 1)
    y = GRU(4, return_sequences=True)(Embedding(9, 5, mask_zero=True)(tokens), resets=starts)
    model = seqnet.Model(tokens, y)
    first, second = [1, 4, 5], [1, 7, 3, 2]
    joined = model.predict(np.array([[*first, *second, 0]]))
    np.testing.assert_allclose(joined[:, :3], model.predict(np.array([first])), rtol=1e-6)
    np.testing.assert_allclose(joined[:, 3:7], model.predict(np.array([second])), rtol=1e-6)


@pytest.mark.parametrize(
    ("resets", "error", "message"),
    [
        (np.zeros((2, 4), bool), ValueError, r"shape \(None, 4\), and its input \(None, 5, 3\)"),
        (np.zeros((2, 5, 1), bool), ValueError, r"one value for each step, \(batch, time\)"),
        (np.zeros((2, 5), "float32"), TypeError, "are bool, True at the first step"),
    ],
)
@pytest.mark.parametrize("make", [lambda: LSTM(2), lambda: Bidirectional(LSTM(2))])
def test_invalid_resets(make, resets, error, message):
    with pytest.raises(error, match=message):
        make()(np.zeros((2, 5, 3)), resets=resets)


def test_resets_of_another_length_are_refused_before_anything_is_compiled(monkeypatch):
    model = packed_model()
    model.compile("sgd", "mse")
    monkeypatch.setattr(backend, "compile", None)
    X = data() | {"resets": np.zeros((4, 7), bool)}
    for call in (lambda: model.fit(X, np.zeros((4, 8, 1))), lambda: model.predict(X)):
        with pytest.raises(ValueError, match=r"resets .*\(None, 7\), and its input \(None, 8, 3\)"):
            call()

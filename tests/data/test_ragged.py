"""Sequences of different lengths: their cost, and that padding changes no result."""

import functools
import logging

import numpy as np
import pytensor.tensor as pt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seqnet
from seqnet import backend, layers, optimizers, registry
from seqnet.data import Batch, Epoch, range_weights
from seqnet.data.columns import RowColumn, StepColumn
from seqnet.data.ragged import MOST_LENGTHS, RaggedDataset, choose_lengths
from seqnet.layers import GRU, LSTM, Bidirectional, Dense, Embedding, Masking, SimpleRNN
from seqnet.training.step import CompiledSteps

PATHS = {"fused": {}, "scan": {"fused": False}, "unroll": {"unroll": True}}
TIME = 6  # of padded arrays; sequences are shorter
CLASSES = 4

paths = pytest.mark.parametrize("path", PATHS)
paths_in_depth = pytest.mark.parametrize(
    "path", ["fused", *(pytest.param(path, marks=pytest.mark.slow) for path in ("scan", "unroll"))]
)
some_lengths = st.lists(st.integers(1, 4), min_size=1, max_size=4)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=8, deadline=None)


def ready(seed, stack, loss, metrics, shape):
    """Return a built model that remembers its weights; a step of its SGD is the gradient."""
    seqnet.set_random_seed(seed)
    model = seqnet.Model(stack)
    model.compile(optimizers.SGD(1.0), loss, metrics=metrics)
    model.build(shape)
    model.start = model.get_weights()
    return model


@functools.cache
def tagger(path):
    """A float64 model with an output at each step, compiled once."""
    stack = [
        Embedding(9, 3, dtype="float64"),
        LSTM(3, return_sequences=True, dtype="float64", **PATHS[path]),
        Dense(CLASSES, activation="softmax", dtype="float64"),
    ]
    return ready(1, stack, "sparse_categorical_crossentropy", ["accuracy"], (None, None))


@functools.cache
def classifier(path):
    """A float64 model with one output for each sequence of vectors."""
    stack = [GRU(3, dtype="float64", **PATHS[path]), Dense(2, dtype="float64")]
    return ready(2, stack, "mse", ["mae"], (None, None, 2))


@pytest.fixture
def still(monkeypatch):
    """A tagger whose weights are not changed by training."""
    model = tagger("fused")
    monkeypatch.setattr(model.optimizer, "learning_rate", 0.0)
    return model


def tokens(lengths, seed):
    """Return sequences of tokens, targets and weights for each step; some weights are zero."""
    rng = np.random.default_rng(seed)
    x = [rng.integers(0, 9, n) for n in lengths]
    y = [rng.integers(0, CLASSES, n) for n in lengths]
    weights = [rng.choice([0.0, 0.5, 2.0], n) for n in lengths]
    return x, y, weights


def train_from_start(model, *args, **options):
    """Return [logs, gradients...] of one batch; restore the weights."""
    model.set_weights(model.start)
    logs = model.train_on_batch(*args, **options)
    after = model.get_weights()
    model.set_weights(model.start)
    return [np.array(logs), *(a - b for a, b in zip(model.start, after, strict=True))]


def one_by_one(model, x, y, weights):
    """Compute the result of `train_from_start` for a batch from its single samples."""
    total = sum(np.sum(w) for w in weights)
    parts = [
        train_from_start(model, xi[None], yi[None], sample_weight=np.asarray(w)[None])
        for xi, yi, w in zip(x, y, weights, strict=True)
    ]
    if total == 0:
        return [np.zeros_like(p) for p in parts[0]]
    shares = [np.sum(w) / total for w in weights]
    return [sum(s * p for s, p in zip(shares, ps, strict=True)) for ps in zip(*parts, strict=True)]


def same(one, other, rtol=1e-9, atol=1e-12):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def spread(rows, rng, fill, time=TIME):
    """Place steps at random increasing positions of a padded array; return it and its mask."""
    mask = np.zeros((len(rows), time), bool)
    for m, row in zip(mask, rows, strict=True):
        m[rng.choice(time, len(row), replace=False)] = True
    return fill_in(rows, mask, fill), mask


def fill_in(rows, mask, fill):
    rows = [np.asarray(row) for row in rows]
    padded = np.full((*mask.shape, *rows[0].shape[1:]), fill, dtype=rows[0].dtype)
    for target, m, row in zip(padded, mask, rows, strict=True):
        target[m] = row
    return padded


# -------------------------------------------------- a batch and its samples, one at a time


@pytest.mark.parametrize("path", ["fused", pytest.param("scan", marks=pytest.mark.slow), "unroll"])
@few
@given(lengths=some_lengths, seed=seeds)
def test_a_ragged_batch_equals_its_sequences_one_at_a_time(path, lengths, seed):
    model = tagger(path)
    x, y, weights = tokens(lengths, seed)
    expected = one_by_one(model, x, y, weights)
    same(train_from_start(model, x, y, sample_weight=weights), expected)
    ones = [np.ones(n) for n in lengths]
    same(train_from_start(model, x, y), one_by_one(model, x, y, ones))
    predictions = model.predict(x)
    for xi, p in zip(x, predictions, strict=True):
        np.testing.assert_allclose(p, model.predict(xi[None])[0], rtol=1e-9)


@paths_in_depth
@few
@given(lengths=some_lengths, seed=seeds)
def test_the_output_for_a_ragged_sequence_equals_that_of_the_sequence_alone(path, lengths, seed):
    model = classifier(path)
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(n, 2)) for n in lengths]
    y = rng.normal(size=(len(x), 2))
    weights = rng.uniform(0, 2, len(x))
    expected = one_by_one(model, x, y, weights)
    same(train_from_start(model, x, y, sample_weight=weights), expected)
    predictions = model.predict(x)
    assert isinstance(predictions, np.ndarray)
    alone = np.concatenate([model.predict(xi[None]) for xi in x])
    np.testing.assert_allclose(predictions, alone, rtol=1e-9)
    padded, mask = spread(x, rng, np.nan)
    same(train_from_start(model, padded, y, sample_weight=weights, mask=mask), expected)


@paths
@few
@given(lengths=some_lengths, seed=seeds)
def test_padding_anywhere_changes_nothing(path, lengths, seed):
    """Padding before, after and in between; targets there are not valid classes."""
    model = tagger(path)
    x, y, weights = tokens(lengths, seed)
    rng = np.random.default_rng(seed)
    expected = train_from_start(model, x, y, sample_weight=weights)
    padded, mask = spread(x, rng, 8)
    y_padded, w_padded = fill_in(y, mask, 77), fill_in(weights, mask, 3.0)
    options = {"sample_weight": w_padded, "mask": mask}
    same(train_from_start(model, padded, y_padded, **options), expected)
    order = rng.permutation(len(x))
    options = {"sample_weight": w_padded[order], "mask": mask[order]}
    same(train_from_start(model, padded[order], y_padded[order], **options), expected)
    predictions = model.predict(padded, mask=mask)
    for p, m, alone in zip(predictions, mask, model.predict(x), strict=True):
        np.testing.assert_allclose(p[m], alone, rtol=1e-9)
    nothing = [np.concatenate([a, a[:1]]) for a in (padded, y_padded, w_padded)]
    mask = np.concatenate([mask, np.zeros((1, TIME), bool)])
    result = train_from_start(model, *nothing[:2], sample_weight=nothing[2], mask=mask)
    same(result, expected)


@functools.cache
def both_ways(path):
    """A float32 model with a bidirectional layer."""
    half = LSTM(3, return_sequences=True, **PATHS[path])
    stack = [Embedding(9, 3), Bidirectional(half), Dense(CLASSES, "softmax")]
    names = ["accuracy", "perplexity"]
    return ready(3, stack, "sparse_categorical_crossentropy", names, (None, None))


@pytest.mark.parametrize(
    "path", ["fused", *[pytest.param(path, marks=pytest.mark.slow) for path in ("scan", "unroll")]]
)
@few
@given(lengths=some_lengths, seed=seeds)
def test_padding_changes_nothing_in_float32_and_in_bidirectional_layers(path, lengths, seed):
    model = both_ways(path)
    x, y, weights = tokens(lengths, seed)
    expected = train_from_start(model, x, y, sample_weight=weights)
    alone = one_by_one(model, x, y, weights)
    expected[0], alone[0] = (
        expected[0][:2],
        alone[0][:2],
    )  # the perplexity is not a mean over sequences
    same(expected, alone, rtol=2e-4, atol=2e-6)
    padded, mask = spread(x, np.random.default_rng(seed), 8)
    options = {"sample_weight": fill_in(weights, mask, 3.0), "mask": mask}
    found = train_from_start(model, padded, fill_in(y, mask, 77), **options)
    found[0] = found[0][:2]
    same(found, expected, rtol=2e-4, atol=2e-6)
    outputs = model.predict(x)
    for p, m, ragged, xi in zip(model.predict(padded, mask=mask), mask, outputs, x, strict=True):
        np.testing.assert_allclose(p[m], ragged, rtol=1e-5)
        np.testing.assert_allclose(ragged, model.predict(xi[None])[0], rtol=1e-5)


@paths_in_depth
@pytest.mark.parametrize("found_by", ["mask_zero", "masking"])
def test_padding_detected_by_a_layer_changes_nothing(path, found_by):
    seqnet.set_random_seed(5)
    recurrent = GRU(3, return_sequences=True, dtype="float64", **PATHS[path])
    first = (
        Embedding(9, 3, mask_zero=True, dtype="float64")
        if found_by == "mask_zero"
        else Masking(-1.0, dtype="float64")
    )
    model = seqnet.Model([first, recurrent, Dense(CLASSES, "softmax", dtype="float64")])
    model.compile(optimizers.SGD(1.0), "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(7)
    x, y, weights = tokens([3, 1, 4], 7)
    x = [xi % 8 + 1 for xi in x]
    if found_by == "masking":
        x = [rng.normal(size=(len(xi), 2)) for xi in x]
    padded, mask = spread(x, rng, 0 if found_by == "mask_zero" else -1.0)
    model.predict(padded)
    model.start = model.get_weights()
    expected = train_from_start(model, x, y, sample_weight=weights)
    w_padded, y_padded = fill_in(weights, mask, 3.0), fill_in(y, mask, -1)
    same(train_from_start(model, padded, y_padded, sample_weight=w_padded), expected)
    for p, m, alone in zip(model.predict(padded), mask, model.predict(x), strict=True):
        np.testing.assert_allclose(p[m], alone, rtol=1e-9)


@paths_in_depth
def test_padding_changes_no_bit_if_the_arithmetic_is_the_same(path):
    """A list, an array with lengths, and an array with a mask give the same batch."""
    model = both_ways(path)
    x, y, weights = tokens([4, 2, 3], 0)
    mask = np.arange(4) < np.array([4, 2, 3])[:, None]
    padded, y_padded, w_padded = (fill_in(rows, mask, 0) for rows in (x, y, weights))
    expected = train_from_start(model, x, y, sample_weight=weights)
    for options in ({"lengths": [4, 2, 3]}, {"mask": mask}):
        found = train_from_start(model, padded, y_padded, sample_weight=w_padded, **options)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(model.predict(x), model.predict_on_batch(x), strict=True):
        np.testing.assert_array_equal(a, b)


@paths_in_depth
@few
@given(lengths=some_lengths, seed=seeds)
def test_lengths_equal_a_mask_of_padding_at_the_end(path, lengths, seed):
    model = tagger(path)
    x, y, weights = tokens(lengths, seed)
    expected = train_from_start(model, x, y, sample_weight=weights)
    mask = np.arange(TIME) < np.array(lengths)[:, None]
    padded, y_padded, w_padded = (
        fill_in(rows, mask, fill) for rows, fill in ((x, -1), (y, -1), (weights, 3.0))
    )
    for options in ({"lengths": lengths}, {"mask": mask}):
        same(train_from_start(model, padded, y_padded, sample_weight=w_padded, **options), expected)
        logs = model.evaluate(padded, y_padded, sample_weight=w_padded, **options)
        np.testing.assert_allclose(logs, expected[0], rtol=1e-9)
        predictions = model.predict(padded, **options)
        assert predictions.shape == (len(x), TIME, CLASSES)
        for p, alone in zip(predictions, model.predict(x), strict=True):
            np.testing.assert_allclose(p[: len(alone)], alone, rtol=1e-9)


@paths_in_depth
def test_a_batch_of_masked_steps_has_loss_zero_and_no_update(path):
    model = tagger(path)
    x, y = np.ones((2, TIME), int), np.full((2, TIME), -1)
    for options in (
        {"mask": np.zeros((2, TIME), bool)},
        {"sample_weight": np.zeros(2)},
        {"sample_weight": np.zeros((2, TIME)), "mask": np.ones((2, TIME), bool)},
    ):
        for values in train_from_start(model, x, y, **options):
            assert (values == 0).all()
        assert model.evaluate(x, y, **options) == [0.0, 0.0]


def test_weights_and_all_masks_are_combined():
    model = seqnet.Model(
        [
            Masking(-1.0, dtype="float64"),
            GRU(3, return_sequences=True, dtype="float64"),
            Dense(2, dtype="float64"),
        ]
    )
    model.compile("sgd", "mse", metrics=["mae"])
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(5, 7, 2)), rng.normal(size=(5, 7, 2))
    found, passed = rng.uniform(size=(5, 7)) < 0.7, rng.uniform(size=(5, 7)) < 0.7
    weights = rng.uniform(size=(5, 7))
    x[~found] = -1.0
    total = weights * found * passed
    predictions = model.predict(x, mask=passed)
    errors = [(predictions - y) ** 2, np.abs(predictions - y)]
    expected = [(total * e.mean(axis=-1)).sum() / total.sum() for e in errors]
    y[total == 0] = np.nan
    logs = model.evaluate(x, y, batch_size=2, sample_weight=weights, mask=passed)
    np.testing.assert_allclose(logs, expected, rtol=1e-10)


TARGETS = {
    "sparse": lambda rng, n: rng.integers(0, CLASSES, n),
    "perplexity": lambda rng, n: rng.integers(0, CLASSES, n),
    "categorical_generalized": lambda rng, n: rng.integers(0, CLASSES, n),
    "categorical": lambda rng, n: rng.dirichlet(np.ones(CLASSES), n),
    "binary": lambda rng, n: rng.integers(0, 2, (n, CLASSES)),
    "hinge": lambda rng, n: rng.integers(0, 2, (n, CLASSES)),
    "squared_hinge": lambda rng, n: 2 * rng.integers(0, 2, (n, CLASSES)) - 1,
}
for kind in ("precision", "recall", "auc", "f1", "fbeta", "true", "false", "hinge", "squared_h"):
    TARGETS[kind] = TARGETS["binary"]
INTEGERS = ("sparse", "perplexity", "categorical_generalized")
AVERAGED = {
    "f1_score": seqnet.metrics.F1Score("macro"),
    "fbeta_score": seqnet.metrics.FBetaScore("weighted", beta=2.0),
}


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in (*registry.names("metric"), *registry.names("loss"))
        # These have other targets, and tests of their own.
        if name.islower()
        and name not in ("masked_loss", "crf_loss", "ctc", "identity", "dice", "tversky")
    ],
)
def test_every_metric_and_loss_uses_weights_and_ignores_padding(name):
    """Compare with the metric on arrays, of each sequence alone."""
    rng = np.random.default_rng(6)
    model = seqnet.Model([SimpleRNN(CLASSES, activation="sigmoid", return_sequences=True)])
    kind = next((k for k in TARGETS if name.startswith(k)), None)
    target = TARGETS.get(kind, lambda rng, n: rng.uniform(size=(n, CLASSES)))
    lengths = (3, 1, 4)
    x = [rng.normal(size=(n, 2)) for n in lengths]
    y = [target(rng, n) for n in lengths]
    weights = [rng.choice([0.0, 0.5, 2.0], n) for n in lengths]
    loss = "sparse_categorical_crossentropy" if kind in INTEGERS else "mse"
    model.compile("sgd", loss, metrics=[AVERAGED.get(name, name)])
    found = model.evaluate(x, y, batch_size=2, sample_weight=weights)
    metric = AVERAGED.get(name) or seqnet.metrics.get(name)
    metric.reset_state()
    for xi, yi, wi in zip(x, y, weights, strict=True):
        metric.update_state(yi[None], model.predict(xi[None]), wi[None])
    np.testing.assert_allclose(found[1], metric.result(), rtol=1e-5)
    rows, mask = spread(x, rng, 5.0)
    options = {"sample_weight": fill_in(weights, mask, 1.0), "mask": mask}
    np.testing.assert_allclose(model.evaluate(rows, fill_in(y, mask, 99), **options), found, 1e-5)


@pytest.mark.parametrize("options", [{"mask": np.ones((3, 3), bool)}, {"sample_weight": np.eye(3)}])
def test_a_loss_that_cannot_be_masked_is_refused(options):
    model = seqnet.Model([SimpleRNN(2, return_sequences=True)])
    x = np.ones((3, 3, 2))
    model.compile("sgd", lambda y, p: pt.mean((y - p) ** 2, axis=(1, 2)))
    assert model.evaluate(x, x) > 0
    with pytest.raises(ValueError, match="must give a value for each step"):
        model.evaluate(x, x, **options)


@pytest.mark.parametrize("axis", [None, ()])
def test_a_metric_without_a_value_for_each_step_is_refused(axis):
    model = seqnet.Model([SimpleRNN(2, return_sequences=True)])

    def spread_out(y, p):
        return pt.mean((y - p) ** 2, axis=axis)

    model.compile("sgd", "mse", metrics=[spread_out])
    with pytest.raises(ValueError, match=r"'spread_out' gives . axes, and the outputs have 3"):
        model.evaluate(np.ones((3, 3, 2)), np.ones((3, 3, 2)))


def test_targets_at_padding_of_an_embedding_may_have_any_value():
    model = seqnet.Model(
        [Embedding(6, 2, mask_zero=True), GRU(2, return_sequences=True), Dense(3, "softmax")]
    )
    x = np.array([[1, 2, 0, 0], [3, 4, 5, 0]])
    y = np.array([[0, 1, -100, -100], [2, 1, 0, 99]])
    zeros = np.where(x == 0, 0, y)
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert model.evaluate(x, y) == model.evaluate(x, zeros)
    with pytest.raises(ValueError, match=r"y holds class -100 at \(0, 1\)"):
        model.evaluate(x, np.where(x == 2, -100, y))


def test_targets_are_checked_if_a_layer_consumes_the_mask():
    model = seqnet.Model([Embedding(6, 2, mask_zero=True), GRU(2), Dense(3, "softmax")])
    with pytest.raises(ValueError, match=r"y holds class -1 at \(1,\)"):
        model.fit(np.array([[1, 2], [0, 0]]), np.array([1, -1]), verbose=0)


class Forget(layers.Layer):
    """Returns its input and drops the mask."""

    def call(self, inputs, mask, context):
        return inputs * 1

    def compute_mask(self, inputs, mask):
        return None


def test_targets_are_checked_if_a_layer_drops_the_mask():
    model = seqnet.Model(
        [Embedding(6, 2, mask_zero=True), Forget(), GRU(2, return_sequences=True), Dense(3)]
    )
    model.compile("sgd", seqnet.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match=r"y holds class -1 at \(0, 1\)"):
        model.evaluate(np.array([[1, 0], [2, 3]]), np.array([[1, -1], [0, 2]]))


def test_targets_of_ragged_sequences_with_weight_zero_may_have_any_value():
    model = tagger("fused")
    expected = model.evaluate([[1, 2, 3], [5, 6]], [[0, 1, 2], [2, 1]], sample_weight=[2, 1])
    x, y = [[1, 2, 3], [4], [5, 6]], [[0, 1, 2], [-1], [2, 1]]
    np.testing.assert_allclose(model.evaluate(x, y, sample_weight=[2, 0, 1]), expected)
    with pytest.raises(ValueError, match=r"y\[1\] holds class -1 at \(0,\)"):
        model.evaluate(x, y, sample_weight=[2, 1, 0])


# -------------------------------------------------------------------------- forms of data


@pytest.mark.parametrize("kind", ["lists", "arrays", "object"])
def test_sequences_may_be_lists_and_arrays(kind):
    model = tagger("fused")
    rows = [[1, 2, 3], [4], [5, 6]]
    targets = [[0, 1, 2], [3], [1, 1]]
    expected = model.evaluate([np.array(r) for r in rows], [np.array(t) for t in targets])
    if kind == "arrays":
        rows = tuple(np.array(r, "int8") for r in rows)
    elif kind == "object":
        array = np.empty(3, object)
        array[:] = rows
        rows = array
    assert model.evaluate(rows, targets) == expected
    assert [p.shape for p in model.predict(rows)] == [(3, 4), (1, 4), (2, 4)]
    assert [p.shape for p in model.predict_on_batch(rows)] == [(3, 4), (1, 4), (2, 4)]


def test_predictions_are_in_the_order_of_the_sequences():
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 9, n) for n in rng.integers(1, 20, 40)]
    model = tagger("fused")
    for p, xi in zip(model.predict(x, batch_size=7), x, strict=True):
        np.testing.assert_allclose(p, model.predict(xi[None])[0], rtol=1e-9)
    vectors = [rng.normal(size=(n, 2)) for n in rng.integers(1, 20, 40)]
    result = classifier("fused").predict(vectors, batch_size=7)
    alone = np.concatenate([classifier("fused").predict(v[None]) for v in vectors])
    np.testing.assert_allclose(result, alone, rtol=1e-9)


def test_a_mask_can_be_combined_with_ragged_sequences():
    model = tagger("fused")
    x, y = [[1, 2, 3], [4, 5]], [[0, 9, 2], [3, 1]]
    shorter = model.evaluate([[1, 3], [4, 5]], [[0, 2], [3, 1]], batch_size=1)
    masked = model.evaluate(x, y, mask=[[True, False, True], [True, True]])
    np.testing.assert_allclose(masked, shorter, rtol=1e-9)


def test_a_backward_layer_has_its_outputs_in_reversed_order():
    seqnet.set_random_seed(0)
    options = {"return_sequences": True, "go_backwards": True, "dtype": "float64"}
    model = seqnet.Model([SimpleRNN(2, **options)])
    model.compile(optimizers.SGD(0.0), "mse")
    rng = np.random.default_rng(1)
    x = [rng.normal(size=(n, 2)) for n in (1, 4, 2)]
    y = [rng.normal(size=(n, 2)) for n in (1, 4, 2)]
    weights = [rng.uniform(size=n) for n in (1, 4, 2)]
    alone = [model.predict(xi[None])[0] for xi in x]
    for p, expected in zip(model.predict(x), alone, strict=True):
        np.testing.assert_allclose(p, expected, rtol=1e-12)
    losses = [((p - t) ** 2).mean(axis=1) for p, t in zip(alone, y, strict=True)]
    expected = np.average(np.concatenate(losses), weights=np.concatenate(weights))
    np.testing.assert_allclose(model.evaluate(x, y, sample_weight=weights), expected)
    targets, masses = (
        seqnet.data.pad_sequences(rows, padding="pre", dtype="float64", value=np.nan)
        for rows in (y, [w[:, None] for w in weights])
    )
    inputs = seqnet.data.pad_sequences(x, padding="post", dtype="float64")
    masses = np.nan_to_num(masses[:, :, 0])
    figure = model.evaluate(inputs, targets, sample_weight=masses, lengths=[1, 4, 2])
    np.testing.assert_allclose(figure, expected)
    y[1][3] = np.nan  # corresponds to the first step of the input, which is masked
    weights[1][3] = 0
    mask = [np.ones(n, bool) for n in (1, 4, 2)]
    mask[1][0] = False
    changed = model.evaluate(x, y, mask=mask)
    weights = [np.ones(n) for n in (1, 4, 2)]
    weights[1][3] = 0
    np.testing.assert_allclose(model.evaluate(x, y, sample_weight=weights), changed)


def test_fit_accepts_validation_and_weights_for_ragged_sequences(still):
    x, y, weights = tokens([3, 1, 4, 2, 2, 4, 1, 3, 2, 4], 5)
    split = still.fit(x, y, validation_split=0.3, sample_weight=weights, verbose=0).history
    given = still.fit(
        x[:7], y[:7], batch_size=3, sample_weight=weights[:7], verbose=0,
        validation_data=(x[7:], y[7:], weights[7:]),
    ).history  # fmt: skip
    for name, values in split.items():
        np.testing.assert_allclose(given[name], values, rtol=1e-9, err_msg=name)
    expected = still.evaluate(x[7:], y[7:], sample_weight=weights[7:])
    np.testing.assert_allclose([split["val_loss"][0], split["val_accuracy"][0]], expected)


def test_the_loss_is_chosen_from_ragged_targets():
    model = seqnet.Model([Embedding(9, 2), GRU(2, return_sequences=True), Dense(3, "softmax")])
    model.fit([[1, 2], [3]], [[0, 1], [2]], verbose=0)
    assert model.loss.name == "sparse_categorical_crossentropy"


def test_a_range_of_steps_is_a_sample_weight():
    """The loss of the steps in the range, as in masked_loss, averaged over these steps."""
    model = tagger("fused")
    rng = np.random.default_rng(2)
    x, starts, lengths = rng.integers(0, 9, (3, 5)), [4, 0, 2], [1, 3, 2]
    y = rng.integers(0, CLASSES, (3, 5))
    predictions = model.predict(x)
    loss = seqnet.losses.masked_loss(predictions, y, np.array(lengths), np.array(starts))
    expected = loss.eval(mode=seqnet.backend.mode()).sum() / sum(lengths)
    weights = range_weights(starts, lengths, 5)
    y[weights == 0] = -1
    np.testing.assert_allclose(model.evaluate(x, y, sample_weight=weights)[0], expected)
    ragged = range_weights([4, 0], [1, 1], [5, 2])
    assert [w.tolist() for w in ragged] == [[0, 0, 0, 0, 1], [1, 0]]
    with pytest.raises(ValueError, match="Sequence 1 has 2 steps, so a range of 2 from step 1 on"):
        range_weights([0, 1], 2, 2)


@pytest.mark.parametrize("loss", ["masked_loss", seqnet.losses.masked_loss])
def test_masked_loss_in_compile_equals_the_function(loss, tmp_path):
    """The sum over the steps in the range, for any labels elsewhere, for arrays and lists."""
    seqnet.set_random_seed(0)
    model = seqnet.Model([Embedding(9, 3), GRU(3, return_sequences=True), Dense(4, "softmax")])
    model.compile(optimizers.SGD(1.0), loss, metrics=["accuracy"])
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 9, (3, 5)), rng.integers(0, CLASSES, (3, 5))
    lengths, starts = np.array([1, 3, 2]), np.array([4, 0, 2])
    predictions = pt.constant(model.predict(x))
    values = seqnet.losses.masked_loss(predictions, y, lengths, starts)
    expected = values.eval(mode=backend.mode()).sum() / lengths.sum()
    y = np.where(range_weights(starts, lengths, 5) > 0, y, -1)
    logs = model.evaluate(x, (y, lengths, starts), batch_size=2)
    np.testing.assert_allclose(logs[0], expected, rtol=1e-5)
    cut = [5, 4, 5]
    rows = [[row[:n] for row, n in zip(values, cut, strict=True)] for values in (x, y)]
    found = model.evaluate(rows[0], (rows[1], lengths, starts), batch_size=2)
    np.testing.assert_allclose(found, logs, rtol=1e-5)
    given = model.evaluate(x, (y, lengths, starts), lengths=cut)
    np.testing.assert_allclose(given, logs, rtol=1e-5)
    weights = [np.linspace(0, 1, n) for n in cut]
    by_hand = [np.pad(w, (0, 5 - len(w))) for w in weights]
    found = model.evaluate(rows[0], (rows[1], lengths, starts), sample_weight=weights)
    given = model.evaluate(x, (y, lengths, starts), sample_weight=by_hand)
    np.testing.assert_allclose(found, given, rtol=1e-5)
    before = model.get_weights()
    model.train_on_batch(x, (y, lengths, starts))
    after = model.get_weights()
    model.set_weights(before)
    sparse = seqnet.losses.SparseCategoricalCrossentropy()
    model.compile(optimizers.SGD(1.0), sparse)
    model.train_on_batch(x, y, sample_weight=range_weights(starts, lengths, 5))
    same(after, model.get_weights())
    model.compile("sgd", loss)
    model.fit(rows[0], (rows[1], lengths, starts), validation_split=0.4, verbose=0)
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    assert again.evaluate(x, (y, lengths, starts)) == model.evaluate(x, (y, lengths, starts))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.ones((2, 3), int), r"\(labels, codelengths, label_starts\), got array of shape"),
        (([[1, 2, 3], [1]], [1], [0, 0]), r"the shapes \(1,\) and \(2,\)"),
        (([1, 2], [1, 1], [0, 0]), "labels for each step"),
        (
            ([[1, 2, 3], [1]], [1, 1], [0, 1]),
            "Sequence 1 has 1 steps, so a range of 1 from step 1 on",
        ),
        (([[1, 2], [1]], [1, 1], [0, 0]), r"y\[0\] has 2 steps, but X\[0\] has 3"),
    ],
)
def test_targets_of_masked_loss_that_do_not_fit_are_refused(y, message, no_compile):
    model = seqnet.Model([Embedding(9, 2), GRU(2, return_sequences=True), Dense(4, "softmax")])
    model.compile("sgd", "masked_loss")
    with pytest.raises(ValueError, match=message):
        model.fit([[1, 2, 3], [4]], y, verbose=0)


# ------------------------------------------------------------------------ batches and cost


def steps_of_epoch(monkeypatch, fit):
    """Return the number of steps, including padding, of all batches of a call."""
    counted = []
    for kind in ("train", "predict"):
        step = getattr(CompiledSteps, kind)

        def count(steps, batch, *options, step=step):
            counted.append(batch.inputs.shape[0] * batch.inputs.shape[1])
            return step(steps, batch, *options)

        monkeypatch.setattr(CompiledSteps, kind, count)
    fit()
    return sum(counted)


@pytest.mark.parametrize("way", ["list", "lengths"])
def test_the_cost_of_an_epoch_depends_on_the_data_and_not_on_the_longest_sequence(monkeypatch, way):
    rng = np.random.default_rng(0)
    lengths = np.minimum(1 + rng.exponential(24, 640).astype(int), 100)
    lengths[0] = 100
    assert 0.2 < lengths.mean() / 100 < 0.27
    x = [rng.normal(size=(n, 2)) for n in lengths]
    y = rng.normal(size=(640, 2))
    model = classifier("fused")
    if way == "list":
        steps = steps_of_epoch(monkeypatch, lambda: model.fit(x, y, verbose=0))
    else:
        padded = seqnet.data.pad_sequences(x, padding="post")
        fit = functools.partial(model.fit, padded, y, lengths=lengths, verbose=0)
        steps = steps_of_epoch(monkeypatch, fit)
    assert lengths.sum() <= steps <= 1.25 * lengths.sum()
    if way == "list":
        steps = steps_of_epoch(monkeypatch, lambda: model.predict(x))
        assert lengths.sum() <= steps <= 1.15 * lengths.sum()


def examples_of(lengths):
    """Return samples whose steps and targets identify their sequence."""
    sequences = StepColumn.of([np.full(n, k) for k, n in enumerate(lengths)], "X")
    return RaggedDataset(Batch(sequences, RowColumn(np.arange(len(lengths)))))


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=40), size=st.integers(1, 7))
def test_batches_have_every_sequence_once_with_its_targets(lengths, size):
    for rng in (None, np.random.default_rng(0)):
        batches = list(examples_of(lengths).batches(Epoch(size, rng)))
        assert len(batches) == -(-len(lengths) // size)
        assert sorted(len(b) for b in batches)[1:] == [size] * (len(batches) - 1)
        assert sorted(np.concatenate([b.targets for b in batches])) == list(range(len(lengths)))
        for batch in batches:
            assert batch.inputs.shape[1] == max(lengths[k] for k in batch.targets)
            for row, mask, k in zip(batch.inputs, batch.mask, batch.targets, strict=True):
                assert mask.tolist() == [t < lengths[k] for t in range(len(mask))]
                assert (row[mask] == k).all()
                assert (row[~mask] == 0).all()
        if rng is None:
            order = np.concatenate([b.targets for b in batches]).tolist()
            assert order == list(range(len(lengths)))


def test_grouping_changes_each_epoch_and_depends_on_the_seed():
    lengths = list(
        range(1, 65)
    )  # all different, so that sorting alone would always give the same groups

    def groups(rng):
        return {tuple(sorted(b.targets)) for b in examples_of(lengths).batches(Epoch(4, rng))}

    rng = np.random.default_rng(1)
    first, second = groups(rng), groups(rng)
    assert len(first & second) < len(first) / 2
    assert groups(np.random.default_rng(1)) == first
    assert groups(np.random.default_rng(2)) != first

    def history(seed):
        seqnet.set_random_seed(seed)
        model = tagger("fused")
        model.set_weights(model.start)
        x, y, _ = tokens([1, 4, 2, 3] * 4, 0)
        return model.fit(x, y, batch_size=3, epochs=2, verbose=0).history["loss"]

    assert history(1) == history(1)
    assert history(1) != history(2)


def test_one_function_is_compiled_for_all_lengths(compiled):
    model = seqnet.Model([Embedding(9, 2), GRU(2)])
    for lengths in ([1, 2], [7, 3, 30], [5, 6]):
        model.predict(tokens(lengths, 0)[0])
    assert compiled == ["prediction"]


def test_unrolled_models_compile_functions_for_a_few_lengths(compiled, caplog, capsys):
    rng = np.random.default_rng(0)
    model = seqnet.Model([SimpleRNN(2, unroll=True)])
    other = seqnet.Model([SimpleRNN(2)])
    for longest in (20, 12, 25, 30, 35):
        x = [rng.normal(size=(n, 1)) for n in rng.integers(1, longest + 1, 60)]
        with caplog.at_level(logging.INFO, "seqnet"):
            result = model.predict(x, batch_size=2)
        other.build((None, None, 1))
        other.set_weights(model.get_weights())
        np.testing.assert_allclose(result, other.predict(x), rtol=1e-5, atol=1e-6)
    assert len(model.steps.functions) <= MOST_LENGTHS
    assert compiled.count("prediction") <= MOST_LENGTHS + 3
    assert "Sequences are padded to one of the lengths" in caplog.text
    assert not capsys.readouterr().out
    model.predict([np.zeros((n, 1)) for n in (36, 40)], verbose=1)
    assert "Sequences are padded to one of the lengths" in capsys.readouterr().out


def test_an_unrolled_epoch_compiles_few_functions(compiled):
    """One per padded length and kind; with tbptt one per window and per remainder."""
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(n, 1)) for n in rng.integers(1, 3 * MOST_LENGTHS, 200)]
    options = {"validation_data": (x[:50], x[:50]), "batch_size": 4, "epochs": 3, "verbose": 0}
    for tbptt, most in ((None, MOST_LENGTHS), (3, 3)):
        model = seqnet.Model([SimpleRNN(1, unroll=True, return_sequences=True)])
        model.compile("sgd", "mse")
        model.fit(x, x, tbptt=tbptt, **options)
        assert 1 < compiled.count("training") <= most
        assert compiled.count("evaluation") <= MOST_LENGTHS
        compiled.clear()


@given(batches=st.lists(st.lists(st.integers(1, 99), min_size=1), min_size=1, max_size=12))
def test_padded_lengths_are_few_and_sufficient(batches):
    known = ()
    for lengths in batches:
        known = choose_lengths(np.array(lengths), known)
        assert known[-1] >= max(lengths)
        assert list(known) == sorted(set(known))
        assert len(known) <= MOST_LENGTHS


# ------------------------------------------------------------- truncated backpropagation


def follower(rate=0.3, path="fused", **options):
    """Return a float64 model of vectors with an output at each step and fixed initial weights."""
    seqnet.set_random_seed(4)
    options = {"return_sequences": True, "dtype": "float64", **PATHS[path], **options}
    model = seqnet.Model([LSTM(3, **options), GRU(2, **options), Dense(1, dtype="float64")])
    model.compile(optimizers.SGD(rate), "mse", metrics=["mae"])
    model.build((None, None, 2))
    return model


SERIES = np.random.default_rng(5).normal(size=(4, 7, 2))
SUMS = SERIES.sum(axis=2, keepdims=True).cumsum(axis=1)


@paths
def test_windows_train_like_a_stateful_model(path):
    model = follower(path=path)
    history = model.fit(SERIES, SUMS, shuffle=False, batch_size=4, tbptt=3, verbose=0).history
    other = follower(path=path, stateful=True)
    losses = [
        other.train_on_batch(SERIES[:, s : s + 3], SUMS[:, s : s + 3])[0] * min(3, 7 - s)
        for s in (0, 3, 6)
    ]
    np.testing.assert_allclose(history["loss"], sum(losses) / 7, rtol=1e-9)
    same(model.get_weights(), other.get_weights())


def test_a_window_as_long_as_the_sequence_does_not_truncate():
    model, other = follower(), follower()
    for one, size in ((model, 7), (other, None)):
        one.fit(SERIES, SUMS, batch_size=2, shuffle=False, epochs=2, tbptt=size, verbose=0)
    same(model.get_weights(), other.get_weights())


@pytest.mark.parametrize("size", [1, 2, 5])
def test_windows_carry_states_and_losses_equal_those_of_the_whole_sequence(size):
    model = follower(rate=0.0)
    x, y = [s[:n] for s, n in zip(SERIES, (7, 1, 4, 6), strict=True)], []
    y = [s[: len(xi)] for s, xi in zip(SUMS, x, strict=True)]
    weights = [np.linspace(0, 1, len(xi)) for xi in x]
    expected = model.evaluate(x, y, sample_weight=weights)
    options = {"sample_weight": weights, "validation_data": (x, y, weights)}
    history = model.fit(x, y, batch_size=2, tbptt=size, verbose=0, **options).history
    np.testing.assert_allclose([history["loss"][0], history["mae"][0]], expected)
    np.testing.assert_allclose(history["val_loss"][0], expected[0])


@paths_in_depth
def test_evaluation_by_windows_gives_the_result_of_whole_sequences(path, monkeypatch):
    model = follower(rate=0.0, path=path)
    mask = np.arange(7) < np.array([[7], [1], [4], [6]])
    expected = model.evaluate(SERIES, SUMS, mask=mask)
    seen, test = [], CompiledSteps.test

    def recording(self, batch, *others, **options):
        seen.append(batch.inputs.shape[1])
        return test(self, batch, *others, **options)

    monkeypatch.setattr(CompiledSteps, "test", recording)
    found = model.evaluate(SERIES, SUMS, batch_size=3, mask=mask, tbptt=3)
    np.testing.assert_allclose(found, expected)
    history = model.fit(SERIES, SUMS, validation_data=(SERIES, SUMS, None), tbptt=3, verbose=0)
    assert max(seen) == 3
    np.testing.assert_allclose(history.history["val_loss"], model.evaluate(SERIES, SUMS)[0])
    with pytest.raises(ValueError, match="must have an output at each step"):
        seqnet.Model([LSTM(3)]).evaluate(SERIES, SUMS[:, 0, [0, 0, 0]], tbptt=2)


def test_windows_of_ragged_batches_train_like_the_sequence_alone():
    model, other = follower(), follower()
    model.fit([SERIES[0, :5]], [SUMS[0, :5]], tbptt=2, verbose=0)
    padded, mask = np.full((2, 9, 2), 5.0), np.zeros((2, 9), bool)
    padded[0, :5], mask[0, :5] = SERIES[0, :5], True
    y = np.full((2, 9, 1), np.nan)
    y[0, :5] = SUMS[0, :5]
    other.fit(padded, y, mask=mask, tbptt=2, shuffle=False, verbose=0)
    same(model.get_weights(), other.get_weights())


@paths_in_depth
@pytest.mark.parametrize("size", [1, 3])
def test_windows_use_the_dropout_masks_of_the_whole_sequence(path, size):
    """Without updates in between, the loss of all windows equals that of the whole sequence."""

    def loss(tbptt):
        seqnet.set_random_seed(4)
        options = {"return_sequences": True, "dropout": 0.4, **PATHS[path]}
        if path != "fused":
            options["recurrent_dropout"] = 0.4
        model = seqnet.Model(
            [LSTM(3, **options), layers.Dropout(0.5, noise_shape=(None, 1, None)), Dense(1)]
        )
        model.compile(optimizers.SGD(0.0), "mse")
        return model.fit(SERIES, SUMS, 2, 2, tbptt=tbptt, shuffle=False, verbose=0).history["loss"]

    first, second = loss(size)
    np.testing.assert_allclose([first, second], loss(None), rtol=1e-5)
    assert first != second  # every batch has different masks


@pytest.mark.parametrize("way", ["mask", "masking"])
@pytest.mark.parametrize("where", ["before", "after"])
def test_windows_of_padding_cause_no_update(way, where):
    """Adam would change the weights by its momentum."""
    trained = []
    for padding in (0, 7):
        seqnet.set_random_seed(4)
        found = [Masking(9.0, dtype="float64")] if way == "masking" else []
        model = seqnet.Model([*found, GRU(2, return_sequences=True, dtype="float64"), Dense(1)])
        model.compile(optimizers.Adam(0.1), "mse")
        around = [(0, 0), (padding, 0) if where == "before" else (0, padding), (0, 0)]
        x, y = (np.pad(a[:, :4], around, constant_values=9.0) for a in (SERIES, SUMS))
        mask = (x != 9.0).any(axis=2) if way == "mask" else None
        model.fit(x, y, tbptt=1, mask=mask, epochs=2, shuffle=False, verbose=0)
        trained.append(model.get_weights())
    for one, another in zip(*trained, strict=True):
        np.testing.assert_allclose(one, another, rtol=1e-6)


@pytest.mark.parametrize("way", ["mask", "lengths"])
def test_validation_data_may_have_masks_and_lengths(way, still):
    x, y, weights = tokens([3, 1, 4], 5)
    mask = np.arange(TIME) < np.array([3, 1, 4])[:, None]
    given = {"X": fill_in(x, mask, 8), "y": fill_in(y, mask, -1), way: [3, 1, 4]}
    if way == "mask":
        given |= {"mask": mask, "sample_weight": fill_in(weights, mask, 5.0)}
    expected = still.evaluate(x, y, sample_weight=weights if way == "mask" else None)
    history = still.fit(x, y, validation_data=given, verbose=0).history
    np.testing.assert_allclose([history["val_loss"][0], history["val_accuracy"][0]], expected)
    with pytest.raises(ValueError, match="validation lengths needs an array"):
        still.fit(x, y, validation_data={"X": x, "y": y, "lengths": [1, 2, 3]})
    for wrong in ({"X": x}, {"X": x, "y": y, "length": [3, 1, 4]}):
        with pytest.raises(ValueError, match="a dictionary with X, y and any of sample_weight"):
            still.fit(x, y, validation_data=wrong)


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({}, 0, "tbptt must be at least 1"),
        ({}, 1.5, "tbptt must be an integer"),
        ({"return_sequences": True, "go_backwards": True}, 2, "'lstm': it runs backwards"),
        ({"return_sequences": True, "stateful": True}, 2, "'lstm': it is stateful"),
        ({"return_sequences": True, "learn_initial_state": True}, 2, "learns its initial state"),
        ({"return_sequences": False}, 2, "an output at each step: use return_sequences=True"),
    ],
)
def test_unsupported_models_and_data_with_tbptt_are_refused(options, size, message, no_compile):
    model = seqnet.Model([LSTM(2, **{"return_sequences": True, **options}), Dense(1)])
    model.compile("sgd", "mse")
    y = SUMS if options.get("return_sequences", True) else SUMS[:, 0]
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(SERIES, y, tbptt=size, shuffle=False, verbose=0)

"""`Dice`, `Tversky` and the generalized cross-entropy: numbers, masks, models and errors.

Values and gradients are compared with those of Keras in `test_keras_values.py`.
"""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend, losses
from seqnet.layers import GRU, Dense, Masking

RNG = np.random.default_rng(7)
X = RNG.normal(size=(4, 5, 3)).astype("float32")
Y = RNG.integers(0, 2, (4, 5, 2))
LENGTHS = np.array([5, 2, 3, 1])
RAGGED = [x[:n] for x, n in zip(X, LENGTHS, strict=True)]
RAGGED_Y = [y[:n] for y, n in zip(Y, LENGTHS, strict=True)]


def tagger(loss, metrics=()):
    seqnet.set_random_seed(3)
    model = seqnet.Model([GRU(3, return_sequences=True), Dense(2, "sigmoid")])
    model.compile(seqnet.optimizers.SGD(1.0), loss, list(metrics))
    return model


def test_calls_are_those_of_keras():
    """The numbers of one whole batch, from Keras's documentation and by hand."""
    y = [[[[1.0], [1.0]], [[0.0], [0.0]]], [[[1.0], [1.0]], [[0.0], [0.0]]]]
    p = [[[[0.0], [1.0]], [[0.0], [1.0]]], [[[0.4], [0.0]], [[0.0], [0.9]]]]
    both, targets, found = 1.4, 4.0, 3.3
    assert losses.Dice()(y, p) == pytest.approx(1 - 2 * both / (targets + found))
    assert losses.Dice(reduction="sum")(y, p) == losses.Dice()(y, p)
    each = losses.Dice(axis=(1, 2, 3), reduction=None)(y, p)
    np.testing.assert_allclose(each, [0.5, 0.75757575], rtol=1e-6)
    share = both / (both + 0.2 * (targets - both) + 0.8 * (found - both))
    assert losses.Tversky(0.2, 0.8)(y, p) == pytest.approx(1 - share)
    assert losses.dice(y, p) == losses.Dice()(y, p)
    np.testing.assert_allclose(losses.tversky(y, p, axis=[1, 2, 3]), each, rtol=1e-6)


@pytest.mark.parametrize("make", [losses.Dice, lambda **k: losses.Tversky(0.3, 0.7, **k)])
@pytest.mark.parametrize("axis", [None, (1, 2), 1, (0, 1), (0, -1)])
def test_masked_steps_change_neither_the_value_nor_the_gradient(make, axis):
    y, p, mask = pt.tensor3("y"), pt.tensor3("p"), pt.matrix("mask", dtype="bool")
    value = pt.sum(make(axis=axis, dtype="float64").of_sequences(y, p, mask))
    f = backend.compile([y, p, mask], [value, pytensor.grad(value, p)], name="test")
    floats = {v: np.dtype(v.dtype) for v in (y, p)}
    predictions = RNG.uniform(size=Y.shape).astype(floats[p])
    present = np.arange(5) < LENGTHS[:, None]
    found = []
    for padding in (0.0, np.nan, 7.0):
        targets = np.where(present[..., None], Y, padding).astype(floats[y])
        given = np.where(present[..., None], predictions, padding).astype(floats[p])
        found.append(f(targets, given, present))
        assert (found[-1][1][~present] == 0).all()
        np.testing.assert_array_equal(found[-1][0], found[0][0])
        np.testing.assert_array_equal(found[-1][1], found[0][1])
    assert np.isfinite(found[0][0])
    assert np.abs(found[0][1]).max() > 0


@pytest.mark.parametrize("loss", [losses.Dice(), losses.Tversky(0.3, 0.7, axis=(1, 2))])
def test_padding_changes_nothing_in_training(loss):
    wide = np.concatenate([X, RNG.normal(size=(4, 3, 3))], axis=1).astype("float32")
    targets = np.concatenate([Y, np.ones((4, 3, 2), int)], axis=1)
    models, logs = [], []
    for x, y, options in ((RAGGED, RAGGED_Y, {}), (wide, targets, {"lengths": LENGTHS})):
        model = tagger(loss, [loss])
        history = model.fit(x, y, epochs=3, shuffle=False, verbose=0, **options)
        models.append(model.get_weights())
        logs.append(history.history)
    for a, b in zip(*models, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logs[0]["loss"], logs[1]["loss"], rtol=1e-5)
    np.testing.assert_allclose(logs[0]["loss"], logs[0][loss.name], rtol=1e-5)
    assert logs[0]["loss"][-1] < logs[0]["loss"][0]


def test_the_loss_of_a_batch_is_that_of_all_its_steps():
    model = tagger("dice")
    predicted = np.concatenate(model.predict(RAGGED))
    expected = losses.Dice()(np.concatenate(RAGGED_Y), predicted)
    assert model.evaluate(RAGGED, RAGGED_Y) == pytest.approx(expected, rel=1e-5)


def test_a_model_without_steps():
    model = seqnet.Model([Dense(2, "sigmoid")])
    model.compile("sgd", losses.Dice(axis=1))
    x, y = X[:, 0], Y[:, 0]
    expected = losses.Dice(axis=1)(y, model.predict(x), sample_weight=[1, 1, 0, 0]) * 2
    found = model.evaluate(x, y, sample_weight=np.array([1, 1, 0, 0]))
    assert found == pytest.approx(expected, rel=1e-5)


def test_sample_weights_of_a_whole_batch_are_an_error(no_compile):
    with pytest.raises(ValueError, match=r"'dice' is one number for a batch.*axis=\(1, 2\)"):
        tagger("dice").fit(X, Y, sample_weight=np.ones(4), verbose=0)


def test_configurations():
    for loss in (losses.Dice((1, 2)), losses.Dice(-1), losses.Tversky(0.2, 0.3, name="t")):
        assert type(loss).from_config(loss.get_config()).get_config() == loss.get_config()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: losses.Dice(axis=1.5), TypeError, "axis"),
        (lambda: losses.Dice(axis=(1, "a")), TypeError, "axis"),
        (lambda: losses.Tversky(alpha=-1), ValueError, "alpha must be at least 0"),
        (lambda: losses.Tversky(beta="a"), TypeError, "beta must be a number"),
        (lambda: losses.CategoricalGeneralizedCrossEntropy(0.0), ValueError, "q is above 0"),
        (lambda: losses.CategoricalGeneralizedCrossEntropy(1.1), ValueError, "at most 1"),
        (lambda: losses.Dice()(np.ones((2, 3)), np.ones((2, 4))), ValueError, "dice needs a tar"),
    ],
)
def test_errors(make, error, words):
    with pytest.raises(error, match=words):
        make()


# ------------------------------------------------------------------ the generalized cross-entropy


@pytest.mark.parametrize("q", [0.3, 1.0])
def test_a_softmax_is_computed_from_its_logits(q):
    loss, z = losses.CategoricalGeneralizedCrossEntropy(q), pt.dmatrix("z")
    value = loss.call(pt.constant([1, 1]), pt.special.softmax(z, axis=-1))
    f = backend.compile([z], [value, pytensor.grad(pt.sum(value), z)], name="test")
    (first, second), gradient = f(np.array([[0.0, np.log(3.0)], [800.0, -800.0]]))
    assert first == pytest.approx((1 - 0.75**q) / q)
    assert second == pytest.approx(1 / q)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[0], 0.75**q * np.array([0.25, -0.25]))


def test_limits_and_probabilities_of_zero():
    y, p = [0, 1, 1], [[0.2, 0.8], [1.0, 0.0], [0.0, 1.0]]
    near = losses.CategoricalGeneralizedCrossEntropy(1e-3, reduction="none")([0], [[0.2, 0.8]])
    assert near == pytest.approx(-np.log(0.2), rel=2e-3)
    half = losses.CategoricalGeneralizedCrossEntropy(reduction="none")(y, p)
    np.testing.assert_allclose(half, [2 - 2 * np.sqrt(0.2), 2.0, 0.0], rtol=1e-6, atol=1e-7)
    variable = pt.dmatrix("p")
    total = pt.sum(losses.CategoricalGeneralizedCrossEntropy().call(pt.constant(y), variable))
    gradient = backend.compile([variable], [pytensor.grad(total, variable)], name="test")(
        np.array(p)
    )
    assert np.isfinite(gradient).all()


def test_wrong_labels_change_less_than_with_the_cross_entropy():
    """The gradient of a step with a probable other class is smaller; masked steps have none."""
    seqnet.set_random_seed(2)
    model = seqnet.Model([Masking(), GRU(3, return_sequences=True), Dense(3, "softmax")])
    loss = losses.CategoricalGeneralizedCrossEntropy(0.7, ignore_class=-1)
    model.compile(seqnet.optimizers.SGD(0.5), loss, ["accuracy"])
    tags = RNG.integers(0, 3, (4, 5))
    tags[0, 1] = -1
    kept = np.arange(5) < LENGTHS[:, None]
    x = np.where(kept[..., None], X, 0)
    found = model.evaluate(x, np.where(kept, tags, 0))
    kept[0, 1] = False
    p = model.predict(x)[kept, tags[kept]]
    assert found[0] == pytest.approx(np.mean((1 - p**0.7) / 0.7), rel=1e-5)
    history = model.fit(x, np.where(tags < 0, -1, tags), epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]

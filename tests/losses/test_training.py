"""Losses in a model: masks, weights, reductions, and the shapes of targets."""

import numpy as np
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import losses
from seqnet.layers import GRU, Activation, Dense

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5, 2))
MASK = np.arange(5) < np.array([5, 3, 4, 1])[:, None]
WEIGHTS = np.linspace(0.5, 2, 20).reshape(4, 5)
LABELS = RNG.integers(0, 3, (4, 5))
ONE_HOT = np.eye(3)[LABELS]
TARGETS = {
    "sparse_categorical_crossentropy": LABELS,
    "hinge": 2 * ONE_HOT - 1,
    "squared_hinge": ONE_HOT,
}
ENDINGS = {
    "poisson": "softplus",
    "kl_divergence": "softmax",
    "binary_crossentropy": "sigmoid",
    "binary_focal_crossentropy": "sigmoid",
    "categorical_crossentropy": "softmax",
    "categorical_focal_crossentropy": "softmax",
    "sparse_categorical_crossentropy": "softmax",
}
NEW = [
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "log_cosh",
    "huber",
    "cosine_similarity",
    "hinge",
    "squared_hinge",
    "categorical_hinge",
    "poisson",
    "kl_divergence",
    "binary_focal_crossentropy",
    "categorical_focal_crossentropy",
]


def make(loss, ending=None, units=3, layers=(), rate=0.1, metrics=(), shape=X.shape):
    seqnet.set_random_seed(0)
    model = seqnet.Model([*layers, Dense(units, ending)])
    model.build((None, *shape[1:]))
    model.compile(seqnet.optimizers.SGD(rate), loss, metrics=list(metrics))
    return model


@pytest.mark.parametrize("name", NEW)
def test_padding_changes_nothing(name):
    """A masked batch trains like its unmasked steps alone, for any values at masked steps."""
    y = TARGETS.get(name, ONE_HOT).astype(float)
    noise = np.where(MASK[..., None], y, 7.5)
    x = np.where(MASK[..., None], X, 99.0)
    model = make(name, ENDINGS.get(name), shape=(None, None, 2))
    start = model.get_weights()
    loss = model.train_on_batch(x, noise, sample_weight=WEIGHTS, mask=MASK)
    weights = model.get_weights()
    model.set_weights(start)
    alone = {"sample_weight": WEIGHTS[MASK][None], "mask": np.ones((1, MASK.sum()), bool)}
    assert model.train_on_batch(X[MASK][None], y[MASK][None], **alone) == pytest.approx(loss)
    assert np.abs(weights[0] - start[0]).max() > 1e-4
    for got, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "mean_with_sample_weight", "sum_over_batch_size"])
def test_mean_reductions_equal_the_weighted_mean(reduction):
    model = make(losses.MeanSquaredError(reduction=reduction))
    plain = make("mse")
    given = {"sample_weight": WEIGHTS, "mask": MASK}
    assert model.train_on_batch(X, ONE_HOT, **given) == plain.train_on_batch(X, ONE_HOT, **given)
    np.testing.assert_array_equal(model.get_weights()[0], plain.get_weights()[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sum_is_the_mean_times_the_weights(dtype):
    seqnet.config.set_floatx(dtype)
    given = {"sample_weight": WEIGHTS, "mask": MASK}
    over = float((WEIGHTS * MASK).sum())
    summed = make(losses.MeanSquaredError(reduction="sum"), rate=0.1 / over, metrics=["mae"])
    mean = make("mse", metrics=["mae"])
    total, error = summed.train_on_batch(X, ONE_HOT, **given)
    expected, expected_error = mean.train_on_batch(X, ONE_HOT, **given)
    assert total == pytest.approx(expected * over, rel=1e-5)
    assert error == pytest.approx(expected_error, rel=1e-6)
    for got, wanted in zip(summed.get_weights(), mean.get_weights(), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


def test_an_epoch_averages_the_sums_of_its_batches():
    model = make(losses.MeanAbsoluteError(reduction="sum"), units=1, shape=(None, 2))
    x, y = np.zeros((6, 2)), np.array([1.0, 1, 1, 1, 2, 2])
    assert model.evaluate(x, y, batch_size=2) == pytest.approx((2 + 2 + 4) / 3)
    assert model.evaluate(x, y, batch_size=6) == pytest.approx(8)


def test_a_sum_of_padding_alone_is_zero():
    model = make(losses.MeanSquaredError(reduction="sum"))
    before = model.get_weights()
    assert model.train_on_batch(X, ONE_HOT, mask=np.zeros_like(MASK)) == 0
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


@pytest.mark.usefixtures("no_compile")
@pytest.mark.parametrize("reduction", ["none", None])
def test_training_needs_a_reduction(reduction):
    model = make(losses.MeanSquaredError(reduction=reduction))
    with pytest.raises(ValueError, match=r"mean_squared_error' has reduction=.* use 'sum'"):
        model.fit(X, ONE_HOT, verbose=0)


@pytest.mark.parametrize("ignored", [-1, 0, 255])
def test_ignore_class_equals_a_mask(ignored):
    labels = np.where(MASK, LABELS % 2 + 1, ignored)
    loss = losses.SparseCategoricalCrossentropy(ignore_class=ignored)
    metrics = ["accuracy", "perplexity"]
    model = make(loss, "softmax", metrics=metrics)
    masked = make("sparse_categorical_crossentropy", "softmax", metrics=metrics)
    got = model.train_on_batch(X, labels)
    expected = masked.train_on_batch(X, np.where(MASK, labels, 0), mask=MASK)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    np.testing.assert_allclose(model.get_weights()[0], masked.get_weights()[0], rtol=1e-6)


@pytest.mark.usefixtures("no_compile")
def test_only_ignore_class_may_be_out_of_range():
    loss = losses.SparseCategoricalCrossentropy(ignore_class=-1)
    with pytest.raises(ValueError, match=r"holds class -2 at \(0, 0\)"):
        make(loss, "softmax").fit(X, np.full((4, 5), -2), verbose=0)


def test_the_dtype_of_a_loss_applies_only_to_the_loss():
    loss = losses.MeanSquaredError(dtype="float64")
    model, plain = make(loss), make("mse")
    assert model.train_on_batch(X, ONE_HOT) == pytest.approx(plain.train_on_batch(X, ONE_HOT))
    assert {w.dtype.name for w in model.get_weights()} == {"float32"}


# ------------------------------------------------------------------------ shapes of targets

own = {
    "mse": "mse",
    "function": lambda y, p: pt.mean((y - p) ** 2, axis=-1),
}


@pytest.mark.parametrize("loss", own.values(), ids=own)
@pytest.mark.parametrize("steps", [False, True])
def test_targets_may_lack_an_axis_of_one(loss, steps):
    layers = [GRU(2, return_sequences=steps)]
    y = X.sum(axis=-1) if steps else X.sum(axis=(1, 2))
    expected = make(loss, units=1, layers=layers).evaluate(X, y[..., None])
    model = make(loss, units=1, layers=[GRU(2, return_sequences=steps)])
    assert model.evaluate(X, y) == pytest.approx(expected)
    if steps:
        rows = [x[:n] for x, n in zip(X, MASK.sum(axis=1), strict=True)]
        flat = [v[:n] for v, n in zip(y, MASK.sum(axis=1), strict=True)]
        expected = model.evaluate(X, y[..., None], mask=MASK)
        assert model.evaluate(rows, flat) == pytest.approx(expected)


@pytest.mark.parametrize("steps", [False, True])
def test_class_numbers_may_have_an_axis_of_one(steps):
    y = LABELS if steps else LABELS[:, 0]
    layers = [GRU(2, return_sequences=steps)]
    loss = "sparse_categorical_crossentropy"
    model = make(loss, "softmax", layers=layers, metrics=["accuracy"])
    expected = model.evaluate(X, y)
    assert model.evaluate(X, y[..., None]) == pytest.approx(expected)
    guessed = seqnet.Model([GRU(2, return_sequences=steps), Dense(3), Activation("softmax")])
    guessed.fit(X, y[..., None], verbose=0)
    assert guessed.loss.name == loss


@pytest.mark.parametrize("name", ["binary_crossentropy", "binary_focal_crossentropy"])
def test_class_weights_accept_targets_without_the_axis_of_one(name):
    model = make(name, "sigmoid", units=1, shape=(None, 2))
    y, x = np.array([0, 1, 1, 0]), X[:, 0]
    weights = {0: 1.0, 1: 3.0}
    loss = model.fit(x, y, class_weight=weights, verbose=0).history["loss"]
    again = make(name, "sigmoid", units=1, shape=(None, 2))
    given = {"sample_weight": 1.0 + 2 * y, "verbose": 0}
    assert loss == pytest.approx(again.fit(x, y[:, None], **given).history["loss"])


@pytest.mark.usefixtures("no_compile")
@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 3), (4, 5)])
def test_other_targets_are_refused(shape):
    with pytest.raises(ValueError, match="compares y with the model's output"):
        make("mse", units=1, shape=(None, 2)).fit(X[:, 0], np.zeros(shape), verbose=0)


@pytest.mark.usefixtures("no_compile")
@pytest.mark.parametrize(
    ("loss", "y", "text"),
    [
        ("hinge", 2.0, "hinge takes the targets -1 and 1, or 0 and 1"),
        ("squared_hinge", 0.5, "holds 0.5 at .* squared_hinge takes"),
        ("poisson", -1.0, "poisson takes counts and rates"),
        (losses.CosineSimilarity(axis=1), 1.0, "has axis=1. In a model the last axis"),
        (losses.SparseCategoricalCrossentropy(axis=1), 1, "has axis=1"),
    ],
)
def test_unsupported_targets_are_refused(loss, y, text):
    sparse = isinstance(loss, losses.SparseCategoricalCrossentropy)
    ending = "softmax" if sparse else None
    targets = np.full((4, 5) if sparse else (4, 5, 3), y)
    with pytest.raises(ValueError, match=text):
        make(loss, ending).fit(X, targets, verbose=0)

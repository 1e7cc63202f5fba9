"""Class weights for every form of targets, and invalid class weights."""

import numpy as np
import pytest

import seqnet
from seqnet.data.class_weight import weight_table
from seqnet.layers import GRU, Dense, Embedding, Softmax

RNG = np.random.default_rng(2)
X = RNG.normal(size=(8, 4, 2)).astype("float32")
CLASSES = np.array([0, 1, 2, 2, 1, 0, 0, 2])
STEPS = RNG.integers(0, 3, (8, 4))
WEIGHTS = RNG.uniform(0.5, 2, 8)
BY_CLASS = {0: 0.5, 2: 3.0}
OF_CLASS = np.array([0.5, 1.0, 3.0])


def trained(x, y, per_step=False, loss=None, units=3, activation="softmax", **options):
    seqnet.set_random_seed(1)
    layers = [GRU(4, return_sequences=per_step), Dense(units, activation=activation)]
    model = seqnet.Model(layers)
    model.compile("sgd", loss)
    model.fit(x, y, batch_size=3, shuffle=False, verbose=0, **options)
    return model.get_weights()


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_class_weights_apply_to_class_numbers():
    same(
        trained(X, CLASSES, class_weight=BY_CLASS),
        trained(X, CLASSES, sample_weight=OF_CLASS[CLASSES]),
    )


def test_class_weights_apply_to_one_hot_rows():
    same(
        trained(X, np.eye(3)[CLASSES], class_weight=BY_CLASS),
        trained(X, np.eye(3)[CLASSES], sample_weight=OF_CLASS[CLASSES]),
    )


@pytest.mark.parametrize("one_hot", [False, True])
def test_class_weights_apply_to_each_step(one_hot):
    y = np.eye(3)[STEPS] if one_hot else STEPS
    same(
        trained(X, y, per_step=True, class_weight=BY_CLASS, sample_weight=WEIGHTS),
        trained(X, y, per_step=True, sample_weight=OF_CLASS[STEPS] * WEIGHTS[:, None]),
    )


def test_class_weights_apply_to_a_single_sigmoid():
    y = (CLASSES > 0).astype(float)[:, None]
    options = {"units": 1, "activation": "sigmoid"}
    same(
        trained(X, y, class_weight={1: 4.0}, **options),
        trained(X, y, sample_weight=np.where(y[:, 0] > 0, 4.0, 1.0), **options),
    )


@pytest.mark.parametrize("weights", [None, "samples", "steps"])
def test_class_weights_apply_to_ragged_sequences(weights):
    lengths = [1, 4, 2, 3, 4, 1, 2, 3]
    x = [row[:n] for row, n in zip(X, lengths, strict=True)]
    y = [row[:n] for row, n in zip(STEPS, lengths, strict=True)]
    own = {
        None: [np.ones(n) for n in lengths],
        "samples": [np.full(n, w) for n, w in zip(lengths, WEIGHTS, strict=True)],
        "steps": [RNG.uniform(0, 2, n) for n in lengths],
    }[weights]
    given = {None: None, "samples": WEIGHTS, "steps": own}[weights]
    both = [w * OF_CLASS[row] for w, row in zip(own, y, strict=True)]
    same(
        trained(x, y, per_step=True, class_weight=BY_CLASS, sample_weight=given),
        trained(x, y, per_step=True, sample_weight=both),
    )


def test_masked_steps_may_have_any_class():
    tokens = RNG.integers(1, 6, (4, 3))
    tokens[:, 2] = 0
    targets = np.where(tokens == 0, -7, 1)
    layers = [Embedding(6, 3, mask_zero=True), GRU(3, return_sequences=True), Dense(3), Softmax()]
    model = seqnet.Model(layers)
    history = model.fit(tokens, targets, class_weight={1: 2.0}, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_validation_data_is_not_weighted():
    seqnet.set_random_seed(1)
    model = seqnet.Model([GRU(2), Dense(3, activation="softmax")])
    model.fit(X, CLASSES, class_weight=BY_CLASS, validation_data=(X, CLASSES), verbose=0)
    found = model.history.history["val_loss"][-1]
    assert found == pytest.approx(model.evaluate(X, CLASSES), rel=1e-6)


@pytest.mark.parametrize("kind", ["array", "list", "rows"])
def test_the_validation_split_is_not_weighted(kind, tmp_path):
    x = {"array": X, "list": [row[:n] for n, row in zip([1, 2, 3, 4] * 2, X, strict=True)]}.get(
        kind
    )
    if kind == "rows":
        x = np.memmap(tmp_path / "x", "float32", "w+", shape=X.shape)
        x[:] = X
    weights = np.array([1.0, 1, 1, 1, 1, 1, 2, 3])
    seqnet.set_random_seed(1)
    model = seqnet.Model([GRU(2), Dense(3, activation="softmax")])
    given = {"sample_weight": weights, "class_weight": BY_CLASS, "validation_split": 0.25}
    model.fit(x, CLASSES, **given, verbose=0)
    expected = model.evaluate(x[6:], CLASSES[6:], sample_weight=weights[6:])
    assert model.history.history["val_loss"][-1] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("given", "error", "parts"),
    [
        ({3: 1.0}, ValueError, ["class 3", "3 classes", "0 to 2"]),
        ({-1: 1.0}, ValueError, ["a class in class_weight", "-1"]),
        ({"cat": 1.0}, TypeError, ["a class in class_weight", "'cat'"]),
        ({0: -1.0}, ValueError, ["class 0", "not negative", "-1.0"]),
        ({0: np.nan}, ValueError, ["class 0", "nan"]),
        ([1.0, 2.0], TypeError, ["dict", "[1.0, 2.0]"]),
    ],
)
def test_wrong_weights_are_refused_before_compiling(compiled, given, error, parts):
    with pytest.raises(error) as caught:
        trained(X, CLASSES, class_weight=given)
    assert all(p in str(caught.value) for p in parts), str(caught.value)
    assert not compiled


def test_targets_that_are_not_classes_are_refused(compiled):
    with pytest.raises(ValueError, match=r"class_weight needs targets that are classes.*mean_sq"):
        trained(X, RNG.normal(size=(8, 3)), activation=None, class_weight={0: 1.0})
    assert not compiled


def test_a_class_missing_from_class_weight_has_weight_one():
    assert weight_table({}, 2).tolist() == [1, 1]


def test_class_weights_are_not_rounded_to_float32():
    assert weight_table({1: 0.1}, 2).tolist() == [1.0, 0.1]

"""Losses called on arrays and variables: weights, reductions, types, names, configurations."""

import inspect
import json

import numpy as np
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend, losses, registry

Y = np.array([[0.0, 1.0], [2.0, 2.0], [1.0, 0.0]])
P = np.ones((3, 2))
VALUES = np.array([0.5, 1.0, 0.5])
CLASSES = sorted(
    {thing for thing in registry._registered["loss"].values() if thing.__module__[:6] == "seqnet"},
    key=lambda cls: cls.__name__,
)


@pytest.mark.parametrize(
    ("reduction", "plain", "weighted"),
    [
        ("sum_over_batch_size", 2 / 3, 3.5 / 3),
        ("mean", 2 / 3, 3.5 / 3),
        ("mean_with_sample_weight", 2 / 3, 3.5 / 4),
        ("sum", 2.0, 3.5),
        ("none", VALUES, [0.5, 3.0, 0.0]),
        (None, VALUES, [0.5, 3.0, 0.0]),
    ],
)
def test_reductions(reduction, plain, weighted):
    loss = losses.MeanSquaredError(reduction=reduction)
    np.testing.assert_allclose(loss(Y, P), plain, rtol=1e-6)
    np.testing.assert_allclose(loss(Y, P, sample_weight=[1, 3, 0]), weighted, rtol=1e-6)
    np.testing.assert_allclose(loss(Y, P, [[1], [3], [0]]), weighted, rtol=1e-6)
    variable = loss(pt.constant(Y), P, sample_weight=[1, 3, 0])
    np.testing.assert_allclose(variable.eval(mode=backend.mode()), weighted, rtol=1e-6)


def test_weights_of_zero_and_missing_weights():
    loss = losses.MeanSquaredError(reduction="mean_with_sample_weight")
    assert loss(Y, P, [0, 0, 0]) == 0
    assert losses.MeanSquaredError()(np.zeros((0, 2)), np.zeros((0, 2))) == 0
    bad = np.where(np.arange(3)[:, None] == 1, np.nan, P)
    assert loss(Y, bad, [1, 0, 1]) == 0.5


def test_the_dtype_follows_floatx_the_variable_or_the_loss():
    loss = losses.MeanSquaredError()
    assert loss(Y, P).dtype == "float32"
    assert loss(Y.astype(int), P.astype(int)).dtype == "float32"
    assert loss(pt.constant(Y), pt.constant(P)).dtype == "float64"
    exact = losses.MeanSquaredError(dtype="float64", reduction="none")
    assert exact(Y, P.astype("float32")).dtype == "float64"
    assert exact(pt.fmatrix(), pt.fmatrix()).dtype == "float64"
    seqnet.config.set_floatx("float64")
    assert loss(Y, P).dtype == "float64"


def test_a_dtype_keeps_the_logits_of_a_softmax():
    loss = losses.SparseCategoricalCrossentropy(dtype="float64")
    logits = pt.fmatrix()
    values = loss.values(pt.ivector(), pt.special.softmax(logits, axis=-1))
    assert type(values.owner.op).__name__ == "SoftmaxCrossEntropy"
    assert values.dtype == "float64"


def test_ignore_class_is_excluded_from_means():
    p = [[1.0, 3.0], [0.5, 0.5], [1.0, 1.0]]
    y, parts = [1, -1, 0], [-np.log(0.75), 0.0, np.log(2)]
    expected = {
        "none": parts,
        "sum": sum(parts),
        "mean": sum(parts) / 2,
        "mean_with_sample_weight": sum(parts) / 2,
    }
    for reduction, value in expected.items():
        loss = losses.SparseCategoricalCrossentropy(ignore_class=-1, reduction=reduction)
        np.testing.assert_allclose(loss(y, p), value, rtol=1e-6)
    weighted = losses.SparseCategoricalCrossentropy(ignore_class=-1)
    assert weighted(y, p, [2, 5, 0]) == pytest.approx(parts[0])


class Scaled(losses.Loss):
    """A custom loss as in Keras."""

    def __init__(self, scale=0.7, name="scaled", **kwargs):
        super().__init__(name=name, **kwargs)
        self.scale = scale

    def call(self, y_true, y_pred):
        return pt.mean(self.scale * (y_true - y_pred) ** 2, axis=-1)


class Bare(losses.Loss):
    """A loss that does not call the constructor of its base class."""

    def __init__(self, scale=0.7):
        self.scale = scale

    def call(self, y_true, y_pred):
        return pt.mean(self.scale * (y_true - y_pred) ** 2, axis=-1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cls", [Scaled, Bare])
def test_custom_losses_can_be_called(cls, dtype):
    seqnet.config.set_floatx(dtype)
    value = cls()(Y.astype(int), P, [1, 3, 0])
    assert value.dtype == dtype
    assert value == pytest.approx(0.7 * 3.5 / 3)
    again = cls.from_config(json.loads(json.dumps(cls(0.5).get_config())))
    assert again.scale == 0.5
    assert again(Y, P) == pytest.approx(1 / 3)


def test_names_of_losses():
    assert losses.MeanSquaredError().name == "mean_squared_error"
    assert losses.MeanSquaredError(name="mine").name == "mine"
    assert (Scaled().name, Bare().name) == ("scaled", "Bare")
    model = seqnet.Model([seqnet.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[losses.Huber(name="mine"), "mape"])
    logs = model.fit(Y, Y[:, :1], verbose=0).history
    assert set(logs) == {"loss", "mine", "mape"}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_configurations_of_losses_round_trip(cls):
    options = {"name": "mine", "reduction": "sum", "dtype": "float64"}
    loss = cls(**options)
    config = json.loads(json.dumps(loss.get_config()))
    assert options.items() <= config.items()
    again = cls.from_config(config)
    assert again.get_config() == loss.get_config()
    written = registry.serialize(loss)
    assert type(losses.get(written)) is cls
    assert losses.get(written).get_config() == loss.get_config()


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("mape", "MeanAbsolutePercentageError"),
        ("MSLE", "MeanSquaredLogarithmicError"),
        ("bce", "BinaryCrossentropy"),
        ("kld", "KLDivergence"),
        ("kullback_leibler_divergence", "KLDivergence"),
        ("logcosh", "LogCosh"),
        ("squared_hinge", "SquaredHinge"),
        ("cosine_similarity", "CosineSimilarity"),
    ],
)
def test_aliases(alias, name):
    assert type(losses.get(alias)) is getattr(losses, name)


def test_functions_have_the_arguments_of_their_classes():
    assert list(inspect.signature(losses.hinge).parameters) == ["y_true", "y_pred"]
    names = list(inspect.signature(losses.categorical_crossentropy).parameters)
    assert names == ["y_true", "y_pred", "from_logits", "label_smoothing", "axis"]


@pytest.mark.usefixtures("no_compile")
@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: losses.Huber(delta=0), ValueError, "delta must be above 0"),
        (lambda: losses.Huber(delta="a"), TypeError, "delta must be a number"),
        (lambda: losses.Hinge(reduction="max"), ValueError, "reduction is one of .* got 'max'"),
        (lambda: losses.Hinge(name=3), TypeError, "name of a loss is text, got 3"),
        (lambda: losses.Hinge(dtype="int8"), ValueError, "not in 'int8'"),
        (lambda: losses.Hinge(reductoin="sum"), TypeError, "Did you mean 'reduction'"),
        (lambda: losses.Huber(alpha=2), TypeError, "takes no argument 'alpha'"),
        (lambda: losses.huber(Y, P, reduction="sum", x=1), TypeError, "no argument 'x'"),
        (lambda: losses.BinaryFocalCrossentropy(gamma=-1), ValueError, "gamma must be 0 or more"),
        (lambda: losses.BinaryFocalCrossentropy(alpha=2), ValueError, "alpha is a share"),
        (lambda: losses.CategoricalFocalCrossentropy(alpha="a"), TypeError, "alpha must be a"),
        (
            lambda: losses.CategoricalFocalCrossentropy(alpha=[1, 2, 3])(Y, P),
            ValueError,
            "3 weights, but the predictions have 2 classes",
        ),
        (lambda: losses.BinaryCrossentropy(label_smoothing=2), ValueError, "a share from 0 to 1"),
        (lambda: losses.CosineSimilarity(axis=True), TypeError, "axis is the number of an axis"),
        (
            lambda: losses.SparseCategoricalCrossentropy(ignore_class="a"),
            TypeError,
            "ignore_class is a class number",
        ),
        (lambda: losses.Hinge()(Y, [["a", "b"]] * 3), TypeError, "y_pred must hold numbers"),
        (lambda: losses.Hinge()(Y, P, [1, -1, 1]), ValueError, "negative"),
        (lambda: losses.Hinge()(Y, P, [1, 1]), ValueError, r"shape \(2,\), .* shape \(3,\)"),
        (lambda: losses.Hinge()(Y, P, np.ones((3, 2))), ValueError, "sample_weight of hinge"),
    ],
)
def test_wrong_arguments_are_refused(make, error, text):
    with pytest.raises(error, match=text):
        make()

"""Custom losses and metrics, in both precisions, with and without kernels."""

import itertools

import numpy as np
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend, losses, metrics
from seqnet.layers import Dense

WEIGHTS = np.array([1.0, 2.0, 3.0])
X = np.linspace(-1, 1, 24).reshape(4, 3, 2)
LABELS = np.array([[0, 1, 2], [2, 1, 0], [0, 0, 1], [1, 2, 2]])
Y = np.eye(3)[LABELS]


def power(y, p):
    return 0.5 * pt.abs(y - p) ** 1.5


def mean_power(y, p):
    return (0.9 * abs(y - p) ** 1.5).mean(axis=-1)


def weighted_columns(y, p):
    return pt.mean(WEIGHTS * (y - p) ** 2, axis=-1)


def weighted_classes(y, p):
    weights = pt.as_tensor_variable(WEIGHTS)[pt.argmax(y, axis=-1)]
    return -weights * pt.sum(y * pt.log(p + 1e-7), axis=-1)


def projected(y, p):
    return pt.dot((y - p) ** 2, WEIGHTS)


def huber(y, p):
    error = pt.abs(y - p)
    return pt.mean(pt.switch(error < 0.1, 0.5 * error**2, 0.1 * (error - 0.05)), axis=-1)


class Scaled(losses.Loss):
    """A custom loss class with a parameter."""

    def __init__(self, scale=0.7):
        self.scale = np.float64(scale)

    def call(self, y_true, y_pred):
        return pt.mean(self.scale * (y_true - y_pred) ** 2, axis=-1)


def values_of(variable, given=None):
    """Return the value of a variable, compiled in seqnet's mode, which is quick."""
    return variable.eval(given, mode=backend.mode())


def by_numpy(function):
    """Return a loss's values for arrays, in float64."""
    p = pt.dtensor3("p")
    y = pt.constant(Y)
    values = losses.values_function(function)(y, p)
    return lambda predictions: values_of(values, {p: predictions})


OWN = [power, mean_power, weighted_columns, weighted_classes, projected, huber, Scaled()]


def backends_and_types():
    """Yield every backend with every precision and kind of targets; the quick set has two."""
    quick = [("auto", "float32", "integers"), ("numpy", "float64", "floats")]
    kinds = ("auto", "numpy"), ("float32", "float64"), ("floats", "integers")
    for case in itertools.product(*kinds):
        yield pytest.param(*case, marks=() if case in quick else pytest.mark.slow)


@pytest.mark.parametrize("loss", OWN, ids=lambda f: getattr(f, "__name__", "scaled"))
@pytest.mark.parametrize(("chosen", "dtype", "kind"), list(backends_and_types()))
def test_plain_numbers_and_numpy_arrays_work_in_losses(loss, chosen, dtype, kind):
    targets = Y if kind == "floats" else Y.astype("int64")
    seqnet.config.set_floatx(dtype)
    seqnet.config.set_backend(chosen)
    model = seqnet.Model([Dense(4, "tanh"), Dense(3, "softmax")])
    model.compile(seqnet.optimizers.SGD(0.5, clipnorm=1.0), loss)
    mask = np.arange(3) < np.array([3, 2, 3, 1])[:, None]
    weights = np.linspace(0.5, 2, 12).reshape(4, 3)
    expected = by_numpy(loss)(model.predict(X, mask=mask).astype("float64"))
    if expected.ndim == 3:
        expected = expected.mean(axis=-1)
    before = model.evaluate(X, targets, mask=mask, sample_weight=weights)
    assert before == pytest.approx(np.average(expected, weights=weights * mask), rel=1e-5)
    model.fit(X, targets, mask=mask, sample_weight=weights, epochs=3, verbose=0)
    assert model.evaluate(X, targets, mask=mask, sample_weight=weights) < before
    assert {w.dtype for w in model.get_weights()} == {np.dtype(dtype)}


def hits(y, p):
    return pt.eq(pt.argmax(y, axis=-1), pt.argmax(p, axis=-1))


@pytest.mark.parametrize("metric", [mean_power, weighted_columns, hits, huber])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_metrics_may_return_plain_numbers_and_bools(metric, dtype):
    seqnet.config.set_floatx(dtype)
    model = seqnet.Model([Dense(3, "softmax")])
    model.compile("sgd", "mse", metrics=[metric])
    expected = by_numpy(metric)(model.predict(X).astype("float64")).mean()
    assert model.evaluate(X, Y)[1] == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_indexes_an_array_by_a_variable_gets_advice():
    model = seqnet.Model([Dense(3)])
    model.compile("sgd", lambda y, p: WEIGHTS[pt.argmax(y, axis=-1)] * pt.sum(p, axis=-1))
    with pytest.raises(IndexError) as caught:
        model.fit(X, Y, verbose=0)
    (note,) = caught.value.__notes__
    assert "The loss '<lambda>'" in note
    assert "as_tensor_variable(array)[y_true]" in note


def nothing(y, p):
    pt.mean((y - p) ** 2, axis=-1)


@pytest.mark.usefixtures("no_compile")
@pytest.mark.parametrize(
    ("loss", "error", "text"),
    [
        (nothing, TypeError, "The loss 'nothing' .* returned None: does it end without a return"),
        (lambda y, p: [p], TypeError, "must return a PyTensor variable"),
        (lambda y, p: "p", TypeError, "must return a PyTensor variable"),
        (lambda y, p: pt.sum(y, axis=-1), ValueError, "does not depend on y_pred"),
        (lambda y, p: np.zeros(4), ValueError, "does not depend on y_pred"),
        (hits, TypeError, "The loss 'hits' gives values of the dtype bool, .* no gradient"),
    ],
)
def test_a_loss_without_a_gradient_is_refused(loss, error, text):
    model = seqnet.Model([Dense(3)])
    model.compile("sgd", loss)
    for verb in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(error, match=text):
            verb(X, Y)


@pytest.mark.usefixtures("no_compile")
def test_a_metric_that_returns_none_is_named():
    model = seqnet.Model([Dense(3)])
    model.compile("sgd", "mse", metrics=[nothing])
    with pytest.raises(TypeError, match=r"The metric 'nothing' .* returned None"):
        model.fit(X, Y, verbose=0)


# ------------------------------------------------------------------------- called directly

DENSE = [
    losses.MeanSquaredError(),
    losses.MeanAbsoluteError(),
    losses.CategoricalCrossentropy(),
    losses.BinaryCrossentropy(),
    metrics.CategoricalAccuracy(),
    metrics.BinaryAccuracy(),
]
SPARSE = [losses.SparseCategoricalCrossentropy(), metrics.SparseCategoricalAccuracy()]


def values_function(function):
    """Return the function that gives the values of steps, of a loss or a metric."""
    is_metric = isinstance(function, metrics.Metric)
    return function.call if is_metric else losses.values_function(function)


@pytest.mark.parametrize("function", DENSE, ids=lambda f: f.name)
def test_targets_of_another_shape_are_not_broadcast(function):
    function = values_function(function)
    p = np.full((4, 3), 1 / 3)
    with pytest.raises(ValueError, match=r" needs .* \(4, 3\), got \(3,\)"):
        function(np.zeros(3), p)
    with pytest.raises(ValueError, match=r"got \(4, 1\)"):
        function(np.zeros((4, 1)), p)
    with pytest.raises(ValueError, match=r"got \(batch,\)"):
        function(pt.dvector(), pt.dmatrix())
    assert values_of(function(np.eye(4, 3), p)).shape == (4,)
    assert function(pt.lmatrix(), pt.fmatrix()).dtype == "float32"


@pytest.mark.parametrize("function", SPARSE, ids=lambda f: f.name)
def test_class_numbers_of_another_shape_are_not_broadcast(function):
    function = values_function(function)
    p = np.full((4, 3), 1 / 3)
    with pytest.raises(ValueError, match=r"one class number .* \(4,\) .*, got \(4, 2\)"):
        function(np.zeros((4, 2), int), p)
    assert values_of(function(np.zeros((4, 1), int), p)).shape == (4,)
    with pytest.raises(ValueError, match=r"got \(5,\)"):
        function(np.zeros(5, int), p)
    assert values_of(function(np.zeros(4, int), p)).shape == (4,)


def test_class_numbers_must_be_integers():
    with pytest.raises(TypeError, match="integer class numbers, got float64"):
        losses.SparseCategoricalCrossentropy().call(np.zeros(4), np.full((4, 3), 1 / 3))


def test_perplexity_accepts_arrays():
    p = np.full((4, 3), 1 / 3)
    for y in (np.zeros(4, int), np.eye(4, 3) + np.eye(4, 3, -3)):
        np.testing.assert_allclose(metrics.Perplexity()(y, p), 3, rtol=1e-6)


def test_integer_predictions_are_converted_to_floats():
    values = losses.BinaryCrossentropy(reduction="none")(np.array([[1, 0]]), np.array([[1, 1]]))
    assert np.isfinite(values).all()
    assert values.dtype == "float32"


@pytest.mark.usefixtures("no_compile")
def test_a_metric_for_class_numbers_does_not_broadcast_in_training():
    model = seqnet.Model([Dense(3)])
    model.compile("sgd", "mse", metrics=["sparse_categorical_accuracy"])
    with pytest.raises(ValueError, match="sparse_categorical_accuracy needs one class number"):
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize("epsilon", [1e-7, 1e-9, 1e-60])
def test_losses_are_finite_with_an_epsilon_below_float32_precision(epsilon):
    seqnet.config.set_epsilon(epsilon)
    p, y = np.array([[0, 1.0]], "float32"), np.array([[1, 0]])
    for targets in (y, 1 - y):
        for loss in (losses.BinaryCrossentropy(), losses.CategoricalCrossentropy()):
            assert np.isfinite(values_of(loss.call(targets, p))).all()

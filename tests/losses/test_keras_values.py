"""Values and gradients of losses equal the stored ones of Keras 3, in both precisions."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import load_arrays, loss_cases

import seqnet
from seqnet import backend, losses
from seqnet.losses.reduction import step_weights, weighted_sum

KERAS = load_arrays("keras_losses")
MEANS = ("sum_over_batch_size", "mean_with_sample_weight", "sum")


def make(case, **options):
    name, own, _ = loss_cases.CASES[case]
    return getattr(losses, name)(**own, **options)


def targets_of(case, dtype):
    targets = KERAS[case]["targets"]
    return targets.astype("int32" if targets.dtype.kind == "i" else dtype)


def tolerance(dtype):
    return {"rtol": 1e-10, "atol": 1e-12} if dtype == "float64" else {"rtol": 2e-4, "atol": 2e-6}


@pytest.mark.parametrize("case", loss_cases.CASES)
@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float64"])
def test_values_and_gradients_equal_those_of_keras(case, dtype):
    """The values, weighted mean and sum, and their gradients, as in a training step."""
    arrays, loss = KERAS[case], make(case)
    y = targets_of(case, dtype)
    variables = [
        pt.tensor("y", dtype=y.dtype, shape=(None,) * y.ndim),
        pt.tensor("p", dtype=dtype, shape=(None, None, 5)),
        pt.tensor("w", dtype=dtype, shape=(None,) * arrays["weights"].ndim),
    ]
    values = loss.call(*variables[:2])
    weights = step_weights(values, variables[2], loss.counted(variables[0]))
    total = weighted_sum(values, weights)
    mean = total / pt.sum(weights)
    gradients = [pytensor.grad(v, variables[1]) for v in (mean, total)]
    reduced = []
    for reduction in MEANS:
        called = make(case, reduction=reduction)
        reduced += [called(*variables), called(*variables[:2])]
    outputs = [values, mean, total, *gradients, *reduced]
    f = backend.compile(variables, outputs, name="test")
    found = f(y, arrays["predictions"].astype(dtype), arrays["weights"].astype(dtype))
    keys = ["losses", "mean_with_sample_weight", "sum", "d_mean_with_sample_weight", "d_sum"]
    keys += [key for name in MEANS for key in (name, f"{name}_unweighted")]
    for key, value in zip(keys, found, strict=True):
        assert value.dtype == dtype
        np.testing.assert_allclose(value, arrays[key], err_msg=key, **tolerance(dtype))


@pytest.mark.parametrize("case", ["huber", "sparse_categorical_crossentropy_ignore"])
def test_calls_on_arrays_equal_those_of_keras(case):
    arrays = KERAS[case]
    y, p, w = arrays["targets"], arrays["predictions"], arrays["weights"]
    seqnet.config.set_floatx("float64")
    for reduction in MEANS:
        found = make(case, reduction=reduction)(y, p, sample_weight=w)
        assert np.ndim(found) == 0
        np.testing.assert_allclose(found, arrays[reduction], rtol=1e-10, err_msg=reduction)
    np.testing.assert_allclose(make(case)(y, p), arrays["sum_over_batch_size_unweighted"])


@pytest.mark.parametrize("case", [c for c in loss_cases.CASES if hasattr(losses, c)])
def test_functions_equal_the_classes_without_reduction(case):
    name, options, _ = loss_cases.CASES[case]
    cls = getattr(losses, name)
    function = getattr(losses, cls.registered_name)
    values = function(KERAS[case]["targets"], KERAS[case]["predictions"], **options)
    assert values.dtype == "float32"
    np.testing.assert_allclose(values, KERAS[case]["losses"], rtol=2e-4, atol=2e-6)
    assert type(losses.get(function)) is cls
    assert function.__name__ == cls.registered_name


@pytest.mark.parametrize("case", [c for c in loss_cases.CASES if "crossentropy_logits" in c])
def test_a_softmax_or_sigmoid_is_computed_from_its_logits(case):
    arrays = KERAS[case]
    name, options, _ = loss_cases.CASES[case]
    loss = getattr(losses, name)(**{**options, "from_logits": False})
    logits, y = pt.dtensor3("z"), arrays["targets"]
    p = pt.sigmoid(logits) if "binary" in case else pt.special.softmax(logits, axis=-1)
    total = pt.sum(loss.call(y, p))
    f = backend.compile([logits], [total, pytensor.grad(total, logits)], name="test")
    value, _ = f(arrays["predictions"])
    np.testing.assert_allclose(value, arrays["sum_unweighted"], rtol=1e-10)
    value, gradient = f(arrays["predictions"] * 1e3)  # nothing overflows
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0.01


def test_the_divergence_of_a_softmax_is_computed_from_its_logits():
    z, y = pt.fmatrix("z"), np.array([[0.25, 0.75]], "float32")
    value = losses.KLDivergence().call(y, pt.special.softmax(z, axis=-1))
    f = backend.compile([z], [value, pytensor.grad(pt.sum(value), z)], name="test")
    (value,), gradient = f(np.array([[500.0, -500.0]], "float32"))
    assert value == pytest.approx(750 - 0.562335)
    np.testing.assert_allclose(gradient, [[0.75, -0.75]], rtol=1e-6)


EXTREME = [
    losses.LogCosh(),
    losses.Huber(),
    losses.CosineSimilarity(),
    losses.BinaryFocalCrossentropy(gamma=0.5),
    losses.BinaryFocalCrossentropy(gamma=0.0),
    losses.BinaryFocalCrossentropy(gamma=0.5, from_logits=True),
    losses.CategoricalFocalCrossentropy(gamma=0.5),
    losses.CategoricalFocalCrossentropy(gamma=0.5, from_logits=True),
    losses.CategoricalCrossentropy(),
    losses.KLDivergence(),
    losses.Poisson(),
    losses.MeanSquaredLogarithmicError(),
    losses.MeanAbsolutePercentageError(),
    losses.Dice(axis=1),
    losses.Tversky(0.3, 0.7, axis=1),
]


@pytest.mark.parametrize("loss", EXTREME, ids=lambda loss: loss.name)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_are_finite_for_extreme_predictions(loss, dtype):
    """Predictions of only 0 and 1, rows of zeros, correct and wrong; huge values where allowed."""
    rows = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    if loss.from_logits or loss.name in ("log_cosh", "cosine_similarity"):
        rows += [[1e4, -1e4, 0], [-1e4, 1e4, 1e4], [1e30, 0, -1e30]]
    p = pt.matrix("p", dtype=dtype)
    y = np.eye(3, dtype=dtype)[[0] * len(rows)]
    value = pt.sum(loss.call(y, p))
    f = backend.compile([p], [value, pytensor.grad(value, p)], name="test")
    value, gradient = f(np.array(rows, dtype))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()

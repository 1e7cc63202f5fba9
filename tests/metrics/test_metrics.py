import numpy as np
import pytensor.tensor as pt
import pytest
from reference import numpy_training

import seqnet
from seqnet import backend, losses, metrics

RNG = np.random.default_rng(20260730)
SCORES = RNG.dirichlet(np.ones(4), (3, 5))
LABELS = RNG.integers(0, 4, (3, 5))
TARGETS = RNG.dirichlet(np.ones(4), (3, 5))
BITS = RNG.integers(0, 2, (3, 5, 4))


def values_of(metric, targets, scores=SCORES):
    y = pt.constant(targets.astype("int32") if targets.dtype.kind == "i" else targets)
    return backend.compile([], [metric.call(y, pt.constant(scores))], name="test")()[0]


@pytest.mark.parametrize("name", ["sparse", "categorical", "binary"])
def test_accuracies_equal_the_reference(name):
    name = f"{name}_categorical_accuracy" if name == "sparse" else f"{name}_accuracy"
    targets = {"s": LABELS, "c": TARGETS, "b": BITS}[name[0]]
    expected = getattr(numpy_training, name)(targets, SCORES)
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(values_of(metrics.get(name), targets), expected)


def test_the_threshold_of_binary_accuracy_can_be_set():
    metric = metrics.BinaryAccuracy(threshold=0.25)
    scores = np.array([[0.3, 0.2, 0.9, 0.1]])
    np.testing.assert_array_equal(values_of(metric, np.array([[1, 1, 1, 0]]), scores), [0.75])
    expected = numpy_training.binary_accuracy(BITS, SCORES, threshold=0.25)
    assert values_of(metric, BITS.astype(float)).shape == expected.shape


@pytest.mark.parametrize("threshold", [-1.5, 0.0, 2.0])
def test_the_threshold_of_binary_accuracy_may_be_of_logits(threshold):
    """Targets of 0 and 1 are on the right side of any threshold of predictions."""
    metric = metrics.BinaryAccuracy(threshold=threshold)
    right = metric([[1, 0, 0, 1]], [[5.0, -5.0, 5.0, -5.0]])
    assert right == 0.5


@pytest.mark.parametrize("cls", [metrics.Precision, metrics.Recall])
def test_top_k_of_fewer_outputs_is_an_error(cls):
    with pytest.raises(ValueError, match=r"top_k=3, but there are 1 outputs.*\(1, outputs\)"):
        cls(top_k=3)([0, 1, 1, 0], [0.2, 0.1, 0.5, 0.0])
    assert cls(top_k=1)([[0, 1, 1, 0]], [[0.2, 0.1, 0.5, 0.0]]) > 0


@pytest.mark.parametrize(
    ("name", "options", "y", "expected"),
    [
        ("binary_accuracy", {"threshold": 0.35}, [[0, 1, 1], [0, 0, 1]], [2 / 3, 2 / 3]),
        ("categorical_accuracy", {}, [[0, 0, 1], [0, 0, 1]], [1, 0]),
        ("sparse_categorical_accuracy", {}, [2, 2], [1, 0]),
        ("top_k_categorical_accuracy", {"k": 2}, [[0, 1, 0], [0, 0, 1]], [1, 1]),
        ("sparse_top_k_categorical_accuracy", {"k": 2}, [0, 2], [0, 1]),
    ],
)
def test_accuracies_as_functions(name, options, y, expected):
    p = np.array([[0.1, 0.3, 0.6], [0.5, 0.1, 0.4]], "float32")
    function = getattr(metrics, name)
    found = function(y, p, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == "float32"
    variable = function(pt.as_tensor(np.array(y)), pt.as_tensor(p), **options)
    np.testing.assert_allclose(variable.eval(mode=seqnet.backend.mode()), expected, rtol=1e-6)
    assert type(metrics.get(function)) is type(metrics.get(name))


def test_perplexity_is_the_exponential_of_the_mean_for_both_kinds_of_targets():
    metric = metrics.get("perplexity")
    sparse = values_of(metric, LABELS)
    dense = values_of(metric, np.eye(4)[LABELS])
    np.testing.assert_allclose(sparse, dense, rtol=1e-12)
    expected, _ = numpy_training.sparse_categorical_crossentropy(LABELS, np.log(SCORES))
    assert metric.result_of([sparse.sum(), sparse.size]) == pytest.approx(
        numpy_training.perplexity(expected)
    )
    uniform = values_of(metric, LABELS, np.full((3, 5, 4), 0.25))
    assert metric.result_of([uniform.sum(), uniform.size]) == pytest.approx(4.0)


def test_a_very_large_perplexity_is_finite():
    assert np.isfinite(metrics.Perplexity().result_of([1e9, 1.0]))


@pytest.mark.parametrize(
    ("loss", "cls"),
    [
        (losses.SparseCategoricalCrossentropy(), metrics.SparseCategoricalAccuracy),
        (losses.CategoricalCrossentropy(), metrics.CategoricalAccuracy),
        (losses.BinaryCrossentropy(), metrics.BinaryAccuracy),
    ],
)
@pytest.mark.parametrize("name", ["accuracy", "acc"])
def test_accuracy_matches_the_loss(loss, cls, name):
    metric = metrics.get(name, loss)
    assert type(metric) is cls
    assert metric.name == name
    assert metrics.get(cls()).name != name


def test_a_loss_is_a_metric_by_its_name():
    metric = metrics.get("mse")
    assert metric.name == "mse"
    expected, _ = numpy_training.squared_error(TARGETS, SCORES)
    np.testing.assert_allclose(values_of(metric, TARGETS), expected, rtol=1e-12)
    assert metric.result_of([6.0, 2.0]) == 3.0


def test_a_range_loss_is_a_metric_as_a_function_too():
    assert metrics.get(losses.masked_loss).name == metrics.get("masked_loss").name == "masked_loss"


def test_a_function_is_a_metric_of_its_own_name():
    def largest_error(y_true, y_pred):
        return pt.max(pt.abs(y_true - y_pred), axis=-1)

    metric = metrics.get(largest_error)
    assert metric.name == "largest_error"
    expected = np.abs(TARGETS - SCORES).max(axis=-1)
    np.testing.assert_allclose(values_of(metric, TARGETS), expected)


@pytest.mark.parametrize(
    ("metric", "loss", "targets"),
    [
        ("accuracy", losses.BinaryCrossentropy, BITS),
        ("acc", losses.SparseCategoricalCrossentropy, LABELS),
        ("binary_accuracy", losses.BinaryCrossentropy, BITS),
        ("perplexity", losses.SparseCategoricalCrossentropy, LABELS),
        ("perplexity", losses.CategoricalCrossentropy, TARGETS),
        ("sparse_categorical_crossentropy", losses.SparseCategoricalCrossentropy, LABELS),
        ("binary_crossentropy", losses.BinaryCrossentropy, BITS),
        ("mse", losses.BinaryCrossentropy, BITS),
    ],
)
def test_metrics_by_name_take_logits_where_the_loss_does(metric, loss, targets):
    of_probabilities = metrics.get(metric, loss())
    of_logits = metrics.get(metric, loss(from_logits=True))
    assert of_logits.name == of_probabilities.name
    logits = np.log(SCORES / (1 - SCORES)) if loss is losses.BinaryCrossentropy else np.log(SCORES)
    given = SCORES if metric == "mse" else logits
    np.testing.assert_allclose(
        values_of(of_logits, targets, given), values_of(of_probabilities, targets), rtol=1e-12
    )


def test_metric_objects_keep_their_settings():
    loss = losses.BinaryCrossentropy(from_logits=True)
    assert metrics.get(metrics.BinaryAccuracy(threshold=0.25), loss).threshold == 0.25
    assert not metrics.get(metrics.Perplexity(), loss).from_logits


@pytest.mark.parametrize("names", [["mae", "mae"], ["accuracy", "accuracy"]])
def test_two_metrics_of_one_name_are_refused(names):
    model = seqnet.Model([seqnet.layers.Dense(2, activation="softmax", input_shape=(3,))])
    with pytest.raises(ValueError, match="Two metrics would have the name"):
        model.compile(loss="sparse_categorical_crossentropy", metrics=names)

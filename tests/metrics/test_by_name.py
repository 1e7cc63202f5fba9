"""Metrics by name, and the errors of metrics."""

import numpy as np
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import losses, metrics
from seqnet.callbacks.monitoring import direction
from seqnet.layers import Dense


@pytest.mark.parametrize(
    ("units", "targets", "expected"),
    [
        (1, [[1], [0], [1]], "BinaryAccuracy"),
        (3, [[0, 0, 1], [1, 0, 0], [0, 1, 0]], "CategoricalAccuracy"),
    ],
)
def test_accuracy_is_chosen_by_shapes_for_any_loss(units, targets, expected):
    model = seqnet.Model([Dense(units, input_shape=(2,))])
    model.compile("sgd", "mse", ["accuracy", "ce"])
    x = np.random.default_rng(0).uniform(size=(3, 2))
    logs = model.evaluate(x, np.array(targets), verbose=0, return_dict=True)
    accuracy = getattr(metrics, expected)()(np.array(targets), model.predict(x))
    assert logs["accuracy"] == accuracy
    kind = "binary" if units == 1 else "categorical"
    loss = metrics.MeanMetricWrapper(f"{kind}_crossentropy")
    assert logs["ce"] == pytest.approx(loss(np.array(targets), model.predict(x)), rel=1e-5)


def test_accuracy_of_class_numbers_is_sparse():
    metric = metrics.get("acc")
    assert metric([2, 0], [[0.1, 0.2, 0.7], [0.1, 0.2, 0.7]]) == 0.5
    assert metric.name == "acc"


@pytest.mark.parametrize(
    ("name", "near"),
    [("maes", "'mae'"), ("acuracy", "'accuracy'"), ("f1", "'f1_score'"), ("recal", "'recall'")],
)
def test_an_unknown_name_suggests_near_ones_and_lists_all(name, near):
    with pytest.raises(ValueError, match="Unknown metric") as error:
        metrics.get(name)
    hint, known = str(error.value).split("Known:")
    assert near in hint
    assert {"mae", "acc", "auc"} <= set(known.split(".")[0].replace(",", "").split())


def test_a_metric_of_values_or_with_an_array_as_result_is_refused_by_compile():
    model = seqnet.Model([Dense(2, input_shape=(2,))])
    with pytest.raises(ValueError, match="Mean is a metric of values"):
        model.compile("sgd", "mse", [metrics.Mean()])
    for metric in ("f1_score", metrics.Recall([0.1, 0.2]), metrics.R2Score(None)):
        with pytest.raises(ValueError, match="gives an array, and a log is one number"):
            model.compile("sgd", "mse", [metric])
        with pytest.raises(ValueError, match="gives an array, and a log is one number"):
            model.compile("sgd", metrics=[metric])


def test_statistics_with_other_names_than_declared_are_an_error():
    class Wrong(metrics.Metric):
        sums = ("a", "b")

        def statistics(self, y_true, y_pred, sample_weight):
            return {"a": pt.sum(y_pred)}

        def compute_result(self, a, b):
            return a / b

    with pytest.raises(TypeError, match=r"'wrong'.* names in `sums`, \['a', 'b'\], got \['a'\]"):
        Wrong()([1.0], [1.0])


def test_a_metric_is_called_on_arrays_only():
    with pytest.raises(TypeError, match="'precision' is called on arrays"):
        metrics.Precision()(pt.vector(), pt.vector())
    with pytest.raises(ValueError, match="sample_weight of the metric 'precision'"):
        metrics.Precision()([0, 1], [0.5, 0.2], sample_weight=[1, 2, 3])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: metrics.Precision(1.5), "thresholds are numbers from 0 to 1, got 1.5"),
        (lambda: metrics.Precision(top_k=0), "top_k must be at least 1"),
        (lambda: metrics.Precision(class_id=4)([[0, 1]], [[0.1, 0.2]]), "there are 2 outputs"),
        (lambda: metrics.AUC(curve="roc"), "curve is 'ROC' or 'PR'"),
        (lambda: metrics.AUC(summation_method="mean"), "summation_method is one of"),
        (lambda: metrics.AUC(num_labels=3), "num_labels goes with multi_label"),
        (lambda: metrics.F1Score("mean"), "average is one of None, 'micro'"),
        (lambda: metrics.F1Score(threshold=0.0), "threshold is above 0"),
        (lambda: metrics.FBetaScore(beta=-1.0), "beta must be above 0"),
        (lambda: metrics.R2Score("mean"), "class_aggregation is one of"),
        (lambda: metrics.AUC(label_weights=[1, 2, 3])([[1, 0]], [[0.1, 0.2]]), "for 3 outputs"),
    ],
)
def test_wrong_arguments_are_clear_errors(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_a_metric_by_name_takes_logits_if_the_loss_does():
    logits, y = np.array([[-2.0], [0.5], [3.0]]), np.array([[0], [1], [1]])
    probabilities = 1 / (1 + np.exp(-logits))
    loss = losses.BinaryCrossentropy(from_logits=True)
    for name in ("precision", "true_negatives", "auc", "accuracy"):
        assert metrics.get(name, loss)(y, logits) == pytest.approx(
            metrics.get(name)(y, probabilities)
        )


def test_directions_know_the_names_of_outputs():
    assert direction("val_tags_f1_score", "auto", "x") == "max"
    assert direction("tags_false_positives", "auto", "x") == "min"
    assert direction("tags_loss", "auto", "x") == "min"


def test_sums_of_totals_that_cancel_are_not_positives():
    metric = metrics.Precision(thresholds=[0.2, 0.9])
    metric.update_state([1] * 10, [0.3] * 10, [0.1] * 10)
    np.testing.assert_allclose(metric.result(), [1.0, 0.0])


def test_r2_is_right_far_from_zero_in_float32():
    y = 1e4 + np.arange(4.0)[:, None]
    assert metrics.R2Score()(y, y + 1) == pytest.approx(1 - 4 / 5, rel=1e-6)
    assert metrics.R2Score()(np.ones((3, 1)), np.ones((3, 1))) == 0
    adjusted = metrics.R2Score(num_regressors=1)(y, y + 1, [1, 1, 1, 1])
    assert adjusted == pytest.approx(1 - (4 / 5) * 3 / 2, rel=1e-6)

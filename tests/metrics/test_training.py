"""Metrics in training equal those on arrays, for any batches and padding."""

import copy
import json
import pickle

import numpy as np
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import metrics
from seqnet.layers import Dense, Masking, SimpleRNN
from seqnet.metrics import MeanMetric, Metric, weighted_sum
from seqnet.training.results import Totals
from seqnet.training.step import CompiledSteps

RNG = np.random.default_rng(20261126)
LENGTHS = np.array([3, 5, 1, 4])
X = RNG.normal(size=(4, 5, 2))
Y = np.eye(3)[RNG.integers(0, 3, (4, 5))]
WEIGHT = RNG.choice([0.0, 0.5, 2.0], (4, 5))
PRESENT = np.arange(5) < LENGTHS[:, None]


class Confusions(Metric):
    """The trace of the confusion matrix over its sum: a matrix as a statistic."""

    sums = ("matrix",)

    def statistics(self, y_true, y_pred, sample_weight):
        guess = pt.eq(y_pred, y_pred.max(axis=-1, keepdims=True))
        return {"matrix": weighted_sum(y_true[..., None] * guess[..., None, :], sample_weight)}

    def compute_result(self, matrix):
        return np.trace(matrix) / matrix.sum()


class WorstError(MeanMetric):
    """Has a constructor that does not call the one of the base class."""

    def __init__(self, power=1):
        self.power = power

    def call(self, y_true, y_pred):
        return pt.max(abs(y_true - y_pred) ** self.power, axis=-1)


def all_metrics():
    return [
        metrics.Precision(thresholds=0.4),
        metrics.Recall(top_k=1),
        metrics.F1Score("macro"),
        metrics.AUC(num_thresholds=30),
        metrics.AUC(curve="PR", multi_label=True, name="pr"),
        metrics.R2Score("variance_weighted_average"),
        metrics.TopKCategoricalAccuracy(2),
        metrics.Perplexity(),
        Confusions(),
        WorstError(2),
    ]


def tagger(asked):
    model = seqnet.Model(
        [
            Masking(-9.0, input_shape=(None, 2)),
            SimpleRNN(4, return_sequences=True),
            Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", "categorical_crossentropy", asked)
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_metrics_equal_those_of_arrays_for_any_batches_and_padding(dtype):
    seqnet.config.set_floatx(dtype)
    model = tagger(all_metrics())
    x = np.where(PRESENT[..., None], X, -9.0)
    predicted = model.predict(x)
    expected = {}
    for metric in all_metrics():
        metric.update_state(Y[:1], predicted[:1], (WEIGHT * PRESENT)[:1])
        expected[metric.name] = metric(Y[1:], predicted[1:], (WEIGHT * PRESENT)[1:])
    for size in (1, 3, 4):
        logs = model.evaluate(x, Y, size, 0, sample_weight=WEIGHT, return_dict=True)
        del logs["loss"]
        assert logs == pytest.approx(expected, rel=1e-5)
    wide = np.pad(x, ((0, 0), (0, 3), (0, 0)), constant_values=-9.0)
    y = np.pad(Y, ((0, 0), (0, 3), (0, 0)), constant_values=np.nan)
    weight = np.pad(WEIGHT, ((0, 0), (0, 3)), constant_values=7.0)
    logs = model.evaluate(wide, y, 3, 0, sample_weight=weight, return_dict=True)
    del logs["loss"]
    assert logs == pytest.approx(expected, rel=1e-5)


def test_totals_are_saved_as_numbers_and_lists():
    asked = [metrics.Recall(), Confusions(), metrics.MeanMetricWrapper("mse")]
    model = tagger(asked)
    batch = seqnet.data.Batch(X.astype("float32"), Y.astype("float32"))
    sums = model.steps.test(batch).sums
    objectives = model.objectives
    totals, restored = Totals(objectives, sums, sums), Totals(objectives)
    assert restored.logs()["recall"] == 0
    restored.load_state_dict(json.loads(json.dumps(totals.state_dict())))
    restored.add(sums)
    totals.add(sums)
    assert restored.logs() == totals.logs()
    assert totals.sums[4].tolist() == pytest.approx((3 * sums[4]).tolist())


def test_a_resumed_epoch_has_the_same_metrics(tmp_path, monkeypatch):
    def fit(name):
        seqnet.set_random_seed(1)
        model = tagger([metrics.AUC(), Confusions()])
        backup = seqnet.callbacks.BackupAndRestore(tmp_path / name, save_freq=1)
        return model.fit(X, Y, 1, 2, verbose=0, callbacks=[backup]).history

    train, calls = CompiledSteps.train, []

    def interrupted(self, *given):
        calls.append(given)
        if len(calls) == 3:
            raise ZeroDivisionError
        return train(self, *given)

    whole = fit("whole.h5")
    monkeypatch.setattr(CompiledSteps, "train", interrupted)
    with pytest.raises(ZeroDivisionError):
        fit("run.h5")
    assert fit("run.h5") == whole
    assert len(calls) == 3 + 6  # two steps were kept


def test_a_metric_is_copied_pickled_and_saved_with_a_model(tmp_path):
    metric = metrics.Recall(0.3, name="found")
    metric.update_state([0, 1, 1], [0.2, 0.4, 0.1])
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert other.result() == metric.result() == 0.5
        assert other([1], [0.9]) != metric.result()
    model = tagger([metric, metrics.AUC(thresholds=[0.2, 0.4]), "mae", "acc"])
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    results = [m.evaluate(X, Y, verbose=0, return_dict=True) for m in (model, again)]
    assert results[0] == results[1]
    assert list(results[0]) == ["loss", "found", "auc", "mae", "acc"]

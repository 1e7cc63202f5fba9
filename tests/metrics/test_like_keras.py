"""Values of metrics equal those of Keras 3, for any batches, weights, padding and precision."""

import json
from pathlib import Path

import numpy as np
import pytest
from reference.metric_cases import CASES, SAMPLES, arrays

from seqnet import metrics

STORED = Path(__file__).parent.parent / "reference" / "keras_metrics.json"
VALUES = json.loads(STORED.read_text())["values"]
PAIRS = list(zip(CASES, VALUES, strict=True))
NAMES = [f"{name}-{number}" for number, (name, *_) in enumerate(CASES)]
TOLERANCE = {"rtol": 2e-6, "atol": 1e-6}


def test_there_are_values_for_all_cases():
    assert len(VALUES) == len(CASES)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("case", "expected"), PAIRS, ids=NAMES)
def test_values_of_padded_batches_equal_those_of_keras(case, expected, dtype):
    name, options, kind = case
    metric = getattr(metrics, name)(**options, dtype=dtype)
    y_true, y_pred, weight = arrays(kind)
    padding = np.zeros_like
    y_true = np.concatenate([padding(y_true), y_true], axis=1)
    y_pred = np.concatenate([np.full_like(y_pred, np.nan), y_pred], axis=1)
    weight = np.concatenate([padding(weight), weight], axis=1)
    for start, stop in [(0, 1), (1, 4), (4, SAMPLES)]:
        metric.update_state(y_true[start:stop], y_pred[start:stop], weight[start:stop])
    np.testing.assert_allclose(metric.result(), expected["weighted"], **TOLERANCE)


@pytest.mark.parametrize(("case", "expected"), PAIRS, ids=NAMES)
def test_values_without_weights_equal_those_of_keras(case, expected):
    name, options, kind = case
    if "ignore_class" in options:
        pytest.skip("Keras divides by the ignored steps too, unless there are weights.")
    y_true, y_pred, _ = arrays(kind)
    metric = getattr(metrics, name)(**options)
    np.testing.assert_allclose(metric(y_true, y_pred), expected["unweighted"], **TOLERANCE)
    again = getattr(metrics, name).from_config(metric.get_config())
    assert again.name == metric.name
    assert again.get_config() == metric.get_config()
    metric.reset_state()
    assert metric.result() == 0

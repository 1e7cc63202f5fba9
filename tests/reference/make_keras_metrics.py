"""Write keras_metrics.json: Keras 3's metrics for the batches of `metric_cases.py`.

Run in an environment with Keras 3 and JAX, from the root of the repository:

    KERAS_BACKEND=jax python tests/reference/make_keras_metrics.py
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from reference.metric_cases import CASES, arrays  # noqa: E402


def result(name, options, kind, weighted):
    y_true, y_pred, weight = arrays(kind)
    metric = getattr(keras.metrics, name)(**options)
    flat = y_pred.shape[-1]
    rows = [y_true.reshape(-1, *y_true.shape[weight.ndim :]), y_pred.reshape(-1, flat)]
    metric.update_state(*rows, sample_weight=weight.ravel() if weighted else None)
    return np.asarray(metric.result(), "float64").tolist()


values = [
    {"unweighted": result(*case, weighted=False), "weighted": result(*case, weighted=True)}
    for case in CASES
]
text = json.dumps({"keras": keras.__version__, "values": values}, indent=1)
(HERE / "keras_metrics.json").write_text(text + "\n")

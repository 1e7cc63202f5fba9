"""Metrics with their arguments, and the batches that Keras 3's values were computed for."""

import numpy as np

SAMPLES, STEPS, OUTPUTS = 6, 5, 4

CASES = [
    ("Precision", {}, "bits"),
    ("Precision", {"thresholds": [0.1, 0.5, 0.8]}, "bits"),
    ("Precision", {"top_k": 2}, "bits"),
    ("Precision", {"top_k": 2, "class_id": 1}, "bits"),
    ("Precision", {"thresholds": 0.3, "class_id": 2}, "bits"),
    ("Recall", {}, "bits"),
    ("Recall", {"thresholds": [0.2, 0.7]}, "bits"),
    ("Recall", {"top_k": 3}, "bits"),
    ("TruePositives", {}, "bits"),
    ("TrueNegatives", {"thresholds": 0.2}, "bits"),
    ("FalsePositives", {"thresholds": [0.2, 0.6]}, "bits"),
    ("FalseNegatives", {}, "bits"),
    ("F1Score", {}, "classes"),
    ("F1Score", {"average": "micro", "threshold": 0.4}, "bits"),
    ("F1Score", {"average": "macro"}, "classes"),
    ("F1Score", {"average": "weighted", "threshold": 0.25}, "bits"),
    ("FBetaScore", {"beta": 2.0}, "classes"),
    ("FBetaScore", {"beta": 0.5, "average": "macro", "threshold": 0.5}, "bits"),
    ("AUC", {}, "bits"),
    ("AUC", {"curve": "PR"}, "bits"),
    ("AUC", {"curve": "PR", "summation_method": "minoring"}, "bits"),
    ("AUC", {"summation_method": "majoring", "num_thresholds": 20}, "bits"),
    ("AUC", {"thresholds": [0.1, 0.3, 0.35, 0.8]}, "bits"),
    ("AUC", {"multi_label": True, "num_labels": OUTPUTS}, "bits"),
    ("AUC", {"multi_label": True, "curve": "PR", "label_weights": [1.0, 2.0, 0.5, 1.0]}, "bits"),
    ("AUC", {"from_logits": True}, "logits"),
    ("R2Score", {}, "numbers"),
    ("R2Score", {"class_aggregation": None}, "numbers"),
    ("R2Score", {"class_aggregation": "variance_weighted_average"}, "numbers"),
    ("BinaryAccuracy", {"threshold": 0.3}, "bits"),
    ("CategoricalAccuracy", {}, "classes"),
    ("SparseCategoricalAccuracy", {}, "labels"),
    ("TopKCategoricalAccuracy", {"k": 2}, "classes"),
    ("SparseTopKCategoricalAccuracy", {"k": 2}, "labels"),
    ("MeanSquaredError", {}, "numbers"),
    ("MeanAbsoluteError", {}, "numbers"),
    ("RootMeanSquaredError", {}, "numbers"),
    ("MeanAbsolutePercentageError", {}, "numbers"),
    ("MeanSquaredLogarithmicError", {}, "bits"),
    ("CosineSimilarity", {}, "numbers"),
    ("LogCoshError", {}, "numbers"),
    ("Hinge", {}, "logits"),
    ("SquaredHinge", {}, "logits"),
    ("CategoricalHinge", {}, "classes"),
    ("Poisson", {}, "bits"),
    ("KLDivergence", {}, "classes"),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, "bits"),
    ("BinaryCrossentropy", {"from_logits": True}, "logits"),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, "classes"),
    ("SparseCategoricalCrossentropy", {}, "labels"),
    ("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 2}, "label_logits"),
]


def arrays(kind):
    """Return targets, predictions (samples, time, outputs) and weights (samples, time)."""
    rng = np.random.default_rng(20261125)
    shape = (SAMPLES, STEPS, OUTPUTS)
    labels = rng.integers(0, OUTPUTS, shape[:2]).astype("int32")
    probabilities = rng.dirichlet(np.ones(OUTPUTS), shape[:2]).astype("float32")
    numbers = rng.normal(size=shape).astype("float32")
    bits = rng.integers(0, 2, shape).astype("float32")
    weight = rng.choice([0.5, 1.0, 2.0], shape[:2]).astype("float32")
    y_true, y_pred = {
        "bits": (bits, probabilities),
        "classes": (np.eye(OUTPUTS, dtype="float32")[labels], probabilities),
        "labels": (labels, probabilities),
        "label_logits": (labels, numbers),
        "logits": (bits, numbers),
        "numbers": (numbers, numbers + rng.normal(size=shape).astype("float32") / 2),
    }[kind]
    return y_true, y_pred, weight

"""The losses that `make_keras_losses.py` stores: Keras's class and arguments, and the inputs.

All inputs are float64 arrays of values that are exact in float32.
"""

import numpy as np

from .cases import float32_values, normal, random_generator

SMOOTH = {"label_smoothing": 0.2}
LOGITS = {"from_logits": True}

# case: (class, arguments, kind of inputs)
CASES = {
    "mean_squared_error": ("MeanSquaredError", {}, "real"),
    "mean_absolute_error": ("MeanAbsoluteError", {}, "real"),
    "mean_absolute_percentage_error": ("MeanAbsolutePercentageError", {}, "real"),
    "mean_absolute_percentage_error_zero": ("MeanAbsolutePercentageError", {}, "binary"),
    "mean_squared_logarithmic_error": ("MeanSquaredLogarithmicError", {}, "counts"),
    "mean_squared_logarithmic_error_negative": ("MeanSquaredLogarithmicError", {}, "real"),
    "log_cosh": ("LogCosh", {}, "real"),
    "log_cosh_extreme": ("LogCosh", {}, "extreme"),
    "huber": ("Huber", {}, "real"),
    "huber_delta": ("Huber", {"delta": 0.3}, "real"),
    "huber_extreme": ("Huber", {}, "extreme"),
    "cosine_similarity": ("CosineSimilarity", {}, "real"),
    "cosine_similarity_axis": ("CosineSimilarity", {"axis": 1}, "real"),
    "hinge": ("Hinge", {}, "signs"),
    "hinge_binary": ("Hinge", {}, "binary"),
    "squared_hinge": ("SquaredHinge", {}, "signs"),
    "categorical_hinge": ("CategoricalHinge", {}, "one_hot"),
    "poisson": ("Poisson", {}, "counts"),
    "kl_divergence": ("KLDivergence", {}, "distributions"),
    "binary_crossentropy": ("BinaryCrossentropy", {}, "probabilities"),
    "binary_crossentropy_smooth": ("BinaryCrossentropy", SMOOTH, "probabilities"),
    "binary_crossentropy_axis": ("BinaryCrossentropy", {"axis": 1}, "probabilities"),
    "binary_crossentropy_logits": ("BinaryCrossentropy", LOGITS | SMOOTH, "binary"),
    "binary_focal_crossentropy": ("BinaryFocalCrossentropy", {}, "probabilities"),
    "binary_focal_crossentropy_balanced": (
        "BinaryFocalCrossentropy",
        {"apply_class_balancing": True, "alpha": 0.4, "gamma": 1.5} | SMOOTH,
        "probabilities",
    ),
    "binary_focal_crossentropy_logits": ("BinaryFocalCrossentropy", LOGITS, "binary"),
    "categorical_crossentropy": ("CategoricalCrossentropy", {}, "distributions"),
    "categorical_crossentropy_smooth": ("CategoricalCrossentropy", SMOOTH, "distributions"),
    "categorical_crossentropy_axis": ("CategoricalCrossentropy", {"axis": 1}, "distributions"),
    "categorical_crossentropy_logits": ("CategoricalCrossentropy", LOGITS | SMOOTH, "one_hot"),
    "categorical_focal_crossentropy": ("CategoricalFocalCrossentropy", {}, "distributions"),
    "categorical_focal_crossentropy_weights": (
        "CategoricalFocalCrossentropy",
        {"alpha": [0.1, 0.2, 0.3, 0.4, 0.5], "gamma": 1.5} | SMOOTH,
        "distributions",
    ),
    "categorical_focal_crossentropy_logits": ("CategoricalFocalCrossentropy", LOGITS, "one_hot"),
    "sparse_categorical_crossentropy": ("SparseCategoricalCrossentropy", {}, "labels"),
    "sparse_categorical_crossentropy_ignore": (
        "SparseCategoricalCrossentropy",
        {"ignore_class": 2},
        "labels",
    ),
    "sparse_categorical_crossentropy_logits": (
        "SparseCategoricalCrossentropy",
        LOGITS | {"ignore_class": -1},
        "labels_logits",
    ),
    "generalized_cross_entropy": ("CategoricalGeneralizedCrossEntropy", {}, "label_shares"),
    "generalized_cross_entropy_q": (
        "CategoricalGeneralizedCrossEntropy",
        {"q": 0.9},
        "label_shares",
    ),
    "dice": ("Dice", {"axis": (1, 2)}, "overlap"),
    "dice_axis": ("Dice", {"axis": (2,)}, "probabilities"),
    "tversky": ("Tversky", {"axis": (1, 2)}, "overlap"),
    "tversky_axis": ("Tversky", {"alpha": 0.2, "beta": 0.7, "axis": (2,)}, "probabilities"),
}


def inputs(case):
    """Return targets, predictions and weights of a case; one weight is 0."""
    kind = CASES[case][2]
    rng = random_generator(f"losses/{case}")
    shape = (3, 4, 5)
    predictions = normal(rng, shape, 1.5)
    positive = float32_values(rng.uniform(0.05, 2.0, shape))
    labels = rng.integers(0, 5, shape[:2])
    one_hot = np.eye(5)[labels]
    if kind == "extreme":
        predictions = predictions * 1000.0
    if kind in ("counts", "distributions", "labels"):
        predictions = positive
    if kind in ("probabilities", "label_shares", "overlap"):
        predictions = float32_values(rng.uniform(0.05, 0.95, shape))
    if kind == "labels_logits":
        labels[0, 1] = labels[2, 3] = -1
    targets = {
        "counts": rng.poisson(2.0, shape).astype(float),
        "signs": 2.0 * rng.integers(0, 2, shape) - 1,
        "binary": rng.integers(0, 2, shape).astype(float),
        "probabilities": rng.integers(0, 2, shape).astype(float),
        "one_hot": one_hot,
        "distributions": float32_values(rng.dirichlet(np.ones(5), shape[:2])),
        "labels": labels,
        "labels_logits": labels,
        "label_shares": labels,
        "overlap": (positive > 1.5).astype(float),
    }.get(kind)
    weights_shape = {1: (3, 5), (1, 2): (3,)}.get(CASES[case][1].get("axis"), (3, 4))
    weights = float32_values(rng.uniform(0.2, 3.0, weights_shape))
    weights[(1, 2)[: weights.ndim]] = 0
    return {
        "targets": normal(rng, shape) if targets is None else targets,
        "predictions": predictions,
        "weights": weights,
    }

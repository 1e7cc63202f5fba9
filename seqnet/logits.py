"""What a prediction is the softmax or sigmoid of, and logarithms of probabilities from it."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
from pytensor.scalar.math import Sigmoid
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.special import Softmax

from seqnet import config
from seqnet.ops.lookup import checked


def softmax_logits(y_pred):
    """Return what `y_pred` is the softmax (over its last axis) of, or None."""
    node = y_pred.owner
    if node is not None and isinstance(node.op, Softmax) and node.op.axis == (y_pred.ndim - 1,):
        return node.inputs[0]
    return None


def sigmoid_logits(y_pred):
    """Return what `y_pred` is the sigmoid of, or None."""
    node = y_pred.owner
    if (
        node is not None
        and isinstance(node.op, Elemwise)
        and isinstance(node.op.scalar_op, Sigmoid)
    ):
        return node.inputs[0]
    return None


def cast_output(y_pred, dtype: str):
    """Return `y_pred` in a float type; a softmax or sigmoid stays what is done last."""
    if softmax_logits(y_pred) is not None:
        return pt.special.softmax(pt.cast(softmax_logits(y_pred), dtype), axis=-1)
    if sigmoid_logits(y_pred) is not None:
        return pt.sigmoid(pt.cast(sigmoid_logits(y_pred), dtype))
    return pt.cast(y_pred, dtype)


def log_probabilities(y_pred, from_logits: bool = False):
    """Return the logarithm of predicted class probabilities, stably."""
    logits = y_pred if from_logits else softmax_logits(y_pred)
    if logits is not None:
        return pt.special.log_softmax(logits, axis=-1)
    tiny = max(config.epsilon(), np.finfo(y_pred.dtype).tiny)
    tiny = np.asarray(tiny, dtype=y_pred.dtype)
    return pt.log(pt.clip(y_pred, tiny, np.asarray(1, dtype=y_pred.dtype)))


def pick_class(values, targets):
    """Return ``values[..., targets[...]]``: (..., classes) and integer (...) give (...).

    A target that is no class is an ``IndexError`` when this is computed.
    """
    rows = values.reshape((-1, values.shape[-1]))
    classes = values.type.shape[-1] or values.shape[-1]
    flat = checked(targets.flatten(), classes, "The class numbers")
    return rows[pt.arange(flat.shape[0]), flat].reshape(targets.shape)

"""Find the logits of a softmax or sigmoid in a graph, and compute log probabilities from them."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
from pytensor.scalar.math import Sigmoid
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.special import Softmax

from seqnet import config
from seqnet.common.types import Tensor
from seqnet.ops.lookup import assert_in_range


def softmax_logits(y_pred: Tensor) -> Tensor | None:
    """Return the logits if `y_pred` is a softmax over its last axis, else None."""
    node = y_pred.owner
    if node is not None and isinstance(node.op, Softmax) and node.op.axis == (y_pred.ndim - 1,):
        return node.inputs[0]
    return None


def sigmoid_logits(y_pred: Tensor) -> Tensor | None:
    """Return the logits if `y_pred` is a sigmoid, else None."""
    node = y_pred.owner
    if (
        node is not None
        and isinstance(node.op, Elemwise)
        and isinstance(node.op.scalar_op, Sigmoid)
    ):
        return node.inputs[0]
    return None


def cast_output(y_pred: Tensor, dtype: str) -> Tensor:
    """Return `y_pred` cast to a float type; a softmax or sigmoid stays the last operation."""
    if softmax_logits(y_pred) is not None:
        return pt.special.softmax(pt.cast(softmax_logits(y_pred), dtype), axis=-1)
    if sigmoid_logits(y_pred) is not None:
        return pt.sigmoid(pt.cast(sigmoid_logits(y_pred), dtype))
    return pt.cast(y_pred, dtype)


def to_last_axis(values: Tensor, axis: int) -> Tensor:
    """Return values with an axis moved to the end; a softmax over it stays the last operation."""
    if axis in (-1, values.ndim - 1):
        return values
    node = values.owner
    if node is not None and isinstance(node.op, Softmax):
        if node.op.axis == (axis % values.ndim,):
            return pt.special.softmax(pt.moveaxis(node.inputs[0], axis, -1), axis=-1)
    elif (logits := sigmoid_logits(values)) is not None:
        return pt.sigmoid(pt.moveaxis(logits, axis, -1))
    return pt.moveaxis(values, axis, -1)


def log_probabilities(y_pred: Tensor, from_logits: bool = False) -> Tensor:
    """Return the logarithm of predicted class probabilities, stably.

    Predictions that are not known to be a softmax are divided by their sum over the classes.
    """
    logits = y_pred if from_logits else softmax_logits(y_pred)
    if logits is not None:
        return pt.special.log_softmax(logits, axis=-1)
    total = pt.sum(y_pred, axis=-1, keepdims=True)
    shares = y_pred / pt.switch(pt.eq(total, 0), pt.ones_like(total), total)
    return clipped_log(shares)


def clipped_log(p: Tensor) -> Tensor:
    """Return the logarithm of probabilities, clipped to the range from epsilon to 1."""
    low = max(config.epsilon(), np.finfo(p.dtype).tiny)
    return pt.log(pt.clip(p, np.asarray(low, p.dtype), np.asarray(1, p.dtype)))


def pick_class(values: Tensor, targets: Tensor) -> Tensor:
    """Return ``values[..., targets[...]]``: of shapes (..., classes) and (...) for integers.

    A target outside of the classes raises ``IndexError`` when this is computed.
    """
    rows = values.reshape((-1, values.shape[-1]))
    classes = values.type.shape[-1] or values.shape[-1]
    flat = assert_in_range(targets.flatten(), classes, "The class numbers")
    return rows[pt.arange(flat.shape[0]), flat].reshape(targets.shape)

"""Losses, metrics, gradient clipping and optimizer steps in plain NumPy, float64.

A loss function returns two arrays: one value per example or step, shape ``(...)``, and the
derivative of each value with respect to its own logits or predictions, shape ``(..., classes)``.
Means over a batch, with weights and a mask, are `weighted_mean` and `weighted_mean_backward`.

An optimizer is a function ``(parameter, gradient, slots, **hyperparameters)`` that returns the new
parameter and the new slots; start with ``slots = {}``.
"""

import numpy as np

# -------------------------------------------------------------------------------------- losses


def log_softmax(logits):
    """``logits - log(sum(exp(logits)))`` over the last axis, without overflow."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def categorical_crossentropy(targets, logits):
    """``-sum(targets * log_softmax(logits))`` over the last axis.

    targets and logits ``(..., classes)`` -> losses ``(...)``, d_logits ``(..., classes)``. Targets
    may be any weights; for probabilities the derivative is ``softmax(logits) - targets``.
    """
    log_p = log_softmax(logits)
    total = targets.sum(axis=-1, keepdims=True)
    return -(targets * log_p).sum(axis=-1), total * np.exp(log_p) - targets


def sparse_categorical_crossentropy(labels, logits):
    """``-log_softmax(logits)[label]``.

    labels ``(...)`` int, logits ``(..., classes)`` -> losses ``(...)``, d_logits
    ``(..., classes)``.
    """
    one_hot = (labels[..., None] == np.arange(logits.shape[-1])).astype(logits.dtype)
    return categorical_crossentropy(one_hot, logits)


def binary_crossentropy(targets, logits):
    """Mean over the last axis of ``-t log sigmoid(a) - (1 - t) log(1 - sigmoid(a))``.

    targets and logits ``(..., units)`` -> losses ``(...)``, d_logits ``(..., units)``.
    """
    values = np.maximum(logits, 0.0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
    probability = np.exp(-np.logaddexp(0.0, -logits))
    return values.mean(axis=-1), (probability - targets) / logits.shape[-1]


def squared_error(targets, predictions):
    """Mean over the last axis of ``(prediction - target) ** 2``: ``(..., units)`` -> ``(...)``."""
    difference = predictions - targets
    return (difference**2).mean(axis=-1), 2.0 * difference / predictions.shape[-1]


def absolute_error(targets, predictions):
    """Mean over the last axis of ``|prediction - target|``; the derivative at 0 is 0."""
    difference = predictions - targets
    return np.abs(difference).mean(axis=-1), np.sign(difference) / predictions.shape[-1]


def masked_loss(predictions, labels, lengths, starts):
    """Negative log-likelihood summed over a range of steps of every example (theano_lstm).

    ``loss[i] = -sum(log(predictions[i, t, labels[i, t]]))`` for t from ``starts[i]`` to
    ``starts[i] + lengths[i] - 1``: labels are read at the same, absolute, t.

    predictions ``(batch, time, classes)`` are probabilities; labels ``(batch, time)`` int;
    lengths and starts ``(batch,)`` int -> ``(batch,)``.
    """
    losses = np.zeros(len(predictions))
    for i, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        for t in range(start, start + length):
            losses[i] -= np.log(predictions[i, t, labels[i, t]])
    return losses


def masked_loss_backward(predictions, labels, lengths, starts, d_losses):
    """Derivative of `masked_loss`: ``-g[i] / p`` at the labels in the range, 0 elsewhere.

    d_losses g ``(batch,)`` -> ``(batch, time, classes)``.
    """
    d_predictions = np.zeros_like(predictions)
    for i, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        for t in range(start, start + length):
            d_predictions[i, t, labels[i, t]] = -d_losses[i] / predictions[i, t, labels[i, t]]
    return d_predictions


# ---------------------------------------------------------------------------- means and metrics


def step_weights(shape, weights=None, mask=None):
    """``weights * mask`` as a float array of the given shape, ones where both are left out.

    Either may lack trailing axes: ``(batch,)`` weights apply to all steps of an example.
    """
    total = np.ones(shape)
    for factor in (weights, mask):
        if factor is not None:
            factor = np.asarray(factor, dtype=float)
            total = total * factor.reshape(factor.shape + (1,) * (len(shape) - factor.ndim))
    return total


def weighted_mean(values, weights=None, mask=None):
    """``sum(w * m * values) / sum(w * m)``, 0 if the denominator is 0.

    values ``(batch,)`` or ``(batch, time)``; weights and mask as in `step_weights` -> float.
    Steps of weight 0 are ignored even if their value is NaN.
    """
    total = step_weights(values.shape, weights, mask)
    if total.sum() == 0.0:
        return 0.0
    return float((total * np.where(total == 0.0, 0.0, values)).sum() / total.sum())


def weighted_mean_backward(d_values, weights=None, mask=None):
    """Derivative of the `weighted_mean` of a loss with respect to its logits.

    d_values ``(..., classes)`` is the second result of a loss; the shape stays.
    """
    total = step_weights(d_values.shape[:-1], weights, mask)
    if total.sum() == 0.0:
        return np.zeros_like(d_values)
    total = total[..., None]
    return total / total.sum() * np.where(total == 0.0, 0.0, d_values)


def sparse_categorical_accuracy(labels, scores):
    """1.0 where the highest score is the label's: ``(...)``, ``(..., classes)`` -> ``(...)``."""
    return (scores.argmax(axis=-1) == labels).astype(float)


def categorical_accuracy(targets, scores):
    """1.0 where the highest score is at the highest target: both ``(..., classes)``."""
    return sparse_categorical_accuracy(targets.argmax(axis=-1), scores)


def binary_accuracy(targets, probabilities, threshold=0.5):
    """Fraction over the last axis where ``probability > threshold`` equals the target."""
    return ((probabilities > threshold) == (targets > threshold)).mean(axis=-1)


def perplexity(losses, weights=None, mask=None):
    """``exp`` of the weighted mean cross-entropy in nats."""
    return float(np.exp(weighted_mean(losses, weights, mask)))


# ------------------------------------------------------------------------------------- clipping


def clip_by_value(gradients, limit):
    """Clip every element to -limit and limit. gradients: a list of arrays, as is the result."""
    return [np.clip(gradient, -limit, limit) for gradient in gradients]


def clip_by_norm(gradients, limit):
    """Scale each gradient separately to a Euclidean norm of at most limit."""
    return [scaled for gradient in gradients for scaled in clip_by_global_norm([gradient], limit)]


def clip_by_global_norm(gradients, limit):
    """Scale all gradients by one factor to a global Euclidean norm of at most limit."""
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    factor = 1.0 if norm <= limit else limit / norm
    return [factor * gradient for gradient in gradients]


# ----------------------------------------------------------------------------------- optimizers


def sgd(parameter, gradient, slots, *, learning_rate=0.01, momentum=0.0, nesterov=False):
    """``v' = momentum * v - learning_rate * g``, ``p' = p + v'``.

    With nesterov ``p' = p + momentum * v' - learning_rate * g``.
    """
    velocity = momentum * slots.get("velocity", 0.0) - learning_rate * gradient
    change = momentum * velocity - learning_rate * gradient if nesterov else velocity
    return parameter + change, {"velocity": velocity}


def adagrad(
    parameter,
    gradient,
    slots,
    *,
    learning_rate=0.01,
    epsilon=1e-7,
    initial_accumulator_value=0.0,
    epsilon_inside_root=True,
):
    """Duchi et al. (2011): ``s' = s + g**2``, ``p' = p - learning_rate * g / sqrt(s' + epsilon)``.

    With epsilon_inside_root=False (PyTorch) the denominator is ``sqrt(s') + epsilon``.
    """
    total = slots.get("total", initial_accumulator_value) + gradient**2
    root = _root(total, epsilon, epsilon_inside_root)
    return parameter - learning_rate * gradient / root, {"total": total}


def adadelta(parameter, gradient, slots, *, learning_rate=1.0, rho=0.95, epsilon=1e-6):
    """Zeiler (2012), Algorithm 1; there is no learning rate in the paper (it is 1).

    ``s' = rho * s + (1 - rho) * g**2``, ``d = -g * sqrt(x + epsilon) / sqrt(s' + epsilon)``,
    ``x' = rho * x + (1 - rho) * d**2``, ``p' = p + learning_rate * d``.
    """
    squares = rho * slots.get("squares", 0.0) + (1.0 - rho) * gradient**2
    changes = slots.get("changes", np.zeros_like(parameter))
    change = -gradient * np.sqrt(changes + epsilon) / np.sqrt(squares + epsilon)
    changes = rho * changes + (1.0 - rho) * change**2
    return parameter + learning_rate * change, {"squares": squares, "changes": changes}


def rmsprop(
    parameter,
    gradient,
    slots,
    *,
    learning_rate=0.001,
    rho=0.9,
    epsilon=1e-7,
    epsilon_inside_root=True,
):
    """``s' = rho * s + (1 - rho) * g**2``, ``p' = p - learning_rate * g / sqrt(s' + epsilon)``.

    With epsilon_inside_root=False (PyTorch) the denominator is ``sqrt(s') + epsilon``.
    """
    squares = rho * slots.get("squares", 0.0) + (1.0 - rho) * gradient**2
    root = _root(squares, epsilon, epsilon_inside_root)
    return parameter - learning_rate * gradient / root, {"squares": squares}


def adam(
    parameter,
    gradient,
    slots,
    *,
    learning_rate=0.001,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-7,
    epsilon_before_correction=True,
):
    """Kingma and Ba (2015).

    ``m' = beta_1 * m + (1 - beta_1) * g``, ``v' = beta_2 * v + (1 - beta_2) * g**2``;

    - Keras, and the paper's faster form after its Algorithm 1 (epsilon "hat"):
      ``p' = p - learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m' / (sqrt(v') + epsilon)``
    - epsilon_before_correction=False, the paper's Algorithm 1 and PyTorch:
      ``p' = p - learning_rate * m' / (1 - beta_1**t) / (sqrt(v' / (1 - beta_2**t)) + epsilon)``
    """
    t = slots.get("t", 0) + 1
    m = beta_1 * slots.get("m", 0.0) + (1.0 - beta_1) * gradient
    v = beta_2 * slots.get("v", 0.0) + (1.0 - beta_2) * gradient**2
    correction = np.sqrt(1.0 - beta_2**t)
    epsilon = epsilon if epsilon_before_correction else epsilon * correction
    change = -learning_rate * correction / (1.0 - beta_1**t) * m / (np.sqrt(v) + epsilon)
    return parameter + change, {"t": t, "m": m, "v": v}


def trajectory(optimizer, parameter, gradients, **hyperparameters):
    """Return the parameter after every step: gradients ``(steps, ...)`` -> ``(steps, ...)``."""
    slots, visited = {}, []
    for gradient in gradients:
        parameter, slots = optimizer(parameter, gradient, slots, **hyperparameters)
        visited.append(parameter)
    return np.stack(visited)


def _root(square, epsilon, inside):
    return np.sqrt(square + epsilon) if inside else np.sqrt(square) + epsilon

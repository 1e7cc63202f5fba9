"""Whether data are such as a model takes: the values of inputs, targets and weights.

What stands at steps that count nothing (masked, or of weight 0) is never refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from seqnet import registry
from seqnet.arrays import with_axes
from seqnet.checks import check_finite, check_fits
from seqnet.data import Examples
from seqnet.layers import Activation, Dense, Softmax
from seqnet.losses import Loss
from seqnet.masks import counted
from seqnet.metrics import LossMetric
from seqnet.ragged import RaggedExamples
from seqnet.weighting import weigh_classes


def check(
    examples: Examples,
    part: str,
    function: Callable,
    name: str,
    counted: Callable,
    ignored: Callable = np.zeros,
) -> None:
    """Check a part; what counts nothing is replaced if it would be refused otherwise.

    `counted` returns where there is something that counts, bool, or None for everywhere; `ignored`
    returns, for the shape of what belongs to one step, what to put where nothing counts.
    """
    try:
        examples.check(part, function, name)
        return
    except (ValueError, TypeError):
        values, there = getattr(examples, part), counted()
        if there is None or there.all() or values.shape[: there.ndim] != there.shape:
            raise
    filler = ignored(values.shape[there.ndim :]).astype(values.dtype)
    kept = np.where(with_axes(there, values.ndim), values, filler)
    setattr(examples, part, kept)
    examples.check(part, function, name)


def check_inputs(model, examples: Examples, name: str) -> None:
    """Raise if the inputs hold what the first layer, or the model's float type, cannot."""

    def check_values(values, name):
        model.layers[0].check_input(values, name)
        check_fits(values, name, model.dtype)

    check(examples, "x", check_values, name, lambda: examples.mask)


def check_targets(
    model, examples: Examples, shape: tuple, prefix: str, class_weight: Mapping | None = None
) -> None:
    """Raise if targets or weights do not fit the model's output of a shape; weigh classes."""
    check_last_activation(model)
    ragged = isinstance(examples, RaggedExamples)
    steps = (None, *shape[2:]) if ragged and examples.per_step else shape

    def check_values(values, name):
        check_finite(values, name)
        check_fits(values, name, model.dtype)
        if isinstance(model.loss, Loss):
            model.loss.check_targets(values, steps, name)

    def check_y(function, loss):
        there = partial(counted, model, examples, shape)
        filler = loss.ignored_target if isinstance(loss, Loss) else np.zeros
        check(examples, "y", function, f"{prefix}y", there, filler)

    check_y(check_values, model.loss)
    for metric in model.metrics:
        if isinstance(metric, LossMetric) and isinstance(metric.loss, Loss):
            check_y(
                lambda y, name, loss=metric.loss: loss.check_targets(y, steps, name), metric.loss
            )
    weight_name = f"{prefix}sample_weight"
    if examples.weight is not None and not ragged:
        allowed = {(len(examples),), (len(examples), *shape[1:-1])}
        if examples.weight.shape not in allowed:
            wanted = " or ".join(str(a) for a in sorted(allowed, key=len))
            raise ValueError(
                f"{weight_name} must have the shape {wanted}, got {examples.weight.shape}."
            )
    if class_weight is not None:
        weigh_classes(examples, model.loss, shape, class_weight)
    if examples.weight is not None:
        examples.check("weight", lambda w, name: check_fits(w, name, model.dtype), weight_name)


def check_last_activation(model) -> None:
    """Raise if the loss takes probabilities and the last layer gives others, or logits and not."""
    layer, loss = model.layers[-1], model.loss
    layer = getattr(layer, "layer", layer)  # of TimeDistributed
    if isinstance(layer, Softmax):
        name = "softmax"
    elif type(layer) in (Dense, Activation):
        name = layer.activation.__name__
    else:
        return
    if not isinstance(loss, Loss) or not loss.after or (name in loss.after) != loss.from_logits:
        return
    if name not in registry.names("activation"):  # a function of one's own
        return
    ends = f"but layer {layer.display_name!r} ends with the activation {name!r}"
    if loss.from_logits:
        raise ValueError(
            f"{loss.name} with from_logits=True takes what comes before a {name}, {ends}: leave "
            "out one of the two."
        )
    raise ValueError(
        f"{loss.name} takes probabilities, {ends}. Give it activation={loss.after[0]!r}, or "
        f"the loss from_logits=True: loss=seqnet.losses.{type(loss).__name__}(from_logits=True)."
    )

"""What a user passes to a model's verbs, checked as a whole and made ready for batches.

Everything is refused here, with a message in the user's words, before anything is compiled. What
stands at steps that count nothing (masked, or of weight 0) is never refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytensor.tensor as pt

from seqnet.data import Examples, as_array, check_finite, make_examples, range_weights
from seqnet.layers.layer import Phase
from seqnet.losses import Loss, MaskedLoss, guess
from seqnet.ragged import (
    RaggedExamples,
    check_rectangular,
    enter_targets,
    is_ragged,
    lengths_to_allow,
    mask_of_lengths,
    ragged_examples,
    size_of,
)
from seqnet.stack import forward
from seqnet.training import signature_of

log = logging.getLogger("seqnet")


def prepare(
    model, x, y=None, weight=None, mask=None, lengths=None, *, prefix="", announce=False
) -> Examples:
    """Return a data set as examples, with everything checked and the model's weights built.

    Parameters
    ----------
    model : Model
    x, y, weight, mask, lengths
        As `Model.fit` takes them.
    prefix : str
        Put before names in messages.
    announce : bool
        Print what is chosen where nothing was.

    Returns
    -------
    Examples or RaggedExamples
    """
    if not model.layers:
        raise ValueError("The model has no layers; add some first.")
    name = f"{prefix}X"
    if y is not None and isinstance(model.loss, MaskedLoss):
        y, weight = labels_and_weights(y, weight, prefix)
    whole = None
    if lengths is not None:
        whole, lengths = with_lengths(x, mask, lengths, prefix)
        x = [row[:n] for row, n in zip(whole, lengths, strict=True)]
    if lengths is not None or is_ragged(x):
        examples: Examples = ragged_examples(x, mask, prefix=prefix)
    else:
        x = as_array(x, name)
        for part, values in (("y", y), ("sample_weight", weight), ("mask", mask)):
            check_rectangular(x, values, f"{prefix}{part}", prefix=prefix)
        examples = make_examples(x, y, weight, mask, prefix=prefix)
    check(examples, "x", model.layers[0].check_input, name, lambda: examples.mask)
    model.build(examples.input_shape)
    shape = (None, *model.compute_output_shape(examples.input_shape)[1:])
    if isinstance(examples, RaggedExamples):
        examples.per_step = shape[1:2] == (None,)
        examples.backwards = model.runs_backwards
        if whole is not None:
            y, weight = cut(examples, whole, y, weight, prefix)
        enter_targets(examples, y, weight, prefix=prefix)
        examples.lengths_allowed = allow_lengths(model, examples.lengths, announce)
    if y is not None:
        choose(model, examples, announce)
        check_targets(model, examples, shape, prefix)
    return examples


def labels_and_weights(y, weight, prefix: str) -> tuple:
    """Turn the targets of `MaskedLoss` into labels and weights that are 0 outside of the ranges."""
    name = f"{prefix}y"
    if not isinstance(y, (tuple, list)) or len(y) != 3:
        raise ValueError(
            f"With masked_loss {name} is (labels, codelengths, label_starts), got "
            f"{type(y).__name__}{f' of {size}' if (size := size_of(y)) is not None else ''}."
        )
    labels, lengths, starts = y
    lengths, starts = as_array(lengths, f"{name}[1]"), as_array(starts, f"{name}[2]")
    sizes = [size_of(row) for row in labels]
    if None in sizes or not {lengths.shape, starts.shape} == {(len(sizes),)}:
        raise ValueError(
            f"With masked_loss {name} is (labels, codelengths, label_starts): labels for each step "
            f"of {len(sizes)} sequences, and so many lengths and starts; got the shapes "
            f"{lengths.shape} and {starts.shape}."
        )
    ranges = range_weights(starts, lengths, np.array(sizes))
    if weight is not None:
        if size_of(weight) != len(ranges):
            raise ValueError(f"{prefix}sample_weight must have one entry for each sequence.")
        ranges = [inside * np.asarray(w) for inside, w in zip(ranges, weight, strict=True)]
    return labels, ranges if is_ragged(labels) else np.stack(ranges)


def validation_arguments(given) -> tuple:
    """Return `validation_data` of `Model.fit` as (X, y, sample_weight, mask, lengths)."""
    names = ("X", "y", "sample_weight", "mask", "lengths")
    if isinstance(given, dict):
        if {"X", "y"} <= set(given) <= set(names):
            return tuple(given.get(name) for name in names)
    elif isinstance(given, (tuple, list)) and len(given) in (2, 3):
        return tuple(given)
    raise ValueError(
        "validation_data is (X, y) or (X, y, sample_weight), or a dictionary with X, y and any of "
        f"{', '.join(names[2:])}; got "
        + (f"the entries {', '.join(map(str, given))}." if isinstance(given, dict) else "another.")
    )


def allow_lengths(model, lengths: np.ndarray, announce: bool) -> tuple[int, ...]:
    """Return what sequences of these lengths may be padded to; nothing for any length.

    Models that unroll, and backends that need sizes, get a function for each of a few lengths.
    """
    if not model.needs_length:
        return ()
    before = model.padded_lengths
    model.padded_lengths = lengths_to_allow(lengths, before)
    if model.padded_lengths != before:
        spelled = ", ".join(map(str, model.padded_lengths))
        tell(
            f"Sequences are padded to one of the lengths {spelled}; a function is compiled for "
            "each when it first comes.",
            announce,
        )
        model.forget_functions(set(before) - set(model.padded_lengths))
    return model.padded_lengths


def choose(model, examples: Examples, announce: bool) -> None:
    """Settle what `Model.compile` left open, now that there are targets, and say what."""
    if model.optimizer is None:
        model.compile()
        if announce:
            rate = model.optimizer.learning_rate
            name = f"{type(model.optimizer).__name__}(learning_rate={rate:g})"
            print(f"compile was not called: training with {name}.")
    if model.loss is None:
        sample = examples.take(slice(0, 1)).whole()
        signature = signature_of("predict", sample, model.dtype, model.needs_length)
        x = pt.tensor("x", dtype=signature.x_dtype, shape=signature.x_shape)
        model.loss = guess(forward(model.layers, x, None, Phase())[0], sample.y)
        model.set_metrics()
        tell(f"No loss was given: using {model.loss.name}, which fits the last layer.", announce)


def tell(message: str, announce: bool) -> None:
    """Log what was chosen, and print it if asked to."""
    log.info(message)
    if announce:
        print(message)


def with_lengths(x, mask, lengths, prefix: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Check `lengths=`; return the inputs as an array, and the lengths as one."""
    if mask is not None:
        raise ValueError(f"Pass {prefix}mask or {prefix}lengths, not both.")
    if is_ragged(x):
        raise ValueError(
            f"{prefix}lengths goes with an array; the sequences of {prefix}X have their own."
        )
    x = as_array(x, f"{prefix}X")
    return x, mask_of_lengths(x, lengths, prefix=prefix).sum(axis=1)


def mask_for(x, mask, lengths) -> np.ndarray | None:
    """Return the mask to predict with, which keeps the shape of the inputs."""
    if lengths is None:
        return mask
    x, lengths = with_lengths(x, mask, lengths)
    return mask_of_lengths(x, lengths)


def cut(examples: RaggedExamples, x: np.ndarray, y, weight, prefix: str) -> tuple:
    """Cut padded targets and weights for each step to the lengths of the sequences."""

    def rows(values, name):
        values = as_array(values, name)
        if values.shape[:2] != x.shape[:2]:
            raise ValueError(
                f"{name} must have the (samples, time) of {prefix}X, {x.shape[:2]}, as the model "
                f"gives an output at each step; got the shape {values.shape}."
            )
        end = slice(None, None, -1) if examples.backwards else slice(None)
        pairs = zip(values, examples.lengths, strict=True)
        return [row[end][:n][end] for row, n in pairs]

    if y is not None and examples.per_step and not is_ragged(y):
        y = rows(y, f"{prefix}y")
    if weight is not None and not is_ragged(weight) and np.ndim(weight) > 1:
        weight = rows(weight, f"{prefix}sample_weight")
    return y, weight


def check(examples: Examples, part: str, function: Callable, name: str, counted: Callable) -> None:
    """Check a part; what counts nothing is set to zero if it would be refused otherwise.

    `counted` returns where there is something that counts, bool, or None for everywhere.
    """
    try:
        examples.check(part, function, name)
        return
    except (ValueError, TypeError):
        values, there = getattr(examples, part), counted()
        if there is None or there.all() or values.shape[: there.ndim] != there.shape:
            raise
    there = there.reshape(there.shape + (1,) * (values.ndim - there.ndim))
    setattr(examples, part, np.where(there, values, np.zeros((), values.dtype)))
    examples.check(part, function, name)


def check_targets(model, examples: Examples, shape: tuple, prefix: str) -> None:
    """Raise if targets or weights do not fit the model's output of a shape."""
    ragged = isinstance(examples, RaggedExamples)
    steps = (None, *shape[2:]) if ragged and examples.per_step else shape

    def check_values(values, name):
        check_finite(values, name)
        if isinstance(model.loss, Loss):
            model.loss.check_targets(values, steps, name)

    check(examples, "y", check_values, f"{prefix}y", lambda: counted(model, examples, shape))
    if examples.weight is not None and not ragged:
        allowed = {(len(examples),), (len(examples), *shape[1:-1])}
        if examples.weight.shape not in allowed:
            wanted = " or ".join(str(a) for a in sorted(allowed, key=len))
            raise ValueError(
                f"{prefix}sample_weight must have the shape {wanted}, got {examples.weight.shape}."
            )


def counted(model, examples: Examples, shape: tuple) -> np.ndarray | None:
    """Return where targets count, as far as that is known without computing; None is everywhere.

    The result is bool: one for each target that a loss has a value for.
    """
    ragged = isinstance(examples, RaggedExamples)
    there = None if examples.weight is None else examples.weight > 0
    if ragged:
        per_step = examples.per_step
    else:
        per_step = len(shape) > 2 and shape[1:2] == examples.x.shape[1:2]
    if not per_step:
        return there
    if there is not None and ragged and not examples.weight_per_step:
        there = np.repeat(there, examples.lengths)
    elif there is not None and there.ndim == 1 and not ragged:
        there = there[:, None]
    mask = known_mask(model, examples)
    if mask is None:
        if there is not None and not ragged and there.shape[1] == 1:
            there = there[:, 0]
        return there
    if model.runs_backwards:
        mask = examples.flipped(mask) if ragged else mask[:, ::-1]
    return mask if there is None else mask & there


def known_mask(model, examples: Examples) -> np.ndarray | None:
    """Return the mask of the steps that counts in the loss, as far as it is known; None is none."""
    mask = first_mask(model, examples)
    return mask if mask is None or mask_reaches_output(model, examples.input_shape) else None


def first_mask(model, examples: Examples) -> np.ndarray | None:
    """Return the mask that comes with the examples and from the first layer; None is none."""
    found = [m for m in (examples.mask, model.layers[0].known_mask(examples.x)) if m is not None]
    return np.logical_and.reduce(found) if found else None


def is_padding(model, batch: Examples) -> bool:
    """Tell whether all steps of a batch are masked, so that it changes no state and no figure."""
    mask = first_mask(model, batch)
    return mask is not None and not mask.any() and mask_reaches_output(model, batch.input_shape)


def mask_reaches_output(model, input_shape: tuple) -> bool:
    """Tell whether all layers pass a mask on."""
    mask, shape = pt.matrix(dtype="bool"), input_shape
    for layer in model.layers:
        dtype = "int32" if layer.integer_input else layer.dtype
        mask = layer.compute_mask(pt.tensor(dtype=dtype, shape=(None,) * len(shape)), mask)
        if mask is None:
            return False
        shape = layer.compute_output_shape(shape)
    return True

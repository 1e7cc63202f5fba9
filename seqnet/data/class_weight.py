"""Weights of classes, and ranges of steps that count, as weights of samples or steps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from seqnet.checks import check_count, check_number
from seqnet.data import Examples, as_array, range_weights, with_axes
from seqnet.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
)
from seqnet.ragged import RaggedExamples
from seqnet.sequences import described, is_ragged, size_of


def weigh_classes(examples: Examples, loss, output_shape: tuple, class_weight: Mapping) -> None:
    """Multiply the weights of examples by those of their targets' classes.

    Parameters
    ----------
    examples : Examples
        With targets that were checked.
    loss : Loss or function
    output_shape : tuple
        That of the model's output, the batch first.
    class_weight : dict of int to float
        A class that is not in it has the weight 1, as in Keras.

    Raises
    ------
    ValueError, TypeError
        If targets are not classes, or `class_weight` names a class that there is not.
    """
    numbers, classes = class_numbers(examples.y, loss, output_shape)
    weights = weight_table(class_weight, classes)[np.clip(numbers, 0, classes - 1)]
    before = examples.step_weight()
    if isinstance(examples, RaggedExamples):
        examples.weight_per_step = examples.per_step
    if before is not None:
        weights = with_axes(before, weights.ndim) * with_axes(weights, before.ndim)
    examples.weight = weights


def class_numbers(y: np.ndarray, loss, output_shape: tuple) -> tuple[np.ndarray, int]:
    """Return the class of each target and how many classes there are."""
    classes = output_shape[-1]
    if isinstance(loss, CategoricalCrossentropy):
        return y.argmax(axis=-1), classes
    if isinstance(loss, BinaryCrossentropy) and classes == 1:
        return (np.nan_to_num(y[..., 0]) > 0.5).astype(int), 2
    if isinstance(loss, SparseCategoricalCrossentropy):
        return y, classes
    name = getattr(loss, "name", getattr(loss, "__name__", loss))
    raise ValueError(
        "class_weight wants targets that are classes: class numbers, one-hot rows, or 0 and 1 for "
        f"a single sigmoid. With the loss {name} they are not; use sample_weight."
    )


def weight_table(class_weight: Mapping, classes: int) -> np.ndarray:
    """Return the weight of each class as an array, checked.

    Examples
    --------
    >>> from seqnet.weighting import weight_table
    >>> weight_table({2: 5.0}, 3).tolist()
    [1.0, 1.0, 5.0]
    """
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            f"class_weight is a dict of class numbers to weights, such as {{0: 1.0, 1: 5.0}}; got "
            f"{class_weight!r}."
        )
    table = np.ones(classes, "float32")
    for number, weight in class_weight.items():
        if check_count(number, "a class in class_weight", 0) >= classes:
            raise ValueError(
                f"class_weight has a weight for class {number}, but there are {classes} classes, "
                f"0 to {classes - 1}."
            )
        check_number(weight, f"The weight of class {number}")
        if not np.isfinite(weight) or weight < 0:
            raise ValueError(
                f"The weight of class {number} must be finite and not negative, got {weight}."
            )
        table[number] = weight
    return table


def labels_and_weights(y, weight, prefix: str) -> tuple:
    """Turn the targets of `MaskedLoss` into labels and weights that are 0 outside of the ranges."""
    name = f"{prefix}y"
    if not isinstance(y, (tuple, list)) or len(y) != 3:
        raise ValueError(
            f"With masked_loss {name} is (labels, codelengths, label_starts), got {described(y)}."
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

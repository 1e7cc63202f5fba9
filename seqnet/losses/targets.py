"""Checks of the shapes and values of targets."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pytensor.tensor as pt

from seqnet import config
from seqnet.common.checks import WrongValueError, first_place
from seqnet.common.types import Shape, Tensor, TensorLike


def paired(
    y_true: TensorLike, y_pred: TensorLike, name: str, classes: bool = False
) -> tuple[Tensor, Tensor]:
    """Return targets and predictions, arrays or variables, as variables that are not broadcast.

    An axis of one at the end may be missing in the targets, and class numbers may have one more.

    Parameters
    ----------
    y_true, y_pred : variable or array
        Integer predictions are converted to floats.
    name : str
        The loss or metric, for messages.
    classes : bool
        Targets are class numbers, without the last axis of predictions.

    Raises
    ------
    ValueError
        If targets have another rank, or a known size that differs.
    """
    y_true, y_pred = pt.as_tensor_variable(y_true), pt.as_tensor_variable(y_pred)
    if not y_pred.dtype.startswith("float"):
        y_pred = pt.cast(y_pred, config.floatx())
    wanted = y_pred.type.shape[:-1] if classes else y_pred.type.shape
    y_true = aligned(y_true, wanted)
    known = y_true.type.shape
    if not agree(known, wanted):
        what = "one class number for each prediction" if classes else "a target for each output"
        raise ValueError(
            f"{name} needs {what}: y_true of the shape {spell(wanted)} for y_pred of the shape "
            f"{spell(y_pred.type.shape)}, got {spell(known)}."
        )
    return y_true, y_pred


Targets = TypeVar("Targets", Tensor, np.ndarray)


def aligned(y: Targets, shape: Shape) -> Targets:
    """Return targets for a shape, with or without an axis of one at the end as the shape has it.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.losses.targets import aligned
    >>> aligned(np.zeros(4), (None, 1)).shape, aligned(np.zeros((4, 7, 1)), (None, 7)).shape
    ((4, 1), (4, 7))
    """
    given = y.shape if isinstance(y, np.ndarray) else y.type.shape
    if shape[-1:] == (1,) and agree(given, shape[:-1]):
        return y[..., None]
    if given[-1:] == (1,) and agree(given[:-1], shape):
        return y[..., 0]
    return y


def agree(shape: Shape, other: Shape) -> bool:
    """Return whether two shapes may be the same; None is any size."""
    pairs = zip(shape, other, strict=False)
    return len(shape) == len(other) and all(None in pair or len(set(pair)) == 1 for pair in pairs)


def fits(shape: tuple, expected: tuple) -> bool:
    """Return whether a shape matches another one, in which None is any size."""
    return len(shape) == len(expected) and all(
        e is None or s == e for s, e in zip(shape, expected, strict=True)
    )


def spell(shape: tuple) -> str:
    """Write a shape for a message, unknown sizes as words."""
    words = ["batch" if i == 0 else "time" for i in range(len(shape))]
    parts = [w if size is None else str(size) for w, size in zip(words, shape, strict=True)]
    return "(" + ", ".join(parts) + ("," if len(parts) == 1 else "") + ")"


def axis_hint(shape: tuple, expected: tuple) -> str:
    """Return advice for targets without the last axis, or with other steps."""
    if not fits(shape, expected[:-1]):
        return steps_hint(shape, expected)
    return (
        f" Each target is {expected[-1]} numbers, one for each output; class numbers go with a "
        "softmax and sparse_categorical_crossentropy."
    )


def steps_hint(shape: tuple, expected: tuple) -> str:
    """Return advice for targets of sequences and outputs of steps, and vice versa."""
    if len(expected) > 1 and fits(shape, (expected[0], *expected[2:])):
        return (
            " The model has an output at each step; for one per sequence, the last recurrent layer "
            "takes return_sequences=False."
        )
    if len(shape) > 1 and fits((shape[0], *shape[2:]), expected):
        return (
            " The model has one output per sequence; for one at each step, the last recurrent "
            "layer takes return_sequences=True."
        )
    return ""


def check_class_numbers(
    y: np.ndarray, output_shape: Shape, name: str, loss: str, ignored: int | None = None
) -> None:
    """Raise if targets are not a class number for each step of an output (..., classes).

    `ignored` is a number that is allowed, too.
    """
    wanted = output_shape[:-1]
    if y.dtype.kind not in "iu":
        raise TypeError(
            f"{loss} takes integer class numbers, but {name} has the dtype {y.dtype}. Convert with "
            f"{name}.astype('int32'), or use categorical_crossentropy for one-hot targets."
        )
    if not fits(y.shape, wanted):
        hint = steps_hint(y.shape, wanted)
        if fits(y.shape, output_shape):
            hint = " For one-hot targets use categorical_crossentropy."
        raise ValueError(
            f"{loss} needs one class number for each prediction: {name} of shape {spell(wanted)} "
            f"for an output of shape {spell(output_shape)}, got {spell(y.shape)}.{hint}"
        )
    classes = np.inf if output_shape[-1] is None else output_shape[-1]
    wrong = (y < 0) | (y >= classes)
    if ignored is not None:
        wrong &= y != ignored
    if wrong.any():
        where = first_place(wrong)
        known = f"{classes} classes, 0 to {classes - 1}."
        if classes == np.inf:
            known = "classes from 0."
        if classes == 1:
            known = "one unit: two classes want two units, or a sigmoid and binary_crossentropy."
        raise WrongValueError(
            f"{name} holds class {y[where]} at {{where}}, but the model's output has {known}", where
        )


def check_probabilities(y: np.ndarray, name: str, loss: str) -> None:
    """Raise if a target is outside of [0, 1]; for two values, advise how to convert them."""
    wrong = ~((y >= 0) & (y <= 1))
    if not wrong.any():
        return
    where = first_place(wrong)
    values = np.unique(y)
    hint = ""
    if len(values) == 2:
        low, high = values
        hint = f" If {low} and {high} are two classes, pass ({name} == {high}).astype('float32')."
    raise WrongValueError(
        f"{name} holds {y[where]} at {{where}}, but {loss} takes targets from 0 to 1: the class 0 "
        f"or 1, or the probability of class 1.{hint}",
        where,
    )


DISTRIBUTION_TOLERANCE = 2e-3
"""Tolerance of the sum of a target distribution: allows three digits, or float16."""


def check_counts(y: np.ndarray, name: str, loss: str) -> None:
    """Raise if a target is negative."""
    if (y < 0).any():
        where = first_place(y < 0)
        raise WrongValueError(
            f"{name} holds {y[where]} at {{where}}, but {loss} takes counts and rates: they are "
            "not negative.",
            where,
        )


def check_signs(y: np.ndarray, name: str, loss: str) -> None:
    """Raise if a target is neither -1 nor 1, nor 0 for -1."""
    wrong = ~np.isin(y, (-1, 0, 1))
    if wrong.any():
        where = first_place(wrong)
        raise WrongValueError(
            f"{name} holds {y[where]} at {{where}}, but {loss} takes the targets -1 and 1, or 0 "
            "and 1.",
            where,
        )


def check_distributions(y: np.ndarray, name: str, loss: str) -> None:
    """Raise if a row, along the last axis, has negative entries or does not add up to 1.

    A step of a sequence may have a row of zeros: its loss is 0, as in Keras.
    """
    wrong = y < -DISTRIBUTION_TOLERANCE
    if wrong.any():
        where = first_place(wrong)
        raise WrongValueError(
            f"{name} holds {y[where]} at {{where}}, but {loss} takes probabilities: each row of "
            f"{name} is not negative and adds up to 1.",
            where,
        )
    sums = y.sum(axis=-1, dtype="float64")
    wrong = ~(np.abs(sums - 1) <= DISTRIBUTION_TOLERANCE)
    if y.ndim > 2:
        wrong &= (y != 0).any(axis=-1)
    if wrong.any():
        where = first_place(wrong)
        raise WrongValueError(
            f"{name} has a row at {{where}} that adds up to {sums[where]:.6g}, but {loss} takes "
            f"probabilities: each row of {name} is not negative and adds up to 1. Steps that do "
            "not count get a mask or the sample_weight 0; several labels for one sample go with a "
            "sigmoid and binary_crossentropy.",
            where,
        )

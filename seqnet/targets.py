"""Whether targets are such as a loss compares with outputs: their shapes, and their values."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt

from seqnet import config
from seqnet.checks import WrongValueError, first_place


def paired(y_true, y_pred, name: str, classes: bool = False) -> tuple:
    """Return targets and predictions, arrays or variables, as variables that are not broadcast.

    Parameters
    ----------
    y_true, y_pred : variable or array
        Predictions of whole numbers become floats.
    name : str
        The loss or metric, for messages.
    classes : bool
        Targets are class numbers, without the last axis of predictions.

    Raises
    ------
    ValueError
        If targets have another rank, or a size that is known to be another.
    """
    y_true, y_pred = pt.as_tensor_variable(y_true), pt.as_tensor_variable(y_pred)
    if not y_pred.dtype.startswith("float"):
        y_pred = pt.cast(y_pred, config.floatx())
    known, wanted = y_true.type.shape, y_pred.type.shape
    if classes:
        wanted = wanted[:-1]
    pairs = zip(known, wanted, strict=False)
    if len(known) != len(wanted) or any(None not in pair and len(set(pair)) > 1 for pair in pairs):
        what = "one class number for each prediction" if classes else "a target for each output"
        raise ValueError(
            f"{name} needs {what}: y_true of the shape {spell(wanted)} for y_pred of the shape "
            f"{spell(y_pred.type.shape)}, got {spell(known)}."
        )
    return y_true, y_pred


def fits(shape: tuple, expected: tuple) -> bool:
    """Tell whether a shape agrees with one that has None for what is not known."""
    return len(shape) == len(expected) and all(
        e is None or s == e for s, e in zip(shape, expected, strict=True)
    )


def spell(shape: tuple) -> str:
    """Write a shape for a message, unknown sizes as words."""
    words = ["batch" if i == 0 else "time" for i in range(len(shape))]
    parts = [w if size is None else str(size) for w, size in zip(words, shape, strict=True)]
    return "(" + ", ".join(parts) + ("," if len(parts) == 1 else "") + ")"


def axis_hint(shape: tuple, expected: tuple, name: str) -> str:
    """Say what to do about targets without the last axis, or those that `steps_hint` knows."""
    if not fits(shape, expected[:-1]):
        return steps_hint(shape, expected)
    if expected[-1] == 1:
        return f" Give it the last axis: {name}[..., None]."
    return (
        f" Each target is {expected[-1]} numbers, one for each output; class numbers go with a "
        "softmax and sparse_categorical_crossentropy."
    )


def steps_hint(shape: tuple, expected: tuple) -> str:
    """Say what to do about targets for each sequence where outputs are steps, and vice versa."""
    if len(expected) > 1 and fits(shape, (expected[0], *expected[2:])):
        return (
            " The model gives an output at each step; for one a sequence, the last recurrent layer "
            "takes return_sequences=False."
        )
    if len(shape) > 1 and fits((shape[0], *shape[2:]), expected):
        return (
            " The model gives one output a sequence; for one at each step, the last recurrent "
            "layer takes return_sequences=True."
        )
    return ""


def check_probabilities(y: np.ndarray, name: str, loss: str) -> None:
    """Raise if a target is outside of [0, 1]; say what to do about two classes of other names."""
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
"""How far a target distribution may be from one: rounded to three digits, or held in float16."""


def check_distributions(y: np.ndarray, name: str, loss: str) -> None:
    """Raise if a row, along the last axis, has negative entries or does not add up to 1."""
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
    if wrong.any():
        where = first_place(wrong)
        raise WrongValueError(
            f"{name} has a row at {{where}} that adds up to {sums[where]:.6g}, but {loss} takes "
            f"probabilities: each row of {name} is not negative and adds up to 1. Steps that do "
            "not count get a mask or the sample_weight 0; several labels for one sample go with a "
            "sigmoid and binary_crossentropy.",
            where,
        )

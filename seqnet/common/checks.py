"""Checks of single values."""

from __future__ import annotations

import numpy as np


class WrongValueError(ValueError):
    """A value of an array cannot be used; the message says where it is.

    Parameters
    ----------
    text : str
        The message, with ``{where}`` for the place.
    where : tuple of int
        The place in the array, the row first.

    Examples
    --------
    >>> from seqnet.common.checks import WrongValueError
    >>> print(WrongValueError("X holds nan at {where}.", (3, 0)).in_row(1003))
    X holds nan at (1003, 0).
    """

    def __init__(self, text: str, where: tuple[int, ...]):
        super().__init__(text.replace("{where}", str(where)))
        self.text, self.where = text, where

    def in_row(self, row: int) -> WrongValueError:
        """Return the error for the whole array, of which this one is the part from `row`."""
        return WrongValueError(self.text, (row, *self.where[1:]))


def first_place(wrong: np.ndarray) -> tuple[int, ...]:
    """Return the index of the first True."""
    return tuple(int(i) for i in np.argwhere(wrong)[0])


def check_finite(array: np.ndarray, name: str, advice: str = "") -> None:
    """Raise if floats hold NaN or infinity; the message has the place and the advice."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = first_place(~np.isfinite(array))
        raise WrongValueError(f"{name} holds {array[where]} at {{where}}.{advice}", where)


def check_fits(array: np.ndarray, name: str, dtype: str) -> None:
    """Raise if floats are too large for a narrower float type; NaN is ignored.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.common.checks import check_fits
    >>> check_fits(np.array([1.0, 1e300]), "X", "float32")
    Traceback (most recent call last):
        ...
    seqnet.common.checks.WrongValueError: X holds 1e+300 at (1,), which float32, the model's float \
type, cannot hold: it ends at 3.4e+38. Scale the data, or set seqnet.config.set_floatx('float64').
    """
    largest = np.finfo(dtype).max
    if array.dtype.kind != "f" or np.finfo(array.dtype).max <= largest or not array.size:
        return
    if -largest <= array.min() and array.max() <= largest:
        return
    wrong = np.abs(array) > largest
    if wrong.any():
        where = first_place(wrong)
        advice = "" if dtype == "float64" else ", or set seqnet.config.set_floatx('float64')"
        raise WrongValueError(
            f"{name} holds {array[where]} at {{where}}, which {dtype}, the model's float type, "
            f"cannot hold: it ends at {largest:.2g}. Scale the data{advice}.",
            where,
        )


def preceded(error: Exception, text: str) -> Exception:
    """Return a ``ValueError`` or ``TypeError`` with a text before its message."""
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"{text}: {error}")


def check_count(value: object, name: str, minimum: int = 1) -> int:
    """Return an integer of at least `minimum`, or raise.

    Examples
    --------
    >>> from seqnet.common.checks import check_count
    >>> check_count(2.0, "batch_size")
    Traceback (most recent call last):
        ...
    TypeError: batch_size must be an integer, got 2.0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}.")
    return int(value)


def check_axis(value: object, name: str) -> int:
    """Return the number of an axis other than the batch's, or raise; -1 is the last axis."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}.")
    if value == 0:
        raise ValueError(f"{name} cannot be 0, the axis of the batch.")
    return int(value)


def check_number(value: object, name: str) -> float:
    """Return a number as a float, or raise."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    return float(value)


def check_not_negative(value: object, name: str) -> float:
    """Return a finite number that is at least 0, or raise."""
    number = check_number(value, name)
    if not 0 <= number < np.inf:
        raise ValueError(f"{name} must be at least 0 and finite, got {value!r}.")
    return number


def check_bool(value: object, name: str) -> bool:
    """Return True or False, or raise: other truthy or falsy values are errors.

    Examples
    --------
    >>> from seqnet.common.checks import check_bool
    >>> check_bool("no", "use_bias of Dense")
    Traceback (most recent call last):
        ...
    TypeError: use_bias of Dense must be True or False, got 'no'.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}.")
    return bool(value)


def check_rate(value: object, name: str) -> float:
    """Return a dropout rate in [0, 1), or raise."""
    rate = check_number(value, name)
    if not 0 <= rate < 1:
        raise ValueError(f"{name} is the share to drop, in [0, 1); got {value}.")
    return rate


def check_shape(value: object, name: str) -> tuple[int | None, ...]:
    """Return a shape as a tuple of sizes, None for unknown sizes, or raise."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a tuple of integers and None, got {value!r}.")
    size = f"A size in {name}"
    return tuple([None if n is None else check_count(n, size) for n in value])

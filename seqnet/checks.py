"""Checks of single values that a user passes."""

from __future__ import annotations

import numpy as np


def check_count(value, name: str, minimum: int = 1) -> int:
    """Return a whole number of at least `minimum`, or raise.

    Examples
    --------
    >>> from seqnet.checks import check_count
    >>> check_count(2.0, "batch_size")
    Traceback (most recent call last):
        ...
    TypeError: batch_size must be a whole number, got 2.0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}.")
    return int(value)


def check_rate(value, name: str) -> float:
    """Return a share that is dropped, in [0, 1), or raise."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not 0 <= value < 1:
        raise ValueError(f"{name} is the share to drop, in [0, 1); got {value}.")
    return float(value)


def check_shape(value, name: str) -> tuple[int | None, ...]:
    """Return a shape as a tuple of sizes, None for what varies, or raise."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a tuple of whole numbers and None, got {value!r}.")
    return tuple(None if n is None else check_count(n, f"A size in {name}") for n in value)

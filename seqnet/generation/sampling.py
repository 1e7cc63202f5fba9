"""Sampling of classes from probabilities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from seqnet import backend
from seqnet.common.checks import check_count, check_number
from seqnet.common.types import Array


class Sampling(NamedTuple):
    """How a class is drawn from probabilities; see `sample`."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise an error if these arguments of `sample` are invalid."""
    if not isinstance(temperature, (int, float, np.number)) or not temperature >= 0:
        raise ValueError(f"temperature must be a number of at least 0, got {temperature!r}.")
    if top_k is not None:
        check_count(top_k, "top_k")
    if top_p is not None and not 0 < check_number(top_p, "top_p") <= 1:
        raise ValueError(f"top_p must be a probability above 0 and at most 1, got {top_p}.")


def sample(
    probabilities: np.ndarray,
    rng: np.random.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """Draw a class from a probability distribution.

    Parameters
    ----------
    probabilities : array (classes,)
    rng : numpy generator
    temperature : float
        Divides the log probabilities; 0 selects the most probable class.
    top_k : int, optional
        Draw only from the k most probable classes.
    top_p : float, optional
        Draw only from the most probable classes whose total probability reaches this value
        (Holtzman et al., 2020).

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.generation import sample
    >>> sample(np.array([0.1, 0.7, 0.2]), np.random.default_rng(0), temperature=0)
    1
    """
    check_sampling(temperature, top_k, top_p)
    p = np.asarray(probabilities, dtype="float64")
    if p.ndim != 1 or not p.size:
        raise ValueError(f"sample takes the probabilities of one step, got the shape {p.shape}.")
    return draw(p, rng.random(), temperature, top_k, top_p)


def draw(
    p: np.ndarray,
    uniform: float,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> int:
    """Draw a class as `sample` does, after its arguments were checked.

    `uniform` is a random number of at least 0 and less than 1.
    """
    if temperature == 0 and not np.isnan(p).any():
        return int(p.argmax())
    sums = p.cumsum()
    if not (p.min() >= 0 and abs(sums[-1] - 1) < 0.01):
        raise no_probabilities(p)
    if temperature != 1:
        p = (p / p.max()) ** (1 / temperature)
        sums = p.cumsum()
    if top_k is not None or top_p is not None:
        order = np.argsort(-p, kind="stable")
        keep = len(p) if top_k is None else top_k
        if top_p is not None:
            keep = min(keep, int(np.searchsorted(p[order].cumsum() / sums[-1], top_p)) + 1)
        kept = np.zeros_like(p)
        kept[order[:keep]] = p[order[:keep]]
        sums = kept.cumsum()
    found = sums.searchsorted(uniform * sums[-1], side="right")
    return int(min(found, sums.searchsorted(sums[-1])))  # rounding may select none


def draw_rows(p: Array, uniform: Array, how: Sampling) -> tuple[Array, Array]:
    """Draw a class for each row of probabilities (rows, classes).

    Returns
    -------
    int64 array (rows,), float64 array (rows,)
        The classes, and the logarithms of their probabilities.
    """
    check_probabilities(p)
    kernels = backend.native()
    if kernels is not None and p.dtype.name in ("float32", "float64"):
        steps = kernels.Steps(None, None, np.ascontiguousarray(p))
        found = steps.draw(uniform[None], *how)
        return found.numbers[0], found.log_p[0]
    numbers = [
        draw(row, u, *how) for row, u in zip(p.astype("float64"), uniform.tolist(), strict=True)
    ]
    return np.array(numbers, "int64"), log_of(p, np.array(numbers, "int64"))


def log_of(p: Array, numbers: Array) -> Array:
    """Return the logarithms of the probabilities of a class of each row."""
    with np.errstate(divide="ignore"):
        return np.log(p[np.arange(len(p)), numbers].astype("float64"))


def check_probabilities(p: Array) -> None:
    """Raise unless each row of an array has probabilities."""
    right = (p >= 0).all(axis=1) & (abs(p.sum(axis=1, dtype="float64") - 1) < 0.01)
    if not right.all():
        raise no_probabilities(p[int(np.flatnonzero(~right)[0])])


def no_probabilities(p: Array) -> ValueError:
    """Return the error for values that are no probabilities."""
    return ValueError(
        f"Probabilities must be at least 0 and add up to 1; got values from {p.min():.4g} to "
        f"{p.max():.4g} that add up to {p.sum(dtype='float64'):.4g}. The model must end with a "
        "softmax."
    )

"""Sampling: classes drawn from probabilities, and sequences of them that a model generates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from seqnet.checks import check_count
from seqnet.generation.stepping import Stepper


def check_sampling(temperature, top_k, top_p) -> None:
    """Raise if `sample` cannot take these."""
    if not isinstance(temperature, (int, float, np.number)) or not temperature >= 0:
        raise ValueError(f"temperature must be a number and not negative, got {temperature!r}.")
    if top_k is not None:
        check_count(top_k, "top_k")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is a probability above 0 and at most 1, got {top_p}.")


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
        Divides the log probabilities; 0 takes the most probable class.
    top_k : int, optional
        Draw among the k most probable only.
    top_p : float, optional
        Draw among the most probable that together reach this probability (Holtzman et al., 2020).

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.generation import sample
    >>> sample(np.array([0.1, 0.7, 0.2]), np.random.default_rng(0), temperature=0)
    1
    """
    check_sampling(temperature, top_k, top_p)
    p = np.asarray(probabilities, dtype="float64")
    if temperature == 0:
        return int(p.argmax())
    if not (p.min() >= 0 and abs(p.sum() - 1) < 0.01):
        raise ValueError(
            "Probabilities are at least 0 and add up to 1; got values from "
            f"{p.min():.4g} to {p.max():.4g} that add up to {p.sum():.4g}. A model to write with "
            "ends with a softmax."
        )
    with np.errstate(divide="ignore"):
        logits = np.log(p) / temperature
    p = np.exp(logits - logits.max())
    if top_k is not None or top_p is not None:
        order = np.argsort(-p, kind="stable")
        keep = len(p) if top_k is None else top_k
        if top_p is not None:
            reached = np.cumsum(p[order]) / p.sum()
            keep = min(keep, int(np.searchsorted(reached, top_p)) + 1)
        p[order[keep:]] = 0
    return int(rng.choice(len(p), p=p / p.sum()))


def generate(
    model,
    prime: Iterable[int],
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | None = None,
    seed: int | None = None,
    stepper: Stepper | None = None,
) -> Iterator[int]:
    """Yield numbers that a model writes on from `prime`, one step of the model for each.

    Parameters
    ----------
    model : Model
        From numbers to probabilities of the next number (a softmax at the end).
    prime : numbers
        What the model reads first; at least one.
    length : int
        How many numbers to write at most.
    temperature, top_k, top_p
        See `sample`.
    stop : int, optional
        End after writing this number.
    seed : int, optional
    stepper : Stepper, optional
        One made before, so that nothing is compiled; it is reset first.

    Raises
    ------
    ValueError, TypeError
        Before anything is compiled, if an argument cannot be used. With the first number, if what
        the model gives are no probabilities.

    Examples
    --------
    >>> import seqnet
    >>> from seqnet import layers
    >>> model = seqnet.Model([layers.Embedding(5, 3), layers.LSTM(4, return_sequences=True),
    ...                       layers.Dense(5, activation="softmax")])
    >>> model.build((None, None))
    >>> len(list(seqnet.generation.generate(model, [1, 2], 10, seed=0)))
    10
    """
    prime = list(prime)
    if not prime:
        raise ValueError("prime needs at least one number to start from.")
    check_count(length, "length", 0)
    check_sampling(temperature, top_k, top_p)
    model.layers[0].check_input(np.asarray(prime), "prime")
    options = (np.random.default_rng(seed), temperature, top_k, top_p)
    return _write(stepper or Stepper(model), prime, length, options, stop)


def _write(stepper: Stepper, prime: list, length: int, options: tuple, stop) -> Iterator[int]:
    stepper.reset()
    for token in prime:
        output = stepper(np.array([token]))
    for _ in range(length):
        token = sample(output[0], *options)
        yield token
        if token == stop:
            return
        output = stepper(np.array([token]))

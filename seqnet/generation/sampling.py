"""Sampling of classes from probabilities, and generation of sequences with a model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqnet.checks import check_count, check_number
from seqnet.data.validation import as_array
from seqnet.generation.stepping import Stepper, not_built

if TYPE_CHECKING:
    from seqnet.model import Model


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
    return draw(p, rng, temperature, top_k, top_p)


def draw(
    p: np.ndarray,
    rng: np.random.Generator,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> int:
    """Draw a class as `sample` does, after its arguments were checked.

    Few functions of NumPy are called: between two steps of a model none of them is in the caches of
    the processor.
    """
    if temperature == 0 and not np.isnan(p).any():
        return int(p.argmax())
    sums = p.cumsum()
    if not (p.min() >= 0 and abs(sums[-1] - 1) < 0.01):
        raise ValueError(
            "Probabilities must be at least 0 and add up to 1; got values from "
            f"{p.min():.4g} to {p.max():.4g} that add up to {sums[-1]:.4g}. The model must end "
            "with a softmax."
        )
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
    return int(sums.searchsorted(rng.random() * sums[-1], side="right"))


def generate(
    model: Model,
    prime: Iterable[int],
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | Sequence[int] | None = None,
    seed: int | None = None,
    stepper: Stepper | None = None,
) -> Iterator[int]:
    """Generate numbers that continue `prime`; each costs one step of the model.

    Parameters
    ----------
    model : Model
        A model from numbers to probabilities of the next number (with a softmax at the end).
    prime : numbers
        The start of the sequence; at least one number.
    length : int
        The maximum number of numbers to generate.
    temperature, top_k, top_p
        See `sample`.
    stop : int or sequence of int, optional
        Stop after generating this number, or this sequence of numbers. Pass a text as its numbers:
        ``stop=vocabulary.encode("The end")``.
    seed : int, optional
    stepper : Stepper, optional
        An existing stepper, to avoid compiling again; it is reset first.

    Raises
    ------
    ValueError, TypeError
        Before anything is compiled, if an argument is invalid. With the first number, if the
        outputs of the model are not probabilities.

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
    numbers = one_sequence(prime, "prime")
    if not numbers:
        raise ValueError("prime needs at least one number to start from.")
    check_count(length, "length", 0)
    check_sampling(temperature, top_k, top_p)
    if seed is not None:
        check_count(seed, "seed", 0)
    if not model.built:
        raise not_built()
    if len(model.input_names) > 1 or len(model.output_names) > 1:
        raise ValueError(
            "generate takes a model of one input and one output; this one has the inputs "
            f"{', '.join(model.input_names)} and the outputs {', '.join(model.output_names)}. For "
            "an encoder-decoder see seqnet.generation.Decoder."
        )
    (spec,) = model.input_specs.values()
    spec.check_input(np.asarray(numbers), "prime")
    last = [] if stop is None else check_stop(stop, model.output_features)
    options = (np.random.default_rng(seed), temperature, top_k, top_p)
    return _write(stepper or Stepper(model), numbers, length, options, last)


def one_sequence(values: Any, name: str) -> list:
    """Return numbers as a list, or raise an error if they are not a sequence of numbers."""
    if isinstance(values, (str, bytes)):
        raise TypeError(
            f"{name} must hold numbers, got the text {values[:20]!r}. Pass the numbers of its "
            f"characters, vocabulary.encode({name}) with a seqnet.text.CharacterVocabulary."
        )
    if not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence of numbers, got {values!r}.")
    found = list(values)
    if np.ndim(as_array(found, name) if found else found) != 1:
        raise ValueError(
            f"{name} must be one sequence of numbers, got the shape {np.shape(found)}."
        )
    return found


def check_stop(stop: int | Sequence[int], classes: int) -> list[int]:
    """Return the numbers that end the generation, or raise an error if they are impossible."""
    several = isinstance(stop, Iterable)
    numbers = one_sequence(stop, "stop") if several else [check_count(stop, "stop", 0)]
    if not numbers:
        raise ValueError("stop needs at least one number; use None to stop only at the length.")
    for number in numbers:
        if check_count(number, "A number in stop" if several else "stop", 0) >= classes:
            raise ValueError(
                f"stop holds {number}, which the model never generates: its outputs are the "
                f"probabilities of the numbers 0 to {classes - 1}."
            )
    return [int(number) for number in numbers]


def _write(
    stepper: Stepper, prime: list, length: int, options: tuple, stop: list[int]
) -> Iterator[int]:
    stepper.reset()
    for token in prime:
        output = stepper(np.array([token]))
    written: deque[int] = deque(maxlen=len(stop))
    for _ in range(length):
        token = draw(np.asarray(output[0], "float64"), *options)
        yield token
        written.append(token)
        if stop and list(written) == stop:
            return
        output = stepper(np.array([token]))

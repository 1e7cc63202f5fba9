"""What `Model.generate` takes and returns: text or numbers, one sequence or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from seqnet.common.checks import check_bool, check_count
from seqnet.common.types import Array
from seqnet.data.validation import as_array
from seqnet.generation.sampling import Sampling, check_sampling
from seqnet.generation.stepping import inputs_with_steps, not_built
from seqnet.generation.writing import Allowed, Writer, check_seeds, ends
from seqnet.text import BytePairVocabulary, Vocabulary, WordVocabulary

if TYPE_CHECKING:
    from seqnet.model import Model


@dataclass(frozen=True)
class Generation:
    """A generation that was asked for, after its arguments were checked.

    Parameters
    ----------
    writer : Writer
    primes : list of int array (length,)
    length : int
    how : Sampling
    seeds : list
    stop : list of int
    allowed : function, optional
    vocabulary : Vocabulary, optional
        Results are text if it is given.
    several : bool
        Whether there is a list of primes, not only one.
    with_log_p : bool
    """

    writer: Writer
    primes: list[Array]
    length: int
    how: Sampling
    seeds: list
    stop: list[int]
    allowed: Allowed | None
    vocabulary: Vocabulary | None
    several: bool
    with_log_p: bool

    def steps(self, at_once: bool) -> Iterator[tuple[list[int | None], list[float | None]]]:
        """Yield the number of each sequence and its log probability, None after its end."""
        options = self.seeds, self.stop, self.allowed, at_once
        rows = range(len(self.primes))
        recent: list[list[int]] = [[] for _ in rows]
        over = [False] * len(recent)
        for found in self.writer.write(self.primes, self.length, self.how, *options):
            for numbers, log_p in zip(found.numbers.tolist(), found.log_p.tolist(), strict=True):
                yield (
                    [None if over[k] else numbers[k] for k in rows],
                    [None if over[k] else log_p[k] for k in rows],
                )
                if not self.stop:
                    continue
                for k in rows:
                    recent[k] = [*recent[k], numbers[k]][-len(self.stop) :]
                    over[k] = over[k] or recent[k] == self.stop
                if all(over):
                    return

    def stream(self) -> Iterator[Any]:
        """Yield what is generated, step by step."""
        spell = [speller(self.vocabulary) for _ in self.primes]
        for numbers, log_p in self.steps(at_once=True):
            pieces = [None if n is None else say(n) for n, say in zip(numbers, spell, strict=True)]
            if self.several:
                yield (pieces, log_p) if self.with_log_p else pieces
            else:
                yield (pieces[0], log_p[0]) if self.with_log_p else pieces[0]

    def whole(self) -> Any:
        """Return all that is generated."""
        options = self.seeds, self.stop, self.allowed
        found = list(self.writer.write(self.primes, self.length, self.how, *options))
        rows = len(self.primes)
        numbers = np.concatenate([np.zeros((0, rows), "int64"), *(f.numbers for f in found)])
        log_p = np.concatenate([np.zeros((0, rows)), *(f.log_p for f in found)])
        results: list[Any] = []
        of_results = []
        for row in range(rows):
            end = ends(numbers[:, row], self.stop)
            mine = np.ascontiguousarray(numbers[:end, row])
            results.append(mine if self.vocabulary is None else self.vocabulary.decode(mine))
            of_results.append(np.ascontiguousarray(log_p[:end, row]))
        if not self.several:
            return (results[0], of_results[0]) if self.with_log_p else results[0]
        return (results, of_results) if self.with_log_p else results


def prepare(
    model: Model,
    prime: Any,
    length: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    stop: Any,
    seed: int | Sequence[int] | None,
    allowed: Allowed | None,
    log_probabilities: bool,
) -> Generation:
    """Return the generation that the arguments of `Model.generate` ask for, or raise."""
    if not model.built or model.input_shape is None:
        raise not_built()
    if len(model.input_names) > 1 or len(model.output_names) > 1:
        raise ValueError(
            "generate takes a model of one input and one output; this one has the inputs "
            f"{', '.join(model.input_names)} and the outputs {', '.join(model.output_names)}. For "
            "an encoder-decoder see seqnet.generation.Decoder."
        )
    (spec,) = model.input_specs.values()
    if spec.rank != 2 or not inputs_with_steps(model.input_specs):
        raise ValueError(
            "generate takes a model of whole numbers (batch, time), as an Embedding takes them; "
            f"the input {spec.name!r} has {spec.rank} axes. See seqnet.generation.Stepper and "
            "Model.step."
        )
    check_count(length, "length", 0)
    check_sampling(temperature, top_k, top_p)
    check_bool(log_probabilities, "log_probabilities")
    if allowed is not None and not callable(allowed):
        raise TypeError(f"allowed must be a function of the numbers so far, got {allowed!r}.")
    vocabulary = model.vocabulary
    several, given = split(prime, vocabulary)
    as_text = any(is_text(one) for one in given)
    primes = []
    for k, one in enumerate(given):
        name = f"prime[{k}]" if several else "prime"
        numbers = numbers_of(one, vocabulary, name)
        if not len(numbers):
            raise ValueError(f"{name} needs at least one number or character to start from.")
        spec.check_input(numbers, name)
        primes.append(numbers.astype("int64"))
    classes = model.output_features
    try:
        spec.check_input(np.array([classes - 1]), "")
    except (ValueError, TypeError):
        raise ValueError(
            f"The model gives probabilities of {classes} numbers, but its input does not take the "
            f"number {classes - 1}: what it generates could not be its next input."
        ) from None
    last = [] if stop is None else check_stop(stop, classes, vocabulary)
    seeds = check_seeds(seed, len(primes))
    return Generation(
        Writer.of(model),
        primes,
        length,
        Sampling(float(temperature), top_k, top_p),
        seeds,
        last,
        allowed,
        vocabulary if as_text else None,
        several,
        log_probabilities,
    )


def is_text(value: Any) -> bool:
    """Return whether a value is text, or a list of words."""
    return isinstance(value, str) or (
        isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], str)
    )


def split(prime: Any, vocabulary: Vocabulary | None) -> tuple[bool, list]:
    """Return whether there are several primes, and a list of them."""
    if isinstance(prime, (str, bytes)):
        return False, [prime]
    if not isinstance(prime, Iterable):
        raise TypeError(f"prime must be text, or a sequence of numbers, got {prime!r}.")
    items = list(prime)
    if items and isinstance(items[0], str):
        words = isinstance(vocabulary, WordVocabulary)  # a list of words is one text
        return (False, [items]) if words else (True, items)
    several = bool(items) and isinstance(items[0], (list, tuple, np.ndarray))
    several = several and np.ndim(items[0]) > 0
    return (True, items) if several else (False, [items])


def numbers_of(value: Any, vocabulary: Vocabulary | None, name: str) -> Array:
    """Return text or numbers as an array of numbers, or raise."""
    if isinstance(value, (str, bytes)) or is_text(value):
        if vocabulary is None:
            raise TypeError(
                f"{name} is the text {value[:20]!r}, but the model has no vocabulary. Set it: "
                "model.vocabulary = seqnet.text.CharacterVocabulary.of(text), or pass numbers."
            )
        try:
            return np.asarray(vocabulary.encode(value))
        except (ValueError, TypeError) as error:
            raise type(error)(f"{name}: {error}") from None
    found = list(value)
    array = as_array(found, name) if found else np.zeros(0, "int64")
    if array.ndim != 1:
        raise ValueError(f"{name} must be one sequence of numbers, got the shape {array.shape}.")
    return array


def check_stop(stop: Any, classes: int, vocabulary: Vocabulary | None) -> list[int]:
    """Return the numbers that end a sequence, or raise an error if they are impossible."""
    several = isinstance(stop, Iterable)
    if isinstance(stop, (str, bytes)) or is_text(stop):
        numbers = numbers_of(stop, vocabulary, "stop").tolist()
    else:
        numbers = list(stop) if several else [check_count(stop, "stop", 0)]
    if not numbers:
        raise ValueError("stop needs at least one number; use None to stop only at the length.")
    for number in numbers:
        if check_count(number, "A number in stop" if several else "stop", 0) >= classes:
            raise ValueError(
                f"stop holds {number}, which the model never generates: its outputs are the "
                f"probabilities of the numbers 0 to {classes - 1}."
            )
    return [int(number) for number in numbers]


def speller(vocabulary: Vocabulary | None) -> Callable[[int], Any]:
    """Return a function that spells the numbers of one sequence, in order."""
    if vocabulary is None:
        return lambda number: number
    if not isinstance(vocabulary, BytePairVocabulary):
        return lambda number: vocabulary.decode([number])[0]
    waiting: list[int] = []

    def spell(number: int) -> str:
        waiting.append(number)
        text = vocabulary.decode(waiting)
        if text.endswith("\ufffd") and len(waiting) < 4:  # a part of the bytes of a character
            return ""
        waiting.clear()
        return text

    return spell

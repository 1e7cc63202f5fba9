"""Generation of sequences with a model of the next number, many steps in one call.

A step of the model is noted as a list of calls of compiled kernels (`seqnet.backend.capture`),
which are repeated together with the drawing of numbers. If a step is more than kernels, it runs in
Python, and a message says why.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from seqnet import config
from seqnet.backend.capture import NotCapturedError, capture
from seqnet.common.checks import check_count
from seqnet.common.types import Array
from seqnet.generation.sampling import (
    Sampling,
    check_probabilities,
    draw_rows,
    log_of,
    no_probabilities,
)
from seqnet.generation.stepping import SteppedModel

if TYPE_CHECKING:
    from seqnet.model import Model

log = logging.getLogger("seqnet")

SHORTEST, LONGEST = 0.005, 4096
"""A call of several steps takes at least so many seconds, if it has not so many steps."""

Allowed = Callable[[Array], Array]
"""From the numbers of a sequence so far to a mask of the numbers that may follow."""


class Written(NamedTuple):
    """What was drawn in some steps."""

    numbers: Array
    """int64 (steps, rows)."""
    log_p: Array
    """float64 (steps, rows): the logarithms of the model's probabilities."""


class Engine(Protocol):
    """Something that runs steps of a model for some rows."""

    states: list[Array]
    probabilities: Array
    """Those after the last step, (rows, classes)."""

    def read(self, numbers: Array) -> None:
        """Run a step for each row of int64 (steps, rows)."""

    def draw(self, numbers: Array, uniform: Array, how: Sampling) -> Written:
        """Draw numbers; the first step reads `numbers`, int64 (rows,), each other what was drawn.

        `uniform` holds a random number for each number that is drawn, (steps, rows).
        """


class CapturedEngine:
    """Runs the steps of a model without Python; see `Engine`.

    Parameters
    ----------
    writer : Writer
    rows : int
    states : list of array (rows, size)
        Those before the first step.
    steps : int
        How many steps to expect.

    Raises
    ------
    NotCapturedError
        If a step is more than calls of kernels.
    """

    def __init__(self, writer: Writer, rows: int, states: Sequence[Array], steps: int):
        self.ids = np.zeros(rows, "int64")
        self.states = [state.copy() for state in states]
        found = capture(writer.function, [self.ids[:, None], *self.states], steps)
        self.probabilities, *after = found.outputs
        contiguous = [self.probabilities, *after, *self.states]
        if self.probabilities.ndim != 2 or not all(a.flags.c_contiguous for a in contiguous):
            raise NotCapturedError("an output of a step is not contiguous")
        pairs = list(zip(after, self.states, strict=True))
        self.steps = found.kernels.Steps(found.noted, self.ids, self.probabilities, pairs)
        self.check(writer)
        for mine, first in zip(self.states, states, strict=True):
            mine[...] = first

    def check(self, writer: Writer) -> None:
        """Raise `NotCapturedError` unless a step gives what the function gives, bit for bit.

        It would not if NumPy copied an array between two kernels.
        """
        random = np.random.default_rng(0)
        ids = random.integers(writer.limit, size=len(self.ids))
        for state in self.states:
            state[...] = random.uniform(-1, 1, state.shape)
        expected = writer.function(ids.astype(writer.dtype)[:, None], *map(np.copy, self.states))
        self.read(ids[None])
        for a, b in zip(expected, [self.probabilities, *self.states], strict=True):
            if not np.array_equal(a, b, equal_nan=True):
                raise NotCapturedError("its kernels do not give the result of the whole step")

    def read(self, numbers: Array) -> None:
        """See `Engine`."""
        self.steps.read(numbers)

    def draw(self, numbers: Array, uniform: Array, how: Sampling) -> Written:
        """See `Engine`."""
        self.ids[...] = numbers
        found = self.steps.draw(uniform, *how)
        if found.failed is not None:
            raise no_probabilities(self.probabilities[found.failed])
        return Written(found.numbers, found.log_p)


class FunctionEngine:
    """Runs each step of a model with its compiled function; see `Engine`."""

    def __init__(self, writer: Writer, states: Sequence[Array]):
        self.function, self.dtype = writer.function, writer.dtype
        self.states = [state.copy() for state in states]

    def read(self, numbers: Array) -> None:
        """See `Engine`."""
        for row in numbers:
            ids = np.ascontiguousarray(row, self.dtype)[:, None]
            self.probabilities, *self.states = self.function(ids, *self.states)

    def draw(self, numbers: Array, uniform: Array, how: Sampling) -> Written:
        """See `Engine`."""
        found = []
        for random in uniform:
            self.read(numbers[None])
            found.append(draw_rows(self.probabilities, random, how))
            numbers = found[-1][0]
        return Written(np.stack([n for n, _ in found]), np.stack([p for _, p in found]))


class Writer:
    """Generates numbers with a model that maps numbers to probabilities of the next number.

    Parameters
    ----------
    model : Model
        A built model of one input of whole numbers and one output.
    """

    def __init__(self, model: Model):
        self.model = model
        self.stepped = SteppedModel(model, model.input_names, model.output_names)
        self.function = self.stepped.function([])
        (spec,) = model.input_specs.values()
        self.dtype, self.limit = spec.dtype, model.output_features
        self.reason: str | None = None

    @classmethod
    def of(cls, model: Model) -> Writer:
        """Return the writer of a model, compiled once."""
        kept, key = model.steps.stepping, f"writing, {config.backend()}"
        if key not in kept:
            kept[key] = cls(model)
        return kept[key]

    def engine(self, rows: int, steps: int) -> Engine:
        """Return what runs the steps for some rows."""
        states = self.stepped.first_states(rows, [])
        try:
            return CapturedEngine(self, rows, states, steps)
        except NotCapturedError as reason:
            if self.reason is None:
                self.reason = str(reason)
                log.warning("generate runs each step of %r in Python: %s.", self.model.name, reason)
            return FunctionEngine(self, states)

    def write(
        self,
        primes: Sequence[Array],
        length: int,
        how: Sampling,
        seeds: Sequence[Sequence[int] | None],
        stop: Sequence[int] = (),
        allowed: Allowed | None = None,
        at_once: bool = False,
    ) -> Iterator[Written]:
        """Yield what follows some primes, a number of steps at a time.

        Parameters
        ----------
        primes : list of int array (length,)
            The starts of the sequences; none is empty.
        length : int
            The number of steps to draw.
        how : Sampling
        seeds : list
            For each sequence the seed of its random numbers.
        stop : list of int
            After every sequence has drawn these numbers, no other step is made.
        allowed : function, optional
        at_once : bool
            Whether the first numbers are needed as soon as possible.
        """
        if not length:
            return
        with self.model.lock:
            engine = self.engine(len(primes), length)
            last = read_primes(engine, primes)
        randoms = [np.random.default_rng(seed) for seed in seeds]
        written = np.zeros((len(primes), 0), "int64")
        count = 1 if at_once or allowed else 16
        while written.shape[1] < length:
            count = min(count, length - written.shape[1])
            uniform = np.stack([random.random(count) for random in randoms], axis=1)
            start = time.perf_counter()
            with self.model.lock:
                if allowed is None:
                    found = engine.draw(last, uniform, how)
                else:
                    engine.read(last[None])
                    found = self.draw_allowed(engine, uniform, how, allowed, primes, written)
            if time.perf_counter() - start < SHORTEST and allowed is None:
                count = min(2 * count, LONGEST)
            yield found
            written = np.concatenate([written, found.numbers.T], axis=1)
            last = found.numbers[-1]
            if stop and all(ends(row, stop) is not None for row in written):
                return

    @staticmethod
    def draw_allowed(
        engine: Engine,
        uniform: Array,
        how: Sampling,
        allowed: Allowed,
        primes: Sequence[Array],
        written: Array,
    ) -> Written:
        """Draw one number for each row from those that are allowed."""
        p = np.array(engine.probabilities)
        check_probabilities(p)
        kept = p.copy()
        for row, (prime, numbers) in enumerate(zip(primes, written, strict=True)):
            kept[row] *= checked_mask(allowed(np.concatenate([prime, numbers])), p.shape[1])
        totals = kept.sum(axis=1, keepdims=True)
        if not totals.all():
            row = int(np.flatnonzero(totals[:, 0] == 0)[0])
            raise ValueError(
                f"allowed permits no number that is possible after {written.shape[1]} numbers of "
                f"sequence {row}: all that it permits have the probability 0."
            )
        numbers, _ = draw_rows(kept / totals, uniform[0], how)
        return Written(numbers[None], log_of(p, numbers)[None])


def read_primes(engine: Engine, primes: Sequence[Array]) -> Array:
    """Run the steps of all primes but the last number of each, which is returned.

    The primes end together. The states of a shorter one are set back when it begins.
    """
    longest = max(map(len, primes))
    numbers = np.zeros((longest, len(primes)), "int64")
    starts = np.array([longest - len(prime) for prime in primes])
    for row, prime in enumerate(primes):
        numbers[starts[row] :, row] = prime
    first = [state.copy() for state in engine.states]
    begins = np.unique(starts)
    for begin, end in zip(begins, [*begins[1:], longest - 1], strict=True):
        for state, initial in zip(engine.states, first, strict=True):
            state[starts == begin] = initial[starts == begin]
        if end > begin:
            engine.read(numbers[begin:end])
    return numbers[-1]


def ends(written: Array, stop: Sequence[int]) -> int | None:
    """Return how many numbers there are up to the end of `stop`; None if it is not there."""
    size = len(stop)
    if not size or len(written) < size:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(written, size)
    found = np.flatnonzero((windows == np.asarray(stop)).all(axis=1))
    return int(found[0]) + size if len(found) else None


def checked_mask(mask: object, classes: int) -> Array:
    """Return what `allowed` has returned, or raise."""
    found = np.asarray(mask)
    if found.shape != (classes,) or found.dtype != bool:
        raise ValueError(
            f"allowed must return a bool array ({classes},), True for each number that may follow; "
            f"got {found.dtype} of shape {found.shape}."
        )
    return found


def check_seeds(seed: int | Sequence[int] | None, rows: int) -> list[list[int] | None]:
    """Return the seed of each sequence, or raise."""
    if seed is None:
        return [None] * rows
    if isinstance(seed, (int, np.integer)):
        return [[check_count(seed, "seed", 0), row] for row in range(rows)]
    seeds = [check_count(value, f"seed[{k}]", 0) for k, value in enumerate(seed)]
    if len(seeds) != rows:
        raise ValueError(f"seed has {len(seeds)} numbers, but there are {rows} sequences.")
    return [[value, 0] for value in seeds]

"""Sequences of different lengths: kept end to end, grouped by length, padded within a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seqnet.data import Examples, fingerprint

WINDOW = 50
"""Batches in a window of shuffled examples that is sorted by length."""

SPREAD = 0.1
"""How much longer than it is a sequence may be taken for, so that epochs group differently."""

MOST_LENGTHS = 8
"""Lengths that unrolled models get functions for, of each kind."""


@dataclass(kw_only=True)
class RaggedExamples(Examples):
    """Examples whose sequences have lengths of their own.

    What belongs to steps is kept without padding, all sequences end to end, so any selection of
    them costs nothing; `batches` yields `Examples` padded to the batch's longest, with a mask.

    Attributes
    ----------
    x : array (steps of all sequences, ...)
    y, weight : array (samples, ...) or (steps of all sequences, ...), optional
    mask : bool array (steps of all sequences,), optional
    starts, lengths : int array (samples,)
        Where each sequence is.
    per_step : bool
        Whether outputs and targets are one for each step.
    weight_per_step : bool
        Whether weights are.
    backwards : bool
        Whether outputs come last step first, so that padding is before and not after them.
    lengths_allowed : tuple of int
        What batches may be padded to, for models that unroll; empty for any length.
    places : int array (samples,), optional
        The place of each example in the caller's order, if that is another one.
    """

    starts: np.ndarray
    lengths: np.ndarray
    per_step: bool = False
    weight_per_step: bool = False
    backwards: bool = False
    lengths_allowed: tuple[int, ...] = ()
    places: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        return (None, None, *self.x.shape[1:])

    def gives_steps(self, output_shape):
        return output_shape[1:2] == (None,)

    def step_weight(self):
        if self.weight is None or self.weight_per_step or not self.per_step:
            return self.weight
        return np.repeat(self.weight, self.lengths)

    def take(self, rows) -> RaggedExamples:
        def own(values, steps):
            return values if steps or values is None else values[rows]

        return replace(
            self,
            y=own(self.y, self.per_step),
            weight=own(self.weight, self.weight_per_step),
            starts=self.starts[rows],
            lengths=self.lengths[rows],
            places=None,
        )

    def plan(self, batch_size: int, rng: np.random.Generator | None = None) -> Iterator:
        """Yield the rows of each batch: in order, or shuffled and then grouped by length.

        The examples are shuffled, cut into windows of `WINDOW` batches, sorted by length within
        each, cut into batches, and the batches shuffled. Lengths are blurred by `SPREAD` for
        sorting, so that no two epochs group alike.
        """
        if rng is None:
            yield from super().plan(batch_size)
            return
        order = rng.permutation(len(self))
        found: list[np.ndarray] = []
        for start in range(0, len(order), WINDOW * batch_size):
            near = order[start : start + WINDOW * batch_size]
            blurred = self.lengths[near] * rng.uniform(1, 1 + SPREAD, len(near))
            near = near[np.argsort(blurred)]
            sizes = [min(batch_size, len(near) - k) for k in range(0, len(near), batch_size)]
            found += np.split(near, np.cumsum(rng.permutation(sizes))[:-1])
        for k in rng.permutation(len(found)):
            yield found[k]

    def whole(self) -> Examples:
        """Return everything as one batch, padded to the longest, with its mask."""
        time = int(self.lengths.max())
        time = min((n for n in self.lengths_allowed if n >= time), default=time)
        steps = np.arange(time)
        mask = steps < self.lengths[:, None]
        at = np.where(mask, self.starts[:, None] + steps, 0)
        targets_mask, targets_at = mask, at
        if self.backwards:
            targets_mask, targets_at = mask[:, ::-1], at_the_end(at, self.lengths)

        def targets(values, per_step):
            return padded(values, targets_at, targets_mask) if per_step else values

        return Examples(
            padded(self.x, at, mask),
            None if self.y is None else targets(self.y, self.per_step),
            None if self.weight is None else targets(self.weight, self.weight_per_step),
            mask if self.mask is None else padded(self.mask, at, mask),
        )

    def by_length(self) -> RaggedExamples:
        order = np.argsort(self.lengths, kind="stable")
        ordered = self.take(order)
        ordered.places = order if self.places is None else self.places[order]
        return ordered

    def join(self, outputs):
        """Return an array (samples, ...), or a list of arrays (time, ...) if outputs are steps."""
        places = np.arange(len(self)) if self.places is None else self.places
        if not self.per_step:
            joined = np.concatenate(outputs)
            result = np.empty_like(joined)
            result[places] = joined
            return result
        found: list = [None] * len(self)
        rows = (row for batch in outputs for row in batch)
        for place, row, length in zip(places, rows, self.lengths, strict=True):
            found[place] = row[len(row) - length :] if self.backwards else row[:length]
        return found

    def fingerprint(self) -> dict[str, Any]:
        lengths = {"starts": fingerprint(self.starts), "lengths": fingerprint(self.lengths)}
        return super().fingerprint() | lengths | {"padded_to": list(self.lengths_allowed)}

    def steps_of(self, row: int) -> slice:
        """Return where the steps of one sequence are."""
        return slice(self.starts[row], self.starts[row] + self.lengths[row])

    def check(self, part: str, check: Callable, name: str) -> None:
        """Run ``check(values, name)`` on a part; if it fails, the message names the sequence."""
        values = getattr(self, part)
        steps = {"x": True, "y": self.per_step, "weight": self.weight_per_step}[part]
        try:
            check(values, name)
        except ValueError:  # a TypeError is about all of them
            for row in range(len(self) if steps else 0):
                check(values[self.steps_of(row)], f"{name}[{row}]")
            raise

    def flipped(self, values):
        at = np.arange(len(values))
        for row in range(len(self)):
            at[self.steps_of(row)] = at[self.steps_of(row)][::-1]
        return values[at]


def padded(values: np.ndarray, at: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return ``values[at]``, zero where the mask is False."""
    result = values[at]
    result[~mask] = 0
    return result


def at_the_end(at: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Move each row's first numbers, as many as its length, to the end of the row."""
    time = at.shape[1]
    return at[np.arange(len(at))[:, None], (np.arange(time) + lengths[:, None]) % time]


def lengths_to_allow(lengths: np.ndarray, known: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Choose the few lengths that sequences are padded to for a model that unrolls.

    Quantiles of the lengths at first; longer sequences later add their longest. There are never
    more than `MOST_LENGTHS`.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.ragged import lengths_to_allow
    >>> lengths_to_allow(np.arange(1, 14))
    (3, 5, 7, 9, 11, 13)
    >>> lengths_to_allow(np.array([3, 20]), (2, 4))
    (2, 4, 20)
    """
    longest = int(lengths.max())
    if not known:
        shares = np.linspace(0, 1, MOST_LENGTHS - 1)[1:]
        return tuple(int(n) for n in np.unique(np.quantile(lengths, shares, method="higher")))
    if longest <= known[-1]:
        return known
    return (*known[: MOST_LENGTHS - 1], longest)

"""Sequences of different lengths: concatenated, grouped by length, padded within a batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seqnet.data.dataset import (
    Batch,
    Epoch,
    RowDataset,
    RowSelection,
    batch_fingerprint,
    fingerprint,
)
from seqnet.data.validation import (
    as_array,
    as_mask,
    check_same_length,
    check_weights,
    flatten,
    is_ragged,
    scalar_steps,
    size_of,
    steps_like,
)

WINDOW = 50
"""The number of batches in a window of shuffled samples that is sorted by length."""

SPREAD = 0.1
"""The relative random increase of lengths before sorting, so that epochs group differently."""

MOST_LENGTHS = 8
"""The maximum number of lengths that functions of unrolled models are compiled for."""


@dataclass
class RaggedDataset(RowDataset):
    """Samples whose sequences have different lengths.

    Values of steps are stored without padding: all sequences are concatenated, so that selecting
    samples copies nothing. Each batch is padded to its longest sequence, with a mask.

    Attributes
    ----------
    data : Batch
        Inputs ``(steps of all sequences, ...)``, mask ``(steps of all sequences,)``, targets and
        sample weights ``(samples, ...)`` or ``(steps of all sequences, ...)``.
    starts, lengths : int array (samples,)
        The position and the length of each sequence.
    per_step : bool
        Whether there is one output and one target for each step.
    weight_per_step : bool
        Whether there is one sample weight for each step.
    backwards : bool
        Whether outputs are in reversed order, so that padding is before and not after them.
    padded_lengths : tuple of int
        The lengths that batches may be padded to, for unrolled models; empty for any length.
    places : int array (samples,), optional
        The place of each sample in the caller's order, if it is different.
    """

    data: Batch
    starts: np.ndarray
    lengths: np.ndarray
    per_step: bool = False
    weight_per_step: bool = False
    backwards: bool = False
    padded_lengths: tuple[int, ...] = ()
    places: np.ndarray | None = None

    @classmethod
    def from_sequences(cls, x: Any, mask: Any = None, *, prefix: str = "") -> RaggedDataset:
        """Return sequences as a data set without targets."""
        name = f"{prefix}X"
        flat, lengths = flatten(x, name)
        dataset = cls(Batch(flat), np.cumsum(lengths) - lengths, lengths)
        dataset.check(flat, as_array, name)
        if mask is None:
            return dataset
        label = f"{prefix}mask"
        check_same_length(len(dataset), mask, label, prefix)
        steps = scalar_steps(mask, lengths, label, prefix)
        dataset.check(steps, as_mask, label)
        return replace(dataset, data=Batch(flat, mask=as_mask(steps, label)))

    def with_targets(self, y: Any = None, weight: Any = None, *, prefix: str = "") -> RaggedDataset:
        """Return the data set with targets and sample weights, if they fit the sequences."""
        dataset, data = self, self.data
        if y is not None:
            name = f"{prefix}y"
            check_same_length(len(self), y, name, prefix)
            if self.per_step:
                y = steps_like(y, self.lengths, name, prefix)
            elif is_ragged(y):
                raise ValueError(
                    f"{name} has sequences of different lengths, but the model has one output for "
                    "each sequence. For an output at every step, the last recurrent layer needs "
                    "return_sequences=True."
                )
            else:
                y = as_array(y, name)
            self.check(y, as_array, name, self.per_step)
        if weight is not None:
            name = f"{prefix}sample_weight"
            check_same_length(len(self), weight, name, prefix)
            weight_per_step = size_of(weight[0]) is not None
            if weight_per_step and not self.per_step:
                raise ValueError(
                    f"{name} must have the shape ({len(self)},): the model has one output for "
                    "each sequence."
                )
            if weight_per_step:
                weight = scalar_steps(weight, self.lengths, name, prefix)
            else:
                weight = as_array(weight, name)
            self.check(weight, check_weights, name, weight_per_step)
            dataset = replace(dataset, weight_per_step=weight_per_step)
        return replace(dataset, data=Batch(data.inputs, y, weight, data.mask))

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self, rows: RowSelection) -> RaggedDataset:
        """Return the samples of some rows, without padding."""

        def own(values: Any, per_step: bool):
            return values if per_step or values is None else values[rows]

        data = self.data
        return replace(
            self,
            data=Batch(
                data.inputs,
                own(data.targets, self.per_step),
                own(data.sample_weight, self.weight_per_step),
                data.mask,
            ),
            starts=self.starts[rows],
            lengths=self.lengths[rows],
            places=None,
        )

    def load(self, rows: RowSelection) -> Batch:
        return self.rows(rows).as_batch()

    def batches(self, epoch: Epoch) -> Generator[Batch, None, None]:
        """Yield batches, each padded to its longest sequence."""
        for rows in self.epoch_rows(epoch):
            yield self.load(rows)

    def split(self, share: float) -> tuple[RaggedDataset, RaggedDataset]:
        row = self.split_row(share)
        return self.rows(slice(0, row)), self.rows(slice(row, None))

    def plan(self, batch_size: int, rng: np.random.Generator | None = None) -> Iterator:
        """Yield the rows of each batch: in order, or shuffled and then grouped by length.

        The samples are shuffled, divided into windows of `WINDOW` batches, sorted by length within
        each window, and divided into batches; then the batches are shuffled. Lengths are randomly
        increased by up to `SPREAD` before sorting, so that epochs group differently.
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

    def as_batch(self) -> Batch:
        """Return all samples as one batch, padded to the longest, with its mask."""
        time = int(self.lengths.max())
        time = min((n for n in self.padded_lengths if n >= time), default=time)
        steps = np.arange(time)
        mask = steps < self.lengths[:, None]
        at = np.where(mask, self.starts[:, None] + steps, 0)
        targets_mask, targets_at = mask, at
        if self.backwards:
            targets_mask, targets_at = mask[:, ::-1], at_the_end(at, self.lengths)

        def targets(values: Any, per_step: bool):
            return padded(values, targets_at, targets_mask) if per_step else values

        data = self.data
        return Batch(
            padded(data.inputs, at, mask),
            None if data.targets is None else targets(data.targets, self.per_step),
            None
            if data.sample_weight is None
            else targets(data.sample_weight, self.weight_per_step),
            mask if data.mask is None else padded(data.mask, at, mask),
        )

    def sorted_by_length(self) -> RaggedDataset:
        order = np.argsort(self.lengths, kind="stable")
        places = order if self.places is None else self.places[order]
        return replace(self.rows(order), places=places)

    def join(self, outputs: list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
        """Return an array (samples, ...), or a list of arrays (time, ...) for outputs per step."""
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
        return batch_fingerprint(self.data) | lengths | {"padded_to": list(self.padded_lengths)}

    # The interface that the checks of values need; `ArrayDataset` has it, too.

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The shape of a batch of inputs, None for the number of samples and of steps."""
        return (None, None, *self.data.inputs.shape[1:])

    def has_steps_of(self, output_shape: tuple) -> bool:
        """Return whether an output of a shape, the batch first, has the steps of the inputs."""
        return output_shape[1:2] == (None,)

    def target_weight(self) -> np.ndarray | None:
        """Return the sample weights, with as many rows as there are targets."""
        weight = self.data.sample_weight
        if weight is None or self.weight_per_step or not self.per_step:
            return weight
        return np.repeat(weight, self.lengths)

    def reverse_steps(self, values: np.ndarray) -> np.ndarray:
        """Return values of steps with the steps of each sequence reversed."""
        at = np.arange(len(values))
        for row in range(len(self)):
            at[self.steps_of(row)] = at[self.steps_of(row)][::-1]
        return values[at]

    def outline(self) -> RaggedDataset:
        """Return a data set without arrays that has what `join` needs."""
        return replace(self, data=Batch(None))

    def steps_of(self, row: int) -> slice:
        """Return where the steps of one sequence are."""
        return slice(self.starts[row], self.starts[row] + self.lengths[row])

    def check(self, values: np.ndarray, check: Callable, name: str, per_step: bool = True) -> None:
        """Call ``check(values, name)``; if it fails, the message names the sequence."""
        try:
            check(values, name)
        except ValueError:  # a TypeError applies to all sequences
            for row in range(len(self) if per_step else 0):
                check(values[self.steps_of(row)], f"{name}[{row}]")
            raise

    def checking(self, check: Callable, per_step: bool = True) -> Callable:
        """Return a check of values and a name whose messages name the sequence."""
        return lambda values, name: self.check(values, check, name, per_step)


def padded(values: np.ndarray, at: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return ``values[at]``, zero where the mask is False."""
    result = values[at]
    result[~mask] = 0
    return result


def at_the_end(at: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Move each row's first numbers, as many as its length, to the end of the row."""
    time = at.shape[1]
    return at[np.arange(len(at))[:, None], (np.arange(time) + lengths[:, None]) % time]


def choose_lengths(lengths: np.ndarray, known: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Choose the lengths that sequences are padded to for an unrolled model.

    The first choice is quantiles of the lengths; later, the longest of any longer sequences is
    added. There are never more than `MOST_LENGTHS` lengths.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.data.ragged import choose_lengths
    >>> choose_lengths(np.arange(1, 14))
    (3, 5, 7, 9, 11, 13)
    >>> choose_lengths(np.array([3, 20]), (2, 4))
    (2, 4, 20)
    """
    longest = int(lengths.max())
    if not known:
        shares = np.linspace(0, 1, MOST_LENGTHS - 1)[1:]
        return tuple(int(n) for n in np.unique(np.quantile(lengths, shares, method="higher")))
    if longest <= known[-1]:
        return known
    return (*known[: MOST_LENGTHS - 1], longest)

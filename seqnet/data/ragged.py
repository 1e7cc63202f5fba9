"""Sequences of different lengths: concatenated, grouped by length, padded within a batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from seqnet.data.columns import Layout, StepColumn
from seqnet.data.dataset import (
    Batch,
    Epoch,
    Place,
    RowDataset,
    RowSelection,
    Tree,
    batch_fingerprint,
    count_rows,
    map_tree,
    some_rows,
    tree_items,
    zip_trees,
)
from seqnet.data.spec import same_steps

WINDOW = 50
"""The number of batches in a window of shuffled samples that is sorted by length."""

SPREAD = 0.1
"""The relative random increase of lengths before sorting, so that epochs group differently."""

MOST_LENGTHS = 8
"""The maximum number of lengths that functions of unrolled models are compiled for."""


@dataclass(frozen=True)
class OutputSteps:
    """How the padding of an output is removed.

    Parameters
    ----------
    of : str, optional
        The name of the input whose steps it has; None if it has no padding.
    at_end : bool
        Whether the padding is before and not after the steps.
    count : function of an int array
        Returns how many steps it has for each number of steps of that input.
    """

    of: str | None = None
    at_end: bool = False
    count: Callable[[np.ndarray], np.ndarray] = same_steps


@dataclass
class RaggedDataset(RowDataset):
    """Samples whose sequences have different lengths.

    Each sequence input has separate lengths. In a batch, it is padded to its longest sequence,
    with a mask.

    Attributes
    ----------
    data : Batch of columns
        All samples, without padding.
    outputs : OutputSteps, or a dictionary of them by output name
    padded_lengths : tuple of int
        The lengths that batches may be padded to, for unrolled models; empty for any length.
    places : int array (samples,), optional
        The place of each sample in the caller's order, if it is different.

    Examples
    --------
    >>> from seqnet.data import Batch
    >>> from seqnet.data.columns import StepColumn
    >>> from seqnet.data.ragged import RaggedDataset
    >>> source, target = StepColumn.of([[1, 2], [3]], "X"), StepColumn.of([[4], [5]], "X")
    >>> batch = RaggedDataset(Batch({"source": source, "target": target})).as_batch()
    >>> batch.inputs["source"].tolist(), batch.mask["source"].astype(int).tolist()
    ([[1, 2], [3, 0]], [[1, 1], [1, 0]])
    >>> batch.inputs["target"].tolist()
    [[4], [5]]
    """

    data: Batch
    outputs: Tree = field(default_factory=OutputSteps)
    padded_lengths: tuple[int, ...] = ()
    places: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.data)

    @property
    def lengths(self) -> np.ndarray:
        """The number of steps of each sample, those of all its sequences together."""
        columns = [column for _, column in tree_items(self.data.inputs, "")]
        return np.sum([c.layout.lengths for c in columns if isinstance(c, StepColumn)], axis=0)

    def take(self, rows: RowSelection) -> Batch:
        """Return the columns of some samples."""
        layouts: dict[int, Layout] = {}
        return self.data.map(lambda column: column.take(rows, layouts))

    def rows(self, rows: RowSelection) -> RaggedDataset:
        """Return the samples of some rows, without padding."""
        return replace(self, data=self.take(rows), places=None)

    def load(self, rows: RowSelection) -> Batch:
        return padded_batch(self.take(rows), self.padded_lengths)

    def batches(self, epoch: Epoch) -> Generator[Batch, None, None]:
        """Yield batches, each padded to its longest sequences."""
        load = self.loader(epoch)
        for rows in self.epoch_rows(epoch):
            yield load(rows)

    def load_part(self, rows: RowSelection, part: Callable[[int], tuple[int, int]]) -> Batch:
        """Return a part of a batch, padded to the longest sequences of the whole batch."""
        total = count_rows(rows)
        start, stop = part(total)
        wanted, layouts = some_rows(rows, start, stop), {}
        for column in self.data.leaves():
            if column.layout is not None and id(column.layout) not in layouts:
                layouts[id(column.layout)] = column.layout.part(rows, wanted)
        taken = self.data.map(lambda column: column.take(wanted, layouts))
        batch = padded_batch(taken, self.padded_lengths)
        batch.place = Place(start, stop, total)
        return batch

    def split(self, share: float) -> tuple[RaggedDataset, RaggedDataset]:
        row = self.split_row(share)
        return self.rows(slice(0, row)), self.rows(slice(row, None))

    def plan(self, batch_size: int, rng: np.random.Generator | None = None) -> Iterator:
        """Yield the rows of each batch: in order, or shuffled and then grouped by length.

        The samples are shuffled, divided into windows of `WINDOW` batches, sorted by length within
        each window, and divided into batches; then the batches are shuffled. Lengths are randomly
        increased by up to `SPREAD` before sorting, so that epochs group differently. With several
        sequences in a sample, its length is their sum.
        """
        if rng is None:
            yield from super().plan(batch_size)
            return
        order, lengths = rng.permutation(len(self)), self.lengths
        found: list[np.ndarray] = []
        for start in range(0, len(order), WINDOW * batch_size):
            near = order[start : start + WINDOW * batch_size]
            blurred = lengths[near] * rng.uniform(1, 1 + SPREAD, len(near))
            near = near[np.argsort(blurred)]
            sizes = [min(batch_size, len(near) - k) for k in range(0, len(near), batch_size)]
            found += np.split(near, np.cumsum(rng.permutation(sizes))[:-1])
        for k in rng.permutation(len(found)):
            yield found[k]

    def as_batch(self) -> Batch:
        return padded_batch(self.data, self.padded_lengths)

    def sorted_by_length(self) -> RaggedDataset:
        order = np.argsort(self.lengths, kind="stable")
        places = order if self.places is None else self.places[order]
        return replace(self.rows(order), places=places)

    def join(self, outputs: list[Tree]) -> Tree:
        """Return an array (samples, ...), or a list of arrays (time, ...) for outputs per step."""
        places = np.arange(len(self)) if self.places is None else self.places

        def join_one(steps_and_batches: list) -> np.ndarray | list[np.ndarray]:
            steps, *batches = steps_and_batches
            if steps.of is None:
                joined = np.concatenate(batches)
                result = np.empty_like(joined)
                result[places] = joined
                return result
            found: list = [None] * len(self)
            rows = (row for batch in batches for row in batch)
            lengths = steps.count(self.layout_of(steps.of).lengths)
            for place, row, length in zip(places, rows, lengths, strict=True):
                found[place] = row[len(row) - length :] if steps.at_end else row[:length]
            return found

        return zip_trees(join_one, [self.outputs, *outputs])

    def layout_of(self, name: str) -> Layout:
        """Return the layout of an input."""
        inputs = self.data.inputs
        return (inputs[name] if isinstance(inputs, dict) else inputs).layout

    def fingerprint(self) -> dict[str, Any]:
        found = batch_fingerprint(self.data, lambda column: column.fingerprint())
        return found | {"padded_to": list(self.padded_lengths)}

    def outline(self) -> RaggedDataset:
        """Return a data set without arrays that has what `join` needs."""
        inputs = map_tree(lambda column: column.outline(), self.data.inputs)
        return replace(self, data=Batch(inputs))


def padded_batch(data: Batch, allowed: tuple[int, ...]) -> Batch:
    """Return columns as arrays, with masks for sequences, and for other inputs if they are given.

    Each sequence is padded to the longest one of its column, or to the smallest `allowed` length
    that is not shorter.
    """
    inputs, masks = data.inputs, data.mask
    batch = data.map(lambda column: column.padded(allowed))
    if not isinstance(inputs, dict):
        if masks is None:
            batch.mask = inputs.layout.padded(allowed)[1]
        return batch
    given, batch.mask = batch.mask or {}, {}
    for name, column in inputs.items():
        if name in given:
            batch.mask[name] = given[name]
        elif column.layout is not None:
            batch.mask[name] = column.layout.padded(allowed)[1]
    return batch


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

"""One part of the data of all samples: a row for each sample, or sequences of different lengths.

A `Batch` of columns is all data of a `RaggedDataset`. Both kinds of columns have the same methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from seqnet.data.dataset import RowSelection, fingerprint
from seqnet.data.validation import as_array, flatten


class Layout:
    """Where sequences are in an array of the steps of all sequences.

    Parameters
    ----------
    starts, lengths : int array (samples,)
    shortest : int
        The smallest number of steps to pad to.

    Examples
    --------
    >>> from seqnet.data.columns import Layout
    >>> layout = Layout.of([2, 1])
    >>> at, present = layout.places(3)
    >>> (at * present).tolist(), present.astype(int).tolist()
    ([[0, 1, 0], [2, 0, 0]], [[1, 1, 0], [1, 0, 0]])
    """

    def __init__(self, starts: np.ndarray, lengths: np.ndarray, shortest: int = 0):
        self.starts, self.lengths, self.shortest = starts, lengths, shortest
        self._padded: tuple | None = None

    @classmethod
    def of(cls, lengths: Any) -> Layout:
        """Return the layout of consecutive sequences."""
        lengths = np.asarray(lengths)
        return cls(np.cumsum(lengths) - lengths, lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, rows: RowSelection) -> Layout:
        return Layout(self.starts[rows], self.lengths[rows])

    def part(self, rows: RowSelection, wanted: RowSelection) -> Layout:
        """Return the layout of wanted rows, which are padded like all `rows`."""
        longest = int(self.lengths[rows].max())
        return Layout(self.starts[wanted], self.lengths[wanted], longest)

    def steps(self, row: int) -> slice:
        """Return where the steps of one sequence are."""
        return slice(self.starts[row], self.starts[row] + self.lengths[row])

    def places(self, time: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the place of each step of a padded batch (samples, time), and its mask."""
        steps = np.arange(time)
        mask = steps < self.lengths[:, None]
        return np.where(mask, self.starts[:, None] + steps, 0), mask

    def padded(self, allowed: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Return `places` for the longest length, or the smallest allowed one that is not shorter.

        They are computed once for all columns of a batch with these lengths.
        """
        if self._padded is None or self._padded[0] != allowed:
            time = max(int(self.lengths.max()), self.shortest)
            time = min((n for n in allowed if n >= time), default=time)
            self._padded = allowed, self.places(time)
        return self._padded[1]


@dataclass(slots=True)
class RowColumn:
    """One row of an array for each sample.

    Parameters
    ----------
    values : array (samples, ...)
    """

    values: np.ndarray

    @property
    def layout(self) -> None:
        """No layout: there is one row for each sample."""
        return None

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of a batch; the number of samples is None."""
        return (None, *self.values.shape[1:])

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: RowSelection, layouts: dict) -> RowColumn:
        """Return the column of some samples."""
        return RowColumn(self.values[rows])

    def padded(self, allowed: tuple[int, ...] = ()) -> np.ndarray:
        """Return the values as an array with one row for each sample."""
        return self.values

    def per_value(self, rows: np.ndarray) -> np.ndarray:
        """Return one value for each row as values for the first axis of `values`."""
        return rows

    def reverse(self, values: np.ndarray) -> np.ndarray:
        """Return values of this column's steps with the steps of each sample reversed."""
        return values[:, ::-1]

    def checking(self, check: Callable) -> Callable:
        """Return ``check(values, name)`` with messages that name the sample."""
        return check

    def outline(self) -> RowColumn:
        """Return a column of as many samples without values."""
        return RowColumn(np.empty((len(self), 0)))

    def fingerprint(self) -> dict[str, Any]:
        """Return shape, dtype and checksum, as JSON can hold them."""
        return fingerprint(self.values)


@dataclass(slots=True)
class StepColumn:
    """Sequences of different lengths, one for each sample.

    All sequences are concatenated, so that selecting samples copies no values.

    Parameters
    ----------
    values : array (steps of all sequences, ...)
    layout : Layout
        Columns with the same lengths share one.
    at_end : bool
        Whether sequences are at the end of padded rows, and not at their start.

    Examples
    --------
    >>> from seqnet.data.columns import StepColumn
    >>> StepColumn.of([[1, 2], [3]], "X").padded().tolist()
    [[1, 2], [3, 0]]
    """

    values: np.ndarray
    layout: Layout
    at_end: bool = False

    @classmethod
    def of(cls, sequences: Any, name: str) -> StepColumn:
        """Return a list of sequences as a column, after checking them."""
        values, lengths = flatten(sequences, name)
        column = cls(values, Layout.of(lengths))
        column.checking(as_array)(values, name)
        return column

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The shape of a batch; the numbers of samples and of steps are None."""
        return (None, None, *self.values.shape[1:])

    def __len__(self) -> int:
        return len(self.layout)

    def take(self, rows: RowSelection, layouts: dict) -> StepColumn:
        """Return the column of some samples.

        `layouts` is shared by the columns of a batch: a layout of several is selected once.
        """
        key = id(self.layout)
        if key not in layouts:
            layouts[key] = self.layout[rows]
        return StepColumn(self.values, layouts[key], self.at_end)

    def padded(self, allowed: tuple[int, ...] = ()) -> np.ndarray:
        """Return an array (samples, time, ...) that is 0 after, or before, each sequence.

        `time` is the longest length, or the smallest `allowed` one that is not shorter.
        """
        at, mask = self.layout.padded(allowed)
        if self.at_end:
            time, lengths = mask.shape[1], self.layout.lengths
            at = at[np.arange(len(at))[:, None], (np.arange(time) + lengths[:, None]) % time]
            mask = mask[:, ::-1]
        result = self.values[at]
        result[~mask] = 0
        return result

    def per_value(self, rows: np.ndarray) -> np.ndarray:
        """Return one value for each sequence as one for each of its steps."""
        return np.repeat(rows, self.layout.lengths)

    def reverse(self, values: np.ndarray) -> np.ndarray:
        """Return values of this column's steps with the steps of each sequence reversed."""
        at = np.arange(len(values))
        for row in range(len(self)):
            at[self.layout.steps(row)] = at[self.layout.steps(row)][::-1]
        return values[at]

    def checking(self, check: Callable) -> Callable:
        """Return ``check(values, name)`` with messages that name the sequence."""

        def check_each(values: np.ndarray, name: str) -> None:
            try:
                check(values, name)
            except ValueError:  # a TypeError applies to all sequences
                for row in range(len(self)):
                    check(values[self.layout.steps(row)], f"{name}[{row}]")
                raise

        return check_each

    def outline(self) -> StepColumn:
        """Return a column with the lengths of this one, without values."""
        return replace(self, values=np.empty(0))

    def fingerprint(self) -> dict[str, Any]:
        """Return shape, dtype and checksum of the values and the lengths, as JSON can hold them."""
        layout = {"starts": self.layout.starts, "lengths": self.layout.lengths}
        return fingerprint(self.values) | {name: fingerprint(v) for name, v in layout.items()}


Column: TypeAlias = RowColumn | StepColumn

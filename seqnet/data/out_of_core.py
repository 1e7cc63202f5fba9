"""Rows that are not in memory, which are read when a batch needs them."""

from __future__ import annotations

import contextlib
import mmap
import time
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np

from seqnet.common.checks import WrongValueError, preceded
from seqnet.data.dataset import Batch, RowDataset, RowSelection
from seqnet.data.validation import as_array, described, refuse_masked

FAST_ROW_S = 5e-6
"""If rows of a memory map take longer on average, they are probably not in the page cache."""


def is_out_of_core(values: Any) -> bool:
    """Return whether rows are read only when they are needed.

    This is true for a `numpy.memmap` or a view of one, a `h5py.Dataset`, and every other object
    with a length and slices, except lists, NumPy arrays, data frames and arrays of other libraries.
    """
    if isinstance(values, np.ndarray):
        while isinstance(values, np.ndarray):
            if isinstance(values, np.memmap):
                return True
            values = values.base
        return False
    if values is None or isinstance(values, (list, tuple, str, bytes, dict)):
        return False
    if any(hasattr(values, name) for name in ("__dlpack__", "__array_interface__", "iloc")):
        return False
    return (
        hasattr(values, "__len__")
        and hasattr(values, "__getitem__")
        and getattr(values, "shape", None) != ()
    )


class Rows:
    """Rows that are not in memory, with the attributes of an array that need no reading.

    Parameters
    ----------
    values : numpy.memmap, h5py.Dataset, or an object with ``len`` and slices ``values[a:b]``
    name : str
        The name in messages.

    Attributes
    ----------
    shape, dtype
        The shape and dtype of all rows; if `values` does not define them, those of the first row
        are used.

    Raises
    ------
    ValueError, TypeError
        If there are no rows, or they do not hold numbers.

    Examples
    --------
    >>> from seqnet.data.out_of_core import Rows
    >>> class Squares:
    ...     def __len__(self):
    ...         return 1000
    ...     def __getitem__(self, rows):
    ...         return [[k * k] for k in range(rows.start, rows.stop)]
    >>> rows = Rows(Squares(), "X")
    >>> rows.shape, rows[np.array([9, 2, 3])].ravel().tolist()
    ((1000, 1), [81, 4, 9])
    """

    def __init__(self, values: Any, name: str):
        self.values, self.name, self.fast = mapped(values), name, True
        try:
            count, first = len(values), values[0:1]
        except (TypeError, KeyError) as error:
            raise TypeError(
                f"{name} ({described(values)}) is neither an array nor a list, and has no rows "
                f"{name}[start:stop] to read ({error}). Pass an array or a list, "
                f"such as {name}.toarray() or list({name})."
            ) from error
        if count == 0:
            raise ValueError(f"{name} is empty.")
        first = as_array(first, name)
        self.shape = tuple(getattr(values, "shape", (len(values), *first.shape[1:])))
        self.dtype = first.dtype
        if first.shape != (1, *self.shape[1:]):
            raise ValueError(
                f"{name}[0:1] has the shape {first.shape}, but {name} has the shape {self.shape}: "
                "slices must return rows."
            )

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: RowSelection) -> np.ndarray:
        """Read a slice, or rows by number: in increasing order, neighbouring rows together."""
        if isinstance(rows, slice):
            return self.read(*rows.indices(len(self))[:2])
        if isinstance(self.values, np.ndarray):
            began = time.perf_counter()
            if not self.fast:
                request(self.values, rows)
            # Unlike indexing, this lets other threads run while pages are read from a disk.
            found = np.take(np.asarray(self.values), rows, axis=0)
            self.fast = time.perf_counter() - began < len(rows) * FAST_ROW_S
            return found
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        breaks = np.flatnonzero(np.diff(ascending) != 1) + 1
        runs = np.split(ascending, breaks)
        found = np.concatenate([self.read(int(run[0]), int(run[-1]) + 1) for run in runs])
        result = np.empty_like(found)
        result[order] = found
        return result

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the rows from `start` to `stop` (exclusive) as an array in memory."""
        found = self.values[start:stop]
        refuse_masked(found, f"{self.name}[{start}:{stop}]")
        found = np.array(found)
        if found.shape != (stop - start, *self.shape[1:]):
            raise ValueError(
                f"{self.name}[{start}:{stop}] has the shape {found.shape}, expected "
                f"{(stop - start, *self.shape[1:])}."
            )
        return found


def mapped(values: Any) -> Any:
    """Return a memory map of a contiguous HDF5 dataset in a read-only file.

    Reading single rows with HDF5 takes ten times as long. Other values are returned unchanged.
    """
    if not isinstance(values, h5py.Dataset) or values.file.mode != "r":
        return values
    offset = values.id.get_offset()  # None if it is chunked, in the header, or external
    if offset is None or values.external or values.file.driver != "sec2" or 0 in values.shape:
        return values
    if values.dtype.kind not in "fiub":
        return values
    found = np.memmap(values.file.filename, values.dtype, "r", offset, values.shape)
    return found if (found[-1:] == values[-1:]).all() else values


def request(values: np.ndarray, rows: np.ndarray) -> None:
    """Ask the system to read rows of a memory map concurrently.

    A disk reads many rows in little more time than one. Only the requested rows are read, whereas a
    page fault also reads neighbouring pages. If the system does not support this, or rows are not
    contiguous, nothing is done.
    """
    whole: Any = values
    while isinstance(whole, np.ndarray):
        whole = whole.base
    if not (hasattr(mmap, "MADV_WILLNEED") and isinstance(whole, mmap.mmap)):
        return
    if not values[:1].flags.c_contiguous:
        return
    first = values.ctypes.data - np.frombuffer(whole, np.uint8).ctypes.data
    size = values[:1].nbytes
    with contextlib.suppress(OSError):  # a hint that not every file system supports
        for row in rows.tolist():
            start = first + row * values.strides[0]
            page = start - start % mmap.PAGESIZE
            whole.madvise(mmap.MADV_WILLNEED, page, start + size - page)


class StepsMask:
    """The mask of sequences that begin at the first step, computed for the requested rows.

    Parameters
    ----------
    lengths : int array (samples,)
    time : int

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.data.out_of_core import StepsMask
    >>> StepsMask(np.array([1, 3]), 3)[:].astype(int).tolist()
    [[1, 0, 0], [1, 1, 1]]
    """

    def __init__(self, lengths: np.ndarray, time: int):
        self.lengths, self.shape, self.dtype = lengths, (len(lengths), time), np.dtype(bool)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: RowSelection) -> np.ndarray:
        return np.arange(self.shape[1]) < self.lengths[rows, None]


class PartRows(RowDataset):
    """Samples whose parts are arrays or `Rows`.

    Parameters
    ----------
    parts : Batch
    """

    def __init__(self, parts: Batch):
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts)

    def load(self, rows: RowSelection) -> Batch:
        return self.parts.take(rows)


class OutOfCoreDataset(RowDataset):
    """Samples that are read, and checked, when a batch needs them.

    Parameters
    ----------
    rows : RowDataset
        The source: `PartRows`, or a custom data set.
    check : function of Batch
        Returns the checked batch, or raises an error.
    """

    def __init__(self, rows: RowDataset, check: Callable[[Batch], Batch]):
        self.rows, self.check = rows, check
        self.name = rows.name

    def __len__(self) -> int:
        return len(self.rows)

    def plan(self, batch_size: int, rng: np.random.Generator | None = None) -> Iterator:
        return self.rows.plan(batch_size, rng)

    def load(self, rows: RowSelection) -> Batch:
        """Read and check rows; the error for an invalid value names its row."""
        batch = self.rows.load(rows)
        try:
            return self.check(batch)
        except WrongValueError as error:
            raise error.in_row(int(row_numbers(rows)[error.where[0]])) from None
        except (ValueError, TypeError) as error:
            numbers = row_numbers(rows)
            for place, number in enumerate(numbers):
                self.check_row(batch, int(number), place)
            raise preceded(error, f"Rows {numbers[0]} to {numbers[-1]}") from error

    def check_row(self, batch: Batch, number: int, place: int) -> None:
        """Raise an error with the number of the row if the row is invalid on its own."""
        try:
            self.check(batch.take(slice(place, place + 1)))
        except (ValueError, TypeError) as error:
            raise preceded(error, f"Row {number}") from error

    def fingerprint(self) -> dict[str, Any]:
        return self.rows.fingerprint()

    def close(self) -> None:
        self.rows.close()


def row_numbers(rows: RowSelection) -> range | np.ndarray:
    """Return the numbers of the rows of a slice or an array of numbers."""
    return range(rows.start, rows.stop) if isinstance(rows, slice) else rows

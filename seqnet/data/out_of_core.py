"""Rows that stay where they are, in a file or behind an object, until a batch needs them."""

from __future__ import annotations

import contextlib
import mmap
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import h5py
import numpy as np

from seqnet import config
from seqnet.checks import WrongValueError, preceded
from seqnet.data import Examples, as_array
from seqnet.readahead import read_ahead_if_slow

FINGERPRINTED_ROWS = 100
"""So many rows, at regular distances, are read to tell data sets apart."""

QUICK_ROW_S = 5e-6
"""Rows of a memory map that take longer, on average, are not in memory yet."""


def is_source(values) -> bool:
    """Tell whether rows are to be read when they are needed, and not all at once.

    That is a `numpy.memmap` or a view of one, a `h5py.Dataset`, and every object with a length and
    slices that is not in memory: no list, NumPy array, data frame, or array of another library.
    """
    if isinstance(values, np.ndarray):
        while isinstance(values, np.ndarray):
            if isinstance(values, np.memmap):
                return True
            values = values.base
        return False
    if isinstance(values, (list, tuple, str, bytes, dict)):
        return False
    if any(hasattr(values, name) for name in ("__dlpack__", "__array_interface__", "iloc")):
        return False
    return (
        hasattr(values, "__len__")
        and hasattr(values, "__getitem__")
        and getattr(values, "shape", None) != ()
    )


class Rows:
    """What is beyond memory, with the part of an array's interface that needs no reading.

    Parameters
    ----------
    values : numpy.memmap, h5py.Dataset, or an object with ``len`` and slices ``values[a:b]``
    name : str
        What messages call it.

    Attributes
    ----------
    shape, dtype
        Those of the whole; where `values` has none, the first row is read to learn them.

    Raises
    ------
    ValueError, TypeError
        If there are no rows, or they hold no numbers.

    Examples
    --------
    >>> from seqnet.sources import Rows
    >>> class Squares:
    ...     def __len__(self):
    ...         return 1000
    ...     def __getitem__(self, rows):
    ...         return [[k * k] for k in range(rows.start, rows.stop)]
    >>> rows = Rows(Squares(), "X")
    >>> rows.shape, rows[np.array([9, 2, 3])].ravel().tolist()
    ((1000, 1), [81, 4, 9])
    """

    def __init__(self, values, name: str):
        self.values, self.name, self.quick = mapped(values), name, True
        if len(values) == 0:
            raise ValueError(f"{name} is empty.")
        first = as_array(np.asarray(values[0:1]), name)
        self.shape = tuple(getattr(values, "shape", (len(values), *first.shape[1:])))
        self.dtype = first.dtype
        if first.shape != (1, *self.shape[1:]):
            raise ValueError(
                f"{name}[0:1] has the shape {first.shape}, but {name} has the shape {self.shape}: "
                "slices must give rows."
            )

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows) -> np.ndarray:
        """Read a slice, or rows by number: in increasing order, neighbours at once."""
        if isinstance(rows, slice):
            return self.read(*rows.indices(len(self))[:2])
        if isinstance(self.values, np.ndarray):
            began = time.perf_counter()
            if not self.quick:
                request(self.values, rows)
            # Unlike an index, this lets other threads run while pages come from a disk.
            found = np.take(np.asarray(self.values), rows, axis=0)
            self.quick = time.perf_counter() - began < len(rows) * QUICK_ROW_S
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
        """Return the rows from `start` to before `stop` as an array in memory."""
        found = np.array(self.values[start:stop])
        if found.shape != (stop - start, *self.shape[1:]):
            raise ValueError(
                f"{self.name}[{start}:{stop}] has the shape {found.shape}, expected "
                f"{(stop - start, *self.shape[1:])}."
            )
        return found


def mapped(values):
    """Return a dataset that lies in one piece in a file which is only read as a memory map of it.

    HDF5 takes ten times as long for single rows. Anything else is returned as it is.
    """
    if not isinstance(values, h5py.Dataset) or values.file.mode != "r":
        return values
    offset = values.id.get_offset()  # None if it lies in chunks, in the header, or elsewhere
    if offset is None or values.external or values.file.driver != "sec2" or 0 in values.shape:
        return values
    if values.dtype.kind not in "fiub":
        return values
    found = np.memmap(values.file.filename, values.dtype, "r", offset, values.shape)
    return found if (found[-1:] == values[-1:]).all() else values


def request(values: np.ndarray, rows: np.ndarray) -> None:
    """Let the system begin to read rows of a memory map, all at once and not one after the other.

    A disk gives many rows in little more time than one; and only these rows are read, where a page
    that is waited for brings its neighbours along. Where the system has no such call, or rows lie
    in several pieces, nothing is done.
    """
    whole = values
    while isinstance(whole, np.ndarray):
        whole = whole.base
    if not (hasattr(mmap, "MADV_WILLNEED") and isinstance(whole, mmap.mmap)):
        return
    if not values[:1].flags.c_contiguous:
        return
    first = values.ctypes.data - np.frombuffer(whole, np.uint8).ctypes.data
    size = values[:1].nbytes
    with contextlib.suppress(OSError):  # it is only a hint, which not every file system takes
        for row in rows.tolist():
            start = first + row * values.strides[0]
            page = start - start % mmap.PAGESIZE
            whole.madvise(mmap.MADV_WILLNEED, page, start + size - page)


class StepsMask:
    """The mask of sequences that begin at the first step, made for the rows that are asked for.

    Parameters
    ----------
    lengths : int array (samples,)
    time : int

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.sources import StepsMask
    >>> StepsMask(np.array([1, 3]), 3)[:].astype(int).tolist()
    [[1, 0, 0], [1, 1, 1]]
    """

    def __init__(self, lengths: np.ndarray, time: int):
        self.lengths, self.shape, self.dtype = lengths, (len(lengths), time), np.dtype(bool)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows) -> np.ndarray:
        return np.arange(self.shape[1]) < self.lengths[rows, None]


@dataclass(kw_only=True)
class SourceExamples(Examples):
    """Examples whose parts are arrays or `Rows`: a batch is read and checked when its turn comes.

    Attributes
    ----------
    check_batch : function of Examples
        Raises if values cannot be used, or returns the batch as it is to be used.
    start, stop : int
        Which rows these are.
    """

    check_batch: Callable[[Examples], Examples]
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def take(self, rows) -> Examples:
        """Read some rows; what is wrong with one is said with its number in the whole."""
        if isinstance(rows, slice):
            first, last, _ = rows.indices(len(self))
            rows = slice(self.start + first, self.start + last)
            numbers = range(rows.start, rows.stop)
        else:
            numbers = rows = rows + self.start
        batch = super().take(rows)
        try:
            return self.check_batch(batch)
        except WrongValueError as error:
            raise error.in_row(int(numbers[error.where[0]])) from None
        except (ValueError, TypeError) as error:
            for number, place in zip(numbers, range(len(batch)), strict=True):
                self.check_row(batch, int(number), place)
            raise preceded(error, f"Rows {numbers[0]} to {numbers[-1]}") from error

    def check_row(self, batch: Examples, number: int, place: int) -> None:
        """Raise, with the row's number, if it is refused on its own."""
        try:
            self.check_batch(batch.take(slice(place, place + 1)))
        except (ValueError, TypeError) as error:
            raise preceded(error, f"Row {number}") from error

    def split(self, share: float) -> tuple[Examples, Examples]:
        at = self.start + self.split_at(share)
        return replace(self, stop=at), replace(self, start=at)

    def whole(self) -> Examples:
        return self.take(slice(None))

    def fingerprint(self) -> dict[str, dict]:
        """Return the shape and dtype of each part, and a checksum of a few rows."""
        places = np.unique(np.linspace(self.start, self.stop - 1, FINGERPRINTED_ROWS, dtype=int))
        found = Examples.take(self, places).fingerprint()
        return {name: part | {"samples": len(self)} for name, part in found.items()}

    def batches(self, batch_size: int, *args, **options) -> Generator:
        """Yield batches, read ahead by a thread if that is slow; their order is drawn at once."""
        rows = self.schedule(batch_size, *args, **options)
        return read_ahead_if_slow((self.take(r) for r in rows), config.read_ahead())

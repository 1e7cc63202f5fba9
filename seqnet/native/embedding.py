"""Rows of a table by index, and the gradient of this lookup."""

from __future__ import annotations

from ctypes import Structure, c_long, c_void_p

import numpy as np

from . import memory
from .core import CoreLibrary, address, core, count_call, threads_for
from .recording import run


class _Arguments(Structure):  # embedding_arguments in src/rows.c
    _fields_ = [
        *((n, c_long) for n in ("count", "width", "vocabulary")),
        *((n, c_void_p) for n in ("ids", "table", "rows")),
    ]


def gather(table: np.ndarray, ids: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return ``table[ids]``; unlike in NumPy, negative ids are an error.

    Parameters
    ----------
    table
        ``(vocabulary, width)``.
    ids
        Integers of any shape.
    out
        Contiguous ``(*ids.shape, width)``, to write to.

    Raises
    ------
    IndexError
        If an id is not a row; the message has the id and its position.
    """
    library = core(table.dtype)
    if table.ndim != 2:
        raise ValueError(f"gather: the table must be (vocabulary, width), got {table.shape}")
    table = np.ascontiguousarray(table)
    shape = (*ids.shape, table.shape[1])
    if out is None:
        out = memory.empty(shape, table.dtype)
    elif out.shape != shape or out.dtype != table.dtype or not out.flags.c_contiguous:
        raise ValueError(
            f"gather: out must be contiguous, {table.dtype}{shape}, got {out.dtype}{out.shape}"
        )
    ids = checked_ids(ids, table.shape[0], "id", library)
    if out.size:
        arguments = _arguments(ids, table, out)
        run(library.gather, arguments, threads_for(2 * out.size), ids, table)
    count_call("gather")
    return out


def scatter_add(
    rows: np.ndarray, ids: np.ndarray, vocabulary: int, out: np.ndarray | None = None
) -> np.ndarray:
    """Return the gradient of `gather` with respect to its table: the sum of the rows of each id.

    Parameters
    ----------
    rows
        ``(*ids.shape, width)``.
    ids
        Integers of any shape.
    vocabulary
        Number of rows of the table.
    out
        Contiguous ``(vocabulary, width)``, to write to.

    Returns
    -------
    numpy.ndarray
        ``(vocabulary, width)``, 0 where no row was added.
    """
    library = core(rows.dtype)
    if rows.shape[:-1] != ids.shape:
        raise ValueError(f"scatter_add: rows {rows.shape} and ids {ids.shape} do not fit")
    rows = np.ascontiguousarray(rows)
    shape = (vocabulary, rows.shape[-1])
    if out is None:
        out = memory.empty(shape, rows.dtype)
    elif out.shape != shape or out.dtype != rows.dtype or not out.flags.c_contiguous:
        raise ValueError(
            f"scatter_add: out must be contiguous, {rows.dtype}{shape}, got {out.dtype}{out.shape}"
        )
    ids = checked_ids(ids, vocabulary, "id", library)
    if out.size:
        arguments = _arguments(ids, out, rows)
        run(library.scatter_add, arguments, threads_for(2 * rows.size), ids, rows)
    count_call("scatter_add")
    return out


def checked_ids(ids: np.ndarray, limit: int, name: str, library: CoreLibrary) -> np.ndarray:
    """Return the ids as contiguous int64, after checking that all are in ``[0, limit)``."""
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name}s must be integers, got {ids.dtype}")
    flat = np.ascontiguousarray(ids, np.int64)
    wrong = library.first_outside(address(flat), flat.size, limit) if flat.size else -1
    if wrong >= 0:
        place = tuple(int(i) for i in np.unravel_index(wrong, ids.shape))
        raise IndexError(f"{name} {flat.flat[wrong]} at position {place} is not in [0, {limit})")
    return flat


def _arguments(ids: np.ndarray, table: np.ndarray, rows: np.ndarray) -> _Arguments:
    return _Arguments(
        ids.size, table.shape[1], table.shape[0], address(ids), address(table), address(rows)
    )

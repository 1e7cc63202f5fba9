"""Arrays from memory that is used again.

A training step makes the same large arrays every time. Fresh ones are given to the process page by
page at first touch, which can cost as much as the arithmetic. `empty` therefore keeps the memory it
hands out and hands it out again when nothing refers to it any more. It may be called from several
threads.
"""

from __future__ import annotations

import sys
import threading
from math import prod

import numpy as np

SMALLEST = 1 << 16  # bytes; below, the ordinary allocator does as well
MOST_UNUSED = 1 << 30  # bytes kept for nobody, looked at whenever new memory is needed
ALIGNMENT = 64  # a cache line, and the widest vector

_lock = threading.Lock()
_blocks: dict[
    int, list[tuple[np.ndarray, int]]
] = {}  # by size: memory, and where in it the first cache line begins


def empty(shape: tuple[int, ...], dtype) -> np.ndarray:
    """Like `numpy.empty`; a large array begins at a cache line."""
    dtype = np.dtype(dtype)
    size = prod(shape) * dtype.itemsize
    if size < SMALLEST:
        return np.empty(shape, dtype)
    step = 1 << (
        size.bit_length() - 4
    )  # so that a batch somewhat longer than the last fits as well
    size = (size + step - 1) // step * step
    with _lock:
        blocks = _blocks.setdefault(size, [])
        for memory, offset in blocks:  # noqa: B007 -- used after the loop
            # An array made from the memory refers to it, so this many references mean that there is
            # no such array.
            if sys.getrefcount(memory) == _UNUSED:
                break
        else:
            _make_room()
            memory = np.empty(size + ALIGNMENT, np.uint8)
            offset = -memory.ctypes.data % ALIGNMENT
            blocks.append((memory, offset))
        return np.ndarray(shape, dtype, memory, offset)


class _Scratch(threading.local):
    """Each thread's own."""

    size = at = 0
    array = None


_scratch = _Scratch()


def scratch(size: int) -> int:
    """The address of so many bytes, which hold until this thread asks again."""
    if size > _scratch.size:
        _scratch.array = np.empty(size + ALIGNMENT, np.uint8)
        _scratch.at = -(-_scratch.array.ctypes.data // ALIGNMENT) * ALIGNMENT
        _scratch.size = size
    return _scratch.at


def _make_room() -> None:
    unused = sum(
        size for size, blocks in _blocks.items() for b, _ in blocks if sys.getrefcount(b) == _UNUSED
    )
    if unused > MOST_UNUSED:
        _drop_unused()


def _drop_unused() -> None:
    for blocks in _blocks.values():
        used = []
        for memory, offset in blocks:
            if sys.getrefcount(memory) > _UNUSED:
                used.append((memory, offset))
        blocks[:] = used


def release() -> None:
    """Give back the memory that nothing refers to."""
    with _lock:
        _drop_unused()
    _scratch.array, _scratch.size = None, 0


def _count_references() -> int:
    """What `sys.getrefcount` says, in a loop over blocks, of memory that nothing else refers to."""
    for memory, _ in [(np.empty(1), 0)]:
        return sys.getrefcount(memory)
    raise AssertionError


_UNUSED = _count_references()

"""Arrays whose memory is used again.

A training step makes the same large arrays every time. The system provides new memory page by page
at first use, which can take as long as the arithmetic. `empty` therefore uses the memory of arrays
that are no longer referenced. It can be called from several threads.
"""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .recording import here, keep

DType: TypeAlias = str | type | np.dtype

SMALLEST = 1 << 16  # bytes; below, NumPy's own allocation is as fast
MAX_UNUSED = 1 << 30  # bytes kept although no array uses them
ALIGNMENT = 64  # bytes: a cache line, and the widest vector


class Block(NamedTuple):
    """Memory, its size in bytes, and the address of the first cache line in it."""

    memory: np.ndarray
    size: int
    address: int


class Pool:
    """Blocks that no array uses, by size.

    The pool refers to no other blocks, so that the time of a call does not depend on how many are
    in use.

    There is no lock: the garbage collector may return a block in the middle of any statement, also
    of one in this class, and a process may fork at any time. Blocks are only moved by `append` and
    `pop` of lists, which are atomic in Python. `unused_bytes` is counted anew in `shrink`,
    so that it does not matter if two threads change it at the same time.
    """

    def __init__(self, max_unused: int) -> None:
        self.max_unused = max_unused
        self.unused: OrderedDict[int, list[Block]] = OrderedDict()  # sizes last returned at the end
        self.unused_bytes = 0

    def take(self, size: int) -> Block | None:
        """Return an unused block of a number of bytes, or None."""
        try:
            block = self.unused[size].pop()
        except (KeyError, IndexError):
            return None
        self.unused_bytes -= size
        return block

    def put(self, block: Block) -> None:
        """Take back a block that no array uses any more, and free blocks beyond the limit."""
        size = block[1]
        blocks = self.unused.get(size)
        if blocks is None:
            blocks = self.unused.setdefault(size, [])
        blocks.append(block)
        self.unused.move_to_end(size)
        self.unused_bytes += size
        if self.unused_bytes > self.max_unused:
            self.shrink(self.max_unused)

    def shrink(self, most: int) -> None:
        """Free blocks, longest unused sizes first, until at most this number of bytes is left."""
        sizes = list(self.unused)
        unused = sum([size * len(self.unused[size]) for size in sizes])
        for size in sizes:
            while unused > most and self.unused[size]:
                with suppress(IndexError):  # another thread was faster
                    self.unused[size].pop()
                unused -= size
        self.unused_bytes = unused


_pool = Pool(MAX_UNUSED)


@cache
def _owner(size: int) -> Any:
    """Return the type of the base of an array from `empty`, and of its views.

    It is a buffer of a number of bytes of a block, and returns the block when all of them are gone.
    """

    class Owner(ctypes.c_char * size):  # type: ignore[misc]
        block: Block

        # `put` is bound here, because globals are deleted when Python ends.
        def __del__(self, put: Callable[[Block], None] = _pool.put) -> None:
            put(self.block)

    return Owner


@lru_cache(1024)
def _layout(shape: tuple[int, ...], dtype: DType) -> tuple[np.dtype, int, Any]:
    """Return an array's dtype, its block's size, and the type of its owner; 0 and None if small."""
    dtype = np.dtype(dtype)
    size = prod(shape) * dtype.itemsize
    if size < SMALLEST:
        return dtype, 0, None
    # Rounded up, so that a batch that is slightly longer than the last one fits as well.
    step = 1 << (size.bit_length() - 4)
    size = (size + step - 1) // step * step
    return dtype, size + ALIGNMENT, _owner(size)


def empty(shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """Return an array like `numpy.empty`; a large one begins at a cache line."""
    dtype, size, owner = _layout(shape, dtype)
    if owner is None:
        array = np.empty(shape, dtype)
        keep(array)
        return array
    block = _pool.take(size)
    if block is None:
        memory = np.empty(size, np.uint8)
        block = Block(memory, size, _aligned(memory))
    buffer = owner.from_address(block[2])
    buffer.block = block
    keep(buffer)
    return np.ndarray(shape, dtype, buffer)


class _Scratch(threading.local):
    """Memory of each thread for intermediate results."""

    size = address = 0
    memory: np.ndarray | None = None


_scratch = _Scratch()


def scratch(size: int) -> int:
    """Return the address of a buffer, which is valid until the next call in this thread.

    While calls are noted, each has a buffer of its own, which is kept with them.
    """
    if noted := here():
        memory = np.empty(size + ALIGNMENT, np.uint8)
        noted.kept.append(memory)
        return _aligned(memory)
    if size > _scratch.size:
        memory = _scratch.memory = np.empty(size + ALIGNMENT, np.uint8)
        _scratch.address = _aligned(memory)
        _scratch.size = size
    return _scratch.address


def _aligned(memory: np.ndarray) -> int:
    return -(-memory.ctypes.data // ALIGNMENT) * ALIGNMENT


def free_memory() -> None:
    """Return the memory that no array uses to the system.

    Compiled kernels keep up to 1 GiB of it, to use it again. The memory that a thread keeps for
    intermediate results is freed in the thread that calls this; in other threads it is freed when
    they end.

    Examples
    --------
    >>> from seqnet import native
    >>> native.free_memory()
    """
    _pool.shrink(0)
    _scratch.memory, _scratch.size = None, 0

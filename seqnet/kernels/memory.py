"""Arrays whose memory is used again.

A training step makes the same large arrays every time. The system provides new memory page by page
at first use, which can take as long as the arithmetic. `empty` therefore uses the memory of arrays
that are no longer referenced. It can be called from several threads.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from math import prod
from typing import NamedTuple

import numpy as np

SMALLEST = 1 << 16  # bytes; below, NumPy's own allocation is as fast
MAX_UNUSED = 1 << 30  # bytes kept although no array uses them
ALIGNMENT = 64  # bytes: a cache line, and the widest vector


class Block(NamedTuple):
    """Memory, and the address of the first cache line in it."""

    memory: np.ndarray
    address: int


class Pool:
    """Blocks that no array uses, by size.

    The pool refers to no other blocks, so that the time of a call does not depend on how many are
    in use.

    The garbage collector may return a block in the middle of any other statement, also of one in
    this class. `put` therefore never waits for the lock: it appends the block to `returned`, and
    whoever holds the lock sorts it in after releasing the lock.
    """

    def __init__(self, max_unused: int) -> None:
        self.max_unused = max_unused
        self.lock = threading.Lock()
        self.unused: OrderedDict[int, list[Block]] = OrderedDict()  # sizes last returned at the end
        self.unused_bytes = 0
        self.returned: deque[Block] = deque()

    def take(self, size: int) -> Block | None:
        """Return an unused block of so many bytes, or None if there is none."""
        block = None
        if self.lock.acquire(blocking=False):  # if it is held, new memory serves as well
            try:
                blocks = self.unused.get(size)
                if blocks:
                    block = blocks.pop()
                    self.unused_bytes -= size
            finally:
                self.lock.release()
        if self.returned:
            self.sort_in()
        return block

    def put(self, block: Block) -> None:
        """Take back a block that no array uses any more."""
        self.returned.append(block)
        self.sort_in()

    def sort_in(self) -> None:
        """Make returned blocks available, and free blocks beyond the limit."""
        while self.returned and self.lock.acquire(blocking=False):
            try:
                while self.returned:
                    block = self.returned.popleft()
                    size = block.memory.nbytes
                    self.unused.setdefault(size, []).append(block)
                    self.unused.move_to_end(size)
                    self.unused_bytes += size
                    if self.unused_bytes > self.max_unused:
                        self.shrink(self.max_unused)
            finally:
                self.lock.release()

    def shrink(self, most: int) -> None:
        """Free blocks, longest unused sizes first, until at most so many bytes are left.

        The caller holds the lock.
        """
        while self.unused_bytes > most:
            size, blocks = next(iter(self.unused.items()))
            if blocks:
                blocks.pop()
                self.unused_bytes -= size
            if not blocks:
                del self.unused[size]

    def clear(self) -> None:
        """Free all unused blocks."""
        self.sort_in()
        if self.lock.acquire(
            timeout=1
        ):  # a finalizer may call this while its thread holds the lock
            try:
                self.shrink(0)
            finally:
                self.lock.release()
        self.sort_in()

    def after_fork(self) -> None:
        """Repair the pool in a forked child: another thread may have held the lock."""
        self.lock = threading.Lock()
        self.unused_bytes = sum(size * len(blocks) for size, blocks in self.unused.items())


_pool = Pool(MAX_UNUSED)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.after_fork)


class Owner:
    """The base of an array from `empty`, and of its views: returns the block when all are gone."""

    __slots__ = ("__array_interface__", "block")

    def __init__(self, block: Block, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.block = block
        self.__array_interface__ = {
            "data": (block.address, False),
            "shape": shape,
            "typestr": dtype.str,
            "version": 3,
        }

    def __del__(self, put=_pool.put) -> None:  # bound here: globals are gone when Python ends
        put(self.block)


def empty(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
    """Return an array like `numpy.empty`; a large one begins at a cache line."""
    dtype = np.dtype(dtype)
    size = prod(shape) * dtype.itemsize
    if size < SMALLEST:
        return np.empty(shape, dtype)
    # Rounded up, so that a batch that is slightly longer than the last one fits as well.
    step = 1 << (size.bit_length() - 4)
    size = (size + step - 1) // step * step + ALIGNMENT
    block = _pool.take(size)
    if block is None:
        memory = np.empty(size, np.uint8)
        block = Block(memory, _aligned(memory))
    return np.asarray(Owner(block, shape, dtype))


class _Scratch(threading.local):
    """Memory of each thread for intermediate results."""

    size = address = 0
    memory = None


_scratch = _Scratch()


def scratch(size: int) -> int:
    """Return the address of so many bytes, which are valid until this thread asks again."""
    if size > _scratch.size:
        _scratch.memory = np.empty(size + ALIGNMENT, np.uint8)
        _scratch.address = _aligned(_scratch.memory)
        _scratch.size = size
    return _scratch.address


def _aligned(memory: np.ndarray) -> int:
    return -(-memory.ctypes.data // ALIGNMENT) * ALIGNMENT


def free_memory() -> None:
    """Return the memory that no array uses to the system.

    Kernels keep up to 1 GiB of it, to use it again. The memory that a thread keeps for intermediate
    results is freed in the thread that calls this; in other threads it is freed when they end.

    Examples
    --------
    >>> from seqnet import kernels
    >>> kernels.free_memory()
    """
    _pool.clear()
    _scratch.memory, _scratch.size = None, 0

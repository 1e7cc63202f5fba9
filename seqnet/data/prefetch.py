"""Prefetching: a thread reads batches before they are needed."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Generator

log = logging.getLogger("seqnet")

CLOSE_TIMEOUT_S = 10.0
"""How long to wait for a source that is still producing an item when reading ends."""

FAST_BATCH_S = 0.0005
"""If batches are read in less time on average, no thread is used."""

AVERAGED_BATCHES = 16
"""The number of batches in the average, so that a single slow batch has no effect."""


def prefetch(items: Generator, size: int) -> Generator:
    """Yield the items of a generator in order, read up to `size` items ahead by a thread.

    Parameters
    ----------
    items : generator
        It runs in the thread and is closed there when it ends, fails or is no longer needed.
    size : int
        The maximum number of items that are read ahead; 0 means no thread: `items` itself.

    Returns
    -------
    generator
        An error in `items` is raised here, with its traceback, after the items before it. Closing
        this generator ends the thread. If the source blocks, it waits `CLOSE_TIMEOUT_S` seconds;
        then a warning is logged, and the thread ends when the source returns.

    Examples
    --------
    >>> from seqnet.data.prefetch import prefetch
    >>> list(prefetch((k * k for k in range(4)), size=2))
    [0, 1, 4, 9]
    """
    return _prefetch(items, size) if size else items


def prefetch_if_slow(items: Generator, size: int) -> Generator:
    """Yield the items of a generator; a thread reads ahead once the items are slow.

    A thread that copies rows from memory takes a processor from the kernels for longer than copying
    without a thread. Rows are therefore read without a thread until the last `AVERAGED_BATCHES`
    batches took longer than `FAST_BATCH_S` on average.

    Parameters
    ----------
    items : generator
    size : int
        As for `prefetch`.
    """
    took: deque[float] = deque(maxlen=AVERAGED_BATCHES)
    with contextlib.ExitStack() as stack:
        stack.callback(items.close)
        while not size or sum(took) < AVERAGED_BATCHES * FAST_BATCH_S:
            began = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            took.append(time.perf_counter() - began)
            yield item
            item = None  # not kept alive while the next one is read
        stack.pop_all()  # the thread closes the generator
    yield from _prefetch(items, size)


def _prefetch(items: Generator, size: int) -> Generator:
    room, stopped = threading.Semaphore(size), threading.Event()
    found: queue.SimpleQueue = queue.SimpleQueue()

    def read():
        try:
            with contextlib.closing(items):
                while room.acquire() and not stopped.is_set():
                    found.put((next(items), None))
        except BaseException as error:  # including StopIteration at the end
            found.put((None, error))

    thread = threading.Thread(target=read, name="seqnet-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = found.get()
            if error is not None:
                break
            room.release()
            yield item
            item = None  # not kept alive while waiting for the next one
        if not isinstance(error, StopIteration):
            raise error
    finally:
        error = None  # it holds this frame in its traceback
        stopped.set()
        room.release()
        thread.join(CLOSE_TIMEOUT_S)
        if thread.is_alive():
            log.warning(
                "The data source has not returned for %g s; its thread ends when it returns.",
                CLOSE_TIMEOUT_S,
            )

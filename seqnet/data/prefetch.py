"""Prefetching: a thread reads batches before they are needed, and ends with the training."""

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
"""How long to wait for a source that is in the middle of an item when the reading ends."""

FAST_BATCH_S = 0.0005
"""Batches that are read in less time, on average, need no thread."""

AVERAGED_BATCHES = 16
"""The average is taken of so many batches, so that a single slow one changes nothing."""


def prefetch(items: Generator, size: int) -> Generator:
    """Yield what a generator yields, in its order, read by a thread up to `size` items ahead.

    Parameters
    ----------
    items : generator
        It runs in the thread and is closed there, when it ended, failed or is not wanted any more.
    size : int
        The most items that are read and not yet taken; 0 is no thread: `items` itself.

    Returns
    -------
    generator
        What `items` raises is raised here, with its traceback, after all that came before it. To
        close this generator ends the thread. A source that blocks is waited for `CLOSE_TIMEOUT_S`
        seconds; then a warning is logged, and the thread ends when the source returns.

    Examples
    --------
    >>> from seqnet.data.prefetch import prefetch
    >>> list(prefetch((k * k for k in range(4)), size=2))
    [0, 1, 4, 9]
    """
    return _prefetch(items, size) if size else items


def prefetch_if_slow(items: Generator, size: int) -> Generator:
    """Yield what a generator yields, read ahead as soon as its items are slow to come.

    A thread that copies rows from memory takes a processor from the kernels for longer than the
    copying alone would. So rows are read in place until the last `AVERAGED_BATCHES` batches took
    longer than `FAST_BATCH_S` on average.

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
            item = None  # not kept alive while the next is read
        stack.pop_all()  # the thread closes it
    yield from _prefetch(items, size)


def _prefetch(items: Generator, size: int) -> Generator:
    room, stopped = threading.Semaphore(size), threading.Event()
    found: queue.SimpleQueue = queue.SimpleQueue()

    def read():
        try:
            with contextlib.closing(items):
                while room.acquire() and not stopped.is_set():
                    found.put((next(items), None))
        except BaseException as error:  # StopIteration too: it says that this was all
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
            item = None  # not kept alive while the next is waited for
        if not isinstance(error, StopIteration):
            raise error
    finally:
        error = None  # it holds this frame in its traceback
        stopped.set()
        room.release()
        thread.join(CLOSE_TIMEOUT_S)
        if thread.is_alive():
            log.warning(
                "The source of the data has not returned for %g s; its thread ends when it does.",
                CLOSE_TIMEOUT_S,
            )

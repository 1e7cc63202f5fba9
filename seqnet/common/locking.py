"""Locks that are safe to use with forks, and the check that one `fit` at a time trains a model."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, WeakSet

if TYPE_CHECKING:
    from seqnet.model import Model


_locks: WeakSet[ForkSafeLock] = WeakSet()
_registering = threading.Lock()
_forking = threading.RLock()
_held: list[ForkSafeLock] = []


class ForkSafeLock(type(threading.RLock())):  # type: ignore[misc]
    """A reentrant lock that no other thread holds while the process is forked.

    The protected data is therefore complete in the child, and the child can acquire the lock. A
    copy of an object that has such a lock gets a new lock.
    """

    def __init__(self) -> None:
        with _registering:
            _locks.add(self)

    def __reduce__(self) -> tuple[type, tuple]:
        return type(self), ()


def before_fork() -> None:
    """Acquire all locks, and wait until no other thread holds one."""
    _forking.acquire()
    with _registering:
        _held.extend(_locks)
    for lock in _held:
        lock.acquire()


def after_fork() -> None:
    """Release all locks."""
    while _held:
        _held.pop().release()
    _forking.release()


def after_fork_in_child() -> None:
    """Release all locks; another thread may have been creating one during the fork."""
    global _registering
    _registering = threading.Lock()
    after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=before_fork, after_in_parent=after_fork, after_in_child=after_fork_in_child
    )

COMPILING = ForkSafeLock()
"""Held while a graph is built and compiled, because PyTensor supports only one thread for this."""


@contextmanager
def compiling() -> Iterator[None]:
    """Hold `COMPILING`, and let Python search for unused objects less often meanwhile.

    A graph is many small objects that stay in use. With Python's default thresholds the search
    takes a fifth of the time in which a graph is built and compiled.
    """
    with COMPILING:
        thresholds = gc.get_threshold()
        if thresholds[0] > 0:  # 0: the user has switched collection off
            gc.set_threshold(100_000, 20, 1_000)
        try:
            yield
        finally:
            gc.set_threshold(*thresholds)


_in_training: WeakKeyDictionary = WeakKeyDictionary()
"""The id of the process that trains each model."""


@contextmanager
def alone(model: Model) -> Iterator[None]:
    """Allow one call of `fit` at a time to train a model; a second raises ``RuntimeError``."""
    with model.lock:
        if _in_training.get(model) == os.getpid():  # a forked process inherits entries
            raise RuntimeError(
                f"Another call of fit is training the model {model.name!r}. Wait until it ends, or "
                "use train_on_batch, which any thread and any callback may call."
            )
        _in_training[model] = os.getpid()
    try:
        yield
    finally:
        _in_training.pop(model, None)

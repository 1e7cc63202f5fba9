"""Calls of compiled kernels, noted while they are made, so that they can be made again.

A kernel is called with one structure of addresses and sizes. As long as what these refer to is kept
and no address changes, the same call computes the same function of the new contents of the arrays.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import Structure, byref
from typing import Any


class Recording:
    """The calls that a thread makes.

    Attributes
    ----------
    calls
        Each function with the structure of its arguments and its number of threads.
    kept
        What these arguments refer to.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.calls: list[tuple[Any, Structure, int]] = []
        self.kept: list[Any] = []


_current: Recording | None = None
_one = threading.Lock()


def _renew_lock() -> None:
    """Create a new lock in a forked child: another thread of the parent may have held it."""
    global _one, _current
    _one, _current = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def recording() -> Iterator[Recording]:
    """Note the calls that this thread makes."""
    global _current
    with _one:
        _current = found = Recording()
        try:
            yield found
        finally:
            _current = None


def here() -> Recording | None:
    """Return the recording of this thread, if there is one."""
    found = _current  # read once: another thread may change it
    return found if found is not None and found.thread == threading.get_ident() else None


def run(function: Any, arguments: Structure, threads: int, *kept: Any) -> None:
    """Call a compiled kernel, whose arguments refer to what is in `kept`."""
    function(byref(arguments), threads)
    if _current is not None and (found := here()):
        found.calls.append((function, arguments, threads))
        found.kept.append(kept)


def keep(*objects: Any) -> None:
    """Keep what the arguments of calls refer to, if this thread notes them."""
    if _current is not None and (found := here()):
        found.kept.append(objects)

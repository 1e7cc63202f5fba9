"""Ctrl-C and SIGTERM while a model is trained: noted at once, heeded between two batches."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import Any

TERMINATED = 128 + signal.SIGTERM
"""The exit status of a process that SIGTERM ended (143)."""


class Interrupted(BaseException):
    """Training ends here, because it was asked to from outside."""


class Interruption:
    """Notes the first signal that asks to stop; a second one stops at once.

    Handlers are installed inside the block of a ``with`` statement, in the main thread, and where
    Python's own would be run: a handler of the user's stays.

    Attributes
    ----------
    caught : int, optional
        The number of the signal.
    """

    def __init__(self):
        self.caught: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        if threading.current_thread() is threading.main_thread():
            for number, handler in usual.items():
                if signal.getsignal(number) is handler:
                    self.before[number] = signal.signal(number, self.note)
        return self

    def note(self, number, frame) -> None:
        """Handle a signal."""
        if self.caught is not None:
            raise self.error("Interrupted a second time, in the middle of a batch.")
        self.caught = number
        if number == signal.SIGINT:  # not print, which may be what was interrupted
            with suppress(OSError):
                os.write(2, b"\nThis batch is finished first; Ctrl-C again stops at once.\n")

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self.caught is not None:
            raise Interrupted

    def error(self, message: str) -> BaseException:
        """Return what Python raises for the signal, or ends with."""
        if self.caught == signal.SIGTERM:
            return SystemExit(TERMINATED)
        return KeyboardInterrupt(message)

    def __exit__(self, kind, error, traceback) -> None:
        for number, handler in self.before.items():
            if signal.getsignal(number) == self.note:
                signal.signal(number, handler)
        if kind is None and self.caught is not None:
            raise self.error("Interrupted after the last batch.")

"""Ctrl-C and SIGTERM during training: they take effect between two batches."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import Any

TERMINATED = 128 + signal.SIGTERM
"""The exit status of a process that SIGTERM ended (143)."""


class Interrupted(BaseException):
    """A signal asked the training to end."""


class StopSignals:
    """Records the first signal that asks to stop; a second one stops at once.

    Handlers are installed inside the block of a ``with`` statement, in the main thread, and where
    Python's own would be run: a handler of the user's stays.

    Attributes
    ----------
    received : int, optional
        The number of the signal.
    """

    def __init__(self):
        self.received: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        if threading.current_thread() is threading.main_thread():
            for number, handler in usual.items():
                if signal.getsignal(number) is handler:
                    self.previous[number] = signal.signal(number, self.handle)
        return self

    def handle(self, number, frame) -> None:
        """Handle a signal."""
        if self.received is not None:
            raise self.error("Interrupted a second time, in the middle of a batch.")
        self.received = number
        if number == signal.SIGINT:  # not print, which may be what was interrupted
            with suppress(OSError):
                os.write(2, b"\nThis batch is finished first; Ctrl-C again stops at once.\n")

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self.received is not None:
            raise Interrupted

    def error(self, message: str) -> BaseException:
        """Return what Python raises for the signal, or ends with."""
        if self.received == signal.SIGTERM:
            return SystemExit(TERMINATED)
        return KeyboardInterrupt(message)

    def __exit__(self, kind, error, traceback) -> None:
        for number, handler in self.previous.items():
            if signal.getsignal(number) == self.handle:
                signal.signal(number, handler)
        if kind is None and self.received is not None:
            raise self.error("Interrupted after the last batch.")

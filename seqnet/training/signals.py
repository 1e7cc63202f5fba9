"""Ctrl-C and SIGTERM during training: they take effect between two batches."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

TERMINATED = 128 + signal.SIGTERM
"""The exit status of a process that SIGTERM ended (143)."""


class Interrupted(BaseException):
    """A signal asked the training to end."""


class StopSignals:
    """Records signals that ask to stop; only a second Ctrl-C stops at once.

    Systems send SIGTERM several times to one process, and end one that takes too long by SIGKILL:
    another SIGTERM changes nothing.

    Handlers are installed inside the block of a ``with`` statement, in the main thread, and where
    Python's own would be run: a handler of the user's stays.

    Attributes
    ----------
    received : int, optional
        The number of the first signal.
    ctrl_c : bool
        Whether Ctrl-C was one of them.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.ctrl_c = False
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        if threading.current_thread() is threading.main_thread():
            for number, handler in usual.items():
                if signal.getsignal(number) is handler:
                    self.previous[number] = signal.signal(number, self.handle)
        return self

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.received = self.received or number
        if number == signal.SIGINT:
            if self.ctrl_c:
                raise KeyboardInterrupt("Interrupted a second time, in the middle of a batch.")
            self.ctrl_c = True
            with suppress(OSError):  # not print, which may be what was interrupted
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self.previous.items():
            if signal.getsignal(number) == self.handle:
                signal.signal(number, handler)
        if kind is None and self.received is not None:
            raise self.error("Interrupted after the last batch.")

"""Handling of Ctrl-C and SIGTERM during training, between two batches."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

TERMINATED = 128 + signal.SIGTERM
"""The exit status of a process that was ended by SIGTERM (143)."""


class Interrupted(BaseException):
    """A signal asked the training to end."""


class StopSignals:
    """Record signals that ask to stop; only a second Ctrl-C stops immediately.

    Systems may send SIGTERM several times to a process, and end a process that takes too long with
    SIGKILL. Further SIGTERM signals therefore have no effect.

    Handlers are installed in the block of a ``with`` statement, in the main thread, and only in
    place of Python's default handlers; handlers of the user are kept.

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
            with suppress(OSError):  # print itself may have been interrupted
                os.write(2, b"\nThe current batch is finished first; Ctrl-C again stops at once.\n")

    def check(self) -> None:
        """Raise `Interrupted` if a signal was received."""
        if self.received is not None:
            raise Interrupted

    def error(self, message: str) -> BaseException:
        """Return the exception for the signal."""
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

"""Progress bars and progress lines."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from tqdm.std import tqdm
from tqdm.utils import disp_len

from seqnet.callbacks.base import Callback, say

LOG_INTERVAL = 60.0  # seconds between lines if the bar cannot be redrawn
NOTEBOOK_WIDTH = 100  # characters in a line of a notebook's output


def format_logs(logs: Mapping | None, digits: int = 4) -> dict[str, str]:
    """Format logs with four significant digits.

    Examples
    --------
    >>> from seqnet.callbacks.progress import format_logs
    >>> format_logs({"loss": 0.123456})
    {'loss': '0.1235'}
    """
    return {name: f"{value:.{digits}g}" for name, value in (logs or {}).items()}


def format_time(seconds: float) -> str:
    """Format a time in the unit that suits it.

    Examples
    --------
    >>> from seqnet.callbacks.progress import format_time
    >>> format_time(0.00025), format_time(0.0123), format_time(75.2)
    ('250us', '12ms', '75s')
    """
    if seconds >= 1:
        return f"{seconds:.0f}s"
    return f"{seconds * 1e3:.0f}ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us"


def is_screen(file: TextIO) -> bool:
    """Return whether a line of a file can be redrawn: it is a terminal that has a size."""
    if not file.isatty():
        return False
    try:
        return 0 not in os.get_terminal_size(file.fileno())
    except (OSError, AttributeError):  # another object whose isatty returns True
        return True


def in_notebook() -> bool:
    """Return whether the program runs in a kernel of Jupyter."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


class Bar(tqdm):
    """A bar that leaves out details where its logs need the space.

    The logs are formatted only when the bar is drawn.
    """

    LAYOUTS = (  # from the widest to the narrowest, with the digits and the separator of the logs
        ("{count} |{bar}| [{elapsed}<{remaining}, {rate_fmt}{postfix}]", 4, ", "),
        ("{count} |{bar}| [{elapsed}<{remaining}{postfix}]", 4, ", "),
        ("{count} [{elapsed}{postfix}]", 4, ", "),
        ("{count} [{elapsed}{postfix}]", 3, " "),
    )
    RUNNING = ("{count}{postfix}", 3, " ")
    DONE = ("{elapsed}{postfix}", 3, " ")  # the count says nothing new then

    logs: Mapping = {}
    done = False
    level = 0  # the layout of the last drawing: it does not change back and forth

    @property
    def format_dict(self) -> dict[str, Any]:
        values = super().format_dict
        width = values["ncols"]
        layouts = [*self.LAYOUTS, self.DONE if self.done else self.RUNNING]
        for level in range(self.level, len(layouts)):
            self.level = level
            chosen = self.arranged(values, *layouts[level])
            if not width or self.width_of(chosen) <= width:
                return chosen
        if self.done:
            return self.broken(self.arranged(values, *self.LAYOUTS[2]), width)
        return self.shortened(chosen, width)

    def arranged(self, values: Mapping, layout: str, digits: int, separator: str) -> dict[str, Any]:
        """Return the values of a drawing in a layout."""
        logs = format_logs(self.logs, digits).items()
        if values["total"]:
            layout = layout.replace("{count}", "{n_fmt}/{total_fmt}")
        else:
            layout = layout.replace("{count}", "{n_fmt}{unit}")
            layout = layout.replace(" |{bar}|", "").replace("<{remaining}", "")
        return {
            **values,
            "bar_format": "{desc}: " + layout,
            "postfix": separator.join(f"{name}={text}" for name, text in logs),
        }

    def text_of(self, values: Mapping) -> str:
        """Return a drawing of any width whose bar has ten cells."""
        return self.format_meter(**{**values, "ncols": None})

    def width_of(self, values: Mapping) -> int:
        """Return the width of such a drawing in a terminal's columns."""
        return disp_len(self.text_of(values))

    def shortened(self, values: dict[str, Any], width: int) -> dict[str, Any]:
        """Leave out the last logs; none is cut."""
        logs = values["postfix"].split()
        while len(logs) > 1 and self.width_of(values) > width:
            logs.pop()
            values["postfix"] = " ".join([*logs, "..."])
        return values

    def broken(self, values: dict[str, Any], width: int) -> dict[str, Any]:
        """Continue on further lines; these are not redrawn."""
        text = self.text_of(values)
        first, *rest = textwrap.wrap(
            text, max(width, 20), subsequent_indent="    ", break_on_hyphens=False
        )
        text = "\n".join([first.ljust(width), *rest]).replace("{", "{{").replace("}", "}}")
        return {**values, "bar_format": text, "ncols": None}


class Cell:
    """The output of a notebook's cell that each drawing of a bar replaces.

    It needs no widgets, and the notebook stores the last drawing.
    """

    encoding = "utf-8"

    def __init__(self) -> None:
        self.display = importlib.import_module("IPython.display").display
        self.handle: Any = None

    def write(self, text: str) -> None:
        text = text.strip()
        if text:
            data = {"text/plain": text}
            if self.handle is None:
                self.handle = self.display(data, raw=True, display_id=True)
            else:
                self.handle.update(data, raw=True)

    def flush(self) -> None:
        """Do nothing: each text is displayed immediately."""


class Lines:
    """A file in which each drawing of a bar is a separate line."""

    def __init__(self, file: TextIO):
        self.file = file
        self.encoding = getattr(file, "encoding", None)

    def write(self, text: str) -> None:
        text = text.replace("\r", "").strip()
        if text:
            self.file.write(f"{text}\n")

    def flush(self) -> None:
        self.file.flush()


class ProgressBar(Callback):
    r"""A tqdm bar for each epoch, evaluation and prediction, with the logs so far.

    In a terminal or a notebook the bar is redrawn. Where the line is too short for all logs, the
    rate, the bar and digits are left out in turn. Elsewhere, such as in a log file, one line is
    written at the end of each epoch, and one per minute during long epochs. The validation in `fit`
    has no separate bar.

    Parameters
    ----------
    unit : str
        The unit of the count; ``"batch"`` by default.
    per_batch : float
        The number of units per batch: a batch of 32 texts of 50 characters has 1,600 characters.
    file : file, optional
        Where to write; standard error by default.

    Examples
    --------
    >>> import io, numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.Dense(1)])
    >>> bar = seqnet.callbacks.ProgressBar("row", per_batch=2, file=io.StringIO())
    >>> X, y = np.ones((4, 2)), np.ones((4, 1))
    >>> history = model.fit(X, y, batch_size=2, verbose=0, callbacks=[bar])
    >>> bar.file.getvalue()
    'Epoch 1/1: 4/4 |##########| [...row/s, loss=...]\n'
    """

    adds = ()
    first_rank_only = True

    def __init__(self, unit: str = "batch", per_batch: float = 1, file: TextIO | None = None):
        self.unit, self.per_batch, self.file = unit, per_batch, file
        self.bar: Any = None  # a Bar, once an epoch has begun
        self.lines: Lines | None = None
        self.batches_before: int | None = None

    def get_config(self) -> dict[str, Any]:
        return {}  # the output does not affect the training

    def _begin(self, title: str, total: int | None) -> None:
        """Draw a new bar."""
        self.close()
        file = self.file or sys.stderr
        self.lines = None
        options: dict[str, Any]
        if self.file is None and in_notebook():
            options = {"file": Cell(), "ncols": NOTEBOOK_WIDTH}
        elif is_screen(file):
            options = {"file": file, "dynamic_ncols": True}
        else:
            self.lines = Lines(file)
            options = {
                "file": self.lines,
                "mininterval": LOG_INTERVAL,
                "delay": LOG_INTERVAL,
                "miniters": 1,
                "leave": False,
            }
        self.bar = Bar(
            total=total,
            desc=title,
            unit=self.unit,
            unit_scale=self.per_batch if self.per_batch != 1 else False,
            **options,
        )

    def _advance(self, batch: int, logs: Mapping | None) -> None:
        """Count a batch."""
        if batch != self.bar.n:  # a run may be resumed in the middle of an epoch
            self.bar.initial = self.bar.n = self.bar.last_print_n = batch
        self.bar.logs = logs
        self.bar.update()

    def _end(self, logs: Mapping | None) -> None:
        """Draw the bar with the final logs."""
        self.bar.logs, self.bar.done = logs, True
        self.batches_before = self.bar.n
        if self.lines is not None:
            self.lines.write(str(self.bar))
            self.lines.flush()
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.batches_before = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        title = f"Epoch {epoch + 1}/{self.params['epochs']}"
        self._begin(title, self.params.get("steps") or self.batches_before)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._advance(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._end(logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.trainer is None:
            self._begin("Evaluate", self.params.get("steps"))

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.trainer is None:
            self._advance(batch, logs)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.trainer is None:
            self._end(logs)

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._begin("Predict", self.params.get("steps"))

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._advance(batch, None)

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        self._end(None)


class EpochLine(Callback):
    """Print one line per epoch, evaluation and prediction (``verbose=2``).

    A line has the time of the epoch with its validation, the time of one training step, and the
    logs.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.callbacks import EpochLine
    >>> model = seqnet.Model([seqnet.layers.Dense(1)])
    >>> X, y = np.ones((4, 2)), np.ones((4, 1))
    >>> history = model.fit(X, y, epochs=1, verbose=0, callbacks=[EpochLine()])
    Epoch 1/1 - 0s - .../step - loss: ...
    """

    adds = ()
    first_rank_only = True

    def __init__(self) -> None:
        self.began, self.steps = 0.0, 0
        self.ended: float | None = None

    def _begin(self) -> None:
        """Start the clock."""
        self.began, self.ended, self.steps = time.perf_counter(), None, 0

    def _print_line(self, title: str, logs: Mapping | None) -> None:
        """Print times and logs."""
        now = time.perf_counter()
        of_steps = (self.ended or now) - self.began
        parts = [title, f"{now - self.began:.0f}s"]
        if self.steps:
            parts.append(f"{format_time(of_steps / self.steps)}/step")
        parts += [f"{name}: {text}" for name, text in format_logs(logs).items()]
        say(" - ".join(parts))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._begin()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.steps += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._print_line(f"Epoch {epoch + 1}/{self.params['epochs']}", logs)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.trainer is None:
            self._begin()
        else:  # the training steps of the epoch end here
            self.ended = time.perf_counter()

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.steps += self.trainer is None

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.trainer is None:
            self._print_line("Evaluate", logs)

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._begin()

    def on_predict_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.steps += 1

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        self._print_line("Predict", None)


def reports(verbose: int, callbacks: Sequence[Callback]) -> list[Callback]:
    """Return the callbacks that `verbose` asks for; a `ProgressBar` of the user replaces one."""
    if verbose == 1 and not any(isinstance(c, ProgressBar) for c in callbacks):
        return [ProgressBar()]
    return [EpochLine()] if verbose == 2 else []

"""Progress bars and progress lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from tqdm.auto import tqdm
from tqdm.notebook import tqdm_notebook

from seqnet.callbacks.base import Callback

LOG_INTERVAL = 60.0  # seconds between lines if the bar cannot be redrawn


def format_logs(logs: Mapping | None) -> dict[str, str]:
    """Format logs with four significant digits.

    Examples
    --------
    >>> from seqnet.callbacks.progress import format_logs
    >>> format_logs({"loss": 0.123456})
    {'loss': '0.1235'}
    """
    return {name: f"{value:.4g}" for name, value in (logs or {}).items()}


def is_screen(file: TextIO) -> bool:
    """Return whether a line of a file can be redrawn: it is a terminal that has a size."""
    if not file.isatty():
        return False
    try:
        return 0 not in os.get_terminal_size(file.fileno())
    except (OSError, AttributeError):  # another object whose isatty returns True
        return True


class Bar(tqdm):
    """A bar that formats its logs only when it is drawn."""

    logs: Mapping = {}

    @property
    def format_dict(self) -> dict[str, Any]:
        values = ", ".join(f"{name}={text}" for name, text in format_logs(self.logs).items())
        return super().format_dict | {"postfix": values}

    def show_all_logs(self) -> None:
        """Omit the bar and the rate if the logs would be cut off otherwise."""
        values = self.format_dict
        width = values["ncols"]
        if width and len(self.format_meter(**values | {"ncols": None})) > width:
            self.bar_format = "{desc}: {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
            self.dynamic_ncols, self.ncols = False, None


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
    r"""A tqdm bar for each epoch, with the logs so far.

    In a terminal or a notebook the bar is redrawn. Elsewhere, such as in a log file, one line is
    written at the end of each epoch, and one per minute during long epochs.

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
    'Epoch 1/1: 100%|##########| 4/4 [...row/s, loss=...]\n'
    """

    adds = ()

    def __init__(self, unit: str = "batch", per_batch: float = 1, file: TextIO | None = None):
        self.unit, self.per_batch, self.file = unit, per_batch, file
        self.bar: Any = None  # a Bar, once an epoch has begun
        self.lines: Lines | None = None
        self.batches_before: int | None = None

    def get_config(self) -> dict[str, Any]:
        return {}  # the output does not affect the training

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.batches_before = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        file = self.file or sys.stderr
        drawn = issubclass(tqdm, tqdm_notebook) or is_screen(file)
        self.lines = None if drawn else Lines(file)
        kind: dict[str, Any] = (
            {"file": file, "dynamic_ncols": True}
            if drawn
            else {
                "file": self.lines,
                "mininterval": LOG_INTERVAL,
                "delay": LOG_INTERVAL,
                "miniters": 1,
                "leave": False,
            }
        )
        self.bar = Bar(
            total=self.params.get("steps") or self.batches_before,
            desc=f"Epoch {epoch + 1}/{self.params['epochs']}",
            unit=self.unit,
            unit_scale=self.per_batch if self.per_batch != 1 else False,
            **kind,
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch != self.bar.n:  # a run may be resumed in the middle of an epoch
            self.bar.initial = self.bar.n = self.bar.last_print_n = batch
        self.bar.logs = logs
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.bar.logs = logs
        self.batches_before = self.bar.n
        if self.lines is not None:
            self.lines.write(str(self.bar))
            self.lines.flush()
        else:
            self.bar.show_all_logs()
        self.bar.close()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.bar is not None:
            self.bar.close()


class EpochLine(Callback):
    """Print one line per epoch (``verbose=2``).

    Examples
    --------
    >>> from seqnet.callbacks import EpochLine
    >>> line = EpochLine()
    >>> line.set_params({"epochs": 3})
    >>> line.on_epoch_end(0, {"loss": 0.25, "accuracy": 0.5})
    Epoch 1/3  loss 0.25  accuracy 0.5
    """

    adds = ()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        values = "  ".join(f"{name} {text}" for name, text in format_logs(logs).items())
        print(f"Epoch {epoch + 1}/{self.params['epochs']}  {values}", flush=True)

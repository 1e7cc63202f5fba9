"""Logs in a CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from seqnet.callbacks.base import Callback
from seqnet.saving.atomic import check_place

MISSING = "NA"


class CSVLogger(Callback):
    """Write the logs of each epoch as a row of a CSV file.

    Each row is written when its epoch ends, so it is not lost if the training fails. A resumed run
    removes the rows of epochs that it repeats.

    Parameters
    ----------
    filename : path
        The path of the file, in a folder that exists.
    separator : str
        A single character.
    append : bool
        Append rows to an existing file, which must have the same columns.

    Raises
    ------
    ValueError, FileNotFoundError
        If the folder does not exist, or the file to append to has other columns.

    Examples
    --------
    >>> import os, tempfile
    >>> from seqnet.callbacks import CSVLogger
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = CSVLogger(os.path.join(folder, "log.csv"))
    ...     log.on_epoch_end(0, {"loss": 0.5, "accuracy": 0.25})
    ...     print(log.filename.read_text(), end="")
    epoch,accuracy,loss
    0,0.25,0.5
    """

    adds = ()
    first_rank_only = True

    def __init__(self, filename: str | os.PathLike, separator: str = ",", append: bool = False):
        if not isinstance(separator, str) or len(separator) != 1:
            raise ValueError(f"separator is one character, got {separator!r}.")
        self.filename, self.separator, self.append = Path(filename), separator, append
        self.columns: list[str] | None = None

    def check(self, log_names: Sequence[str] | None) -> None:
        check_place(self.filename)
        if self.append and log_names is not None:
            self.columns_for(log_names)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.columns = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        if self.columns is None:
            self.columns = self.columns_for([*logs, *(self.params.get("metrics") or ())])
            if not (self.append and self.first_row()):
                self.write("w", self.columns)
        row = {"epoch": epoch, **logs}
        self.write("a", [plain(row.get(name, MISSING)) for name in self.columns])

    def columns_for(self, names: Iterable[str]) -> list[str]:
        """Return the columns of the table, in the order of an existing file if there is one."""
        columns = ["epoch", *sorted(set(names))]
        there = self.first_row() if self.append else []
        if there and sorted(there) != sorted(columns):
            raise ValueError(
                f"CSVLogger cannot append to {self.filename}: it has the columns "
                f"{', '.join(there)}, but this training has {', '.join(columns)}."
            )
        return there or columns

    def first_row(self) -> list[str]:
        """Return the names of the columns in the file; empty if there is no file."""
        if not self.filename.exists():
            return []
        with open(self.filename, newline="") as file:
            return next(csv.reader(file, delimiter=self.separator), [])

    def write(self, mode: str, row: list) -> None:
        """Open the file and write a row."""
        with open(self.filename, mode, newline="") as file:
            csv.writer(file, delimiter=self.separator, lineterminator="\n").writerow(row)

    def state_dict(self) -> dict[str, Any]:
        size = self.filename.stat().st_size if self.columns else 0
        return {"columns": self.columns, "size": size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["columns"] is None or not self.filename.exists():
            return
        self.columns = list(state["columns"])
        if self.filename.stat().st_size > state["size"]:
            os.truncate(self.filename, state["size"])


def plain(value: Any) -> Any:
    """Return an array as a list or number, and anything else unchanged."""
    return value.tolist() if hasattr(value, "tolist") else value

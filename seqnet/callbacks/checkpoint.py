"""Saving a model during training."""

from __future__ import annotations

import os
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqnet.callbacks.base import check_save_freq, say
from seqnet.callbacks.monitoring import Monitor, unknown_log
from seqnet.saving.atomic import check_place
from seqnet.training.diagnostics import can_be_saved


class ModelCheckpoint(Monitor):
    """Save the model after each epoch, every `save_freq` batches, or when it is the best so far.

    A temporary file is written and then renamed, so that a killed process leaves only complete
    files. Weights that are NaN or infinite are not saved: a warning is logged, and an existing file
    of that name is kept.

    Parameters
    ----------
    filepath : path
        The path of the file, in a folder that exists. The name may have fields as in `str.format`:
        ``{epoch:02d}`` (counted from 1) and the logs of the epoch, such as ``{val_loss:.2f}``. If
        `save_freq` is a number, also ``{batch:05d}`` (counted from 1); the logs are then those of
        the epoch so far.
    monitor : str
        The metric that determines the best model.
    verbose : 0 or 1
        Whether to print a message when a file is saved.
    save_best_only : bool
        Save only if the metric is better than all values before.
    save_weights_only : bool
        Save with `Model.save_weights` instead of `Model.save`.
    mode : "auto", "min" or "max"
        Whether the metric should decrease or increase.
    save_freq : "epoch" or int
        Save after each epoch, or after this many batches, counted across epochs.
    initial_value_threshold : float, optional
        The value that the metric must improve on to be the best for the first time.

    Raises
    ------
    ValueError, FileNotFoundError
        Before training, if the folder does not exist, or a field or the metric is unknown.

    Examples
    --------
    >>> import os, tempfile, numpy as np, seqnet
    >>> from seqnet.callbacks import ModelCheckpoint
    >>> model = seqnet.Model([seqnet.layers.Dense(1)])
    >>> X, y = np.ones((4, 2)), np.ones((4, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save = ModelCheckpoint(os.path.join(folder, "model-{epoch:02d}.h5"))
    ...     history = model.fit(X, y, epochs=2, verbose=0, callbacks=[save])
    ...     sorted(os.listdir(folder))
    ['model-01.h5', 'model-02.h5']
    """

    first_rank_only = True

    def __init__(
        self,
        filepath: str | os.PathLike,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ):
        # The direction of a metric that is not used does not matter.
        mode = mode if save_best_only or mode != "auto" else "min"
        super().__init__(monitor, mode, best=initial_value_threshold)
        self.initial_value_threshold = initial_value_threshold
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.save_freq = check_save_freq(save_freq)
        self.fields = fields_of(self.filepath)
        self.epoch, self.batches = 0, 0

    @property
    def by_batches(self) -> bool:
        """Whether files are saved after a number of batches, not after epochs."""
        return self.save_freq != "epoch"

    def check(self, log_names: Sequence[str] | None) -> None:
        check_place(Path(self.filepath))
        if self.by_batches:  # validation and entries of callbacks come at the end of the epoch
            log_names = self.params.get("metrics")
            log_names = log_names and [name for name in log_names if not name.startswith("val_")]
        if log_names is None:
            return
        if self.save_best_only:
            super().check(log_names)
        self.check_fields([*self.own_fields, *log_names])

    def check_fields(self, known: Sequence[str]) -> None:
        """Raise an error if a field of the file name is unknown."""
        for field in self.fields:
            if field not in known:
                raise unknown_log(field, known, f"ModelCheckpoint({self.filepath!r})")

    @property
    def own_fields(self) -> tuple[str, ...]:
        """The fields of file names that are not metrics."""
        return ("epoch", "batch") if self.by_batches else ("epoch",)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not isinstance(self.save_freq, int):
            return
        self.batches += 1
        if self.batches >= self.save_freq:
            self.batches = 0
            self.save(logs or {}, {"epoch": self.epoch + 1, "batch": batch + 1})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.by_batches:
            self.save(logs or {}, {"epoch": epoch + 1})

    def save(self, logs: Mapping, numbers: Mapping[str, int]) -> None:
        """Save the model if it should be saved for these logs."""
        value = self.current(logs) if self.save_best_only else None
        when = ", ".join(f"{name} {number}" for name, number in numbers.items()).capitalize()
        if self.save_best_only:
            if value is None:
                return
            if not self.improves(value, self.best):
                if self.verbose:
                    say(f"{when}: {self.monitor} {value:.5g} is not better than {self.best}.")
                return
        values = {**logs, **numbers}
        self.check_fields(list(values))
        path = self.filepath.format(**values)
        if not can_be_saved(self.model, path):
            return
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)
        if value is not None:
            self.best = float(value)
        if self.verbose:
            metric = "" if value is None else f"{self.monitor} {value:.5g}, "
            say(f"{when}: {metric}saved as {path}.")

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"batches": self.batches}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.batches = state["batches"]


def fields_of(filepath: str) -> list[str]:
    """Return the names of the fields in a file name, or raise an error if they are invalid.

    Examples
    --------
    >>> from seqnet.callbacks.checkpoint import fields_of
    >>> fields_of("model-{epoch:02d}-{val_loss:.2f}.h5")
    ['epoch', 'val_loss']
    """
    folder, name = os.path.split(filepath)
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(name) if field is not None]
        if not all(field.isidentifier() for field in fields):
            raise ValueError("a field must be a name")
        name.format(**{field: 1 if field in ("epoch", "batch") else 1.0 for field in fields})
    except ValueError as error:
        raise ValueError(
            f"filepath={filepath!r} is not a valid file name ({error}): write fields as in "
            "'model-{epoch:02d}-{val_loss:.2f}.h5'."
        ) from None
    if any(field is not None for _, field, _, _ in string.Formatter().parse(folder)):
        raise ValueError(
            f"filepath={filepath!r} has a field in the name of its folder; only the name of the "
            "file may have fields."
        )
    return fields

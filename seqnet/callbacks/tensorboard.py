"""Logs for TensorBoard."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqnet.callbacks.base import Callback
from seqnet.common.checks import check_count
from seqnet.common.keras_names import takes_keras_names

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class TensorBoard(Callback):
    """Write logs for TensorBoard; view them with ``tensorboard --logdir LOG_DIR``.

    Requires tensorboardX: ``pip install "seqnet[tensorboard]"``. Training metrics are written to
    the folder ``train``, validation metrics to ``validation``. Their names are ``epoch_loss`` and
    so on, and ``batch_loss`` and so on for batches. The learning rate is also written.

    Parameters
    ----------
    log_dir : path
        Created if it does not exist.
    histogram_freq : int
        The number of epochs between histograms of all weights; 0 for none.
    write_steps_per_second : bool
        Write the number of batches per second of each epoch.
    update_freq : "epoch", "batch" or int
        Also write the current logs after each batch, or every `update_freq` batches of an epoch.

    Notes
    -----
    Keras's ``write_graph`` is accepted and writes nothing: `seqnet.utils.plot_model` draws a model.

    Raises
    ------
    ImportError
        If tensorboardX is not installed.

    Examples
    --------
    >>> import seqnet
    >>> callback = seqnet.callbacks.TensorBoard("logs", histogram_freq=5)  # doctest: +SKIP
    >>> history = model.fit(X, y, callbacks=[callback])  # doctest: +SKIP
    """

    adds = ()
    first_rank_only = True

    @takes_keras_names
    def __init__(
        self,
        log_dir: str | os.PathLike = "logs",
        histogram_freq: int = 0,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
    ):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ImportError(
                "TensorBoard writes its files with tensorboardX, which is not installed: "
                'pip install "seqnet[tensorboard]", or pip install tensorboardX.'
            ) from None
        self.make_writer = SummaryWriter
        self.writers: dict[str, SummaryWriter] = {}
        self.log_dir = Path(log_dir)
        self.histogram_freq = check_count(histogram_freq, "histogram_freq", 0)
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = (
            {"batch": 1, "epoch": 0}[update_freq]
            if update_freq in ("batch", "epoch")
            else check_count(update_freq, "update_freq")
        )
        self.batches = self.batches_before = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.start, self.batches_before = time.perf_counter(), self.batches

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.batches += 1
        if self.update_freq and batch % self.update_freq == 0:
            for name, value in (logs or {}).items():
                self.write("train", f"batch_{name}", value, self.batches)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        values = dict(logs or {})
        values.setdefault("learning_rate", self.model.optimizer.learning_rate)
        if self.write_steps_per_second:
            seconds = time.perf_counter() - self.start
            values["steps_per_second"] = (self.batches - self.batches_before) / seconds
        for name, value in values.items():
            folder = "validation" if name.startswith("val_") else "train"
            self.write(folder, f"epoch_{name.removeprefix('val_')}", value, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            for weight in self.model.weights:
                value = weight.get_value(borrow=True)
                self.writer("train").add_histogram(f"{weight.name}/histogram", value, epoch)
        for writer in self.writers.values():
            writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        for writer in self.writers.values():
            writer.close()
        self.writers = {}

    def write(self, folder: str, name: str, value: float, step: int) -> None:
        """Write one number."""
        self.writer(folder).add_scalar(name, value, step)

    def writer(self, folder: str) -> SummaryWriter:
        """Return the writer of a folder, which is created at the first call."""
        if folder not in self.writers:
            # File names only have a resolution of a second; the suffix avoids overwriting.
            suffix = f".{time.time_ns()}"
            self.writers[folder] = self.make_writer(
                str(self.log_dir / folder), filename_suffix=suffix
            )
        return self.writers[folder]

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.batches = self.batches_before = state["batches"]

"""Backup of the state of a training, so that an interrupted run can be resumed."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from seqnet.callbacks.base import Callback, check_save_freq, say
from seqnet.training import resume
from seqnet.training.diagnostics import can_be_saved, nonfinite_weights

log = logging.getLogger("seqnet")


class BackupAndRestore(Callback):
    """Save the state of the training; `fit` resumes from the file if it exists.

    The result is bit for bit the same as without an interruption: weights, the optimizer's
    averages, dropout, the order of the samples, carried states, the history and the states of
    callbacks (`Callback.state_dict`). The file also contains the complete model:
    `seqnet.load_model` reads it.

    After Ctrl-C or SIGTERM, the current batch is finished, the state is saved, and the training
    ends with ``KeyboardInterrupt`` or exit status 143. A killed process loses only what came after
    the last save. The previous file is kept until the next one is complete. Weights that are NaN or
    infinite are never saved, and neither is a training that `TerminateOnNaN` stops; the previous
    file is kept.

    Parameters
    ----------
    path : path
        The path of the file; its folder must exist.
    save_freq : "epoch" or int
        Save after each epoch, or every `save_freq` batches.
    delete_checkpoint : bool
        Delete the file when the training has finished, so that the next call starts from the
        beginning. If the file is kept, the same call of `fit` restores the result without training;
        with more `epochs` it continues.

    Raises
    ------
    ValueError
        By `fit`, before anything is compiled, if the file belongs to another training: with other
        layers, data, callbacks or arguments (except `epochs` and `verbose`). The message names the
        differences.

    Examples
    --------
    >>> import os, tempfile, numpy as np, seqnet
    >>> from seqnet.callbacks import BackupAndRestore
    >>> X, y = np.random.default_rng(0).normal(size=(2, 8, 3))
    >>> options = {"interrupt": False}
    >>> class Interrupt(seqnet.callbacks.Callback):
    ...     def on_batch_end(self, batch, logs=None):
    ...         if options["interrupt"] and len(self.model.history.epoch) == 1:
    ...             raise RuntimeError("interrupted")
    >>> def train(path):
    ...     seqnet.set_random_seed(1)
    ...     model = seqnet.Model([seqnet.layers.Dense(3)])
    ...     callbacks = [Interrupt(), BackupAndRestore(path, 1)]
    ...     model.fit(X, y, 2, epochs=3, verbose=0, callbacks=callbacks)
    ...     return model.get_weights()[0]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     expected = train(os.path.join(folder, "one.h5"))
    ...     options["interrupt"] = True
    ...     try:
    ...         train(os.path.join(folder, "two.h5"))
    ...     except RuntimeError as error:
    ...         print(error)
    ...     options["interrupt"] = False
    ...     result = train(os.path.join(folder, "two.h5"))
    interrupted
    >>> bool((result == expected).all())
    True
    """

    adds = ()
    runs_last = True  # the saved state includes the changes of all other callbacks

    def __init__(
        self,
        path: str | os.PathLike,
        save_freq: str | int = "epoch",
        delete_checkpoint: bool = True,
    ):
        self.path = Path(os.fspath(path))
        self.save_freq = check_save_freq(save_freq)
        self.delete_checkpoint = delete_checkpoint
        self.unsaved = 0
        self.description: dict = {}
        self.saved: tuple[dict, dict] | None = None
        self.lock = ExitStack()

    def check(self, log_names: Sequence[str] | None) -> None:
        """Read the file, if it exists, and raise an error if it belongs to another training."""
        if self.trainer is None:
            return
        same = [c for c in self.trainer.callbacks.resumed if isinstance(c, BackupAndRestore)]
        if len(same) > 1:
            raise ValueError(f"fit takes one BackupAndRestore, got {len(same)}.")
        world = self.trainer.world
        self.description = resume.describe(self.trainer)
        if world.rank == 0:
            self.lock.enter_context(resume.in_use(self.path))
            self.saved = resume.load(self.trainer, self.description, self.path)
        self.saved = world.broadcast(self.saved)

    def close(self) -> None:
        self.lock.close()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.unsaved = 0
        if self.saved is not None:
            self.description, state = self.saved
            self.saved = None
            try:
                self.trainer.load_state_dict(state)
            except Exception as error:
                raise ValueError(f"{self.path} cannot be resumed: {error}") from error
            self._report_place()

    def _report_place(self) -> None:
        """Say where the run continues."""
        trainer, epochs = self.trainer, self.trainer.arguments.epochs
        if trainer.done:
            message = f"The training in {self.path} has ended: its result is restored."
        else:
            place = f"epoch {trainer.epoch + 1}/{epochs}"
            if trainer.batch:
                steps = self.params.get("steps")
                place += f", batch {trainer.batch + 1}" + (f"/{steps}" if steps else "")
            message = f"Resuming from {self.path} at {place}."
        log.info(message)
        if trainer.arguments.verbose:
            say(message)

    def get_config(self) -> dict[str, Any]:
        return {}  # the path and the frequency do not affect the training

    def on_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.unsaved += 1
        if self.unsaved == self.save_freq:
            self.save()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.save_freq == "epoch" or self.trainer.done:
            self.save()

    def on_interruption(self) -> str:
        try:
            done = self.save()
        except OSError as error:
            kept = "there is no earlier file"
            if self.path.exists():
                kept = "the file of the last save is kept"
            return f"Its state could not be saved, and {kept}: {error}"
        if not done:
            return "Its state was not saved, because of values that are not finite."
        return f"Its state is in {self.path}: run the same program again to resume."

    def recovery_hint(self) -> str:
        if not self.path.exists():
            return ""
        return (
            f"{self.path} contains the last saved state of the training: "
            "seqnet.load_model reads it."
        )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.trainer.diverged and self.path.exists():
            log.warning(
                "%s contains the last saved state of the training, before the error. The same "
                "program resumes it and reaches the same error. To continue with other settings, "
                "load it with seqnet.load_model; to start again, delete it.",
                self.path,
            )
        first = self.trainer.world.rank == 0
        done = first and self.delete_checkpoint and self.trainer.finished
        if done and not nonfinite_weights(self.model):
            self.path.unlink(missing_ok=True)

    def save(self) -> bool:
        """Save the state of the training, between two batches; return whether it was saved."""
        self.unsaved = 0
        if self.trainer.diverged or not can_be_saved(self.model, self.path):
            return False
        resume.save(self.trainer, self.description, self.path)
        return True

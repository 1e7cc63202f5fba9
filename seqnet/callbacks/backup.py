"""A training that can be stopped at any time, and resumed as if it had not been."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from seqnet.callbacks.base import Callback, check_save_freq
from seqnet.training import resume
from seqnet.training.diagnostics import can_be_saved, nonfinite_weights

log = logging.getLogger("seqnet")


class BackupAndRestore(Callback):
    """Saves the state of the training; `fit` resumes from the file if there is one.

    The result is that of a training that was never stopped, bit for bit: weights, the optimizer's
    averages, dropout, the order of the examples, carried states, the history and what callbacks
    keep (`Callback.state_dict`). The file is a whole model, too: `seqnet.load_model` reads it.

    Ctrl-C and SIGTERM finish the batch, save, and end the training with ``KeyboardInterrupt`` or
    exit status 143. A process that is killed loses what came after the last save. An earlier file
    stays whole until the next one is. Weights that are NaN or infinite are never saved, nor is a
    training that `TerminateOnNaN` ends; the file from before that is kept.

    Parameters
    ----------
    path : path
        Of the file; its folder must exist.
    save_freq : "epoch" or int
        Save after each epoch, or after so many batches.
    delete_checkpoint : bool
        Delete the file when the training has ended well, so that the next one begins anew. If it is
        kept, the same `fit` puts the result back without training; with more `epochs` it trains on.

    Raises
    ------
    ValueError
        By `fit`, before anything is compiled, if the file is of another training: of other layers,
        data, callbacks or arguments (but `epochs` and `verbose`). The message says what differs.

    Examples
    --------
    >>> import os, tempfile, numpy as np, seqnet
    >>> from seqnet.callbacks import BackupAndRestore
    >>> X, y = np.random.default_rng(0).normal(size=(2, 8, 3))
    >>> current = {"is on": True}
    >>> class Plug(seqnet.callbacks.Callback):
    ...     def on_batch_end(self, batch, logs=None):
    ...         if not current["is on"] and len(self.model.history.epoch) == 1:
    ...             raise RuntimeError("no current")
    >>> def train(path):
    ...     seqnet.set_random_seed(1)
    ...     model = seqnet.Model([seqnet.layers.Dense(3)])
    ...     model.fit(X, y, 2, epochs=3, verbose=0, callbacks=[Plug(), BackupAndRestore(path, 1)])
    ...     return model.get_weights()[0]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     expected = train(os.path.join(folder, "one.h5"))
    ...     current["is on"] = False
    ...     try:
    ...         train(os.path.join(folder, "two.h5"))
    ...     except RuntimeError as error:
    ...         print(error)
    ...     current["is on"] = True
    ...     result = train(os.path.join(folder, "two.h5"))
    no current
    >>> bool((result == expected).all())
    True
    """

    adds = ()
    runs_last = True  # what it saves has all that the others did

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
        """Read the file, if there is one, and raise if it is of another training."""
        if self.trainer is None:
            return
        same = [c for c in self.trainer.callbacks.resumed if isinstance(c, BackupAndRestore)]
        if len(same) > 1:
            raise ValueError(f"fit takes one BackupAndRestore, got {len(same)}.")
        self.lock.enter_context(resume.in_use(self.path))
        self.description = resume.describe(self.trainer)
        self.saved = resume.load(self.trainer, self.description, self.path)

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

    def get_config(self) -> dict[str, Any]:
        return {}  # where and how often it saves changes nothing about the training

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
                kept = "the file of the last save stays"
            return f"Its state could not be saved, and {kept}: {error}"
        if not done:
            return "Its state was not saved, because of values that are not finite."
        return f"Its state is in {self.path}: the same program resumes it."

    def recovery_hint(self) -> str:
        if not self.path.exists():
            return ""
        return (
            f"{self.path} holds the training as it was when it was saved last: "
            "seqnet.load_model reads it."
        )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.trainer.diverged and self.path.exists():
            log.warning(
                "%s holds the training as it was when it was saved last, before the error. The "
                "same program resumes it and comes to the same end. To continue in another way, "
                "read it with seqnet.load_model; to begin anew, delete it.",
                self.path,
            )
        if self.delete_checkpoint and self.trainer.finished and not nonfinite_weights(self.model):
            self.path.unlink(missing_ok=True)

    def save(self) -> bool:
        """Save the state of the training now, between two batches; return whether that was done."""
        self.unsaved = 0
        if self.trainer.diverged or not can_be_saved(self.model, self.path):
            return False
        resume.save(self.trainer, self.description, self.path)
        return True

"""A training that can be stopped at any time and goes on as if it had not been."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from seqnet.callbacks.base import Callback, check_save_freq
from seqnet.trouble import broken_weights, worth_saving

log = logging.getLogger("seqnet")


class BackupAndRestore(Callback):
    """Saves the state of the training; `fit` goes on from the file where there is one.

    The result is that of a training that was never stopped, bit for bit: weights, the optimizer's
    averages, dropout, the order of the examples, carried states, the history and what callbacks
    keep (`Callback.get_state`). The file is a whole model, too: `seqnet.load_model` reads it.

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

    def __init__(self, path, save_freq: str | int = "epoch", delete_checkpoint: bool = True):
        self.path = Path(os.fspath(path))
        self.save_freq = check_save_freq(save_freq)
        self.delete_checkpoint = delete_checkpoint
        self.unsaved = 0
        self.run: Any = None

    def get_config(self):
        return {}  # where and how often it saves changes nothing about the training

    def on_batch_end(self, batch, logs=None):
        self.unsaved += 1
        if self.unsaved == self.save_freq:
            self.save()

    def on_epoch_end(self, epoch, logs=None):
        if self.save_freq == "epoch" or self.run.over:
            self.save()

    def on_train_end(self, logs=None):
        if self.run.in_trouble and self.path.exists():
            log.warning(
                "%s holds the training as it was when it was saved last, before the trouble. The "
                "same program goes on from there and comes to the same end. To go on in another "
                "way, read it with seqnet.load_model; to begin anew, delete it.",
                self.path,
            )
        if self.delete_checkpoint and self.run.ended_well and not broken_weights(self.model):
            self.path.unlink(missing_ok=True)

    def save(self) -> bool:
        """Save the state of the training now, between two batches; tell whether that was done."""
        self.unsaved = 0
        if self.run.in_trouble or not worth_saving(self.model, self.path):
            return False
        self.run.save(self.path)
        return True

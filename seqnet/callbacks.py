"""What happens around batches and epochs: records, progress, and whatever users hook in."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tqdm.auto import tqdm


class Callback:
    """Override what you need; every method is called by `Model.fit`.

    `self.model` is the model in training, `self.params` holds ``epochs``, ``steps``,
    ``batch_size`` and ``samples``. `logs` holds figures by name (``loss``, ``val_loss``, ...).
    """

    model = None
    params: Mapping = {}

    def on_train_begin(self, logs=None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs=None) -> None:
        """After the last epoch, also when training was stopped or failed."""

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        """Before epoch number `epoch`, from 0."""

    def on_epoch_end(self, epoch: int, logs=None) -> None:
        """After an epoch and its validation."""

    def on_batch_begin(self, batch: int, logs=None) -> None:
        """Before batch number `batch` of the epoch, from 0."""

    def on_batch_end(self, batch: int, logs=None) -> None:
        """After a batch; `logs` holds the epoch's figures so far."""


class History(Callback):
    """Keeps every epoch's figures: ``history.history["loss"]`` is a list.

    `Model.fit` returns one.
    """

    def __init__(self):
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_epoch_end(self, epoch, logs=None):
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class ProgressBar(Callback):
    """A tqdm bar for each epoch, with the figures so far.

    Parameters
    ----------
    unit : str
        What is counted; ``"batch"`` by default.
    per_batch : float
        How many units one batch is: a batch of 32 texts of 50 characters is 1,600 characters.
    file : file, optional
        Where to write; standard error by default.
    """

    def __init__(self, unit: str = "batch", per_batch: float = 1, file=None):
        self.unit, self.per_batch, self.file = unit, per_batch, file
        self.bar = None

    def on_epoch_begin(self, epoch, logs=None):
        self.bar = tqdm(
            total=self.params.get("steps"),
            desc=f"Epoch {epoch + 1}/{self.params['epochs']}",
            unit=self.unit,
            unit_scale=self.per_batch if self.per_batch != 1 else False,
            file=self.file or sys.stderr,
            dynamic_ncols=True,
        )

    def on_batch_end(self, batch, logs=None):
        self.bar.set_postfix(spell_figures(logs), refresh=False)
        self.bar.update(1)

    def on_epoch_end(self, epoch, logs=None):
        self.bar.set_postfix(spell_figures(logs), refresh=False)
        self.bar.close()

    def on_train_end(self, logs=None):
        if self.bar is not None:
            self.bar.close()


class EpochLine(Callback):
    """One printed line an epoch (``verbose=2``)."""

    def on_epoch_end(self, epoch, logs=None):
        figures = "  ".join(f"{k} {v}" for k, v in spell_figures(logs).items())
        print(f"Epoch {epoch + 1}/{self.params['epochs']}  {figures}", flush=True)


def spell_figures(logs: Mapping | None) -> dict[str, str]:
    """Write figures with four significant digits."""
    return {name: f"{value:.4g}" for name, value in (logs or {}).items()}


def check_callbacks(callbacks) -> list[Callback]:
    """Return what a user passed as callbacks as a list, or raise; None is none."""
    if callbacks is None:
        return []
    if not isinstance(callbacks, (list, tuple)):
        raise TypeError(f"callbacks takes a list of callbacks, got {callbacks!r}.")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks takes objects of seqnet.callbacks.Callback, got {callback!r}."
            )
    return list(callbacks)


class CallbackList:
    """Calls each of several callbacks in turn."""

    def __init__(self, callbacks, model, params: Mapping):
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            callback.model = model
            callback.params = params
        # Most callbacks leave the hooks around batches alone: those are not called at all.
        self.at_batch_begin = self._overriding("on_batch_begin")
        self.at_batch_end = self._overriding("on_batch_end")

    def _overriding(self, hook: str) -> list:
        return [
            getattr(c, hook)
            for c in self.callbacks
            if getattr(type(c), hook) is not getattr(Callback, hook)
        ]

    def __getattr__(self, hook: str):
        def call_all(*args):
            for callback in self.callbacks:
                getattr(callback, hook)(*args)

        return call_all

"""Callbacks that stop the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from seqnet.callbacks.base import Callback, say
from seqnet.callbacks.monitoring import Monitor, weight_state, weights_in
from seqnet.common.checks import check_count
from seqnet.training.diagnostics import NumericalError


class EarlyStopping(Monitor):
    """Stop the training when a metric has stopped improving.

    Parameters
    ----------
    monitor : str
        The name of the metric.
    min_delta : float
        The smallest change that counts as an improvement.
    patience : int
        The number of consecutive epochs without improvement after which the training is stopped.
    verbose : 0 or 1
        Whether to print a message when the training is stopped.
    mode : "auto", "min" or "max"
        Whether the metric should decrease or increase.
    baseline : float, optional
        A value that must also be improved on within `patience` epochs.
    restore_best_weights : bool
        Restore the weights of the best epoch when the training ends or fails.
    start_from_epoch : int
        Epochs before this number (counted from 0) are ignored.

    Attributes
    ----------
    stopped_epoch : int
        The number of the last epoch, counted from 0; 0 if the training was not stopped.
    best, best_epoch
        The best value, and the number of its epoch, counted from 0.

    Raises
    ------
    ValueError
        If there is no such metric, or its direction is unknown.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.callbacks import EarlyStopping
    >>> model = seqnet.Model([seqnet.layers.Dense(1)])
    >>> model.compile(seqnet.optimizers.SGD(0.0), "mse")    # learns nothing
    >>> stop = EarlyStopping("loss", patience=2)
    >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=9, verbose=0, callbacks=[stop])
    >>> history.epoch, stop.stopped_epoch
    ([0, 1, 2], 2)
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience = check_count(patience, "patience", 0)
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = check_count(start_from_epoch, "start_from_epoch", 0)
        self.on_train_begin()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.best, self.best_epoch = None, 0
        self.best_weights: list[np.ndarray] | None = None
        self.wait, self.stopped_epoch, self.seen = 0, 0, False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        value = self.current(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        improved = self.improves(value, self.best)
        if self.restore_best_weights and (improved or self.best_weights is None):
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if improved:
            self.best, self.best_epoch = float(value), epoch
            if self.baseline is None or self.improves(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.verbose and self.stopped_epoch:
            say(
                f"Epoch {self.stopped_epoch + 1}: stopped, because {self.monitor} has not improved "
                f"for {self.wait} epochs."
            )
        if self.best_weights is not None:
            if self.verbose:
                say(f"The weights of epoch {self.best_epoch + 1} are restored.")
            self.model.set_weights(self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        names = ("wait", "stopped_epoch", "best_epoch")
        counts = {name: getattr(self, name) for name in names}
        return super().state_dict() | counts | weight_state(self.best_weights)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.wait, self.stopped_epoch = state["wait"], state["stopped_epoch"]
        self.best_epoch, self.best_weights = state["best_epoch"], weights_in(state)


class TerminateOnNaN(Callback):
    """Stop the training when the loss or a gradient is NaN or infinite.

    Without this callback, `fit` raises a `seqnet.NumericalError`.

    Parameters
    ----------
    raise_error : bool
        Raise a ``RuntimeError`` instead, as in Keras.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.callbacks import TerminateOnNaN
    >>> model = seqnet.Model([seqnet.layers.Dense(1, input_shape=(2,))])
    >>> model.compile("sgd", "mse")
    >>> model.layers[0].bias.set_value(np.array([np.nan], "float32"))
    >>> X, y = np.ones((4, 2)), np.ones((4, 1))
    >>> history = model.fit(X, y, epochs=9, verbose=0, callbacks=[TerminateOnNaN()])
    Batch 1 of epoch 1: the loss is nan. The training ends.
    >>> history.epoch
    [0]
    """

    def __init__(self, raise_error: bool = False):
        self.raise_error = raise_error

    def on_numerical_error(self, error: NumericalError) -> None:
        if self.raise_error:
            raise RuntimeError(str(error)) from error
        say(f"{error.headline} The training ends.")
        self.model.stop_training = True

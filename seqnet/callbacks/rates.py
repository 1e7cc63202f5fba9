"""Callbacks that change the learning rate, without recompiling."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seqnet.callbacks.base import Callback, say
from seqnet.callbacks.monitoring import Monitor
from seqnet.common.checks import check_count, check_number

if TYPE_CHECKING:
    from seqnet.optimizers import Optimizer


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch, and log it as ``learning_rate``.

    Parameters
    ----------
    schedule : function of (epoch, learning_rate)
        Returns the learning rate of an epoch, given its number (counted from 0) and the current
        rate. A function of the epoch alone is also accepted.
    verbose : 0 or 1
        Whether to print each rate.

    Raises
    ------
    TypeError, ValueError
        If the schedule does not return a number, or returns a negative one, or if the learning rate
        of the optimizer is itself a schedule.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.callbacks import LearningRateScheduler
    >>> model = seqnet.Model([seqnet.layers.Dense(1)])
    >>> model.compile(seqnet.optimizers.SGD(1.0), "mse")
    >>> halve = LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else rate)
    >>> X, y = np.ones((4, 2)), np.ones((4, 1))
    >>> model.fit(X, y, epochs=3, verbose=0, callbacks=[halve]).history["learning_rate"]
    [1.0, 0.5, 0.25]
    """

    adds = ("learning_rate",)

    def __init__(self, schedule: Callable, verbose: int = 0):
        if not callable(schedule):
            raise TypeError(f"schedule is a function of (epoch, learning_rate), got {schedule!r}.")
        self.schedule, self.verbose = schedule, verbose
        self.takes_rate = takes_two(schedule)

    def check(self, log_names: Sequence[str] | None) -> None:
        check_settable(self.model.optimizer, self)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        optimizer = self.model.optimizer
        rate = (
            self.schedule(epoch, optimizer.learning_rate)
            if self.takes_rate
            else self.schedule(epoch)
        )
        what = f"What the schedule of LearningRateScheduler returns for epoch {epoch}"
        optimizer.learning_rate = check_number(rate, what)
        if self.verbose:
            say(f"Epoch {epoch + 1}: the learning rate is {rate:g}.")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.learning_rate


def check_settable(optimizer: Optimizer, callback: Callback) -> None:
    """Raise ``TypeError`` if the learning rate of an optimizer is a schedule."""
    if optimizer is not None and optimizer.schedule is not None:
        raise TypeError(
            f"{type(callback).__name__} sets the learning rate, but that of the optimizer "
            f"{type(optimizer).__name__} is a schedule ({optimizer.schedule!r}). Make the "
            "optimizer with a number, or leave the callback out."
        )


def takes_two(function: Callable) -> bool:
    """Return whether a function can be called with two arguments."""
    try:
        inspect.signature(function).bind(0, 0.0)
    except TypeError:
        return False
    except ValueError:  # a built-in function without a signature
        return True
    return True


class ReduceLROnPlateau(Monitor):
    """Lower the learning rate when a metric has stopped improving.

    The rate of each epoch is logged as ``learning_rate``.

    Parameters
    ----------
    monitor : str
        The name of the metric.
    factor : float
        The factor that the rate is multiplied by, above 0 and below 1.
    patience : int
        The number of consecutive epochs without improvement after which the rate is lowered.
    verbose : 0 or 1
        Whether to print when the rate is lowered.
    mode : "auto", "min" or "max"
        Whether the metric should decrease or increase.
    min_delta : float
        The smallest change that counts as an improvement.
    cooldown : int
        The number of epochs after a change that are not counted.
    min_lr : float
        The lower bound of the rate.

    Raises
    ------
    ValueError
        If there is no such metric, or its direction is unknown.
    TypeError
        If the learning rate of the optimizer is a schedule.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.callbacks import ReduceLROnPlateau
    >>> model = seqnet.Model([seqnet.layers.Dense(1)])
    >>> model.compile(seqnet.optimizers.SGD(1.0), "mse")
    >>> lower = ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100.0)
    >>> X, y = np.ones((4, 2)), np.ones((4, 1))
    >>> model.fit(X, y, epochs=4, verbose=0, callbacks=[lower]).history["learning_rate"]
    [1.0, 1.0, 0.5, 0.25]
    """

    adds = ("learning_rate",)

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ):
        super().__init__(monitor, mode, min_delta)
        if not 0 < factor < 1:
            raise ValueError(f"factor must be above 0 and below 1, got {factor!r}.")
        if not min_lr >= 0:
            raise ValueError(f"min_lr must be at least 0, got {min_lr!r}.")
        self.factor, self.min_lr, self.verbose = factor, min_lr, verbose
        self.patience = check_count(patience, "patience", 0)
        self.cooldown = check_count(cooldown, "cooldown", 0)
        self.on_train_begin()

    def check(self, log_names: Sequence[str] | None) -> None:
        super().check(log_names)
        check_settable(self.model.optimizer, self)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.best, self.seen = None, False
        self.wait = self.cooldown_counter = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        optimizer = self.model.optimizer
        if logs is not None:
            logs["learning_rate"] = optimizer.learning_rate
        value = self.current(logs)
        if value is None:
            return
        if self.cooldown_counter:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.improves(value, self.best):
            self.best, self.wait = float(value), 0
        elif not self.cooldown_counter:
            self.wait += 1
            if self.wait >= self.patience and optimizer.learning_rate > self.min_lr:
                self.lower(optimizer, epoch)

    def lower(self, optimizer: Optimizer, epoch: int) -> None:
        """Multiply the rate by the factor, but keep it at or above the lower bound."""
        optimizer.learning_rate = max(optimizer.learning_rate * self.factor, self.min_lr)
        self.wait, self.cooldown_counter = 0, self.cooldown
        if self.verbose:
            say(f"Epoch {epoch + 1}: the learning rate is lowered to {optimizer.learning_rate:g}.")

    def state_dict(self) -> dict[str, Any]:
        counts = {"wait": self.wait, "cooldown_counter": self.cooldown_counter}
        return super().state_dict() | counts

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.wait, self.cooldown_counter = state["wait"], state["cooldown_counter"]

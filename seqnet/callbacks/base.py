"""The base class of callbacks, and the list that calls several callbacks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from tqdm.std import tqdm

from seqnet.common.checks import check_count
from seqnet.distributed import current
from seqnet.registry import constructor_arguments
from seqnet.saving.hdf5 import extract_arrays
from seqnet.training.diagnostics import NumericalError

if TYPE_CHECKING:
    from seqnet.model import Model
    from seqnet.training.trainer import Trainer


class Callback:
    """Base class of callbacks; `Model.fit`, `evaluate` and `predict` call the methods.

    Override the methods that you need. `logs` holds the loss and the metrics by name (``loss``,
    ``val_loss``, ...). Entries that a callback adds to the `logs` of `on_epoch_end` are visible to
    the following callbacks in the list, and are recorded in the history.

    Attributes
    ----------
    model : Model
        The model; ``model.stop_training = True`` stops the training.
    params : mapping
        ``epochs``, ``steps`` (batches per epoch; None if unknown), ``batch_size``, ``samples`` and
        ``metrics`` (the names in the logs at the end of an epoch).
    trainer : Trainer or None
        The current run, in `fit` only. Between two batches, its `state_dict` returns everything
        that determines how the training continues.
    adds : tuple of str, optional
        The names that `on_epoch_end` adds to `logs`. If all callbacks define it, an unknown name in
        another callback is an error before training instead of after the first epoch.
    runs_last : bool
        Whether the callback is called after all others.
    first_rank_only : bool
        Whether it only reports or writes files, so that one of several processes calls it.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> class Best(seqnet.callbacks.Callback):
    ...     adds = ("best_loss",)
    ...     best = np.inf
    ...
    ...     def on_epoch_end(self, epoch, logs=None):
    ...         self.best = logs["best_loss"] = min(self.best, logs["loss"])
    >>> model = seqnet.Model([seqnet.layers.Dense(1)])
    >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[Best()])
    >>> sorted(history.history)
    ['best_loss', 'loss']
    """

    model: Any = None
    params: Mapping = {}
    trainer: Any = None
    adds: tuple[str, ...] | None = None
    runs_last = False
    first_rank_only = False

    def set_model(self, model: Model) -> None:
        """Set the model."""
        self.model = model

    def set_params(self, params: Mapping) -> None:
        """Set the parameters of the training."""
        self.params = params

    def set_trainer(self, trainer: Trainer | None) -> None:
        """Set the current run; None in `evaluate` and `predict`."""
        self.trainer = trainer

    def check(self, log_names: Sequence[str] | None) -> None:
        """Raise an error if this callback cannot work; called before anything is compiled.

        `log_names` are the names in the logs at the end of an epoch, or None if a callback may add
        others.
        """

    def get_config(self) -> dict:
        """Return the configuration, which must be the same when a run is resumed.

        By default these are the constructor's arguments except ``verbose``, if there are attributes
        of the same names. Override this method if some arguments do not affect the training, or if
        the attributes have other names.
        """
        names = constructor_arguments(type(self))
        return {n: getattr(self, n) for n in names if n != "verbose" and hasattr(self, n)}

    def close(self) -> None:
        """Release the resources of `check` and of hooks; called when a method ends or fails."""

    def state_dict(self) -> dict:
        """Return the state that a resumed run needs to continue like an uninterrupted one.

        Values are those that JSON can hold, NumPy arrays, and dictionaries and lists of these.
        """
        return {}

    def load_state_dict(self, state: Mapping) -> None:
        """Restore what `state_dict` returned: after `on_train_begin`, before the first epoch."""

    def recovery_hint(self) -> str:
        """Return a hint for the error message of a failed training; may be empty."""
        return ""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called before the first epoch."""

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Called after the last epoch, with its logs; also when training was stopped or failed."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called before epoch number `epoch`, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called after an epoch and its validation."""

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called before batch number `batch` of the epoch, counted from 0."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called after a batch; `logs` holds the means over the epoch so far."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Alias of `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Alias of `on_train_batch_end`."""

    def on_numerical_error(self, error: NumericalError) -> None:
        """Called after an update whose loss or gradients are not finite.

        If no callback of `fit` has this hook, the error is raised instead.
        """

    def on_interruption(self) -> str | None:
        """Called after Ctrl-C or SIGTERM, between two batches, before the training ends.

        Returns
        -------
        str, optional
            A sentence for the message of the ``KeyboardInterrupt``.
        """

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called before an evaluation, including the validation of an epoch."""

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Called after an evaluation; `logs` holds its results, without the prefix ``val_``."""

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called before batch number `batch` of an evaluation, counted from 0."""

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called after a batch of an evaluation; `logs` holds the means so far."""

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called before a prediction."""

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        """Called after a prediction."""

    def on_predict_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called before batch number `batch` of a prediction, counted from 0."""

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called after a batch of a prediction; ``logs["outputs"]`` are its outputs."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


def say(message: str) -> None:
    """Print a line, above the progress bar if present."""
    tqdm.write(message)
    sys.stdout.flush()  # in order with the lines of bars where both go to one file


def check_callbacks(callbacks: Any) -> list[Callback]:
    """Return the user's callbacks as a list, or raise an error; None means no callbacks."""
    if callbacks is None:
        return []
    if not isinstance(callbacks, (list, tuple)):
        one = isinstance(callbacks, Callback)
        found = f"one {type(callbacks).__name__}; put it in a list" if one else repr(callbacks)
        raise TypeError(f"callbacks takes a list of callbacks, got {found}.")
    for callback in callbacks:
        if isinstance(callback, Callback):
            continue
        hint = ""
        if isinstance(callback, type) and issubclass(callback, Callback):
            hint = f" Make one: {callback.__name__}(...)."
        raise TypeError(
            f"callbacks takes objects of seqnet.callbacks.Callback, got {callback!r}.{hint}"
        )
    return list(callbacks)


def check_save_freq(value: str | int) -> str | int:
    """Return ``"epoch"`` or a number of batches, or raise an error."""
    if value == "epoch":
        return value
    if isinstance(value, str):
        raise ValueError(f"save_freq is 'epoch' or a number of batches, got {value!r}.")
    return check_count(value, "save_freq")


def checked_state(callback: Callback) -> dict:
    """Return the state of a callback, or raise ``TypeError`` if it cannot be saved."""
    state, who = callback.state_dict(), f"{type(callback).__name__}.state_dict"
    if not isinstance(state, Mapping):
        raise TypeError(f"{who} must return a dictionary, got {state!r}.")
    try:
        json.dumps(extract_arrays(state, "state", {}))
    except TypeError as error:
        raise TypeError(f"{who} must return what JSON can hold, and arrays: {error}.") from None
    return dict(state)


def call_all(methods: Sequence[Callable], expected: int, *given: Any) -> None:
    """Call a hook of several callbacks, with empty logs if they are missing."""
    arguments = given if len(given) == expected else (*given, {})
    for method in methods:
        method(*arguments)


class CallbackList:
    """A list of callbacks with all hooks of `Callback`; each hook calls all callbacks in order.

    Parameters
    ----------
    callbacks : list of Callback
        The user's callbacks.
    reports : list of Callback
        Callbacks that only display or record results; called after those of the user.

    Attributes
    ----------
    resumed : list of Callback
        The user's callbacks, whose states are restored when a run is resumed.

    Examples
    --------
    >>> from seqnet.callbacks import CallbackList, LambdaCallback
    >>> hooks = [LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs))]
    >>> CallbackList(hooks).on_epoch_end(0, {"loss": 0.5})
    0 {'loss': 0.5}
    """

    def __init__(self, callbacks: Sequence[Callback], reports: Sequence[Callback] = ()):
        self.resumed = list(callbacks)
        called = [c for c in (*callbacks, *reports) if current().rank == 0 or not c.first_rank_only]
        self.callbacks = sorted(called, key=lambda callback: callback.runs_last)
        self.params: Mapping = {}
        # Most callbacks do not override the batch hooks; those are not called at all.
        begin = self.with_hooks("on_train_batch_begin", "on_batch_begin")
        end = self.with_hooks("on_train_batch_end", "on_batch_end")
        self.at_batch_begin = [callback.on_train_batch_begin for callback in begin]
        self.at_batch_end = [callback.on_train_batch_end for callback in end]
        # Whether one of those that all ranks call may stop the training after a batch.
        self.decide_by_batch = any(not callback.first_rank_only for callback in begin + end)

    def set_up(self, model: Model, params: Mapping, trainer: Trainer | None = None) -> None:
        """Set the model, the parameters and the current run of all callbacks, and check them."""
        self.params = params
        for callback in self.callbacks:
            callback.set_model(model)
            callback.set_params(params)
            callback.set_trainer(trainer)
        names = self.log_names()
        for callback in self.callbacks:
            callback.check(names)

    def with_hooks(self, *hooks: str) -> list[Callback]:
        """Return the callbacks that override a hook, in their class or by a function."""
        defaults = [(hook, getattr(Callback, hook)) for hook in hooks]
        return [
            callback
            for callback in self.callbacks
            if any([getattr(getattr(callback, n), "__func__", None) is not f for n, f in defaults])
        ]

    def collect(self, method: str) -> list:
        """Return the results of a method of each callback."""
        return [getattr(callback, method)() for callback in self.callbacks]

    def log_names(self) -> list[str] | None:
        """Return the names in the logs at the end of an epoch, or None if they are unknown."""
        names = self.params.get("metrics")
        found = list(names or ())
        for callback in self.with_hooks("on_epoch_end"):
            if callback.adds is None:
                return None
            found += callback.adds
        return None if names is None else list(dict.fromkeys(found))

    def state_dict(self) -> list[dict]:
        """Return the states of the user's callbacks.

        Raises
        ------
        TypeError
            If a state cannot be saved; the message names the callback.
        """
        return [checked_state(callback) for callback in self.resumed]

    def load_state_dict(self, states: Sequence[Mapping]) -> None:
        """Restore the states of the user's callbacks; an error names the callback."""
        for callback, state in zip(self.resumed, states, strict=True):
            try:
                if state and callback in self.callbacks:
                    callback.load_state_dict(state)
            except Exception as error:
                name = type(callback).__name__
                raise ValueError(
                    f"there is a state that {name}.load_state_dict does not take: {error!r}"
                ) from error

    def close(self) -> None:
        """Close all callbacks."""
        for callback in self.callbacks:
            callback.close()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Call the hook of each callback, even if one raises; its error is raised at the end."""
        with ExitStack() as stack:
            for callback in reversed(self.callbacks):
                stack.callback(callback.on_train_end, {} if logs is None else logs)

    def __getattr__(self, hook: str) -> Callable:
        if hook not in HOOKS:
            raise AttributeError(f"Callbacks have no hook {hook!r}.")
        expected = 2 if "epoch" in hook or "batch" in hook else 1
        methods = [getattr(callback, hook) for callback in self.with_hooks(hook)]
        found = partial(call_all, methods, expected)
        setattr(self, hook, found)  # looked up once, as those of batches
        return found

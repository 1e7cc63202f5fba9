"""The hooks of a callback, and the list that calls several."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from seqnet.checks import check_count
from seqnet.registry import constructor_arguments
from seqnet.saving.hdf5 import extract_arrays
from seqnet.training.diagnostics import NumericalError

if TYPE_CHECKING:
    from seqnet.model import Model
    from seqnet.training.trainer import Trainer


class Callback:
    """Override what you need; the methods are called by `Model.fit`, `evaluate` and `predict`.

    `logs` holds the loss and the metrics by name (``loss``, ``val_loss``, ...). What a callback
    writes into the `logs` of `on_epoch_end` is seen by the callbacks after it in the list, and by
    the history.

    Attributes
    ----------
    model : Model
        The model in training; ``model.stop_training = True`` ends it.
    params : mapping
        ``epochs``, ``steps`` (batches in an epoch; None if that is not known), ``batch_size``,
        ``samples`` and ``metrics`` (the names in the logs of an epoch's end).
    trainer : Trainer or None
        The run of training, in `fit` only. Between two batches, its `state_dict` has everything
        that decides how the training continues.
    adds : tuple of str, optional
        The names that `on_epoch_end` writes into `logs`. If all callbacks have it, a wrong name
        elsewhere is an error before training instead of after its first epoch.
    runs_last : bool
        Whether the callback is called after all others.

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

    def set_model(self, model: Model) -> None:
        """Take the model that will be trained."""
        self.model = model

    def set_params(self, params: Mapping) -> None:
        """Take what is known about the training."""
        self.params = params

    def set_trainer(self, trainer: Trainer | None) -> None:
        """Take the run of training; None in `evaluate` and `predict`."""
        self.trainer = trainer

    def check(self, log_names: Sequence[str] | None) -> None:
        """Raise if this callback cannot do its work; called before anything is compiled.

        `log_names` are the names in the logs of an epoch's end, or None if a callback may add
        others.
        """

    def get_config(self) -> dict:
        """Return what a resumed run must be given again: other values make it another training.

        By default the constructor's arguments except ``verbose``, as far as there are attributes of
        the same names. Override it, with an empty result if need be, where some of them do not
        matter or are called otherwise.
        """
        names = constructor_arguments(type(self))
        return {n: getattr(self, n) for n in names if n != "verbose" and hasattr(self, n)}

    def close(self) -> None:
        """Release what `check` or a hook has opened; called when `fit` ends, however it does."""

    def state_dict(self) -> dict:
        """Return what a resumed run needs to continue as if it had never stopped.

        Values are what JSON can hold, NumPy arrays, and dictionaries and lists of these.
        """
        return {}

    def load_state_dict(self, state: Mapping) -> None:
        """Restore what `state_dict` returned: after `on_train_begin`, before the first epoch."""

    def recovery_hint(self) -> str:
        """Return what to tell a user whose training failed about how to continue; may be empty."""
        return ""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """After the last epoch, with its logs; also when training was stopped or failed."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Before epoch number `epoch`, from 0."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """After an epoch and its validation."""

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Before batch number `batch` of the epoch, from 0."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """After a batch; `logs` holds the means of the epoch so far."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Another name of `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Another name of `on_train_batch_end`."""

    def on_numerical_error(self, error: NumericalError) -> None:
        """Instead of raising the error after an update whose loss or gradients are not finite.

        Where no callback of `fit` has this hook, the error is raised.
        """

    def on_interruption(self) -> str | None:
        """After Ctrl-C or SIGTERM, between two batches, before the training ends.

        Returns
        -------
        str, optional
            A sentence for the message of the ``KeyboardInterrupt``.
        """

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Before an evaluation, also the validation of an epoch."""

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """After an evaluation; `logs` holds its results, without ``val_``."""

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Before batch number `batch` of an evaluation, from 0."""

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """After a batch of an evaluation; `logs` holds the means so far."""

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Before a prediction."""

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        """After a prediction."""

    def on_predict_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Before batch number `batch` of a prediction, from 0."""

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """After a batch of a prediction; ``logs["outputs"]`` are its outputs."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


def overrides(callback: Callback, *hooks: str) -> bool:
    """Whether a callback has hooks of its own, in its class or as functions it was given."""
    return any(
        getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook)
        for hook in hooks
    )


def say(message: str) -> None:
    """Print a line, above the progress bar if there is one."""
    tqdm.write(message)


def check_callbacks(callbacks: Any) -> list[Callback]:
    """Return what a user passed as callbacks as a list, or raise; None is none."""
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
    """Return ``"epoch"`` or a number of batches, or raise."""
    if value == "epoch":
        return value
    if isinstance(value, str):
        raise ValueError(f"save_freq is 'epoch' or a number of batches, got {value!r}.")
    return check_count(value, "save_freq")


def checked_state(callback: Callback) -> dict:
    """Return a callback's state, or raise ``TypeError`` if a file cannot hold it."""
    state, who = callback.state_dict(), f"{type(callback).__name__}.state_dict"
    if not isinstance(state, Mapping):
        raise TypeError(f"{who} must return a dictionary, got {state!r}.")
    try:
        json.dumps(extract_arrays(state, "state", {}))
    except TypeError as error:
        raise TypeError(f"{who} must return what JSON can hold, and arrays: {error}.") from None
    return dict(state)


class CallbackList:
    """Calls each of several callbacks in turn: it has all their hooks.

    Parameters
    ----------
    callbacks : list of Callback
        The user's.
    reports : list of Callback
        Called after them: they only show or keep what the others did.

    Attributes
    ----------
    resumed : list of Callback
        Those of the user, whose states belong to a run that is resumed.
    """

    def __init__(self, callbacks: Sequence[Callback], reports: Sequence[Callback] = ()):
        self.resumed = list(callbacks)
        self.callbacks = sorted([*callbacks, *reports], key=lambda callback: callback.runs_last)
        self.params: Mapping = {}
        # Most callbacks leave the hooks around batches alone: those are not called at all.
        self.at_batch_begin = self.overriding("on_train_batch_begin", "on_batch_begin")
        self.at_batch_end = self.overriding("on_train_batch_end", "on_batch_end")

    def set_up(self, model: Model, params: Mapping, trainer: Trainer | None = None) -> None:
        """Give the callbacks the model, what is known about the data, and the run of training."""
        self.params = params
        for callback in self.callbacks:
            callback.set_model(model)
            callback.set_params(params)
            callback.set_trainer(trainer)
        names = self.log_names()
        for callback in self.callbacks:
            callback.check(names)

    def overriding(self, hook: str, *aliases: str) -> list:
        """Return the hooks of a name of the callbacks that have one of their own."""
        return [getattr(c, hook) for c in self.callbacks if overrides(c, hook, *aliases)]

    def collect(self, method: str) -> list:
        """Return what a method of each callback returns."""
        return [getattr(callback, method)() for callback in self.callbacks]

    def log_names(self) -> list[str] | None:
        """Return the names in the logs of an epoch's end, or None if they are not known."""
        names = self.params.get("metrics")
        found = list(names or ())
        for callback in self.callbacks:
            if overrides(callback, "on_epoch_end"):
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
                if state:
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
        """Call the hook of each callback, also after one has raised; the error is raised then."""
        with ExitStack() as stack:
            for callback in reversed(self.callbacks):
                stack.callback(callback.on_train_end, {} if logs is None else logs)

    def __getattr__(self, hook: str) -> Callable:
        if hook not in HOOKS:
            raise AttributeError(f"Callbacks have no hook {hook!r}.")
        expected = 2 if "epoch" in hook or "batch" in hook else 1

        def call_all(*given):
            arguments = given if len(given) == expected else (*given, {})
            for callback in self.callbacks:
                getattr(callback, hook)(*arguments)

        return call_all

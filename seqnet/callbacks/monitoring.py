"""The base class of callbacks that monitor a metric."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seqnet import registry
from seqnet.callbacks.base import Callback
from seqnet.common.checks import check_number

DIRECTIONS = {"loss": "min", "accuracy": "max", "acc": "max", "crossentropy": "min", "ce": "min"}


def directions() -> dict[str, str]:
    """Return ``"min"`` or ``"max"`` by the name of a metric or a loss."""
    known = DIRECTIONS | dict.fromkeys(registry.names("loss"), "min")
    metrics = {name: registry.lookup("metric", name) for name in registry.names("metric")}
    found = {name: getattr(metric, "direction", None) for name, metric in metrics.items()}
    return known | {name: way for name, way in found.items() if way is not None}


def direction(monitor: str, mode: str, who: str) -> str:
    """Return ``"min"`` or ``"max"``: `mode`, or for ``"auto"`` the direction of the metric.

    Examples
    --------
    >>> from seqnet.callbacks.monitoring import direction
    >>> direction("val_accuracy", "auto", "Somebody"), direction("loss", "auto", "Somebody")
    ('max', 'min')
    """
    if mode not in ("auto", "min", "max"):
        raise ValueError(f"{who} takes mode='auto', 'min' or 'max', got {mode!r}.")
    if mode != "auto":
        return mode
    name, known = monitor.removeprefix("val_"), directions()
    # With several outputs a name begins with that of the output: "tags_accuracy".
    for ending in [name, *sorted(known, key=len, reverse=True)]:
        if ending in known and (name == ending or name.endswith(f"_{ending}")):
            return known[ending]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {monitor.removesuffix(name) + near[0]!r}?" if near else ""
    raise ValueError(
        f"{who} does not know whether {monitor!r} should increase or decrease: pass mode='max' or "
        f"mode='min'.{hint}"
    )


def unknown_log(name: str, names: Sequence[str], who: str) -> ValueError:
    """Return the error for an unknown name, with the names in the logs."""
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if name.startswith("val_") and not any(other.startswith("val_") for other in names):
        hint = " Metrics of a validation need validation_data or validation_split in fit."
    return ValueError(
        f"{who} needs the metric {name!r}, but this training has {', '.join(names)}.{hint}"
    )


class Monitor(Callback):
    """The base of callbacks that monitor a metric.

    Parameters
    ----------
    monitor : str
        The name of the metric.
    mode : "auto", "min" or "max"
        Whether it should decrease or increase; ``"auto"`` supports accuracies, losses and the
        perplexity.
    min_delta : float
        The smallest change that counts as an improvement.
    best : float, optional
        The value that the first value must improve on.
    """

    adds: tuple[str, ...] | None = ()

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0, best: float | None = None):
        if not isinstance(monitor, str):
            raise TypeError(f"{self.who} takes the name of a metric as monitor, got {monitor!r}.")
        self.monitor, self.mode = monitor, mode
        self.min_delta = abs(check_number(min_delta, "min_delta"))
        self.best = best
        self.seen = False
        self.rising = direction(monitor, mode, self.who) == "max"

    @property
    def who(self) -> str:
        """The name used in messages."""
        return type(self).__name__

    def check(self, log_names: Sequence[str] | None) -> None:
        if log_names is not None and self.monitor not in log_names:
            raise unknown_log(self.monitor, log_names, self.who)

    def current(self, logs: Mapping | None) -> float | None:
        """Return the value of the metric; None if only this epoch lacks it.

        Raises
        ------
        ValueError
            If the metric is not known and was never in the logs.
        """
        logs = logs or {}
        if self.monitor in logs:
            self.seen = True
            return logs[self.monitor]
        if self.seen or self.monitor in (self.params.get("metrics") or ()):
            return None
        raise unknown_log(self.monitor, list(logs), self.who)

    def improves(self, value: float, best: float | None) -> bool:
        """Return whether a value is better than `best` by more than `min_delta`; NaN never is."""
        if best is None:
            return not math.isnan(value)
        return bool(value - self.min_delta > best if self.rising else value + self.min_delta < best)

    def state_dict(self) -> dict[str, Any]:
        return {"best": None if self.best is None else float(self.best), "seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.seen = state["best"], state["seen"]


def weight_state(weights: Sequence[np.ndarray] | None) -> dict[str, np.ndarray]:
    """Return weights as entries of a state.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.callbacks.monitoring import weight_state, weights_in
    >>> state = weight_state([np.zeros(2), np.ones(3)])
    >>> list(state), len(weights_in(state))
    (['best_weights_0', 'best_weights_1'], 2)
    """
    return {f"best_weights_{number}": array for number, array in enumerate(weights or ())}


def weights_in(state: Mapping) -> list[np.ndarray] | None:
    """Return the weights in a state that `weight_state` returned, or None."""
    count = sum(name.startswith("best_weights_") for name in state)
    return [np.asarray(state[f"best_weights_{k}"]) for k in range(count)] or None

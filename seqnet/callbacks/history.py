"""The history of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seqnet.callbacks.base import Callback


class History(Callback):
    """Record the logs of every epoch: ``history.history["loss"]`` is a list.

    `Model.fit` returns a `History`.

    Examples
    --------
    >>> from seqnet.callbacks import History
    >>> history = History()
    >>> history.on_epoch_end(0, {"loss": 1.0})
    >>> history.on_epoch_end(1, {"loss": 0.5})
    >>> history.history, history.epoch
    ({'loss': [1.0, 0.5]}, [0, 1])
    """

    adds = ()

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": list(self.epoch),
            "history": {name: list(values) for name, values in self.history.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch = list(state["epoch"])
        self.history = {name: list(values) for name, values in state["history"].items()}

"""The history of a training."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from seqnet.callbacks.base import Callback
from seqnet.callbacks.progress import format_logs
from seqnet.summary import html_table

ROWS = 20  # of a table in a notebook


class History(Callback):
    """Record the logs of every epoch: ``history.history["loss"]`` is a list.

    `Model.fit` returns a `History`. A notebook shows it as a table.

    Attributes
    ----------
    history : dict of str to list of float
        The values of each name in the logs.
    epoch : list of int
        The epochs, counted from 0.
    epochs : dict of str to list of int
        The epochs of the values of each name: not every epoch may have a validation.

    Examples
    --------
    >>> from seqnet.callbacks import History
    >>> history = History()
    >>> history.on_epoch_end(0, {"loss": 1.0})
    >>> history.on_epoch_end(1, {"loss": 0.5})
    >>> history.history, history.epoch
    ({'loss': [1.0, 0.5]}, [0, 1])
    >>> history
    <History: 2 epochs, loss: 0.5>
    """

    adds = ()

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.epochs: dict[str, list[int]] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
            self.epochs.setdefault(name, []).append(epoch)

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": list(self.epoch),
            "history": {name: list(values) for name, values in self.history.items()},
            "epochs": {
                n: list(epochs) for n, epochs in self.epochs.items() if epochs != self.epoch
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.epoch = list(state["epoch"])
        self.history = {name: list(values) for name, values in state["history"].items()}
        some = state.get("epochs", {})  # of names that are not in the logs of every epoch
        self.epochs = {name: list(some.get(name, self.epoch)) for name in self.history}

    def __repr__(self) -> str:
        count = len(self.epoch)
        last = format_logs({name: values[-1] for name, values in self.history.items() if values})
        logs = "".join(f", {name}: {text}" for name, text in last.items())
        return f"<History: {count} epoch{'s' * (count != 1)}{logs}>"

    def _repr_html_(self) -> str:
        rows = [("Epoch", *self.history)]
        values = {
            name: dict(zip(self.epochs[name], numbers, strict=True))
            for name, numbers in self.history.items()
        }
        for epoch in self.epoch:
            texts = [
                format_logs({name: found[epoch]})[name] if epoch in found else ""
                for name, found in values.items()
            ]
            rows.append((str(epoch + 1), *texts))
        if len(rows) > ROWS + 1:
            half = ROWS // 2
            rows[1 + half : -half] = [("...",) * len(rows[0])]
        return html_table(repr(self).strip("<>"), rows)

    def plot(self, names: Sequence[str] | None = None, axes: Any = None) -> Any:
        """Draw the loss and the metrics over the epochs, each with its validation.

        Requires matplotlib: ``pip install "seqnet[plot]"``.

        Parameters
        ----------
        names : list of str, optional
            The names to draw, such as ``["loss", "accuracy"]``; all by default.
        axes : list of matplotlib.axes.Axes, optional
            Where to draw; by default a new figure with one place for each name.

        Returns
        -------
        list of matplotlib.axes.Axes
            One per name. ``axes[0].figure.savefig("history.png")`` writes a file.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If nothing is recorded, a name is unknown, or there are too few axes.

        Examples
        --------
        >>> import numpy as np, seqnet
        >>> model = seqnet.Model([seqnet.layers.Dense(1)])
        >>> X, y = np.ones((4, 2)), np.ones((4, 1))
        >>> history = model.fit(X, y, epochs=3, validation_split=0.5, verbose=0)
        >>> axes = history.plot()  # doctest: +SKIP
        """
        known = list(dict.fromkeys(name.removeprefix("val_") for name in self.history))
        if not known:
            raise ValueError("The history has no epochs yet: there is nothing to draw.")
        if isinstance(names, str):
            raise TypeError(f"names takes a list, such as [{names!r}].")
        chosen = known if names is None else list(names)
        for name in chosen:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"The history has no {name!r}, only {', '.join(known)}.{hint}")
        places = self._new_axes(len(chosen)) if axes is None else as_list(axes)
        if len(places) < len(chosen):
            raise ValueError(
                f"plot draws {', '.join(chosen)}: pass {len(chosen)} axes, not {len(places)}, or "
                "fewer names."
            )
        for place, name in zip(places, chosen, strict=False):
            for full, label in ((name, "training"), (f"val_{name}", "validation")):
                if full in self.history:
                    counted = [epoch + 1 for epoch in self.epochs[full]]
                    marker = "o" if len(counted) < 2 else ""
                    place.plot(counted, self.history[full], marker=marker, label=label)
            place.set_xlabel("epoch")
            place.set_ylabel(name)
            place.xaxis.get_major_locator().set_params(integer=True)
            place.legend()
        return places[: len(chosen)]

    def _new_axes(self, count: int) -> list:
        try:
            pyplot = importlib.import_module("matplotlib.pyplot")
        except ImportError:
            raise ImportError(
                "History.plot draws with matplotlib, which is not installed: "
                'pip install "seqnet[plot]", or pip install matplotlib.'
            ) from None
        columns = min(count, 3)
        rows = -(-count // columns)
        figure, places = pyplot.subplots(
            rows, columns, squeeze=False, figsize=(4.5 * columns, 3.2 * rows), layout="constrained"
        )
        for unused in places.flat[count:]:
            figure.delaxes(unused)
        return list(places.flat[:count])


def as_list(axes: Any) -> list:
    """Return axes, which may be one object, an array or a list, as a list."""
    if hasattr(axes, "flat"):
        return list(axes.flat)
    return list(axes) if isinstance(axes, (list, tuple)) else [axes]

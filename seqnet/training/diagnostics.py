"""Diagnostics of a training: values that are not finite, norms of gradients, spikes of the loss."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pytensor.compile.sharedvalue import SharedVariable

from seqnet.layers.layer import Layer

if TYPE_CHECKING:
    from seqnet.model import Model


log = logging.getLogger("seqnet")

SPIKE_FACTOR = 3.0
"""A loss of so many times the first one gets a warning."""

SMALL_LOSS = 1e-3
"""A loss below this never gets a warning."""

FIRST_SAMPLES = 32
"""The first loss is the mean over so many samples."""


class NumericalError(FloatingPointError):
    """A loss or gradient that is NaN or infinite; the message says where and what to do.

    Attributes
    ----------
    headline : str
        The first sentence of the message: the batch, the epoch, and what is not finite.
    loss : float
        The batch's.
    layers : list of str
        Those whose gradients are not finite, in the order they broke: from the last to the first.
    gradient_norms : dict of str to float
        The L2 norm of the batch's gradient of each trained weight, before clipping.
    weight_norms : dict of str to float
        The L2 norm of each weight, after the update.
    """

    def __init__(
        self,
        headline: str,
        explanation: str,
        loss: float,
        layers: list[str],
        gradient_norms: dict[str, float],
        weight_norms: dict[str, float],
    ):
        super().__init__(f"{headline}\n\n{explanation}")
        self.headline, self.loss, self.layers = headline, loss, layers
        self.gradient_norms, self.weight_norms = gradient_norms, weight_norms


def diagnose(
    model: Model, place: str, loss: float, gradient_norms: Mapping[str, float], note: str = ""
) -> NumericalError:
    """Return the error for an update of which something is not finite.

    Parameters
    ----------
    model : Model
        As the update left it.
    place : str
        Of the batch.
    loss : float
    gradient_norms : mapping
        Of the trained weights, in the order of the model.
    note : str
        What else is known.
    """
    weight_norms = {weight.name: norm_of(weight) for weight in model.weights}
    nonfinite = {  # by layer, from the loss on
        layer.display_name: names
        for layer in reversed(model.layers)
        if (names := [w.name for w in layer.weights if not is_finite(gradient_norms, w.name)])
    }
    layers = list(nonfinite)
    headline = f"{place}: the loss is {loss}."
    if math.isfinite(loss):
        headline = (
            f"{place}: the gradient of layer {layers[0]!r} is not finite, though the loss is "
            f"{loss:.6g}."
        )
    parts = [
        *where_it_broke(model, loss, nonfinite, gradient_norms),
        table(gradient_norms, weight_norms),
        f"{weights_after(weight_norms)} Continue from a file that was saved before, or build the "
        f"model again. {note}".rstrip(),
        f"What helps: a lower learning rate (it is {model.optimizer.learning_rate:g}), clipnorm= "
        f"of the optimizer (it is {model.optimizer.clipnorm}), float64, and a look at the batch.",
    ]
    return NumericalError(
        headline, "\n\n".join(parts), loss, layers, dict(gradient_norms), weight_norms
    )


def where_it_broke(
    model: Model,
    loss: float,
    nonfinite: Mapping[str, list[str]],
    gradient_norms: Mapping[str, float],
) -> list[str]:
    """Return which values are not finite, forward and back; `nonfinite` has weights by layer."""
    explanation = []
    if not math.isfinite(loss):
        explanation.append(
            "The forward pass was already non-finite: the batch has values that the model or the "
            "loss cannot take, or the weights were too large or not finite before."
        )
    if not nonfinite:
        explanation.append("All gradients are finite; only the loss is not.")
        return explanation
    layer, *others = nonfinite
    weights = ", ".join(name.removeprefix(f"{layer}/") for name in nonfinite[layer])
    text = (
        f"In the backward pass, the first non-finite gradient is that of layer {layer!r} "
        f"({weights})"
    )
    text += f", then of {', '.join(map(repr, others))}." if others else ", and no other."
    above = untrained_above(model, layer, gradient_norms)
    if above and math.isfinite(loss):
        names = " and ".join(map(repr, above))
        text += f" It may have become so on its way through {names}, where no weights are trained."
    return [*explanation, text]


def weights_after(weight_norms: Mapping[str, float]) -> str:
    """Return what the update has done to the weights."""
    changed = [name for name, norm in weight_norms.items() if not math.isfinite(norm)]
    if not changed:
        return "The update of this batch was made."
    return (
        "The update of this batch was made, and these weights are not finite now: "
        f"{', '.join(changed)}."
    )


def is_finite(norms: Mapping[str, float], name: str) -> bool:
    """Return whether the norm of a weight's gradient is finite; without a gradient it is."""
    return math.isfinite(norms.get(name, 0.0))


def untrained_above(model: Model, name: str, gradient_norms: Mapping[str, float]) -> list[str]:
    """Return the layers without gradients between a layer and the next that has some."""
    place = [layer.name for layer in model.layers].index(name)
    found = []
    for layer in model.layers[place + 1 :]:
        if any(weight.name in gradient_norms for weight in layer.weights):
            break
        found.append(layer.display_name)
    return found


def table(gradient_norms: Mapping[str, float], weight_norms: Mapping[str, float]) -> str:
    """Return the norms of all weights as lines."""
    width = max([6, *map(len, weight_norms)])
    lines = [f"{'norms':{width}}  {'gradient':>11}  {'weight':>11}"]
    for name, norm in weight_norms.items():
        gradient = f"{gradient_norms[name]:.4g}" if name in gradient_norms else "not trained"
        lines.append(f"{name:{width}}  {gradient:>11}  {norm:>11.4g}")
    return "\n".join(lines)


def norm_of(weight: SharedVariable) -> float:
    """Return the L2 norm of a shared variable, added up in double."""
    return math.sqrt(np.square(weight.get_value(borrow=True), dtype="float64").sum())


def nonfinite_weights(model: Model) -> list[str]:
    """Return the names of the weights that hold a NaN or infinity."""
    return [w.name for w in model.weights if not np.isfinite(w.get_value(borrow=True)).all()]


def can_be_saved(model: Model, path: str | os.PathLike) -> bool:
    """Return whether all weights are finite; else log a warning that the file is not written."""
    nonfinite = nonfinite_weights(model)
    if nonfinite:
        log.warning("%s is not written: %s not finite.", path, ", ".join(nonfinite))
    return not nonfinite


class GradientNorms:
    """Norms of gradients before clipping, added up over updates.

    Attributes
    ----------
    updates : int
    total : float
        The sum of the joint norms of all gradients.
    trained : tuple of bool
        Which of the model's weights `each` is of.
    since, each : int, array
        How many updates it is the sum of, and the sum of each weight's norm; it begins anew when
        other weights are trained.
    """

    def __init__(self) -> None:
        self.updates, self.total = 0, 0.0
        self.trained: tuple[bool, ...] = ()
        self.since, self.each = 0, np.zeros(0)

    def add(self, joint: float, each: np.ndarray, trained: tuple[bool, ...]) -> None:
        """Add the norms of one update."""
        self.updates += 1
        self.total += joint
        if trained != self.trained:
            self.trained, self.since, self.each = trained, 0, np.zeros(len(each))
        self.since += 1
        self.each += each

    def mean(self) -> float:
        """Return the mean of the joint norm; 0 before the first update."""
        return self.total / max(self.updates, 1)

    def means(self, layers: Iterable[Layer]) -> dict[str, float]:
        """Return the mean norm of each weight by name."""
        return name_norms(layers, self.trained, self.each / max(self.since, 1))

    def state_dict(self) -> dict:
        """Return the norms so far."""
        return vars(self) | {"trained": list(self.trained), "each": self.each.tolist()}

    def load_state_dict(self, state: Mapping) -> None:
        """Restore what `state_dict` returned."""
        vars(self).update(state)
        self.trained = tuple(state["trained"])
        self.each = np.array(state["each"], "float64")


def name_norms(
    layers: Iterable[Layer], trained: Sequence[bool], norms: np.ndarray
) -> dict[str, float]:
    """Return norms by the names of the weights that are trained."""
    weights = [weight for layer in layers for weight in layer.weights]
    names = [weight.name for weight, on in zip(weights, trained, strict=False) if on]
    return dict(zip(names, norms.tolist(), strict=True))


class LossSpikeDetector:
    """Detects that the loss has risen to several times the first.

    The loss of each batch is smoothed, a new one counting a tenth, and the first loss is the mean
    over the first 32 samples, so that one hard batch is no spike. A loss below 0.001 is none
    either. A first loss of 0 or below has no multiple, so the detector never fires.

    Examples
    --------
    >>> from seqnet.training.diagnostics import LossSpikeDetector
    >>> detector = LossSpikeDetector()
    >>> [detector.update(loss, 32) for loss in (1.0, 9.0, 1.0, 15.0, 15.0)]
    [False, False, False, True, False]
    """

    def __init__(self) -> None:
        self.first = self.smooth = 0.0
        self.updates = self.samples = 0
        self.detected = False

    def update(self, loss: float, samples: int) -> bool:
        """Take the loss of a batch; return True, once, when a spike is detected."""
        if self.detected or not math.isfinite(loss):
            return False
        if self.samples < FIRST_SAMPLES:
            self.updates += 1
            self.samples += samples
            self.first += (loss - self.first) / self.updates
            self.smooth = self.first
            return False
        self.smooth += (loss - self.smooth) / 10
        self.detected = 0 < SPIKE_FACTOR * self.first < self.smooth and self.smooth > SMALL_LOSS
        return self.detected

    def state_dict(self) -> dict:
        """Return the losses and counts so far."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping) -> None:
        """Restore what `state_dict` returned."""
        vars(self).update(state)

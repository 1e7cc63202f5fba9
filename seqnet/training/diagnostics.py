"""Diagnostics: values that are not finite, norms of gradients, and loss spikes."""

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
"""The ratio to the first loss above which a warning is logged."""

SMALL_LOSS = 1e-3
"""There is no warning for a loss below this value."""

FIRST_SAMPLES = 32
"""The number of samples whose mean loss is the first loss."""


class NumericalError(FloatingPointError):
    """A loss or gradient is NaN or infinite; the message says where, and what to do.

    Attributes
    ----------
    headline : str
        The first sentence of the message: the batch, the epoch, and what is not finite.
    loss : float
        The loss of the batch.
    layers : list of str
        The layers whose gradients are not finite, in the order of the backward pass.
    gradient_norms : dict of str to float
        The L2 norm of the gradient of each trained weight, before clipping.
    weight_norms : dict of str to float
        The L2 norm of each weight, after the update.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.Dense(1)])
    >>> model.compile(seqnet.optimizers.SGD(1e30), "mse")
    >>> try:
    ...     model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=9, verbose=0)
    ... except seqnet.NumericalError as error:
    ...     print(error.headline)
    Batch 1 of epoch 2: the loss is inf.
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
    """Return the error for an update with a loss or gradient that is not finite.

    Parameters
    ----------
    model : Model
        The model after the update.
    place : str
        The batch and the epoch.
    loss : float
    gradient_norms : mapping
        The norms of the gradients of the trained weights, in the order of the model.
    note : str
        Additional information.
    """
    weight_norms = {weight.name: norm_of(weight) for weight in model.weights}
    nonfinite = {  # by layer, in the order of the backward pass
        layer.display_name: names
        for layer in reversed(model.layers)
        if (names := [n for n in names_of(layer) if not is_finite(gradient_norms, n)])
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
        f"Try a lower learning rate (it is {model.optimizer.learning_rate:g}), clipnorm= of the "
        f"optimizer (it is {model.optimizer.clipnorm}), or float64, and inspect the batch.",
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
    """Explain which values are not finite; `nonfinite` has the names of weights by layer."""
    explanation = []
    if not math.isfinite(loss):
        explanation.append(
            "The forward pass was already non-finite: the batch has values that the model or the "
            "loss cannot handle, or the weights were too large or not finite before."
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
        text += f" It may have become so in {names}, where no weights are trained."
    return [*explanation, text]


def weights_after(weight_norms: Mapping[str, float]) -> str:
    """Describe the weights after the update."""
    changed = [name for name, norm in weight_norms.items() if not math.isfinite(norm)]
    if not changed:
        return "The update of this batch was made."
    return (
        "The update of this batch was made, and these weights are not finite now: "
        f"{', '.join(changed)}."
    )


def is_finite(norms: Mapping[str, float], name: str) -> bool:
    """Return whether the gradient norm of a weight is finite; True without a gradient."""
    return math.isfinite(norms.get(name, 0.0))


def untrained_above(model: Model, name: str, gradient_norms: Mapping[str, float]) -> list[str]:
    """Return the layers without gradients between a layer and the next one with gradients."""
    place = [layer.name for layer in model.layers].index(name)
    found = []
    for layer in model.layers[place + 1 :]:
        if any(weight.name in gradient_norms for weight in layer.weights):
            break
        found.append(layer.display_name)
    return found


def table(gradient_norms: Mapping[str, float], weight_norms: Mapping[str, float]) -> str:
    """Format the norms of all weights as a table."""
    width = max([6, *map(len, weight_norms)])
    lines = [f"{'norms':{width}}  {'gradient':>11}  {'weight':>11}"]
    for name, norm in weight_norms.items():
        gradient = f"{gradient_norms[name]:.4g}" if name in gradient_norms else "not trained"
        lines.append(f"{name:{width}}  {gradient:>11}  {norm:>11.4g}")
    return "\n".join(lines)


def norm_of(weight: SharedVariable) -> float:
    """Return the L2 norm of a shared variable, computed in double precision."""
    return math.sqrt(np.square(weight.get_value(borrow=True), dtype="float64").sum())


def nonfinite_weights(model: Model) -> list[str]:
    """Return the names of the weights with NaN or infinite values."""
    return [w.name for w in model.weights if not np.isfinite(w.get_value(borrow=True)).all()]


def can_be_saved(model: Model, path: str | os.PathLike) -> bool:
    """Return whether all weights are finite; if not, warn that the file is not written."""
    nonfinite = nonfinite_weights(model)
    if nonfinite:
        log.warning("%s is not written: %s not finite.", path, ", ".join(nonfinite))
    return not nonfinite


class GradientNorms:
    """Norms of gradients before clipping, summed over updates.

    Attributes
    ----------
    updates : int
    total : float
        The sum of the joint norms of all gradients.
    trained : tuple of bool
        Which weights of the model `each` refers to.
    since, each : int, array
        The number of updates in the sum, and the sum of the norms of each weight; both are reset
        when other weights are trained.
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

    def means(self, weights: Iterable[SharedVariable]) -> dict[str, float]:
        """Return the mean norm of each weight of a model by name."""
        return name_norms(weights, self.trained, self.each / max(self.since, 1))

    def state_dict(self) -> dict:
        """Return the norms so far."""
        return vars(self) | {"trained": list(self.trained), "each": self.each.tolist()}

    def load_state_dict(self, state: Mapping) -> None:
        """Restore what `state_dict` returned."""
        vars(self).update(state)
        self.trained = tuple(state["trained"])
        self.each = np.array(state["each"], "float64")


def names_of(layer: Layer) -> list[str]:
    """Return the names of the weights of a layer."""
    return [str(weight.name) for weight in layer.weights]


def name_norms(
    weights: Iterable[SharedVariable], trained: Sequence[bool], norms: np.ndarray
) -> dict[str, float]:
    """Return norms by the names of the trained weights among all weights of a model."""
    names = [str(weight.name) for weight, on in zip(weights, trained, strict=False) if on]
    return dict(zip(names, norms.tolist(), strict=True))


class LossSpikeDetector:
    """Detect that the loss has risen to several times the first loss.

    The loss is smoothed, with a weight of one tenth for each new batch, and the first loss is the
    mean over the first 32 samples, so that one hard batch is not a spike. A loss below 0.001 is not
    a spike either. If the first loss is 0 or below, the detector never fires.

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
        """Add the loss of a batch; return True once, when a spike is detected."""
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

"""Trouble with numbers, caught and told: what is not finite, where it broke first, what to do."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np

log = logging.getLogger("seqnet")

RISE = 3.0
"""How many times the first loss is worth a warning."""

TINY = 1e-3
"""A loss below this is never warned about."""

FIRST = 32
"""The mean over so many examples is the first loss."""


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

    def __init__(self, headline, story, loss, layers, gradient_norms, weight_norms):
        super().__init__(f"{headline}\n\n{story}")
        self.headline, self.loss, self.layers = headline, loss, layers
        self.gradient_norms, self.weight_norms = gradient_norms, weight_norms


def diagnose(
    model, place: str, loss: float, gradient_norms: Mapping[str, float], note: str = ""
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
    broken = {  # by layer, from the loss on
        layer.name: names
        for layer in reversed(model.layers)
        if (names := [w.name for w in layer.weights if not is_finite(gradient_norms, w.name)])
    }
    layers = list(broken)
    headline = f"{place}: the loss is {loss}."
    if math.isfinite(loss):
        headline = (
            f"{place}: the gradient of layer {layers[0]!r} is not finite, though the loss is "
            f"{loss:.6g}."
        )
    story = [
        *where_it_broke(model, loss, broken, gradient_norms),
        table(gradient_norms, weight_norms),
        f"{what_became(weight_norms)} Go on from a file that was saved before, or build the model "
        f"again. {note}".rstrip(),
        f"What helps: a lower learning rate (it is {model.optimizer.learning_rate:g}), clipnorm= "
        f"of the optimizer (it is {model.optimizer.clipnorm}), float64, and a look at the batch.",
    ]
    return NumericalError(
        headline, "\n\n".join(story), loss, layers, dict(gradient_norms), weight_norms
    )


def where_it_broke(
    model, loss: float, broken: Mapping[str, list[str]], gradient_norms: Mapping[str, float]
) -> list[str]:
    """Tell how far a batch came, forward and back; `broken` has names of weights by layer."""
    story = []
    if not math.isfinite(loss):
        story.append(
            "It was so going forward, before there was any gradient: the batch has values that the "
            "model or the loss cannot take, or the weights were too large or not finite before."
        )
    if not broken:
        story.append("All gradients are finite: it is the loss alone that has no finite value.")
        return story
    layer, *others = broken
    weights = ", ".join(name.removeprefix(f"{layer}/") for name in broken[layer])
    text = (
        f"Going back from the loss, the first gradient to break is that of layer {layer!r} "
        f"({weights})"
    )
    text += f", then of {', '.join(map(repr, others))}." if others else ", and no other."
    above = untrained_above(model, layer, gradient_norms)
    if above and math.isfinite(loss):
        text += (
            f" It may have broken on its way through {' and '.join(map(repr, above))}, where no "
            "weights are trained."
        )
    return [*story, text]


def what_became(weight_norms: Mapping[str, float]) -> str:
    """Tell what an update that was made has done to the weights."""
    changed = [name for name, norm in weight_norms.items() if not math.isfinite(norm)]
    if not changed:
        return "The update of this batch has been made."
    return (
        "The update of this batch has been made, and these weights are not finite now: "
        f"{', '.join(changed)}."
    )


def is_finite(norms: Mapping[str, float], name: str) -> bool:
    """Tell whether a weight's norm is finite; one that is not trained has none, and is."""
    return math.isfinite(norms.get(name, 0.0))


def untrained_above(model, name: str, gradient_norms: Mapping[str, float]) -> list[str]:
    """Return the layers without gradients between a layer and the next that has some."""
    place = [layer.name for layer in model.layers].index(name)
    found = []
    for layer in model.layers[place + 1 :]:
        if any(weight.name in gradient_norms for weight in layer.weights):
            break
        found.append(layer.name)
    return found


def table(gradient_norms: Mapping[str, float], weight_norms: Mapping[str, float]) -> str:
    """Return the norms of all weights as lines."""
    width = max([6, *map(len, weight_norms)])
    lines = [f"{'norms':{width}}  {'gradient':>11}  {'weight':>11}"]
    for name, norm in weight_norms.items():
        gradient = f"{gradient_norms[name]:.4g}" if name in gradient_norms else "not trained"
        lines.append(f"{name:{width}}  {gradient:>11}  {norm:>11.4g}")
    return "\n".join(lines)


def norm_of(weight) -> float:
    """Return the L2 norm of a shared variable, added up in double."""
    return math.sqrt(np.square(weight.get_value(borrow=True), dtype="float64").sum())


def broken_weights(model) -> list[str]:
    """Return the names of the weights that hold a NaN or infinity."""
    return [w.name for w in model.weights if not np.isfinite(w.get_value(borrow=True)).all()]


def worth_saving(model, path) -> bool:
    """Tell whether all weights are finite; else a warning says that the file is not written."""
    broken = broken_weights(model)
    if broken:
        log.warning("%s is not written: %s not finite.", path, ", ".join(broken))
    return not broken


class Norms:
    """Norms of gradients before clipping, added up over updates.

    Attributes
    ----------
    updates : int
    total : float
        The sum of the joint norms of all gradients.
    trained : tuple of bool
        Which layers `each` is of.
    since, each : int, array
        How many updates it is the sum of, and the sum of each weight's norm; it begins anew when
        other layers are trained.
    """

    def __init__(self):
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

    def means(self, layers) -> dict[str, float]:
        """Return the mean norm of each weight by name."""
        return name_norms(layers, self.trained, self.each / max(self.since, 1))

    def get_state(self) -> dict:
        """Return all of it, as JSON can hold it."""
        return vars(self) | {"trained": list(self.trained), "each": self.each.tolist()}

    def set_state(self, state: Mapping) -> None:
        """Take what `get_state` returned."""
        vars(self).update(state)
        self.trained = tuple(state["trained"])
        self.each = np.array(state["each"], "float64")


def name_norms(layers, trained: Sequence[bool], norms: np.ndarray) -> dict[str, float]:
    """Return norms by the names of the weights of those layers that are trained."""
    kept = [layer for layer, on in zip(layers, trained, strict=False) if on]
    names = [weight.name for layer in kept for weight in layer.weights]
    return dict(zip(names, norms.tolist(), strict=True))


class Rise:
    """Notices when the loss has risen to several times the first.

    A batch's loss is smoothed, each new one counting a tenth, and the first is the mean over the
    first 32 examples: a batch that happens to be hard is no trouble, and neither is a loss below
    0.001. A loss that begins at 0 or below has no such multiple and is not watched.

    Examples
    --------
    >>> from seqnet.trouble import Rise
    >>> rise = Rise()
    >>> [rise.notices(loss, 32) for loss in (1.0, 9.0, 1.0, 15.0, 15.0)]
    [False, False, False, True, False]
    """

    def __init__(self):
        self.first = self.smooth = 0.0
        self.updates = self.examples = 0
        self.noticed = False

    def notices(self, loss: float, examples: int) -> bool:
        """Take the loss of an update; tell, once, that it has risen."""
        if self.noticed or not math.isfinite(loss):
            return False
        if self.examples < FIRST:
            self.updates += 1
            self.examples += examples
            self.first += (loss - self.first) / self.updates
            self.smooth = self.first
            return False
        self.smooth += (loss - self.smooth) / 10
        self.noticed = 0 < RISE * self.first < self.smooth and self.smooth > TINY
        return self.noticed

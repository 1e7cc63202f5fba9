"""From layers to compiled functions: the train, test and predict functions and their figures.

The story of a batch: the layers pass (value, mask) from one to the next; the loss gives a value
for each step; values are weighted by sample weights and mask; the optimizer's updates happen
inside the same compiled call. Sums come back, never means, so an epoch's figures are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytensor.tensor as pt

from seqnet import backend
from seqnet.data import Examples, cast
from seqnet.layers.layer import Phase
from seqnet.losses import Loss
from seqnet.ops.count import count
from seqnet.stack import forward
from seqnet.trouble import Norms, NumericalError, diagnose, name_norms
from seqnet.windows import symbolic_states


class Signature(NamedTuple):
    """What kind of arrays a compiled function takes; one function is kept for each."""

    kind: str
    x_shape: tuple[int | None, ...]
    x_dtype: str
    y_shape: tuple[int | None, ...] | None = None
    y_dtype: str | None = None
    weight_shape: tuple[int | None, ...] | None = None
    mask_shape: tuple[int | None, ...] | None = None


def signature_of(kind: str, batch: Examples, float_dtype: str, fixed_length: bool) -> Signature:
    """Return the signature of arrays already cast to what functions take.

    The length of the inputs is part of it for models that unroll, and all sizes of all arrays for
    backends that need them.
    """

    def shape(array):
        if array is None:
            return None
        return array.shape if backend.needs_sizes() else (None,) * array.ndim

    x_shape = shape(batch.x)
    if fixed_length and batch.x.ndim > 1:
        features = max(2, batch.x.ndim - 1)  # all axes before them are steps
        x_shape = (x_shape[0], *batch.x.shape[1:features], *x_shape[features:])
    return Signature(
        kind,
        x_shape,
        kernel_dtype(batch.x, float_dtype),
        shape(batch.y),
        None if batch.y is None else kernel_dtype(batch.y, float_dtype),
        shape(batch.weight),
        shape(batch.mask),
    )


def kernel_dtype(array: np.ndarray, float_dtype: str) -> str:
    """Return the dtype an array is cast to before a compiled function sees it."""
    return "int32" if array.dtype.kind in "iub" else float_dtype


@dataclass
class Inputs:
    """The symbolic inputs of one compiled function, those of them that there are."""

    x: object
    y: object = None
    weight: object = None
    mask: object = None

    @classmethod
    def of(cls, signature: Signature, float_dtype: str) -> Inputs:
        """Make variables for a signature."""
        inputs = cls(pt.tensor("x", dtype=signature.x_dtype, shape=signature.x_shape))
        if signature.y_shape is not None:
            inputs.y = pt.tensor("y", dtype=signature.y_dtype, shape=signature.y_shape)
        if signature.weight_shape is not None:
            shape = signature.weight_shape
            inputs.weight = pt.tensor("sample_weight", dtype=float_dtype, shape=shape)
        if signature.mask_shape is not None:
            inputs.mask = pt.tensor("mask", dtype="bool", shape=signature.mask_shape)
        return inputs

    def given(self) -> list:
        """Return the variables in the order `arguments` gives arrays."""
        return [v for v in (self.x, self.y, self.weight, self.mask) if v is not None]


def arguments(batch: Examples, float_dtype: str) -> list[np.ndarray]:
    """Return a batch's arrays as a compiled function takes them."""
    values = [cast(batch.x, float_dtype)]
    if batch.y is not None:
        values.append(cast(batch.y, float_dtype))
    if batch.weight is not None:
        values.append(np.ascontiguousarray(batch.weight, dtype=float_dtype))
    if batch.mask is not None:
        values.append(np.ascontiguousarray(batch.mask))
    return values


def step_weights(values, weight, mask):
    """Return the weight of each of a loss's values, of the same shape; None for all ones.

    `weight` is (batch,) or (batch, time), `mask` (batch, time) bool. A mask counts only where the
    values have a time axis.
    """
    total = None
    if weight is not None:
        total = weight
        for _ in range(values.ndim - weight.ndim):
            total = total[..., None]
    if mask is not None and values.ndim >= 2:
        present = pt.cast(mask, values.dtype)
        for _ in range(values.ndim - 2):
            present = present[..., None]
        total = present if total is None else total * present
    return total if total is None else total + pt.zeros_like(values)


def weighted_sum(values, weights):
    """Return ``sum(weights * values)``, in which a value of weight 0 counts nothing, NaN or not."""
    if weights is None:
        return pt.sum(values)
    return pt.sum(pt.switch(pt.gt(weights, 0), weights * values, pt.zeros_like(values)))


class Program:
    """Builds the functions of a model from its layers, loss, metrics and optimizer."""

    def __init__(self, layers, float_dtype: str, loss=None, metrics=(), optimizer=None):
        self.layers = list(layers)
        self.float_dtype = float_dtype
        self.loss = loss
        self.metrics = list(metrics)
        self.optimizer = optimizer

    def phase(self, run: str) -> Phase:
        """Return a new pass of a kind of run, with the kernels that the configured backend runs."""
        return Phase(training=run == "train", run=run, kernels=backend.kernels())

    def predict(self, signature: Signature, announce: bool) -> Callable:
        """Compile ``x (, mask) -> [output]``."""
        inputs = Inputs.of(signature, self.float_dtype)
        phase = self.phase("predict")
        output, _ = forward(self.layers, inputs.x, inputs.mask, phase)
        return backend.compile(
            inputs.given(), [output], phase.updates, name="prediction", announce=announce
        )

    def test(self, signature: Signature, announce: bool) -> Callable:
        """Compile ``x, y (, weight) (, mask) -> [sums]``; see `Figures`."""
        inputs = Inputs.of(signature, self.float_dtype)
        phase = self.phase("test")
        figures, *_ = self.figures(inputs, phase)
        return backend.compile(
            inputs.given(), figures, phase.updates, name="evaluation", announce=announce
        )

    def train(self, signature: Signature, announce: bool) -> Callable:
        """Compile the sums before an update, and the update; see `Update` for what comes back."""
        return self.updating(signature, announce, {})

    def train_window(self, signature: Signature, announce: bool) -> Callable:
        """Compile ``x, y (, ...), states... -> [sums, squares, last states...]`` and the update."""
        return self.updating(signature, announce, symbolic_states(self.layers))

    def updating(self, signature: Signature, announce: bool, states: dict) -> Callable:
        """Compile a training step that starts from given states of some layers."""
        inputs = Inputs.of(signature, self.float_dtype)
        phase = self.phase("train")
        phase.initial_states |= states
        figures, total, over = self.figures(inputs, phase)
        weights = [w for layer in self.layers if layer.trainable for w in layer.weights]
        updates, squares = {}, pt.zeros(0, "float64")
        if weights:
            gradients = self.optimizer.gradients(total, weights, over, phase.kernels)
            updates, squares = self.optimizer.descend(gradients), gradients.squares
        updates.update(phase.updates)
        last = [state for layer in states for state in phase.final_states[layer]]
        return backend.compile(
            [*inputs.given(), *(state for values in states.values() for state in values)],
            [*figures, squares, *last],
            updates,
            name="training",
            announce=announce,
        )

    def figures(self, inputs: Inputs, phase: Phase):
        """Return [loss sum, weight sum, penalty, metric sums...], and what to minimise.

        That is a sum and the weight to divide it by.
        """
        output, mask = forward(self.layers, inputs.x, inputs.mask, phase)
        loss = self.loss
        if phase.kernels is not None and isinstance(loss, Loss):
            loss = loss.with_kernels(phase.kernels)
        values = loss(inputs.y, output)
        if values.ndim == 0:
            raise ValueError(
                "A loss gives one value for each example or step, (batch,) or (batch, time), and "
                "not one number: leave the averaging to seqnet, which knows masks and weights."
            )
        needed = 2 if mask is not None and output.ndim > 2 else 1
        if values.ndim < max(needed, 1 if inputs.weight is None else inputs.weight.ndim):
            raise ValueError(
                "The outputs at steps are masked or weighted, so the loss must give a value for "
                f"each step, (batch, time); it gives {values.ndim} axes."
            )
        weights = step_weights(values, inputs.weight, mask)
        loss_sum = weighted_sum(values, weights)
        weight_sum = count(values, phase.kernels) if weights is None else pt.sum(weights)
        penalties = [penalty(w) for layer in self.layers for penalty, w in layer.penalties]
        penalty = sum(penalties) if penalties else pt.zeros((), dtype=values.dtype)
        over = weight_sum
        if weights is not None:  # which may all be 0
            one = np.asarray(1, dtype=values.dtype)
            over = pt.switch(pt.gt(weight_sum, 0), weight_sum, one)
        total = loss_sum + penalty * over if penalties else loss_sum
        sums = []
        for metric in self.metrics:
            metric_values = metric(inputs.y, output)
            if metric_values.ndim != values.ndim:
                raise ValueError(
                    f"The metric {metric.name!r} gives {metric_values.ndim} axes, and the loss "
                    f"{values.ndim}: a metric gives one value wherever the loss does, (batch,) or "
                    "(batch, time), and leaves the averaging to seqnet."
                )
            metric_weights = step_weights(metric_values, inputs.weight, mask)
            sums.append(weighted_sum(metric_values, metric_weights))
        return [loss_sum, weight_sum, penalty, *sums], total, over


class Update:
    """Makes one update of a model's weights, and holds what came of it.

    Attributes
    ----------
    sums : list of float
        See `Figures`.
    states : list of arrays
        The last states of recurrent layers, where the update started from given ones.
    loss : float
        The mean loss of the batch, penalties included.
    norms : float64 array
        The L2 norm of the gradient of each trained weight.
    trained : tuple of bool
        Which layers these are of.
    joint : float
        The norm of all gradients together.
    """

    def __init__(self, model, kind: str, batch: Examples, states: Sequence = ()):
        self.trained = tuple([layer.trainable for layer in model.layers])
        found = model.compute(kind, batch, *states)
        count = 3 + len(model.metrics)
        self.sums = [float(value) for value in found[:count]]
        self.states = found[count + 1 :]
        loss_sum, weight_sum, penalty = self.sums[:3]
        over = weight_sum or 1.0
        self.loss = loss_sum / over + penalty
        self.norms = np.sqrt(found[count]) / over
        self.joint = math.sqrt(self.norms.dot(self.norms))

    @property
    def finite(self) -> bool:
        """Whether the loss and all gradients are."""
        if math.isfinite(self.loss + self.joint):
            return True
        return math.isfinite(self.loss) and bool(np.isfinite(self.norms).all())

    def add_to(self, norms: Norms) -> None:
        """Add the norms to others."""
        norms.add(self.joint, self.norms, self.trained)

    def error(self, model, place: str, note: str = "") -> NumericalError:
        """Return what to raise if something is not finite."""
        norms = name_norms(model.layers, self.trained, self.norms)
        return diagnose(model, place, self.loss, norms, note)


class Figures:
    """Adds up what train and test functions return, and turns it into figures by name."""

    def __init__(self, metrics, *batches):
        self.metrics = list(metrics)
        self.sums = [0.0] * (3 + len(self.metrics))
        self.batches = 0
        for sums in batches:
            self.add(sums)

    def add(self, sums) -> None:
        """Add one batch's sums."""
        for k, value in enumerate(sums):
            self.sums[k] += float(value)
        self.batches += 1

    def result(self, prefix: str = "") -> dict[str, float]:
        """Return the means so far; 0 where nothing had any weight."""
        loss_sum, weight_sum, penalty, *metric_sums = self.sums
        scale = 1.0 / weight_sum if weight_sum > 0 else 0.0
        result = {f"{prefix}loss": loss_sum * scale + penalty / max(self.batches, 1)}
        for metric, value in zip(self.metrics, metric_sums, strict=True):
            result[prefix + metric.name] = metric.finish(value * scale)
        return result


def figure_names(metrics, validation: bool = False) -> list[str]:
    """Return the names of the figures of an epoch, those of its validation too if it has one."""
    names = ["loss", *(metric.name for metric in metrics)]
    return names + ([f"val_{name}" for name in names] if validation else [])

"""Class weights, applied as weights of samples or steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from seqnet.common.checks import check_count, check_fits, check_number
from seqnet.data.dataset import Batch
from seqnet.data.named import by_name, with_names, without_names
from seqnet.data.validation import with_axes
from seqnet.losses.crossentropy import (
    DistributionLoss,
    ProbabilityLoss,
    SparseCategoricalCrossentropy,
)

if TYPE_CHECKING:
    from seqnet.model import Model


class ClassWeight:
    """Multiply the sample weights of a batch by the class weights of its targets.

    Parameters
    ----------
    class_weight : dict of int to float
        Classes that are not in it have the weight 1, as in Keras. With several outputs, a
        dictionary of these by output name.
    model : Model

    Raises
    ------
    ValueError, TypeError
        If the targets of the loss are not classes, or `class_weight` names a class or an output
        that does not exist.
    """

    def __init__(self, class_weight: Mapping, model: Model):
        names = self.names = model.output_names
        named = isinstance(class_weight, Mapping) and any(n in names for n in class_weight)
        if len(names) > 1 and not isinstance(class_weight, Mapping):
            raise TypeError(f"class_weight is a dict of output names, got {class_weight!r}.")
        if named or len(names) > 1:
            class_weight = by_name(class_weight, names, "class_weight", "output", optional=names)
        else:
            class_weight = {names[0]: class_weight}
        features = with_names(model.output_features, names)
        self.tables = {
            name: OutputClassWeight(weights, spec.loss, features[name], model.dtype)
            for name, spec in model.output_specs.items()
            if (weights := class_weight.get(name)) is not None
        }

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with its sample weights multiplied."""
        targets = with_names(batch.targets, self.names)
        weights = dict(with_names(batch.sample_weight, self.names))
        for name, table in self.tables.items():
            weights[name] = table.weights(targets[name], weights.get(name))
        return replace(batch, sample_weight=without_names(weights, self.names))


class OutputClassWeight:
    """The class weights of one output.

    Parameters
    ----------
    class_weight : dict of int to float
    loss : Loss or function
    classes : int
        The size of the last axis of the output.
    dtype : str
        The model's float type.
    """

    def __init__(self, class_weight: Mapping[int, float], loss: Any, classes: int, dtype: str):
        self.loss = loss
        binary = isinstance(loss, ProbabilityLoss) and classes == 1
        if not binary and not isinstance(loss, (DistributionLoss, SparseCategoricalCrossentropy)):
            name = getattr(loss, "name", getattr(loss, "__name__", loss))
            raise ValueError(
                "class_weight needs targets that are classes: class numbers, one-hot rows, or 0 "
                f"and 1 for a single sigmoid. With the loss {name} they are not; use sample_weight."
            )
        self.table = weight_table(class_weight, 2 if binary else classes)
        check_fits(self.table, "class_weight", dtype)

    def weights(self, targets: np.ndarray, given: np.ndarray | None) -> np.ndarray:
        """Return the weight of each target, times the given weights."""
        classes = self.class_numbers(targets)
        weights = self.table[np.clip(classes, 0, len(self.table) - 1)]
        if given is None:
            return weights
        return with_axes(given, weights.ndim) * with_axes(weights, given.ndim)

    def class_numbers(self, y: np.ndarray) -> np.ndarray:
        """Return the class of each target."""
        if isinstance(self.loss, DistributionLoss):
            return y.argmax(axis=-1)
        if isinstance(self.loss, ProbabilityLoss):
            return (np.nan_to_num(y[..., 0]) > 0.5).astype(int)
        return y


def weight_table(class_weight: Mapping, classes: int) -> np.ndarray:
    """Check class weights and return the weight of each class as an array.

    Examples
    --------
    >>> from seqnet.data.class_weight import weight_table
    >>> weight_table({2: 5.0}, 3).tolist()
    [1.0, 1.0, 5.0]
    """
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            f"class_weight is a dict of class numbers to weights, such as {{0: 1.0, 1: 5.0}}; got "
            f"{class_weight!r}."
        )
    table = np.ones(classes)
    for number, weight in class_weight.items():
        if check_count(number, "a class in class_weight", 0) >= classes:
            raise ValueError(
                f"class_weight has a weight for class {number}, but there are {classes} classes, "
                f"0 to {classes - 1}."
            )
        check_number(weight, f"The weight of class {number}")
        if not np.isfinite(weight) or weight < 0:
            raise ValueError(
                f"The weight of class {number} must be finite and not negative, got {weight}."
            )
        table[number] = weight
    return table

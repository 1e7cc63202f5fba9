"""What outputs are trained for: the loss, its weight and the metrics of each.

A step returns sums and never means: first the penalties and the number of examples, and then for
each objective the loss times the weights of steps, these weights, and the statistics of metrics.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from typing import Any, TypeAlias, cast

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.traversal import ancestors

from seqnet import losses
from seqnet.common.checks import check_number
from seqnet.common.types import Array, Tensor
from seqnet.layers.calling import masks_together
from seqnet.losses import Loss, SequenceLoss, values_function
from seqnet.losses.reduction import name_of, step_weights, values_of, weighted_sum
from seqnet.metrics.metric import Metric
from seqnet.ops.count import count

Sum: TypeAlias = float | Array
"""A sum over batches: a number, or a float64 array."""


@dataclass
class Objective:
    """The loss and the metrics of one output.

    Attributes
    ----------
    loss : function of (y_true, y_pred)
    metrics : list of Metric
    weight : float
        What the loss is multiplied by, if there are several.
    output : str
        The name of the output; empty for the only output of a model.
    """

    loss: Callable
    metrics: list[Metric] = field(default_factory=list)
    weight: float = 1.0
    output: str = ""

    @cached_property
    def prefix(self) -> str:
        """The beginning of names in logs."""
        return f"{self.output}_" if self.output else ""

    @cached_property
    def metric_names(self) -> list[str]:
        """The names of the metrics in logs."""
        return [self.prefix + metric.name for metric in self.metrics]

    @cached_property
    def size(self) -> int:
        """The number of sums that a step returns."""
        return 2 + sum(len(metric.sums) for metric in self.metrics)

    @property
    def reduction(self) -> str | None:
        """How the loss makes one number of its values."""
        return self.loss.reduction if isinstance(self.loss, Loss) else "mean"

    def graph(
        self,
        y: Tensor | None,
        output: Tensor,
        weight: Tensor | None,
        mask: Tensor | None,
        whole: bool = True,
    ) -> tuple[list[Tensor], Tensor]:
        """Return the sums of a batch, and the weight to divide the sum of losses by.

        Parameters
        ----------
        y, output : variables
            Targets, None if the loss needs none, and predictions.
        weight : variable (batch,) or (batch, time), optional
        mask : bool variable, optional
        whole : bool
            Whether it is a whole batch. With ``reduction="sum"``, the loss of a whole batch is
            multiplied by the weight that it is divided by.
        """
        what = f"The loss {name_of(self.loss)!r}"
        what += f" of the output {self.output!r}" if self.output else ""
        reduction = self.reduction
        if reduction in ("none", None):
            raise ValueError(
                f"{what} has reduction={reduction!r}, which leaves no single number to minimise: "
                "in a model use 'sum', or 'sum_over_batch_size' for the mean."
            )
        function, steps = values_function(self.loss), mask
        if isinstance(self.loss, SequenceLoss):
            function = partial(self.loss.of_sequences, mask=mask)
            if self.loss.of_batch and weight is not None:
                raise ValueError(
                    f"{what} is one number for a batch, so sample_weight and class_weight cannot "
                    "be used. With axis=(1, 2) there is a loss for each sequence."
                )
            steps = None if mask is None else pt.any(mask, axis=1)  # of the values: of sequences
        y = cast(Tensor, y)  # a loss that needs no targets does not look at them
        values = values_of(function, y, output, what)
        check_gradient(values, output, what)
        values = pt.cast(values, output.dtype)
        check_values(values, steps, weight, isinstance(self.loss, SequenceLoss))
        counted = self.loss.counted(y) if isinstance(self.loss, Loss) and y is not None else None
        if counted is not None:  # the metrics look at class 0 instead of a class that is ignored
            mask, y = masks_together(mask, counted), pt.switch(counted, y, pt.zeros_like(y))
            steps = mask
        weights = step_weights(values, weight, steps)
        loss_sum = weighted_sum(values, weights)
        weight_sum = over = count(values) if weights is None else pt.sum(weights)
        if weights is not None:  # which may all be 0
            one = np.asarray(1, dtype=values.dtype)
            over = pt.switch(pt.gt(weight_sum, 0), weight_sum, one)
        if reduction == "sum" and whole:
            loss_sum = loss_sum * over  # which is divided by `over` in the end
        statistics = [s for metric in self.metrics for s in metric.graph(y, output, weight, mask)]
        return [loss_sum, weight_sum, *statistics], over

    def weighted(self, mean: Tensor) -> Tensor:
        """Return a mean loss times the weight of this objective."""
        return mean if self.weight == 1 else mean * np.asarray(self.weight, mean.dtype)

    def mean_loss(self, sums: Sequence[Sum]) -> float:
        """Return the mean loss from sums; 0 where nothing had any weight."""
        loss_sum, weight_sum = cast(Sequence[float], sums[:2])
        return loss_sum / weight_sum if weight_sum > 0 else loss_sum * 0.0

    def results(self, sums: Sequence[Sum], batches: int) -> dict[str, float]:
        """Return the results of the metrics by name."""
        statistics = iter(sums[2:])
        found = {}
        for name, metric in zip(self.metric_names, self.metrics, strict=True):
            totals = list(islice(statistics, len(metric.sums)))
            found[name] = metric.result_of(totals if batches else None)
        return found


class Objectives(tuple[Objective, ...]):
    """The objectives of a model, and what their sums give."""

    @cached_property
    def starts(self) -> list[int]:
        """The places of the first sums of each objective."""
        sizes = [objective.size for objective in self]
        return [2 + sum(sizes[:number]) for number in range(len(sizes))]

    @cached_property
    def number_of_sums(self) -> int:
        """The number of sums that a step returns."""
        return 2 + sum(objective.size for objective in self)

    def parts(self, sums: Sequence[Sum]) -> list[Sequence[Sum]]:
        """Return the sums of each objective."""
        return [sums[at : at + o.size] for at, o in zip(self.starts, self, strict=True)]

    def has_weight(self, sums: Sequence[Sum]) -> bool:
        """Return whether any value of a loss has a weight above 0."""
        return any([sums[at + 1] != 0 for at in self.starts])

    def total_loss(self, sums: Sequence[Sum]) -> float:
        """Return the loss that is minimised, penalties included, from sums."""
        penalty_sum, examples = cast(Sequence[float], sums[:2])
        loss = penalty_sum / (examples or 1.0)
        for at, objective in zip(self.starts, self, strict=True):
            loss += objective.weight * objective.mean_loss(sums[at : at + 2])
        return loss

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names in the logs of the training data."""
        losses = [f"{objective.prefix}loss" for objective in self] if len(self) > 1 else []
        return "loss", *losses, *(name for o in self for name in o.metric_names)

    def log_names(self, validation: bool = False) -> list[str]:
        """Return the names in the logs of an epoch, those of its validation too if it has one."""
        return [*self.names, *(f"val_{name}" for name in self.names if validation)]


def check_values(
    values: Tensor, mask: Tensor | None, weight: Tensor | None, of_sequences: bool = False
) -> None:
    """Raise ``ValueError`` if a loss does not return a value wherever there is a mask or weight."""
    if of_sequences and weight is not None and weight.ndim > 1:
        raise ValueError(
            "The loss has one value for each sequence, so sample_weight must have the shape "
            f"(samples,): one weight for each sequence. It has {weight.ndim} axes."
        )
    if values.ndim == 0:
        raise ValueError(
            "A loss gives one value for each example or step, (batch,) or (batch, time), and "
            "not one number: leave the averaging to seqnet, which knows masks and weights."
        )
    for name, given in (("mask", mask), ("sample_weight", weight)):
        if given is not None and values.ndim < given.ndim:
            raise ValueError(
                "The outputs at steps are masked or weighted, so the loss must give a value for "
                f"each step, (batch, time); it gives {values.ndim} axes, and the {name} has "
                f"{given.ndim}."
            )


def check_gradient(values: Tensor, output: Tensor, what: str) -> None:
    """Raise if nothing could be learned from a loss: it has no gradient."""
    kind = np.dtype(values.dtype).kind
    if kind != "f":
        raise TypeError(
            f"{what} gives values of the dtype {values.dtype}, which have no gradient: nothing "
            "can be learned from it. It may be a metric."
        )
    before = [] if output.owner is None else output.owner.inputs  # the logits, of a cross-entropy
    of_output = {output, *before}
    if of_output.isdisjoint(ancestors([values], blockers=of_output)):
        raise ValueError(
            f"{what} does not depend on y_pred, so nothing can be learned from it. A loss is "
            "called as loss(y_true, y_pred)."
        )


# ---- the arguments of compile


def by_output(value: Any, names: Sequence[str], what: str) -> dict[str, Any]:
    """Return an argument of `Model.compile` by output, from a list or a dictionary.

    Raises
    ------
    ValueError
        If a name is unknown, or the number of items is not that of the outputs.
    """
    if isinstance(value, Mapping):
        for name in value:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(
                    f"{what} has the key {name!r}, but the outputs of the model are "
                    f"{', '.join(names)}.{hint}"
                )
        return {name: value.get(name) for name in names if name in value}
    if not isinstance(value, (list, tuple)) or len(value) != len(names):
        raise ValueError(
            f"The model has {len(names)} outputs, {', '.join(names)}, so {what} is a dictionary by "
            f"name or a list in this order; got {value!r}."
        )
    return dict(zip(names, value, strict=True))


def losses_by_output(loss: Any, names: Sequence[str]) -> dict[str, Callable | None]:
    """Return the loss of each output; None where an output is not trained."""
    if isinstance(loss, (Mapping, list, tuple)) and not is_configuration(loss):
        found = by_output(loss, names, "loss")
        missing = [name for name in names if name not in found]
        if missing:
            raise ValueError(
                f"The output {missing[0]!r} has no loss. Give it one, or None if it is not trained."
            )
        if all(value is None for value in found.values()):
            raise ValueError("No output has a loss, so nothing can be trained.")
        return {name: None if v is None else losses.get(v) for name, v in found.items()}
    return {name: losses.get(loss) for name in names}


def metrics_by_output(asked: Any, names: Sequence[str]) -> dict[str, list]:
    """Return the metrics that are asked for, by output."""
    if len(names) == 1 and not isinstance(asked, Mapping):
        return {names[0]: as_list(asked)}
    if not asked:
        return {}
    return {name: as_list(v) for name, v in by_output(asked, names, "metrics").items()}


def as_list(metrics: Any) -> list:
    """Return metrics as a list: one of them, several, or None for no metric."""
    if metrics is None:
        return []
    return list(metrics) if isinstance(metrics, (list, tuple)) else [metrics]


def weights_by_output(weights: Any, names: Sequence[str]) -> dict[str, float]:
    """Return the weight of the loss of each output, by default 1."""
    if weights is None:
        return {}
    if len(names) == 1 and not isinstance(weights, (Mapping, list, tuple)):
        weights = [weights]
    found = by_output(weights, names, "loss_weights")
    return {
        name: 1.0 if w is None else check_number(w, f"The loss weight of {name!r}")
        for name, w in found.items()
    }


def is_configuration(loss: Any) -> bool:
    """Return whether a dictionary is the configuration of one loss."""
    return isinstance(loss, Mapping) and "name" in loss and set(loss) <= {"name", "config"}

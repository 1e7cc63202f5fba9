"""What compiled steps return, and the totals of several steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from seqnet.common.types import Array
from seqnet.training.objectives import Objectives, Sum


def sums_of(outputs: Sequence, examples: int) -> list[Sum]:
    """Return the sums of a step from what its function returns, the penalties first.

    A sum is a Python number, or a float64 array if it has axes.
    """
    found = [np.asarray(v, "float64") if np.ndim(v) else float(v) for v in outputs]
    return [found[0] * examples, float(examples), *found[1:]]


class TestResult:
    """Sums over a batch.

    Attributes
    ----------
    sums : list of float or float64 array
        As `seqnet.training.objectives` lists them. `Totals` adds them up.
    states : list of array (samples, units)
        The last states of recurrent layers, if the step was given first ones.
    """

    __slots__ = ("states", "sums")
    __test__ = False  # not a test, despite its name

    def __init__(self, sums: list[Sum], states: Sequence[Array] = ()):
        self.sums, self.states = sums, list(states)


class PredictResult:
    """A model's outputs for a batch.

    Attributes
    ----------
    output : array (samples, ...), or a dictionary of arrays by name if there are several outputs
    states : list of array (samples, units)
        The last states of recurrent layers, if the step was given first ones.
    """

    __slots__ = ("output", "states")

    def __init__(self, outputs: Sequence, names: Sequence[str] = ("",)):
        count = len(names)
        self.output: Any = outputs[0]
        if count > 1:
            self.output = dict(zip(names, outputs[:count], strict=True))
        self.states = list(outputs[count:])


class TrainResult:
    """Sums over a batch before an update of the weights, and the gradient it was made with.

    Attributes
    ----------
    sums : list of float or float64 array
        As in `TestResult`.
    examples : int
        The number of samples.
    loss : float
        The mean loss of the batch, penalties included.
    gradient_norms : float64 array
        The L2 norm of the gradient of each trained weight.
    trained : tuple of bool
        Which of the model's weights these belong to.
    joint_norm : float
        The norm of all gradients together.
    finite : bool
        Whether the loss and all gradients are finite.
    empty : bool
        Whether all values of the losses had the weight 0.
    states : list of array (samples, units)
        The last states of recurrent layers, if the step was given first ones.
    where : str
        In which rows the loss is not finite, if that is known.
    """

    __slots__ = (
        "empty",
        "examples",
        "finite",
        "gradient_norms",
        "joint_norm",
        "loss",
        "states",
        "sums",
        "trained",
        "where",
    )

    def __init__(
        self,
        sums: list[Sum],
        squares: Array,
        states: list[Array],
        trained: tuple[bool, ...],
        objectives: Objectives,
        over: float = 1.0,
    ):
        self.trained, self.examples = trained, int(cast(float, sums[1]))
        self.sums, self.states, self.where = sums, states, ""
        self.loss = objectives.total_loss(sums)
        self.empty = not objectives.has_weight(sums)
        self.gradient_norms = np.sqrt(squares)
        if over != 1.0:
            self.gradient_norms /= over
        self.joint_norm = math.sqrt(self.gradient_norms.dot(self.gradient_norms))
        self.finite = math.isfinite(self.loss + self.joint_norm) or (
            math.isfinite(self.loss) and bool(np.isfinite(self.gradient_norms).all())
        )


class Totals:
    """Adds up the sums of train and test steps, and turns them into logs.

    Attributes
    ----------
    sums : list of float or float64 array
        As in `TestResult`.
    batches : int
    """

    def __init__(self, objectives: Objectives, *results: Iterable[Sum]):
        self.objectives = objectives
        self.sums: list[Sum] = [0.0] * objectives.number_of_sums
        self.batches = 0
        for sums in results:
            self.add(sums)

    def add(self, sums: Iterable[Sum]) -> None:
        """Add the sums of one batch."""
        self.sums = [total + value for total, value in zip(self.sums, sums, strict=True)]
        self.batches += 1

    def logs(self, prefix: str = "") -> dict[str, float]:
        """Return the results so far by name; 0 where nothing had any weight."""
        objectives = self.objectives
        values = [objectives.total_loss(self.sums)]
        parts = objectives.parts(self.sums)
        if len(objectives) > 1:
            values += [o.mean_loss(part) for o, part in zip(objectives, parts, strict=True)]
        for objective, part in zip(objectives, parts, strict=True):
            values += objective.results(part, self.batches).values()
        return {prefix + n: value for n, value in zip(objectives.names, values, strict=True)}

    def state_dict(self) -> dict:
        """Return the sums so far as numbers and lists."""
        return {"sums": [np.asarray(s).tolist() for s in self.sums], "batches": self.batches}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""
        self.sums = [np.asarray(s, "float64") if np.ndim(s) else float(s) for s in state["sums"]]
        self.batches = state["batches"]

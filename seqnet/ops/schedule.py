"""Learning rates that a Python function computes for each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op, OutputStorageType

from seqnet.common.checks import check_not_negative


def rate_at(schedule: Callable, step: int) -> float:
    """Return a schedule's learning rate at a step, or raise if it gives none."""
    name = getattr(schedule, "__name__", type(schedule).__name__)
    what = f"What the learning-rate schedule {name} returns for step {step}"
    value = schedule(step)
    if isinstance(value, Variable):
        raise TypeError(
            f"{what} must be a number, got a PyTensor variable. A schedule is called with a plain "
            "integer: use Python's or NumPy's functions."
        )
    return check_not_negative(value.item() if getattr(value, "ndim", None) == 0 else value, what)


class ScheduledRate(Op):
    """The float64 learning rate of a schedule at a step, an integer variable.

    The schedule is called when the compiled function runs.
    """

    __props__ = ("schedule",)

    def __init__(self, schedule: Callable) -> None:
        self.schedule = schedule

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.schedule is other.schedule

    def __hash__(self) -> int:
        return hash((type(self), id(self.schedule)))

    def make_node(self, *inputs: Variable) -> Apply:
        (step,) = inputs
        return Apply(self, [step], [pt.dscalar()])

    def perform(self, node: Apply, inputs: Sequence[Any], outputs: OutputStorageType) -> None:
        outputs[0][0] = np.asarray(rate_at(self.schedule, int(inputs[0])), dtype="float64")

    def infer_shape(self, *given: Any) -> list[tuple]:
        return [()]

"""Learning-rate schedules: the learning rate as a function of the number of updates so far.

A schedule is any function of `Optimizer.iterations`, given as ``learning_rate=``. It is called with
a plain integer before each update, inside the compiled step, so it may use any Python code, and a
new rate compiles nothing. The classes here also take arrays of steps, for plots.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from seqnet.common.checks import check_bool, check_count, check_not_negative, check_number
from seqnet.common.hyperparameters import Hyperparameter
from seqnet.common.keras_names import without_name
from seqnet.common.types import Array
from seqnet.ops.schedule import rate_at
from seqnet.registry import Configurable, Identifier, register
from seqnet.registry import get as _get

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "get",
]


class LearningRateSchedule(Configurable):
    """The base class of learning-rate schedules.

    A subclass defines ``__call__(self, step)``. Its configuration is the arguments of its
    constructor, stored as attributes of the same names, so that models with it can be saved. A
    plain function of the step is a schedule, too.

    Examples
    --------
    >>> import seqnet
    >>> from seqnet.optimizers.schedules import LearningRateSchedule
    >>> class Warmup(LearningRateSchedule):
    ...     def __init__(self, rate, steps):
    ...         self.rate, self.steps = rate, steps
    ...     def __call__(self, step):
    ...         if step < self.steps:
    ...             return self.rate * (step + 1) / self.steps
    ...         return self.rate
    >>> optimizer = seqnet.optimizers.Adam(Warmup(0.5, steps=10))
    >>> optimizer.learning_rate
    0.05
    """

    @abstractmethod
    def __call__(self, step: Any) -> Any:
        """Return the learning rate.

        Parameters
        ----------
        step : int
            The number of updates before this one: 0 for the first.
        """

    @classmethod
    def accepted_arguments(cls, options: dict[str, Any]) -> dict[str, Any]:
        return super().accepted_arguments(without_name(options, cls.signature()))

    def __repr__(self) -> str:
        given = [n for n in self.parameters() if hasattr(self, n)]
        values = ", ".join([f"{name}={getattr(self, name)!r}" for name in given])
        return f"{type(self).__name__}({values})"


@register("schedule")
class ExponentialDecay(LearningRateSchedule):
    """``initial_learning_rate * decay_rate ** (step / decay_steps)``.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
    decay_rate : float
    staircase : bool
        Round ``step / decay_steps`` down, so that the rate changes every `decay_steps` updates.

    Examples
    --------
    >>> from seqnet.optimizers.schedules import ExponentialDecay
    >>> schedule = ExponentialDecay(0.5, decay_steps=100, decay_rate=0.25)
    >>> [float(schedule(step)) for step in (0, 50, 100)]
    [0.5, 0.25, 0.125]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
    ):
        self.initial_learning_rate = check_rate(initial_learning_rate)
        self.decay_steps = check_steps(decay_steps, "decay_steps")
        self.decay_rate = check_not_negative(decay_rate, "decay_rate")
        self.staircase = check_bool(staircase, "staircase")

    def __call__(self, step: Any) -> Any:
        return self.initial_learning_rate * self.decay_rate ** periods(self, step)


@register("schedule")
class InverseTimeDecay(LearningRateSchedule):
    """``initial_learning_rate / (1 + decay_rate * step / decay_steps)``.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
    decay_rate : float
    staircase : bool
        Round ``step / decay_steps`` down.

    Examples
    --------
    >>> from seqnet.optimizers.schedules import InverseTimeDecay
    >>> schedule = InverseTimeDecay(0.5, decay_steps=10, decay_rate=1.0)
    >>> [float(schedule(step)) for step in (0, 10, 30)]
    [0.5, 0.25, 0.125]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
    ):
        self.initial_learning_rate = check_rate(initial_learning_rate)
        self.decay_steps = check_steps(decay_steps, "decay_steps")
        self.decay_rate = check_not_negative(decay_rate, "decay_rate")
        self.staircase = check_bool(staircase, "staircase")

    def __call__(self, step: Any) -> Any:
        return self.initial_learning_rate / (1 + self.decay_rate * periods(self, step))


def periods(schedule: ExponentialDecay | InverseTimeDecay, step: Any) -> Any:
    """Return the number of decay periods so far, whole ones only for a staircase."""
    found = np.asarray(step, dtype="float64") / schedule.decay_steps
    return np.floor(found) if schedule.staircase else found


@register("schedule")
class PiecewiseConstantDecay(LearningRateSchedule):
    """``values[0]`` up to and including step ``boundaries[0]``, then ``values[1]``, and so on.

    Parameters
    ----------
    boundaries : list of int
        Increasing.
    values : list of float
        One more than there are boundaries.

    Examples
    --------
    >>> from seqnet.optimizers.schedules import PiecewiseConstantDecay
    >>> schedule = PiecewiseConstantDecay([100, 200], [0.5, 0.25, 0.125])
    >>> [float(schedule(step)) for step in (0, 100, 101, 500)]
    [0.5, 0.5, 0.25, 0.125]
    """

    def __init__(self, boundaries: Sequence[float], values: Sequence[float]):
        self.boundaries = [check_number(b, "boundaries[...]") for b in boundaries]
        self.values = [check_not_negative(v, "values[...]") for v in values]
        if len(self.boundaries) != len(self.values) - 1:
            raise ValueError(
                "There must be one more of values than of boundaries, got "
                f"{len(self.values)} values and {len(self.boundaries)} boundaries."
            )
        if sorted(set(self.boundaries)) != self.boundaries:
            raise ValueError(f"boundaries must increase, got {self.boundaries}.")

    def __call__(self, step: Any) -> Any:
        return np.asarray(self.values)[np.searchsorted(self.boundaries, step)]


@register("schedule")
class PolynomialDecay(LearningRateSchedule):
    """``(initial - end) * (1 - step / decay_steps) ** power + end``, and `end` afterwards.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
    end_learning_rate : float
    power : float
        1 decays linearly.
    cycle : bool
        Instead of staying at the end, extend `decay_steps` to its next multiple each time that it
        is exceeded.

    Examples
    --------
    >>> from seqnet.optimizers.schedules import PolynomialDecay
    >>> schedule = PolynomialDecay(1.0, decay_steps=100, end_learning_rate=0.5)
    >>> [float(schedule(step)) for step in (0, 50, 100, 200)]
    [1.0, 0.75, 0.5, 0.5]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
    ):
        self.initial_learning_rate = check_rate(initial_learning_rate)
        self.decay_steps = check_steps(decay_steps, "decay_steps")
        self.end_learning_rate = check_not_negative(end_learning_rate, "end_learning_rate")
        self.power = check_not_negative(power, "power")
        self.cycle = check_bool(cycle, "cycle")

    def __call__(self, step: Any) -> Any:
        step = np.asarray(step, dtype="float64")
        total = self.decay_steps * np.ones_like(step)
        if self.cycle:
            total = total * np.maximum(np.ceil(step / total), 1)
        left = 1 - np.minimum(step, total) / total
        span = self.initial_learning_rate - self.end_learning_rate
        return span * left**self.power + self.end_learning_rate


@register("schedule")
class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial rate down to `alpha` times it, after a linear warmup.

    ``initial * ((1 - alpha) * (1 + cos(pi * step / decay_steps)) / 2 + alpha)``, constant after
    `decay_steps` (Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts",
    2017). With `warmup_target` the rate first rises linearly from `initial_learning_rate` to it in
    `warmup_steps`, and then decays from it.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
        Without the warmup.
    alpha : float
        The last rate as a fraction of the highest.
    warmup_target : float, optional
        None for no warmup.
    warmup_steps : int

    Examples
    --------
    >>> from seqnet.optimizers.schedules import CosineDecay
    >>> schedule = CosineDecay(0.0, decay_steps=100, warmup_target=1.0, warmup_steps=10)
    >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 60, 110)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ):
        self.initial_learning_rate = check_rate(initial_learning_rate)
        self.decay_steps = check_steps(decay_steps, "decay_steps")
        self.alpha = check_not_negative(alpha, "alpha")
        self.warmup_target = (
            None if warmup_target is None else check_not_negative(warmup_target, "warmup_target")
        )
        self.warmup_steps = check_count(warmup_steps, "warmup_steps", 0)
        if self.warmup_steps and self.warmup_target is None:
            raise ValueError(f"warmup_steps={warmup_steps} needs a warmup_target.")

    def __call__(self, step: Any) -> Any:
        step, top = np.asarray(step, dtype="float64"), self.initial_learning_rate
        rising = None
        if self.warmup_target is not None:
            top = self.warmup_target
            done = step / max(self.warmup_steps, 1)
            rising = self.initial_learning_rate + (top - self.initial_learning_rate) * done
        after = step - self.warmup_steps
        decayed = top * cosine(np.clip(after / self.decay_steps, 0, 1), self.alpha)
        return decayed if rising is None else np.where(after < 0, rising, decayed)


@register("schedule")
class CosineDecayRestarts(LearningRateSchedule):
    """Cosine decays that start again, each longer than the one before (SGDR).

    Within each period as `CosineDecay` without warmup; period i is ``first_decay_steps * t_mul**i``
    long and starts at ``initial_learning_rate * ((1 - alpha) * m_mul**i + alpha)``. Source:
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017).

    Parameters
    ----------
    initial_learning_rate : float
    first_decay_steps : int
    t_mul : float
        The factor of the lengths of the periods, at least 1.
    m_mul : float
        The factor of the rates.
    alpha : float
        The lowest rate as a fraction of the initial one.

    Examples
    --------
    >>> from seqnet.optimizers.schedules import CosineDecayRestarts
    >>> schedule = CosineDecayRestarts(1.0, first_decay_steps=10, m_mul=0.5)
    >>> [round(float(schedule(step)), 3) for step in (0, 5, 10, 20, 30)]
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
    ):
        self.initial_learning_rate = check_rate(initial_learning_rate)
        self.first_decay_steps = check_steps(first_decay_steps, "first_decay_steps")
        self.t_mul = check_not_negative(t_mul, "t_mul")
        self.m_mul = check_not_negative(m_mul, "m_mul")
        self.alpha = check_not_negative(alpha, "alpha")
        if self.t_mul < 1:
            raise ValueError(f"t_mul must be at least 1, got {t_mul!r}.")

    def __call__(self, step: Any) -> Any:
        done = np.asarray(step, dtype="float64") / self.first_decay_steps
        if self.t_mul == 1:
            period = np.floor(done)
            fraction = done - period
        else:
            # The logarithm may be rounded to below an integer where a period starts.
            period = np.floor(np.log1p(done * (self.t_mul - 1)) / np.log(self.t_mul))
            period = period + (self.start(period + 1) <= done)
            fraction = (done - self.start(period)) / self.t_mul**period
        return self.initial_learning_rate * cosine(fraction, self.alpha, self.m_mul**period)

    def start(self, period: Array) -> Array:
        """Return where a period starts, in first periods."""
        return (self.t_mul**period - 1) / (self.t_mul - 1)


def cosine(fraction: Any, alpha: float, height: Any = 1.0) -> Any:
    """Return half a cosine from `height` down to 0 over [0, 1], raised to at least `alpha`."""
    return (1 - alpha) * height * 0.5 * (1 + np.cos(np.pi * fraction)) + alpha


def check_rate(value: Any) -> float:
    """Return an initial learning rate, which is not negative, or raise."""
    return check_not_negative(value, "initial_learning_rate")


def check_steps(value: Any, name: str) -> float:
    """Return a number of steps, which is above 0, or raise."""
    number = check_number(value, name)
    if not 0 < number < np.inf:
        raise ValueError(f"{name} must be above 0 and finite, got {value!r}.")
    return number


def get(identifier: Identifier | LearningRateSchedule) -> Callable:
    """Return the schedule of a saved configuration, or a function as it is.

    Examples
    --------
    >>> from seqnet.optimizers import schedules
    >>> schedules.get({"name": "CosineDecay",
    ...                "config": {"initial_learning_rate": 0.1, "decay_steps": 10}})
    CosineDecay(initial_learning_rate=0.1, decay_steps=10.0, alpha=0.0, warmup_target=None, \
warmup_steps=0)
    """
    return _get("schedule", identifier)


# ---- schedules in optimizers


class LearningRate(Hyperparameter):
    """A learning rate: a number, or a schedule that gives it for each step.

    Reading it returns the number for the next update.
    """

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None or owner.schedule is None:
            return super().__get__(owner, kind)
        return rate_at(owner.schedule, int(owner.iterations.get_value()))

    def __set__(self, owner: Any, value: Any) -> None:
        if isinstance(value, type):
            raise TypeError(
                f"learning_rate takes an object such as {value.__name__}(...), got the class."
            )
        if callable(value):
            rate_at(value, int(owner.iterations.get_value()))
            vars(owner).setdefault("_unused", set()).add(self.name)
            owner._schedule = value
        elif owner.schedule is not None:
            raise TypeError(
                f"The learning rate of this {type(owner).__name__} is a schedule "
                f"({owner.schedule!r}), so it cannot be set to {value!r}. Make the optimizer with "
                "a number, or set another schedule."
            )
        else:
            super().__set__(owner, value)

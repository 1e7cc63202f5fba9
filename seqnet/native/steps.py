"""Steps that follow one another without Python between them, and numbers drawn from probabilities.

`Steps` repeats the calls of compiled kernels that were noted during one step of a model. Between
two steps it copies the states, and draws the numbers that the next step reads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import Structure, addressof, c_double, c_long, c_void_p
from typing import NamedTuple

import numpy as np

from .core import address, core, get_num_threads
from .recording import Recording, run


class _Call(Structure):  # kernel_call in src/steps.c
    _fields_ = [("run", c_void_p), ("arguments", c_void_p), ("threads", c_long)]


class _Copy(Structure):  # state_copy in src/steps.c
    _fields_ = [("from_", c_void_p), ("to", c_void_p), ("bytes", c_long)]


class _Arguments(Structure):  # steps in src/steps.c
    _fields_ = [
        *(("calls", c_long), ("call", c_void_p), ("copies", c_long), ("copy", c_void_p)),
        *((name, c_long) for name in ("rows", "classes", "steps")),
        *((name, c_void_p) for name in ("ids", "given", "probabilities")),
        *(("temperature", c_double), ("top_p", c_double), ("top_k", c_long)),
        *((name, c_void_p) for name in ("uniform", "drawn", "log_p", "scratch")),
        ("failed", c_long),
    ]


class Drawn(NamedTuple):
    """What was drawn in some steps."""

    numbers: np.ndarray
    """int64 (steps, rows)."""
    log_p: np.ndarray
    """float64 (steps, rows): the logarithms of the probabilities."""
    failed: int | None
    """The first row with values that are no probabilities; the arrays are then not valid."""


class Steps:
    """A step of a model that can be repeated.

    Parameters
    ----------
    noted : Recording, optional
        The calls of the step. Without it a step computes nothing and only draws.
    ids : int64 array (rows,), optional
        What the calls read, and where the numbers that are drawn are written to.
    probabilities : array (rows, classes), contiguous
        What the calls write.
    states : pairs of contiguous arrays
        The state after a step, which is copied to the state before the next one.
    """

    def __init__(
        self,
        noted: Recording | None,
        ids: np.ndarray | None,
        probabilities: np.ndarray,
        states: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    ) -> None:
        rows, classes = probabilities.shape
        self.rows, self.classes = rows, classes
        made = [] if noted is None else noted.calls
        self._calls = (_Call * len(made))(
            *(_Call(ctypes.cast(f, c_void_p), addressof(a), n) for f, a, n in made)
        )
        self._copies = (_Copy * len(states))(
            *(_Copy(address(after), address(before), before.nbytes) for after, before in states)
        )
        self._kept = (noted, ids, probabilities, list(states))
        self._core = core(probabilities.dtype)
        self._arguments = _Arguments(
            *(len(made), addressof(self._calls), len(states), addressof(self._copies)),
            *(rows, classes, 0, None if ids is None else address(ids), None),
            address(probabilities),
        )

    def read(self, numbers: np.ndarray) -> None:
        """Run a step for each row of int64 (steps, rows), without drawing."""
        numbers = np.ascontiguousarray(numbers, np.int64)
        a = self._arguments
        a.steps, a.given, a.drawn = len(numbers), address(numbers), None
        self._core.run_steps(ctypes.byref(a), get_num_threads())

    def draw(
        self,
        uniform: np.ndarray,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Drawn:
        """Run some steps, each of which reads what the one before has drawn.

        Parameters
        ----------
        uniform : float64 (steps, rows)
            Random numbers of at least 0 and less than 1.
        temperature
            Divides the logarithms of the probabilities; 0 selects the most probable class.
        top_k
            Draw only from so many classes, the most probable ones.
        top_p
            Draw only from the most probable classes whose total probability reaches this value.
        """
        uniform = np.ascontiguousarray(uniform, np.float64)
        steps, classes, threads = len(uniform), self.classes, get_num_threads()
        numbers, log_p = np.empty((steps, self.rows), np.int64), np.empty((steps, self.rows))
        scratch = np.empty((threads, 2 * classes))
        a = self._arguments
        a.steps, a.given = steps, None
        a.temperature, a.top_p = temperature, 1 if top_p is None else top_p
        a.top_k = classes if top_k is None else min(top_k, classes)
        a.uniform, a.scratch = address(uniform), address(scratch)
        a.drawn, a.log_p = address(numbers), address(log_p)
        self._core.run_steps(ctypes.byref(a), threads)
        return Drawn(numbers, log_p, None if a.failed < 0 else a.failed)


def copy_into(to: np.ndarray, array: np.ndarray) -> None:
    """Copy a contiguous array to another one, by a call that can be noted."""
    if array.dtype != to.dtype or array.shape != to.shape or not to.flags.c_contiguous:
        raise ValueError(f"cannot copy {array.dtype}{array.shape} to {to.dtype}{to.shape}")
    array = np.ascontiguousarray(array)
    arguments = _Copy(address(array), address(to), to.nbytes)
    run(core(to.dtype).copy_bytes, arguments, 1, array)

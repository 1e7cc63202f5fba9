"""The compiled library behind every kernel: loading, threads, addresses, and the count of calls.

There is one library a precision, compiled at its first use, and one for the thread team that they
share.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import Counter
from ctypes import c_long, c_void_p

import numpy as np

from . import compiler, emit
from .compiler import KernelUnavailable

PRECISIONS = ("float32", "float64")

_lock = threading.Lock()
_team: ctypes.CDLL | None = None
_cores: dict[
    str | np.dtype, ctypes.CDLL
] = {}  # by name and by dtype: making a name of a dtype is slow
_calls: Counter[str] = Counter()
_threads: int | None = None

# name: argument types; all return nothing unless named below
SIGNATURES = {
    **{
        name: [c_void_p, c_long]
        for name in ("gemm", "softmax", "gather", "scatter_add", "squared_norms")
    },
    "elementwise": [c_void_p, c_void_p, c_long, c_long],
    "recurrence_forward": [c_void_p, c_long],
    "recurrence_backward": [c_void_p, c_long],
    "recurrence_scratch": [c_long] * 5,
    "gemm_scratch": [c_long],
    "first_outside": [c_void_p, c_long, c_long],
    "vector_bytes": [],
    "attach_team": [c_void_p, c_void_p],
}
RETURNS = dict.fromkeys(
    ("recurrence_scratch", "gemm_scratch", "first_outside", "vector_bytes"), c_long
)

ALONE = 20_000
"""Multiplications that one thread does sooner than two: waking and waiting take microseconds."""


def core(dtype, *more: str) -> ctypes.CDLL | list[ctypes.CDLL]:
    """The library of one precision.

    With `more` sources, a list of it and their libraries, compiled side by side.

    Raises
    ------
    KernelUnavailable
        If there is no compiler, or none that works, or the precision is not float32 or float64.
    """
    if not more and dtype in _cores:
        return _cores[dtype]
    name = np.dtype(dtype).name
    if name not in PRECISIONS:
        raise KernelUnavailable(f"kernels compute in float32 or float64, not in {name}")
    if os.name != "posix":
        raise KernelUnavailable(f"kernels are made for Linux and macOS, not for {os.name}")
    with _lock:
        found = compiler.load(*more) if name in _cores else _load(name, more)
        return [_cores[name], *found] if more else _cores[name]


def _load(name: str, more: tuple[str, ...]) -> list[ctypes.CDLL]:
    global _team
    loaded = compiler.load(
        emit.header(name) + emit.read_source("core.c"), *more, emit.read_source("team.c")
    )
    library, *others, team = loaded
    if _team is None:
        _team = team
        _team.team_set_cores(c_long(available_cores()))
    for function, arguments in SIGNATURES.items():
        getattr(library, function).argtypes = arguments
        getattr(library, function).restype = RETURNS.get(function)
    library.attach_team(
        ctypes.cast(_team.team_run, c_void_p), ctypes.cast(_team.team_barrier, c_void_p)
    )
    library.gemm_scratch_size = library.gemm_scratch(1)  # for each thread
    _cores[name] = _cores[np.dtype(name)] = library
    return others


def available() -> tuple[bool, str]:
    """Whether kernels can be compiled and run here, and why not; the first call may compile.

    Returns
    -------
    tuple of bool and str
        The text is empty where the answer is yes.
    """
    try:
        core("float32")
    except KernelUnavailable as reason:
        return False, str(reason)
    return True, ""


def vector_bytes(dtype="float32") -> int:
    """Bytes of the vectors that the library was compiled for: 16, 32 or 64."""
    return core(dtype).vector_bytes()


def available_cores() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_num_threads() -> int:
    """Threads that a kernel may use.

    As set, else ``SEQNET_NUM_THREADS``, else ``OMP_NUM_THREADS``, else one for every core.
    """
    global _threads
    if _threads is None:
        for name in ("SEQNET_NUM_THREADS", "OMP_NUM_THREADS"):
            if os.environ.get(name, "").isdigit() and int(os.environ[name]) > 0:
                _threads = int(os.environ[name])
                break
        else:
            _threads = available_cores()
    return _threads


def set_num_threads(count: int) -> None:
    """Let kernels use this many threads from now on; results do not depend on it."""
    global _threads
    if count != int(count) or not 1 <= count <= 255:
        raise ValueError(
            f"the number of threads must be a whole number from 1 to 255, got {count!r}"
        )
    _threads = int(count)


def threads_for(work: int) -> int:
    """Threads for a kernel that does `work` multiplications between two waits for each other."""
    return get_num_threads() if work >= ALONE else 1


def count_call(name: str) -> None:
    """Note that a kernel has run."""
    _calls[name] += 1


def calls() -> dict[str, int]:
    """How often each kernel has run in this process."""
    return dict(_calls)


def address(array: np.ndarray, addressof=ctypes.addressof, view=ctypes.c_char.from_buffer) -> int:
    """Where an array's first element lies. The caller keeps the array."""
    try:
        return addressof(view(array))  # four times as quick as `array.ctypes`
    except (TypeError, ValueError):  # read-only, empty or strided
        return array.ctypes.data

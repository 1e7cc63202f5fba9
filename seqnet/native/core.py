"""The libraries of compiled kernels: loading, number of threads, addresses, counts of calls.

There is one library for each precision, compiled at first use, and one for the worker threads,
which they share.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from ctypes import c_long, c_void_p
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import DTypeLike

from . import cache, compiler, emit
from .compiler import KernelUnavailable

PRECISIONS = ("float32", "float64")
MAX_THREADS = 255  # TEAM_MAX of src/team.c, less one


class CoreLibrary(Protocol):
    """The library of one precision: the functions that ``src/core.c`` exports."""

    gemm: Callable[..., None]
    softmax: Callable[..., None]
    gather: Callable[..., None]
    scatter_add: Callable[..., None]
    squared_norms: Callable[..., None]
    chain_forward: Callable[..., None]
    chain_backward: Callable[..., None]
    chain_best: Callable[..., None]
    ctc_loss: Callable[..., None]
    elementwise: Callable[..., None]
    recurrence_forward: Callable[..., None]
    recurrence_backward: Callable[..., None]
    recurrence_scratch: Callable[..., int]
    run_program: Callable[..., None]
    elementwise_scratch: Callable[..., int]
    copy_bytes: Callable[..., None]
    run_steps: Callable[..., None]
    first_outside: Callable[..., int]
    vector_bytes: Callable[[], int]
    bfloat16_products: Callable[[], int]
    gemm_scratch_size: int  # elements of scratch memory that a product needs for each thread


_lock = threading.RLock()
_team: ctypes.CDLL | None = None
# By name and by dtype, because the name of a dtype is slow to compute.
_cores: dict[object, CoreLibrary] = {}
_calls: Counter[str] = Counter()
_threads: int | None = None

# Argument types by name; the functions return nothing unless RETURNS has them.
SIGNATURES = {
    **{
        name: [c_void_p, c_long]
        for name in ("gemm", "softmax", "gather", "scatter_add", "squared_norms", "elementwise")
    },
    **{
        name: [c_void_p, c_long]
        for name in ("chain_forward", "chain_backward", "chain_best", "ctc_loss")
    },
    **{
        name: [c_void_p, c_long]
        for name in ("recurrence_forward", "recurrence_backward", "run_program")
    },
    "copy_bytes": [c_void_p, c_long],
    "run_steps": [c_void_p, c_long],
    "recurrence_scratch": [c_long] * 6,
    "elementwise_scratch": [c_long] * 3,
    "gemm_scratch": [c_long],
    "first_outside": [c_void_p, c_long, c_long],
    "vector_bytes": [],
    "bfloat16_products": [],
    "attach_team": [c_void_p, c_void_p],
}
RETURNS = dict.fromkeys(
    (
        *("recurrence_scratch", "elementwise_scratch", "gemm_scratch"),
        *("first_outside", "vector_bytes", "bfloat16_products"),
    ),
    c_long,
)

SINGLE_THREAD_WORK = 20_000
"""Multiplications below which one thread is faster than two: waking a thread takes microseconds."""


def _renew_lock() -> None:
    """Create a new lock in a forked child: another thread of the parent may have held it."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def core(dtype: DTypeLike) -> CoreLibrary:
    """Return the library of one precision.

    Raises
    ------
    KernelUnavailable
        If there is no working compiler, or the precision is not float32 or float64.
    """
    return _cores[dtype] if dtype in _cores else _find(dtype)[0]


def core_and(dtype: DTypeLike, *sources: str) -> tuple[CoreLibrary, list[ctypes.CDLL]]:
    """Return the library of one precision and those of other sources.

    All are compiled in parallel if they are not in the cache. The errors are those of `core`.
    """
    return _find(dtype, *sources)


def _find(dtype: DTypeLike, *sources: str) -> tuple[CoreLibrary, list[ctypes.CDLL]]:
    name = np.dtype(dtype).name
    if name not in PRECISIONS:
        raise KernelUnavailable(f"compiled kernels compute in float32 or float64, not in {name}")
    if os.name != "posix":
        raise KernelUnavailable(f"compiled kernels are made for Linux and macOS, not for {os.name}")
    with _lock:
        others = compiler.load(*sources) if name in _cores else _load(name, sources)
        return _cores[name], others


def _load(name: str, sources: tuple[str, ...]) -> list[ctypes.CDLL]:
    global _team
    library, *others, team = compiler.load(
        emit.header(name) + emit.read_source("core.c"), *sources, emit.read_source("team.c")
    )
    try:
        for function, arguments in SIGNATURES.items():
            getattr(library, function).argtypes = arguments
            getattr(library, function).restype = RETURNS.get(function)
        if _team is None:
            team.team_set_cores(c_long(available_cores()))
            _team = team
        library.attach_team(
            ctypes.cast(_team.team_run, c_void_p), ctypes.cast(_team.team_barrier, c_void_p)
        )
    except AttributeError as error:
        raise KernelUnavailable(
            f"the library that the C compiler wrote is not complete: {error}"
        ) from error
    loaded = cast("CoreLibrary", library)
    loaded.gemm_scratch_size = library.gemm_scratch(1)
    _cores[name] = _cores[np.dtype(name)] = loaded
    return others


def available() -> tuple[bool, str]:
    """Return whether compiled kernels can be compiled and run here, and why not.

    The first call may compile.

    Returns
    -------
    tuple of bool and str
        The reason is empty if compiled kernels are available.
    """
    try:
        core("float32")
    except KernelUnavailable as reason:
        return False, str(reason)
    return True, ""


def vector_bytes(dtype: DTypeLike = "float32") -> int:
    """Return the width of the vectors that the library was compiled for: 16, 32 or 64 bytes."""
    return core(dtype).vector_bytes()


def info(dtype: DTypeLike = "float32") -> dict[str, object]:
    """Return the compiler, the width of vectors, the threads and the folder of the libraries."""
    return {
        "compiler": " ".join(compiler.find_compiler()),
        "vector_bytes": vector_bytes(dtype),
        "threads": get_num_threads(),
        "cache": str(cache.cache_directory()),
    }


def bfloat16_products() -> str:
    """Return how products of bfloat16 operands are computed here.

    Returns
    -------
    str
        ``"instruction"`` if the processor has AVX-512 BF16, ``"emulated"`` if the environment
        variable ``SEQNET_BFLOAT16`` is ``"emulate"``: the same bits, slowly. Empty if there is no
        instruction and no emulation was asked for: such products take longer than those in float32.
    """
    return ("", "instruction", "emulated")[core("float32").bfloat16_products()]


def available_cores() -> int:
    """Return the number of processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_num_threads() -> int:
    """Return how many threads a compiled kernel may use.

    This is the number set last, else ``SEQNET_NUM_THREADS``, else ``OMP_NUM_THREADS``, else one for
    each processor, and at most 255.
    """
    threads = _threads  # read once: another thread may change it
    return _default_threads() if threads is None else threads


@functools.cache
def _default_threads() -> int:
    for name in ("SEQNET_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text.isdecimal() and int(text) > 0:
            return min(int(text), MAX_THREADS)
    return min(available_cores(), MAX_THREADS)


def set_num_threads(count: int) -> None:
    """Set how many threads compiled kernels may use from now on; results do not depend on it.

    It can be called at any time. Calls that are running keep the number that they started with.

    Parameters
    ----------
    count
        An integer from 1 to 255.

    Raises
    ------
    ValueError
        If it is not.
    """
    global _threads
    if count != int(count) or not 1 <= count <= MAX_THREADS:
        raise ValueError(
            f"the number of threads must be an integer from 1 to {MAX_THREADS}, got {count!r}"
        )
    _threads = int(count)


def threads_for(work: int) -> int:
    """Return the threads for a call with `work` multiplications between synchronizations.

    Another thread may change the number at any time. A compiled kernel therefore reads it once per
    call, and uses the result for the size of its scratch memory and for its threads.
    """
    return get_num_threads() if work >= SINGLE_THREAD_WORK else 1


def count_call(name: str) -> None:
    """Count a call of a compiled kernel."""
    _calls[name] += 1


def calls() -> dict[str, int]:
    """Return how often each compiled kernel has run in this process."""
    return dict(_calls)


def address(
    array: np.ndarray,
    read: Callable[[int], Any] = ctypes.c_size_t.from_address,
    offset: int = object.__basicsize__,
) -> int:
    """Return the address of an array's first element. The caller must keep the array alive.

    It is the first field of NumPy's array object, after the fields that all Python objects have.
    """
    if type(array) is np.ndarray and FIELD_IS_KNOWN:
        return read(id(array) + offset).value  # eight times as fast as `array.ctypes`
    return array.ctypes.data


FIELD_IS_KNOWN = False
"""Whether `address` may read the field: CPython's ``id`` is the address of an object."""

_array = np.empty(1)
if sys.implementation.name == "cpython":
    FIELD_IS_KNOWN = (
        ctypes.c_size_t.from_address(id(_array) + object.__basicsize__).value == _array.ctypes.data
    )

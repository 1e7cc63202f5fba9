"""Matrix products of arrays with any strides, with an optional bias, accumulation and sums."""

from __future__ import annotations

from ctypes import Structure, c_long, c_void_p
from typing import Literal, overload

import numpy as np

from . import memory
from .core import address, core, count_call, threads_for
from .recording import run

SIDE: tuple[tuple[str, type[c_void_p | c_long]], ...] = (
    ("data", c_void_p),
    *((n, c_long) for n in ("step", "k_step", "k_outer", "inner")),
)  # gemm_side in src/gemm.c


class _Arguments(Structure):  # gemm_arguments in src/gemm.c
    _fields_ = [
        *((n, c_long) for n in ("m", "n", "k")),
        *((f"{side}_{n}", kind) for side in "ab" for n, kind in SIDE),
        *(("c", c_void_p), ("c_row", c_long), ("bias", c_void_p), ("accumulate", c_long)),
        *(("column_sums", c_void_p), ("first_sums", c_long), ("scratch", c_void_p)),
        *((n, c_long) for n in ("row_parts", "column_parts", "bfloat16")),
    ]


@overload
def gemm(
    a: np.ndarray,
    b: np.ndarray,
    *,
    bias: np.ndarray | None = None,
    out: np.ndarray | None = None,
    accumulate: bool = False,
    column_sums: Literal[False] = False,
    bfloat16: bool = False,
) -> np.ndarray: ...


@overload
def gemm(
    a: np.ndarray,
    b: np.ndarray,
    *,
    bias: np.ndarray | None = None,
    out: np.ndarray | None = None,
    accumulate: bool = False,
    column_sums: np.ndarray | Literal[True],
    bfloat16: bool = False,
) -> tuple[np.ndarray, np.ndarray]: ...


def gemm(
    a: np.ndarray,
    b: np.ndarray,
    *,
    bias: np.ndarray | None = None,
    out: np.ndarray | None = None,
    accumulate: bool = False,
    column_sums: np.ndarray | bool = False,
    bfloat16: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Return the product of two matrices, ``a @ b + bias (+ out)``.

    Parameters
    ----------
    a
        ``(m, k)``, any strides: a transposed view needs no copy.
    b
        ``(k, n)`` of the same dtype, any strides.
    bias
        ``(n,)``, added to every row.
    out
        ``(m, n)`` with its last axis contiguous; a new array if not given.
    accumulate
        Whether to add to `out` instead of overwriting it.
    column_sums
        Whether to return the sums of `b` over its first axis as well, ``(n,)``. If ``a = x.T`` and
        `b` is the gradient of an affine map, this is the gradient of its bias, which is nearly free
        here. An array is written to.
    bfloat16
        Whether to round `a` and `b` to bfloat16 where they are multiplied. Everything else is
        float32, also the sums of `b`. Without an instruction for it (`bfloat16_products`) it is
        computed more slowly.

    Returns
    -------
    numpy.ndarray or tuple of numpy.ndarray
        `out`, or ``(out, column_sums)``.

    Raises
    ------
    ValueError
        If shapes, dtypes or strides do not fit, or `bfloat16` is asked for with float64.
    """
    library = core(a.dtype)
    size = a.itemsize
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or a.dtype != b.dtype:
        raise ValueError(f"gemm: cannot multiply {a.dtype}{a.shape} by {b.dtype}{b.shape}")
    if bfloat16 and a.dtype != np.float32:
        raise ValueError(f"gemm: bfloat16=True takes float32 arrays, got {a.dtype}")
    m, k = a.shape
    n = b.shape[1]
    if out is None:
        if accumulate:
            raise ValueError("gemm: accumulate=True needs an out to add to")
        out = memory.empty((m, n), a.dtype)
    elif (
        out.shape != (m, n)
        or out.dtype != a.dtype
        or (out.strides[1] != size and n > 1)
        or not out.flags.writeable
    ):
        raise ValueError(f"gemm: out must be a writeable {a.dtype}({m}, {n}) with contiguous rows")
    if bias is not None:
        bias = _vector(bias, n, a.dtype, "bias")
    sums = None
    if column_sums is not False:
        sums = (
            memory.empty((n,), a.dtype)
            if column_sums is True
            else _vector(column_sums, n, a.dtype, "column_sums")
        )
    (a_row, a_k), (b_k, b_column) = a.strides, b.strides
    if (a_row | a_k | b_k | b_column | out.strides[0]) & (size - 1):
        raise ValueError("gemm: strides must be multiples of the element size")
    threads = threads_for(m * n * k // 4)
    scratch = memory.scratch(threads * library.gemm_scratch_size * size)
    arguments = _Arguments(
        *(m, n, k),
        *(address(a), a_row // size, a_k // size, 0, 0),
        *(address(b), b_column // size, b_k // size, 0, 0),
        *(address(out), out.strides[0] // size),
        *(
            None if bias is None else address(bias),
            accumulate,
            None if sums is None else address(sums),
            1,
        ),
        *(scratch, 0, 0, bfloat16),
    )
    run(library.gemm, arguments, threads, a, b, bias)
    count_call("gemm")
    return out if sums is None else (out, sums)


def _vector(array: np.ndarray, n: int, dtype: np.typing.DTypeLike, name: str) -> np.ndarray:
    if array.shape != (n,) or array.dtype != dtype:
        raise ValueError(f"gemm: {name} must be {dtype}({n},), got {array.dtype}{array.shape}")
    return array if array.flags.c_contiguous or name != "bias" else np.ascontiguousarray(array)

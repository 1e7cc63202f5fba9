"""Softmax of rows, its logarithm, and the cross-entropy together with its gradient."""

from __future__ import annotations

from ctypes import Structure, c_long, c_void_p

import numpy as np

from . import memory
from .core import address, core, count_call, threads_for
from .embedding import checked_ids
from .recording import run

SOFTMAX, LOG_SOFTMAX, CROSS_ENTROPY = range(3)  # as in src/rows.c


class _Arguments(Structure):  # softmax_arguments in src/rows.c
    _fields_ = [
        *((n, c_long) for n in ("kind", "rows", "columns")),
        *(("logits", c_void_p), ("logits_row", c_long)),
        *((n, c_void_p) for n in ("targets", "weights", "loss", "out")),
    ]


def softmax(logits: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return ``exp(x) / sum(exp(x))`` along the last axis; `out` may be `logits`."""
    return _along_last_axis(SOFTMAX, logits, out)


def log_softmax(logits: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return ``x - log(sum(exp(x)))`` along the last axis; `out` may be `logits`."""
    return _along_last_axis(LOG_SOFTMAX, logits, out)


def softmax_cross_entropy(
    logits: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    gradient: bool = True,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return ``-log(softmax(logits)[target])`` of every row, and its gradient.

    Parameters
    ----------
    logits
        ``(n, classes)``.
    targets
        ``(n,)`` of integers from 0 to ``classes - 1``.
    weights
        ``(n,)``: a factor for each row's loss and gradient. If it is the gradient with respect to
        the losses, the result is the gradient with respect to the logits.
    gradient
        Whether to compute the gradient as well.
    out
        The array to write the gradient to; it may be `logits`.

    Returns
    -------
    loss : numpy.ndarray
        ``(n,)``.
    d_logits : numpy.ndarray or None
        ``(n, classes)``: ``(softmax - onehot) * weights``.

    Raises
    ------
    IndexError
        If a target is not a class.
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"softmax_cross_entropy: logits {logits.shape} and targets {targets.shape} do not fit"
        )
    if weights is not None:
        if weights.shape != targets.shape:
            raise ValueError(
                f"softmax_cross_entropy: weights {weights.shape} do not fit targets {targets.shape}"
            )
        weights = np.ascontiguousarray(weights, logits.dtype)
    targets = checked_ids(targets, logits.shape[1], "target", core(logits.dtype))
    loss = memory.empty(targets.shape, logits.dtype)
    if gradient and out is None:
        out = memory.empty(logits.shape, logits.dtype)
    return loss, _run(CROSS_ENTROPY, logits, out if gradient else None, targets, weights, loss)


def _along_last_axis(kind: int, logits: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    if logits.ndim < 1:
        raise ValueError("softmax needs at least one axis")
    if out is None:
        out = memory.empty(logits.shape, logits.dtype)
    rows = (-1, logits.shape[-1]) if logits.size else (0, logits.shape[-1])
    flat = np.ascontiguousarray(logits).reshape(rows)
    if not out.flags.c_contiguous:
        raise ValueError("softmax: out must be contiguous")
    _run(kind, flat, out.reshape(rows), None, None, None)
    return out


def _run(
    kind: int,
    logits: np.ndarray,
    out: np.ndarray | None,
    targets: np.ndarray | None,
    weights: np.ndarray | None,
    loss: np.ndarray | None,
) -> np.ndarray | None:
    if logits.strides[1] != logits.itemsize or logits.strides[0] % logits.itemsize:
        logits = np.ascontiguousarray(logits)
    if out is not None and (
        out.shape != logits.shape or out.dtype != logits.dtype or not out.flags.c_contiguous
    ):
        raise ValueError(
            f"softmax: out must be contiguous, {logits.dtype}{logits.shape}, "
            f"got {out.dtype}{out.shape}"
        )
    arguments = _Arguments(
        *(kind, *logits.shape, address(logits), logits.strides[0] // logits.itemsize),
        *(None if a is None else address(a) for a in (targets, weights, loss, out)),
    )
    if logits.size:
        threads = threads_for(20 * logits.size)
        run(core(logits.dtype).softmax, arguments, threads, logits, targets, weights)
    count_call(("softmax", "log_softmax", "softmax_cross_entropy")[kind])
    return out

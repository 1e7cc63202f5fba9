"""Connectionist temporal classification: a loss and its derivative."""

from __future__ import annotations

from ctypes import Structure, byref, c_long, c_void_p

import numpy as np

from . import memory
from .core import address, core, count_call, threads_for, vector_bytes


class _Arguments(Structure):  # ctc in src/ctc.c
    _fields_ = [
        *((n, c_long) for n in ("batch", "time", "classes", "length", "blank", "width")),
        *(("scratch_size", c_long), ("logits", c_void_p)),
        *((n, c_long) for n in ("logits_batch", "logits_time")),
        *((n, c_void_p) for n in ("mask", "labels", "lengths", "loss", "slope", "scratch")),
    ]


def ctc_loss(
    logits: np.ndarray,
    mask: np.ndarray,
    labels: np.ndarray,
    lengths: np.ndarray,
    blank: int = 0,
    *,
    gradient: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return minus the log probability of labels, summed over all alignments with the steps.

    Parameters
    ----------
    logits
        ``(batch, time, classes)``.
    mask
        ``(batch, time)`` of bools: masked steps are left out.
    labels
        ``(batch, length)`` of whole numbers.
    lengths
        ``(batch,)``: how many labels each sequence has. Other labels may hold anything.
    blank
        The class of the blank.
    gradient
        Whether to compute the derivative as well.

    Returns
    -------
    loss : numpy.ndarray
        ``(batch,)``; infinite where no alignment exists.
    slope : numpy.ndarray or None
        ``(batch, time, classes)``: the derivative by the logits, 0 where the loss is infinite.

    Raises
    ------
    IndexError
        If a label is not a class.
    """
    (batch, time, classes), dtype = logits.shape, logits.dtype
    if mask.shape != (batch, time) or labels.shape[:1] != (batch,) or lengths.shape != (batch,):
        raise ValueError(
            f"ctc_loss: logits {logits.shape}, mask {mask.shape}, labels {labels.shape} and "
            f"lengths {lengths.shape} do not fit"
        )
    length = labels.shape[1]
    counted = np.arange(length) < lengths[:, None]
    wrong = counted & ((labels < 0) | (labels >= classes))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise IndexError(f"label {labels[place]} at position {place} is not in [0, {classes})")
    if not 0 <= blank < classes or (lengths > length).any() or (lengths < 0).any():
        raise IndexError(f"ctc_loss: the blank {blank} or a length is out of range")
    if classes > 1 and logits.strides[2] != logits.itemsize:
        logits = np.ascontiguousarray(logits)
    lanes = vector_bytes(dtype) // dtype.itemsize
    width = (-(-(2 * length + 1) // lanes) + 2) * lanes
    size = (2 * time + 4) * width + 2 * lanes
    size += -size % 16  # whole cache lines
    threads = threads_for(60 * batch * time * (2 * length + 1 + classes // 3))
    scratch = memory.empty((threads * size,), dtype)
    loss = np.zeros(batch, dtype)
    slope = memory.empty(logits.shape, dtype) if gradient else None
    arrays = (
        np.ascontiguousarray(mask, np.bool_),
        np.ascontiguousarray(labels, np.int64),
        np.ascontiguousarray(lengths, np.int64),
        *(loss, slope, scratch),
    )
    steps = (logits.strides[0] // logits.itemsize, logits.strides[1] // logits.itemsize)
    arguments = _Arguments(
        *(batch, time, classes, length, blank, width, size, address(logits), *steps),
        *(None if a is None else address(a) for a in arrays),
    )
    if logits.size:
        core(dtype).ctc_loss(byref(arguments), threads)
    count_call("ctc_loss")
    return loss, slope

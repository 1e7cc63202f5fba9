"""Sums over all paths of a linear chain of classes, their gradient, and the best path."""

from __future__ import annotations

from ctypes import Structure, byref, c_long, c_void_p

import numpy as np

from . import memory
from .core import address, core, count_call, threads_for, vector_bytes

MOST_GROUPS = 16  # of rows whose gradients are summed by one thread

_COUNTS = ("batch", "time", "classes", "padded", "groups", "scratch_size")
_ARRAYS = (
    *("mask", "transitions", "start", "end", "tags", "gradient", "log_p", "value", "result"),
    *("d_transitions", "d_start", "d_end", "scratch"),
)


class _Arguments(Structure):  # chain in src/chain.c
    _fields_ = [
        *((n, c_long) for n in _COUNTS),
        *(("scores", c_void_p), ("scores_batch", c_long), ("scores_time", c_long)),
        *((n, c_void_p) for n in _ARRAYS),
    ]


def chain_forward(
    scores: np.ndarray,
    mask: np.ndarray,
    transitions: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    tags: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithm of the sum over all paths of the exponential of their scores.

    Parameters
    ----------
    scores
        ``(batch, time, classes)``.
    mask
        ``(batch, time)`` of bools.
    transitions
        ``(classes, classes)``, from the row to the column.
    start, end
        ``(classes,)``.
    tags
        ``(batch, time)`` of whole numbers: the score of this path is subtracted.

    Returns
    -------
    value : numpy.ndarray
        ``(batch,)``; 0 where no step is unmasked.
    log_p : numpy.ndarray
        ``(batch, time, classes)``: logarithms of probabilities given the scores up to each step.

    Raises
    ------
    IndexError
        If an unmasked tag is not a class.
    """
    batch, time, classes = scores.shape
    value, log_p = np.zeros(batch, scores.dtype), memory.empty(scores.shape, scores.dtype)
    weights = _padded(transitions, start, end)
    tags = _checked_tags(tags, mask, classes)
    work = 20 * batch * time * classes * classes
    _run("chain_forward", work, 0, scores, mask, weights, value=value, log_p=log_p, tags=tags)
    return value, log_p


def chain_backward(
    log_p: np.ndarray,
    mask: np.ndarray,
    transitions: np.ndarray,
    end: np.ndarray,
    gradient: np.ndarray,
    tags: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """Return the gradients of `chain_forward`'s values, given the gradient of some cost by them.

    Parameters
    ----------
    log_p
        What `chain_forward` returned.
    gradient
        ``(batch,)``.

    Returns
    -------
    d_scores, d_transitions, d_start, d_end : numpy.ndarray
    """
    batch, time, classes = log_p.shape
    dtype, groups = log_p.dtype, max(1, min(batch, MOST_GROUPS))
    weights = _padded(transitions, end, end)
    d_scores = memory.empty(log_p.shape, dtype)
    sums = [np.zeros((groups, *w.shape), dtype) for w in weights]
    _run(
        "chain_backward",
        20 * batch * time * classes * classes,
        2 * classes * vector_bytes(dtype) // dtype.itemsize,
        None,
        mask,
        weights,
        log_p=np.ascontiguousarray(log_p),
        gradient=np.ascontiguousarray(gradient, dtype),
        result=d_scores,
        tags=_checked_tags(tags, mask, classes),
        d_transitions=sums[0],
        d_start=sums[1],
        d_end=sums[2],
    )
    return d_scores, *[s.sum(axis=0)[..., :classes] for s in sums]


def chain_best(
    scores: np.ndarray,
    mask: np.ndarray,
    transitions: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
) -> np.ndarray:
    """Return the path of the highest score, one-hot ``(batch, time, classes)``; 0 where masked.

    The arguments are those of `chain_forward`.
    """
    batch, time, classes = scores.shape
    best = memory.empty(scores.shape, scores.dtype)
    weights, work = _padded(transitions, start, end), 2 * batch * time * classes * classes
    _run("chain_best", work, time * classes, scores, mask, weights, result=best)
    return best


def _padded(transitions: np.ndarray, *vectors: np.ndarray) -> list[np.ndarray]:
    """Return weights with zeros after the classes, up to a whole number of vectors."""
    lanes = vector_bytes(transitions.dtype) // transitions.itemsize
    found = []
    for array in (transitions, *vectors):
        wider = np.zeros((*array.shape[:-1], -(-array.shape[-1] // lanes) * lanes), array.dtype)
        wider[..., : array.shape[-1]] = array
        found.append(wider)
    return found


def _checked_tags(tags: np.ndarray | None, mask: np.ndarray, classes: int) -> np.ndarray | None:
    """Return tags as contiguous int64, after a check that unmasked ones are classes."""
    if tags is None:
        return None
    if tags.shape != mask.shape:
        raise ValueError(f"chain: tags {tags.shape} and mask {mask.shape} do not fit")
    wrong = mask & ((tags < 0) | (tags >= classes))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise IndexError(f"tag {tags[place]} at position {place} is not in [0, {classes})")
    return np.ascontiguousarray(tags, np.int64)


def _run(
    name: str,
    work: int,
    more_scratch: int,
    scores: np.ndarray | None,
    mask: np.ndarray,
    weights: list[np.ndarray],
    **arrays: np.ndarray | None,
) -> None:
    shaped = scores if scores is not None else arrays["log_p"]
    assert shaped is not None
    (batch, time, classes), dtype = shaped.shape, shaped.dtype
    transitions, start, end = weights
    if mask.shape != (batch, time) or transitions.shape[0] != classes:
        raise ValueError(
            f"{name}: scores {shaped.shape}, mask {mask.shape} and {transitions.shape[0]} classes "
            "of transitions do not fit"
        )
    steps = (0, 0)
    if scores is not None:
        if classes > 1 and scores.strides[2] != scores.itemsize:
            scores = np.ascontiguousarray(scores)
        steps = scores.strides[0] // scores.itemsize, scores.strides[1] // scores.itemsize
    padded, threads = len(start), threads_for(work)
    size = 2 * padded + more_scratch + 64
    size += -size % 16  # whole cache lines
    scratch = memory.empty((threads * size,), dtype)
    groups = 1 if name != "chain_backward" else max(1, min(batch, MOST_GROUPS))
    given: dict[str, np.ndarray | None] = {
        **arrays,
        "mask": np.ascontiguousarray(mask, np.bool_),
        **{"transitions": transitions, "start": start, "end": end, "scratch": scratch},
    }
    arguments = _Arguments(
        *(batch, time, classes, padded, groups, size),
        *(None if scores is None else address(scores), *steps),
        *(None if (array := given.get(n)) is None else address(array) for n in _ARRAYS),
    )
    if shaped.size:
        getattr(core(dtype), name)(byref(arguments), threads)
    count_call(name)

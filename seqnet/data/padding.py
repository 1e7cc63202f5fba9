"""Padding of sequences, and weights for ranges of steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from seqnet.common.checks import check_count, check_number
from seqnet.common.types import ArrayLike
from seqnet.data.validation import as_array


def pad_sequences(
    sequences: Sequence,
    maxlen: int | None = None,
    dtype: str | None = None,
    padding: str = "pre",
    truncating: str = "pre",
    value: float = 0.0,
) -> np.ndarray:
    """Pad sequences of different lengths to one array (with the defaults of Keras).

    Parameters
    ----------
    sequences : list of sequences, each (time,) or (time, features)
    maxlen : int, optional
        The length of the result; by default the length of the longest sequence.
    dtype : str, optional
        By default ``int32`` for integers and ``float32`` otherwise.
    padding, truncating : "pre" or "post"
        Pad or truncate at the start or at the end.
    value : float
        The padding value.

    Returns
    -------
    array (samples, maxlen) or (samples, maxlen, features)

    Examples
    --------
    >>> import seqnet
    >>> seqnet.data.pad_sequences([[1], [2, 3]]).tolist()
    [[0, 1], [2, 3]]
    """
    for option, given in (("padding", padding), ("truncating", truncating)):
        if given not in ("pre", "post"):
            raise ValueError(f"{option} must be 'pre' or 'post', got {given!r}.")
    if not isinstance(sequences, Iterable):
        raise TypeError(f"sequences must be a list of sequences, got {sequences!r}.")
    sequences = list(sequences)
    if not sequences:
        raise ValueError("There are no sequences to pad.")
    for number, sequence in enumerate(sequences):
        if isinstance(sequence, (str, bytes)) or not getattr(sequence, "shape", (1,)):
            sequence = None
        if not isinstance(sequence, Iterable):
            raise TypeError(
                f"sequences[{number}] is {sequences[number]!r}; each sequence is a list or an "
                "array of numbers."
            )
    rows = [as_array(row, f"sequences[{number}]") for number, row in enumerate(sequences)]
    check_number(value, "value")
    features = {r.shape[1:] for r in rows}
    if len(features) > 1:
        raise ValueError(f"The sequences' steps differ in shape: {sorted(features)}.")
    length = max(len(r) for r in rows) if maxlen is None else check_count(maxlen, "maxlen")
    whole = all(r.dtype.kind in "iub" for r in rows if r.size) and float(value).is_integer()
    shape = (len(rows), length, *features.pop())
    padded = np.full(shape, value, dtype=dtype or ("int32" if whole else "float32"))
    for target, row in zip(padded, rows, strict=True):
        kept = row[-length:] if truncating == "pre" else row[:length]
        if len(kept):
            where = slice(length - len(kept), None) if padding == "pre" else slice(0, len(kept))
            target[where] = kept
    return padded


def ranges(starts: ArrayLike, lengths: ArrayLike, time: ArrayLike) -> tuple[np.ndarray, ...]:
    """Return starts, lengths and numbers of steps as integers (samples,), or raise an error."""
    found: list[np.ndarray] = []
    for name, values in (("starts", starts), ("lengths", lengths), ("time", time)):
        single = np.ndim(values) == 0 and name != "starts"
        array = as_array([values] if single else values, name)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} must hold integers, got the dtype {array.dtype}.")
        samples = len(found[0]) if found else len(array)
        if array.ndim != 1 or (len(array) != samples and not single):
            raise ValueError(f"{name} must have the shape ({samples},), got {array.shape}.")
        found.append(np.broadcast_to(array, samples))
    return tuple(found)


def range_weights(
    starts: ArrayLike, lengths: ArrayLike, time: ArrayLike
) -> np.ndarray | list[np.ndarray]:
    """Return weights that are 1 for a range of steps of each sequence and 0 elsewhere.

    Passed as ``sample_weight`` of `seqnet.Model.fit`, they restrict the loss and the metrics to
    these steps, such as the answer after a question. Targets at other steps may have any value.

    Parameters
    ----------
    starts : int array (samples,)
        The first step of the range.
    lengths : int or int array (samples,)
        The number of steps in the range.
    time : int, or int array (samples,)
        The total number of steps; for a list of sequences, one number for each.

    Returns
    -------
    float32 array (samples, time), or a list of arrays (time,)

    Examples
    --------
    >>> import seqnet
    >>> seqnet.data.range_weights([2, 0], [1, 2], 3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    >>> [w.tolist() for w in seqnet.data.range_weights([1, 0], 1, [2, 1])]
    [[0.0, 1.0], [1.0]]
    """
    starts, lengths, times = ranges(starts, lengths, time)
    wrong = (starts < 0) | (lengths < 0) | (starts + lengths > times)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Sequence {row} has {times[row]} steps, so a range of {lengths[row]} from step "
            f"{starts[row]} on does not exist."
        )
    pairs = zip(starts, lengths, times, strict=True)
    rows = [((t := np.arange(n)) >= s) & (t < s + k) for s, k, n in pairs]
    weights = [row.astype("float32") for row in rows]
    return np.stack(weights) if np.ndim(time) == 0 else weights

"""Arrays in, batches out: checking what the user passed, splitting, shuffling, padding."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np

from seqnet.checks import WrongValueError, check_count, check_number, first_place

WIDE = tuple(map(np.dtype, ("int64", "uint32", "uint64")))
"""Types of whole numbers that the 32-bit ones of compiled functions may not hold."""


def as_array(values, name: str) -> np.ndarray:
    """Return `values` as an array, or say why it cannot be one."""
    if hasattr(values, "shape") and hasattr(values, "dtype") and not np.ma.isMaskedArray(values):
        array = values if isinstance(values, np.ndarray) else np.asarray(values)
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise ValueError(
                f"{name} is not rectangular ({error}). Sequences of different lengths come as a "
                "list of arrays, and then targets for each step do too."
            ) from None
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} must be an array of numbers, got {type(values).__name__} of dtype "
            f"{array.dtype}."
        )
    if array.ndim == 0:
        raise ValueError(f"{name} must have a batch axis, got the single number {array[()]!r}.")
    if array.dtype in WIDE and array.size:
        for value in (int(array.min()), int(array.max())):
            if not -(2**31) <= value < 2**31:
                raise ValueError(
                    f"{name} holds {value}, but whole numbers are computed with as 32-bit "
                    f"integers. For quantities convert with {name}.astype('float64')."
                )
    return array


def cast(array: np.ndarray, float_dtype: str) -> np.ndarray:
    """Give an array the dtype that compiled functions take: int32, or the model's float type."""
    return np.ascontiguousarray(array, dtype="int32" if array.dtype.kind in "iub" else float_dtype)


def with_axes(array: np.ndarray, rank: int) -> np.ndarray:
    """Return an array of at least this rank: axes of size 1 are put behind its own."""
    return array.reshape(array.shape + (1,) * (rank - array.ndim))


def portion(batches: Iterable, first: int, steps: int | None, before: int = 0) -> Iterator:
    """Return an epoch's batches from number `first` on: all, or those of `steps`, going round."""
    if steps is None:
        return islice(batches, first, None)
    return islice(cycle(batches), before + first, before + steps)


@dataclass
class Examples:
    """Inputs with their targets, sample weights and mask, whatever of them there is.

    Attributes
    ----------
    x : array (samples, ...)
    y : array (samples, ...), optional
    weight : array (samples,) or (samples, time), optional
    mask : bool array (samples, time), optional
    """

    x: np.ndarray
    y: np.ndarray | None = None
    weight: np.ndarray | None = None
    mask: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The shape of a batch of inputs, None for what varies."""
        return (None, *self.x.shape[1:])

    def gives_steps(self, output_shape: tuple) -> bool:
        """Tell whether an output of a shape, the batch first, has the steps of the inputs."""
        return len(output_shape) > 2 and output_shape[1:2] == self.x.shape[1:2]

    def step_weight(self) -> np.ndarray | None:
        """Return the weights; one for each step where outputs are steps and lie end to end."""
        return self.weight

    def flipped(self, values: np.ndarray) -> np.ndarray:
        """Return what belongs to steps with each sequence in the opposite order."""
        return values[:, ::-1]

    def take(self, rows) -> Examples:
        """Return the examples of some rows (a slice or an array of numbers)."""
        return Examples(*[None if a is None else a[rows] for a in self.parts()])

    def parts(self) -> tuple:
        """Return x, y, weight and mask."""
        return (self.x, self.y, self.weight, self.mask)

    def split(self, share: float) -> tuple[Examples, Examples]:
        """Cut the last `share` off, as Keras's validation_split does."""
        at = self.split_at(share)
        return self.take(slice(0, at)), self.take(slice(at, None))

    def split_at(self, share: float) -> int:
        """Return the row before which `split` cuts, or raise if it leaves nothing on a side."""
        if not 0 < check_number(share, "validation_split") < 1:
            raise ValueError(f"validation_split is a share between 0 and 1, got {share}.")
        at = int(len(self) * (1 - share))
        if at == 0 or at == len(self):
            raise ValueError(
                f"validation_split={share} of {len(self)} samples leaves nothing to "
                f"{'train' if at == 0 else 'validate'} on."
            )
        return at

    def whole(self) -> Examples:
        """Return everything as one batch."""
        return self

    def plan(self, batch_size: int, rng: np.random.Generator | None = None) -> Iterator:
        """Return the rows of each batch, in order, or shuffled if there is a generator."""
        order = None if rng is None else rng.permutation(len(self))
        ends = range(batch_size, len(self) + batch_size, batch_size)
        slices = (slice(end - batch_size, min(end, len(self))) for end in ends)
        return slices if order is None else (order[rows] for rows in slices)

    def schedule(
        self,
        batch_size: int,
        rng: np.random.Generator | None = None,
        first: int = 0,
        steps: int | None = None,
        before: int = 0,
        contiguous: bool = False,
    ) -> Iterator:
        """Return the rows of each batch that `batches` is to yield."""
        if rng is None:
            return portion(self.plan(batch_size), first, steps, before)
        if not contiguous:
            return portion(self.plan(batch_size, rng), first, steps)
        slices = list(self.plan(batch_size))
        return portion([slices[k] for k in rng.permutation(len(slices))], first, steps)

    def batches(self, batch_size: int, *args, **options) -> Generator:
        """Yield batches in order, or shuffled if there is a generator; the last may be short.

        Parameters
        ----------
        batch_size : int
        rng : numpy Generator, optional
            The order is drawn from it before the first batch.
        first : int
            Batches of the epoch before this number are left out, and not read.
        steps : int, optional
            How many batches an epoch has; after the last of the data comes the first again.
        before : int
            How many batches earlier epochs had: without a generator it goes on after them.
        contiguous : bool
            Whether a batch is made of neighbours, and only the order of batches is drawn.
        """
        for rows in self.schedule(batch_size, *args, **options):
            yield self.take(rows).whole()

    def more(self) -> bool:
        """Tell whether there is anything for another epoch."""
        return True

    def first_batch(self, batch_size: int) -> Examples:
        """Return the first rows as a batch, to compile for."""
        return self.take(slice(0, batch_size)).whole()

    def count(self, batch_size: int) -> int | None:
        """Return the number of batches."""
        return -(-len(self) // batch_size)

    def samples(self) -> int | None:
        """Return the number of samples, None where it is not known."""
        return len(self)

    def close(self) -> None:
        """Let go of what is being read."""

    def by_length(self) -> Examples:
        """Return the examples in the order that costs least; `join` undoes it."""
        return self

    def join(self, outputs: list[np.ndarray]):
        """Return the outputs of all batches as one result, in the caller's order."""
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def fingerprint(self) -> dict[str, Any]:
        """Return the shape, dtype and a checksum of each part, to tell data sets apart."""
        names = ("X", "y", "sample_weight", "mask")
        pairs = zip(names, self.parts(), strict=True)
        return {name: fingerprint(part) for name, part in pairs if part is not None}

    def check(self, part: str, check: Callable, name: str) -> None:
        """Run ``check(values, name)`` on a part."""
        check(getattr(self, part), name)


def make_examples(x, y=None, weight=None, mask=None, *, prefix: str = "") -> Examples:
    """Check that the arrays of one data set go together; names in messages get a prefix."""
    name = f"{prefix}X"
    x = as_array(x, name)
    if len(x) == 0:
        raise ValueError(f"{name} is empty: its shape is {x.shape}.")
    if 0 in x.shape:
        raise ValueError(f"{name} has an axis of size 0: its shape is {x.shape}.")
    examples = Examples(x)
    if y is not None:
        examples.y = as_array(y, f"{prefix}y")
        same_count(name, x, f"{prefix}y", examples.y)
    if weight is not None:
        label = f"{prefix}sample_weight"
        examples.weight = as_array(weight, label)
        same_count(name, x, label, examples.weight)
        check_weights(examples.weight, label)
    if mask is not None:
        examples.mask = as_array(mask, f"{prefix}mask").astype(bool)
        if x.ndim < 2 or examples.mask.shape != x.shape[:2]:
            raise ValueError(
                f"{prefix}mask must have the shape (samples, time) of {name}, "
                f"{x.shape[:2]}, got {examples.mask.shape}."
            )
    return examples


FINGERPRINTED = 2**26
"""Of larger arrays, about so many bytes are read for a fingerprint: rows at regular distances."""


def fingerprint(array: np.ndarray) -> dict:
    """Return an array's shape, dtype and a checksum, as JSON can hold them."""
    rows = array[:: 1 + array.nbytes // FINGERPRINTED]
    checksum = zlib.crc32(np.ascontiguousarray(rows))
    return {"shape": list(array.shape), "dtype": array.dtype.name, "checksum": checksum}


def check_weights(array: np.ndarray, name: str) -> None:
    """Raise if sample weights are negative or not numbers."""
    wrong = ~np.isfinite(array) | (array < 0)
    if wrong.any():
        where = first_place(wrong)
        raise WrongValueError(
            f"{name} must be finite and not negative, but holds {array[where]} at {{where}}.", where
        )


def same_count(name: str, x: np.ndarray, other: str, values: np.ndarray) -> None:
    """Raise if two arrays do not have the same number of samples."""
    if len(x) != len(values):
        raise ValueError(
            f"{name} and {other} must have the same number of samples, got {len(x)} in {name} "
            f"(shape {x.shape}) and {len(values)} in {other} (shape {values.shape})."
        )


def pad_sequences(
    sequences: Sequence,
    maxlen: int | None = None,
    dtype: str | None = None,
    padding: str = "pre",
    truncating: str = "pre",
    value: float = 0.0,
) -> np.ndarray:
    """Make one array of sequences of different lengths (Keras's function and defaults).

    Parameters
    ----------
    sequences : list of sequences, each (time,) or (time, features)
    maxlen : int, optional
        Length of the result; the longest sequence's by default.
    dtype : str, optional
        ``int32`` for whole numbers, ``float32`` else.
    padding, truncating : "pre" or "post"
        Where to add what is missing, and where to cut what is too much.
    value : float
        What to pad with.

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
    rows = [np.asarray(s) for s in sequences]
    if not rows:
        raise ValueError("There are no sequences to pad.")
    for number, row in enumerate(rows):
        if not row.ndim:
            raise TypeError(
                f"sequences[{number}] is {row[()]!r}; each sequence is a list or an array."
            )
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


def range_weights(starts, lengths, time):
    """Return weights that are 1 for a range of steps of each sequence and 0 elsewhere.

    As ``sample_weight`` of `seqnet.Model.fit` they make a model learn, and be measured, at those
    steps only, such as the answer after a question. Targets at other steps may hold anything.

    Parameters
    ----------
    starts : int array (samples,)
        The first step that counts.
    lengths : int or int array (samples,)
        How many steps count.
    time : int, or int array (samples,)
        How many steps there are; one number for each sequence of a list.

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
    starts = as_array(starts, "starts")
    times = np.broadcast_to(time, starts.shape)
    lengths = np.broadcast_to(lengths, starts.shape)
    wrong = (starts < 0) | (lengths < 0) | (starts + lengths > times)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Sequence {row} has {times[row]} steps, so {lengths[row]} from step {starts[row]} on "
            "are not there."
        )
    pairs = zip(starts, lengths, times, strict=True)
    rows = [((t := np.arange(n)) >= s) & (t < s + k) for s, k, n in pairs]
    weights = [row.astype("float32") for row in rows]
    return np.stack(weights) if np.ndim(time) == 0 else weights

"""What users pass as sequences: lists of any lengths, masks, lengths, and what belongs to steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seqnet.data import as_array, check_weights
from seqnet.ragged import RaggedExamples


def size_of(value) -> int | None:
    """Return the length of a sequence, None for what is none."""
    try:
        return None if isinstance(value, str) else len(value)
    except TypeError:
        return None


def described(value) -> str:
    """Say what an object is, for messages.

    Examples
    --------
    >>> from seqnet.sequences import described
    >>> described((1, 2)), described(np.ones((2, 3))), described(7)
    ('tuple of 2', 'array of shape (2, 3)', 'int')
    """
    if isinstance(value, np.ndarray):
        return f"array of shape {value.shape}"
    size = size_of(value)
    return type(value).__name__ + ("" if size is None else f" of {size}")


def is_ragged(values) -> bool:
    """Tell whether these are sequences that do not fit one array."""
    if isinstance(values, np.ndarray):
        if values.dtype != object or values.ndim != 1:
            return False
    elif not isinstance(values, (list, tuple)):
        return False
    sizes = {size_of(value) for value in values}
    if sizes <= {None}:
        return False
    if len(sizes) > 1 or sizes == {0} or isinstance(values, np.ndarray):
        return True
    try:
        np.asarray(values)
    except ValueError:
        return True
    return False


def flatten(sequences: Sequence, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps of all sequences end to end, (steps, ...), and the lengths.

    Raises
    ------
    ValueError, TypeError
        If a sequence is empty, holds no numbers, or its steps differ in shape from the first's;
        the message names it.
    """
    arrays: list[np.ndarray] = []
    for number, values in enumerate(sequences):
        label = f"{name}[{number}]"
        try:
            array = np.asarray(values)
        except ValueError:
            raise ValueError(f"{label} is not rectangular: its steps differ in shape.") from None
        if array.ndim == 0:
            raise ValueError(f"{label} must be a sequence, got the single value {values!r}.")
        if len(array) == 0:
            raise ValueError(f"{label} is empty: a sequence has at least one step. Leave it out.")
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{label} must hold numbers, got the dtype {array.dtype}.")
        if arrays and array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                f"The steps of {label} have the shape {array.shape[1:]}, but those of {name}[0] "
                f"have {arrays[0].shape[1:]}: all sequences have the same features."
            )
        arrays.append(array)
    return np.concatenate(arrays), np.array([len(a) for a in arrays])


def ragged_examples(x, mask=None, *, prefix: str = "") -> RaggedExamples:
    """Return sequences of different lengths as examples, still without targets."""
    name = f"{prefix}X"
    flat, lengths = flatten(x, name)
    examples = RaggedExamples(flat, starts=np.cumsum(lengths) - lengths, lengths=lengths)
    examples.check("x", as_array, name)
    if mask is not None:
        label = f"{prefix}mask"
        same_number(examples, mask, label, prefix)
        examples.mask = one_for_each_step(examples, mask, label, prefix).astype(bool)
    return examples


def enter_targets(examples: RaggedExamples, y=None, weight=None, *, prefix: str = "") -> None:
    """Check that targets and weights belong to the sequences, and enter them.

    `examples.per_step` must be known.
    """
    if y is not None:
        name = f"{prefix}y"
        same_number(examples, y, name, prefix)
        if examples.per_step:
            examples.y = steps_like(examples, y, name, prefix)
        elif is_ragged(y):
            raise ValueError(
                f"{name} has sequences of different lengths, but the model gives one output for "
                "each sequence. For an output at every step, the last recurrent layer needs "
                "return_sequences=True."
            )
        else:
            examples.y = as_array(y, name)
        examples.check("y", as_array, name)
    if weight is not None:
        name = f"{prefix}sample_weight"
        same_number(examples, weight, name, prefix)
        examples.weight_per_step = size_of(weight[0]) is not None
        if examples.weight_per_step and not examples.per_step:
            raise ValueError(
                f"{name} must have the shape ({len(examples)},): the model gives one output for "
                "each sequence."
            )
        if examples.weight_per_step:
            examples.weight = one_for_each_step(examples, weight, name, prefix)
        else:
            examples.weight = as_array(weight, name)
        examples.check("weight", check_weights, name)


def same_number(examples: RaggedExamples, values, name: str, prefix: str) -> None:
    """Raise if there are not as many values as sequences."""
    count = size_of(values)
    if count is None:
        raise TypeError(f"{name} must have one entry for each sequence, got {values!r}.")
    if count != len(examples):
        raise ValueError(
            f"{prefix}X and {name} must have the same number of samples, got {len(examples)} in "
            f"{prefix}X and {count} in {name}."
        )


def steps_like(examples: RaggedExamples, values, name: str, prefix: str) -> np.ndarray:
    """Return what belongs to the steps of the sequences end to end, if the lengths agree."""
    for number, (value, length) in enumerate(zip(values, examples.lengths, strict=True)):
        steps = size_of(value)
        if steps != length:
            found = "is a single value" if steps is None else f"has {steps} steps"
            raise ValueError(f"{name}[{number}] {found}, but {prefix}X[{number}] has {length}.")
    return flatten(values, name)[0]


def one_for_each_step(examples: RaggedExamples, values, name: str, prefix: str) -> np.ndarray:
    """Return single values that belong to the steps, end to end."""
    flat = steps_like(examples, values, name, prefix)
    if flat.ndim > 1:
        raise ValueError(f"{name}[0] must have one value for each step, got {flat.shape[1:]}.")
    return flat


def check_rectangular(x: np.ndarray, values, name: str, *, prefix: str = "") -> None:
    """Raise ``ValueError`` if what belongs to an array of sequences has rows of other lengths."""
    if not is_ragged(values) or x.ndim < 2 or len(values) != len(x):
        return
    for number, value in enumerate(values):
        steps = size_of(value)
        if steps != x.shape[1]:
            found = "is a single value" if steps is None else f"has {steps} entries"
            raise ValueError(
                f"{name} is not rectangular: {name}[{number}] {found}, but {prefix}X[{number}] has "
                f"{x.shape[1]} steps."
            )


def check_lengths(x, lengths, *, prefix: str = "") -> np.ndarray:
    """Return lengths as an array, or raise if they are not one for each row, in its steps."""
    name = f"{prefix}lengths"
    if x.ndim < 2:
        raise ValueError(f"{name} goes with sequences, but {prefix}X has the shape {x.shape}.")
    lengths = as_array(lengths, name)
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold whole numbers, got the dtype {lengths.dtype}.")
    if lengths.shape != x.shape[:1]:
        raise ValueError(
            f"{name} must have the shape (samples,) of {prefix}X, ({len(x)},), got {lengths.shape}."
        )
    wrong = (lengths < 1) | (lengths > x.shape[1])
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{name}[{row}] is {lengths[row]}, but {prefix}X has {x.shape[1]} steps: a length is "
            f"from 1 to {x.shape[1]}."
        )
    return lengths

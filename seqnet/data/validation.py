"""Validation of arrays and sequences.

Each function returns the checked values, or raises an error with the names of the user's arguments.
No function changes its arguments.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from seqnet.common.checks import WrongValueError, first_place

WIDE = frozenset(np.typecodes["AllInteger"]) - frozenset("bBhHi")
"""Codes of the integer types whose values may not fit the 32-bit integers of compiled functions."""


def as_array(values: Any, name: str) -> np.ndarray:
    """Return `values` as an array, or raise an error with the reason."""
    array = values
    if type(values) is not np.ndarray:
        refuse_masked(values, name)
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise ValueError(
                f"{name} is not rectangular ({error}). Pass sequences of different lengths as a "
                "list of arrays, and targets for each step also."
            ) from None
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} must be an array of numbers, got {type(values).__name__} of dtype "
            f"{array.dtype}.{number_hint(values, array, name)}"
        )
    if array.ndim == 0:
        raise ValueError(f"{name} must have a batch axis, got the single number {array[()]}.")
    if array.dtype.char in WIDE and array.size:
        for value in (int(array.min()), int(array.max())):
            if not -(2**31) <= value < 2**31:
                raise ValueError(
                    f"{name} holds {value}, but integers are computed as 32-bit integers. Convert "
                    f"quantities with {name}.astype('float64')."
                )
    return array


def number_hint(values: Any, array: np.ndarray, name: str) -> str:
    """Return a hint on how to convert values to numbers."""
    if array.dtype.kind in "US":
        return " Convert text to numbers first, such as with seqnet.text.CharacterVocabulary."
    if array.dtype.kind in "mM":
        return f" Convert times to numbers first, such as by ({name} - {name}.min()) / unit."
    if array.dtype.kind != "O":
        return ""
    if isinstance(values, Mapping):
        return " Pass one array for each input and output."
    if hasattr(values, "__next__"):
        return f" Pass list({name})."
    others: list = [v for v in array.flat if not isinstance(v, (int, float, np.bool_, np.number))]
    if not others:
        whole = all(isinstance(v, (int, np.integer)) and abs(int(v)) < 2**31 for v in array.flat)
        return f" Convert it with np.asarray({name}, '{'int32' if whole else 'float32'}')."
    if array.ndim == 1 and isinstance(others[0], (list, tuple, np.ndarray)):
        return f" Pass sequences as a list: {name}.tolist()."
    return f" It holds {reprlib.repr(others[0])}, a {type(others[0]).__name__}."


def refuse_masked(values: Any, name: str) -> None:
    """Raise an error if a NumPy masked array, or one in a list, has masked values."""
    several = values if isinstance(values, (list, tuple)) else (values,)
    if any(isinstance(v, np.ma.MaskedArray) and np.ma.is_masked(v) for v in several):
        raise TypeError(
            f"{name} is a masked array with masked values, and the meaning of its mask is not "
            f"known. Pass {name}.filled(0), and mark what counts with mask= (steps, True where "
            "there is data) or sample_weight= (0 where nothing counts)."
        )


def as_mask(values: Any, name: str) -> np.ndarray:
    """Return a mask of bools, or of the integers 0 and 1, as bools; else raise an error."""
    mask = as_array(values, name)
    if mask.dtype.kind == "f":
        raise TypeError(
            f"{name} must hold bools, True where there is data, or the integers 0 and 1; got the "
            f"dtype {mask.dtype}. Convert it with {name}.astype(bool); pass weights of steps as "
            "sample_weight."
        )
    wrong = (mask != 0) & (mask != 1)
    if wrong.any():
        where = first_place(wrong)
        raise WrongValueError(
            f"{name} must hold bools, True where there is data, or the integers 0 and 1, but "
            f"holds {mask[where]} at {{where}}.",
            where,
        )
    return mask.astype(bool, copy=False)


def with_axes(array: np.ndarray, rank: int) -> np.ndarray:
    """Append axes of size 1 until an array has this rank."""
    return array.reshape(array.shape + (1,) * (rank - array.ndim))


def check_weights(array: np.ndarray, name: str) -> None:
    """Raise an error if sample weights are negative or not finite."""
    wrong = ~np.isfinite(array) | (array < 0)
    if wrong.any():
        where = first_place(wrong)
        raise WrongValueError(
            f"{name} must be finite and not negative, but holds {array[where]} at {{where}}.", where
        )


def check_same_count(name: str, x: Any, other: str, values: Any) -> None:
    """Raise an error if two parts of the data do not have the same number of samples."""
    if len(x) != len(values):
        found = [
            f"{len(part)} in {label}" + (f" (shape {part.shape})" if hasattr(part, "shape") else "")
            for label, part in ((name, x), (other, values))
        ]
        raise ValueError(
            f"{name} and {other} must have the same number of samples, got {' and '.join(found)}."
        )


def check_counted(
    values: np.ndarray,
    check: Callable,
    name: str,
    counted: Callable[[], np.ndarray | None],
    ignored: Callable = np.zeros,
) -> np.ndarray:
    """Return values if ``check(values, name)`` accepts them where they count.

    Parameters
    ----------
    values : array
    check : function of values and name
    name : str
    counted : function
        Returns a bool array that is True where values count, or None if all of them do.
    ignored : function of a shape
        Returns the replacement for values that do not count and are invalid, given the shape of the
        values of one step.
    """
    try:
        check(values, name)
        return values
    except (ValueError, TypeError):
        where = counted()
        if where is None or where.all() or values.shape[: where.ndim] != where.shape:
            raise
    filler = ignored(values.shape[where.ndim :]).astype(values.dtype)
    kept = np.where(with_axes(where, values.ndim), values, filler)
    check(kept, name)
    return kept


def size_of(value: Any) -> int | None:
    """Return the length of a sequence, None for other objects."""
    try:
        return None if isinstance(value, str) else len(value)
    except TypeError:
        return None


def described(value: Any) -> str:
    """Return a short description of an object for messages.

    Examples
    --------
    >>> from seqnet.data.validation import described
    >>> described((1, 2)), described(np.ones((2, 3))), described(7)
    ('tuple of 2', 'array of shape (2, 3)', 'int')
    """
    if isinstance(value, np.ndarray):
        return f"array of shape {value.shape}"
    size = size_of(value)
    return type(value).__name__ + ("" if size is None else f" of {size}")


def is_ragged(values: Any) -> bool:
    """Return whether values are sequences that do not fit one array."""
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
    """Concatenate the steps of all sequences; return (steps, ...) and the lengths.

    Raises
    ------
    ValueError, TypeError
        If a sequence is empty, does not hold numbers, or its steps have another shape than those of
        the first sequence; the message names it.
    """
    arrays: list[np.ndarray] = []
    for number, values in enumerate(sequences):
        label = f"{name}[{number}]"
        refuse_masked(values, label)
        try:
            array = np.asarray(values)
        except ValueError:
            raise ValueError(f"{label} is not rectangular: its steps differ in shape.") from None
        if array.ndim == 0:
            raise ValueError(f"{label} must be a sequence, got the single value {values!r}.")
        if len(array) == 0:
            raise ValueError(f"{label} is empty: a sequence has at least one step. Remove it.")
        if 0 in array.shape:
            raise ValueError(f"{label} has an axis of size 0: its shape is {array.shape}.")
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{label} must hold numbers, got the dtype {array.dtype}.")
        if arrays and array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                f"The steps of {label} have the shape {array.shape[1:]}, but those of {name}[0] "
                f"have {arrays[0].shape[1:]}: all sequences must have the same features."
            )
        arrays.append(array)
    return np.concatenate(arrays), np.array([len(a) for a in arrays])


def check_same_length(name: str, sequences: Any, other: str, values: Any) -> None:
    """Raise an error if there are not as many values as sequences."""
    if size_of(values) is None:
        raise TypeError(f"{other} must have one entry for each sequence, got {values!r}.")
    check_same_count(name, sequences, other, values)


def steps_like(values: Sequence, lengths: np.ndarray, name: str, like: str) -> np.ndarray:
    """Concatenate the values of the steps of sequences, if they have the lengths of `like`."""
    for number, (value, length) in enumerate(zip(values, lengths, strict=True)):
        steps = size_of(value)
        if steps != length:
            found = "is a single value" if steps is None else f"has {steps} steps"
            raise ValueError(f"{name}[{number}] {found}, but {like}[{number}] has {length}.")
    return flatten(values, name)[0]


def scalar_steps(values: Sequence, lengths: np.ndarray, name: str, like: str) -> np.ndarray:
    """Concatenate single values of the steps of sequences."""
    flat = steps_like(values, lengths, name, like)
    if flat.ndim > 1:
        raise ValueError(f"{name}[0] must have one value for each step, got {flat.shape[1:]}.")
    return flat


def check_rectangular(x: np.ndarray, values: Any, name: str, like: str) -> None:
    """Raise ``ValueError`` if values for an array of sequences have rows of other lengths."""
    if not is_ragged(values) or x.ndim < 2 or len(values) != len(x):
        return
    for number, value in enumerate(values):
        steps = size_of(value)
        if steps != x.shape[1]:
            found = "is a single value" if steps is None else f"has {steps} entries"
            raise ValueError(
                f"{name} is not rectangular: {name}[{number}] {found}, but {like}[{number}] has "
                f"{x.shape[1]} steps."
            )


def check_lengths(x: Any, lengths: Any, name: str, like: str) -> np.ndarray:
    """Return lengths as an array, or raise an error if they do not fit the rows of x."""
    if x.ndim < 2:
        raise ValueError(f"{name} needs sequences, but {like} has the shape {x.shape}.")
    lengths = as_array(lengths, name)
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got the dtype {lengths.dtype}.")
    if lengths.shape != x.shape[:1]:
        raise ValueError(
            f"{name} must have the shape (samples,) of {like}, ({len(x)},), got {lengths.shape}."
        )
    wrong = (lengths < 1) | (lengths > x.shape[1])
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{name}[{row}] is {lengths[row]}, but {like} has {x.shape[1]} steps: a length must "
            f"be from 1 to {x.shape[1]}."
        )
    return lengths

"""What users pass as arrays, made arrays and checked on their own."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping

import numpy as np

from seqnet.checks import WrongValueError, first_place

WIDE = tuple(map(np.dtype, ("int64", "uint32", "uint64")))
"""Types of whole numbers that the 32-bit ones of compiled functions may not hold."""


def as_array(values, name: str) -> np.ndarray:
    """Return `values` as an array, or say why it cannot be one."""
    refuse_masked(values, name)
    try:
        array = values if type(values) is np.ndarray else np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"{name} is not rectangular ({error}). Sequences of different lengths come as a "
            "list of arrays, and then targets for each step do too."
        ) from None
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} must be an array of numbers, got {type(values).__name__} of dtype "
            f"{array.dtype}.{number_hint(values, array, name)}"
        )
    if array.ndim == 0:
        raise ValueError(f"{name} must have a batch axis, got the single number {array[()]}.")
    if array.dtype in WIDE and array.size:
        for value in (int(array.min()), int(array.max())):
            if not -(2**31) <= value < 2**31:
                raise ValueError(
                    f"{name} holds {value}, but whole numbers are computed with as 32-bit "
                    f"integers. For quantities convert with {name}.astype('float64')."
                )
    return array


def number_hint(values, array: np.ndarray, name: str) -> str:
    """Say how to make numbers of what is none."""
    if array.dtype.kind in "US":
        return " Text is turned into numbers first, as seqnet.text.CharacterVocabulary does."
    if array.dtype.kind in "mM":
        return f" Times are turned into numbers first, such as by ({name} - {name}.min()) / unit."
    if array.dtype.kind != "O":
        return ""
    if isinstance(values, Mapping):
        return " Pass one array: a model has one input and one output."
    if hasattr(values, "__next__"):
        return f" Pass list({name})."
    others = [v for v in array.flat if not isinstance(v, (int, float, np.bool_, np.number))]
    if not others:
        whole = all(isinstance(v, (int, np.integer)) and abs(v) < 2**31 for v in array.flat)
        return f" Convert it with np.asarray({name}, '{'int32' if whole else 'float32'}')."
    if array.ndim == 1 and isinstance(others[0], (list, tuple, np.ndarray)):
        return f" Sequences come as a list: {name}.tolist()."
    return f" It holds {reprlib.repr(others[0])}, a {type(others[0]).__name__}."


def refuse_masked(values, name: str) -> None:
    """Raise if values of a NumPy masked array, or of a list of them, are masked."""
    several = values if isinstance(values, (list, tuple)) else (values,)
    if any(isinstance(v, np.ma.MaskedArray) and np.ma.is_masked(v) for v in several):
        raise TypeError(
            f"{name} is a masked array with masked values, and seqnet would not know what the "
            f"mask means. Pass {name}.filled(0), and what counts as mask= (steps, True where there "
            "is data) or sample_weight= (0 where nothing counts)."
        )


def as_mask(values, name: str) -> np.ndarray:
    """Return a mask as bools: bools, or whole numbers 0 and 1; anything else raises."""
    mask = as_array(values, name)
    if mask.dtype.kind == "f":
        raise TypeError(
            f"{name} must hold bools, True where there is data, or the whole numbers 0 and 1; got "
            f"the dtype {mask.dtype}. Convert it with {name}.astype(bool); weights of steps are "
            "passed as sample_weight."
        )
    wrong = (mask != 0) & (mask != 1)
    if wrong.any():
        where = first_place(wrong)
        raise WrongValueError(
            f"{name} must hold bools, True where there is data, or the whole numbers 0 and 1, but "
            f"holds {mask[where]} at {{where}}.",
            where,
        )
    return mask.astype(bool, copy=False)


def cast(array: np.ndarray, float_dtype: str) -> np.ndarray:
    """Give an array the dtype that compiled functions take: int32, or the model's float type."""
    return np.ascontiguousarray(array, dtype="int32" if array.dtype.kind in "iub" else float_dtype)


def with_axes(array: np.ndarray, rank: int) -> np.ndarray:
    """Return an array of at least this rank: axes of size 1 are put behind its own."""
    return array.reshape(array.shape + (1,) * (rank - array.ndim))


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

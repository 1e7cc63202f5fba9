"""What a user asks of a model's verbs beside data, checked."""

from __future__ import annotations

import numpy as np

from seqnet.checks import check_count
from seqnet.sequences import described
from seqnet.streams import Data, Stream, is_stream


def validation_arguments(given) -> tuple:
    """Return `validation_data` of `Model.fit` as (X, y, sample_weight, mask, lengths)."""
    names = ("X", "y", "sample_weight", "mask", "lengths")
    if isinstance(given, dict):
        if {"X", "y"} <= set(given) <= set(names):
            return tuple(given.get(name) for name in names)
    elif isinstance(given, (tuple, list)) and len(given) in (2, 3):
        return tuple(given)
    elif is_stream(given, alone=True):
        return (given,)
    if isinstance(given, dict):
        found = f"the entries {', '.join(map(str, given))}"
    else:
        found = described(given)
    raise ValueError(
        "validation_data is (X, y) or (X, y, sample_weight), a stream, or a dictionary with X, "
        f"y and any of {', '.join(names[2:])}; got {found}."
    )


def check_verbose(value) -> int:
    """Return 0, 1 or 2 for what a user passed as `verbose`; Keras's ``"auto"`` is 1."""
    if isinstance(value, str) and value == "auto":
        return 1
    if isinstance(value, str) or value not in (0, 1, 2):
        raise ValueError(
            "verbose is 0 (silent), 1 (a progress bar) or 2 (a line for each epoch), got "
            f"{value!r}."
        )
    return int(value)


def check_shuffle(value) -> bool | str:
    """Return what a user passed as `shuffle`, or raise."""
    if not isinstance(value, (bool, np.bool_)) and value != "batch":
        raise ValueError(f"shuffle is True, False or 'batch', got {value!r}.")
    return value


def check_steps(examples: Data, steps, name: str, epochs: int = 1) -> int | None:
    """Return a number of batches that a user passed, or raise if it is needed and missing."""
    if steps is not None:
        return check_count(steps, name)
    if epochs > 1 and isinstance(examples, Stream) and examples.once:
        raise ValueError(
            f"{examples.name} is an iterator, which can be gone through only once: for {epochs} "
            f"epochs pass {name}, or what can be gone through anew: a list of batches, or an "
            "object with __iter__."
        )
    return None


def check_frequency(value) -> int | list[int]:
    """Return what a user passed as `validation_freq`, checked."""
    if isinstance(value, (list, tuple, set, range, np.ndarray)):
        return [check_count(number, "an epoch in validation_freq") for number in value]
    return check_count(value, "validation_freq")


def check_first_epoch(initial_epoch, epochs: int) -> int:
    """Return the number of the first epoch, which is at most that of the last."""
    initial_epoch = check_count(initial_epoch, "initial_epoch", 0)
    if initial_epoch > epochs:
        raise ValueError(
            f"initial_epoch={initial_epoch} is past epochs={epochs}: epochs is where training "
            "ends, counted from the very first epoch, and not how many more there are."
        )
    return initial_epoch

"""Validation of the arguments of a model's methods, except data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from seqnet.common.checks import check_bool, check_count
from seqnet.data.dataset import Dataset
from seqnet.data.stream import is_stream
from seqnet.data.validation import described
from seqnet.distributed import current


@dataclass(frozen=True)
class FitArguments:
    """The arguments of `Model.fit` that control the training; see there."""

    batch_size: int
    validation_batch_size: int
    epochs: int
    initial_epoch: int
    shuffle: bool | str
    tbptt: int | None
    verbose: int
    validation_freq: int | list[int]
    steps_per_epoch: int | None
    validation_steps: int | None
    class_weight: Mapping | None
    resident: bool
    accumulate: int = 1

    @classmethod
    def check(
        cls,
        batch_size: int,
        validation_batch_size: int | None,
        epochs: int,
        initial_epoch: int,
        shuffle: bool | str,
        tbptt: int | None,
        verbose: int | str,
        validation_freq: int | Sequence[int],
        steps_per_epoch: int | None,
        validation_steps: int | None,
        class_weight: Mapping | None,
        resident: bool,
        accumulate: int = 1,
    ) -> FitArguments:
        """Return the arguments, or raise ``ValueError`` or ``TypeError`` for an invalid one."""
        if resident and current().cuts_batches(check_count(accumulate, "accumulate")):
            raise ValueError(
                "resident=True takes whole batches from shared variables, so they cannot be "
                "computed in parts: with accumulate, by several processes, or with sums that are "
                "deterministic. Leave one of them out."
            )
        if validation_batch_size is None:
            validation_batch_size = batch_size
        epochs = check_count(epochs, "epochs", 0)
        return cls(
            check_count(batch_size, "batch_size"),
            check_count(validation_batch_size, "validation_batch_size"),
            epochs,
            check_initial_epoch(initial_epoch, epochs),
            check_shuffle(shuffle),
            check_optional_count(tbptt, "tbptt"),
            check_verbose(verbose),
            check_frequency(validation_freq),
            check_optional_count(steps_per_epoch, "steps_per_epoch"),
            check_optional_count(validation_steps, "validation_steps"),
            class_weight,
            check_bool(resident, "resident"),
            check_count(accumulate, "accumulate"),
        )

    def validates_after(self, epoch: int) -> bool:
        """Return whether there is a validation after an epoch, counted from 0."""
        frequency = self.validation_freq
        if isinstance(frequency, int):
            return (epoch + 1) % frequency == 0
        return epoch + 1 in frequency

    def fixed(self) -> dict:
        """Return the arguments that a resumed run must repeat, as JSON can hold them."""
        values = asdict(self)
        del values["epochs"], values["verbose"], values["resident"], values["accumulate"]
        if self.class_weight is not None:
            values["class_weight"] = plain_weights(self.class_weight)
        return values


def plain_weights(class_weight: Mapping) -> dict:
    """Return class weights, perhaps by output name, with Python's numbers."""
    plain: dict = {}
    for key, weight in class_weight.items():
        if isinstance(weight, Mapping):
            plain[key] = plain_weights(weight)
        else:
            plain[int(key)] = float(weight)
    return plain


def validation_arguments(given: Any) -> tuple:
    """Return `validation_data` of `Model.fit` as (X, y, sample_weight, mask, lengths)."""
    names = ("X", "y", "sample_weight", "mask", "lengths")
    if isinstance(given, dict):
        if {"X", "y"} <= set(given) <= set(names):
            return tuple(given.get(name) for name in names)
    elif isinstance(given, (tuple, list)) and len(given) in (2, 3):
        return tuple(given)
    elif isinstance(given, Dataset) or is_stream(given, alone=True):
        return (given,)
    if isinstance(given, dict):
        found = f"the entries {', '.join(map(str, given))}"
    else:
        found = described(given)
    raise ValueError(
        "validation_data is (X, y) or (X, y, sample_weight), a stream, or a dictionary with X, "
        f"y and any of {', '.join(names[2:])}; got {found}."
    )


def check_verbose(value: int | str) -> int:
    """Return 0, 1 or 2 for `verbose`: Keras's ``"auto"`` is 1, and only rank 0 reports."""
    if isinstance(value, str) and value == "auto":
        return 1
    if not isinstance(value, (int, float, np.number)) or value not in (0, 1, 2):
        raise ValueError(
            "verbose is 0 (silent), 1 (a progress bar) or 2 (a line for each epoch), got "
            f"{value!r}."
        )
    return int(value) if current().rank == 0 else 0


def check_shuffle(value: bool | str) -> bool | str:
    """Return `shuffle`, or raise an error."""
    if not isinstance(value, (bool, np.bool_)) and value != "batch":
        raise ValueError(f"shuffle is True, False or 'batch', got {value!r}.")
    return value


def check_optional_count(value: int | None, name: str) -> int | None:
    """Return an integer above 0, or None."""
    return None if value is None else check_count(value, name)


def check_repeatable(dataset: Dataset, steps: int | None, name: str, epochs: int) -> None:
    """Raise an error if there is more than one epoch, but the data can be read only once.

    With `steps`, passed as the argument `name`, the epochs divide the data.
    """
    if steps is None and epochs > 1 and dataset.one_pass:
        raise ValueError(
            f"{dataset.name} is an iterator, which can be read only once: for {epochs} epochs pass "
            f"{name}, or data that can be read again (a list of batches, or an object with "
            "__iter__)."
        )


def check_frequency(value: int | Sequence[int]) -> int | list[int]:
    """Return `validation_freq`, or raise an error."""
    if isinstance(value, (list, tuple, set, range, np.ndarray)):
        if len(value) == 0:
            raise ValueError("validation_freq is an empty list, so there would be no validation.")
        return [check_count(number, "an epoch in validation_freq") for number in value]
    return check_count(value, "validation_freq")


def check_initial_epoch(initial_epoch: int, epochs: int) -> int:
    """Return the number of the first epoch, which must not be above `epochs`."""
    initial_epoch = check_count(initial_epoch, "initial_epoch", 0)
    if initial_epoch > epochs:
        raise ValueError(
            f"initial_epoch={initial_epoch} is above epochs={epochs}: epochs is the number of the "
            "last epoch, counted from the first, not the number of additional epochs."
        )
    return initial_epoch

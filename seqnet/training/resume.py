"""A run of training in a file, so that it can be resumed.

The file is that of a model with one section more in its header: the state of the run
(`Trainer.state_dict`), and a description of what it was asked to do (layers, optimizer, data,
arguments), which is compared when the run is resumed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytensor

from seqnet import backend, config, registry
from seqnet.saving import hdf5
from seqnet.saving.atomic import check_place
from seqnet.saving.model_format import pack, saved_state

log = logging.getLogger("seqnet")

RUN = "run"
VERSION = 2
"""The version of the section of the header; files with another one are refused."""


def describe(trainer) -> dict[str, Any]:
    """Return what a run is asked to do, as JSON gives it back."""
    model, validation = trainer.model, trainer.validation
    description = {
        "layers": [registry.serialize(layer) for layer in model.layers],
        "optimizer": registry.serialize(model.optimizer),
        "loss": registry.serialize(model.loss),
        "metrics": registry.serialize(model.metrics_asked),
        "data": trainer.dataset.fingerprint(),
        "validation_data": None if validation is None else validation.fingerprint(),
        "callbacks": [type(callback).__name__ for callback in trainer.callbacks.resumed],
        **trainer.arguments.fixed(),
    }
    return json.loads(json.dumps(description))


def save(trainer, description: dict, path: Path) -> None:
    """Write a run between two batches to a file."""
    state = trainer.state_dict()
    model_state = state.pop("model")
    header, arrays = pack(trainer.model, model_state)
    header[RUN] = {
        "version": VERSION,
        "description": description,
        "made_with": made_with(),
        "trainable": model_state["trainable"],  # may have changed since the layers were made
        "state": hdf5.extract_arrays(state, RUN, arrays),
    }
    hdf5.write(path, header, arrays)


def load(path: Path, description: dict) -> tuple[dict, dict] | None:
    """Return the description and the state in a file of a run, None if there is no file.

    The description of the file comes back, because a run may have changed its own layers or
    optimizer.

    Raises
    ------
    ValueError
        If the file is of a run with another description, of another version, or of no run.
    """
    check_place(path)
    if not path.exists():
        return None
    header, arrays = hdf5.read(path)
    if RUN not in header:
        raise ValueError(
            f"{path} holds no training to resume, only a {header.get('kind')}: give "
            "BackupAndRestore a file of its own."
        )
    run = header[RUN]
    if run.get("version") != VERSION:
        raise ValueError(
            f"{path} holds a training in version {run.get('version', 1)} of the format; this "
            f"seqnet resumes version {VERSION}. seqnet.load_model reads its model."
        )
    # What was changed in the course of the run, such as the learning rate, may be as it was then
    # or as it is in a model that continues in the same process.
    before = run["description"]
    now = before | {
        "layers": header["layers"],
        "optimizer": header["training"]["optimizer"],
    }
    found = [list(differences(saved, description)) for saved in (before, now)]
    if all(found):
        raise ValueError(
            f"{path} was saved by another training: {'; '.join(found[0][:3])}. To resume it, call "
            "fit as it was called then; to begin anew, delete the file."
        )
    unlike = list(differences(run["made_with"], made_with()))
    if unlike:
        log.warning(
            "%s is resumed, but perhaps not to the last digit: %s.", path, "; ".join(unlike)
        )
    state = hdf5.insert_arrays(run["state"], arrays)
    state["model"] = saved_state(header, arrays) | {"trainable": run["trainable"]}
    state["model"]["optimizer"]["hyperparameters"] = header["training"]["optimizer"]["config"]
    return before, state


def made_with() -> dict[str, str]:
    """Return what else results depend on, in their last digits."""
    return {
        "PyTensor": pytensor.__version__,
        "NumPy": np.__version__,
        "backend": config.backend(),
        "kernels": "are not used" if backend.kernels() is None else "are used",
    }


def differences(before, now, name: str = "") -> Iterator[str]:
    """Yield what differs between two values that JSON can hold.

    Examples
    --------
    >>> from seqnet.training.resume import differences
    >>> list(differences({"units": [4, 5], "rate": 0.1}, {"units": [4, 6], "rate": 0.1}))
    ['units[1] was 5 and is 6']
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        if before.get("name") != now.get("name"):  # of other classes: nothing else can be compared
            yield f"{name} was {before.get('name')} and is {now.get('name')}"
            return
        for key in sorted({*before, *now}):
            yield from differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, f"{name}[{place}]")
    elif before != now:
        yield f"{name} was {format_value(before)} and is {format_value(now)}"


def format_value(value) -> str:
    """Return a value as text for a message."""
    if isinstance(value, Mapping):
        return value.get("name", "given")
    if isinstance(value, list):
        return f"[{', '.join(map(format_value, value))}]"
    return str(value)

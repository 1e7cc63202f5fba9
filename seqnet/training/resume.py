"""A run of training in a file: all that decides how it goes on, and what it was asked to do.

The file is that of a model with a section more in its header. What a run is asked to do (layers,
optimizer, data, arguments) is written down when it begins, and compared when it is gone on with.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytensor

from seqnet import backend, config, registry, saving
from seqnet.packing import pack, set_arrays, set_generators
from seqnet.replacing import check_place

log = logging.getLogger("seqnet")

RUN = "run"
CALLBACKS = "callbacks"


def describe(fit) -> dict[str, Any]:
    """Return what a run is asked to do, as JSON gives it back."""
    model = fit.model
    validation = None if fit.validation is None else fit.validation.fingerprint()
    asked = {
        "layers": [registry.serialize(layer) for layer in model.layers],
        "optimizer": registry.serialize(model.optimizer),
        "loss": registry.serialize(model.loss),
        "metrics": registry.serialize(model.metrics_asked),
        "data": fit.examples.fingerprint(),
        "validation_data": validation,
        "callbacks": [type(callback).__name__ for callback in fit.callbacks],
        **{name: getattr(fit, name) for name in fit.arguments},
    }
    return json.loads(json.dumps(asked))


def save(fit, path: Path) -> None:
    """Write a run between two batches to a file."""
    header, arrays = pack(fit.model)
    numbers = []
    for place, callback in enumerate(fit.callbacks):
        state = callback.get_state()
        kept = {n for n, value in state.items() if isinstance(value, np.ndarray)}
        numbers.append({n: registry.serialize(v) for n, v in state.items() if n not in kept})
        arrays |= {f"{CALLBACKS}/{place}/{name}": state[name] for name in kept}
    header[RUN] = {
        "asked": fit.asked,
        "made_by": made_by(),
        "position": fit.position(),
        "stop_training": bool(fit.model.stop_training),
        "trainable": [layer.trainable for layer in fit.model.layers],
        "random": config.random_generator().bit_generator.state,
        "history": registry.serialize(fit.model.history.get_state()),
        CALLBACKS: numbers,
    }
    saving.write(path, header, arrays)


def load(fit, path: Path) -> tuple[dict, dict] | None:
    """Return what a file holds if it is of this run, None if there is no file.

    Raises
    ------
    ValueError
        If the file is of another run, or none's.
    """
    check_place(path)
    if not path.exists():
        return None
    header, arrays = saving.read(path)
    if RUN not in header:
        raise ValueError(
            f"{path} holds no training to go on with, only a {header.get('kind')}: give "
            "BackupAndRestore a file of its own."
        )
    # What was changed in the course of the run, such as the learning rate, may be as it was then
    # or as it is in a model that goes on in the same process.
    before = header[RUN]["asked"]
    now = before | {
        "layers": header["layers"],
        "optimizer": header["training"]["optimizer"],
    }
    found = [list(differences(asked, fit.asked)) for asked in (before, now)]
    if all(found):
        raise ValueError(
            f"{path} was saved by another training: {'; '.join(found[0][:3])}. To go on, call fit "
            "as it was called then; to begin anew, delete the file."
        )
    unlike = list(differences(header[RUN]["made_by"], made_by()))
    if unlike:
        log.warning("%s goes on, but perhaps not to the last digit: %s.", path, "; ".join(unlike))
    return header, arrays


def restore(fit, header: dict, arrays: dict, path: Path) -> None:
    """Put a run where it was when a file was saved."""
    run, model = header[RUN], fit.model
    fit.asked = run["asked"]
    for layer, trainable in zip(model.layers, run["trainable"], strict=True):
        layer.trainable = trainable
    optimizer = header["training"]["optimizer"]["config"]
    for name in model.optimizer.active:
        setattr(model.optimizer, name, optimizer[name])
    reset_other_slots(model, arrays)
    set_generators(model, header["generators"])
    set_arrays(model, header, arrays, path)
    model.history.set_state(run["history"])
    for number, callback in enumerate(fit.callbacks):
        state = run[CALLBACKS][number] | saving.below(f"{CALLBACKS}/{number}", arrays)
        if state:
            callback.set_state(state)
    config.random_generator().bit_generator.state = run["random"]
    model.stop_training = run["stop_training"]


def reset_other_slots(model, arrays: dict) -> None:
    """Forget the averages of weights that were not trained yet when a file was saved."""
    weights = {weight.name: weight for weight in model.weights}
    for slot, table in model.optimizer.state.items():
        for name, variable in table.items():
            if f"optimizer/{slot}/{name}" not in arrays:
                first = model.optimizer.initial_slot(slot, weights[name].get_value(borrow=True))
                variable.set_value(np.asarray(first, dtype=variable.dtype))


def made_by() -> dict[str, str]:
    """Return what else figures depend on, in their last digits."""
    return {
        "PyTensor": pytensor.__version__,
        "NumPy": np.__version__,
        "backend": config.backend(),
        "kernels": "are not used" if backend.kernels() is None else "are used",
    }


def differences(before, now, name: str = "") -> Iterator[str]:
    """Yield what is not the same in two values that JSON can hold.

    Examples
    --------
    >>> from seqnet.resuming import differences
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
        yield f"{name} was {spell(before)} and is {spell(now)}"


def spell(value) -> str:
    """Write a value down for a message."""
    if isinstance(value, Mapping):
        return value.get("name", "given")
    if isinstance(value, list):
        return f"[{', '.join(map(spell, value))}]"
    return str(value)

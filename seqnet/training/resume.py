"""Save the state of a training run to a file, and resume it.

The file is a model file with an additional section in its header: the state of the run
(`Trainer.state_dict`), and a description of the run (layers, optimizer, data, callbacks, arguments,
initial state with a seed), which is compared when the run is resumed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import pytensor

from seqnet import backend, config, registry
from seqnet.layers.states import all_layers
from seqnet.saving import hdf5
from seqnet.saving.atomic import check_place
from seqnet.saving.model_config import config_of, parts
from seqnet.saving.model_format import pack, saved_state
from seqnet.training.code_digest import describe as describe_value
from seqnet.training.code_digest import digest_of, is_own, own_code
from seqnet.training.diagnostics import name_norms
from seqnet.version import __version__

if TYPE_CHECKING:
    from seqnet.callbacks.base import Callback
    from seqnet.model import Model
    from seqnet.training.trainer import Trainer


log = logging.getLogger("seqnet")

RUN = "run"

NUMBER = (int, float)
FORM = {
    "kind": str,
    "layers": [{"name": str}],
    "generators": [dict],
    "training": {
        "optimizer": {"name": str, "config": dict},
        "metrics": (list, dict),
        "iterations": int,
    },
    RUN: {
        "description": dict,
        "made_with": {str: str},
        "trainable": [bool],
        "hyperparameters": [dict],
        "state": {
            "id": str,
            "epoch": int,
            "batch": int,
            "order": (int, type(None)),
            "totals": {"sums": [(*NUMBER, list)], "batches": int},
            "gradient_norms": {
                "updates": int,
                "total": NUMBER,
                "trained": [bool],
                "since": int,
                "each": [NUMBER],
            },
            "loss_spikes": {
                "first": NUMBER,
                "smooth": NUMBER,
                "updates": int,
                "samples": int,
                "detected": bool,
            },
            "stop_training": bool,
            "random": dict,
            "history": {"epoch": [int], "history": {str: list}},
            "callbacks": [dict],
        },
    },
}
"""The required form of the header of a file; see `check_form`."""


@contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Allow one run at a time, of all processes, to use a file.

    The system releases the lock if the process dies.

    Raises
    ------
    RuntimeError
        If another run uses the file.
    """
    check_place(path)
    lock = filelock.FileLock(f"{path}.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise RuntimeError(
            f"{path} is in use by another call of fit, in this or another process. Use a separate "
            "file for each training, or wait until the other one has ended."
        ) from None
    except (OSError, NotImplementedError) as error:
        log.warning("%s cannot be locked (%s): do not use it in another training.", path, error)
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):  # Windows cannot remove open files
            Path(lock.lock_file).unlink()
        lock.release()


def describe(trainer: Trainer) -> dict[str, Any]:
    """Return the description of a run, as values that JSON returns unchanged."""
    model, validation = trainer.model, trainer.validation
    description = {
        "layers": [registry.serialize(layer) for layer in model.layers],
        "graph": parts(config_of(model, complete=False)),
        "optimizer": registry.serialize(model.optimizer),
        "loss": registry.serialize(model.loss),
        "metrics": registry.serialize(model.metrics_asked),
        "loss_weights": model.loss_weights,
        "data": trainer.dataset.fingerprint(),
        "validation_data": None if validation is None else validation.fingerprint(),
        "callbacks": [describe_callback(callback) for callback in trainer.callbacks.resumed],
        "code": own_code(
            list(all_layers(model.layers)),
            model.optimizer,
            model.optimizer.schedule,
            model.loss,
            model.metrics_asked,
        ),
        "start": describe_start(model),
        **trainer.arguments.fixed(),
    }
    return json.loads(json.dumps(description))


def describe_callback(callback: Callback) -> dict[str, Any]:
    """Return the class and the configuration of a callback, and a digest of custom code."""
    kind = type(callback)
    found = {"name": kind.__name__, "config": describe_value(callback.get_config())}
    return found | {"code": digest_of(kind)} if is_own(kind) else found


def describe_start(model: Model) -> dict[str, Any]:
    """Return the seed, and digests of all arrays and random generators of a run with a seed.

    Without a seed, a program starts from different weights each time, so digests are not useful.
    """
    seed = config.random_seed()
    if seed is None:
        return {"seed": None}
    weights = hashlib.sha256()
    with model.lock:
        header, arrays = pack(model, complete=False)
        for name, array in sorted(arrays.items()):
            weights.update(f"{name} {array.dtype} {array.shape}".encode())
            weights.update(np.ascontiguousarray(array).data)
    states = [config.random_generator().bit_generator.state, *header["generators"]]
    random = hashlib.sha256(json.dumps(states, sort_keys=True).encode())
    return {
        "seed": seed,
        "weights": weights.hexdigest()[:16],
        "random_state": random.hexdigest()[:16],
    }


def save(trainer: Trainer, description: dict, path: Path) -> None:
    """Save a run to a file, between two batches."""
    with trainer.model.lock:
        state = trainer.state_dict()
        if trainer.world.rank > 0:
            return  # the state is that of all ranks
        model_state = state.pop("model")
        header, arrays = pack(trainer.model, model_state, complete=False)
        header[RUN] = {
            "description": description,
            "made_with": made_with(),
            "trainable": model_state["trainable"],
            "hyperparameters": model_state["hyperparameters"],
            "state": hdf5.extract_arrays(state, RUN, arrays),
        }
        hdf5.write(path, header, arrays)


def load(trainer: Trainer, description: dict, path: Path) -> tuple[dict, dict] | None:
    """Return the description and the state in a file, None if there is no file.

    The description is that of the file, because a run may have changed its layers or optimizer.

    Raises
    ------
    ValueError
        If the file belongs to another run, or does not contain a run.
    """
    check_place(path)
    if not path.exists():
        return None
    header, arrays = hdf5.read(path)
    if RUN not in header:
        raise ValueError(
            f"{path} contains no training to resume, only a {header.get('kind')}: use a separate "
            "file for BackupAndRestore."
        )
    checked(check_form, header, FORM, "the header", path=path)
    compare(trainer, description, header, path)
    checked(check_fits, trainer, header, path=path)
    run = header[RUN]
    place, epochs = run["state"], trainer.arguments.epochs
    if (place["epoch"], place["batch"]) > (epochs, 0):
        log.warning(
            "%s was saved after batch %d of epoch %d, which is beyond epochs=%d.",
            path, place["batch"], place["epoch"] + 1, epochs,
        )  # fmt: skip
    return run["description"], checked(state_of, header, arrays, path=path)


def state_of(header: dict, arrays: dict) -> dict[str, Any]:
    """Return the state of a run, as `Trainer.state_dict` does, from the contents of a file."""
    try:
        state = hdf5.insert_arrays(header[RUN]["state"], arrays)
        # The arguments of the layers may have changed during the run.
        changed = {name: header[RUN][name] for name in ("trainable", "hyperparameters")}
        model = saved_state(header, arrays) | changed
    except (KeyError, TypeError) as error:
        raise ValueError(f"it lacks {error}") from None
    model["optimizer"]["hyperparameters"] = header["training"]["optimizer"]["config"]
    return state | {"model": model}


def compare(trainer: Trainer, description: dict, header: dict, path: Path) -> None:
    """Raise ``ValueError`` if a file belongs to another run; warn about other versions."""
    run = header[RUN]
    before, asked = run["description"], description
    unlike = list(differences(run["made_with"], made_with()))
    if run["made_with"].get("Python") != made_with()["Python"]:  # its bytecode differs
        before, asked = without_code(before), without_code(asked)
    if trainer.model.last_run == run["state"]["id"] and isinstance(before.get("start"), dict):
        # The model was trained by this run in this process: only the seed can be compared.
        before = before | {"start": asked["start"] | {"seed": before["start"].get("seed")}}
    # Values that changed during the run, such as the learning rate, may equal the initial values or
    # the current ones, if the model continues in the same process.
    now = before | {"layers": header["layers"], "optimizer": header["training"]["optimizer"]}
    found = [list(differences(each, asked)) for each in (before, now)]
    if all(found):
        raise ValueError(
            f"{path} was saved by another training: {'; '.join(found[0][:3])}. To resume it, call "
            "fit with the same arguments (with set_random_seed, after the same steps); to start "
            "again, delete the file."
        )
    if unlike:
        log.warning(
            "%s is resumed, but results may differ in the last digits: %s.", path, "; ".join(unlike)
        )


def without_code(value: Any) -> Any:
    """Return a description without digests of code."""
    if isinstance(value, Mapping):
        return {key: without_code(item) for key, item in value.items() if key != "code"}
    return [without_code(item) for item in value] if isinstance(value, list) else value


def checked(function: Callable, *given, path: Path) -> Any:
    """Call a function for a header that may be invalid; errors name the file."""
    try:
        return function(*given)
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be resumed: it is complete, but was not written by fit ({error})."
        ) from None


def check_fits(trainer: Trainer, header: dict) -> None:
    """Raise ``ValueError`` if a header of the right form does not fit this run."""
    run, model = header[RUN], trainer.model
    state, sums = run["state"], model.objectives.number_of_sums
    if min(state["epoch"], state["batch"], state["order"] or 0) < 0:
        raise ValueError("its position has negative numbers")
    layers = len(list(all_layers(model.layers)))
    if len(run["trainable"]) != layers or len(run["hyperparameters"]) != layers:
        raise ValueError("it has too many or too few layers")
    if len(state["callbacks"]) != len(trainer.callbacks.resumed):
        raise ValueError("it has too many or too few callbacks")
    if len(state["totals"]["sums"]) != sums:
        raise ValueError("it has too many or too few metrics")
    norms = state["gradient_norms"]
    name_norms(model.weights, norms["trained"], np.array(norms["each"]))
    try:
        np.random.default_rng().bit_generator.state = state["random"]
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"its random state is invalid ({error!r})") from None


def check_form(value: Any, form: Any, where: str) -> None:
    """Raise ``ValueError`` if a JSON value does not have the given form.

    A form is a type or a tuple of types, a list with one form for all items, a mapping of keys to
    forms, or ``{str: form}`` for any keys.
    """
    kind = type(form) if isinstance(form, (dict, list)) else form
    right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not right:
        raise ValueError(f"{where} cannot be {str(value)[:60]!r}")
    if isinstance(form, list):
        for place, item in enumerate(value):
            check_form(item, form[0], f"{where}[{place}]")
    elif isinstance(form, dict) and str in form:
        for key, item in value.items():
            check_form(item, form[str], f"{where}[{key!r}]")
    elif isinstance(form, dict):
        for key, inner in form.items():
            if key not in value:
                raise ValueError(f"{where} lacks {key!r}")
            check_form(value[key], inner, f"{where}[{key!r}]")


def made_with() -> dict[str, str]:
    """Return the versions and settings that the last digits of results depend on."""
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "seqnet": __version__,
        "PyTensor": pytensor.__version__,
        "NumPy": np.__version__,
        "backend": config.backend(),
        "kernels": "are not used" if backend.native() is None else "are used",
    }


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield the differences between two JSON values.

    Examples
    --------
    >>> from seqnet.training.resume import differences
    >>> list(differences({"units": [4, 5], "rate": 0.1}, {"units": [4, 6], "rate": 0.1}))
    ['units[1] was 5 and is 6']
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        if before.get("name") != now.get("name"):  # other classes cannot be compared further
            yield f"{name} was {before.get('name')} and is {now.get('name')}"
            return
        for key in sorted({*before, *now}):
            yield from differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, f"{name}[{place}]")
    elif before != now:
        yield f"{name} was {format_value(before)} and is {format_value(now)}"


def format_value(value: Any) -> str:
    """Return a value as text for a message."""
    if isinstance(value, Mapping):
        return value.get("name", "given")
    if isinstance(value, list):
        return f"[{', '.join(map(format_value, value))}]"
    return str(value)

"""A run of training in a file, so that it can be resumed.

The file is that of a model with one section more in its header: the state of the run
(`Trainer.state_dict`), and a description of what it was asked to do (layers, optimizer, data,
callbacks, arguments, the start from a seed), which is compared when the run is resumed.
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
        "metrics": list,
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
            "totals": {"sums": [NUMBER], "batches": int},
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
"""What the header of a run's file is made of; `check_form` says how to read it."""


@contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Let one run at a time use a file, of all processes; the system frees it if they die.

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
            f"{path} is in use by another call of fit, in this or another process. Give each "
            "training a file of its own, or wait until that one has ended."
        ) from None
    except (OSError, NotImplementedError) as error:
        log.warning("%s cannot be locked (%s): let no other training use it.", path, error)
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file
            Path(lock.lock_file).unlink()
        lock.release()


def describe(trainer: Trainer) -> dict[str, Any]:
    """Return what a run is asked to do, as JSON gives it back."""
    model, validation = trainer.model, trainer.validation
    description = {
        "layers": [registry.serialize(layer) for layer in model.layers],
        "optimizer": registry.serialize(model.optimizer),
        "loss": registry.serialize(model.loss),
        "metrics": registry.serialize(model.metrics_asked),
        "data": trainer.dataset.fingerprint(),
        "validation_data": None if validation is None else validation.fingerprint(),
        "callbacks": [describe_callback(callback) for callback in trainer.callbacks.resumed],
        "code": own_code(model.layers, model.optimizer, model.loss, model.metrics_asked),
        "start": describe_start(model),
        **trainer.arguments.fixed(),
    }
    return json.loads(json.dumps(description))


def describe_callback(callback: Callback) -> dict[str, Any]:
    """Return the class of a callback, its configuration, and a digest of what a user wrote."""
    kind = type(callback)
    found = {"name": kind.__name__, "config": describe_value(callback.get_config())}
    return found | {"code": digest_of(kind)} if is_own(kind) else found


def describe_start(model: Model) -> dict[str, Any]:
    """Return the seed, and digests of all arrays and random generators of a run that has one.

    Without a seed a program starts from other weights each time, so that they tell nothing.
    """
    seed = config.random_seed()
    if seed is None:
        return {"seed": None}
    weights = hashlib.sha256()
    with model.lock:
        header, arrays = pack(model)
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
    """Write a run between two batches to a file."""
    with trainer.model.lock:
        state = trainer.state_dict()
        model_state = state.pop("model")
        header, arrays = pack(trainer.model, model_state)
        header[RUN] = {
            "description": description,
            "made_with": made_with(),
            "trainable": model_state["trainable"],
            "hyperparameters": model_state["hyperparameters"],
            "state": hdf5.extract_arrays(state, RUN, arrays),
        }
        hdf5.write(path, header, arrays)


def load(trainer: Trainer, description: dict, path: Path) -> tuple[dict, dict] | None:
    """Return the description and the state in a file of a run, None if there is no file.

    The description of the file comes back, because a run may have changed its own layers or
    optimizer.

    Raises
    ------
    ValueError
        If the file is of another run, or of none.
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
    checked(check_form, header, FORM, "the header", path=path)
    compare(trainer, description, header, path)
    checked(check_fits, trainer, header, path=path)
    run = header[RUN]
    place, epochs = run["state"], trainer.arguments.epochs
    if (place["epoch"], place["batch"]) > (epochs, 0):
        log.warning(
            "%s is after batch %d of epoch %d, more than the epochs=%d that are asked for.",
            path, place["batch"], place["epoch"] + 1, epochs,
        )  # fmt: skip
    return run["description"], checked(state_of, header, arrays, path=path)


def state_of(header: dict, arrays: dict) -> dict[str, Any]:
    """Return the state of a run, as `Trainer.state_dict` does, in the contents of a file."""
    try:
        state = hdf5.insert_arrays(header[RUN]["state"], arrays)
        # What the layers were made with may have changed in the course of the run.
        changed = {name: header[RUN][name] for name in ("trainable", "hyperparameters")}
        model = saved_state(header, arrays) | changed
    except (KeyError, TypeError) as error:
        raise ValueError(f"it lacks {error}") from None
    model["optimizer"]["hyperparameters"] = header["training"]["optimizer"]["config"]
    return state | {"model": model}


def compare(trainer: Trainer, description: dict, header: dict, path: Path) -> None:
    """Raise ``ValueError`` if a file is of another run; warn of other versions."""
    run = header[RUN]
    before, asked = run["description"], description
    unlike = list(differences(run["made_with"], made_with()))
    if run["made_with"].get("Python") != made_with()["Python"]:  # whose bytecode is another
        before, asked = without_code(before), without_code(asked)
    if trainer.model.last_run == run["state"]["id"] and isinstance(before.get("start"), dict):
        # The model comes from this run, in this process: only the seed can be compared.
        before = before | {"start": asked["start"] | {"seed": before["start"].get("seed")}}
    # What was changed in the course of the run, such as the learning rate, may be as it was then
    # or as it is in a model that is trained on in the same process.
    now = before | {"layers": header["layers"], "optimizer": header["training"]["optimizer"]}
    found = [list(differences(each, asked)) for each in (before, now)]
    if all(found):
        raise ValueError(
            f"{path} was saved by another training: {'; '.join(found[0][:3])}. To resume it, call "
            "fit as it was called then (with set_random_seed, after the same steps); to begin "
            "anew, delete the file."
        )
    if unlike:
        log.warning(
            "%s is resumed, but perhaps not to the last digit: %s.", path, "; ".join(unlike)
        )


def without_code(value: Any) -> Any:
    """Return a description without digests of code."""
    if isinstance(value, Mapping):
        return {key: without_code(item) for key, item in value.items() if key != "code"}
    return [without_code(item) for item in value] if isinstance(value, list) else value


def checked(function: Callable, *given, path: Path) -> Any:
    """Return what a function makes of a header that may have been made up; name the file."""
    try:
        return function(*given)
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be resumed: it is whole, but not a file that fit writes ({error})."
        ) from None


def check_fits(trainer: Trainer, header: dict) -> None:
    """Raise ``ValueError`` if a header of the right form cannot be one of this run."""
    run, model = header[RUN], trainer.model
    state, sums = run["state"], 3 + len(model.metrics)
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
    name_norms(model.layers, norms["trained"], np.array(norms["each"]))
    try:
        np.random.default_rng().bit_generator.state = state["random"]
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ValueError(f"its random state is none that there is ({error!r})") from None


def check_form(value: Any, form: Any, where: str) -> None:
    """Raise ``ValueError`` if a value that JSON holds is not of a form.

    A form is a type or a tuple of types, a list of one form for all items, a mapping of keys to
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
    """Return what else results depend on, in their last digits."""
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "seqnet": __version__,
        "PyTensor": pytensor.__version__,
        "NumPy": np.__version__,
        "backend": config.backend(),
        "kernels": "are not used" if backend.native() is None else "are used",
    }


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
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


def format_value(value: Any) -> str:
    """Return a value as text for a message."""
    if isinstance(value, Mapping):
        return value.get("name", "given")
    if isinstance(value, list):
        return f"[{', '.join(map(format_value, value))}]"
    return str(value)

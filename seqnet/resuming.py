"""A run of training in a file: all that decides how it goes on, and what it was asked to do.

The file is that of a model with a section more in its header. What a run is asked to do (layers,
optimizer, data, callbacks, arguments, the start from a seed) is written down when it begins, and
compared when it is resumed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytensor

from seqnet import backend, config, registry, saving
from seqnet.hyperparameters import names_of
from seqnet.layers.states import all_layers
from seqnet.own_code import describe as describe_value
from seqnet.own_code import digest_of, is_own, own_code
from seqnet.packing import pack, set_arrays, set_generators
from seqnet.replacing import check_place
from seqnet.trouble import name_norms
from seqnet.version import __version__

log = logging.getLogger("seqnet")

RUN = "run"
CALLBACKS = "callbacks"

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
        "id": str,
        "asked": dict,
        "made_by": {str: str},
        "position": {
            "epoch": int,
            "batch": int,
            "order": (int, type(None)),
            "figures": {"sums": [NUMBER], "batches": int},
            "norms": {
                "updates": int,
                "total": NUMBER,
                "trained": [bool],
                "since": int,
                "each": [NUMBER],
            },
            "rise": {
                "first": NUMBER,
                "smooth": NUMBER,
                "updates": int,
                "examples": int,
                "noticed": bool,
            },
        },
        "stop_training": bool,
        "trainable": [bool],
        "random": dict,
        "history": {"epoch": [int], "history": {str: list}},
        CALLBACKS: [dict],
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
        "callbacks": [describe_callback(callback) for callback in fit.callbacks],
        "code": own_code(model.layers, model.optimizer, model.loss, model.metrics_asked),
        "start": describe_start(model),
        **{name: getattr(fit, name) for name in fit.arguments},
    }
    return json.loads(json.dumps(asked))


def describe_callback(callback) -> dict[str, Any]:
    """Return the class of a callback, its configuration, and a digest of what a user wrote."""
    kind = type(callback)
    found = {"name": kind.__name__, "config": describe_value(callback.get_config())}
    return found | {"code": digest_of(kind)} if is_own(kind) else found


def describe_start(model) -> dict[str, Any]:
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


def save(fit, path: Path) -> None:
    """Write a run between two batches to a file."""
    header, arrays = pack(fit.model)
    numbers = []
    for place, callback in enumerate(fit.callbacks):
        state, who = callback.get_state(), f"{type(callback).__name__}.get_state"
        if not isinstance(state, Mapping):
            raise TypeError(f"{who} must return a dictionary, got {state!r}.")
        kept = {n for n, value in state.items() if isinstance(value, np.ndarray)}
        numbers.append({n: registry.serialize(v) for n, v in state.items() if n not in kept})
        try:
            json.dumps(numbers[-1])
        except TypeError as error:
            raise TypeError(
                f"{who} must return what JSON can hold, and arrays not inside of others: {error}."
            ) from None
        arrays |= {f"{CALLBACKS}/{place}/{name}": state[name] for name in kept}
    header[RUN] = {
        "id": fit.id,
        "asked": fit.asked,
        "made_by": made_by(),
        "position": fit.position(),
        "stop_training": bool(fit.model.stop_training),
        "numbers": [
            {name: getattr(layer, name) for name in names_of(layer)}
            for layer in all_layers(fit.model.layers)
        ],
        "trainable": [layer.trainable for layer in all_layers(fit.model.layers)],
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
            f"{path} holds no training to resume, only a {header.get('kind')}: give "
            "BackupAndRestore a file of its own."
        )
    checked(check_form, header, FORM, "the header", path=path)
    compare(fit, header, path)
    checked(check_fits, fit, header, path=path)
    position = header[RUN]["position"]
    if (position["epoch"], position["batch"]) > (fit.epochs, 0):
        log.warning(
            "%s is after batch %d of epoch %d, more than the epochs=%d that are asked for.",
            path, position["batch"], position["epoch"] + 1, fit.epochs,
        )  # fmt: skip
    return header, arrays


def compare(fit, header: dict, path: Path) -> None:
    """Raise ``ValueError`` if a file is of another run; warn of other versions."""
    run = header[RUN]
    before, asked = run["asked"], fit.asked
    unlike = list(differences(run["made_by"], made_by()))
    if run["made_by"].get("Python") != made_by()["Python"]:  # whose bytecode is another
        before, asked = without_code(before), without_code(asked)
    if fit.model.last_run == run["id"] and isinstance(before.get("start"), dict):
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


def checked(check: Callable, *given, path: Path) -> None:
    """Check something about a header that may have been made up; name the file in the error."""
    try:
        check(*given)
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be resumed: it is whole, but not a file that fit writes ({error})."
        ) from None


def check_fits(fit, header: dict) -> None:
    """Raise ``ValueError`` if a header of the right form cannot be one of this run."""
    run, model = header[RUN], fit.model
    position, sums = run["position"], 3 + len(model.metrics)
    if min(position["epoch"], position["batch"], position["order"] or 0) < 0:
        raise ValueError("its position has negative numbers")
    wanted = {"trainable": len(model.layers), CALLBACKS: len(fit.callbacks)}
    if len(position["figures"]["sums"]) != sums or any(len(run[n]) != k for n, k in wanted.items()):
        raise ValueError("it has too many or too few figures, layers or callbacks")
    norms = position["norms"]
    name_norms(model.layers, norms["trained"], np.array(norms["each"]))
    try:
        np.random.default_rng().bit_generator.state = run["random"]
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


def restore(fit, header: dict, arrays: dict, path: Path) -> None:
    """Put a run where it was when a file was saved.

    Raises
    ------
    ValueError
        If the file was made up and does not fit, or a callback cannot take its state.
    """
    states = [
        state | saving.below(f"{CALLBACKS}/{number}", arrays)
        for number, state in enumerate(header[RUN][CALLBACKS])
    ]
    for callback, state in zip(fit.callbacks, states, strict=True):
        name = type(callback).__name__
        try:
            if state:
                callback.set_state(state)
        except Exception as error:
            raise ValueError(
                f"{path} has a state that {name}.set_state does not take: {error!r}"
            ) from error
    try:
        with fit.model.lock:
            restore_model(fit, header, arrays, path)
    except Exception as error:
        raise ValueError(f"{path} does not describe a training that fits: {error!r}") from error


def restore_model(fit, header: dict, arrays: dict, path: Path) -> None:
    """Put a run's model, random source and history where they were when a file was saved."""
    run, model = header[RUN], fit.model
    fit.asked = run["asked"]
    for layer, trainable in zip(all_layers(model.layers), run["trainable"], strict=True):
        layer.trainable = trainable
    optimizer = header["training"]["optimizer"]["config"]
    for layer, numbers in zip(all_layers(model.layers), run["numbers"], strict=True):
        for name, value in numbers.items():
            setattr(layer, name, value)
    for name in names_of(model.optimizer):
        setattr(model.optimizer, name, optimizer[name])
    reset_other_slots(model, arrays)
    set_generators(model, header["generators"])
    set_arrays(model, header, arrays, path)
    model.history.set_state(run["history"])
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
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "seqnet": __version__,
        "PyTensor": pytensor.__version__,
        "NumPy": np.__version__,
        "backend": config.backend(),
        "kernels": "are not used" if backend.native() is None else "are used",
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

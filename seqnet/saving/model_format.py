"""Conversion of models to a JSON header and named arrays, and back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from seqnet import registry
from seqnet.common.checks import check_count, check_shape
from seqnet.layers.weights import given_weights
from seqnet.metrics import metric_or_loss
from seqnet.saving.hdf5 import below
from seqnet.saving.model_config import config_of, restore

if TYPE_CHECKING:
    from seqnet.model import Model


LAST_STEP = "last_step"


def pack(
    model: Model, state: dict | None = None, complete: bool = True
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the header of a built model, and its arrays by name.

    Parameters
    ----------
    model : Model
    state : dict, optional
        The result of `Model.state_dict`.
    complete : bool
        Whether a part of the graph that cannot be restored from a file is an error.
    """
    state = model.state_dict() if state is None else state
    header = {
        "kind": "model",
        **config_of(model, complete),
        "metadata": model.metadata,
        "generators": state["generators"],
    }
    arrays = {f"weights/{name}": value for name, value in state["weights"].items()}
    arrays |= {f"states/{name}": value for name, value in state["states"].items()}
    if model.optimizer is not None:
        optimizer = state["optimizer"]
        header["training"] = {
            "optimizer": registry.serialize(model.optimizer),
            "loss": None if model.loss is None else registry.serialize(model.loss),
            "metrics": registry.serialize(model.metrics_asked),
            "loss_weights": model.loss_weights,
            "iterations": optimizer["iterations"],
        }
        for slot, table in (optimizer["slots"] | {LAST_STEP: optimizer["last_steps"]}).items():
            arrays |= {f"optimizer/{slot}/{name}": value for name, value in table.items()}
    return header, arrays


def saved_state(header: dict, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the state, as `Model.state_dict` does, from the result of `pack`."""
    state: dict[str, Any] = {
        "weights": below("weights", arrays),
        "states": below("states", arrays),
        "generators": header["generators"],
        "optimizer": None,
    }
    if "training" in header:
        training = header["training"]
        slots: dict[str, dict[str, np.ndarray]] = {}
        for name, value in below("optimizer", arrays).items():
            slot, _, weight = name.partition("/")
            slots.setdefault(slot, {})[weight] = value
        state["optimizer"] = {
            "iterations": check_count(training["iterations"], "iterations", 0),
            "last_steps": slots.pop(LAST_STEP, {}),
            "slots": slots,
        }
    return state


def unpack(
    model: Model, header: dict, arrays: dict, path: str | os.PathLike, custom_objects: dict | None
) -> Model:
    """Restore an empty model from the result of `pack`; `path` is used in messages."""
    if header.get("kind") != "model":
        raise ValueError(
            f"{path} contains {header.get('kind')!r}, not a complete model: create the model and "
            "call load_weights."
        )
    try:
        fill(model, header, arrays, custom_objects)
    except KeyError as error:
        raise ValueError(f"{path} does not describe a complete model: it lacks {error}.") from error
    except Exception as error:
        raise ValueError(f"{path} does not describe a valid model: {error}") from error
    return model


def fill(model: Model, header: dict, arrays: dict, custom_objects: dict | None) -> None:
    """Restore an empty model; any error means that the header or the arrays are invalid."""
    if "nodes" not in header:
        check_shape(header["input_shape"], "input_shape")
    if not isinstance(header["metadata"], dict):
        raise TypeError("The metadata of a model must be a mapping.")
    model.metadata = header["metadata"]
    with given_weights(below("weights", arrays)):
        restore(model, header, custom_objects)
    if "training" in header:
        compile_as_saved(model, header["training"], custom_objects)
    state = saved_state(header, arrays)
    del state["weights"]  # the layers were built with them
    model.load_state_dict(state)


def compile_as_saved(model: Model, training: dict, custom_objects: dict | None) -> None:
    """Compile a model with the optimizer, loss and metrics of a file; metric names are kept."""
    loss, metrics = training["loss"], training["metrics"]
    if not isinstance(metrics, (list, dict)):
        raise TypeError("The metrics of a model must be a list or a mapping.")
    several = len(model.output_names) > 1

    def revived(value: Any) -> Any:
        if isinstance(value, list):
            return [revived(item) for item in value]
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, dict) and not is_configuration(value):
            return {name: revived(item) for name, item in value.items()}
        return metric_or_loss(value, custom_objects)

    if loss is not None and several and isinstance(loss, dict):
        loss = {
            name: None if item is None else registry.get("loss", item, custom_objects)
            for name, item in loss.items()
        }
    elif loss is not None:
        loss = registry.get("loss", loss, custom_objects)
    model.compile(
        registry.get("optimizer", training["optimizer"], custom_objects),
        loss,
        revived(metrics),
        training.get("loss_weights"),
    )


def is_configuration(value: dict) -> bool:
    """Return whether a mapping is the configuration of one object."""
    return isinstance(value.get("name"), str) and set(value) <= {"name", "config"}

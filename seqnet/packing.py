"""A whole model as a JSON header and named arrays, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqnet import registry
from seqnet.layers.states import RUNS, carried_states
from seqnet.stack import set_weight_arrays, weight_arrays

LAST_STEP = "last_step"


def pack(model) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what describes a built model, and its arrays by name."""
    header = {
        "kind": "model",
        "name": model.name,
        "input_shape": model.input_shape,
        "layers": [registry.serialize(layer) for layer in model.layers],
        "metadata": model.metadata,
        "generators": [g.get_value().bit_generator.state for g in generators(model)],
    }
    arrays = weight_arrays(model)
    for carried in carried_states(model.layers):
        arrays |= {
            f"states/{run}/{carried.layer.name}/{name}": value
            for run in RUNS
            for name, value in zip(carried.names, carried.get(run), strict=True)
            if len(value)
        }
    if model.optimizer is not None:
        state = model.optimizer.get_state()
        header["training"] = {
            "optimizer": registry.serialize(model.optimizer),
            "loss": None if model.loss is None else registry.serialize(model.loss),
            "metrics": registry.serialize(model.metrics_asked),
            "iterations": state["iterations"],
        }
        for slot, table in (state["slots"] | {LAST_STEP: state["last_steps"]}).items():
            arrays |= {f"optimizer/{slot}/{name}": value for name, value in table.items()}
    return header, arrays


def unpack(model, header: dict, arrays: dict, path, custom_objects: dict | None):
    """Fill an empty model from what `pack` returned; `path` is for messages."""
    if header.get("kind") != "model":
        raise ValueError(
            f"{path} holds {header.get('kind')!r}, not a whole model: make the model and call "
            "load_weights."
        )
    try:
        model.name = header["name"]
        for layer in header["layers"]:
            model.add(registry.get("layer", layer, custom_objects))
        model.build(tuple(header["input_shape"]))
        model.metadata = header["metadata"]
        set_generators(model, header["generators"])
        if "training" in header:
            compile_as_saved(model, header["training"], custom_objects)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not describe a model that can be made: {error!r}.") from None
    set_arrays(model, header, arrays, path)
    return model


def set_generators(model, states: list) -> None:
    """Put the random generators of all layers where they were."""
    for generator, state in zip(generators(model), states, strict=True):
        value = generator.get_value()
        value.bit_generator.state = state
        generator.set_value(value)


def set_arrays(model, header: dict, arrays: dict, path) -> None:
    """Set a built and compiled model's weights, carried states and the optimizer's slots."""
    set_weight_arrays(model, arrays, path)
    for carried in carried_states(model.layers):
        carried.reset()
        for run in RUNS:
            names = [f"states/{run}/{carried.layer.name}/{name}" for name in carried.names]
            if names[0] in arrays:
                carried.set([arrays[name] for name in names if name in arrays], run)
    if "training" in header:
        slots: dict[str, dict[str, np.ndarray]] = {}
        for name, value in arrays.items():
            if name.startswith("optimizer/"):
                _, slot, weight = name.split("/", 2)
                slots.setdefault(slot, {})[weight] = value
        state = {
            "iterations": header["training"]["iterations"],
            "last_steps": slots.pop(LAST_STEP, {}),
            "slots": slots,
        }
        model.optimizer.set_state(state, model.weights)


def compile_as_saved(model, training: dict, custom_objects: dict | None) -> None:
    """Compile a model with the optimizer, loss and metrics of a file; names of metrics stay."""
    loss = training["loss"]
    model.compile(
        registry.get("optimizer", training["optimizer"], custom_objects),
        None if loss is None else registry.get("loss", loss, custom_objects),
        [
            metric if isinstance(metric, str) else registry.get("metric", metric, custom_objects)
            for metric in training["metrics"]
        ],
    )


def generators(model) -> list:
    """Return the random generators of all layers, in order."""
    return [g for layer in model.layers for g in layer.generators]

"""A whole model as a JSON header and named arrays, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqnet import registry
from seqnet.checks import check_count, check_shape
from seqnet.layers.layer import given_weights
from seqnet.layers.states import RUNS, carried_states
from seqnet.metrics import metric_or_loss
from seqnet.saving import below
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
        fill(model, header, arrays, custom_objects)
    except KeyError as error:
        raise ValueError(f"{path} does not describe a whole model: it lacks {error}.") from error
    except Exception as error:
        raise ValueError(f"{path} does not describe a model that can be made: {error}") from error
    return model


def fill(model, header: dict, arrays: dict, custom_objects: dict | None) -> None:
    """Fill an empty model; any error means that header and arrays are not of a model."""
    if not isinstance(header["name"], str) or not isinstance(header["metadata"], dict):
        raise TypeError("The name of a model is text, and its metadata a mapping.")
    model.name, model.metadata = header["name"], header["metadata"]
    if not isinstance(header["layers"], list):
        raise TypeError("The layers of a model are a list.")
    input_shape = check_shape(header["input_shape"], "input_shape")
    with given_weights(below("weights", arrays)):
        for layer in header["layers"]:
            model.add(registry.get("layer", layer, custom_objects))
        model.build(input_shape)
    set_generators(model, header["generators"])
    if "training" in header:
        compile_as_saved(model, header["training"], custom_objects)
    set_course(model, header, arrays)


def set_arrays(model, header: dict, arrays: dict, path) -> None:
    """Set a built and compiled model's weights, carried states and the optimizer's slots."""
    set_weight_arrays(model, arrays, path)
    set_course(model, header, arrays)


def set_generators(model, states: list) -> None:
    """Put the random generators of all layers where they were."""
    wanted = generators(model)
    if len(states) != len(wanted):
        raise ValueError(
            f"The layers have {len(wanted)} random generators, and there are the states of "
            f"{len(states)}."
        )
    for generator, state in zip(wanted, states, strict=True):
        value = generator.get_value()
        value.bit_generator.state = state
        if value.bit_generator.state != state:
            raise ValueError("The state of a random generator is not one that it can have.")
        generator.set_value(value)


def set_course(model, header: dict, arrays: dict) -> None:
    """Set what there is beside the weights: carried states and the optimizer's slots."""
    set_states(model, below("states", arrays))
    if "training" not in header:
        return
    slots: dict[str, dict[str, np.ndarray]] = {}
    for name, value in below("optimizer", arrays).items():
        slot, _, weight = name.partition("/")
        slots.setdefault(slot, {})[weight] = value
    state = {
        "iterations": check_count(header["training"]["iterations"], "iterations", 0),
        "last_steps": slots.pop(LAST_STEP, {}),
        "slots": slots,
    }
    check_state(state, model)
    model.optimizer.set_state(state, model.weights)


def set_states(model, arrays: dict) -> None:
    """Set the carried states of stateful layers from arrays ``run/layer/state``."""
    left = dict(arrays)
    for carried in carried_states(model.layers):
        carried.reset()
        for run in RUNS:
            names = [f"{run}/{carried.layer.name}/{name}" for name in carried.names]
            if any(name in left for name in names):
                carried.set([left.pop(name) for name in names], run)
    if left:
        raise ValueError(f"There are states for no layer: {', '.join(sorted(left))}.")


def check_state(state: dict, model) -> None:
    """Raise ``ValueError`` if arrays cannot be the state of a model's optimizer."""
    sizes = {w.name: (w.get_value(borrow=True).shape, w.dtype) for w in model.weights}
    for slot, table in state["slots"].items():
        if slot not in model.optimizer.slots:
            raise ValueError(f"{type(model.optimizer).__name__} keeps no {slot!r}.")
        for name, value in table.items():
            if sizes.get(name) != (value.shape, value.dtype):
                raise ValueError(f"The optimizer's {slot} of {name} fit no weight of the model.")
    for name, steps in state["last_steps"].items():
        if name not in sizes or steps.shape != sizes[name][0][:1] or steps.dtype != "int64":
            raise ValueError(f"The optimizer's {LAST_STEP} of {name} fit no weight of the model.")
        if steps.size and not 0 <= steps.min() <= steps.max() <= state["iterations"]:
            raise ValueError(f"The optimizer's {LAST_STEP} of {name} are later than its last step.")


def compile_as_saved(model, training: dict, custom_objects: dict | None) -> None:
    """Compile a model with the optimizer, loss and metrics of a file; names of metrics stay."""
    loss = training["loss"]
    if not isinstance(training["metrics"], list):
        raise TypeError("The metrics of a model are a list.")
    model.compile(
        registry.get("optimizer", training["optimizer"], custom_objects),
        None if loss is None else registry.get("loss", loss, custom_objects),
        [
            metric if isinstance(metric, str) else metric_or_loss(metric, custom_objects)
            for metric in training["metrics"]
        ],
    )


def generators(model) -> list:
    """Return the random generators of all layers, in order."""
    return [g for layer in model.layers for g in layer.generators]

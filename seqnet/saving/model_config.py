"""Configurations of models: their layers, and how these are connected, as values for JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Constant, Variable
from pytensor.scalar import ScalarConstant
from pytensor.scalar import constant as scalar_constant

from seqnet import registry
from seqnet.common.checks import check_shape
from seqnet.graph.graph import Graph, Node
from seqnet.layers.states import all_layers
from seqnet.layers.symbolic import Input, LayerCall, Slot, put_values
from seqnet.saving import operations

if TYPE_CHECKING:
    from seqnet.model import Model

PLAIN = (bool, int, float, str, type(None))


def config_of(model: Model, complete: bool = True) -> dict[str, Any]:
    """Return the configuration of a model, from which `restore` makes it.

    Parameters
    ----------
    model : Model
    complete : bool
        Whether a part that cannot be restored is an error; otherwise it is only described, as
        is enough to compare models.

    Raises
    ------
    ValueError
        If a part of the model cannot be written.
    """
    found = {"name": model.name, "layers": [registry.serialize(layer) for layer in model.layers]}
    if not model.signature.is_functional:
        found |= {"input_shape": model.input_shape, "input_name": model.input_names[0]}
        dtype = model.signature.stack_dtype
        return found if dtype is None else found | {"input_dtype": dtype}
    if complete:
        check_once(model)
    graph, ins, outs = model.graph, model.signature.inputs, model.signature.outputs
    variables = model.signature.input_variables
    return found | {
        "inputs": {
            "names": list(ins.names),
            "structure": ins.kind,
            "shapes": [list(variable.batch_shape) for variable in variables],
            "dtypes": model.signature.input_dtypes,
            "values": list(graph.inputs),
        },
        "nodes": list(nodes_of(model, complete)),
        "constants": {
            str(number): constant_to_json(variable, complete)
            for number, variable in graph.constants.items()
        },
        "outputs": {
            "names": list(outs.names),
            "structure": outs.kind,
            "values": list(graph.outputs),
        },
    }


def check_once(model: Model) -> None:
    """Raise ``ValueError`` if a layer is in the model and also inside another of its layers."""
    seen: set[int] = set()
    for layer in all_layers(model.layers):
        if id(layer) in seen:
            raise ValueError(
                f"Layer {layer.display_name!r} is used in two places of the model {model.name!r}, "
                "such as a model inside it and the model itself, and a configuration would make "
                "two layers of it. Save the weights (save_weights), and make the model in code."
            )
        seen.add(id(layer))


def nodes_of(model: Model, complete: bool) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a model's graph."""
    graph: Graph = model.graph
    for node in graph.nodes:
        places = {"inputs": list(node.inputs), "outputs": list(node.outputs)}
        if isinstance(node.op, LayerCall):
            call = node.op
            where = f"the call of layer {call.layer.display_name!r}"
            yield {
                "layer": model.layers.index(call.layer),
                "call": tree_to_json(call.inputs, where),
                "options": {k: tree_to_json(v, where) for k, v in call.options.items()},
            } | places
            continue
        yield {"operation": operation_to_json(node, complete)} | places


def operation_to_json(node: Node, complete: bool) -> dict[str, Any]:
    """Return an operation of PyTensor by its name, or raise."""
    found = operations.encode(node.op)
    if found is None and not complete:
        return {"name": str(node.op)}
    if found is None:
        raise ValueError(
            f"The operation {node.op} of PyTensor between the layers cannot be written to a file. "
            "Write it as a function with def, use it in a Lambda layer, and pass the function in "
            "custom_objects= when you load the file. save_weights works for any model."
        )
    return found


def constant_to_json(variable: Variable, complete: bool) -> dict[str, Any]:
    """Return a constant as its dtype and numbers."""
    if not isinstance(variable, Constant):
        if complete:
            raise ValueError(
                f"The model uses the shared variable {variable} outside of its layers, which a "
                "file cannot hold. Make it a weight of a layer of your own (Layer.add_weight). "
                "save_weights works for any model."
            )
        return {"name": str(variable)}
    if variable.data is None or isinstance(variable.data, slice):
        raise ValueError(f"The constant {variable} of the model cannot be written to a file.")
    array = np.asarray(variable.data)
    found = {"dtype": array.dtype.name, "shape": list(array.shape), "value": array.ravel().tolist()}
    return found | ({"scalar": True} if isinstance(variable, ScalarConstant) else {})


def constant_from_json(given: dict[str, Any]) -> Variable:
    """Return what `constant_to_json` was given."""
    if np.dtype(given["dtype"]).kind not in "fiub":
        raise ValueError(f"A constant cannot have the dtype {given['dtype']!r}.")
    array = np.array(given["value"], given["dtype"]).reshape(given["shape"])
    if given.get("scalar"):
        return scalar_constant(array.item(), dtype=given["dtype"])
    return pt.constant(array, dtype=given["dtype"])


def tree_to_json(tree: Any, where: str) -> Any:
    """Return the arguments of a call, with ``{"variable": place}`` for each variable."""
    if isinstance(tree, Slot):
        return {"variable": tree.index}
    if isinstance(tree, list):
        return [tree_to_json(item, where) for item in tree]
    if isinstance(tree, dict):
        return {"items": {str(key): tree_to_json(item, where) for key, item in tree.items()}}
    if isinstance(tree, np.generic):
        return tree.item()
    if not isinstance(tree, PLAIN):
        raise ValueError(
            f"An argument of {where} cannot be written to a file: {str(tree)[:100]!r} of type "
            f"{type(tree).__name__}."
        )
    return tree


def tree_from_json(tree: Any) -> Any:
    """Return what `tree_to_json` was given."""
    if isinstance(tree, list):
        return [tree_from_json(item) for item in tree]
    if isinstance(tree, dict):
        if "variable" in tree:
            return Slot(tree["variable"])
        return {key: tree_from_json(item) for key, item in tree["items"].items()}
    return tree


def restore(model: Model, config: dict[str, Any], custom_objects: dict | None) -> None:
    """Add the layers of a configuration to an empty model, and connect them."""
    if not isinstance(config["name"], str):
        raise TypeError("The name of a model must be text.")
    if not isinstance(config["layers"], list):
        raise TypeError("The layers of a model must be a list.")
    model.name = config["name"]
    layers = [registry.get("layer", layer, custom_objects) for layer in config["layers"]]
    if "nodes" in config:
        connect(model, config, layers)
        return
    name, shape = config.get("input_name", "input_layer"), config["input_shape"]
    shape = None if shape is None else check_shape(shape, "input_shape")
    dtype = config.get("input_dtype")
    if shape is not None and (name != "input_layer" or dtype is not None or shape[0] is not None):
        model.add(Input(batch_shape=shape, dtype=dtype, name=name))
    for layer in layers:
        model.add(layer)
    if shape is not None and layers:
        model.build(shape)


def connect(model: Model, config: dict[str, Any], layers: list) -> None:
    """Call layers as a configuration says, and make the graph of a model of the results."""
    ins, outs = config["inputs"], config["outputs"]
    inputs = [
        Input(batch_shape=shape, dtype=dtype, name=name)
        for name, shape, dtype in zip(ins["names"], ins["shapes"], ins["dtypes"], strict=True)
    ]
    values: dict[int, Any] = dict(zip(ins["values"], inputs, strict=True))
    values |= {int(k): constant_from_json(c) for k, c in config["constants"].items()}
    for node in config["nodes"]:
        given = [values[k] for k in node["inputs"]]
        if "layer" in node:
            options = {k: tree_from_json(v) for k, v in node["options"].items()}
            called = put_values(tree_from_json(node["call"]), given)
            found = layers[node["layer"]](called, **put_values(options, given))
            found = found if isinstance(found, list) else [found]
        else:
            found = operations.decode(node["operation"], given)
        values.update(zip(node["outputs"], found, strict=True))
    outputs = [values[k] for k in outs["values"]]
    for variable, name in zip(outputs, outs["names"], strict=True):
        if variable not in inputs:
            variable.name = name
    model.connect(packed(ins, inputs), packed(outs, outputs))


def packed(structure: dict[str, Any], variables: list) -> Any:
    """Return the inputs or outputs in the structure that they had: one, a list or a dictionary."""
    if structure["structure"] == "dict":
        return dict(zip(structure["names"], variables, strict=True))
    return variables[0] if structure["structure"] == "one" else variables


def parts(config: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a configuration other than the layers and the name."""
    return {key: cast(Any, config[key]) for key in sorted(config) if key not in ("layers", "name")}

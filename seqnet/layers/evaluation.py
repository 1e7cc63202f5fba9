"""Layers and models that are called on arrays: a compiled function computes the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from seqnet import backend
from seqnet.common.locking import ForkSafeLock
from seqnet.layers.calling import is_several, not_an_input
from seqnet.layers.context import CallContext

_lock = ForkSafeLock()


def functions_of(owner: Any) -> dict:
    """Return the compiled functions of a layer or a model that is called on arrays.

    It keeps them itself, because they refer to it: they are freed with it. Copies start without.
    """
    return vars(owner).setdefault("_functions", {})


def holds_variables(tree: Any) -> bool:
    """Return whether there is a symbolic variable among nested arguments."""
    if isinstance(tree, dict):
        return any(holds_variables(item) for item in tree.values())
    if isinstance(tree, (list, tuple)):
        return any(holds_variables(item) for item in tree)
    return isinstance(tree, Variable)


def evaluate(
    owner: Any,
    inputs: Any,
    others: Sequence[Any],
    mask: Any,
    options: dict[str, Any],
    training: bool,
) -> Any:
    """Call a layer or a model on arrays; return arrays in the structure of its outputs.

    Floats, and integers where the layer takes no class numbers, are cast to its dtype. One function
    is compiled for each mode and each size of the axes after the batch. It stores new states and
    random states, as a training step does.

    Parameters
    ----------
    owner : Layer or Model
    inputs, others, mask, options
        The arguments of the call.
    training : bool
    """
    arrays: list[np.ndarray] = []
    whole = "int32" if getattr(owner, "integer_input", True) else owner.dtype

    def array_of(value: Any, integers: str) -> np.ndarray:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            name = getattr(owner, "display_name", owner.name)
            raise TypeError(not_an_input(f"{type(owner).__name__} {name!r}", value))
        kinds = {"f": owner.dtype, "i": integers, "u": integers}
        return np.asarray(array, kinds.get(array.dtype.kind, array.dtype))

    def placed(tree: Any, integers: str, first: bool = False) -> Any:
        if isinstance(tree, (list, tuple)) and (is_several(tree) or not first):
            return [placed(item, integers) for item in tree]
        if isinstance(tree, dict):
            return {name: placed(item, integers) for name, item in tree.items()}
        if not isinstance(tree, np.ndarray) and (not first or tree is None):
            return tree
        arrays.append(array_of(tree, integers))
        return Placed(len(arrays) - 1)

    check_rows(owner, inputs, mask)
    call = (
        placed(inputs, whole, first=True),
        [placed(item, "int32") for item in others],
        placed(mask, "int32", first=mask is not None and not is_list_of_masks(mask)),
        {name: placed(item, "int32") for name, item in options.items()},
    )
    types = [(array.dtype.name, array.shape[1:], array.ndim) for array in arrays]
    with _lock:
        structure = owner.structure()
        key = (repr(call), str(types), training, structure, id(backend.mode()))
        functions = functions_of(owner)
        if key not in functions:
            functions[key] = compiled(owner, call, arrays, training)
        function, pack = functions[key]
        return pack(function(*arrays))


def check_rows(owner: Any, inputs: Any, mask: Any) -> None:
    """Raise ``ValueError`` if a mask does not have as many rows as its inputs."""
    if isinstance(inputs, dict) or isinstance(mask, dict) or mask is None:
        return
    several = isinstance(inputs, (list, tuple)) and is_several(inputs)
    pairs = zip(inputs, mask, strict=False) if several else [(inputs, mask)]
    for values, of_values in pairs:
        rows, given = np.shape(values)[:1], np.shape(of_values)[:1]
        if of_values is not None and rows != given:
            name = getattr(owner, "display_name", owner.name)
            raise ValueError(
                f"The mask of {type(owner).__name__} {name!r} has the shape {np.shape(of_values)}, "
                f"and its input {np.shape(values)}: a mask has a row for each row of the input."
            )


def is_list_of_masks(mask: Any) -> bool:
    """Return whether a mask is a list of masks of several inputs."""
    return isinstance(mask, (list, tuple)) and (
        is_several(mask) or all(item is None for item in mask)
    )


class Placed:
    """The place of an array in the arguments of a call."""

    def __init__(self, index: int):
        self.index = index

    def __repr__(self) -> str:
        return f"<{self.index}>"


def put(tree: Any, values: Sequence[Any]) -> Any:
    """Return nested arguments with a value for each array."""
    if isinstance(tree, Placed):
        return values[tree.index]
    if isinstance(tree, list):
        return [put(item, values) for item in tree]
    if isinstance(tree, dict):
        return {name: put(item, values) for name, item in tree.items()}
    return tree


def compiled(
    owner: Any, call: tuple, arrays: Sequence[np.ndarray], training: bool
) -> tuple[Callable, Callable]:
    """Return a function of arrays, and one that returns its outputs in the right structure."""
    variables = [
        pt.tensor(dtype=array.dtype.name, shape=(None, *array.shape[1:])[: array.ndim])
        for array in arrays
    ]
    inputs, others, mask, options = put(list(call), variables)
    context = CallContext(training=training)
    outputs = owner(inputs, *others, mask=mask, context=context, **options)
    if isinstance(outputs, dict):
        names = list(outputs)
        function = backend.compile(variables, list(outputs.values()), context.updates, name="call")
        return function, lambda found: dict(zip(names, found, strict=True))
    several = isinstance(outputs, list)
    found = outputs if several else [outputs]
    function = backend.compile(variables, found, context.updates, name="call")
    return function, list if several else next_of


def next_of(found: Sequence[np.ndarray]) -> np.ndarray:
    """Return the only output."""
    return found[0]

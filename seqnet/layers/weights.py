"""Check and set the values of weights: drawn, loaded from a file, or passed by a user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

import numpy as np
from pytensor.tensor.sharedvar import TensorSharedVariable

from seqnet import initializers
from seqnet.common.types import ArrayLike, Shape
from seqnet.registry import Identifier

if TYPE_CHECKING:
    from seqnet.layers.layer import Layer

_given: ContextVar[dict[str, np.ndarray] | None] = ContextVar("given", default=None)


@contextmanager
def given_weights(arrays: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Layers built inside the block take their weights from arrays, by name.

    No random values are drawn; a weight without an array of its shape is an error.
    """
    left = dict(arrays)
    token = _given.set(left)
    try:
        yield
    finally:
        _given.reset(token)
    if left:
        raise ValueError(f"there is {', '.join(sorted(left))}, which no layer of the model has")


@contextmanager
def given_below(name: str) -> Iterator[None]:
    """Inside `given_weights`, take the arrays whose names begin with ``name/``, without that."""
    given = _given.get()
    if given is None:
        yield
        return
    inner = {full: given.pop(full) for full in list(given) if full.startswith(f"{name}/")}
    with given_weights({full.removeprefix(f"{name}/"): array for full, array in inner.items()}):
        yield


def first_value(
    name: str, shape: Shape, dtype: str, initializer: Identifier
) -> tuple[np.ndarray, bool]:
    """Return a new weight's value, and whether it was given by `given_weights`."""
    given = _given.get()
    if given is None:
        value = initializers.draw(
            initializers.get(initializer), cast("tuple[int, ...]", shape), dtype
        )
        source = f"The initializer of {name} gave"
    elif name in given:
        value = given.pop(name)
        source = f"The array for {name} has"
    else:
        raise ValueError(f"There is no array for {name} of shape {shape}.")
    if value.shape != shape:
        raise ValueError(f"{source} the shape {value.shape}, not {shape}.")
    if given is None and not np.isfinite(value).all():
        raise ValueError(f"{source} values that are not finite.")
    if value.dtype != dtype:
        raise ValueError(f"{source} the dtype {value.dtype}, not {dtype}.")
    return value, given is not None


def check_values(layer: Layer, values: Sequence[ArrayLike]) -> None:
    """Raise ``ValueError`` if the number of values is not that of a layer's weights."""
    if not layer.built and len(values):
        raise ValueError(
            f"Layer {layer.display_name!r} has no weights to set yet: it is not built. Weights "
            "are made at the first call, by Model.build, or from input_shape=."
        )
    if len(values) != len(layer.weights):
        raise ValueError(
            f"Layer {layer.display_name!r} has {len(layer.weights)} weights "
            f"({', '.join(str(w.name).rpartition('/')[2] for w in layer.weights) or 'none'}), but "
            f"{len(values)} arrays were given."
        )


def set_values(weights: Sequence[TensorSharedVariable], values: Sequence[ArrayLike]) -> None:
    """Set weights from arrays, or raise ``ValueError`` and change none."""
    arrays = [np.asarray(value) for value in values]
    for weight, value in zip(weights, arrays, strict=True):
        expected = weight.get_value(borrow=True).shape
        if value.shape != expected:
            raise ValueError(f"Weight {weight.name} has shape {expected}, but got {value.shape}.")
        if value.dtype.kind not in "fiu":
            raise ValueError(
                f"Weight {weight.name} takes numbers, but got the dtype {value.dtype}."
            )
    for weight, value in zip(weights, arrays, strict=True):
        weight.set_value(value.astype(weight.dtype, order="C"))

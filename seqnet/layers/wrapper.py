"""The base class of layers that wrap other layers."""

from __future__ import annotations

from typing import Any

from seqnet import registry
from seqnet.common.types import Shape
from seqnet.layers.layer import Layer, as_layer


class Wrapper(Layer):
    """A layer that wraps another one and has its dtype by default.

    It has only the weights of the wrapped layers: it is `trainable` if one of them is, and setting
    `trainable` sets it for all of them.

    Parameters
    ----------
    layer : Layer or Model
    """

    def __init__(self, layer: Any, **kwargs: Any):
        layer = as_layer(layer)
        if not isinstance(layer, Layer):
            raise TypeError(f"{type(self).__name__} wraps a layer, got {layer!r}.")
        super().__init__(**({"dtype": layer.dtype_policy} | kwargs))
        self.layer = layer
        if "trainable" in kwargs:
            layer.trainable = self._trainable

    @property
    def trainable(self) -> bool:
        """Whether training changes weights of a wrapped layer; setting it sets all of them."""
        return any(layer.trainable for layer in self.inner_layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.inner_layers:
            layer.trainable = value

    def get_config(self) -> dict[str, Any]:
        return {name: v for name, v in super().get_config().items() if name != "trainable"}

    @classmethod
    def _revive(cls, value: Any, custom_objects: dict[str, Any] | None) -> Any:
        if isinstance(value, dict) and "name" in value:
            return registry.get("layer", value, custom_objects)
        return value

    @property
    def inner_layers(self) -> tuple[Layer, ...]:
        """The wrapped layer."""
        return (self.layer,)

    @property
    def needs_length(self) -> bool:  # type: ignore[override]
        """Whether a wrapped layer needs the number of steps."""
        return any(layer.needs_length for layer in self.inner_layers)

    def build_inner(self, layer: Layer, prefix: str, input_shape: Shape) -> None:
        """Name and build a wrapped layer, and register its weights."""
        own_name = layer.display_name.rpartition("/")[2].removeprefix(prefix)
        layer.rename(f"{self.display_name}/{prefix}{own_name}")
        layer.ensure_built(input_shape)
        self.enter(layer)

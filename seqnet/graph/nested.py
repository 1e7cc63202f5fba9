"""A model as a layer of another model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seqnet import registry
from seqnet.common.types import Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.layers.weights import given_below

if TYPE_CHECKING:
    from seqnet.model import Model


DEFAULT_NAME = "model"
"""The name of a model without a name."""

OF_MODEL = ("get_layer", "inputs", "layers", "outputs", "summary")
"""Attributes of the model that its layer has, too."""


@registry.register("layer")
class ModelLayer(Layer):
    """The layer that a model is inside other models; its weights are those of the model.

    Parameters
    ----------
    model : Model
    """

    def __init__(self, model: Model):
        name = None if model.name == DEFAULT_NAME else model.name
        self.built = False
        super().__init__(name=name, dtype=model.dtype)
        self.model = model
        if model.built:
            self.adopt()

    takes_several_inputs = None

    def get_config(self) -> dict[str, Any]:
        return {"name": self.display_name, "model": self.model.get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> ModelLayer:
        name, inner = config["name"], config["model"]
        with given_below(name):
            found = registry.get("model", {"name": "Model", "config": inner}, custom_objects)
        layer: ModelLayer = found.as_layer()
        layer.rename(name)
        return layer

    def __getattr__(self, name: str) -> Any:
        if name in OF_MODEL and "model" in vars(self):
            return getattr(self.model, name)
        return super().__getattr__(name)

    @property
    def display_name(self) -> str:
        """The name of the layer."""
        return self.name or DEFAULT_NAME

    @property
    def inner_layers(self) -> tuple[Layer, ...]:
        """The layers of the model."""
        return tuple(self.model.layers)

    @property
    def has_multiple_outputs(self) -> bool:  # type: ignore[override]
        """Whether the model has several outputs."""
        return len(self.model.output_names) > 1

    @property
    def integer_input(self) -> bool:  # type: ignore[override]
        """Whether the first layer of the model takes integers."""
        return self.model.input_dtype == "int32"

    @property
    def needs_length(self) -> bool:  # type: ignore[override]
        """Whether a layer of the model needs the number of steps."""
        return any(layer.needs_length for layer in self.inner_layers)

    @property
    def reverses_time(self) -> bool:  # type: ignore[override]
        """Whether the steps of the output are in the reverse order."""
        return self.model.runs_backwards

    @property
    def non_causal(self) -> str:  # type: ignore[override]
        """Why a layer of the model cannot run step by step; empty if all can."""
        return next((layer.non_causal for layer in self.inner_layers if layer.non_causal), "")

    @property
    def stateful(self) -> bool:  # type: ignore[override]
        """Whether a layer of the model carries its states from batch to batch."""
        return self.model.stateful

    def consumers(self, places: Any) -> dict[int, list[Layer]]:
        slots = self.model.signature.inputs.leaves(places)
        pairs = zip(slots, self.model.graph.consumers, strict=True)
        return {slot.index: layers for slot, layers in pairs}

    def check_input(self, values: Any, name: str) -> None:
        for spec in self.model.input_specs.values():
            spec.check_input(values, name)

    def check_axes(self, input_shape: Any) -> None:
        """Leave the check to the layers of the model."""

    def ensure_built(self, input_shape: Any, **others: Any) -> None:
        self.model.build(input_shape)
        if not self.built:
            self.adopt()

    def adopt(self) -> None:
        """Register the weights of the model, and begin their names with the name of this layer."""
        change_prefix(self.model, "", f"{self.display_name}/")
        for layer in self.inner_layers:
            self.enter(layer)
        self.weights += [w for w in self.model.graph.weights if w not in self.weights]
        self.built = True

    @property
    def name(self) -> str | None:
        """The name, with which those of the weights begin."""
        return self._name

    @name.setter
    def name(self, name: str | None) -> None:
        before = self.display_name if self.built else ""
        self._name = name
        if before:
            change_prefix(self.model, f"{before}/", f"{self.display_name}/")

    def rename(self, name: str) -> None:
        self.name = name

    def call(self, inputs: Any, mask: Any, context: CallContext) -> Any:
        outputs, _ = self.replay(inputs, mask, {}, {}, context)
        return outputs if self.has_multiple_outputs else outputs[0]

    def replay(
        self, inputs: Any, mask: Any, options: Any, option_masks: Any, context: CallContext
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        structure = self.model.signature.inputs
        return self.model.graph.apply(structure.leaves(inputs), structure.leaves(mask), context)

    def compute_output_shape(self, input_shape: Any) -> Any:
        model = self.model
        shapes = model.graph.shapes(model.signature.inputs.leaves(input_shape))
        found = [shapes[k] for k in model.graph.outputs]
        return found if self.has_multiple_outputs else found[0]

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        model, structure = self.model, self.model.signature.inputs
        shapes = structure.leaves(model.input_shape)
        known = model.graph.masks(shapes, structure.leaves(mask))
        masks = [known.get(k) for k in model.graph.outputs]
        return masks if self.has_multiple_outputs else masks[0]


def change_prefix(model: Model, old: str, new: str) -> None:
    """Change how the names of a model's weights begin, which is unique where it is a layer."""
    model.weight_prefix = new + model.weight_prefix.removeprefix(old)
    for weight in model.weights:
        weight.name = new + str(weight.name).removeprefix(old)
    for layer in model.layers:
        if isinstance(layer, ModelLayer):
            inner = layer.model
            inner.weight_prefix = new + inner.weight_prefix.removeprefix(old)

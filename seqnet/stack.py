"""A stack of layers: names, weights, shapes, and one symbolic function of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet import backend, config, saving
from seqnet.checks import check_shape
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer, Shape, snake_case
from seqnet.layers.states import all_layers, carried_states
from seqnet.layers.weights import set_values
from seqnet.locking import ForkSafeLock


def forward(layers: Sequence[Layer], x, mask, context: CallContext):
    """Pass a symbolic input through layers; return the output and its mask."""
    for layer in layers:
        output = layer(x, mask=mask, context=context)
        mask = layer.compute_mask(x, mask)
        x = output
    return x, mask


def weight_arrays(stack: Stack) -> dict[str, np.ndarray]:
    """Return a stack's weights by the names they have in files."""
    arrays = {f"weights/{w.name}": w.get_value(borrow=True) for w in stack.weights}
    if len(arrays) < len(stack.weights):
        names = [w.name for w in stack.weights]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(
            f"Two weights of the model have the same name ({', '.join(twice)}), and a file holds "
            "one of each name. Give the layers other names."
        )
    return arrays


def set_weight_arrays(stack: Stack, arrays: dict[str, np.ndarray], path) -> None:
    """Set all weights from arrays by name, or raise without having changed any."""
    stored = saving.below("weights", arrays)
    for layer in stack.layers:
        for weight in layer.weights:
            value = stored.pop(weight.name, None)
            where = f"{path} does not fit the model: layer {layer.name!r} ({type(layer).__name__})"
            if value is None:
                raise ValueError(f"{where} has the weight {weight.name}, which the file lacks.")
            expected = weight.get_value(borrow=True).shape
            if value.shape != expected:
                raise ValueError(
                    f"{where} has the weight {weight.name} of shape {expected}, but the file's "
                    f"has shape {value.shape}."
                )
            if value.dtype.kind not in "fiu":
                raise ValueError(f"{where}, but the file's {weight.name} has no numbers but bools.")
    if stored:
        raise ValueError(
            f"{path} does not fit the model: it also has {', '.join(sorted(stored))}, which no "
            "layer of the model has."
        )
    for weight in stack.weights:
        weight.set_value(np.asarray(arrays[f"weights/{weight.name}"], dtype=weight.dtype))


class Stack:
    """Layers on top of each other, each with a name of its own.

    Parameters
    ----------
    layers : list of Layer
    name : str

    Attributes
    ----------
    layers : list of Layer
    metadata : dict
        What JSON can hold and should travel with the model in its file, such as a vocabulary.
    lock : ForkSafeLock
        Held by the thread that runs a compiled function, or that reads or changes all weights. Hold
        it yourself (``with model.lock:``) to do several such steps with no other thread in between.
    """

    def __init__(self, layers: Iterable[Layer] = (), name: str = "model"):
        self.name = name
        self.layers: list[Layer] = []
        self.metadata: dict[str, Any] = {}
        self.input_shape: Shape | None = None
        self.lock = ForkSafeLock()
        if not isinstance(layers, Iterable):
            raise TypeError(f"A model takes a list of layers, got {layers!r}.")
        if not isinstance(name, str):
            raise TypeError(
                f"A model takes its layers in one list; its name is text, not {name!r}."
            )
        for layer in layers:
            self.add(layer)

    def add(self, layer: Layer) -> None:
        """Put a layer on top."""
        if not isinstance(layer, Layer):
            raise TypeError(
                f"A model is made of layers (objects of seqnet.layers.Layer), got {layer!r}."
            )
        if layer.has_multiple_outputs:
            raise ValueError(
                f"Layer {layer.display_name!r} ({type(layer).__name__}) gives several outputs "
                "(return_state=True, or a Bidirectional without a merge), but a model hands one "
                "on from layer to layer. Call such a layer on a variable, outside a model."
            )
        there = {id(other) for other in all_layers(self.layers)}
        for part in all_layers([layer]):
            if id(part) in there:
                raise ValueError(f"Layer {part.display_name!r} is already in this model.")
        taken = {other.name for other in self.layers}
        if layer.name is None:
            base = snake_case(type(layer).__name__)
            number = sum(type(other) is type(layer) for other in self.layers)
            name = base if not number else f"{base}_{number}"
            while name in taken:
                number += 1
                name = f"{base}_{number}"
            layer.name = name
        elif layer.name in taken:
            raise ValueError(f"This model already has a layer named {layer.name!r}.")
        self.layers.append(layer)
        if self.input_shape is not None or layer.input_shape is not None:
            self._build_from(self.input_shape or (None, *layer.input_shape))

    def get_layer(self, name: str) -> Layer:
        """Return the layer of a name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = ", ".join(repr(layer.name) for layer in self.layers)
        raise ValueError(f"No layer is named {name!r}; there are {known or 'none'}.")

    @property
    def built(self) -> bool:
        """Whether all layers have their weights."""
        return bool(self.layers) and all(layer.built for layer in self.layers)

    def build(self, input_shape: Shape) -> None:
        """Make the weights for inputs of ``(batch, ...)`` shape, None for what varies."""
        if not self.layers:
            raise ValueError("The model has no layers; add some first.")
        self._build_from(check_shape(input_shape, "input_shape"))

    def _build_from(self, input_shape: Shape) -> None:
        shape = input_shape
        with self.lock:
            for layer in self.layers:
                layer.ensure_built(shape)
                shape = layer.compute_output_shape(shape)
            if self.input_shape is None:
                self.input_shape = input_shape

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the output's shape for an input's shape."""
        shape = tuple(input_shape)
        for layer in self.layers:
            shape = layer.compute_output_shape(shape)
        return shape

    @property
    def dtype(self) -> str:
        """The float type of the model: that of its last layer with weights."""
        for layer in reversed(self.layers):
            if layer.weights:
                return layer.dtype
        return self.layers[-1].dtype if self.layers else config.floatx()

    @property
    def input_dtype(self) -> str:
        """The dtype of arrays the first layer takes: int32 or the float type."""
        return "int32" if self.layers and self.layers[0].integer_input else self.dtype

    def __call__(
        self, inputs, mask=None, context: CallContext | None = None, training: bool = False
    ):
        """Apply the stack to a PyTensor variable and return a PyTensor variable.

        A `context` that is passed collects what a compiled function must store
        (`CallContext.updates`).
        """
        context = CallContext(training=training) if context is None else context
        return forward(self.layers, pt.as_tensor_variable(inputs), mask, context)[0]

    @property
    def weights(self) -> list:
        """The shared variables of all layers, in order."""
        return [w for layer in self.layers for w in layer.weights]

    @property
    def trained(self) -> tuple[bool, ...]:
        """For each weight, whether training changes it."""
        return tuple([on for layer in self.layers for on in layer.trained()])

    def get_weights(self) -> list[np.ndarray]:
        """Return copies of all weights, layer by layer."""
        with self.lock:
            return [w.get_value() for w in self._built_weights("get")]

    def set_weights(self, values: Sequence[np.ndarray]) -> None:
        """Set all weights from arrays in the order of `get_weights`."""
        weights = self._built_weights("set")
        if len(values) != len(weights):
            raise ValueError(f"The model has {len(weights)} weights, but got {len(values)} arrays.")
        with self.lock:
            set_values(weights, values)

    def _built_weights(self, verb: str) -> list:
        if not self.built:
            raise ValueError(
                f"The model has no weights to {verb} yet: its input is not known. Pass "
                "input_shape= to the first layer, call build, or call fit or predict with data."
            )
        return self.weights

    def save_weights(self, path) -> None:
        """Write the weights to an HDF5 file, each under ``layer/weight``; whole or not at all."""
        self._built_weights("save")
        with self.lock:
            saving.write(path, {"kind": "weights"}, weight_arrays(self))

    def load_weights(self, path) -> None:
        """Set the weights from a file of `save_weights` or `Model.save`, by name.

        Raises
        ------
        ValueError
            If the file cannot be read, or does not have exactly this model's weights: the message
            names the layer and the shapes. Then no weight is changed.
        """
        self._built_weights("load")
        _, arrays = saving.read(path)
        with self.lock:
            set_weight_arrays(self, arrays, path)

    def count_params(self) -> int:
        """Return how many numbers the weights hold."""
        return sum(layer.count_params() for layer in self.layers)

    def summary(self, print_fn: Callable[[str], None] = print) -> None:
        """Print the layers, their output shapes, weights, and how recurrent ones run."""
        rows = [("Layer", "Output shape", "Weights", "Runs as")]
        shape = self.input_shape
        for layer in self.layers:
            shape = None if shape is None else layer.compute_output_shape(shape)
            rows.append(
                (
                    f"{layer.name} ({type(layer).__name__})",
                    "?" if shape is None else str(shape),
                    f"{layer.count_params():,}" if layer.built else "not built",
                    layer.runs_as(backend.way_of) if layer.built else "",
                )
            )
        widths = [max(len(row[k]) for row in rows) for k in range(4)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
        lines.insert(1, "-" * (sum(widths) + 6))
        print_fn("\n".join(line.rstrip() for line in lines))
        sizes = [int(w.get_value(borrow=True).size) for w in self.weights]
        trained = sum(size for size, on in zip(sizes, self.trained, strict=True) if on)
        print_fn(f"Weights: {sum(sizes):,}, of which {trained:,} are trained.")

    @property
    def stateful(self) -> bool:
        """Whether a layer carries its states from batch to batch."""
        return any(layer.stateful for layer in all_layers(self.layers))

    def reset_states(self) -> None:
        """Let stateful layers start their next batch from zeros, in all kinds of run.

        `fit`, `train_on_batch` go on from the training's states, epoch after epoch and call after
        call; `test_on_batch` and `predict_on_batch` from the evaluation's and the prediction's.
        `evaluate`, `predict` and the validation in `fit` start from zeros at each call, carry
        states from batch to batch within it, and leave all states as they were.

        Examples
        --------
        >>> import numpy as np, seqnet
        >>> model = seqnet.Model([seqnet.layers.SimpleRNN(2, stateful=True)])
        >>> x = np.ones((1, 3, 1), "float32")
        >>> first, second = model.predict_on_batch(x), model.predict_on_batch(x)
        >>> model.reset_states()
        >>> bool((model.predict_on_batch(x) == first).all()), bool((second == first).all())
        (True, False)
        """
        with self.lock:
            for carried in carried_states(self.layers):
                carried.reset()

    @property
    def needs_length(self) -> bool:
        """Whether compiled functions are for one number of steps only."""
        return backend.needs_sizes() or any(layer.needs_length for layer in self.layers)

    @property
    def runs_backwards(self) -> bool:
        """Whether outputs at steps come last step first."""
        return sum(layer.reverses_time for layer in self.layers) % 2 == 1

"""Models: layers with a loss and an optimizer.

`Model.fit`, `evaluate` and `predict` validate their arguments, build data sets, and pass them to
`seqnet.training`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from seqnet import backend, config, distributed, losses, optimizers, summary
from seqnet import metrics as metrics_module
from seqnet.callbacks import Callback, CallbackList, History
from seqnet.callbacks.base import check_callbacks, say
from seqnet.callbacks.progress import reports
from seqnet.common.checks import check_bool, check_count, check_shape
from seqnet.common.hyperparameters import names_of
from seqnet.common.keras_names import GONE, takes_keras_names
from seqnet.common.locking import COMPILING, ForkSafeLock, alone
from seqnet.common.types import ArrayLike, Shape
from seqnet.data.adapters import Adapter
from seqnet.data.class_weight import ClassWeight
from seqnet.data.dataset import Batch, Data, Dataset, RowDataset
from seqnet.data.ragged import choose_lengths
from seqnet.data.resident import check_resident
from seqnet.data.spec import InputSpec, OutputSpec
from seqnet.generation.generating import prepare
from seqnet.generation.writing import Allowed
from seqnet.graph.graph import Graph, StepsSource, has_steps
from seqnet.graph.nested import ModelLayer
from seqnet.graph.signature import Signature
from seqnet.layers.context import CallContext
from seqnet.layers.evaluation import evaluate, holds_variables
from seqnet.layers.layer import Layer
from seqnet.layers.states import RUNS, all_layers, carried_states, named_states
from seqnet.layers.symbolic import Input, InputVariable, depends_on_input
from seqnet.layers.weights import set_values
from seqnet.optimizers import Optimizer
from seqnet.registry import register
from seqnet.saving import hdf5
from seqnet.saving.model_config import config_of, restore
from seqnet.saving.model_format import pack, unpack
from seqnet.summary import Call, calls_of
from seqnet.text import VOCABULARIES, Vocabulary
from seqnet.training import trainer as training
from seqnet.training.arguments import (
    FitArguments,
    check_optional_count,
    check_repeatable,
    check_verbose,
    validation_arguments,
)
from seqnet.training.code_digest import own_things
from seqnet.training.diagnostics import GradientNorms
from seqnet.training.objectives import (
    Objective,
    Objectives,
    losses_by_output,
    metrics_by_output,
    weights_by_output,
)
from seqnet.training.results import Totals
from seqnet.training.shards import ShardedSteps
from seqnet.training.step import RUN_FUNCTIONS
from seqnet.training.stepping import OneStep
from seqnet.training.tbptt import check_windows

log = logging.getLogger("seqnet")


@register("model")
class Model:
    """A stack of layers, or a graph of layers from inputs to outputs, that can be trained.

    Parameters
    ----------
    inputs : list of Layer, or variables
        The layers of a stack, each applied to the output of the one before. Or, with `outputs`,
        an `Input` variable, a list or a dictionary of these.
    outputs : variable, list or dictionary, optional
        What layers and PyTensor's operations make from the inputs.
    name : str
    layers : list of Layer, optional
        The layers of a stack, by name.
    trainable : bool
        False freezes all layers.

    Attributes
    ----------
    layers : list of Layer
    metadata : dict
        Values that JSON can hold and that are saved with the model.
    vocabulary : vocabulary of `seqnet.text`, optional
        From the text that `generate` takes and returns to numbers; saved with the model.
    optimizer, loss, metrics
        Set by `compile`.
    steps : ShardedSteps
        The compiled train, test and predict steps.
    history : History
        The logs of the last `fit`; empty before the first one.
    stop_training : bool
        A callback sets it to True to stop `fit` after the batch.
    last_run : str, optional
        Identifies the last run of `fit`; a resumed run keeps its id.
    lock : ForkSafeLock
        Held by the thread that runs a compiled function, or that reads or changes all weights. Hold
        it yourself (``with model.lock:``) to make several such calls without another thread in
        between.
    gradient_norms : GradientNorms
        The gradient norms of the epoch, or of the last `train_on_batch`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.layers import Embedding, LSTM, Dense
    >>> model = seqnet.Model([Embedding(10, 4), LSTM(8), Dense(2, activation="softmax")])
    >>> X, y = np.array([[1, 2, 3], [4, 5, 6]]), np.array([0, 1])
    >>> history = model.fit(X, y, epochs=2, verbose=0)
    >>> len(history.history["loss"])
    2
    >>> model.predict(X).shape
    (2, 2)
    """

    @takes_keras_names
    def __init__(
        self,
        inputs: Any = (),
        outputs: Any = None,
        name: str = "model",
        *,
        layers: Iterable[Layer] | None = None,
        trainable: bool = True,
    ):
        check_bool(trainable, "trainable")
        if not isinstance(name, str):
            raise TypeError(
                f"A model takes its layers in one list; its name must be text, not {name!r}."
            )
        self.name = name
        self.metadata: dict[str, Any] = {}
        self.input_shape: Any = None
        self.optimizer: Any = None
        self.loss: Any = None
        self.objectives = Objectives()
        self.metrics_asked: Any = ()
        self.loss_weights: Any = None
        self.padded_lengths: tuple[int, ...] = ()
        self.lock = ForkSafeLock()
        self.history = History()
        self.stop_training = False
        self.last_run: str | None = None
        self.gradient_norms = GradientNorms()
        self.weight_prefix = ""
        self._first: InputVariable | None = None
        self._layer: ModelLayer | None = None
        self._sources: list[StepsSource | None] | None = None
        self._aligned: list[set[int]] | None = None
        self._called: tuple[Any, ...] | None = None
        self.signature = Signature()
        self.graph = Graph.of_stack([])
        self._layers: list[Layer] = []
        self.steps = ShardedSteps(self)
        self._fill(inputs if layers is None else layers, outputs)
        if not trainable:
            self.trainable = False

    def _fill(self, inputs: Any, outputs: Any) -> None:
        """Add the layers of the arguments of the constructor."""
        if outputs is not None:
            self.connect(inputs, outputs)
            return
        several = isinstance(inputs, Iterable) and not isinstance(inputs, (Variable, Mapping))
        stack = list(inputs) if several else [inputs]
        if depends_on_input(inputs if not several else stack[1:]):
            raise TypeError(
                "The model has inputs, but no outputs. Pass both: Model(inputs, outputs)."
            )
        if not several:
            raise TypeError(
                f"A model takes a list of layers, or inputs and outputs, got {inputs!r}."
            )
        for layer in stack:
            self.add(layer)

    # ---- layers

    @property
    def layers(self) -> list[Layer]:
        """The layers, in the order of the stack or of the graph."""
        return self._layers

    @layers.setter
    def layers(self, value: object) -> None:
        raise AttributeError(
            "The layers of a model cannot be set. A stack changes with add and pop; another graph "
            "is a new model."
        )

    def connect(self, inputs: Any, outputs: Any) -> None:
        """Make the graph of an empty model, between symbolic inputs and outputs."""
        self.signature = Signature.between(inputs, outputs)
        self.graph = Graph.between(self.signature.input_variables, self.signature.output_variables)
        self._layers = self.graph.layers
        name_layers(self.layers)
        self._check_shared()
        self.signature = self.signature.with_names()
        shapes = [variable.batch_shape for variable in self.signature.input_variables]
        self.input_shape = self.signature.inputs.pack(shapes)
        _ = self.input_specs  # raises if a dtype does not fit

    def _check_shared(self) -> None:
        """Raise unless the shared variables of the graph have names of their own."""
        of_layers = {weight for layer in self.layers for weight in layer.weights}
        taken = {str(weight.name) for weight in of_layers}
        for weight in self.graph.weights:
            if weight in of_layers:
                continue  # as where scores of outputs share the table of an embedding
            problem = "has no name" if weight.name is None else f"is named {weight.name!r}"
            if weight.name is None or weight.name in taken:
                twice = "" if weight.name is None else ", as another weight of the model"
                raise ValueError(
                    f"A shared variable of the graph, of shape {weight.get_value().shape}, "
                    f"{problem}{twice}. It is a weight of the model and needs a name of its own: "
                    "pytensor.shared(value, name='...')."
                )
            taken.add(str(weight.name))

    def add(self, layer: Layer | Model | InputVariable) -> None:
        """Add a layer after the existing ones, to a model that is a stack of layers.

        A model is added as a layer. An `Input` is only possible as the first: it sets the shape
        and the name of the input.
        """
        if self.signature.is_functional:
            raise ValueError(
                "This model was made from inputs and outputs, so no layer can be added: call the "
                "layer on an output, and make a new model."
            )
        if isinstance(layer, InputVariable):
            self._begin_with(layer)
            return
        first: Any = None
        if isinstance(layer, Model):
            first, layer = layer.input_shape, layer.as_layer()
        if not isinstance(layer, Layer):
            raise TypeError(
                f"A model takes layers (objects of seqnet.layers.Layer), got {layer!r}."
            )
        if layer.has_multiple_outputs:
            raise ValueError(
                f"Layer {layer.display_name!r} ({type(layer).__name__}) has several outputs "
                "(return_state=True, or a Bidirectional without a merge), but a stack passes one "
                "output from layer to layer. Call such a layer on a seqnet.Input, and make the "
                "model from inputs and outputs."
            )
        there = {id(other) for other in all_layers(self.layers)}
        for part in all_layers([layer]):
            if part is self._layer:
                raise ValueError(f"The model {self.name!r} cannot be a layer inside itself.")
            if id(part) in there:
                raise ValueError(f"Layer {part.display_name!r} is already in this model.")
        name_layers([*self.layers, layer])
        self.layers.append(layer)
        self._set_stack()
        if layer.input_shape is not None:
            first = (layer.batch_size, *layer.input_shape)
        if self.input_shape is not None or isinstance(first, tuple):
            self._build_from(self.input_shape or first)

    def _begin_with(self, first: InputVariable) -> None:
        if self.layers or self.input_shape is not None:
            raise ValueError("An Input is the first in a stack of layers, and there is only one.")
        self._first, self.input_shape = first, first.batch_shape
        self.signature = Signature.of_stack(first)

    def pop(self) -> Layer:
        """Remove the last layer of a stack, and return it."""
        if self.signature.is_functional or not self.layers:
            raise ValueError("pop removes the last layer of a stack, and there is none.")
        layer = self.layers.pop()
        self._set_stack()
        return layer

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: no compiled functions."""
        return {name: value for name, value in vars(self).items() if name != "_functions"}

    def _set_stack(self) -> None:
        """Make the graph of the list of layers."""
        vars(self).pop("_functions", None)
        self.graph = Graph.of_stack(self.layers)
        self.steps = ShardedSteps(self)

    def as_layer(self) -> ModelLayer:
        """Return the layer that this model is inside other models; always the same one."""
        if self._layer is None:
            self._layer = ModelLayer(self)
        return self._layer

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """Return the layer with a name, or that at a place of `layers`."""
        if (name is None) == (index is None):
            raise ValueError("get_layer takes the name of a layer or its index.")
        if index is not None:
            if not -len(self.layers) <= index < len(self.layers):
                raise ValueError(
                    f"The model has {len(self.layers)} layers, so none has the index {index}."
                )
            return self.layers[index]
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = ", ".join(repr(layer.name) for layer in self.layers)
        raise ValueError(f"No layer is named {name!r}; there are {known or 'none'}.")

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return self.signature.inputs.names

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs."""
        if not self.signature.is_functional and self.layers:
            return (self.layers[-1].display_name,)
        return self.signature.outputs.names

    @property
    def inputs(self) -> list[InputVariable]:
        """The symbolic inputs; of a built stack, one that is made at the first use."""
        return list(self._symbolic()[0])

    @property
    def outputs(self) -> list[Any]:
        """The symbolic outputs."""
        return list(self._symbolic()[1])

    @property
    def input(self) -> Any:
        """The symbolic input; of several, a list or a dictionary as the model was made."""
        return self.signature.inputs.pack(self.inputs)

    @property
    def output(self) -> Any:
        """The symbolic output; of several, a list or a dictionary as the model was made."""
        return self.signature.outputs.pack(self.outputs)

    @property
    def output_shape(self) -> Any:
        """The static shape of the output; of several, a list or a dictionary."""
        return self.compute_output_shape(self.input_shape)

    def _symbolic(self) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return the symbolic inputs and outputs; call the layers of a stack on an `Input`."""
        if self.signature.is_functional:
            return self.signature.input_variables, self.signature.output_variables
        if not self.built:
            raise ValueError("The model is not built, so it has no symbolic inputs or outputs yet.")
        if self._called is None or self._called[0] is not self.graph:
            x: Any = self._first
            if x is None:
                x = Input(batch_shape=self.input_shape, name=self.input_names[0])
            y = x
            for layer in self.layers:
                y = layer(y)
            self._called = (self.graph, x, y)
        return self._called[1:2], self._called[2:]

    def __getattr__(self, name: str) -> Any:
        instead = f"; call {GONE[name]}" if name in GONE else ""
        raise AttributeError(
            f"A {type(self).__name__} has no {name!r}{instead}.", name=name, obj=self
        )

    @property
    def built(self) -> bool:
        """Whether all layers have their weights."""
        return not self.is_empty and all(layer.built for layer in self.layers)

    @property
    def is_empty(self) -> bool:
        """Whether the model is a stack of no layers."""
        return not (self.layers or self.signature.is_functional)

    def build(self, input_shape: Any = None) -> None:
        """Create the weights for inputs of shape ``(batch, ...)``; None for sizes that vary.

        The size of the batch is not used.
        With several inputs, the shapes are a list or a dictionary by name. By default the shape is
        the known `input_shape`.
        """
        input_shape = self.input_shape if input_shape is None else input_shape
        if input_shape is None:
            raise ValueError("The input shape of the model is unknown: pass it to build.")
        if self.is_empty:
            raise ValueError("The model has no layers; add some first.")
        inputs = self.signature.inputs
        shapes = [(None, *check_shape(s, "input_shape")[1:]) for s in inputs.leaves(input_shape)]
        if self.signature.is_functional:
            for spec, shape in zip(self.input_specs.values(), shapes, strict=True):
                spec.check_shape(shape)
        self._build_from(inputs.pack(shapes))

    def _build_from(self, input_shape: Any) -> None:
        with self.lock:
            self.graph.build(self.signature.inputs.leaves(input_shape))
            if self.input_shape is None:
                self.input_shape = input_shape

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the output shape for an input shape; of several, trees of the same structure."""
        shapes = self.graph.shapes(self.signature.inputs.leaves(input_shape))
        return self.signature.outputs.pack([shapes[k] for k in self.graph.outputs])

    @property
    def output_features(self) -> Any:
        """The size of the last axis of the output; of several, a dictionary by name."""
        shapes = self.graph.shapes(self.signature.inputs.leaves(self.input_shape))
        return self.signature.outputs.to_batch([shapes[k][-1] for k in self.graph.outputs])

    @property
    def dtype(self) -> str:
        """The float type of the model: that of its last layer with weights."""
        for layer in reversed(self.layers):
            if layer.weights:
                return layer.dtype
        return self.layers[-1].dtype if self.layers else config.floatx()

    @property
    def input_specs(self) -> dict[str, InputSpec]:
        """What data for each input must be, by its name."""
        names = self.input_names
        shapes = self.signature.inputs.leaves(self.input_shape)
        chosen = self.signature.input_dtypes
        found = {}
        for name, shape, dtype, layers in zip(
            names, shapes, chosen, self.graph.consumers, strict=True
        ):
            integers = any(layer.integer_input for layer in layers)
            if (dtype, self.dtype) == ("float64", "float32"):
                raise ValueError(
                    f"The input {name!r} has the dtype float64, but the model computes in float32, "
                    "which would round its values. Call seqnet.config.set_floatx('float64') before "
                    "the layers are made, or leave the dtype out and pass values that float32 can "
                    "hold, such as times since the first one."
                )
            found[name] = InputSpec(
                name,
                shape,
                dtype or ("int32" if integers else self.dtype),
                layers,
                not self.signature.is_functional or has_steps(shape),
            )
        return found

    @property
    def output_specs(self) -> dict[str, OutputSpec]:
        """What targets of each output must be, by its name."""
        by_output = {o.output or self.output_names[0]: o for o in self.objectives}
        steps = self._steps_sources()
        found = {}
        for place, (name, source) in enumerate(zip(self.output_names, steps, strict=True)):
            objective, mask_rank = by_output.get(name), None
            follows = None if source is None else self.input_names[source.input]
            number = 0 if source is None else source.input
            mask_rank = partial(self._mask_rank, number, place)
            steps_of = partial(self._output_steps, number, place)
            found[name] = OutputSpec(
                name,
                None if objective is None else objective.loss,
                () if objective is None else objective.metrics,
                self.graph.last_layer(place),
                follows,
                source is not None and source.backwards,
                mask_rank,
                steps_of,
                source is not None and source.joined,
            )
        return found

    def _output_steps(self, place: int, output: int, lengths: np.ndarray) -> np.ndarray:
        """Return the number of steps of an output for numbers of steps of an input."""
        shapes = self.signature.inputs.leaves(self.input_shape)

        def steps(length: int) -> int:
            shapes[place] = (None, length, *shapes[place][2:])
            found = self.graph.shapes(shapes)[self.graph.outputs[output]]
            return length if found[1] is None else found[1]

        longest = int(lengths.max())
        if all(steps(n) == n for n in (longest, longest + 1)):
            return lengths
        unique, places = np.unique(lengths, return_inverse=True)
        return np.array([steps(int(n)) for n in unique])[places]

    def _mask_rank(self, place: int, output: int, shape: Shape, rank: int) -> int:
        """Return the number of axes that the mask of an input has at an output; 0 for none."""
        shapes = self.signature.inputs.leaves(self.input_shape)
        shapes[place] = shape
        ranks = [rank if k == place else 0 for k in range(len(shapes))]
        return self.graph.mask_ranks(shapes, ranks)[output]

    @property
    def input_dtype(self) -> str:
        """The dtype of the inputs of the first layer: int32 or the float type."""
        return "int32" if self.layers and self.layers[0].integer_input else self.dtype

    def __call__(
        self,
        inputs: Any,
        mask: Any = None,
        context: CallContext | None = None,
        training: bool | None = None,
    ) -> Any:
        """Apply the model to PyTensor variables or to arrays; return the same.

        Inputs and outputs are each one variable, or a list or a dictionary as the model was made.
        Called on variables that depend on a `seqnet.Input`, the model becomes a layer of the model
        that is made from them. Pass a `context` to collect the updates of a compiled function
        (`CallContext.updates`).
        """
        if depends_on_input(inputs):
            found = self.as_layer()(inputs, mask=mask, training=training)
            return self.signature.outputs.pack(found if isinstance(found, list) else [found])
        if context is None and not holds_variables((inputs, mask)):
            if training:
                return evaluate(self, inputs, (), mask, {}, training)
            return self.predict_on_batch(inputs, mask)
        context = CallContext(training=bool(training)) if context is None else context
        values = [pt.as_tensor_variable(x) for x in self.signature.inputs.leaves(inputs)]
        if self._layer is not None and not self._layer.built:  # a layer that holds this is built
            self._layer.ensure_built(self.signature.inputs.pack([v.type.shape for v in values]))
        outputs, _ = self.graph.apply(values, self.signature.inputs.leaves(mask), context)
        return self.signature.outputs.pack(outputs)

    def forward(self, inputs: Any, mask: Any, context: CallContext) -> tuple[Any, Any]:
        """Pass the symbolic parts of a batch through the layers; return outputs and masks.

        Each is one variable, or a dictionary by the names of inputs or outputs if there are
        several.
        """
        ins, outs = self.signature.inputs, self.signature.outputs
        outputs, masks = self.graph.apply(ins.from_batch(inputs), ins.from_batch(mask), context)
        return outs.to_batch(outputs), outs.to_batch(masks)

    @property
    def weights(self) -> list:
        """The shared variables of all layers, in order; shared weights once."""
        found = dict.fromkeys(w for layer in self.layers for w in layer.weights)
        found.update(dict.fromkeys(self.graph.weights))
        return list(found)

    @property
    def trainable_weights(self) -> list:
        """The weights that training changes."""
        return [w for w, on in zip(self.weights, self.trained, strict=True) if on]

    @property
    def non_trainable_weights(self) -> list:
        """The weights that optimizers do not change."""
        return [w for w, on in zip(self.weights, self.trained, strict=True) if not on]

    @property
    def losses(self) -> list:
        """The penalties of the weights, one symbolic number for each."""
        return [loss for layer in self.layers for loss in layer.losses]

    @property
    def trainable(self) -> bool:
        """Whether training changes weights of a layer; setting it sets it for all layers."""
        return any(layer.trainable for layer in self.layers) or not self.layers

    @trainable.setter
    def trainable(self, value: bool) -> None:
        value = check_bool(value, "trainable")
        for layer in self.layers:
            layer.trainable = value

    def structure(self) -> tuple:
        """Return which hyperparameters of the layers are above 0: graphs may depend on that."""
        return tuple([layer.structure() for layer in self.layers])

    @property
    def trained(self) -> tuple[bool, ...]:
        """Whether each weight is trained."""
        found: dict[Any, bool] = {}
        for layer in self.layers:
            for weight, on in zip(layer.weights, layer.trained(), strict=True):
                found[weight] = found.get(weight, True) and on
        found.update((w, getattr(w.tag, "trainable", True)) for w in self.graph.weights)
        return tuple(found.values())

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
                f"The model has no weights to {verb} yet: its input shape is unknown. Pass "
                "input_shape= to the first layer, call build, or call fit or predict with data."
            )
        return self.weights

    def count_params(self) -> int:
        """Return the total number of parameters in the weights."""
        return sum(int(w.get_value(borrow=True).size) for w in self.weights)

    def calls(self) -> Iterator[Call]:
        """Yield the input and the calls of the layers, in order, for summaries and pictures."""
        shapes = self.signature.inputs.leaves(self.input_shape)
        return calls_of(self.graph, self.input_names, shapes)

    def summary(
        self, line_length: int | None = None, print_fn: Callable[[str], None] = print
    ) -> None:
        """Print the layers, their output shapes and weights, and how recurrent layers run.

        Parameters
        ----------
        line_length : int, optional
            The width of the table; by default that of the terminal, or 80.
        print_fn : function
            Gets the table, and then a line of totals.
        """
        print_fn(summary.text_of(self, line_length))
        print_fn(summary.totals(self))

    def __repr__(self) -> str:
        return f"<{summary.describe(self)}>"

    def _repr_html_(self) -> str:
        return summary.html_of(self)

    @property
    def stateful(self) -> bool:
        """Whether a layer carries its states from batch to batch."""
        return any(layer.stateful for layer in all_layers(self.layers))

    def reset_states(self) -> None:
        """Reset the states of stateful layers to zeros, for training, testing and prediction.

        `fit` and `train_on_batch` start from the training states, in each epoch and call;
        `test_on_batch` and `predict_on_batch` start from the states of testing and prediction.
        `evaluate`, `predict` and the validation in `fit` start from zeros at each call, carry
        states from batch to batch within the call, and do not change the stored states.

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
        """Whether compiled functions only work for one number of steps."""
        return backend.needs_sizes() or any(layer.needs_length for layer in self.layers)

    @property
    def runs_backwards(self) -> bool:
        """Whether the steps of the first output are in reversed order."""
        source = self._steps_sources()[0]
        return source is not None and source.backwards

    def _steps_sources(self) -> list[StepsSource | None]:
        """Return the input whose steps each output has."""
        if self.signature.is_functional:
            shapes = self.signature.inputs.leaves(self.input_shape)
            if self._sources is None:
                self._sources = self.graph.sources(shapes)
            return self._sources
        return [StepsSource(0, sum(layer.reverses_time for layer in self.layers) % 2 == 1)]

    @property
    def aligned_inputs(self) -> list[list[str]]:
        """The names of inputs whose steps meet one by one, so that they have equal lengths."""
        if len(self.input_names) == 1:
            return []
        if self._aligned is None:
            shapes = self.signature.inputs.leaves(self.input_shape)
            self._aligned = self.graph.aligned_inputs(shapes)
        return [[self.input_names[k] for k in sorted(numbers)] for numbers in self._aligned]

    def function(self, run: str = "train") -> Callable:
        """Return the compiled PyTensor function of a step, to print its graph or its profile.

        It takes the arrays of a batch, and changes the weights if it is that of training. With the
        backend ``"jax"`` it is an ordinary function.

        Parameters
        ----------
        run : "train", "test" or "predict"
            Of several functions, for several kinds of batches, the last one that was compiled.

        Raises
        ------
        ValueError
            If none has been compiled: functions are compiled when data is known.

        Examples
        --------
        >>> import numpy as np, pytensor, seqnet
        >>> model = seqnet.Model([seqnet.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> loss = model.train_on_batch(np.ones((4, 2)), np.ones((4, 1)))
        >>> function = model.function("train")
        >>> [str(v) for v in function.maker.fgraph.inputs[:2]]
        ['X', 'y']
        >>> text = pytensor.dprint(function, file="str")
        """
        if run not in RUN_FUNCTIONS:
            known = ", ".join(map(repr, RUN_FUNCTIONS))
            raise ValueError(f"run is one of {known}, got {run!r}.")
        found = self.steps.compiled(run)
        if found is None:
            raise ValueError(
                f"No function has been compiled for {run!r} yet: call fit, evaluate or predict, or "
                f"{run}_on_batch, with data first."
            )
        return found

    # ---- training

    @takes_keras_names
    def compile(
        self,
        optimizer: str | Optimizer = "adam",
        loss: Any = None,
        metrics: Any = (),
        loss_weights: Any = None,
        weighted_metrics: Any = (),
    ) -> None:
        """Set the optimizer, the loss and the metrics; functions are compiled when data is known.

        Parameters
        ----------
        optimizer : str or Optimizer
        loss : str, Loss or function of (y_true, y_pred), optional
            None chooses a loss for the last layer: a categorical cross-entropy for a softmax
            (sparse for integer targets), the binary cross-entropy for a sigmoid, and the mean
            squared error otherwise. With several outputs, a dictionary by the names of outputs or
            a list, None for an output that is not trained; a single loss is that of all.
        metrics : list of str, Metric or functions
            They are weighted and masked like the loss. ``"accuracy"`` selects the accuracy that
            fits the loss or the shapes, and ``"crossentropy"`` the cross-entropy. With several
            outputs, a dictionary or a list with a metric, or a list of metrics, for each.
        loss_weights : float, or a dictionary or list of floats, optional
            What the loss of each output is multiplied by; their sum is minimised.
        weighted_metrics : list of str, Metric or functions
            More metrics. In Keras only these are weighted; here there is no difference.

        Raises
        ------
        ValueError
            If a name is unknown; the message suggests the closest one.
        """
        for name, given in (("metrics", metrics), ("weighted_metrics", weighted_metrics)):
            if isinstance(given, str):
                raise TypeError(f"{name} takes a list, such as [{given!r}].")
        names, optimizer = self.output_names, optimizers.get(optimizer)
        found = None if loss is None else losses_by_output(loss, names)
        asked = metrics_by_output(metrics, names)
        for name, more in metrics_by_output(weighted_metrics, names).items():
            asked[name] = [*asked.get(name, ()), *more]
        weights_by_output(loss_weights, names)  # raises if they do not fit
        with COMPILING:  # no other thread compiles while only some attributes are set
            self.optimizer, self.loss_weights = optimizer, loss_weights
            self.objectives = Objectives()
            self.metrics_asked = asked if len(names) > 1 else asked[names[0]]
            self.steps = ShardedSteps(self)
            self.loss = found if found is None or len(names) > 1 else found[names[0]]
        if found is not None:
            self.set_objectives(found)
        else:  # unknown names are errors now; "accuracy" is chosen when the loss is known
            for name in [name for of_output in asked.values() for name in of_output]:
                metrics_module.check_scalar(metrics_module.get(name))

    @property
    def metrics(self) -> list:
        """The metrics of all outputs."""
        return [metric for objective in self.objectives for metric in objective.metrics]

    @property
    def metrics_names(self) -> list[str]:
        """The names of the results of `evaluate`, in their order."""
        return self.objectives.log_names()

    def set_objectives(self, found: Mapping[str, Callable | None]) -> None:
        """Create the objectives and the requested metrics, once the losses are known."""
        names = self.output_names
        asked = metrics_by_output(self.metrics_asked, names)
        weights = weights_by_output(self.loss_weights, names)
        several = len(names) > 1
        self.objectives = Objectives(
            Objective(
                loss,
                [metrics_module.get(m, loss) for m in asked.get(name, [])],
                weights.get(name, 1.0),
                name if several else "",
            )
            for name, loss in found.items()
            if loss is not None
        )
        for metric in self.metrics:
            metrics_module.check_scalar(metric)
        logged = self.objectives.log_names()
        for name in logged:
            if logged.count(name) > 1:
                raise ValueError(
                    f"Two metrics would have the name {name!r}: {', '.join(logged)}. They are "
                    "reported by name, so pass each one once."
                )

    def complete_compile(self, dataset: Dataset, announce: bool = False) -> None:
        """Choose an optimizer and a loss if `compile` did not, and log the choice.

        Parameters
        ----------
        dataset : Dataset
        announce : bool
            Print the choice, too.
        """
        with self.lock:
            if self.optimizer is None:
                self.compile()
                if announce:
                    optimizer: Any = self.optimizer
                    name = type(optimizer).__name__
                    name = f"{name}(learning_rate={optimizer.learning_rate:g})"
                    say(f"compile was not called: training with {name}.")
            if self.loss is None:
                sample = dataset.first_batch(1)
                x = self.steps.variables(Batch(sample.inputs)).inputs
                outputs = self.signature.outputs
                found = {
                    name: losses.guess(output, y)
                    for name, output, y in zip(
                        self.output_names,
                        outputs.from_batch(self.forward(x, None, CallContext())[0]),
                        outputs.from_batch(sample.targets),
                        strict=True,
                    )
                }
                self.loss = found if len(found) > 1 else found[self.output_names[0]]
                self.set_objectives(found)
                for name, loss in found.items():
                    of_output = f" for the output {name!r}" if len(found) > 1 else ""
                    inform(
                        f"No loss was given{of_output}: using {loss.name}, which fits the last "
                        "layer.",
                        announce,
                    )

    def choose_padded_lengths(self, lengths: np.ndarray, announce: bool = False) -> tuple[int, ...]:
        """Return the lengths that sequences are padded to, and keep them for later calls.

        For unrolled models, and backends that need sizes, one function is compiled for each length.
        """
        with self.lock:
            before = self.padded_lengths
            chosen = self.padded_lengths = choose_lengths(lengths, before)
            if chosen != before:
                inform(
                    f"Sequences are padded to one of the lengths {', '.join(map(str, chosen))}; a "
                    "function is compiled for each length when it is first used.",
                    announce,
                )
                self.steps.forget_lengths(set(before) - set(chosen))
        return chosen

    @takes_keras_names
    def fit(
        self,
        X: Data,
        y: Data | None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = 1,
        callbacks: Sequence[Callback] = (),
        validation_split: float = 0.0,
        validation_data: Data | None = None,
        shuffle: bool | str = True,
        class_weight: Mapping[int, float] | Mapping[str, Mapping[int, float]] | None = None,
        sample_weight: Data | None = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
        mask: Data | None = None,
        lengths: Data | None = None,
        tbptt: int | None = None,
        resident: bool = False,
        accumulate: int = 1,
    ) -> History:
        """Train on arrays, rows outside memory, or a stream of batches.

        Parameters
        ----------
        X : array (samples, time) of integers, (samples, time, features), or another input shape
            Or a list of sequences of any lengths, (time,) or (time, features): batches then consist
            of sequences of similar length, padded to the longest of them, with a mask.
            Or rows outside memory: a `numpy.memmap`, a `h5py.Dataset`, any object with a length and
            slices; each batch is read and checked when it is needed.
            Or, without y, a stream: a generator or iterable of batches (x, y) or
            (x, y, sample_weight), or an object that returns batches by number. A generator is
            closed when `fit` ends.
            With several inputs, a dictionary of these by input name, or a list in the order of
            `input_names`; each sequence input may have its own lengths.
        y : array
            Targets: class numbers ``(samples,)`` or ``(samples, time)`` for the sparse
            cross-entropy, otherwise an array of the shape of the output. For a list of sequences,
            targets for each step are a list of the same lengths.
            With several outputs, a dictionary by output name, or a list.
        batch_size : int, optional
            By default 32, or the batch size of an `Input` that has one; then it is the only one.
        epochs : int
        verbose : 0, 1 or 2
            Silent, a progress bar for each epoch (replaced by a `ProgressBar` among the callbacks),
            or one line for each epoch with its time. ``"auto"`` means 1.
        callbacks : list of `seqnet.callbacks.Callback`
        validation_split : float
            The fraction at the end of the data that is used for validation instead of training.
        validation_data : (X, y) or (X, y, sample_weight), or a stream, or a dictionary
            With mask or lengths, a dictionary of arguments of `evaluate`, such as
            ``{"X": X, "y": y, "lengths": lengths}``.
        shuffle : bool or "batch"
            Draw a new order for each epoch. ``"batch"`` shuffles only the order of the batches,
            each of neighbouring rows, which are quick to read from a disk. Iterables keep their
            order. With a stateful layer, row k of a batch continues row k of the previous batch;
            this needs ``shuffle=False`` and samples in that order; see `reset_states`.
        class_weight : dict of int to float
            Weights of target classes; other classes have the weight 1. They multiply
            `sample_weight`, and are not used for validation. With several outputs, a dictionary
            of these by output name.
        sample_weight : array (samples,) or (samples, time), or a list of (time,)
            With several outputs, a dictionary or a list with None for outputs without weights, or
            one array for all outputs.
        initial_epoch : int
            The number of the first epoch, to continue a training; `epochs` is where it ends.
        steps_per_epoch : int, optional
            The number of batches in an epoch; required for an infinite stream. The next epoch
            begins where the previous one ended; shuffled rows are drawn again.
        validation_steps : int, optional
            The number of batches to validate on, always the first ones.
        validation_batch_size : int, optional
            `batch_size` by default.
        validation_freq : int or list of int
            Validate every `validation_freq` epochs, or after the listed epochs, counted from 1.
        mask : bool array (samples, time), optional
            True where there is data. With several inputs, a dictionary by input name.
        lengths : int array (samples,), optional
            The number of steps of each row of X that are data, if padding comes after them; batches
            are then formed as for a list. With several inputs, a dictionary by input name.
        tbptt : int, optional
            Truncated backpropagation: divide each batch into windows of this many steps and make
            an update for each. States and the masks of `dropout` and `recurrent_dropout` are passed
            from window to window; gradients are not. Windows that consist only of padding are
            skipped. The validation is computed in such windows, too.
        resident : bool
            Keep the data in shared variables during the training, and take batches by row numbers
            within the compiled functions. Results are the same. The data goes to the device once,
            and not with each batch; without a device it saves little. For arrays, without `tbptt`.
        accumulate : int
            Gradient accumulation: compute each batch in this many parts, one after another, and
            make one update with the sum of their gradients. The result is that of the whole batch,
            and only the values of one part are in memory. Keras's
            ``gradient_accumulation_steps=k`` with batches of n samples is ``batch_size=k * n,
            accumulate=k``.

        Returns
        -------
        History
            ``history.history`` has a list of values for each name in the logs.

        Raises
        ------
        ValueError, TypeError
            If the arrays do not fit the model or each other, before anything is compiled. Rows
            outside memory and batches of streams are checked before the update that uses them.
        RuntimeError
            If another call of `fit` is training the model.
        """
        arguments = FitArguments.check(
            self._batch_size(batch_size),
            None
            if validation_batch_size is None
            else self._batch_size(validation_batch_size, "validation_batch_size"),
            epochs, initial_epoch, shuffle, tbptt, verbose, validation_freq, steps_per_epoch,
            validation_steps, class_weight, resident, accumulate,
        )  # fmt: skip
        callbacks, verbose = check_callbacks(callbacks), arguments.verbose
        remaining = arguments.epochs - arguments.initial_epoch
        if arguments.shuffle and self.stateful:
            log.warning("shuffle=True mixes the sequences of stateful layers: use shuffle=False.")
        with ExitStack() as opened:
            opened.enter_context(distributed.current().together())
            opened.enter_context(alone(self))
            adapter = Adapter(self, announce=verbose > 0, continues=steps_per_epoch is not None)
            dataset = adapter.dataset(X, y, sample_weight, mask, lengths)
            opened.callback(dataset.close)
            check_repeatable(dataset, steps_per_epoch, "steps_per_epoch", remaining)
            validation: Dataset | None = None
            if validation_data is not None:
                given = validation_arguments(validation_data)
                validation = Adapter(self, prefix="validation ").dataset(*given)
                opened.callback(validation.close)
            elif validation_split:
                dataset, validation = dataset.split(validation_split)
            if validation is not None:
                check_repeatable(validation, validation_steps, "validation_steps", remaining)
                self._check_samples(validation)
            self._check_samples(dataset)
            if class_weight is not None:
                dataset = dataset.map(ClassWeight(class_weight, self))
            if tbptt is not None:
                check_windows(self, dataset.first_batch(arguments.batch_size))
            if arguments.resident:
                check_resident(dataset, "X", tbptt)
                dataset = opened.enter_context(self.steps.resident(dataset, "train"))
                if validation is not None:
                    check_resident(validation, "validation_data", tbptt)
                    validation = opened.enter_context(self.steps.resident(validation, "test"))
            history = self.history = History()
            called = CallbackList(callbacks, [history, *reports(verbose, callbacks)])
            opened.callback(called.close)
            training.Trainer(self, dataset, validation, arguments, called).fit()
        return history

    @property
    def fixed_batch_size(self) -> int | None:
        """The batch size of the inputs, None if it may be any."""
        shapes = self.signature.inputs.leaves(self.input_shape)
        return next((shape[0] for shape in shapes if shape and shape[0] is not None), None)

    def _batch_size(self, given: int | None, name: str = "batch_size") -> int:
        """Return the batch size that the user chooses, or the default; raise if it does not fit."""
        fixed = self.fixed_batch_size
        if given is None:
            return fixed or 32
        if fixed not in (None, check_count(given, name)):
            raise ValueError(f"{name}={given} does not fit: {about_fixed(fixed)}.")
        return given

    def _check_samples(self, dataset: Dataset) -> None:
        """Raise ``ValueError`` if rows cannot be divided into batches of the size of the inputs."""
        fixed = self.fixed_batch_size
        if fixed is not None and isinstance(dataset, RowDataset) and len(dataset) % fixed:
            raise ValueError(
                f"{len(dataset)} samples cannot be divided into batches of {fixed}: "
                f"{about_fixed(fixed)}."
            )

    def check_batch(self, count: int) -> None:
        """Raise ``ValueError`` if a batch does not have the size of the inputs."""
        fixed = self.fixed_batch_size
        if fixed not in (None, count):
            raise ValueError(f"the batch has {count} samples: {about_fixed(fixed)}.")

    def _one_batch(self, dataset: Any) -> Batch:
        batch: Batch = dataset.as_batch()
        self.check_batch(len(dataset))
        return batch

    @takes_keras_names
    def evaluate(
        self,
        X: Data,
        y: Data | None = None,
        batch_size: int | None = None,
        verbose: int | str = 0,
        sample_weight: Data | None = None,
        steps: int | None = None,
        return_dict: bool = False,
        mask: Data | None = None,
        lengths: Data | None = None,
        callbacks: Sequence[Callback] = (),
        tbptt: int | None = None,
    ) -> float | list[float] | dict[str, float]:
        """Return the loss, or [loss, metrics...] if there are metrics, over all of the data.

        X and y are the same as for `fit`; `steps` is the number of batches to evaluate; `verbose`
        shows a progress bar (1) or prints a line (2). The model is not changed. With `return_dict`,
        a dictionary of results by name is returned. The hooks of `callbacks` whose names begin with
        ``on_test`` are called. `tbptt` divides each batch into windows of this many steps and
        passes states from window to window: the result is the same, and the memory does not depend
        on the length of the sequences. Only the penalties of an `activity_regularizer` are averaged
        over the windows.
        """
        batch_size = self._batch_size(batch_size)
        steps, tbptt = check_optional_count(steps, "steps"), check_optional_count(tbptt, "tbptt")
        verbose, callbacks = check_verbose(verbose), check_callbacks(callbacks)
        announce, called = verbose > 0, CallbackList(callbacks, reports(verbose, callbacks))
        with ExitStack() as opened:
            opened.enter_context(distributed.current().together())
            adapter = Adapter(self, announce=announce)
            dataset = adapter.dataset(X, y, sample_weight, mask, lengths)
            opened.callback(dataset.close)
            opened.callback(called.close)
            self._check_samples(dataset)
            called.set_up(self, training.data_params(dataset, batch_size, steps))
            if tbptt is not None:
                check_windows(self, dataset.first_batch(batch_size))
            totals = training.evaluate(self, dataset, batch_size, called, steps, tbptt, announce)
        return report(totals, return_dict)

    @takes_keras_names
    def predict(
        self,
        X: Data,
        batch_size: int | None = None,
        verbose: int | str = 0,
        steps: int | None = None,
        mask: Data | None = None,
        lengths: Data | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> np.ndarray | list | dict[str, Any]:
        """Return the outputs for inputs, (samples, ...).

        X is the same as for `fit`; a batch of a stream is x, or a tuple whose first item is x.
        `steps` is the number of batches. For sequences of different lengths and an output at every
        step, the result is a list of arrays (time, ...), in the order of the sequences. Several
        outputs are a list, or a dictionary if the model was made with one. The hooks
        of `callbacks` whose names begin with ``on_predict`` are called; ``logs["outputs"]`` are the
        outputs of a batch.
        """
        batch_size = self._batch_size(batch_size)
        steps = check_optional_count(steps, "steps")
        verbose, callbacks = check_verbose(verbose), check_callbacks(callbacks)
        announce, called = verbose > 0, CallbackList(callbacks, reports(verbose, callbacks))
        with ExitStack() as opened:
            opened.enter_context(distributed.current().together())
            adapter = Adapter(self, announce=announce, targets=False)
            dataset = adapter.dataset(X, mask=mask, lengths=lengths)
            opened.callback(dataset.close)
            opened.callback(called.close)
            self._check_samples(dataset)
            called.set_up(self, training.data_params(dataset, batch_size, steps))
            found = training.predict(self, dataset, batch_size, called, steps, announce)
        return self.signature.outputs.as_declared(found)

    @takes_keras_names
    def train_on_batch(
        self,
        X: Data,
        y: Data | None = None,
        sample_weight: Data | None = None,
        return_dict: bool = False,
        mask: Data | None = None,
        lengths: Data | None = None,
    ) -> float | list[float] | dict[str, float]:
        """Make one update; return the loss and metrics before the update, as `evaluate` does."""
        with distributed.current().together():
            batch = self._one_batch(Adapter(self).dataset(X, y, sample_weight, mask, lengths))
            result, norms = self.steps.train(batch), GradientNorms()
            norms.add(result.joint_norm, result.gradient_norms, result.trained)
            self.gradient_norms = norms
            if not result.finite:
                raise training.numerical_error(self, result, "train_on_batch")
        return report(Totals(self.objectives, result.sums), return_dict)

    @takes_keras_names
    def test_on_batch(
        self,
        X: Data,
        y: Data | None = None,
        sample_weight: Data | None = None,
        return_dict: bool = False,
        mask: Data | None = None,
        lengths: Data | None = None,
    ) -> float | list[float] | dict[str, float]:
        """Return the loss and metrics of one batch, as `evaluate` does."""
        with distributed.current().together():
            batch = self._one_batch(Adapter(self).dataset(X, y, sample_weight, mask, lengths))
            result = self.steps.test(batch)
        return report(Totals(self.objectives, result.sums), return_dict)

    @takes_keras_names
    def predict_on_batch(
        self, X: Data, mask: Data | None = None, lengths: Data | None = None
    ) -> np.ndarray | list | dict[str, Any]:
        """Return the outputs for one batch, as `predict` does."""
        with distributed.current().together():
            dataset = Adapter(self, targets=False).dataset(X, mask=mask, lengths=lengths)
            found = dataset.join([self.steps.predict(self._one_batch(dataset)).output])
        return self.signature.outputs.as_declared(found)

    def step(self, X: Data, states: Sequence[ArrayLike] | None = None) -> tuple[Any, list]:
        """Compute one time step by hand: for control loops, games and streams.

        The cost of a step does not depend on the number of earlier steps. Nothing of the model is
        changed; the states are in the hands of the caller.

        Parameters
        ----------
        X : array, or several as for `predict`
            One step of each sequence: ``(batch, features)``, or ``(batch,)`` whole numbers. Of
            several inputs, those without time are given whole.
        states : list of array (batch, size), optional
            What the last step returned: the states of the recurrent layers, in order. By default
            the initial states.

        Returns
        -------
        output : array, or several
            As `predict` returns it, without the axis of time.
        states : list of array (batch, size)

        Raises
        ------
        ValueError
            If the model is not built, a layer needs the whole sequence, or a shape does not fit.

        Examples
        --------
        >>> import numpy as np, seqnet
        >>> from seqnet.layers import GRU, Dense
        >>> model = seqnet.Model([GRU(8), Dense(1)])
        >>> model.build((None, None, 2))
        >>> position, states = np.array([[0.5, 0.0]]), None
        >>> for _ in range(10):
        ...     force, states = model.step(position, states)
        ...     position = position + 0.1 * np.concatenate([position[:, 1:], force], axis=1)
        >>> force.shape, [state.shape for state in states]
        ((1, 1), [(1, 8)])
        """
        return OneStep.of(self)(X, states)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary that travels with the model; it is a part of `metadata`."""
        found = self.metadata.get("vocabulary")
        if not isinstance(found, Mapping):
            return None
        return VOCABULARIES[found["class"]](**found["config"])

    @vocabulary.setter
    def vocabulary(self, vocabulary: Vocabulary | None) -> None:
        if vocabulary is None:
            self.metadata.pop("vocabulary", None)
            return
        name = type(vocabulary).__name__
        if VOCABULARIES.get(name) is not type(vocabulary):
            raise TypeError(
                f"A vocabulary is one of seqnet.text.{', '.join(VOCABULARIES)}; got {vocabulary!r}."
            )
        self.metadata["vocabulary"] = {"class": name, "config": vocabulary.get_config()}

    def generate(
        self,
        prime: Any,
        length: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Any = None,
        seed: int | Sequence[int] | None = None,
        stream: bool = False,
        log_probabilities: bool = False,
        allowed: Allowed | None = None,
    ) -> Any:
        """Generate what follows the start of a text, or of several texts side by side.

        The model maps numbers to the probabilities of the next number, with a softmax at the end.
        States are carried from step to step, so the cost of a number does not depend on how many
        were generated before. The states of stateful layers are neither used nor changed. If all
        operations of a step are compiled kernels, many steps are one call; otherwise each runs in
        Python, and a message of the logger ``seqnet`` says why once.

        Parameters
        ----------
        prime : text, numbers, or a list of these
            The start of the sequence, at least one symbol. Text needs a `vocabulary`; for a
            vocabulary of words it is a list of words. The sequences of a list may have different
            lengths.
        length : int
            How many symbols to generate, if `stop` does not come before.
        temperature : float
            Divides the logarithms of the probabilities; 0 selects the most probable symbol.
        top_k : int, optional
            Draw only from the k most probable symbols.
        top_p : float, optional
            Draw only from the most probable symbols whose total probability reaches this value
            (Holtzman et al., 2020).
        stop : text, number or sequence of numbers, optional
            Stop after this was generated.
        seed : int, or one for each sequence, optional
            For reproducible results. Each sequence has random numbers of its own. They depend on
            its seed alone: with a list of seeds a sequence is the same as without the others. With
            a single seed they depend on the place in the list, too.
        stream : bool
            Return an iterator, which gives each symbol as soon as it is there. Do not train the
            model before it is finished.
        log_probabilities : bool
            Return the logarithm of the probability of each symbol, too, as the model computes it:
            before the effect of `temperature`, `top_k`, `top_p` and `allowed`.
        allowed : function, optional
            ``allowed(numbers)`` takes the numbers of a sequence so far, with those of the prime,
            and returns a bool array (classes,) of the numbers that may follow. It is called at each
            step, which costs time.

        Returns
        -------
        text, or int64 array (steps,)
            What follows the prime: text (or a list of words) if the prime is text. For a list of
            primes a list. With `log_probabilities` a tuple of this and of float64 array (steps,),
            or a list of such arrays.
        iterator
            With `stream`: of symbols, or of lists with a symbol of each sequence, None after its
            end. With `log_probabilities` of tuples of these and the logarithms.

        Raises
        ------
        ValueError, TypeError
            Before anything is compiled, if an argument is invalid, a symbol of the prime is not in
            the vocabulary, or a layer needs the whole sequence. With the first symbol, if the
            outputs of the model are no probabilities.

        Examples
        --------
        >>> import seqnet
        >>> from seqnet.layers import Dense, Embedding, LSTM
        >>> vocabulary = seqnet.text.CharacterVocabulary.of("hello world")
        >>> model = seqnet.Model([Embedding(len(vocabulary), 3), LSTM(4, return_sequences=True),
        ...                       Dense(len(vocabulary), activation="softmax")])
        >>> model.build((None, None))
        >>> model.vocabulary = vocabulary
        >>> len(model.generate("hell", 10, seed=0))
        10
        >>> [len(text) for text in model.generate(["he", "wor"], 5, top_k=3, seed=[1, 2])]
        [5, 5]
        >>> "".join(model.generate("hell", 10, seed=0, stream=True)) == model.generate(
        ...     "hell", 10, seed=0)
        True
        """
        check_bool(stream, "stream")
        options = temperature, top_k, top_p, stop, seed, allowed, log_probabilities
        generation = prepare(self, prime, length, *options)
        return generation.stream() if stream else generation.whole()

    # ---- files

    def get_config(self) -> dict[str, Any]:
        """Return the layers and how they are connected, as values that JSON can hold.

        `from_config` makes a model of it, with new weights. Losses, metrics and the optimizer are
        not part of it; `save` stores everything.

        Raises
        ------
        ValueError
            If a part cannot be written, such as a function without a name.
        """
        return config_of(self)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Model:
        """Create a model with new weights from the result of `get_config`.

        Parameters
        ----------
        config : dict
        custom_objects : dict, optional
            Custom layers and functions by name; see `load_model`.

        Examples
        --------
        >>> import seqnet
        >>> from seqnet.layers import Dense
        >>> model = seqnet.Model([Dense(2, input_shape=(3,))])
        >>> again = seqnet.Model.from_config(model.get_config())
        >>> again.get_config() == model.get_config()
        True
        """
        model = cls()
        restore(model, dict(config), None if custom_objects is None else dict(custom_objects))
        return model

    def to_json(self, **options: Any) -> str:
        """Return `get_config` as text; `options` are those of `json.dumps`.

        `seqnet.model_from_json` makes a model of it.
        """
        return json.dumps(self.get_config(), **options)

    def save(self, path: str | os.PathLike, overwrite: bool = True) -> None:
        """Save the model to an HDF5 file: layers, weights, metadata, and the state of training.

        A temporary file is written and renamed, so that a failure does not change an existing file.
        The next update of a model that is loaded from the file equals the next update of this
        model.

        Parameters
        ----------
        path : path
        overwrite : bool
            False makes an existing file an error.

        Raises
        ------
        ValueError, TypeError
            If a part of the model cannot be saved, such as a function without a name; nothing is
            written.
        OSError
            If the file cannot be written: the disk is full, the folder is missing, or the file is
            read-only.
        """
        self._built_weights("save")
        check_new(path, overwrite)
        with self.lock:  # held while the file is written, so that no copy of the weights is needed
            hdf5.write(path, *pack(self))

    def save_weights(self, path: str | os.PathLike, overwrite: bool = True) -> None:
        """Save the weights to an HDF5 file atomically, each under the name ``layer/weight``.

        `overwrite` as for `save`.
        """
        self._built_weights("save")
        check_new(path, overwrite)
        with self.lock:
            arrays = {f"weights/{name}": value for name, value in self._weights_by_name().items()}
            hdf5.write(path, {"kind": "weights"}, arrays)

    def load_weights(self, path: str | os.PathLike, skip_mismatch: bool = False) -> None:
        """Set the weights from a file of `save_weights` or `Model.save`, by name.

        Parameters
        ----------
        path : path
        skip_mismatch : bool
            Set only the weights that the file has with the same name and shape, and log the names
            of the others, which are not changed.

        Raises
        ------
        ValueError
            If the file cannot be read, or does not have exactly the weights of this model: the
            message names the layer and the shapes. No weight is changed then.
        """
        self._built_weights("load")
        skip_mismatch = check_bool(skip_mismatch, "skip_mismatch")
        _, arrays = hdf5.read(path)
        with self.lock:
            found = hdf5.below("weights", arrays)
            if skip_mismatch:
                found = self._fitting(found, path)
            self._load_weights(found, path)

    def _fitting(
        self, arrays: Mapping[str, np.ndarray], source: str | os.PathLike
    ) -> dict[str, np.ndarray]:
        """Return the weights of this model, replaced by those arrays that fit."""
        own = self._weights_by_name()
        fits = {n for n, value in own.items() if n in arrays and arrays[n].shape == value.shape}
        skipped = sorted({*own, *arrays} - fits)
        if skipped:
            log.warning("Not set from %s: %s.", source, ", ".join(skipped))
        return {name: arrays[name] if name in fits else value for name, value in own.items()}

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """Return everything that determines how training of the model continues.

        Returns
        -------
        dict
            ``weights`` by name, ``states`` that layers carry, by ``run/layer/state``, the states of
            the random ``generators``, which layers are ``trainable``, their ``hyperparameters``,
            and the state of the ``optimizer``. The weights are not copied.
        """
        states = {
            f"{run}/{layer}/{name}": value
            for layer, carried in named_states(self.layers)
            for run in RUNS
            for name, value in zip(carried.names, carried.get(run), strict=True)
            if len(value)
        }
        return {
            "weights": self._weights_by_name(),
            "states": states,
            "generators": [g.get_value().bit_generator.state for g in self._generators()],
            "trainable": [layer.trainable for layer in all_layers(self.layers)],
            "hyperparameters": [
                {name: getattr(layer, name) for name in names_of(layer)}
                for layer in all_layers(self.layers)
            ],
            "optimizer": None if self.optimizer is None else self._optimizer_state(),
        }

    def _optimizer_state(self) -> dict[str, Any]:
        """Return the state of the optimizer, by the names of weights within this model."""
        prefix = self.weight_prefix
        return renamed(self.optimizer.state_dict(), lambda name: name.removeprefix(prefix))

    def load_state_dict(self, state: Mapping[str, Any], source: str = "The state") -> None:
        """Restore what `state_dict` returned, for a model of the same layers and optimizer.

        Parameters
        ----------
        state : mapping
            Missing entries are not changed.
        source : str
            The name of the state in messages.

        Raises
        ------
        ValueError
            If the state does not fit the model.
        """
        if "weights" in state:
            self._load_weights(state["weights"], source)
        if "trainable" in state:
            for layer, trainable in zip(all_layers(self.layers), state["trainable"], strict=True):
                layer.trainable = trainable
        if "hyperparameters" in state:
            pairs = zip(all_layers(self.layers), state["hyperparameters"], strict=True)
            for layer, numbers in pairs:
                for name, value in numbers.items():
                    setattr(layer, name, value)
        if "generators" in state:
            self._load_generators(state["generators"])
        if "states" in state:
            self._load_states(state["states"])
        if state.get("optimizer") is not None:
            slots = renamed(state["optimizer"], lambda name: self.weight_prefix + name)
            self.optimizer.load_state_dict(slots, self.weights)

    def _weights_by_name(self) -> dict[str, np.ndarray]:
        names = [self.name_of(weight) for weight in self.weights]
        arrays = {
            name: w.get_value(borrow=True) for name, w in zip(names, self.weights, strict=True)
        }
        if len(arrays) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(
                f"Two weights of the model have the same name ({', '.join(twice)}), and a file "
                "holds one of each name. Give the layers other names."
            )
        return arrays

    def name_of(self, weight: Any) -> str:
        """Return the name of a weight within this model, ``layer/weight``."""
        return str(weight.name).removeprefix(self.weight_prefix)

    def _load_weights(self, arrays: Mapping[str, np.ndarray], source: str | os.PathLike) -> None:
        left = dict(arrays)
        owners = {
            weight: f"layer {layer.name!r} ({type(layer).__name__})"
            for layer in self.layers
            for weight in layer.weights
        }
        for weight in self.weights:
            name = self.name_of(weight)
            value = left.pop(name, None)
            where = f"{source} does not fit the model: {owners.get(weight, 'its graph')}"
            if value is None:
                raise ValueError(f"{where} has the weight {name}, which the file lacks.")
            expected = weight.get_value(borrow=True).shape
            if value.shape != expected:
                raise ValueError(
                    f"{where} has the weight {name} of shape {expected}, but the file's "
                    f"has shape {value.shape}."
                )
            if value.dtype.kind not in "fiu":
                raise ValueError(f"{where}, but {name} in the file has bools, not numbers.")
        if left:
            raise ValueError(
                f"{source} does not fit the model: it also has {', '.join(sorted(left))}, which no "
                "layer of the model has."
            )
        for weight in self.weights:
            weight.set_value(np.asarray(arrays[self.name_of(weight)], dtype=weight.dtype))

    def _generators(self) -> list:
        return [g for layer in self.layers for g in layer.generators]

    def _load_generators(self, states: Sequence[dict]) -> None:
        generators = self._generators()
        if len(states) != len(generators):
            raise ValueError(
                f"The layers have {len(generators)} random generators, but there are states of "
                f"{len(states)}."
            )
        for generator, state in zip(generators, states, strict=True):
            value = generator.get_value()
            value.bit_generator.state = state
            if value.bit_generator.state != state:
                raise ValueError("The state of a random generator is invalid.")
            generator.set_value(value)

    def _load_states(self, arrays: Mapping[str, np.ndarray]) -> None:
        left = dict(arrays)
        for layer, carried in named_states(self.layers):
            carried.reset()
            for run in RUNS:
                names = [f"{run}/{layer}/{name}" for name in carried.names]
                if any(name in left for name in names):
                    carried.set([left.pop(name) for name in names], run)
        if left:
            raise ValueError(f"There are states that no layer has: {', '.join(sorted(left))}.")


Sequential = Model
"""Another name of `Model`, for stacks of layers as in Keras."""


def check_new(path: str | os.PathLike, overwrite: bool) -> None:
    """Raise if a file is there and must not be replaced."""
    if not check_bool(overwrite, "overwrite") and os.path.exists(path):
        raise FileExistsError(
            f"{os.fspath(path)!r} exists, and overwrite=False keeps it. Save under another name."
        )


def name_layers(layers: Sequence[Layer]) -> None:
    """Name the layers of a model that have no name; raise if two have the same."""
    taken: set[str] = set()
    for layer in layers:
        if layer.name is not None and layer.name in taken:
            raise ValueError(
                f"This model already has a layer named {layer.name!r}. Layers of two models may "
                "have been named alike: pass name= when you make them."
            )
        taken |= set() if layer.name is None else {layer.name}
    for place, layer in enumerate(layers):
        if layer.name is not None:
            continue
        base = layer.display_name
        number = sum(type(other) is type(layer) for other in layers[:place])
        name = base if not number else f"{base}_{number}"
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        layer.rename(name)
        taken.add(name)


def renamed(state: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    """Return the state of an optimizer with other names of the weights."""
    tables = {
        slot: {rename(name): value for name, value in table.items()}
        for slot, table in state["slots"].items()
    }
    last = {rename(name): value for name, value in state.get("last_steps", {}).items()}
    return {**state, "slots": tables, "last_steps": last}


def report(totals: Totals, return_dict: bool) -> float | list[float] | dict[str, float]:
    """Return the loss, [loss, metrics...], or a dictionary of all results by name."""
    logs = totals.logs()
    if return_dict:
        return logs
    values = list(logs.values())
    return values if len(values) > 1 else values[0]


def about_fixed(size: int | None) -> str:
    """Return why batches have one size, and what to do."""
    return (
        f"the model was made for batches of {size} (batch_size= or batch_shape= of an Input or of "
        "the first layer); leave it out, or give None, for batches of any size"
    )


def inform(message: str, announce: bool) -> None:
    """Log a message, and print it if `announce` is True."""
    log.info(message)
    if announce:
        say(message)


def load_model(path: str | os.PathLike, custom_objects: dict | None = None) -> Model:
    """Load a model that was saved with `Model.save`, ready for prediction and training.

    Parameters
    ----------
    path : path
    custom_objects : dict, optional
        Custom layers, losses and so on by name. Code is never loaded from a file: all names must be
        known to seqnet or be passed here.

    Raises
    ------
    ValueError
        If the file does not contain a model, was damaged, truncated or changed by another program
        after it was saved, or has an unknown name. The message names the file.

    Examples
    --------
    >>> import os, tempfile, seqnet
    >>> model = seqnet.Model([seqnet.layers.Dense(2, input_shape=(3,))])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.h5")
    ...     model.save(path)
    ...     again = seqnet.load_model(path)
    >>> [w.shape for w in again.get_weights()]
    [(3, 2), (2,)]
    """
    header, arrays = hdf5.read(path)
    return unpack(Model(), header, arrays, path, custom_objects)


def model_from_json(text: str, custom_objects: dict | None = None) -> Model:
    """Return a model with new weights from the text of `Model.to_json`.

    Parameters
    ----------
    text : str
    custom_objects : dict, optional
        Custom layers and functions by name; see `load_model`.

    Examples
    --------
    >>> import seqnet
    >>> from seqnet.layers import LSTM, Dense
    >>> x = seqnet.Input((None, 3), name="x")
    >>> model = seqnet.Model(x, Dense(2)(LSTM(4)(x)))
    >>> seqnet.model_from_json(model.to_json()).input_names
    ('x',)
    """
    return Model.from_config(json.loads(text), custom_objects)


def clone_model(model: Model) -> Model:
    """Return a model of the same layers and connections, with new layers and new weights.

    Examples
    --------
    >>> import seqnet
    >>> model = seqnet.Model([seqnet.layers.Dense(2, input_shape=(3,))])
    >>> copy = seqnet.clone_model(model)
    >>> copy.set_weights(model.get_weights())
    """
    known = {thing.__name__: thing for thing in own_things(list(all_layers(model.layers)))}
    return type(model).from_config(model.get_config(), known)

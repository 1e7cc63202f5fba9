"""The base of all layers: named weights and a symbolic function of the inputs.

A layer is used in two ways. A `Model` stacks layers and calls them while it compiles. And since a
layer called on a PyTensor variable returns a PyTensor variable, any layer also works alone, inside
any other PyTensor graph.
"""

from __future__ import annotations

import functools
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytensor
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.tensor.sharedvar import TensorSharedVariable

from seqnet import config, constraints, regularizers
from seqnet.common.checks import check_bool, check_count, check_finite, check_shape
from seqnet.common.hyperparameters import Versioned, numbers_of
from seqnet.common.types import ArrayLike, Shape, Tensor
from seqnet.layers.calling import (
    Masks,
    Shapes,
    Tensors,
    add_activity_loss,
    argument_masks,
    argument_shapes,
    bind_arguments,
    bool_masks,
    call_layer,
    check_masks,
    check_several,
    completed,
    items_of,
    output_masks,
    shapes_of,
    taken_shapes,
    trial_output,
    why_missing,
)
from seqnet.layers.context import CallContext
from seqnet.layers.evaluation import evaluate, holds_variables
from seqnet.layers.symbolic import depends_on_input, record, slots_of
from seqnet.layers.weights import check_values, first_value, set_values
from seqnet.registry import Configurable, Identifier, refuse_arguments
from seqnet.regularizers import penalty


class Layer(Versioned, Configurable):
    """The base class of layers.

    Subclasses implement `call`, and where needed `build` (make weights), `compute_output_shape`,
    `compute_mask` and `check_input`; `input_axes` names the axes that their inputs must have. A
    layer that holds other layers as attributes, or in lists, trains and saves their weights too.

    Parameters
    ----------
    name : str, optional
        Unique within a model; a model names layers without a name.
    input_shape : tuple, optional
        Shape of one example, without the batch; only for the first layer of a model, and only
        if the model needs weights before it has seen data.
    dtype : str, optional
        ``"float32"``, ``"float64"`` or ``"mixed_bfloat16"``, whose weights are float32 and whose
        matrix products have operands that are rounded to bfloat16; by default
        `seqnet.config.dtype_policy()`.
    trainable : bool
        Whether training changes the weights.
    activity_regularizer : str, Regularizer or function, optional
        A function of the output that returns a number, which is divided by the number of examples
        in the batch and added to the loss (as in Keras 3). Masked steps enter as zeros.
    batch_size : int, optional
        The number of examples, if `input_shape` is given and it is fixed.
    weights : list of array, or array, optional
        The first values of the weights, in the order of `get_weights`, such as ``[matrix]`` for an
        `Embedding`. They are not part of `get_config`.

    Notes
    -----
    As in Keras, ``batch_input_shape`` stands for `batch_size` and `input_shape`, and ``input_dim``
    and ``input_length`` for the sizes of `input_shape`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> class Scale(seqnet.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight("scale", (input_shape[-1],), "ones")
    ...     def call(self, inputs):
    ...         return inputs * self.scale
    ...
    >>> Scale()(np.array([[1.0, 2.0]])).tolist()
    [[1.0, 2.0]]
    >>> model = seqnet.Model([Scale(), seqnet.layers.Dense(1)])
    >>> model.predict(np.ones((3, 2))).shape
    (3, 1)
    """

    # Subclasses set the following attributes, or compute them as properties.

    input_axes: tuple[str, ...] = ()
    """Names of the axes that an input must have, the batch first; empty is any number of axes."""

    integer_input: bool = False
    """Whether the inputs are integers, such as class numbers."""

    takes_several_inputs: bool | None = None
    """Whether the layer is called on a list of inputs (True) or on one (False); None allows both,
    unless `input_axes` says that there is one."""

    needs_length: bool = False
    """Whether the number of steps must be known when a graph is built."""

    reverses_time: bool = False
    """Whether the steps of the output are in the reverse order of those of the input."""

    non_causal: str = ""
    """Why the layer cannot run step by step ("runs backwards"); empty if it can."""

    supports_masking: bool = True
    """Whether the layer accepts a mask: each step of its output corresponds to the same step of its
    input, or the layer uses the mask."""

    stateful: bool = False
    """Whether the layer carries states from batch to batch."""

    passes_time_on: bool = True
    """Whether the steps of inner layers are the steps of this one; False if they see each step as
    a row of its own, as in `TimeDistributed`."""

    has_multiple_outputs: bool = False
    """Whether a call returns a list, which the next layer of a model cannot take."""

    sequence_generators: Sequence[SharedVariable] = ()
    """Those of the generators from which one mask is drawn for each sequence."""

    def __init__(
        self,
        name: str | None = None,
        input_shape: Shape | None = None,
        dtype: str | None = None,
        trainable: bool = True,
        activity_regularizer: Identifier | None = None,
        batch_size: int | None = None,
        weights: Sequence[ArrayLike] | None = None,
        **unknown: Any,
    ):
        refuse_arguments(type(self), unknown)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"The name of a layer is text, got {name!r}.")
        self.name = name
        self.input_shape = None if input_shape is None else check_shape(input_shape, "input_shape")
        self.batch_size = None if batch_size is None else check_count(batch_size, "batch_size")
        self.dtype_policy = (
            config.dtype_policy() if dtype is None else config.check_dtype_policy(dtype)
        )
        is_mixed = self.dtype_policy == config.MIXED
        self.dtype = "float32" if is_mixed else self.dtype_policy
        self._trainable = check_bool(trainable, "trainable")
        self.activity_regularizer = regularizers.get(activity_regularizer)
        self.built = False
        self._is_building = False
        self._recorded: tuple[Any, Any] | None = None
        self._held: tuple[Layer, ...] = ()
        self._first_weights = [weights] if isinstance(weights, np.ndarray) else weights
        self.weights: list[TensorSharedVariable] = []
        self._fixed: list[TensorSharedVariable] = []
        self.penalties: list[tuple[Callable, TensorSharedVariable]] = []
        self._generators: list[SharedVariable] = []
        self.features: int | None = None

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if "build" in vars(cls):
            cls.build = building(cls.build)  # type: ignore[method-assign]
        if "call" in vars(cls):
            cls.call = completed(cls.call)  # type: ignore[method-assign]

    @classmethod
    def parameters(cls) -> list[str]:
        return [name for name in super().parameters() if name != "weights"]

    @classmethod
    def accepted_arguments(cls, options: dict[str, Any]) -> dict[str, Any]:
        return super().accepted_arguments(with_input_shape(cls, options))

    # ---- for subclasses to define

    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs of ``(batch, ...)`` shape.

        A subclass defines what is done once, at the first call. Users may call it before that.

        Several inputs have a list of shapes. The shapes of further arguments of `call` that are
        variables are passed too, if `build` takes them as ``<argument>_shape``.
        """

    @abstractmethod
    def call(self, inputs: Any, *arguments: Any, **options: Any) -> Tensor | list[Tensor]:
        """Return the symbolic output for symbolic inputs.

        A subclass's `call` takes the inputs and those of `mask`, `context` and `training` that it
        needs, by these names: ``call(self, inputs)`` and ``call(self, inputs, training=None)`` are
        enough. If plain numbers or float64 arrays make the output float64, it is cast to the
        dtype of the layer.

        `mask` is (batch, time) bool, True where there is data, or None. With several axes of
        steps, such as sentences of words, it may have several too: (batch, sentences, words).

        A layer that is called on a list, ``layer([a, b])``, gets a list of inputs, and a list of
        masks or None. `call` may have further arguments, which are passed where the layer is
        called, such as ``call(self, query, value, query_mask=None, value_mask=None)``. The mask of
        each that is a variable is passed as ``<argument>_mask``, if `call` takes that.
        """

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the output's shape, the batch and unknown sizes as None.

        Several inputs have a list of shapes, several outputs too. By default the shape is found by
        applying the layer to variables of the inputs' shapes. The further arguments of a call are
        passed too, if this method takes them: as ``<argument>_shape`` for a variable, and by their
        own name otherwise.
        """
        output = trial_output(self, input_shape, CallContext())
        return shapes_of(output)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return the mask of the output, or a list of one mask or None for each of several outputs.

        `inputs` and `mask` are lists if the layer is called on a list. By default the output has
        the mask of the input, of several inputs that of the first.
        """
        return items_of(mask)[0]

    def known_mask(self, values: np.ndarray) -> np.ndarray | None:
        """Return the mask that this layer, as the first one, finds in an array; None if none.

        The first axes of the values are steps, the last one their features, if any.
        """
        return None

    def why_not_stepwise(self, varies: Any, options: Mapping[str, Any]) -> str:
        """Return why a call cannot run one time step at a time; empty if it can.

        By default this is `non_causal`. Layers of which it depends on the inputs override this.

        Parameters
        ----------
        varies : bool, or a list or dictionary of them
            Which inputs are sequences of which one step is given at a time. The others are given
            as a whole.
        options : dict
            Further arguments of `call` by name, with such a bool for each variable.
        """
        return self.non_causal

    def consumers(self, places: Any) -> dict[int, list[Layer]]:
        """Return the layers that take each input of a recorded call, by the number of its place.

        That is this layer; a model has others.

        Parameters
        ----------
        places
            The first argument of the call, with a `Slot` for each variable.
        """
        return {slot.index: [self] for slot in slots_of(places)}

    def check_input(self, values: np.ndarray, name: str) -> None:
        """Raise if an array cannot be the input of this layer (first layers only)."""
        if values.dtype.kind not in "fiub":
            raise TypeError(f"{name} must hold numbers, got the dtype {values.dtype}.")
        check_finite(
            values,
            name,
            " Clean the data, or mark padding with a Masking layer and a finite mask_value.",
        )

    # ---- for subclasses to use

    def add_weight(
        self,
        name: str | None = None,
        shape: tuple[int, ...] = (),
        initializer: Identifier = "glorot_uniform",
        *,
        regularizer: Identifier | None = None,
        trainable: bool = True,
        constraint: Identifier | None = None,
    ) -> TensorSharedVariable:
        """Create and register a weight; return its shared variable.

        Parameters
        ----------
        name : str, optional
            By default ``"weight"``, ``"weight_1"`` and so on.
        shape : tuple of int
            By default one number.
        initializer : str, Initializer or function
            By default that of Keras 3. A function gets the shape, and dtype and rng if it has
            arguments of these names.
        regularizer : str, Regularizer or function, optional
            A function of the weight that returns a number, which is added to the loss.
        trainable : bool
            False for a weight that optimizers do not change, such as a moving average. The layer
            itself gives its next values: see `CallContext.assign`.
        constraint : str, Constraint or function, optional
            A function of the weight that returns its allowed value, applied after each update.
        """
        if name is None:
            taken = [str(weight.name) for weight in self.weights]
            name = new_name("weight", [n.removeprefix(f"{self.display_name}/") for n in taken])
        if not isinstance(name, str):
            raise TypeError(
                f"add_weight takes the name of a weight first, which is text, got {name!r}. Pass "
                "the others by name: add_weight(shape=(8,), initializer='ones')."
            )
        full_name, sizes = f"{self.display_name}/{name}", check_shape(shape, f"The shape of {name}")
        value, is_given = first_value(full_name, sizes, self.dtype, initializer)
        # A size of one is left unknown: PyTensor would mark the axis as broadcastable, and a single
        # unit, step or class would have another type than several.
        static = tuple(None if size == 1 else size for size in sizes)
        weight = pytensor.shared(value, name=full_name, shape=static, borrow=is_given)
        self.weights.append(weight)
        if not check_bool(trainable, f"trainable of the weight {name}"):
            self._fixed.append(weight)
        penalty = regularizers.get(regularizer)
        if penalty is not None:
            self.penalties.append((penalty, weight))
        weight.tag.constraint = constraints.get(constraint)
        return weight

    def add_generator(self) -> SharedVariable:
        """Create and register a shared random generator, seeded by `next_seed`."""
        name = f"{self.display_name}/generator"
        generator = pytensor.shared(np.random.default_rng(self.next_seed()), name=name)
        self._generators.append(generator)
        return generator

    def next_seed(self) -> int | list[int]:
        """Return the seed of a new generator, from seqnet's random source."""
        return int(config.random_generator().integers(2**63))

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights; setting it also sets it for inner layers."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = check_bool(value, "trainable")
        for layer in self.inner_layers:
            layer.trainable = self._trainable

    @property
    def inner_layers(self) -> tuple[Layer, ...]:
        """The layers that this one holds."""
        return self._held if self.built else tuple(self.held_layers().values())

    def held_layers(self) -> dict[str, Layer]:
        """Return the layers among the attributes, and in lists of attributes, by name.

        A model is a layer, too.
        """
        found = {}
        for name, value in vars(self).items():
            if name == "_held":
                continue
            several = isinstance(value, (list, tuple))
            named = {f"{name}_{k}": v for k, v in enumerate(value)} if several else {name: value}
            layers = {key: as_layer(item) for key, item in named.items()}
            found.update({key: item for key, item in layers.items() if isinstance(item, Layer)})
        return found

    def trained(self) -> list[bool]:
        """Return for each weight whether training changes it."""
        frozen = {id(weight) for weight in self._fixed}
        for layer in self.inner_layers:
            kept = zip(layer.weights, layer.trained(), strict=True)
            frozen |= {id(weight) for weight, on in kept if not on}
        return [self.trainable and id(weight) not in frozen for weight in self.weights]

    @property
    def trainable_weights(self) -> list[TensorSharedVariable]:
        """The weights that training changes."""
        return [w for w, on in zip(self.weights, self.trained(), strict=True) if on]

    @property
    def non_trainable_weights(self) -> list[TensorSharedVariable]:
        """The weights that optimizers do not change."""
        return [w for w, on in zip(self.weights, self.trained(), strict=True) if not on]

    @property
    def losses(self) -> list[Tensor]:
        """The penalties of the weights, one symbolic number for each."""
        return [
            penalty(function, weight, f"the weight {weight.name}")
            for function, weight in self.penalties
        ]

    def _last_call(self) -> tuple[Any, Any]:
        if self._recorded is None:
            raise ValueError(
                f"Layer {self.display_name!r} ({type(self).__name__}) was not called on a "
                "seqnet.Input, so it has no symbolic input or output."
            )
        return self._recorded

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: no variables of graphs, and no compiled functions."""
        kept = {name: value for name, value in vars(self).items() if name != "_functions"}
        return kept | {"_recorded": None}

    @property
    def generators(self) -> list[SharedVariable]:
        """The random generators of this layer and of its inner layers."""
        return [*self._generators, *(g for layer in self.inner_layers for g in layer.generators)]

    def structure(self) -> tuple:
        """Return which hyperparameters are above 0: graphs may depend on that."""
        own = [bool(v.get_value(borrow=True)) for v in numbers_of(self).values()]
        return (*own, *[layer.structure() for layer in self.inner_layers])

    @property
    def display_name(self) -> str:
        """The layer's name, or the default name of its class."""
        return self.name or snake_case(type(self).__name__)

    def ensure_built(self, input_shape: Any, **shapes: Shapes) -> None:
        """Check the shapes of the inputs, and build the layer unless it is built.

        `shapes` has those of further arguments of `call`, as ``<argument>_shape``.
        """
        check_several(self, input_shape)
        self.check_axes(input_shape)
        if self.features is not None and input_shape[-1] not in (None, self.features):
            raise ValueError(
                f"Layer {self.display_name!r} ({type(self).__name__}) was built for "
                f"{self.features} features, but got the shape {input_shape}, whose last axis has "
                f"{input_shape[-1]}."
            )
        if not self.built:
            self._is_building = True
            try:
                self.build(input_shape, **taken_shapes(self.build, shapes))
            finally:
                self._is_building = False
            self.build_held(input_shape, **shapes)
            self.built = True
            if self._first_weights is not None:
                self.set_weights(self._first_weights)
                self._first_weights = None

    def build_held(self, input_shape: Shapes, **shapes: Shapes) -> None:
        """Name and build the inner layers, and register their weights."""
        held = self.held_layers()
        self._held = tuple(held.values())
        unbuilt = {name: layer for name, layer in held.items() if not layer.built}
        if unbuilt:
            for name, layer in unbuilt.items():
                layer.name = f"{self.display_name}/{name}"
            trial_output(self, input_shape, CallContext(), **shapes)
        for name, layer in held.items():
            if not layer.built:
                raise ValueError(
                    f"Layer {self.display_name!r} ({type(self).__name__}) holds the layer {name}, "
                    "but its call does not use it, so that its weights cannot be made."
                )
            self.enter(layer)

    def enter(self, layer: Layer) -> None:
        """Register the weights and penalties of an inner layer."""
        for name in ("weights", "penalties"):
            own = getattr(self, name)
            setattr(self, name, [*own, *(x for x in getattr(layer, name) if x not in own)])

    def check_axes(self, input_shape: Any) -> None:
        """Raise ``ValueError`` if an input does not have the axes of `input_axes`."""
        rank, wanted = len(input_shape), len(self.input_axes)
        if wanted in (0, rank):
            return
        hint = ""
        if (rank, wanted) == (2, 3):
            hint = (
                " Recurrent layers give such an output with return_sequences=True, an Embedding "
                "makes one of integers (batch, time)."
            )
        raise ValueError(
            f"Layer {self.display_name!r} ({type(self).__name__}) takes inputs of rank "
            f"{wanted} ({', '.join(self.input_axes)}), but got the shape {input_shape} of rank "
            f"{rank}.{hint}"
        )

    def masking_hint(self) -> str:
        """Return advice for a layer that cannot carry a mask."""
        return (
            "Put it after a layer that uses the mask up, such as a recurrent layer without "
            "return_sequences."
        )

    def mask_error(self) -> ValueError:
        """Return the error for a mask that the layer cannot carry."""
        return ValueError(
            f"Layer {self.display_name!r} ({type(self).__name__}) cannot carry the mask that "
            f"comes with its input. {self.masking_hint()}"
        )

    def needed_features(self, input_shape: Shape) -> int:
        """Return and store the size of the last axis, on which weights depend."""
        if input_shape[-1] is None:
            raise ValueError(
                f"Layer {self.display_name!r} needs to know the number of features to make its "
                "weights: pass input_shape= to the model's first layer, or call fit or predict "
                "with data first."
            )
        self.features = input_shape[-1]
        return self.features

    # ---- for users to call

    def __call__(
        self,
        inputs: Any = None,
        *others: Any,
        mask: Any = None,
        context: CallContext | None = None,
        training: bool | None = None,
        **options: Any,
    ) -> Tensor | list[Tensor]:
        """Apply the layer to a PyTensor variable, or to several; or to arrays, which give arrays.

        Weights are made at the first call, from the static shapes of the inputs.

        Parameters
        ----------
        inputs : variable or array, or a list, tuple or dictionary of them
            The first argument of the layer's `call`.
        *others, **options
            Further arguments of `call`, such as the ``initial_state`` of a recurrent layer, by
            position or by name. They may be variables or arrays, too.
        mask : bool variable or array, or a list or dictionary of them, optional
            The mask of `inputs`, one for each of several, None for an input without one. The mask
            of a further argument is passed as ``<argument>_mask``.
        context : CallContext, optional
            What this pass decides and collects; by default a new one.
        training : bool, optional
            Whether the layer runs in training mode, if there is no `context`.
        """
        others, mask, options = bool_masks(self, others, mask, options)  # type: ignore[assignment]
        if context is None and not holds_variables((inputs, others, mask, options)):
            training = check_bool(training or False, "training")
            return evaluate(self, inputs, others, mask, options, training)
        inputs, mask, options = bind_arguments(self, inputs, others, mask, options)
        if depends_on_input((inputs, options)):
            output = record(self, inputs, mask, options, training)
            self._recorded = (inputs, output)
            return output
        self.ensure_built(shapes_of(inputs), **argument_shapes(options))
        mask, options = check_masks(self, inputs, mask, options)
        if context is None:
            context = CallContext(training=check_bool(training or False, "training"))
        output = call_layer(self, inputs, mask, context, options)
        if self.activity_regularizer is not None:
            add_activity_loss(self, output, output_masks(self, inputs, mask, output), context)
        return output

    def replay(
        self,
        inputs: Tensors,
        mask: Masks,
        options: Mapping[str, Any],
        option_masks: Mapping[str, Masks],
        context: CallContext,
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Call the layer as a node of a model's graph; return its outputs and their masks.

        Parameters
        ----------
        inputs, mask
            The first argument of `call`, and its mask.
        options, option_masks : dict
            Further arguments, and their masks, by name.
        context : CallContext
        """
        masks = argument_masks(self, option_masks)
        output = self(inputs, mask=mask, context=context, **(masks | dict(options)))
        found = output_masks(self, inputs, mask, output)
        if isinstance(output, list):
            return output, cast(list, found)
        return [output], [cast(Tensor | None, found)]

    @property
    def compute_dtype(self) -> str:
        """The type of the operands of products: ``"bfloat16"`` if the policy is mixed.

        They are rounded to it where they are multiplied; all else has the type `dtype`.
        """
        return "bfloat16" if self.dtype_policy == config.MIXED else self.dtype

    def current_arguments(self) -> dict[str, Any]:
        found = super().current_arguments()
        return found | {"dtype": self.dtype_policy} if "dtype" in found else found

    def rename(self, name: str) -> None:
        """Change the name, also where it begins the names of weights and inner layers."""
        old = f"{self.display_name}/"
        for layer in self.inner_layers:
            if layer.display_name.startswith(old):
                layer.rename(f"{name}/{layer.display_name.removeprefix(old)}")
        self.name = name
        for weight in self.weights:
            if str(weight.name).startswith(old):
                weight.name = f"{name}/{str(weight.name).removeprefix(old)}"

    def get_weights(self) -> list[np.ndarray]:
        """Return copies of the weights, in the order they were made."""
        return [w.get_value() for w in self.weights]

    def set_weights(self, values: Sequence[ArrayLike]) -> None:
        """Set all weights from arrays of the same shapes, in the order of `get_weights`."""
        check_values(self, values)
        set_values(self.weights, values)

    def count_params(self) -> int:
        """Return the number of parameters of the weights."""
        return sum(int(w.get_value(borrow=True).size) for w in self.weights)

    def runs_as(self, execution_mode: Callable) -> str:
        """Return the `execution_mode` of a recurrent layer; empty for other layers."""
        return ""

    def __getattr__(self, name: str) -> Any:
        # Not properties: layers of users may have attributes of these names.
        if name in ("input", "output") and "_recorded" in vars(self):
            return self._last_call()[name == "output"]
        if name == "output_shape" and vars(self).get("_recorded"):
            return shapes_of(self._last_call()[1])
        raise AttributeError(why_missing(self, name), name=name, obj=self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.display_name!r}>"


def building(build: Callable) -> Callable:
    """Return a `build` that, called by a user, builds the whole layer once."""

    @functools.wraps(build)
    def called(self: Layer, input_shape: Any, **shapes: Any) -> None:
        if self._is_building:
            build(self, input_shape, **shapes)
        else:
            self.ensure_built(as_shapes(input_shape), **shapes)

    return called


Layer.build = building(Layer.build)  # type: ignore[method-assign]


def as_shapes(shape: Any) -> Any:
    """Return a shape as a tuple, or the shapes of several inputs in a list or a dictionary."""
    if isinstance(shape, dict):
        return {name: as_shapes(item) for name, item in shape.items()}
    if isinstance(shape, (list, tuple)) and any(isinstance(n, (list, tuple)) for n in shape):
        return [as_shapes(item) for item in shape]
    return check_shape(shape, "input_shape")


def with_input_shape(cls: type[Layer], options: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of a layer with `input_shape` for the other names that Keras has."""
    known, options = cls.signature(), dict(options)
    for name in ("batch_input_shape", "batch_shape"):
        if options.get(name) is not None and name not in known:
            size, *shape = options.pop(name)
            options |= {"batch_size": size, "input_shape": tuple(shape)}
    length = None if "input_length" in known else options.pop("input_length", None)
    if "input_dim" in options and "input_dim" not in known:
        features = options.pop("input_dim")
        steps = cls.input_axes[1:2] == ("time",)
        options["input_shape"] = (length, features) if steps else (features,)
    elif length is not None:
        options["input_shape"] = tuple(np.atleast_1d(length).tolist())
    return options


def new_name(name: str, taken: Sequence[str]) -> str:
    """Return a name that is not taken: with ``_1``, ``_2`` and so on after it if needed."""
    number, found = 0, name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def as_layer(value: Any) -> Any:
    """Return the layer that a model is inside others; all else as it is."""
    is_model = not isinstance(value, Layer) and hasattr(type(value), "as_layer")
    return value.as_layer() if is_model else value


def snake_case(name: str) -> str:
    """``SimpleRNN`` becomes ``simple_rnn``, ``Conv1D`` becomes ``conv1d``."""
    name = re.sub(r"([a-z])([A-Z])", r"\1_\2", name)
    return re.sub(r"([A-Z0-9])([A-Z][a-z])", r"\1_\2", name).lower()

"""The base of all layers: named weights and a symbolic function of the inputs.

A layer is used in two ways. A `Model` stacks layers and calls them while it compiles. And since a
layer called on a PyTensor variable gives a PyTensor variable, any layer also works alone, inside
any other PyTensor graph.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import pytensor
import pytensor.tensor as pt

from seqnet import config, initializers, regularizers
from seqnet.checks import check_bool, check_finite, check_shape
from seqnet.ops.dropout import dropout_mask
from seqnet.registry import Configurable, refuse_arguments

Shape = tuple[int | None, ...]
_given: ContextVar[dict[str, np.ndarray] | None] = ContextVar("given", default=None)


@contextmanager
def given_weights(arrays: Mapping[str, np.ndarray]) -> Iterator[None]:
    """Let layers that are built inside the block take their weights from arrays, by name.

    Nothing is drawn, and no weight is made that has no array of its shape.
    """
    left = dict(arrays)
    token = _given.set(left)
    try:
        yield
    finally:
        _given.reset(token)
    if left:
        raise ValueError(f"there is {', '.join(sorted(left))}, which no layer of the model has")


@dataclass
class Phase:
    """One pass through the layers while a graph is built.

    What a pass decides and collects lives here, so that nothing about it is written onto layers.

    Attributes
    ----------
    training : bool
        Whether dropout and the like are active.
    updates : dict
        New values of shared variables (random generators, carried states) that a compiled function
        must store.
    kernels : module, optional
        `seqnet.kernels`, if the graph will be compiled by a backend that can run them.
    initial_states : dict
        States to start from, by recurrent layer: lists of symbolic (batch, units).
    final_states : dict
        Filled with the states after the last step, by recurrent layer.
    run : "train", "test" or "predict"
        Whose states stateful layers go on from; by default what `training` says.
    """

    training: bool = False
    kernels: ModuleType | None = None
    updates: dict = field(default_factory=dict)
    initial_states: dict[Layer, list] = field(default_factory=dict)
    final_states: dict[Layer, list] = field(default_factory=dict)
    run: str = ""

    def __post_init__(self):
        self.run = self.run or ("train" if self.training else "predict")

    def dropout_mask(self, generator, shape, rate: float, dtype: str):
        """Draw a mask from a layer's generator, and note the generator's next value.

        The mask is 0 with probability `rate` and ``1 / (1 - rate)`` elsewhere.
        """
        current = self.updates.get(generator, generator)
        self.updates[generator], mask = dropout_mask(current, shape, rate, dtype)
        return mask


class Layer(Configurable, ABC):
    """One stage of a model.

    Subclasses implement `call`, and where needed `build` (make weights), `compute_output_shape`,
    `compute_mask` and `check_input`; `input_axes` names the axes that their inputs must have.

    Parameters
    ----------
    name : str, optional
        Unique within a model; a model names what has no name.
    input_shape : tuple, optional
        Shape of one example, without the batch; only for the first layer of a model, and only
        if the model is to have weights before it has seen data.
    dtype : str, optional
        ``"float32"`` or ``"float64"``; by default what `seqnet.config.floatx` says.
    trainable : bool
        Whether training changes the weights.
    """

    input_axes: tuple[str, ...] = ()
    """Names of the axes that an input must have, the batch first; empty is any number of axes."""

    integer_input = False
    """Whether the layer takes numbers of classes and not quantities."""

    needs_length = False
    """Whether graphs need the number of steps when they are built."""

    reverses_time = False
    """Whether the steps of the output come in the opposite order of the input's."""

    reads_ahead: str = ""
    """Why nothing can be computed step by step ("runs backwards"); empty if it can."""

    supports_masking = True
    """Whether the layer can be given a mask: each step of its output is that step of its input, or
    it uses the mask up."""

    stateful = False
    """Whether the layer carries states from batch to batch."""

    several_outputs = False
    """Whether calling the layer gives a list, which the next layer of a stack cannot take."""

    sequence_generators: Sequence = ()
    """Those of the generators that masks are drawn from once for each sequence."""

    inner_layers: tuple[Layer, ...] = ()
    """The layers that this one wraps."""

    def __init__(
        self,
        name: str | None = None,
        input_shape: Shape | None = None,
        dtype: str | None = None,
        trainable: bool = True,
        **unknown,
    ):
        refuse_arguments(type(self), unknown)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"The name of a layer is text, got {name!r}.")
        self.name = name
        self.input_shape = None if input_shape is None else check_shape(input_shape, "input_shape")
        self.dtype = config.check_float_dtype(config.floatx() if dtype is None else dtype)
        self.trainable = check_bool(trainable, "trainable")
        self.built = False
        self.weights: list = []
        self.penalties: list = []
        self.generators: list = []
        self.features: int | None = None

    # ---- what subclasses define

    def build(self, input_shape: Shape) -> None:  # noqa: B027  (most layers have no weights)
        """Make the weights for inputs of ``(batch, ...)`` shape; called once."""

    @abstractmethod
    def call(self, inputs, mask, phase: Phase):
        """Return the symbolic output for symbolic inputs.

        `mask` is (batch, time) bool, True where there is data, or None. With several axes of
        steps, such as sentences of words, it may have several too: (batch, sentences, words).
        """

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the output's shape, the batch and unknown sizes as None."""
        return input_shape

    def compute_mask(self, inputs, mask):
        """Return the mask that goes with the output."""
        return mask

    def known_mask(self, values: np.ndarray) -> np.ndarray | None:
        """Return the mask this layer finds in real data as a first layer, None if none.

        Steps come as the first axes of the values; their features, if any, as the last.
        """
        return None

    def check_input(self, values: np.ndarray, name: str) -> None:
        """Raise if an array of real data cannot be this layer's input (first layers only)."""
        if values.dtype.kind not in "fiub":
            raise TypeError(f"{name} must hold numbers, got the dtype {values.dtype}.")
        check_finite(
            values,
            name,
            " Clean the data, or mark padding with a Masking layer and a finite mask_value.",
        )

    # ---- what subclasses use

    def add_weight(self, name: str, shape, initializer, *, regularizer=None):
        """Make, name, fill and enter one weight; return its shared variable."""
        full_name, given = f"{self.display_name}/{name}", _given.get()
        if given is None:
            value = initializers.get(initializer)(shape, dtype=self.dtype)
            value = np.asarray(value, order="C")  # else kernels would copy it at every call
            source = f"The initializer of {full_name} gave"
        elif full_name in given:
            value = given.pop(full_name)
            source = f"The array for {full_name} has"
        else:
            raise ValueError(f"There is no array for {full_name} of shape {tuple(shape)}.")
        if value.shape != tuple(shape):
            raise ValueError(f"{source} the shape {value.shape}, not {tuple(shape)}.")
        if given is not None and value.dtype != self.dtype:
            raise ValueError(f"{source} the dtype {value.dtype}, not {self.dtype}.")
        # A size of one is left unknown: PyTensor takes a static one as "to be broadcast", and
        # then a single unit, step or class would have another type than several.
        static = tuple(None if size == 1 else size for size in shape)
        weight = pytensor.shared(value, name=full_name, shape=static, borrow=given is not None)
        self.weights.append(weight)
        if regularizer is not None:
            self.penalties.append((regularizers.get(regularizer), weight))
        return weight

    def add_generator(self):
        """Make and enter a shared random generator, seeded from seqnet's own random source."""
        seed = int(config.random_generator().integers(2**63))
        name = f"{self.display_name}/generator"
        generator = pytensor.shared(np.random.default_rng(seed), name=name)
        self.generators.append(generator)
        return generator

    @property
    def display_name(self) -> str:
        """The layer's name, or what its name would be if it stood alone."""
        return self.name or snake_case(type(self).__name__)

    def ensure_built(self, input_shape: Shape) -> None:
        """Make the weights if that has not happened; check the axes in any case."""
        self.check_axes(input_shape)
        if self.features is not None and input_shape[-1] not in (None, self.features):
            raise ValueError(
                f"Layer {self.display_name!r} ({type(self).__name__}) was built for "
                f"{self.features} features, but got the shape {input_shape}, whose last axis has "
                f"{input_shape[-1]}."
            )
        if not self.built:
            self.build(input_shape)
            self.built = True

    def check_axes(self, input_shape: Shape) -> None:
        """Raise ``ValueError`` if an input does not have the axes that this layer takes."""
        rank, wanted = len(input_shape), len(self.input_axes)
        if wanted in (0, rank):
            return
        hint = ""
        if (rank, wanted) == (2, 3):
            hint = (
                " Recurrent layers give such an output with return_sequences=True, an Embedding "
                "makes one of whole numbers (batch, time)."
            )
        raise ValueError(
            f"Layer {self.display_name!r} ({type(self).__name__}) takes inputs of rank "
            f"{wanted} ({', '.join(self.input_axes)}), but got the shape {input_shape} of rank "
            f"{rank}.{hint}"
        )

    def masking_hint(self) -> str:
        """Say what to do about a mask that cannot be carried."""
        return (
            "Put it after a layer that uses the mask up, such as a recurrent layer without "
            "return_sequences."
        )

    def needed_features(self, input_shape: Shape) -> int:
        """Return and remember the size of the last axis, which weights depend on."""
        if input_shape[-1] is None:
            raise ValueError(
                f"Layer {self.display_name!r} needs to know the number of features to make its "
                "weights: pass input_shape= to the model's first layer, or call fit or predict "
                "with data first."
            )
        self.features = input_shape[-1]
        return self.features

    # ---- what users call

    def __call__(
        self, inputs, mask=None, phase: Phase | None = None, training: bool = False, **options
    ):
        """Apply the layer to a PyTensor variable (or anything that becomes one).

        Weights are made at the first call, from the static shape of the input. `options` are what
        the layer's own `call` takes besides, such as the ``initial_state`` of a recurrent layer.
        """
        inputs = pt.as_tensor_variable(inputs)
        phase = Phase(training=training) if phase is None else phase
        self.ensure_built(tuple(inputs.type.shape))
        if mask is not None and not self.supports_masking:
            raise ValueError(
                f"Layer {self.display_name!r} ({type(self).__name__}) cannot carry the mask that "
                f"comes with its input. {self.masking_hint()}"
            )
        if mask is not None:
            mask = self.checked_mask(mask, inputs)
        return self.call(inputs, mask, phase, **options)

    def checked_mask(self, mask, inputs):
        """Return a mask as a bool variable whose axes are the first ones of the inputs, or raise.

        A layer of sequences (batch, time, features) takes a mask (batch, time).
        """
        mask = pt.as_tensor_variable(mask)
        about = f"The mask of layer {self.display_name!r} ({type(self).__name__})"
        if mask.dtype != "bool":
            raise TypeError(
                f"{about} must be bool, True where there is data, got the dtype {mask.dtype}."
            )
        sizes, wanted = mask.type.shape, inputs.type.shape
        steps = 2 if self.input_axes[1:2] == ("time",) else len(wanted)
        fits = all(None in pair or pair[0] == pair[1] for pair in zip(sizes, wanted, strict=False))
        if not 1 <= mask.ndim <= steps or mask.ndim < len(self.input_axes[:2]) or not fits:
            raise ValueError(
                f"{about} has the shape {sizes}, and its input {wanted}: the axes of a mask are "
                f"the first ones of the input, at most {steps} of them."
            )
        return mask

    def get_weights(self) -> list[np.ndarray]:
        """Return copies of the weights, in the order they were made."""
        return [w.get_value() for w in self.weights]

    def set_weights(self, values) -> None:
        """Set all weights from arrays of the same shapes, in the order of `get_weights`."""
        if len(values) != len(self.weights):
            raise ValueError(
                f"Layer {self.display_name!r} has {len(self.weights)} weights "
                f"({', '.join(w.name.rpartition('/')[2] for w in self.weights) or 'none'}), but "
                f"{len(values)} arrays were given."
            )
        set_values(self.weights, values)

    def count_params(self) -> int:
        """Return how many numbers the weights hold."""
        return sum(int(w.get_value(borrow=True).size) for w in self.weights)

    def runs_as(self, kernels: ModuleType | None) -> str:
        """Say how the layer is run with these kernels, where there is a choice."""
        return ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.display_name!r}>"


def masks_together(first, second):
    """Return where both masks have data; None masks nothing.

    A mask with fewer axes says it for all the steps within: (batch, sentences) goes with (batch,
    sentences, words). Works on symbolic and on NumPy arrays.
    """
    if first is None or second is None:
        return second if first is None else first
    few, many = sorted((first, second), key=lambda mask: mask.ndim)
    return few[(..., *[None] * (many.ndim - few.ndim))] & many


def set_values(weights: Sequence, values: Sequence) -> None:
    """Set weights from arrays, or raise ``ValueError`` without having changed any."""
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


def snake_case(name: str) -> str:
    """``SimpleRNN`` becomes ``simple_rnn``."""
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name).lower()

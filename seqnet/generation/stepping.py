"""Running a model one time step at a time, with states that are kept between steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytensor.tensor as pt

from seqnet import backend, config
from seqnet.common.checks import check_fits
from seqnet.common.locking import compiling
from seqnet.common.types import Array, Tensor
from seqnet.data.adapters import Adapter
from seqnet.data.dataset import Batch, Data, Epoch
from seqnet.data.spec import InputSpec
from seqnet.data.validation import as_array
from seqnet.generation.splitting import Kind, Split
from seqnet.graph.signature import Signature, Structure
from seqnet.layers import CallContext
from seqnet.layers.states import all_layers
from seqnet.layers.symbolic import put_values
from seqnet.training.shards import ShardedSteps
from seqnet.training.step import last_states, recurrent_layers, symbolic_states

if TYPE_CHECKING:
    from seqnet.model import Model


@dataclass(frozen=True)
class ValueType:
    """The specification, for the function of a step, of a value that is computed once."""

    dtype: str
    shape: tuple[int | None, ...]
    mask_rank: int

    @classmethod
    def of(cls, value: Tensor, mask: Tensor | None) -> ValueType:
        """Return the type of a value with a mask."""
        shape = tuple(1 if n == 1 else None for n in value.type.shape)
        return cls(value.dtype, shape, 0 if mask is None else mask.ndim)

    def variables(self) -> tuple[Tensor, Tensor | None]:
        """Return a variable of the type, and one for its mask."""
        mask = pt.tensor(dtype="bool", shape=(None,) * self.mask_rank) if self.mask_rank else None
        return pt.tensor(dtype=self.dtype, shape=self.shape), mask


class Source:
    """What a model computes once for some sequences: all that does not depend on the steps.

    Attributes
    ----------
    types : list of ValueType
        One for each value that the steps need.
    arrays : list of array (samples, ...)
        The values, and then the masks of those that have one.
    states : list of array (samples, size)
        The states before the first step.
    """

    def __init__(self, types: list[ValueType], arrays: list[Array], states: list[Array]):
        self.types, self.arrays, self.states = types, arrays, states

    def take(self, rows: np.ndarray) -> list[Array]:
        """Return the arrays for some rows, which may come several times."""
        return [array[rows] for array in self.arrays]


class SteppedModel:
    """The compiled functions of a model that is run step by step.

    Parameters
    ----------
    model : Model
    stepped : list of str
        The names of the inputs of which one step is given at a time.
    outputs : list of str
        The names of the outputs that are needed.
    finish : function of an output, optional
        Applied to each symbolic output.
    """

    def __init__(
        self,
        model: Model,
        stepped: Sequence[str],
        outputs: Sequence[str],
        finish: Callable[[Tensor], Tensor] = lambda output: output,
    ):
        if not model.built or model.input_shape is None:
            raise not_built()
        self.model, self.stepped, self.finish = model, tuple(stepped), finish
        places = [model.input_names.index(name) for name in stepped]
        shapes = model.signature.inputs.leaves(model.input_shape)
        self.split = Split.of(
            model.graph, shapes, places, [model.output_names.index(name) for name in outputs]
        )
        self.specs = [model.input_specs[name] for name in stepped]
        self.layers = recurrent_layers(self.split.steps.layers)
        self.encoder = part_of(model, self.split, shapes, places)
        self.functions: dict[tuple, Callable] = {}

    @property
    def source_names(self) -> tuple[str, ...]:
        """The names of the inputs that are given as a whole."""
        return () if self.encoder is None else self.encoder.input_names

    def empty_source(self, rows: int) -> Source:
        """Return what is known of some rows before the first step, if there is no source."""
        return Source([], [], self.first_states(rows, []))

    def first_states(self, rows: int, given: Sequence[Array]) -> list[Array]:
        """Return the states before the first step: given by the graph, learned or zeros."""
        found, rest = [], iter(given)
        for layer in self.layers:
            if layer in self.split.given_states:
                found += [next(rest) for _ in layer.state_names]
            else:
                found += layer.get_initial_state(rows)
        return found

    def sources(
        self, data: Data, batch_size: int, mask: Data | None = None, lengths: Data | None = None
    ) -> Iterator[tuple[np.ndarray, Source]]:
        """Yield for each batch the places of its samples in the data, and what is computed once."""
        encoder = cast("Model", self.encoder)
        dataset = Adapter(encoder, targets=False).dataset(data, mask=mask, lengths=lengths)
        if dataset.sample_count() is not None:
            dataset = dataset.sorted_by_length()
        order, start = getattr(dataset, "places", None), 0
        with closing(dataset), closing(dataset.batches(Epoch(batch_size))) as batches:
            for batch in batches:
                source = self.encode(batch)
                places = np.arange(start, start + len(batch))
                start += len(batch)
                yield places if order is None else order[places], source

    def encode(self, batch: Batch) -> Source:
        """Compute what does not depend on the steps."""
        steps = cast("Model", self.encoder).steps
        encoding, arrays, _ = steps.function(
            self.compile_encoding, Batch(batch.inputs, mask=batch.mask)
        )
        with self.model.lock:
            found = encoding.function(*arrays)
            types = encoding.types
            count = len(types) + sum(t.mask_rank > 0 for t in types)
            return Source(types, found[:count], self.first_states(len(batch), found[count:]))

    def compile_encoding(self, model: Model, batch: Batch, states: Any) -> Any:
        """Compile ``batch -> values..., masks..., given states...``."""
        context, inputs = CallContext(), model.signature.inputs
        found, masks = self.split.once.apply(
            inputs.from_batch(batch.inputs), inputs.from_batch(batch.mask), context
        )
        size, count = inputs.from_batch(batch.inputs)[0].shape[0], self.split.values
        first = []
        for layer in self.layers:
            if layer in self.split.given_states:
                given = put_values(self.split.given_states[layer], found)
                first += cast(list, layer.start(size, CallContext(), given))
        types = [ValueType.of(v, m) for v, m in zip(found[:count], masks[:count], strict=True)]
        covers = [m for m in masks[:count] if m is not None]
        outputs = [*found[:count], *covers, *first]
        return Encoding(backend.compile(batch.leaves(), outputs, name="encoding"), types)

    def step(
        self,
        values: Sequence[Array],
        types: Sequence[ValueType],
        arrays: Sequence[Array],
        states: Any,
    ) -> tuple[list[Array], list[Array]]:
        """Run one step; return the outputs (rows, ...) and the states after it.

        Parameters
        ----------
        values : list of array (rows, ...)
            One step of each stepped input.
        types, arrays
            Those of a `Source`.
        states : list of array (rows, size)
        """
        function = self.function(types)
        values = [
            np.ascontiguousarray(v, dtype=spec.dtype)[:, None]
            for v, spec in zip(values, self.specs, strict=True)
        ]
        with self.model.lock:
            found = function(*values, *arrays, *states)
        count = len(self.split.kinds)
        return found[:count], found[count:]

    def function(self, types: Sequence[ValueType]) -> Callable:
        """Return the function of one step for values of some types, compiled at first use."""
        key = (config.backend(), *types)
        if key not in self.functions:
            with compiling():
                self.functions[key] = self.compile_step(types)
        return self.functions[key]

    def compile_step(self, types: Sequence[ValueType]) -> Callable:
        """Compile ``inputs..., values..., masks..., states... -> outputs..., states...``."""
        inputs = [
            pt.tensor(spec.name, dtype=spec.dtype, shape=(None, 1, *[None] * (spec.rank - 2)))
            for spec in self.specs
        ]
        values = [t.variables() for t in types]
        states = symbolic_states(self.layers)
        context = CallContext(initial_states=dict(states))
        found, _ = self.split.steps.apply(
            [*inputs, *(v for v, _ in values)],
            [*[None] * len(inputs), *(m for _, m in values)],
            context,
        )
        outputs = [
            output[:, 0] if kind is Kind.STEPS else output
            for output, kind in zip(map(self.finish, found), self.split.kinds, strict=True)
        ]
        given = [state for layer in states.values() for state in layer]
        masks = [m for _, m in values if m is not None]
        return backend.compile(
            [*inputs, *(v for v, _ in values), *masks, *given],
            [*outputs, *last_states(states, context)],
            name="step",
        )


@dataclass(frozen=True)
class Encoding:
    """A compiled function of what is computed once, and the types of the values."""

    function: Callable
    types: list[ValueType]


def part_of(model: Model, split: Split, shapes: Sequence, stepped: Sequence[int]) -> Model | None:
    """Return the part of a model that is computed once, as a model; None without such inputs."""
    signature = model.signature
    places = [k for k in range(len(shapes)) if k not in stepped]
    if not places:
        return None
    if not split.once.outputs:
        names = ", ".join(signature.inputs.names[k] for k in places)
        raise ValueError(f"The outputs do not depend on these inputs of the model: {names}.")
    for layer in all_layers(split.once.layers):
        if layer.stateful:
            raise ValueError(
                f"Layer {layer.display_name!r} is stateful, but the source of a decoder has no "
                "batch before it."
            )
    kind = "one" if len(places) == 1 else signature.inputs.kind
    part = type(model)(name=model.name)
    part.signature = Signature(
        Structure(tuple(signature.inputs.names[k] for k in places), kind),
        Structure(tuple(f"value_{k}" for k in range(len(split.once.outputs))), "list"),
        tuple(signature.input_variables[k] for k in places),
    )
    part.graph, part._layers = split.once, model.layers
    part.input_shape = part.signature.inputs.pack([shapes[k] for k in places])
    part.lock = model.lock
    part.steps = ShardedSteps(part)
    return part


def inputs_with_steps(specs: Mapping[str, InputSpec]) -> list[str]:
    """Return the names of inputs that have a time axis: (batch, time, ...) or whole numbers."""
    found = [n for n, s in specs.items() if s.rank > 2 or (s.rank == 2 and s.dtype == "int32")]
    return found or list(specs)


class Stepper:
    """A compiled function of one time step that keeps its states between calls.

    The cost of a step does not depend on the number of earlier steps. The states of the model are
    never changed.

    Parameters
    ----------
    model : Model
        A built model without layers that need the whole sequence (`go_backwards`,
        `Bidirectional`).
    inputs : list of str, optional
        The names of the inputs of which a step is given at a time, by default all that have steps.
        All others are given to `reset`, and what depends on them alone is computed there, once.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet import layers
    >>> model = seqnet.Model([layers.Embedding(5, 3), layers.LSTM(4), layers.Dense(5)])
    >>> model.build((None, None))
    >>> stepper = seqnet.generation.Stepper(model)
    >>> for token in [1, 2, 3]:
    ...     output = stepper(np.array([token]))
    >>> bool(np.allclose(output, model.predict(np.array([[1, 2, 3]])), atol=1e-6))
    True
    """

    def __init__(self, model: Model, inputs: Sequence[str] | None = None):
        if not model.built or model.input_shape is None:
            raise not_built()
        names = inputs_with_steps(model.input_specs) if inputs is None else list(inputs)
        for name in names:
            if name not in model.input_names:
                raise ValueError(
                    f"The model has no input {name!r}; it has {', '.join(model.input_names)}."
                )
        self.stepped = SteppedModel(model, names, model.output_names)
        kind = model.signature.inputs.kind
        self.inputs = Structure(tuple(names), "one" if len(names) == 1 else kind)
        self.outputs = model.signature.outputs
        self.dtype = model.dtype
        self.source: Source | None = None
        self.states: list[np.ndarray] | None = None
        if not self.stepped.source_names:
            self.stepped.function([])

    def reset(
        self,
        inputs: Data | None = None,
        *,
        mask: Data | None = None,
        lengths: Data | None = None,
    ) -> None:
        """Reset the states to the initial states.

        Parameters
        ----------
        inputs : array, or a dictionary of them by name
            The inputs that are not given step by step, if there are any; `mask` and `lengths` as
            for `Model.predict`.
        """
        self.states = self.source = None
        names = self.stepped.source_names
        if inputs is None and not names:
            return
        if inputs is None or not names:
            raise ValueError(
                f"reset takes the inputs that are not given step by step: {', '.join(names)}."
                if names
                else "All inputs of the model are given step by step, so reset takes none."
            )
        encoder = cast("Model", self.stepped.encoder)
        data = Adapter(encoder, targets=False).dataset(inputs, mask=mask, lengths=lengths)
        self.source = self.stepped.encode(data.as_batch())
        self.states = self.source.states

    def __call__(self, values: Any) -> Any:
        """Run one step on ``(batch,)`` numbers or ``(batch, features)``; return the output.

        With several inputs or outputs, these are lists or dictionaries as for `Model.predict`.
        """
        arrays = [
            self.checked(value, spec)
            for value, spec in zip(
                self.inputs.leaves(values, "The step's inputs"), self.stepped.specs, strict=True
            )
        ]
        rows = len(arrays[0])
        if self.source is None:
            if self.stepped.source_names:
                raise ValueError(
                    f"Call reset first, with the inputs {', '.join(self.stepped.source_names)}."
                )
            self.source = self.stepped.empty_source(rows)
        states = self.source.states if self.states is None else self.states
        for array in (*states, *self.source.arrays, *arrays):
            if len(array) != rows:
                raise ValueError(
                    f"The states are those of {len(array)} sequences, but this step has {rows}. "
                    "To start again, call reset."
                )
        found, self.states = self.stepped.step(
            arrays, self.source.types, self.source.arrays, states
        )
        return self.outputs.pack(found)

    def checked(self, values: Any, spec: InputSpec) -> np.ndarray:
        """Return one step of an input as an array, or raise."""
        what = "The step" if len(self.inputs.names) == 1 else f"The step of {spec.name!r}"
        values = as_array(values, what)
        spec.check_input(values, what)
        check_fits(values, what, self.dtype)
        if values.ndim != spec.rank - 1:
            raise ValueError(
                f"A step must have {spec.rank - 1} axes, those of the model's input without time; "
                f"got the shape {values.shape}."
            )
        return values


def not_built() -> ValueError:
    """Return the error for a model without weights."""
    return ValueError("The model has no weights yet: call build, fit or predict first.")

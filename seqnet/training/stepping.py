"""One time step of a model: a compiled function from inputs and states to outputs and states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor.tensor as pt

from seqnet import config
from seqnet.common.checks import check_fits
from seqnet.common.locking import compiling
from seqnet.common.types import Array, ArrayLike, Shape
from seqnet.data.dataset import Batch
from seqnet.data.spec import InputSpec
from seqnet.data.validation import as_array
from seqnet.training.step import compile_predict, first_states, recurrent_layers, symbolic_states

if TYPE_CHECKING:
    from seqnet.model import Model


class OneStep:
    """The compiled function of one time step of a model.

    Inputs of sequences are given without their axis of time, and outputs of sequences have none.
    Inputs without time, such as a context, are given whole.

    Parameters
    ----------
    model : Model
        A built model without layers that need the whole sequence (`go_backwards`,
        `Bidirectional`).
    """

    def __init__(self, model: Model):
        for layer in model.layers:
            if layer.non_causal:
                raise ValueError(
                    f"Layer {layer.display_name!r} {layer.non_causal}, so it needs the "
                    "whole sequence and cannot run step by step."
                )
        if not model.built or model.input_shape is None:
            raise not_built()
        self.structures = model.signature.inputs, model.signature.outputs
        self.specs = list(model.input_specs.values())
        self.layers, self.lock = list(model.layers), model.lock
        self.timed = [len(self.specs) == 1 or is_sequence(spec) for spec in self.specs]
        with compiling():
            variables = [self.variable(*pair) for pair in zip(self.specs, self.timed, strict=True)]
            states = symbolic_states(self.layers)
            batch = Batch(self.structures[0].to_batch(variables))
            self.function = compile_predict(model, batch, states, name="step")
        # If an output has a time axis, its length is unknown, like that of the inputs.
        shapes = [
            (None, None, *shape_of(s)[2:]) if t else shape_of(s)
            for s, t in zip(self.specs, self.timed, strict=True)
        ]
        found = model.compute_output_shape(self.structures[0].pack(shapes))
        self.sequences = [len(s) > 2 and s[1] is None for s in self.structures[1].leaves(found)]

    @classmethod
    def of(cls, model: Model) -> OneStep:
        """Return the function of a model, compiled once."""
        kept, backend = model.steps.stepping, config.backend()
        if backend not in kept:
            kept[backend] = cls(model)
        return kept[backend]

    @staticmethod
    def variable(spec: InputSpec, timed: bool) -> Any:
        rank = spec.rank
        shape = (None, 1, *[None] * (rank - 2)) if timed else (None,) * rank
        return pt.tensor(dtype=spec.dtype, shape=shape)

    def __call__(
        self, inputs: Any, states: Sequence[ArrayLike] | None = None
    ) -> tuple[Any, list[Array]]:
        """Run one step; return the outputs and the new states.

        Parameters
        ----------
        inputs : array, or several as the model takes them
            ``(batch,)`` numbers or ``(batch, features)`` for a sequence.
        states : list of array (batch, size), optional
            Those that the last call returned; None starts from the initial states.
        """
        values = self.structures[0].leaves(inputs)
        checked = [
            self.checked(*given) for given in zip(self.specs, self.timed, values, strict=True)
        ]
        rows = len(checked[0])
        if any(len(value) != rows for value in checked):
            sizes = ", ".join(str(len(value)) for value in checked)
            raise ValueError(f"The inputs of a step must have the same rows, got {sizes}.")
        with self.lock:
            given = first_states(self.layers, rows) if states is None else list(states)
            outputs = self.function(*checked, *self.checked_states(given, rows))
        count = len(self.sequences)
        found = [
            v[:, 0] if sequence else v for v, sequence in zip(outputs, self.sequences, strict=False)
        ]
        return self.structures[1].pack(found), list(outputs[count:])

    def checked(self, spec: InputSpec, timed: bool, values: ArrayLike) -> Array:
        """Return an input of a step as the function takes it, or raise."""
        name = "The step" if len(self.specs) == 1 else f"The step of {spec.name!r}"
        values = as_array(values, name)
        spec.check_input(values, name)
        rank = spec.rank - timed
        if values.ndim != rank:
            axes = ", those of the model's input without time" if timed else ""
            raise ValueError(f"{name} must have {rank} axes{axes}; got the shape {values.shape}.")
        dtype = spec.layers[0].dtype if spec.layers else spec.dtype
        if dtype != "bool":
            check_fits(values, name, dtype)
        return np.asarray(values[:, None] if timed else values, dtype=spec.dtype)

    def checked_states(self, states: Sequence[ArrayLike], rows: int) -> list[Array]:
        """Return given states as arrays, or raise if they are not those of the model."""
        kinds = [
            (f"{layer.display_name}/{name}", size, layer.dtype)
            for layer in recurrent_layers(self.layers)
            for name, size in zip(layer.state_names, layer.state_sizes, strict=True)
        ]
        wanted = ", ".join(f"{name} (batch, {size})" for name, size, _ in kinds) or "no states"
        shapes = [np.shape(state) for state in states]
        if [s[1:] for s in shapes] != [(size,) for _, size, _ in kinds]:
            got = ", ".join(map(str, shapes)) or "none"
            raise ValueError(f"The states of a step of this model are {wanted}; got {got}.")
        for shape in shapes:
            if shape[0] != rows:
                raise ValueError(
                    f"The states are those of {shape[0]} sequences, but this step has {rows}. To "
                    "start again, pass states=None or call reset."
                )
        return [
            np.ascontiguousarray(state, dtype)
            for state, (_, _, dtype) in zip(states, kinds, strict=True)
        ]


def is_sequence(spec: InputSpec) -> bool:
    """Return whether an input of several has an axis of time: numbers, flags, rows of features."""
    return spec.rank > 2 or (spec.rank == 2 and spec.dtype in ("int32", "bool"))


def shape_of(spec: InputSpec) -> Shape:
    """Return the known shape of an input."""
    return spec.shape or (None,) * spec.rank


def not_built() -> ValueError:
    """Return the error for a model without weights."""
    return ValueError("The model has no weights yet: call build, fit or predict first.")

"""States that a layer carries from one batch to the next, separately for each kind of run.

A stateful layer has up to three sets of states: for training, evaluation and prediction. A run
reads its set before the first step, and its compiled function stores the states after the last
step; runs of different kinds do not affect each other. The states are shared variables, so no
gradient flows from one batch to the previous one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad
from pytensor.tensor.sharedvar import TensorSharedVariable

from seqnet import config
from seqnet.common.types import ArrayLike, Tensor, TensorLike
from seqnet.layers.calling import is_several
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer

InitialState: TypeAlias = TensorLike | Sequence[TensorLike]
"""One value for each state of a layer; a layer of one state takes it without a list."""

RUNS = ("train", "test", "predict")


class CarriedStates:
    """The shared variables of one stateful layer: for each run, one for each state.

    Parameters
    ----------
    layer : Layer
        The layer that has the states.
    names : tuple of str
        The names of the states.
    sizes : tuple of int
        The last axis of each.
    """

    def __init__(self, layer: Layer, names: Sequence[str], sizes: Sequence[int]):
        self.layer, self.names, self.sizes = layer, tuple(names), tuple(sizes)
        self._variables: dict[str, list[TensorSharedVariable]] = {}

    def variables(self, run: str) -> list[TensorSharedVariable]:
        """Return the shared variables of a run, each (batch, size); (0, size) before a batch."""
        if run not in RUNS:
            raise ValueError(f"A run is one of {', '.join(RUNS)}, got {run!r}.")
        if run not in self._variables:
            self._variables[run] = [
                pytensor.shared(
                    np.zeros((0, size), dtype=self.layer.dtype),
                    name=f"{self.layer.display_name}/{run}/{name}",
                    shape=(None, None),
                )
                for name, size in zip(self.names, self.sizes, strict=True)
            ]
        return self._variables[run]

    def start(self, context: CallContext, batch: Tensor) -> list[Tensor]:
        """Return the states that a run continues from, each (batch, size).

        They are zeros if the previous batch had another number of rows.

        Parameters
        ----------
        context : CallContext
            Its `run` selects the set of states.
        batch : symbolic number
        """
        if config.backend() == "jax":
            raise ValueError(
                f"Layer {self.layer.display_name!r} has stateful=True, which the backend 'jax' "
                "cannot run: its arrays cannot change their sizes from batch to batch. Use another "
                "backend, or pass initial_state where the layer is called."
            )
        found = []
        for shared in self.variables(context.run):
            state = disconnected_grad(context.updates.get(shared, shared))
            # All rows or none are copied into zeros, so that no branch is needed.
            rows = pt.switch(pt.eq(state.shape[0], batch), state.shape[0], 0)
            zero = np.asarray(0, dtype=shared.dtype)
            zeros = cast(Tensor, pt.alloc(zero, batch, state.shape[1]))
            found.append(pt.set_subtensor(zeros[:rows], state[:rows]))
        return found

    def store(self, context: CallContext, last: Sequence[Tensor]) -> None:
        """Store the states after the last step for the next batch of the run."""
        context.updates.update(zip(self.variables(context.run), last, strict=True))

    def get(self, run: str) -> list[np.ndarray]:
        """Return copies of a run's states."""
        return [shared.get_value() for shared in self.variables(run)]

    def set(self, values: Sequence[ArrayLike], run: str) -> None:
        """Set a run's states, each (batch, units), after checking them all."""
        arrays = [np.asarray(value, dtype=self.layer.dtype) for value in values]
        batch = arrays[0].shape[0] if arrays and arrays[0].ndim else 0
        if [array.shape for array in arrays] != [(batch, size) for size in self.sizes]:
            wanted = ", ".join(f"(batch, {size})" for size in self.sizes)
            got = ", ".join(str(array.shape) for array in arrays) or "none"
            raise ValueError(
                f"The states of layer {self.layer.display_name!r} ({', '.join(self.names)}) have "
                f"the shapes {wanted}; got {got}."
            )
        for shared, array in zip(self.variables(run), arrays, strict=True):
            shared.set_value(array)

    def reset(self, run: str | None = None) -> None:
        """Reset the states of a run, or of all runs, to zeros."""
        for name in list(self._variables) if run is None else [run]:
            for shared, size in zip(self.variables(name), self.sizes, strict=True):
                shared.set_value(np.zeros((0, size), dtype=shared.dtype))


class Stateful(Layer):
    """A layer that carries states itself (`carried`) or in the layers that it wraps."""

    carried: CarriedStates | None = None

    def __call__(self, inputs: Any = None, *others: Any, **options: Any) -> Any:
        """Call the layer; its initial states may also follow the input in a list, as in Keras."""
        if isinstance(inputs, (list, tuple)) and is_several(inputs):
            if others or options.get("initial_state") is not None:
                raise TypeError(f"Layer {self.display_name!r} got its initial states twice.")
            inputs, *states = inputs
            options["initial_state"] = states or None
        return Layer.__call__(self, inputs, *others, **options)  # not that of a cell

    def get_states(self, run: str = "train") -> list[np.ndarray]:
        """Return copies of the carried states, each (batch, size); (0, size) before a batch.

        Parameters
        ----------
        run : "train", "test" or "predict"
            Training, evaluation and prediction have separate states.

        Raises
        ------
        ValueError
            If the layer is not stateful, or not built.
        """
        return [value for carried in self._all_carried() for value in carried.get(run)]

    def set_states(self, values: Sequence[ArrayLike], run: str = "train") -> None:
        """Set the states that the next batch of a run starts from, in `get_states`'s order."""
        values, found = list(values), self._all_carried()
        count = sum(len(carried.names) for carried in found)
        if len(values) != count:
            raise ValueError(
                f"Layer {self.display_name!r} carries {count} states, but {len(values)} were given."
            )
        for carried in found:
            carried.set(values[: len(carried.names)], run)
            values = values[len(carried.names) :]

    def reset_states(self, run: str | None = None) -> None:
        """Start the next batch from zeros, for one run or for all."""
        for carried in self._all_carried():
            carried.reset(run)

    def _all_carried(self) -> list[CarriedStates]:
        found = carried_states([self])
        if not found:
            reason = "has no states yet: it is not built" if self.stateful else "is not stateful"
            raise ValueError(
                f"Layer {self.display_name!r} {reason}. stateful=True and the first batch, or "
                "model.build, make states that are carried."
            )
        return found


def given_states(
    layer: Layer,
    given: InitialState,
    names: Sequence[str],
    sizes: Sequence[int],
) -> list[Tensor]:
    """Check the initial states of a call and return them as variables of the layer's dtype.

    Parameters
    ----------
    layer : Layer
        For messages and the dtype.
    given : list, or for one state that state
        Variables or arrays, each (batch, size) or (size,).
    names : tuple of str
        The names of the states.
    sizes : tuple of int
        The last axis of each.
    """
    states: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
    if len(states) != len(names):
        raise ValueError(
            f"Layer {layer.display_name!r} has the states {', '.join(names)}, so initial_state is "
            f"a list of {len(names)}; got {len(states)}."
        )
    found = []
    for name, size, state in zip(names, sizes, states, strict=True):
        state = pt.cast(pt.as_tensor_variable(state), layer.dtype)
        shape = state.type.shape
        if state.ndim not in (1, 2) or shape[-1] not in (None, size):
            raise ValueError(
                f"The initial state {name} of layer {layer.display_name!r} must have the shape "
                f"(batch, {size}) or ({size},), got {shape}."
            )
        found.append(state)
    return found


def carried_states(layers: Iterable[Layer]) -> list[CarriedStates]:
    """Return the carried states of layers and of those that they wrap, in order."""
    every = [layer for layer in all_layers(layers) if isinstance(layer, Stateful)]
    return [layer.carried for layer in every if layer.carried is not None]


def layers_in_time(layers: Iterable[Layer]) -> list[Layer]:
    """Return layers and those within them whose steps are the same, each once."""
    found: dict[Layer, None] = {}
    for layer in layers:
        found[layer] = None
        if layer.passes_time_on:
            found.update(dict.fromkeys(layers_in_time(layer.inner_layers)))
    return list(found)


def named_states(layers: Iterable[Layer], prefix: str = "") -> list[tuple[str, CarriedStates]]:
    """Return the carried states of layers, each with the names of its layer and those around it."""
    found = []
    for layer in layers:
        own = layer.display_name
        name = own if own.startswith(prefix) else prefix + own
        if isinstance(layer, Stateful) and layer.carried is not None:
            found.append((name, layer.carried))
        found += named_states(layer.inner_layers, f"{name}/")
    return found


def all_layers(layers: Iterable[Layer]) -> list[Layer]:
    """Return layers, each followed by those that it wraps."""
    found = []
    for layer in layers:
        found.append(layer)
        if inner := layer.inner_layers:
            found += all_layers(inner)
    return found

"""Running a model one time step at a time, with states that are kept between steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytensor.tensor as pt

from seqnet.checks import check_fits
from seqnet.data.dataset import Batch
from seqnet.data.validation import as_array
from seqnet.locking import COMPILING
from seqnet.training.step import compile_predict, first_states, symbolic_states

if TYPE_CHECKING:
    from seqnet.model import Model


class Stepper:
    """A compiled function of one time step that keeps its states between calls.

    The cost of a step does not depend on the number of earlier steps. The states of the model are
    never changed.

    Parameters
    ----------
    model : Model
        A built model without layers that need the whole sequence (`go_backwards`,
        `Bidirectional`).

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

    def __init__(self, model: Model):
        self.layers = list(model.layers)
        for layer in model.layers:
            if layer.non_causal:
                raise ValueError(
                    f"Layer {layer.display_name!r} {layer.non_causal}, so it needs the "
                    "whole sequence and cannot run step by step."
                )
        if not model.built or model.input_shape is None:
            raise not_built()
        self.rank = len(model.input_shape)
        self.check_input = model.layers[0].check_input
        shape = (None, 1, *[None] * (self.rank - 2))
        self.lock = model.lock
        with COMPILING:
            x = pt.tensor("x", dtype=model.input_dtype, shape=shape)
            states = symbolic_states(model.layers)
            self.function = compile_predict(model, Batch(x), states, name="step")
        self.dtype = model.input_dtype
        # If the output has a time axis, its length is unknown, like that of the input.
        whole = model.compute_output_shape((None, None, *model.input_shape[2:]))
        self.sequence_output = len(whole) > 2 and whole[1] is None
        self.reset()

    def reset(self) -> None:
        """Reset the states to the initial states."""
        self.states: list[np.ndarray] | None = None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Run one step on ``(batch,)`` numbers or ``(batch, features)``; return the output."""
        values = as_array(values, "The step")
        self.check_input(values, "The step")
        check_fits(values, "The step", self.layers[0].dtype)
        if values.ndim != self.rank - 1:
            raise ValueError(
                f"A step must have {self.rank - 1} axes, those of the model's input without time; "
                f"got the shape {values.shape}."
            )
        values = np.asarray(values, dtype=self.dtype)[:, None]
        with self.lock:
            if self.states and len(values) != len(self.states[0]):
                raise ValueError(
                    f"The states are those of {len(self.states[0])} sequences, but this step has "
                    f"{len(values)}. To start again, call reset."
                )
            if self.states is None:
                self.states = first_states(self.layers, len(values))
            output, *self.states = self.function(values, *self.states)
        return output[:, 0] if self.sequence_output else output


def not_built() -> ValueError:
    """Return the error for a model without weights."""
    return ValueError("The model has no weights yet: call build, fit or predict first.")

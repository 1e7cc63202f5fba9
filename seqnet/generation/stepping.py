"""Running a model one time step at a time, with states that are kept between steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from seqnet.training.stepping import OneStep

if TYPE_CHECKING:
    from seqnet.model import Model


class Stepper:
    """A compiled function of one time step that keeps its states between calls.

    `seqnet.Model.step` is the same function with the states in the hands of the caller.

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
        self.one_step = OneStep.of(model)
        self.reset()

    def reset(self) -> None:
        """Reset the states to the initial states."""
        self.states: list[np.ndarray] | None = None

    def __call__(self, values: Any) -> Any:
        """Run one step on ``(batch,)`` numbers or ``(batch, features)``; return the output."""
        output, self.states = self.one_step(values, self.states)
        return output

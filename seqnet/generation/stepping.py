"""Running a model one step at a time, its states carried along: text generation and the like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytensor.tensor as pt

from seqnet import backend
from seqnet.checks import check_count
from seqnet.data import as_array
from seqnet.layers.layer import Phase
from seqnet.stack import forward
from seqnet.windows import first_states, symbolic_states


class Stepper:
    """A compiled function of one time step that remembers its states between calls.

    The cost of a step does not depend on how many came before. Training states are never touched.

    Parameters
    ----------
    model : Model
        Built, and without layers that need the whole sequence (`go_backwards`, `Bidirectional`).

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

    def __init__(self, model):
        self.layers = list(model.layers)
        for layer in model.layers:
            if layer.reads_ahead:
                raise ValueError(
                    f"Layer {layer.display_name!r} {layer.reads_ahead}, so it needs the "
                    "whole sequence and cannot go step by step."
                )
        if not model.built:
            raise ValueError("The model has no weights yet: call build, fit or predict first.")
        self.rank = len(model.input_shape)
        self.check_input = model.layers[0].check_input
        shape = (None, 1, *[None] * (self.rank - 2))
        x = pt.tensor("x", dtype=model.input_dtype, shape=shape)
        before = symbolic_states(model.layers)
        phase = Phase(initial_states=before, kernels=backend.kernels())
        output, _ = forward(model.layers, x, None, phase)
        after = [state for layer in before for state in phase.final_states[layer]]
        inputs = [x, *[state for states in before.values() for state in states]]
        self.function = backend.compile(inputs, [output, *after], name="step")
        self.dtype = model.input_dtype
        # An output that still has a time axis has one of the unknown length of the input.
        whole = model.compute_output_shape((None, None, *model.input_shape[2:]))
        self.sequence_output = len(whole) > 2 and whole[1] is None
        self.reset()

    def reset(self) -> None:
        """Forget all that was seen."""
        self.states: list[np.ndarray] | None = None

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Take one step: ``(batch,)`` numbers or ``(batch, features)`` in, the output back."""
        values = as_array(values, "The step")
        self.check_input(values, "The step")
        if values.ndim != self.rank - 1:
            raise ValueError(
                f"A step has {self.rank - 1} axes, the model's input of {self.rank} without time; "
                f"got the shape {values.shape}."
            )
        values = np.asarray(values, dtype=self.dtype)[:, None]
        if self.states and len(values) != len(self.states[0]):
            raise ValueError(
                f"The states are those of {len(self.states[0])} sequences, but this step has "
                f"{len(values)}. To start anew call reset."
            )
        if self.states is None:
            self.states = first_states(self.layers, len(values))
        output, *self.states = self.function(values, *self.states)
        return output[:, 0] if self.sequence_output else output


def check_sampling(temperature, top_k, top_p) -> None:
    """Raise if `sample` cannot take these."""
    if not isinstance(temperature, (int, float, np.number)) or not temperature >= 0:
        raise ValueError(f"temperature must be a number and not negative, got {temperature!r}.")
    if top_k is not None:
        check_count(top_k, "top_k")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is a probability above 0 and at most 1, got {top_p}.")


def sample(
    probabilities: np.ndarray,
    rng: np.random.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> int:
    """Draw a class from a probability distribution.

    Parameters
    ----------
    probabilities : array (classes,)
    rng : numpy generator
    temperature : float
        Divides the log probabilities; 0 takes the most probable class.
    top_k : int, optional
        Draw among the k most probable only.
    top_p : float, optional
        Draw among the most probable that together reach this probability (Holtzman et al., 2020).

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.generation import sample
    >>> sample(np.array([0.1, 0.7, 0.2]), np.random.default_rng(0), temperature=0)
    1
    """
    check_sampling(temperature, top_k, top_p)
    p = np.asarray(probabilities, dtype="float64")
    if temperature == 0:
        return int(p.argmax())
    if not (p.min() >= 0 and abs(p.sum() - 1) < 0.01):
        raise ValueError(
            "Probabilities are at least 0 and add up to 1; got values from "
            f"{p.min():.4g} to {p.max():.4g} that add up to {p.sum():.4g}. A model to write with "
            "ends with a softmax."
        )
    with np.errstate(divide="ignore"):
        logits = np.log(p) / temperature
    p = np.exp(logits - logits.max())
    if top_k is not None or top_p is not None:
        order = np.argsort(-p, kind="stable")
        keep = len(p) if top_k is None else top_k
        if top_p is not None:
            reached = np.cumsum(p[order]) / p.sum()
            keep = min(keep, int(np.searchsorted(reached, top_p)) + 1)
        p[order[keep:]] = 0
    return int(rng.choice(len(p), p=p / p.sum()))


def generate(
    model,
    prime: Iterable[int],
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | None = None,
    seed: int | None = None,
    stepper: Stepper | None = None,
) -> Iterator[int]:
    """Yield numbers that a model writes on from `prime`, one step of the model for each.

    Parameters
    ----------
    model : Model
        From numbers to probabilities of the next number (a softmax at the end).
    prime : numbers
        What the model reads first; at least one.
    length : int
        How many numbers to write at most.
    temperature, top_k, top_p
        See `sample`.
    stop : int, optional
        End after writing this number.
    seed : int, optional
    stepper : Stepper, optional
        One made before, so that nothing is compiled; it is reset first.

    Raises
    ------
    ValueError, TypeError
        Before anything is compiled, if an argument cannot be used. With the first number, if what
        the model gives are no probabilities.

    Examples
    --------
    >>> import seqnet
    >>> from seqnet import layers
    >>> model = seqnet.Model([layers.Embedding(5, 3), layers.LSTM(4, return_sequences=True),
    ...                       layers.Dense(5, activation="softmax")])
    >>> model.build((None, None))
    >>> len(list(seqnet.generation.generate(model, [1, 2], 10, seed=0)))
    10
    """
    prime = list(prime)
    if not prime:
        raise ValueError("prime needs at least one number to start from.")
    check_count(length, "length", 0)
    check_sampling(temperature, top_k, top_p)
    model.layers[0].check_input(np.asarray(prime), "prime")
    options = (np.random.default_rng(seed), temperature, top_k, top_p)
    return _write(stepper or Stepper(model), prime, length, options, stop)


def _write(stepper: Stepper, prime: list, length: int, options: tuple, stop) -> Iterator[int]:
    stepper.reset()
    for token in prime:
        output = stepper(np.array([token]))
    for _ in range(length):
        token = sample(output[0], *options)
        yield token
        if token == stop:
            return
        output = stepper(np.array([token]))

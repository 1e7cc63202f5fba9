"""How probable a text is for a model of the next symbol."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from seqnet.common.types import Array
from seqnet.data.dataset import Batch
from seqnet.generation.generating import numbers_of
from seqnet.generation.sampling import check_probabilities, log_of
from seqnet.generation.stepping import not_built
from seqnet.training.step import compile_predict, recurrent_layers

if TYPE_CHECKING:
    from seqnet.model import Model

WINDOW = 1024
"""Steps whose probabilities are computed at once."""


def log_probabilities(model: Model, text: Any) -> Array:
    """Return the logarithm of the probability of each symbol of a text given those before it.

    The first symbol is not counted, because nothing is before it. States are carried along the
    text, so that it may be of any length.

    Parameters
    ----------
    model : Model
        A model of one input of whole numbers (batch, time), with an output of probabilities of the
        next number at each step.
    text : text or numbers
        Text needs `Model.vocabulary`; see `Model.generate`.

    Returns
    -------
    float64 array (symbols - 1,)
        In nats.

    Raises
    ------
    ValueError, TypeError
        If a symbol is not in the vocabulary, the text has fewer than two symbols, or the outputs of
        the model are no probabilities of each step.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.layers import Dense, Embedding, LSTM
    >>> model = seqnet.Model([Embedding(4, 3), LSTM(5, return_sequences=True),
    ...                       Dense(4, activation="softmax")])
    >>> model.build((None, None))
    >>> log_p = seqnet.generation.log_probabilities(model, [0, 1, 2, 3])
    >>> log_p.shape, bool((log_p < 0).all())
    ((3,), True)
    """
    if not model.built or model.input_shape is None:
        raise not_built()
    numbers = numbers_of(text, model.vocabulary, "text")
    if len(numbers) < 2:
        raise ValueError(f"A text needs at least two symbols, got {len(numbers)}.")
    if len(model.input_names) > 1 or len(model.output_names) > 1:
        raise ValueError("The model must have one input and one output.")
    (spec,) = model.input_specs.values()
    spec.check_input(numbers, "text")
    if numbers.max() >= model.output_features:
        raise ValueError(
            f"text holds {numbers.max()}, but the model gives probabilities of "
            f"{model.output_features} numbers."
        )
    layers = recurrent_layers(model.layers)
    states = [state for layer in layers for state in layer.get_initial_state(1)]
    found = []
    for first in range(0, len(numbers) - 1, WINDOW):
        following = numbers[first + 1 : first + 1 + WINDOW]
        batch = Batch(numbers[None, first : first + len(following)].astype(spec.dtype))
        function, arrays, _ = model.steps.function(compile_predict, batch, True)
        with model.lock:
            output, *states = function(*arrays, *states)
        if output.ndim != 3:
            raise ValueError("The model must give an output at each step: return_sequences=True.")
        check_probabilities(output[0])
        found.append(log_of(output[0], following))
    return np.concatenate(found)


def perplexity(model: Model, text: Any) -> float:
    """Return the exponential of the mean of ``-log_probabilities``; for `text` see there.

    It is the number of equally probable symbols that would be as hard to predict.

    Examples
    --------
    >>> import seqnet
    >>> from seqnet.layers import Dense, Embedding
    >>> from seqnet.generation import perplexity
    >>> model = seqnet.Model([Embedding(8, 8), Dense(8, "softmax", kernel_initializer="zeros")])
    >>> model.build((None, None))
    >>> round(perplexity(model, [1, 5, 2, 7]), 4)
    8.0
    """
    return math.exp(-log_probabilities(model, text).mean())


def bits_per_character(model: Model, text: Any) -> float:
    """Return how many bits the model needs for each character of a text but the first symbol.

    With a vocabulary of pieces or words the bits of all symbols are divided by the number of
    characters, so that models with different vocabularies can be compared; for `text` see
    `log_probabilities`.

    Examples
    --------
    >>> import seqnet
    >>> from seqnet.layers import Dense, Embedding
    >>> from seqnet.generation import bits_per_character
    >>> model = seqnet.Model([Embedding(8, 8), Dense(8, "softmax", kernel_initializer="zeros")])
    >>> model.build((None, None))
    >>> round(bits_per_character(model, [1, 5, 2, 7]), 4)
    3.0
    """
    bits = -log_probabilities(model, text).sum() / math.log(2)
    if not isinstance(text, str) or model.vocabulary is None:
        return float(bits / (len(text) - 1))
    first = model.vocabulary.decode(model.vocabulary.encode(text)[:1])
    return float(bits / (len(text) - len(first)))

"""Specifications of a model's inputs and outputs, for the checks of data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqnet.common.checks import WrongValueError, check_finite, first_place
from seqnet.common.types import Shape
from seqnet.layers.layer import Layer


@dataclass(frozen=True)
class InputSpec:
    """An input of a model.

    Parameters
    ----------
    name : str
    shape : tuple, optional
        The shape of a batch, None for sizes that vary; None if no data was seen yet.
    dtype : str
        ``"int32"`` or the float type.
    layers : list of Layer
        The layers that take this input. They check its values, and may find a mask in them.
    has_steps : bool
        Whether the second axis of a batch is time.

    Examples
    --------
    >>> from seqnet.data.spec import InputSpec
    >>> spec = InputSpec("words", (None, None), "int32")
    >>> spec.check_shape((None, 7))
    >>> spec.check_shape((None, 7, 3))
    Traceback (most recent call last):
        ...
    ValueError: The input 'words' takes arrays of shape (batch, any), got (batch, 7, 3).
    """

    name: str
    shape: Shape | None
    dtype: str
    layers: Sequence[Layer] = ()
    has_steps: bool = True

    @property
    def rank(self) -> int:
        """The number of axes of a batch; 0 if it is unknown."""
        if self.shape is not None:
            return len(self.shape)
        return len(self.layers[0].input_axes) if self.layers else 0

    def check_shape(self, shape: Shape) -> None:
        """Raise ``ValueError`` if a batch of this shape (None: unknown) does not fit."""
        wanted = self.shape
        if wanted is None:
            return
        pairs = zip(shape, wanted, strict=False)
        if len(shape) != len(wanted) or any(a != b for a, b in pairs if None not in (a, b)):
            raise ValueError(
                f"The input {self.name!r} takes arrays of shape {spelled(wanted)}, got "
                f"{spelled(shape)}."
            )

    def check_whole(self, values: np.ndarray, name: str) -> None:
        """Raise ``ValueError`` unless floats are whole numbers, for an input of integers."""
        wrong = (values != np.floor(values)) | ~(np.abs(values) < 2**31)
        if wrong.any():
            where, whose = first_place(wrong), f"the input {self.name!r} of the dtype int32"
            for layer in self.layers:
                if layer.integer_input:
                    whose = f"the {type(layer).__name__} layer {layer.display_name!r}"
            raise WrongValueError(
                f"{name} holds {values[where]} at {{where}}, but {whose} takes whole numbers.",
                where,
            )

    def check_input(self, values: np.ndarray, name: str) -> None:
        """Raise ``ValueError`` or ``TypeError`` if a layer cannot take these values."""
        if not self.layers:
            check_finite(values, name)
        for layer in self.layers:
            layer.check_input(values, name)

    def known_mask(self, values: np.ndarray) -> np.ndarray | None:
        """Return the mask that the layers find in an array; None if one of them finds none."""
        masks = [layer.known_mask(values) for layer in self.layers]
        known = [mask for mask in masks if mask is not None]
        if not known or len(known) < len(masks):
            return None
        return np.logical_or.reduce(known) if len(known) > 1 else known[0]


def same_steps(lengths: np.ndarray) -> np.ndarray:
    """Return the number of steps of outputs that have those of their inputs."""
    return lengths


@dataclass(frozen=True)
class OutputSpec:
    """An output of a model.

    Parameters
    ----------
    name : str
    loss : Loss or function, optional
        None before `Model.compile`.
    metrics : list
        The metrics of this output.
    layer : Layer, optional
        The layer that computes it.
    follows : str, optional
        The name of the input whose steps, with their mask, are the steps of this output, if it has
        steps; None if there is none.
    backwards : bool
        Whether its steps are in the reverse order of those of the input that it follows.
    mask_rank : function of a shape and an int
        Returns the number of axes that a mask of the input that it follows has at the output, given
        the shape of a batch of that input and the number of axes of its mask; 0 if the mask does
        not reach the output.
    steps : function of an int array
        Returns the number of steps of the output for each number of steps of that input; the same
        array if they are equal.
    joined : bool
        Whether it has the steps of several inputs one after the other.
    """

    name: str
    loss: Any = None
    metrics: Sequence = ()
    layer: Layer | None = None
    follows: str | None = None
    backwards: bool = False
    mask_rank: Callable[[Shape, int], int] = lambda shape, rank: rank
    steps: Callable[[np.ndarray], np.ndarray] = same_steps
    joined: bool = False

    def has_steps(self, input_shape: Shape, output_shape: Shape) -> bool:
        """Return whether an output has the steps of the input that it follows.

        Both shapes begin with the batch. Unknown sizes are None: those of sequences of different
        lengths.
        """
        time = output_shape[1:2]
        return time == input_shape[1:2] and (len(output_shape) > 2 or time == (None,))


def spelled(shape: Shape) -> str:
    """Return the shape of a batch for messages."""
    return f"({', '.join(['batch', *('any' if n is None else str(n) for n in shape[1:])])})"

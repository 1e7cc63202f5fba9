"""The base class of losses."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from seqnet.losses.targets import axis_hint, fits, spell
from seqnet.registry import Configurable
from seqnet.types import Array, Shape, Tensor, TensorLike


class Loss(Configurable, ABC):
    """A value for each example or step: ``loss(y_true, y_pred)`` on symbolic arrays.

    `y_pred` has shape ``(batch, ..., features)``; the value has shape ``(batch, ...)``.
    """

    after: tuple[str, ...] = ()
    """Activations of a last layer whose outputs this loss takes as probabilities; () is all."""

    from_logits: bool = False

    registered_name: str

    @abstractmethod
    def __call__(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        """Return the unreduced loss."""

    def check_targets(self, y: Array, output_shape: Shape, name: str) -> None:
        """Raise ``ValueError`` or ``TypeError`` if targets `y` cannot belong to these outputs.

        `output_shape` is that of the model's output, the batch and unknown lengths as None.
        """
        if y.dtype.kind not in "fiub":
            raise TypeError(f"{name} must hold numbers, got the dtype {y.dtype}.")
        if not fits(y.shape, output_shape):
            raise ValueError(
                f"{self.name} compares {name} with the model's output of shape "
                f"{spell(output_shape)}, but {name} has shape {spell(y.shape)}."
                f"{self.hint(y) or axis_hint(y.shape, output_shape, name)}"
            )

    def hint(self, y: Array) -> str:
        """Say what else the caller may have meant."""
        return ""

    def ignored_target(self, shape: tuple[int, ...]) -> Array:
        """Return a target that this loss allows, to stand where nothing counts.

        `shape` is that of one target: of ``y`` without the axes of samples and steps.
        """
        return np.zeros(shape)

    @property
    def name(self) -> str:
        """The registered name of this loss."""
        return getattr(self, "registered_name", type(self).__name__)

"""The base class of losses."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from seqnet.losses.targets import axis_hint, fits, spell
from seqnet.registry import Configurable
from seqnet.types import Array, Shape, Tensor, TensorLike


class Loss(Configurable, ABC):
    """The base class of losses: ``loss(y_true, y_pred)`` returns a value for each example or step.

    `y_pred` has shape ``(batch, ..., features)``; the value has shape ``(batch, ...)``.
    """

    after: tuple[str, ...] = ()
    """Activations of the last layer whose outputs this loss accepts as probabilities; () is any."""

    from_logits: bool = False

    needs_targets: bool = True
    """Whether there are targets; False if the outputs alone are the loss."""

    registered_name: str

    @abstractmethod
    def __call__(self, y_true: TensorLike, y_pred: TensorLike) -> Tensor:
        """Return the unreduced loss."""

    def check_targets(self, y: Array, output_shape: Shape, name: str) -> None:
        """Raise ``ValueError`` or ``TypeError`` if targets `y` do not match these outputs.

        `output_shape` is the shape of the model's output, the batch and unknown lengths as None.
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
        """Return advice about other losses for such targets."""
        return ""

    def ignored_target(self, shape: tuple[int, ...]) -> Array:
        """Return a valid target for steps that are masked or have the weight 0.

        `shape` is the shape of one target: of ``y`` without the axes of samples and steps.
        """
        return np.zeros(shape)

    @property
    def name(self) -> str:
        """The registered name of this loss."""
        return getattr(self, "registered_name", type(self).__name__)

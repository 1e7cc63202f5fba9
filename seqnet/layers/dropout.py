"""Dropout: inputs set to zero at random while training."""

from __future__ import annotations

from typing import Any

import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable

from seqnet.common.checks import check_shape
from seqnet.common.hyperparameters import Rate, numbers_of
from seqnet.common.types import Shape, Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.seeded import Seeded
from seqnet.registry import register


@register("layer")
class Dropout(Seeded):
    """Set a share of the inputs to zero during training and scale the rest up.

    Kept values are multiplied by ``1 / (1 - rate)`` (inverted dropout, Srivastava et al., 2014),
    so that prediction needs no change.

    Parameters
    ----------
    rate : float
        Share that is dropped, in ``[0, 1)``. (theano_lstm and Keras 1 call this p.) It can be set
        at any time, also during training; a new graph is compiled only if it becomes 0 or was 0.
    noise_shape : tuple, optional
        Shape of the mask, None for the input's own size and 1 for "the same along this axis":
        ``(None, 1, None)`` draws one mask per sequence.
    seed : int, optional
        Where its random numbers start; by default they follow from `seqnet.set_random_seed`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.Dropout(0.5)
    >>> layer(np.ones((1, 3))).tolist()          # not training: nothing is dropped
    [[1.0, 1.0, 1.0]]
    """

    takes_several_inputs = False
    rate = Rate()

    def __init__(self, rate: float, *, noise_shape: Shape | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = rate
        self.noise_shape = None if noise_shape is None else check_shape(noise_shape, "noise_shape")

    def build(self, input_shape: Shape) -> None:
        for axis, (size, wanted) in enumerate(
            zip(self.noise_shape or (), input_shape, strict=False)
        ):
            if size not in (None, 1, wanted) and wanted is not None:
                raise ValueError(
                    f"noise_shape {self.noise_shape} of layer {self.display_name!r} does not fit "
                    f"the input's shape {input_shape}: axis {axis} is None, 1 or {wanted}."
                )
        self.generator = self.add_generator()

    @property
    def sequence_generators(self) -> list[SharedVariable]:  # type: ignore[override]
        """The generator, if the mask is the same along time."""
        return self.generators if (self.noise_shape or ())[1:2] == (1,) else []

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        if not context.training or self.rate == 0:
            return inputs
        sizes = tuple(inputs.shape)
        if self.noise_shape is not None:
            if len(self.noise_shape) != inputs.ndim:
                raise ValueError(
                    f"noise_shape {self.noise_shape} of layer {self.display_name!r} does not have "
                    f"the rank {inputs.ndim} of its input."
                )
            sizes = tuple(
                own if n is None else n for own, n in zip(sizes, self.noise_shape, strict=True)
            )
        kept = context.dropout_mask(self.generator, sizes, numbers_of(self)["rate"], inputs.dtype)
        if self.noise_shape is not None:
            ones = [axis for axis, n in enumerate(self.noise_shape) if n == 1]
            kept = pt.specify_broadcastable(kept, *ones) if ones else kept
        return inputs * kept


@register("layer")
class SpatialDropout1D(Dropout):
    """Dropout that drops whole features of a sequence: the same ones at each step.

    Input and output ``(batch, time, features)``; it is ``Dropout(rate, noise_shape=(None, 1,
    None))`` (Tompson et al., 2015).

    Parameters
    ----------
    rate : float
        Share that is dropped, in ``[0, 1)``; see `Dropout`.
    seed : int, optional
        As for `Dropout`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.SpatialDropout1D(0.5)
    >>> layer(np.ones((1, 2, 2))).tolist()       # not training: nothing is dropped
    [[[1.0, 1.0], [1.0, 1.0]]]
    """

    input_axes = ("batch", "time", "features")

    def __init__(self, rate: float, **kwargs: Any):
        super().__init__(rate, noise_shape=(None, 1, None), **kwargs)

    @classmethod
    def signature(cls) -> dict[str, Any]:
        return {k: v for k, v in super().signature().items() if k != "noise_shape"}

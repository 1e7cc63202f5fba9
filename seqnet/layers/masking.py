"""Masking of steps that hold a padding value."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytensor.tensor as pt

from seqnet.common.checks import check_number
from seqnet.common.types import Array, Shape, Tensor
from seqnet.layers.calling import masks_together
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.registry import register


@register("layer")
class Masking(Layer):
    """Mark steps as padding: those whose features all equal `mask_value`.

    Input and output ``(batch, time, features)``, or with more axes before the features, whose masks
    have them too. Later layers get the mask, and the masked steps become zero (as in Keras).

    Parameters
    ----------
    mask_value : float
        The value of padding; it must be finite.

    Examples
    --------
    >>> import seqnet
    >>> layer = seqnet.layers.Masking(mask_value=-1.0)
    """

    input_axes = ("batch", "time", "features")

    def __init__(self, mask_value: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.mask_value = check_number(mask_value, "mask_value")
        if not np.isfinite(self.mask_value):
            raise ValueError(f"mask_value must be finite, got {mask_value}.")

    def check_axes(self, input_shape: Any) -> None:
        if len(input_shape) < 3:
            super().check_axes(input_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        present = self.compute_mask(inputs, mask)
        return pt.switch(present[..., None], inputs, np.asarray(0, dtype=inputs.dtype))

    def compute_mask(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        inputs = pt.as_tensor_variable(inputs)
        floats = inputs if inputs.dtype.startswith("float") else pt.cast(inputs, self.dtype)
        value = np.asarray(self.mask_value, dtype=floats.dtype)
        present = pt.any(pt.neq(floats, value), axis=-1)
        return cast(Tensor, masks_together(mask, present))

    def known_mask(self, values: Array) -> Array | None:
        values = values.astype(self.dtype, copy=False)
        return (values != np.asarray(self.mask_value, dtype=self.dtype)).any(axis=-1)

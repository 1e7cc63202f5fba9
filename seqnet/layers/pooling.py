"""Maxima and means of windows of steps, and of whole sequences."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad

from seqnet.common.checks import check_bool
from seqnet.common.types import Array, Shape, Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.layers.windows import Windowed, check_one, cut
from seqnet.registry import register


class Pooling1D(Windowed):
    """The base of layers that make one step of each window.

    Parameters
    ----------
    pool_size : int
        Number of steps in a window.
    strides : int, optional
        Steps from one window to the next; None is `pool_size`.
    padding : "valid" or "same"
        ``"valid"`` has the windows that lie in the sequence, ``(time - pool_size) // strides + 1``.
        ``"same"`` has ``ceil(time / strides)``, which may reach beyond its ends.
    """

    def __init__(
        self, pool_size: int = 2, strides: int | None = None, padding: str = "valid", **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.size = self.pool_size = check_one(pool_size, "pool_size")
        self.strides = self.size if strides is None else check_one(strides, "strides")
        self.padding = self.check_padding(padding, ("valid", "same"))


@register("layer")
class MaxPooling1D(Pooling1D):
    """The largest value of each feature in each window of steps.

    Input ``(batch, time, features)``, output ``(batch, steps, features)``.

    Parameters
    ----------
    pool_size : int
        Number of steps in a window.
    strides : int, optional
        Steps from one window to the next; None is `pool_size`.
    padding : "valid" or "same"
        ``"valid"`` has the windows that lie in the sequence, ``(time - pool_size) // strides + 1``.
        ``"same"`` has ``ceil(time / strides)``, which may reach beyond its ends.

    Notes
    -----
    Masked steps are left out. The mask of the output is that of `Conv1D`: with ``"valid"``, a step
    is unmasked if its whole window is; with ``"same"``, if the first step at its place is. With
    ``"same"`` and some strides, the places of windows depend on the length of a sequence; a mask is
    an error then. Outputs of windows without any data are 0.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.MaxPooling1D(2)
    >>> layer(np.array([[[1.0], [3.0], [2.0], [0.0]]])).tolist()
    [[[3.0], [2.0]]]
    """

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        self.check_mask(mask)
        least = least_of(inputs.dtype)
        taps = self.taps(self.padded(cut(inputs, mask, least), mask, least))
        largest = reduce(pt.maximum, taps)
        if mask is None:
            return largest
        present = reduce(pt.or_, self.taps(self.padded(mask, mask, np.False_)))
        return cut(largest, present, 0)


@register("layer")
class AveragePooling1D(Pooling1D):
    """The mean of each feature in each window of steps.

    Input ``(batch, time, features)``, output ``(batch, steps, features)``.

    Parameters
    ----------
    pool_size : int
        Number of steps in a window.
    strides : int, optional
        Steps from one window to the next; None is `pool_size`.
    padding : "valid" or "same"
        ``"valid"`` has the windows that lie in the sequence, ``(time - pool_size) // strides + 1``.
        ``"same"`` has ``ceil(time / strides)``, which may reach beyond its ends.

    Notes
    -----
    Steps beyond the ends of a sequence and masked steps are left out. For the mask of the output,
    see `MaxPooling1D`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.AveragePooling1D(2)
    >>> layer(np.array([[[1.0], [3.0], [2.0], [0.0]]])).tolist()
    [[[2.0], [1.0]]]
    """

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        self.check_mask(mask)
        x = inputs if inputs.dtype.startswith("float") else pt.cast(inputs, self.dtype)
        total = sum_of(self.taps(self.padded(cut(x, mask, 0), mask, 0)))
        if mask is None and self.padding == "valid":
            return total * np.asarray(1 / self.size, dtype=x.dtype)
        there = pt.ones((1, x.shape[1])) if mask is None else mask
        present = pt.cast(there, x.dtype)
        count = sum_of(self.taps(self.padded(present, mask, 0)))
        return total / pt.maximum(count, np.asarray(1, dtype=x.dtype))[:, :, None]


class GlobalPooling1D(Layer):
    """The base of layers that make one vector of a sequence.

    Parameters
    ----------
    keepdims : bool
        Whether the axis of time stays, with size 1.
    """

    input_axes = ("batch", "time", "features")
    non_causal = "pools over all steps"

    def __init__(self, keepdims: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.keepdims = check_bool(keepdims, "keepdims")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, _, features = input_shape
        return (batch, 1, features) if self.keepdims else (batch, features)

    def compute_mask(self, inputs: Tensor, mask: Tensor | None = None) -> None:
        return None


@register("layer")
class GlobalAveragePooling1D(GlobalPooling1D):
    """The mean of each feature over the unmasked steps.

    Input ``(batch, time, features)``, output ``(batch, features)``. A sequence without any unmasked
    step gives 0.

    Parameters
    ----------
    keepdims : bool
        Whether the axis of time stays, with size 1.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer, x = seqnet.layers.GlobalAveragePooling1D(), np.array([[[1.0], [3.0], [8.0]]])
    >>> layer(x).tolist(), layer(x, mask=np.array([[True, True, False]])).tolist()
    ([[4.0]], [[2.0]])
    """

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        x = inputs if inputs.dtype.startswith("float") else pt.cast(inputs, self.dtype)
        total = cut(x, mask, 0).sum(axis=1, keepdims=self.keepdims)
        steps = x.shape[1] if mask is None else mask.sum(axis=1, keepdims=True)
        count = pt.maximum(pt.cast(steps, x.dtype), np.asarray(1, dtype=x.dtype))
        return total / (count[:, :, None] if mask is not None and self.keepdims else count)


@register("layer")
class GlobalMaxPooling1D(GlobalPooling1D):
    """The largest value of each feature over the unmasked steps.

    Input ``(batch, time, features)``, output ``(batch, features)``. A sequence without any unmasked
    step gives 0. Steps that share the largest value share its gradient.

    Parameters
    ----------
    keepdims : bool
        Whether the axis of time stays, with size 1.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer, x = seqnet.layers.GlobalMaxPooling1D(), np.array([[[1.0], [3.0], [8.0]]])
    >>> layer(x).tolist(), layer(x, mask=np.array([[True, True, False]])).tolist()
    ([[8.0]], [[3.0]])
    """

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        x = cut(inputs, mask, least_of(inputs.dtype))
        largest = disconnected_grad(pt.max(x, axis=1, keepdims=True))
        if x.dtype.startswith("float"):  # PyTensor gives each of several maxima the whole gradient
            at = pt.cast(pt.eq(x, largest), x.dtype)
            share = disconnected_grad(at / at.sum(axis=1, keepdims=True))
            largest = largest + ((x - largest) * share).sum(axis=1, keepdims=True)
        if mask is not None:
            largest = cut(largest, mask.any(axis=1, keepdims=True), 0)
        return largest if self.keepdims else largest[:, 0]


def least_of(dtype: str) -> Array:
    """Return the smallest finite number of a dtype."""
    kind = np.finfo if np.dtype(dtype).kind == "f" else np.iinfo
    return np.asarray(kind(dtype).min, dtype=dtype)


def sum_of(parts: list[Tensor]) -> Tensor:
    """Return the sum of variables."""
    return reduce(pt.add, parts)

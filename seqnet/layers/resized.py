"""Steps added, removed and repeated: ZeroPadding1D, Cropping1D and UpSampling1D."""

from __future__ import annotations

from functools import reduce
from typing import Any, cast

import pytensor.tensor as pt

from seqnet.common.checks import check_count
from seqnet.common.types import Shape, Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.layers.windows import cut
from seqnet.registry import register


class Resized(Layer):
    """The base of layers that add or remove steps at both ends."""

    input_axes = ("batch", "time", "features")
    non_causal = "changes the number of steps"

    def set_ends(self, value: Any, name: str) -> tuple[int, int]:
        """Return the numbers of steps at the start and the end, from one number or two."""
        pair = value if isinstance(value, (tuple, list)) else (value, value)
        if len(pair) != 2:
            raise ValueError(
                f"The {name} of {type(self).__name__} is a number, or two: (at the start, at the "
                f"end); got {value!r}."
            )
        self.before, self.after = (check_count(n, f"The {name}", 0) for n in pair)
        return self.before, self.after


def with_zeros(x: Tensor, before: int, after: int) -> Tensor:
    """Return an array with steps of zeros (False) before and after its own."""
    rest = tuple(x.shape)[2:]
    blocks = [pt.zeros((x.shape[0], n, *rest), dtype=x.dtype) for n in (before, after)]
    return pt.concatenate([blocks[0], x, blocks[1]], axis=1)


@register("layer")
class ZeroPadding1D(Resized):
    """Add steps of zeros at both ends of a sequence.

    Input ``(batch, time, features)``, output ``(batch, before + time + after, features)``.

    Parameters
    ----------
    padding : int or (int, int)
        The number of steps at each end, or at the start and at the end.

    Notes
    -----
    Masked steps become zeros, and the added steps are next to the unmasked ones: a step of the
    output is unmasked if the number of steps to an unmasked one is at most `before` or `after`. A
    sequence therefore gets the same steps in any amount of padding; masked steps between unmasked
    ones that are within reach become steps of zeros.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.ZeroPadding1D((1, 0))(np.array([[[1.0], [2.0]]])).tolist()
    [[[0.0], [1.0], [2.0]]]
    """

    def __init__(self, padding: int | tuple[int, int] = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.padding = self.set_ends(padding, "padding")

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        return with_zeros(cut(inputs, mask, 0), self.before, self.after)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, steps, features = input_shape
        longer = None if steps is None else steps + self.before + self.after
        return (batch, longer, features)

    def compute_mask(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor | None:
        if mask is None:
            return None
        reach = self.before + self.after
        shifted = [with_zeros(mask, k, reach - k) for k in range(reach + 1)]
        return reduce(pt.or_, shifted)


@register("layer")
class Cropping1D(Resized):
    """Remove steps at both ends of a sequence.

    Input ``(batch, time, features)``, output ``(batch, time - before - after, features)``.

    Parameters
    ----------
    cropping : int or (int, int)
        The number of steps at each end, or at the start and at the end.

    Notes
    -----
    With a mask, the steps are removed next to the masked ones: a step is unmasked in the output if
    it and the steps that far before and after it are. A sequence therefore keeps the same steps in
    any amount of padding.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Cropping1D((1, 0))(np.array([[[1.0], [2.0]]])).tolist()
    [[[2.0]]]
    """

    def __init__(self, cropping: int | tuple[int, int] = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.cropping = self.set_ends(cropping, "cropping")

    def check_axes(self, input_shape: Shape) -> None:
        super().check_axes(input_shape)
        self.compute_output_shape(input_shape)

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        return inputs[:, self.before : -self.after or None]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, steps, features = input_shape
        if steps is None:
            return input_shape
        fewer = steps - self.before - self.after
        if fewer < 1:
            raise ValueError(
                f"Layer {self.display_name!r} (Cropping1D) removes {self.before + self.after} "
                f"steps, and its input has {steps}: the shape is {input_shape}."
            )
        return (batch, fewer, features)

    def compute_mask(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor | None:
        if mask is None:
            return None
        reach = self.before + self.after
        return reduce(pt.and_, [mask[:, k : (k - reach) or None] for k in range(reach + 1)])


@register("layer")
class UpSampling1D(Layer):
    """Repeat each step of a sequence.

    Input ``(batch, time, features)``, output ``(batch, time * size, features)``; the mask is
    repeated too.

    Parameters
    ----------
    size : int
        How often each step comes.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.UpSampling1D(2)(np.array([[[1.0], [2.0]]])).tolist()
    [[[1.0], [1.0], [2.0], [2.0]]]
    """

    input_axes = ("batch", "time", "features")
    non_causal = "changes the number of steps"

    def __init__(self, size: int = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.size = check_count(size, "The size of UpSampling1D")

    def repeated(self, x: Tensor) -> Tensor:
        """Return an array with each step repeated."""
        first, steps, *rest = tuple(x.shape)
        copies = cast(Tensor, pt.alloc(x[:, :, None], first, steps, self.size, *rest))
        return copies.reshape((first, steps * self.size, *rest), ndim=x.ndim)

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        return self.repeated(inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, steps, features = input_shape
        return (batch, None if steps is None else steps * self.size, features)

    def compute_mask(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor | None:
        return None if mask is None else self.repeated(mask)

"""Other axes for the same values: Reshape, Flatten and Permute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from seqnet.common.checks import check_count
from seqnet.common.types import Shape, Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.registry import register


class Rearranged(Layer):
    """The base of layers that change the axes of the inputs.

    A mask is kept if the axes of the steps stay where they are, and is an error otherwise.
    """

    takes_several_inputs = False
    non_causal = "changes the axes of the steps"

    def keeps(self, input_shape: Shape, axes: int) -> bool:
        """Return whether a number of axes after the batch axis are unchanged."""
        raise NotImplementedError

    def masking_hint(self) -> str:
        return (
            "It would move or merge steps, some of which are masked. Put it after a layer that "
            "uses the mask up, such as GlobalAveragePooling1D or a recurrent layer without "
            "return_sequences."
        )

    def check_mask(self, inputs: Tensor, mask: Tensor | None) -> None:
        """Raise if the output has other steps than the input, and a mask comes with it."""
        if mask is not None and not self.keeps(tuple(inputs.type.shape), mask.ndim - 1):
            raise self.mask_error()


def product(sizes: Sequence[int | None]) -> int | None:
    """Return the product of sizes, None if one is unknown."""
    return None if None in sizes else math.prod(n for n in sizes if n is not None)


@register("layer")
class Reshape(Rearranged):
    """Give each example another shape.

    Input ``(batch, ...)``, output ``(batch, *target_shape)``, with the values in the same order.

    Parameters
    ----------
    target_shape : sequence of int
        The shape of one example, without the batch; one size may be -1, which is then computed.

    Notes
    -----
    A mask (batch, time) is kept if the steps are seen to stay: if the first size is the number of
    steps, or is -1 and the other sizes are as many values as a step has. Otherwise it is an error.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.Reshape((-1, 2))
    >>> layer(np.array([[1.0, 2.0, 3.0, 4.0]])).tolist()
    [[[1.0, 2.0], [3.0, 4.0]]]
    """

    def __init__(self, target_shape: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(target_shape, (tuple, list)):
            raise TypeError(
                f"The target_shape of Reshape is a tuple of integers, got {target_shape!r}."
            )
        self.target_shape = tuple(
            -1 if n == -1 else check_count(n, "A size in target_shape") for n in target_shape
        )
        if self.target_shape.count(-1) > 1:
            raise ValueError(f"target_shape can have one -1, got {target_shape}.")

    def check_axes(self, input_shape: Shape) -> None:
        self.compute_output_shape(input_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        size, known = product(input_shape[1:]), math.prod(n for n in self.target_shape if n != -1)
        rest = None if size is None else size // known
        if size is not None and (size % known or (-1 not in self.target_shape and rest != 1)):
            raise ValueError(
                f"Layer {self.display_name!r} (Reshape) cannot make examples of the shape "
                f"{self.target_shape} from its input of the shape {input_shape}, which has {size} "
                "values for each."
            )
        return (input_shape[0], *(rest if n == -1 else n for n in self.target_shape))

    def keeps(self, input_shape: Shape, axes: int) -> bool:
        steps, target = input_shape[1 : axes + 1], self.target_shape
        if len(target) < axes:
            return False
        wanted, found = target[:axes], product(input_shape[axes + 1 :])
        same = all(n in (-1, own) for n, own in zip(wanted, steps, strict=True))
        if -1 not in wanted:
            return same
        return same and found is not None and math.prod(target[axes:]) == found

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        self.check_mask(inputs, mask)
        _, *sizes = self.compute_output_shape(tuple(inputs.type.shape))
        shape = (inputs.shape[0], *(-1 if n is None else n for n in sizes))
        return inputs.reshape(shape, ndim=len(shape))


@register("layer")
class Flatten(Rearranged):
    """Put all values of an example into one axis.

    Input ``(batch, ...)``, output ``(batch, values)``. It merges steps, so a mask is an error,
    unless the input has no steps: ``(batch, features)``.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Flatten()(np.array([[[1.0, 2.0], [3.0, 4.0]]])).tolist()
    [[1.0, 2.0, 3.0, 4.0]]
    """

    def keeps(self, input_shape: Shape, axes: int) -> bool:
        return len(input_shape) <= 2

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], product(input_shape[1:]))

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        self.check_mask(inputs, mask)
        _, size = self.compute_output_shape(tuple(inputs.type.shape))
        return inputs.reshape((inputs.shape[0], -1 if size is None else size), ndim=2)


@register("layer")
class Permute(Rearranged):
    """Put the axes of each example into another order.

    Parameters
    ----------
    dims : sequence of int
        The axes of the input in the order of the output, from 1; the batch stays first.

    Notes
    -----
    A mask is kept if the axes of its steps stay first, and is an error otherwise.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Permute((2, 1))(np.array([[[1.0, 2.0], [3.0, 4.0]]])).tolist()
    [[[1.0, 3.0], [2.0, 4.0]]]
    """

    def __init__(self, dims: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        numbers = isinstance(dims, (tuple, list)) and all(
            isinstance(n, (int, np.integer)) for n in dims
        )
        if not numbers or sorted(dims) != list(range(1, len(dims) + 1)):
            raise ValueError(
                f"The dims of Permute are the axes from 1, each once, such as (2, 1); got {dims!r}."
            )
        self.dims = tuple(int(n) for n in dims)

    def check_axes(self, input_shape: Shape) -> None:
        if len(input_shape) != len(self.dims) + 1:
            raise ValueError(
                f"Layer {self.display_name!r} (Permute) with the dims {self.dims} takes inputs of "
                f"{len(self.dims) + 1} axes, but got the shape {input_shape}."
            )

    def keeps(self, input_shape: Shape, axes: int) -> bool:
        return self.dims[:axes] == tuple(range(1, axes + 1))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], *(input_shape[n] for n in self.dims))

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        self.check_mask(inputs, mask)
        return inputs.dimshuffle(0, *self.dims)

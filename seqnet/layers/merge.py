"""Layers that make one output of several inputs.

A step of the output counts where the step counts in every input: where the masks of all inputs have
data. An input without a mask has data everywhere.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import reduce
from typing import Any, cast

import numpy as np
import pytensor.tensor as pt

from seqnet.activations import constant
from seqnet.common.checks import check_bool
from seqnet.common.types import Shape, Tensor, TensorLike
from seqnet.layers.calling import describe, items_of, masks_together, with_ndim
from seqnet.layers.layer import Layer
from seqnet.registry import register


class Merge(Layer):
    """The base class of layers that merge a list of inputs element by element.

    Inputs have fitting shapes: equal, or 1 where another is larger. An input with fewer axes is
    repeated along the axes after the batch: ``(batch, features)`` fits ``(batch, time, features)``.
    Integers are cast to the layer's dtype. Subclasses define `merge`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> class Difference(seqnet.layers.Merge):
    ...     def merge(self, inputs):
    ...         return abs(inputs[0] - inputs[1])
    ...
    >>> Difference()([np.array([[1.0, 5.0]]), np.array([[3.0, 4.0]])]).tolist()
    [[2.0, 1.0]]
    """

    takes_several_inputs = True

    @abstractmethod
    def merge(self, inputs: list[Tensor]) -> Tensor:
        """Return the output for inputs of the same number of axes."""

    def check_axes(self, input_shape: Any) -> None:
        self.compute_output_shape(input_shape)

    def call(self, inputs: Any) -> Tensor:
        variables = [
            v if v.dtype.startswith("float") else pt.cast(v, self.dtype) for v in items_of(inputs)
        ]
        rank = max(v.ndim for v in variables)
        return self.merge([v[(slice(None), *[None] * (rank - v.ndim))] for v in variables])

    def compute_output_shape(self, input_shape: Any) -> Shape:
        shapes = items_of(input_shape)
        rank = max(len(shape) for shape in shapes)
        aligned = [(*shape[:1], *[1] * (rank - len(shape)), *shape[1:]) for shape in shapes]
        return tuple(
            self.size_of(axis, [shape[axis] for shape in aligned], shapes) for axis in range(rank)
        )

    def size_of(self, axis: int, sizes: list[int | None], shapes: list[Shape]) -> int | None:
        """Return the size of an axis of the output, or raise if the inputs do not fit."""
        known = {size for size in sizes if size not in (None, 1)}
        if len(known) > 1:
            raise ValueError(
                f"{describe(self)} cannot merge inputs of the shapes {shapes_as_text(shapes)}: "
                f"axis {axis} has the sizes {', '.join(str(n) for n in sizes)}. Sizes must be "
                f"equal{', or 1' if axis else ''}."
            )
        if known:
            return known.pop()
        return None if None in sizes else 1

    def compute_mask(self, inputs: Any, mask: Any = None) -> Tensor | None:
        """Return where all inputs have data, or None if no input has a mask.

        Called by hand, it takes masks of numbers too: a step counts where they are not 0.
        """
        masks = self.masks_of(inputs, mask)
        return reduce(masks_together, map(repeatable, items_of(inputs), masks))

    def masks_of(self, inputs: Any, mask: Any) -> list[Tensor | None]:
        """Return a bool mask or None for each input, or raise ``ValueError``."""
        for what, value in (("inputs", inputs), ("masks", mask)):
            if not isinstance(value, (list, tuple, dict)) and value is not None:
                raise ValueError(
                    f"{describe(self)} takes a list of inputs and a list of masks, None for an "
                    f"input without one; got {what} that are no list, of type "
                    f"{type(value).__name__}."
                )
        if mask is None:
            return [None] * len(inputs)
        if len(inputs) != len(mask):
            raise ValueError(
                f"{describe(self)} needs a mask or None for each input, got {len(inputs)} inputs "
                f"and {len(mask)} masks."
            )
        masks = mask.values() if isinstance(mask, dict) else mask
        return [None if m is None else pt.neq(m, 0) if is_number(m) else m for m in masks]


def is_number(mask: Any) -> bool:
    """Return whether a mask holds numbers instead of bools."""
    return pt.as_tensor_variable(mask).dtype != "bool"


def repeatable(variable: TensorLike, mask: Tensor | None) -> Tensor | None:
    """Return a mask that is repeated along the axes along which a variable is."""
    if mask is None:
        return None
    sizes = pt.as_tensor_variable(variable).type.shape
    axes = [axis for axis in range(1, mask.ndim) if sizes[axis] == 1]
    return pt.specify_broadcastable(mask, *axes) if axes else mask


def shapes_as_text(shapes: Sequence[Shape]) -> str:
    """Return shapes as a message lists them."""
    return " and ".join(str(shape) for shape in shapes)


@register("layer")
class Add(Merge):
    """Add inputs: ``a + b + ...``.

    Called on a list of inputs of fitting shapes, ``(batch, ...)`` each. A step of the output is
    masked where it is masked in any input. Arguments as in Keras 3.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Add()([np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])]).tolist()
    [[4.0, 6.0]]
    """

    def merge(self, inputs: list[Tensor]) -> Tensor:
        return reduce(lambda a, b: a + b, inputs)


@register("layer")
class Subtract(Merge):
    """Subtract the second of two inputs from the first: ``a - b``.

    Shapes and masks as for `Add`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Subtract()([np.array([[3.0, 2.0]]), np.array([[1.0, 1.0]])]).tolist()
    [[2.0, 1.0]]
    """

    def check_axes(self, input_shape: Any) -> None:
        check_two(self, input_shape)
        super().check_axes(input_shape)

    def merge(self, inputs: list[Tensor]) -> Tensor:
        return inputs[0] - inputs[1]


@register("layer")
class Multiply(Merge):
    """Multiply inputs element by element: ``a * b * ...``.

    Shapes and masks as for `Add`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Multiply()([np.array([[3.0, 2.0]]), np.array([[2.0, 4.0]])]).tolist()
    [[6.0, 8.0]]
    """

    def merge(self, inputs: list[Tensor]) -> Tensor:
        return reduce(lambda a, b: a * b, inputs)


@register("layer")
class Average(Merge):
    """Average inputs element by element: ``(a + b + ...) / n`` for n inputs.

    Shapes and masks as for `Add`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Average()([np.array([[3.0, 2.0]]), np.array([[1.0, 4.0]])]).tolist()
    [[2.0, 3.0]]
    """

    def merge(self, inputs: list[Tensor]) -> Tensor:
        total = reduce(lambda a, b: a + b, inputs)
        return total / np.asarray(len(inputs), dtype=total.dtype)


@register("layer")
class Maximum(Merge):
    """Return the largest of the inputs element by element.

    Shapes and masks as for `Add`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Maximum()([np.array([[3.0, 2.0]]), np.array([[1.0, 4.0]])]).tolist()
    [[3.0, 4.0]]
    """

    def merge(self, inputs: list[Tensor]) -> Tensor:
        return reduce(pt.maximum, inputs)


@register("layer")
class Minimum(Merge):
    """Return the smallest of the inputs element by element.

    Shapes and masks as for `Add`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Minimum()([np.array([[3.0, 2.0]]), np.array([[1.0, 4.0]])]).tolist()
    [[1.0, 2.0]]
    """

    def merge(self, inputs: list[Tensor]) -> Tensor:
        return reduce(pt.minimum, inputs)


@register("layer")
class Concatenate(Merge):
    """Join inputs along an axis.

    The inputs have the same shape but for that axis. Joined along the features, a step of the
    output is masked where it is masked in any input. Joined along time, the masks are joined
    too. Arguments as in Keras 3.

    Parameters
    ----------
    axis : int
        The axis to join, by default the last one. The batch, axis 0, cannot be joined.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Concatenate()([np.array([[1.0, 2.0]]), np.array([[3.0]])]).tolist()
    [[1.0, 2.0, 3.0]]
    """

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = check_axis(axis, "The axis of Concatenate")

    def call(self, inputs: Any) -> Tensor:
        return self.merge(items_of(inputs))

    def merge(self, inputs: list[Tensor]) -> Tensor:
        return pt.concatenate(inputs, axis=self.axis)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        shapes = items_of(input_shape)
        ranks = {len(shape) for shape in shapes}
        (rank,) = ranks if len(ranks) == 1 else (0,)
        if not -rank < self.axis < rank:
            raise ValueError(
                f"{describe(self)} joins axis {self.axis} of inputs of the same number of axes, "
                f"got the shapes {shapes_as_text(shapes)}."
            )
        joined = self.axis % rank
        sizes = [[shape[axis] for shape in shapes] for axis in range(rank)]
        for axis, found in enumerate(sizes):
            known = {size for size in found if size is not None}
            if axis != joined and len(known) > 1:
                raise ValueError(
                    f"{describe(self)} joins axis {joined} of inputs whose other axes are equal, "
                    f"got the shapes {shapes_as_text(shapes)}: axis {axis} has the sizes "
                    f"{', '.join(str(n) for n in found)}."
                )
        length = None if None in sizes[joined] else sum(cast("list[int]", sizes[joined]))
        shape = [next((n for n in found if n is not None), None) for found in sizes]
        return (*shape[:joined], length, *shape[joined + 1 :])

    def compute_mask(self, inputs: Any, mask: Any = None) -> Tensor | None:
        variables, masks = items_of(inputs), self.masks_of(inputs, mask)
        if all(m is None for m in masks):
            return None
        axis = self.axis % pt.as_tensor_variable(variables[0]).ndim
        rank = max(m.ndim for m in masks if m is not None)
        if axis >= rank:
            return reduce(masks_together, masks)
        parts = []
        for variable, m in zip(variables, masks, strict=True):
            if m is not None and m.ndim == rank:
                parts.append(m)
                continue
            every = pt.ones(tuple(pt.as_tensor_variable(variable).shape)[:rank], dtype="bool")
            parts.append(every if m is None else every & with_ndim(m, rank))
        return pt.concatenate(parts, axis=axis)


@register("layer")
class Dot(Merge):
    """Multiply two inputs and sum over one axis of each, for each example of the batch.

    For the shapes ``(batch, n)`` and ``(batch, n)`` the output is ``(batch, 1)``. For ``(batch, a,
    n)`` and ``(batch, b, n)`` with ``axes=2`` it is ``(batch, a, b)``: the axes of the first input
    without the summed one, then those of the second. Masked steps of an input are zero in
    sums. The output has the mask of the input whose time axis becomes its own. Arguments as in
    Keras 3, which does not use masks here.

    Parameters
    ----------
    axes : int or tuple of two int
        The axis of each input to sum over, not the batch; a number is for both.
    normalize : bool
        Whether to divide each input by its Euclidean norm along that axis first, so that the output
        is the cosine of their angle.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> a, b = np.array([[3.0, 4.0]]), np.array([[6.0, 8.0]])
    >>> seqnet.layers.Dot(axes=1)([a, b]).tolist()
    [[50.0]]
    >>> seqnet.layers.Dot(axes=1, normalize=True)([a, b]).round(6).tolist()
    [[1.0]]
    """

    def __init__(self, axes: int | Sequence[int], normalize: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        pair = list(axes) if isinstance(axes, (list, tuple)) else [axes, axes]
        if len(pair) != 2:
            raise ValueError(
                f"The axes of Dot are one number, or one for each input; got {axes!r}."
            )
        self.axes = tuple(check_axis(axis, "An axis of Dot") for axis in pair)
        self.normalize = check_bool(normalize, "normalize")

    def check_axes(self, input_shape: Any) -> None:
        check_two(self, input_shape)
        super().check_axes(input_shape)

    def summed(self, ranks: Sequence[int]) -> list[int]:
        """Return the axis of each input that is summed over, counted from the first."""
        return [axis % rank for axis, rank in zip(self.axes, ranks, strict=True)]

    def call(self, inputs: Any, mask: Any = None) -> Tensor:
        variables: list[Tensor] = items_of(inputs)
        masks = [None, None] if mask is None else items_of(mask)
        summed = self.summed([v.ndim for v in variables])
        sides = []
        for variable, m, axis in zip(variables, masks, summed, strict=True):
            x = variable if variable.dtype.startswith("float") else pt.cast(variable, self.dtype)
            if m is not None:
                x = pt.switch(with_ndim(m, x.ndim), x, np.asarray(0, dtype=x.dtype))
            if self.normalize:
                squares = pt.maximum(pt.sqr(x).sum(axis=axis, keepdims=True), constant(1e-12, x))
                x = x / pt.sqrt(squares)
            sides.append(pt.moveaxis(x, axis, -1))
        left, right = sides
        kept = [*tuple(left.shape)[1:-1], *tuple(right.shape)[1:-1]]
        a, b = (x.reshape((x.shape[0], -1, x.shape[-1]), ndim=3) for x in sides)
        product = pt.matmul(a, b.transpose(0, 2, 1))
        if not kept:
            return product[:, :, 0]
        return product.reshape((left.shape[0], *kept), ndim=1 + len(kept))

    def merge(self, inputs: list[Tensor]) -> Tensor:
        return self.call(inputs)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        shapes = items_of(input_shape)
        ranks = [len(shape) for shape in shapes]
        pairs = list(zip(self.axes, ranks, strict=True))
        if not all(-rank < axis < rank for axis, rank in pairs):
            raise ValueError(
                f"{describe(self)} sums over the axes {self.axes}, which inputs of the shapes "
                f"{shapes_as_text(shapes)} do not have."
            )
        first, second = self.summed(ranks)
        sizes = {shapes[0][first], shapes[1][second]} - {None}
        batches = {shape[0] for shape in shapes} - {None}
        if len(sizes) > 1 or len(batches) > 1:
            raise ValueError(
                f"{describe(self)} sums over axis {first} of the first input and axis {second} of "
                f"the second, got the shapes {shapes_as_text(shapes)}: these axes, and the batch, "
                "must be equal."
            )
        kept = [
            size
            for shape, axis in zip(shapes, (first, second), strict=True)
            for k, size in enumerate(shape)
            if k not in (0, axis)
        ]
        return (batches.pop() if batches else None, *(kept or [1]))

    def compute_mask(self, inputs: Any, mask: Any = None) -> Tensor | None:
        if mask is None:
            return None
        variables = [pt.as_tensor_variable(v) for v in items_of(inputs)]
        summed = self.summed([v.ndim for v in variables])
        for variable, axis, m in zip(variables, summed, items_of(mask), strict=True):
            if variable.ndim > 2:  # it has the first axis of the output after the batch
                return m if axis > 1 else None
        return None


def check_axis(axis: object, name: str) -> int:
    """Return the number of an axis, or raise; the batch, axis 0, is refused."""
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {axis!r}.")
    if axis == 0:
        raise ValueError(f"{name} is not the batch, axis 0.")
    return int(axis)


def check_two(layer: Layer, input_shape: Any) -> None:
    """Raise ``ValueError`` if a layer does not get two inputs."""
    if len(input_shape) != 2:
        raise ValueError(
            f"{describe(layer)} takes two inputs, got {len(input_shape)}, of the shapes "
            f"{shapes_as_text(items_of(input_shape))}."
        )


# ---- the layers as functions of a list of variables


def add(inputs: Sequence[TensorLike], **kwargs: Any) -> Tensor:
    """Return ``Add(**kwargs)(inputs)``.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.add([np.array([[1.0]]), np.array([[2.0]])]).tolist()
    [[3.0]]
    """
    return cast(Tensor, Add(**kwargs)(inputs))


def subtract(inputs: Sequence[TensorLike], **kwargs: Any) -> Tensor:
    """Return ``Subtract(**kwargs)(inputs)``.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.subtract([np.array([[1.0]]), np.array([[2.0]])]).tolist()
    [[-1.0]]
    """
    return cast(Tensor, Subtract(**kwargs)(inputs))


def multiply(inputs: Sequence[TensorLike], **kwargs: Any) -> Tensor:
    """Return ``Multiply(**kwargs)(inputs)``.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.multiply([np.array([[3.0]]), np.array([[2.0]])]).tolist()
    [[6.0]]
    """
    return cast(Tensor, Multiply(**kwargs)(inputs))


def average(inputs: Sequence[TensorLike], **kwargs: Any) -> Tensor:
    """Return ``Average(**kwargs)(inputs)``.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.average([np.array([[3.0]]), np.array([[2.0]])]).tolist()
    [[2.5]]
    """
    return cast(Tensor, Average(**kwargs)(inputs))


def maximum(inputs: Sequence[TensorLike], **kwargs: Any) -> Tensor:
    """Return ``Maximum(**kwargs)(inputs)``.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.maximum([np.array([[3.0]]), np.array([[2.0]])]).tolist()
    [[3.0]]
    """
    return cast(Tensor, Maximum(**kwargs)(inputs))


def minimum(inputs: Sequence[TensorLike], **kwargs: Any) -> Tensor:
    """Return ``Minimum(**kwargs)(inputs)``.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.minimum([np.array([[3.0]]), np.array([[2.0]])]).tolist()
    [[2.0]]
    """
    return cast(Tensor, Minimum(**kwargs)(inputs))


def concatenate(inputs: Sequence[TensorLike], axis: int = -1, **kwargs: Any) -> Tensor:
    """Return ``Concatenate(axis, **kwargs)(inputs)``.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.concatenate([np.array([[3.0]]), np.array([[2.0]])]).tolist()
    [[3.0, 2.0]]
    """
    return cast(Tensor, Concatenate(axis, **kwargs)(inputs))


def dot(
    inputs: Sequence[TensorLike],
    axes: int | Sequence[int] = -1,
    normalize: bool = False,
    **kwargs: Any,
) -> Tensor:
    """Return ``Dot(axes, normalize, **kwargs)(inputs)``.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.dot([np.array([[3.0, 1.0]]), np.array([[2.0, 1.0]])]).tolist()
    [[7.0]]
    """
    return cast(Tensor, Dot(axes, normalize, **kwargs)(inputs))

"""Call a layer: check its mask, arguments and output."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import pytensor.tensor as pt

from seqnet.layers.context import CallContext
from seqnet.losses.logits import cast_output
from seqnet.regularizers import penalty
from seqnet.types import Shape, Tensor, TensorLike

if TYPE_CHECKING:
    from seqnet.layers.layer import Layer

Mask = TypeVar("Mask", Tensor, np.ndarray)


def call_layer(
    layer: Layer,
    inputs: Tensor,
    mask: Tensor | None,
    context: CallContext,
    options: Mapping[str, Any],
) -> Tensor | list[Tensor]:
    """Return the output of a layer's `call`.

    `call` gets the inputs, those of mask, context and training that its signature has, and options.
    """
    if not hasattr(context, "training"):
        raise TypeError(f"context is a seqnet.layers.CallContext, got {context!r}.")
    offered = {"mask": mask, "context": context, "training": context.training}
    takes, needs, anything = signature_of_call(type(layer).call)
    what = f"The call of layer {layer.display_name!r} ({type(layer).__name__})"
    unknown = [] if anything else [name for name in options if name not in takes]
    missing = [name for name in needs if name not in offered and name not in options]
    if unknown or missing:
        raise TypeError(
            f"{what} {'needs' if missing else 'takes no'} {', '.join(missing or unknown)}. Besides "
            "the inputs, it is given what it takes of mask, context and training, and arguments "
            "that are passed by name where the layer is called; others need a default."
        )
    given: dict[str, Any] = {
        name: value for name, value in offered.items() if anything or name in takes
    }
    output = layer.call(inputs, **given, **options)
    if isinstance(output, (list, tuple)):
        return [as_output(layer, part, inputs, what) for part in output]
    return as_output(layer, output, inputs, what)


@cache
def signature_of_call(call: Callable) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """Return the named arguments of a `call`, those without default, and if it takes any name."""
    _, *arguments = inspect.signature(call).parameters.values()
    if not arguments or arguments[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise TypeError(f"{call.__qualname__} must take the inputs: call(self, inputs).")
    anything = any(a.kind is a.VAR_KEYWORD for a in arguments)
    named = [a for a in arguments[1:] if a.kind not in (a.VAR_KEYWORD, a.VAR_POSITIONAL)]
    takes = tuple(a.name for a in named if a.kind is not a.POSITIONAL_ONLY)
    return takes, tuple(a.name for a in named if a.default is a.empty), anything


def as_output(layer: Layer, output: TensorLike | None, inputs: Tensor, what: str) -> Tensor:
    """Return an output as a variable; floats wider than the layer's and the input's are cast."""
    if output is None:
        raise TypeError(f"{what} returns None: it must return the output.")
    output = pt.as_tensor_variable(output)
    if output.dtype == "float64" and "float64" not in (layer.dtype, inputs.dtype):
        return cast_output(output, layer.dtype)
    return output


def add_activity_loss(
    layer: Layer, output: Tensor | list[Tensor], mask: Tensor | None, context: CallContext
) -> None:
    """Add the penalty of a layer's `activity_regularizer` on its outputs to the loss.

    A penalty is divided by the number of examples. Where there is no data, the outputs enter as
    zeros; `mask` is that of the first output.
    """
    regularizer = cast(Callable, layer.activity_regularizer)
    for k, part in enumerate(output if isinstance(output, list) else [output]):
        present = context.present(None if k else mask)
        examples = part.shape[0] if context.examples is None else context.examples
        if present is not None:
            kept = with_ndim(present, part.ndim)
            part = pt.switch(kept, part, np.asarray(0, dtype=part.dtype))
        loss = penalty(regularizer, part, f"the output of {layer.display_name}")
        context.add_loss(loss / pt.cast(examples, loss.dtype))


def trial_output(layer: Layer, input_shape: Shape, context: CallContext) -> Tensor | list[Tensor]:
    """Return the output of a layer for a new variable of a shape, without a mask."""
    dtype = "int32" if layer.integer_input else layer.dtype
    return call_layer(layer, pt.tensor(dtype=dtype, shape=input_shape), None, context, {})


def checked_inputs(layer: Layer, inputs: TensorLike) -> Tensor:
    """Return the inputs of a layer as a variable, or raise."""
    try:
        return pt.as_tensor_variable(inputs)
    except (TypeError, NotImplementedError, ValueError) as error:
        raise TypeError(
            f"Layer {layer.display_name!r} ({type(layer).__name__}) is called on a PyTensor "
            f"variable or an array of numbers, not on {str(inputs)[:100]!r} of type "
            f"{type(inputs).__name__}."
        ) from error


def checked_mask(layer: Layer, mask: TensorLike, inputs: Tensor) -> Tensor:
    """Return a mask as a bool variable whose axes are the first ones of the inputs, or raise.

    A layer of sequences (batch, time, features) takes a mask (batch, time).
    """
    mask = pt.as_tensor_variable(mask)
    about = f"The mask of layer {layer.display_name!r} ({type(layer).__name__})"
    if mask.dtype != "bool":
        raise TypeError(
            f"{about} must be bool, True where there is data, got the dtype {mask.dtype}."
        )
    sizes, wanted = mask.type.shape, inputs.type.shape
    sequences = layer.input_axes[1:2] == ("time",)
    least, most = (2, 2) if sequences else (1, len(wanted))
    fits = all(None in pair or pair[0] == pair[1] for pair in zip(sizes, wanted, strict=False))
    if not least <= mask.ndim <= most or not fits:
        raise ValueError(
            f"{about} has the shape {sizes}, and its input {wanted}: the axes of a mask are the "
            f"first {'two' if sequences else 'ones'} of the input, (batch, time)."
        )
    return mask


def masks_together(first: Mask | None, second: Mask | None) -> Mask | None:
    """Return where both masks have data; None masks nothing.

    A mask with fewer axes holds for all the steps inside: (batch, sentences) combines with (batch,
    sentences, words). Works on symbolic and on NumPy arrays.
    """
    if first is None:
        return second
    if second is None:
        return first
    ndim = max(first.ndim, second.ndim)
    return with_ndim(first, ndim) & with_ndim(second, ndim)


def with_ndim(mask: Mask, ndim: int) -> Mask:
    """Return a mask with `ndim` axes; new ones are the last."""
    new: tuple[Any, ...] = (None,) * (ndim - mask.ndim)
    return mask[(..., *new)] if new else mask


def own_axis(layer: Layer, axis: int, ndim: int) -> int:
    """Return the number, from 0, of an axis of an input, or raise if there is none."""
    found = axis + ndim if axis < 0 else axis
    if not 1 <= found < ndim:
        raise ValueError(
            f"Layer {layer.display_name!r} ({type(layer).__name__}) has the axis {axis}, but its "
            f"input has {ndim} axes, the batch first."
        )
    return found


def why_missing(layer: Layer, name: str) -> str:
    """Return the error message for a missing attribute of a layer."""
    kind, own = type(layer).__name__, vars(layer)
    if "built" not in own:
        return f"{kind}.__init__ must call super().__init__(**kwargs) before anything else."
    text = f"Layer {layer.display_name!r} ({kind}) has no {name!r}."
    if own["built"]:
        return text
    return (
        f"{text} It is not built: weights are made at the first call, by Model.build, or from "
        "input_shape=."
    )

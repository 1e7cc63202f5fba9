"""Call a layer: check its inputs, masks, arguments and output.

The first argument of a layer's `call` is one variable, or a list or dictionary of several. Further
arguments may be variables too, such as the `value` of an attention. Masks, shapes and types have
the same structure.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from inspect import Parameter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.tensor.variable import TensorVariable

from seqnet.common.keras_names import GONE_OF_LAYERS
from seqnet.common.types import Shape, Tensor, TensorLike
from seqnet.layers.context import CallContext
from seqnet.losses.logits import cast_output
from seqnet.regularizers import penalty

if TYPE_CHECKING:
    from seqnet.layers.layer import Layer

Mask = TypeVar("Mask", Tensor, np.ndarray)

Tensors: TypeAlias = Tensor | list[Tensor] | dict[str, Tensor]
"""One variable, or several in a list or a dictionary."""

Masks: TypeAlias = Tensor | list[Tensor | None] | dict[str, Tensor | None] | None
"""One mask or None, or one for each of several variables."""

Shapes: TypeAlias = Shape | list[Shape] | dict[str, Shape]
"""The shape of one variable, or the shapes of several in a list or a dictionary."""

# ---- one variable, or several


def is_several(value: object) -> bool:
    """Return whether a value is a list, tuple or dictionary that holds variables or arrays.

    A list of numbers is one array.
    """
    items = value.values() if isinstance(value, dict) else value
    return isinstance(value, (list, tuple, dict)) and any(
        isinstance(item, (Variable, np.ndarray))
        for item in items  # type: ignore[attr-defined]
    )


def map_several(function: Callable, first: Any, *others: Any) -> Any:
    """Apply a function to a value, or to each item of a list or dictionary."""
    if isinstance(first, dict):
        return {k: function(v, *(other[k] for other in others)) for k, v in first.items()}
    if isinstance(first, list):
        return [function(*items) for items in zip(first, *others, strict=True)]
    return function(first, *others)


def items_of(value: Any) -> list:
    """Return the items of a list or dictionary, or a list of the value itself."""
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else [value]


def shapes_of(value: Any) -> Any:
    """Return the static shape of a variable, or the shapes of several; None for None."""
    return map_several(lambda v: None if v is None else tuple(v.type.shape), value)


# ---- the steps of a call, in order


def bind_arguments(
    layer: Layer, inputs: Any, others: Sequence, mask: Any, options: Mapping[str, Any]
) -> tuple[Tensors, Any, dict[str, Any]]:
    """Return the inputs, their mask and the options by name; arrays become variables.

    The inputs may be passed by the name that they have in the layer's `call`, and their mask as
    ``<name>_mask``; arguments without a name get those of `call`, in order.
    """
    signature = signature_of_call(type(layer).call)
    options = dict(options)
    what = describe(layer)
    if inputs is None:
        for name in (signature.first, "inputs"):
            inputs = options.pop(name, None) if inputs is None else inputs
    if len(others) > len(signature.positional):
        raise TypeError(
            f"{what} takes at most {1 + len(signature.positional)} arguments without a name, got "
            f"{1 + len(others)}. Pass several inputs of one argument as a list."
        )
    for name, value in zip(signature.positional, others, strict=False):
        if name in options:
            raise TypeError(f"{what} got the argument {name} twice.")
        options[name] = value
    for name in ("mask", f"{signature.first}_mask"):
        given = options.pop(name, None)
        if given is not None and mask is not None:
            raise TypeError(f"{what} got the mask of its inputs twice: as mask and as {name}.")
        mask = given if mask is None else mask
    check_arguments(layer, options)
    return checked_inputs(layer, inputs), mask, {k: as_variables(v) for k, v in options.items()}


def check_arguments(layer: Layer, options: Mapping[str, Any]) -> None:
    """Raise ``TypeError`` if a layer's `call` does not take the options, or needs others."""
    signature = signature_of_call(type(layer).call)
    offered = ("mask", "context", "training", f"{signature.first}_mask")
    unknown = [n for n in options if not signature.anything and n not in signature.takes]
    missing = [n for n in signature.needs if n not in offered and n not in options]
    if unknown or missing:
        raise TypeError(
            f"The call of layer {layer.display_name!r} ({type(layer).__name__}) "
            f"{'needs' if missing else 'takes no'} {', '.join(missing or unknown)}. Besides "
            "the inputs, it is given what it takes of mask, context and training, and arguments "
            "that are passed where the layer is called; others need a default."
        )


def checked_inputs(layer: Layer, inputs: Any) -> Tensors:
    """Return the inputs of a layer as a variable, or as several, or raise."""
    if isinstance(inputs, tuple) and is_several(inputs):
        inputs = list(inputs)
    if not is_several(inputs):
        return checked_input(layer, inputs)
    return map_several(lambda item: checked_input(layer, item), inputs)


def checked_input(layer: Layer, inputs: Any) -> Tensor:
    """Return one input of a layer as a variable, or raise."""
    try:
        return pt.as_tensor_variable(inputs)
    except (TypeError, NotImplementedError, ValueError) as error:
        raise TypeError(not_an_input(describe(layer), inputs)) from error


def not_an_input(who: str, value: Any) -> str:
    """Return the message for a value that a layer or model cannot be called on."""
    hint = ""
    if callable(value):
        hint = f" Call the {type(value).__name__} first, and pass its output."
    return (
        f"{who} is called on a PyTensor variable or an array of numbers, not on "
        f"{str(value)[:100]!r} of type {type(value).__name__}.{hint}"
    )


def as_variables(value: Any) -> Any:
    """Return arrays, also those in a list, tuple or dictionary, as variables; all else as it is."""
    if isinstance(value, np.ndarray):
        return pt.as_tensor_variable(value)
    if is_several(value):
        return map_several(as_variables, list(value) if isinstance(value, tuple) else value)
    return value


def argument_shapes(options: Mapping[str, Any]) -> dict[str, Shapes]:
    """Return the shapes of arguments that are variables but no masks, as ``<argument>_shape``."""
    variables = {k: v for k, v in options.items() if isinstance(v, Variable) or is_several(v)}
    variables = {k: v for k, v in variables.items() if not k.endswith("_mask")}
    return {f"{name}_shape": shapes_of(value) for name, value in variables.items()}


def check_several(layer: Layer, input_shape: Shapes) -> None:
    """Raise ``ValueError`` if a layer of one input gets several, or the reverse."""
    several, wanted = isinstance(input_shape, (list, dict)), layer.takes_several_inputs
    if wanted is None and layer.input_axes:
        wanted = False
    if wanted in (None, several):
        return
    if several:
        raise ValueError(
            f"{describe(layer)} takes one input, but got {len(input_shape)}, of the shapes "
            f"{', '.join(str(shape) for shape in items_of(input_shape))}. Call it once for each, "
            "or join them first, for example with Concatenate."
        )
    raise ValueError(
        f"{describe(layer)} takes a list of inputs, such as layer([a, b]), but got one of the "
        f"shape {input_shape}."
    )


def check_masks(
    layer: Layer, inputs: Tensors, mask: Any, options: Mapping[str, Any]
) -> tuple[Masks, dict[str, Any]]:
    """Return the mask of the inputs and the options, with masks as bool variables, or raise.

    A list of masks that are all None is None.
    """
    if isinstance(inputs, (list, dict)) and mask is not None:
        several = isinstance(mask, dict) if isinstance(inputs, dict) else is_list(mask)
        if not several or len(mask) != len(inputs):
            raise ValueError(
                f"{describe(layer)} has {len(inputs)} inputs, so its mask is a "
                f"{'dictionary' if isinstance(inputs, dict) else 'list'} of {len(inputs)} masks, "
                f"None for an input without one; got {mask!r}."
            )
        mask = list(mask) if isinstance(mask, tuple) else mask
        mask = None if all(m is None for m in items_of(mask)) else mask
    elif is_list(mask):
        raise TypeError(f"{describe(layer)} has one input, but got the masks {mask!r}.")
    if mask is not None and not layer.supports_masking:
        raise layer.mask_error()
    if mask is not None:
        mask = map_several(
            lambda v, m: None if m is None else checked_mask(layer, m, v), inputs, mask
        )
    masks = {}
    for name, value in options.items():
        given = options.get(f"{name}_mask")
        if isinstance(value, TensorVariable) and given is not None:
            masks[f"{name}_mask"] = checked_mask(layer, given, value, f"the argument {name}")
    return mask, {**options, **masks}


def bool_masks(
    layer: Layer, others: Sequence, mask: Any, options: Mapping[str, Any]
) -> tuple[list, Any, dict[str, Any]]:
    """Return the arguments of a call with masks of the numbers 0 and 1 as bool arrays."""
    names = signature_of_call(type(layer).call).positional
    places = [name.endswith("mask") for name in names[: len(others)]]
    places += [False] * (len(others) - len(places))
    return (
        [as_bools(v) if is_mask else v for v, is_mask in zip(others, places, strict=True)],
        as_bools(mask),
        {k: as_bools(v) if k.endswith("mask") else v for k, v in options.items()},
    )


def as_bools(mask: Any) -> Any:
    """Return an array of the numbers 0 and 1 as bools, also in a list; all else as it is."""
    if is_list(mask) or isinstance(mask, dict):
        return map_several(as_bools, list(mask) if isinstance(mask, tuple) else mask)
    if mask is None or isinstance(mask, Variable):
        return mask
    array = np.asarray(mask)
    if array.dtype.kind not in "iuf" or ((array != 0) & (array != 1)).any():
        return mask
    return array.astype(bool)


def is_list(value: object) -> bool:
    """Return whether a mask is a list or tuple with one mask for each input."""
    return isinstance(value, (list, tuple)) and (
        is_several(value) or all(item is None for item in value)
    )


def checked_mask(
    layer: Layer, mask: TensorLike, inputs: Tensor, of_what: str = "its input"
) -> Tensor:
    """Return a mask as a bool variable whose axes are the first ones of the inputs, or raise.

    A layer of sequences (batch, time, features) takes a mask (batch, time).
    """
    mask = pt.as_tensor_variable(mask)
    about = f"The mask of layer {layer.display_name!r} ({type(layer).__name__})"
    if mask.dtype != "bool":
        raise TypeError(
            f"{about} must be bool, True where there is data, or an array of the numbers 0 and 1; "
            f"got the dtype {mask.dtype}."
        )
    sizes, wanted = mask.type.shape, inputs.type.shape
    sequences = layer.input_axes[1:2] == ("time",)
    least, most = (2, 2) if sequences else (1, len(wanted))
    fits = all(None in pair or pair[0] == pair[1] for pair in zip(sizes, wanted, strict=False))
    if not least <= mask.ndim <= most or not fits:
        raise ValueError(
            f"{about} has the shape {sizes}, and {of_what} {wanted}: the axes of a mask are the "
            f"first {'two' if sequences else 'ones'} of the input, (batch, time)."
        )
    return mask


def call_layer(
    layer: Layer,
    inputs: Tensors,
    mask: Masks,
    context: CallContext,
    options: Mapping[str, Any],
) -> Tensor | list[Tensor]:
    """Return the output of a layer's `call`.

    `call` gets the inputs, those of mask, context and training that its signature has, and options.
    The mask is also offered as ``<name of the inputs>_mask``.
    """
    if not hasattr(context, "training"):
        raise TypeError(f"context is a seqnet.layers.CallContext, got {context!r}.")
    check_arguments(layer, options)
    signature = signature_of_call(type(layer).call)
    offered = {"mask": mask, "context": context, "training": context.training}
    if f"{signature.first}_mask" in signature.takes:
        offered[f"{signature.first}_mask"] = mask
    given: dict[str, Any] = {
        name: v for name, v in offered.items() if signature.anything or name in signature.takes
    }
    token = _running.set(Running(layer, mask, context))
    try:
        output = layer.call(inputs, **given, **options)
    finally:
        _running.reset(token)
    what = f"The call of layer {layer.display_name!r} ({type(layer).__name__})"
    done: dict[int, Tensor] = {}  # a variable that is returned twice stays one variable

    def as_outputs(part: Any) -> Any:
        if isinstance(part, (list, tuple)):
            return [as_outputs(item) for item in part]
        if id(part) not in done:
            done[id(part)] = as_output(layer, part, inputs, what)
        return done[id(part)]

    return as_outputs(output)


class Running(NamedTuple):
    """The call of a layer that is being computed."""

    layer: Layer
    mask: Masks
    context: CallContext


_running: ContextVar[Running | None] = ContextVar("running", default=None)


def completed(call: Callable) -> Callable:
    """Return a `call` that can be called without the mask and the context that it takes.

    They are those of the running call then, the mask only within a call of the same layer, so that
    subclasses may write ``super().call(inputs)``.
    """
    names = list(inspect.signature(call).parameters)[1:]
    parameters = inspect.signature(call).parameters
    needs = [
        n for n in ("mask", "context") if n in names and parameters[n].default is Parameter.empty
    ]
    if not needs:
        return call

    @functools.wraps(call)
    def called(self: Layer, *arguments: Any, **options: Any) -> Any:
        running = _running.get() or Running(self, None, CallContext())
        mask = running.mask if running.layer is self else None
        offered = {"mask": mask, "context": running.context}
        passed = {*names[: len(arguments)], *options}
        options |= {name: offered[name] for name in needs if name not in passed}
        return call(self, *arguments, **options)

    return called


def output_masks(
    layer: Layer, inputs: Tensors, mask: Masks, outputs: Tensor | Sequence[Tensor]
) -> Tensor | list[Tensor | None] | None:
    """Return the mask of a layer's output, or the list of those of its several outputs.

    A single mask that `compute_mask` returns for several outputs is that of the first one.
    """
    if isinstance(mask, (list, dict)) and all(m is None for m in items_of(mask)):
        mask = None
    found = layer.compute_mask(inputs, mask)
    if not isinstance(outputs, (list, tuple)):
        return found[0] if isinstance(found, (list, tuple)) else found
    masks = list(found) if isinstance(found, (list, tuple)) else [found]
    return [*masks, *[None] * (len(outputs) - len(masks))][: len(outputs)]


def argument_masks(layer: Layer, masks: Mapping[str, Masks]) -> dict[str, Masks]:
    """Return the masks of further arguments by the names under which `call` takes them."""
    signature = signature_of_call(type(layer).call)
    named = {f"{name}_mask": mask for name, mask in masks.items()}
    return {name: m for name, m in named.items() if name in signature.takes and m is not None}


class CallSignature(NamedTuple):
    """The arguments of a `call` besides self."""

    first: str
    """The name of the inputs."""
    takes: tuple[str, ...]
    """Arguments besides the inputs that can be passed by name."""
    positional: tuple[str, ...]
    """Those of them that can be passed without their name, in order."""
    needs: tuple[str, ...]
    """Those without a default."""
    anything: bool
    """Whether any name can be passed."""


@cache
def signature_of_call(call: Callable) -> CallSignature:
    """Return the arguments of a `call`."""
    _, *arguments = inspect.signature(call).parameters.values()
    if not arguments or arguments[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise TypeError(f"{call.__qualname__} must take the inputs: call(self, inputs).")
    anything = any(a.kind is a.VAR_KEYWORD for a in arguments)
    named = [a for a in arguments[1:] if a.kind not in (a.VAR_KEYWORD, a.VAR_POSITIONAL)]
    takes = [a for a in named if a.kind is not a.POSITIONAL_ONLY]
    return CallSignature(
        arguments[0].name,
        tuple(a.name for a in takes),
        tuple(a.name for a in takes if a.kind is not a.KEYWORD_ONLY),
        tuple(a.name for a in named if a.default is a.empty),
        anything,
    )


def taken_shapes(function: Callable, shapes: Mapping[str, Shapes]) -> dict[str, Shapes]:
    """Return those shapes that `build` or `compute_output_shape` takes by name."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(shapes)
    names = {p.name for p in parameters}
    return {name: shape for name, shape in shapes.items() if name in names}


def as_output(layer: Layer, output: TensorLike | None, inputs: Tensors, what: str) -> Tensor:
    """Return an output as a variable; floats wider than the layer's and the inputs' are cast."""
    if output is None:
        raise TypeError(f"{what} returns None: it must return the output.")
    output = pt.as_tensor_variable(output)
    dtypes = {layer.dtype, *[v.dtype for v in items_of(inputs)]}
    if output.dtype == "float64" and "float64" not in dtypes:
        return cast_output(output, layer.dtype)
    return output


def add_activity_loss(
    layer: Layer,
    output: Tensor | list[Tensor],
    masks: Tensor | list[Tensor | None] | None,
    context: CallContext,
) -> None:
    """Add the penalty of a layer's `activity_regularizer` on its outputs to the loss.

    A penalty is divided by the number of examples. Where there is no data, the outputs enter as
    zeros; there is a mask, or None, for each output.
    """
    regularizer = cast(Callable, layer.activity_regularizer)
    for part, mask in zip(items_of(output), items_of(masks), strict=True):
        present = context.present(mask)
        examples = part.shape[0] if context.examples is None else context.examples
        if present is not None:
            kept = with_ndim(present, part.ndim)
            part = pt.switch(kept, part, np.asarray(0, dtype=part.dtype))
        loss = penalty(regularizer, part, f"the output of {layer.display_name}")
        context.add_loss(loss / pt.cast(examples, loss.dtype))


def trial_output(
    layer: Layer, input_shape: Shapes, context: CallContext, **shapes: Shapes
) -> Tensor | list[Tensor]:
    """Return the output of a layer for new variables of given shapes, without a mask.

    `shapes` has those of further arguments, as ``<argument>_shape``.
    """
    dtype = "int32" if layer.integer_input else layer.dtype

    def variable(shape: Shape | None) -> Tensor | None:
        return None if shape is None else pt.tensor(dtype=dtype, shape=shape)

    takes = signature_of_call(type(layer).call).takes
    named = {name.removesuffix("_shape"): shape for name, shape in shapes.items()}
    options = {k: map_several(variable, shape) for k, shape in named.items() if k in takes}
    return call_layer(layer, map_several(variable, input_shape), None, context, options)


def describe(layer: Layer) -> str:
    """Return a layer's name and class, as messages begin with."""
    return f"Layer {layer.display_name!r} ({type(layer).__name__})"


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
    """Return the number, from 0, of an axis of an input, or raise if it does not exist."""
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
    instead = f"; call {GONE_OF_LAYERS[name]}" if name in GONE_OF_LAYERS else ""
    text = f"Layer {layer.display_name!r} ({kind}) has no {name!r}{instead}."
    if own["built"] or instead:
        return text
    return (
        f"{text} It is not built: weights are made at the first call, by Model.build, or from "
        "input_shape=."
    )

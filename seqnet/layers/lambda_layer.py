"""A function of the inputs as a layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.mode import Mode
from pytensor.graph.op import HasInnerGraph
from pytensor.graph.traversal import applys_between
from pytensor.tensor.random.op import RandomVariable

from seqnet.common.checks import check_bool, check_shape
from seqnet.common.types import Shape, Tensor
from seqnet.layers.calling import Tensors, items_of, map_several, shapes_of
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.registry import in_scope, register


@register("layer")
class Lambda(Layer):
    """Apply a function of a PyTensor variable, or of a list of several.

    Parameters
    ----------
    function : callable
        ``function(inputs) -> output`` of PyTensor variables, the batch as their first axis. If it
        has an argument named ``mask``, it gets the mask (batch, time) or None. Where the layer is
        called on a list, ``layer([a, b])``, both are lists, or the mask is None. It may return a
        list of outputs.
    output_shape : tuple or function, optional
        Shape of one example of the output, without the batch, None for unknown sizes; or a function
        of the shape of the input, or of the list of shapes, both with the batch. By default it is
        found by applying the function to a variable of the input's shape.
    supports_masking : bool
        True if each step of the output corresponds to the same step of the input, so that the mask
        of the input, or of the first input, is that of the output. Otherwise a mask is an error,
        unless the function takes and uses it.
    arguments : dict, optional
        Further arguments of the function, by name.

    Raises
    ------
    ValueError
        If the function mixes the rows of a batch, as ``x - x.mean(axis=0)`` does: then results
        would depend on batches. This is tested with random numbers when the layer is built. A
        function that contains a loop or random numbers, or that fails on the test's inputs, is not
        tested.

    Notes
    -----
    A file holds the function's name and not its code: to load the model, pass
    ``custom_objects={"name": function}``. A ``lambda`` expression has no name and cannot be saved.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> last = seqnet.layers.Lambda(lambda x: x[:, -1])
    >>> last(np.array([[[1.0], [2.0]]])).tolist()
    [[2.0]]
    >>> last.compute_output_shape((None, None, 4))
    (None, 4)
    >>> powers = seqnet.layers.Lambda(lambda x, n: x**n, arguments={"n": 2})
    >>> powers(np.array([[3.0]])).tolist()
    [[9.0]]
    >>> difference = seqnet.layers.Lambda(lambda both: both[0] - both[1])
    >>> difference([np.array([[3.0]]), np.array([[1.0]])]).tolist()
    [[2.0]]
    """

    def __init__(
        self,
        function: Callable[..., Tensor | list[Tensor]],
        output_shape: Shape | Callable[[Any], Any] | None = None,
        *,
        supports_masking: bool = False,
        arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not callable(function):
            raise TypeError(f"Lambda takes a function of a PyTensor variable, got {function!r}.")
        self.function = function
        given = output_shape is None or callable(output_shape)
        self.output_shape = output_shape if given else check_shape(output_shape, "output_shape")
        if not isinstance(arguments or {}, Mapping):
            raise TypeError(f"The arguments of Lambda are a dictionary by name, got {arguments!r}.")
        self.arguments = dict(arguments or {})
        self.passes_mask_on = check_bool(supports_masking, "supports_masking")
        self.takes_mask = "mask" in argument_names(function)

    @property
    def supports_masking(self) -> bool:  # type: ignore[override]
        """Whether the mask is passed on or used."""
        return self.passes_mask_on or self.takes_mask

    def masking_hint(self) -> str:
        return (
            "If each step of its output corresponds to the same step of its input, pass "
            "supports_masking=True; otherwise give the function an argument named mask."
        )

    def build(self, input_shape: Any) -> None:
        inputs = self._variables(input_shape)
        try:
            mask = map_several(lambda x: pt.ones(x.shape[:2], dtype="bool"), inputs)
            output = self.apply(inputs, mask)
            mixed = mixes_rows(inputs, output)
        except Exception:  # it may need other inputs; then a call raises
            return
        if mixed:
            raise ValueError(
                f"The function of layer {self.display_name!r} (Lambda) mixes the rows of a batch: "
                "its output for several rows differs from that for each row alone, so results "
                "would depend on the batches. The first axis is the batch; the "
                f"steps of a sequence are axis 1. Its input has the shape {input_shape}."
            )
        if self.output_shape is None:
            return
        found, said = shapes_of(output), self.compute_output_shape(input_shape)
        if isinstance(found, list) != isinstance(said, list) or not all(
            map(fits, items_of(found), items_of(said))
        ):
            one = not isinstance(found, list) and not isinstance(said, list)
            raise ValueError(
                f"The function of layer {self.display_name!r} (Lambda) returns examples of the "
                f"shape {found[1:] if one else found}, not of the output_shape "
                f"{said[1:] if one else said}."
            )

    def _variables(self, input_shape: Any) -> Tensors:
        """Return new variables of given shapes."""
        return map_several(lambda shape: pt.tensor(dtype=self.dtype, shape=shape), input_shape)

    def apply(self, inputs: Tensors, mask: Any = None) -> Tensor | list[Tensor]:
        """Apply the function to a variable or several."""
        options = self.arguments | ({"mask": mask} if self.takes_mask else {})
        output = self.function(inputs, **options)
        if isinstance(output, (list, tuple)):
            return [pt.as_tensor_variable(item) for item in output]
        return pt.as_tensor_variable(output)

    def call(self, inputs: Any, mask: Any, context: CallContext) -> Tensor | list[Tensor]:
        return self.apply(inputs, mask)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Tensor | None:
        return items_of(mask)[0] if self.passes_mask_on else None

    def compute_output_shape(self, input_shape: Any) -> Any:
        if callable(self.output_shape):
            said = self.output_shape(input_shape)
            several = isinstance(said, list) and any(isinstance(n, (list, tuple)) for n in said)
            return [tuple(shape) for shape in said] if several else tuple(said)
        if self.output_shape is not None:
            return (items_of(input_shape)[0][0], *self.output_shape)
        inputs = self._variables(input_shape)
        mask = map_several(lambda shape: pt.tensor(dtype="bool", shape=shape[:2]), input_shape)
        try:
            return shapes_of(self.apply(inputs, mask))
        except Exception as error:
            raise ValueError(
                f"The function of layer {self.display_name!r} (Lambda) cannot be applied to a "
                f"variable of the shape {input_shape} and the dtype {self.dtype} to find its "
                f"output's shape ({error}). Pass output_shape=, without the batch."
            ) from error

    def get_config(self) -> dict[str, Any]:
        name = getattr(self.function, "__name__", "<lambda>")
        if not name.isidentifier():
            raise ValueError(
                f"Layer {self.display_name!r} (Lambda) cannot be saved, because its function has "
                "no name. Write it with def, and pass it in custom_objects= when you load the "
                "model."
            )
        return super().get_config() | {"supports_masking": self.passes_mask_on}

    @classmethod
    def _revive(cls, value: Any, custom_objects: dict[str, Any] | None) -> Any:
        if isinstance(value, dict) and "name" in value:
            name, known = value["name"], in_scope(custom_objects)
            if name not in known:
                raise ValueError(
                    f"A Lambda layer of the file holds the function {name!r}, and files hold no "
                    f"code: pass custom_objects={{{name!r}: {name}}}."
                )
            return known[name]
        return value


def fits(found: Shape, said: Shape) -> bool:
    """Return whether a shape can be that which a user gave, but for the batch."""
    pairs = zip(found[1:], said[1:], strict=False)
    return len(found) == len(said) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def mixes_rows(inputs: Tensors, outputs: Tensor | list[Tensor]) -> bool:
    """Return whether rows of an output depend on other rows of the inputs, from one test.

    Graphs with loops or random numbers are not tested and give False.
    """
    return any(mixes(items_of(inputs), output) for output in items_of(outputs))


def mixes(variables: list[Tensor], output: Tensor) -> bool:
    """Return whether rows of one output depend on other rows of variables."""
    for node in applys_between(variables, [output]):
        if isinstance(node.op, (HasInnerGraph, RandomVariable)):
            return False
    rng = np.random.default_rng(0)
    values = []
    for variable in variables:
        sizes = [3 if size is None else size for size in variable.type.shape[1:]]
        values.append(rng.normal(size=(4, *sizes)).astype(variable.dtype))
    mode = Mode(linker="py", optimizer=None)  # type: ignore[arg-type]  # None is no rewriting

    def result(rows: slice) -> np.ndarray:
        given: dict[Any, Any] = {v: x[rows] for v, x in zip(variables, values, strict=True)}
        return output.eval(given, mode=mode, on_unused_input="ignore")

    whole = result(slice(None))
    if whole.shape[:1] != (4,):
        return True
    alone = np.concatenate([result(slice(k, k + 1)) for k in range(4)])
    return alone.shape != whole.shape or not np.allclose(alone, whole, rtol=1e-3, atol=1e-5)


def argument_names(function: Callable) -> list[str]:
    """Return the names of a function's arguments, none if they cannot be read."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some functions written in C have no signature
        return []

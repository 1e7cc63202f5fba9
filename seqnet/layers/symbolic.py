"""Inputs of models, and calls of layers on them.

`Input` returns a PyTensor variable. A layer that is called on a variable that depends on one does
not build its graph: the call is recorded as a `LayerCall` node, whose outputs have the types of the
layer's outputs. A model applies the recorded calls to the variables of each function that it
compiles, with their masks and settings (`seqnet.graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import Op
from pytensor.tensor.type import TensorType
from pytensor.tensor.variable import TensorVariable

from seqnet import config
from seqnet.common.checks import check_bool, check_count, check_shape
from seqnet.common.keras_names import takes_keras_names
from seqnet.common.types import Shape, Tensor
from seqnet.layers.calling import output_masks, taken_shapes
from seqnet.layers.context import CallContext

if TYPE_CHECKING:
    from seqnet.layers.layer import Layer


class InputVariable(TensorVariable):
    """A PyTensor variable that represents an input of a model, created by `Input`.

    Attributes
    ----------
    chosen_dtype : str, optional
        The dtype that was asked for; None if the layers that use the input decide.
    """

    chosen_dtype: str | None = None

    @property
    def batch_shape(self) -> Shape:
        """The static shape, the batch first, None for sizes that vary."""
        return tuple(self.type.shape)


@takes_keras_names
def Input(  # noqa: N802  (the name of Keras)
    shape: Sequence[int | None] | None = None,
    batch_size: int | None = None,
    dtype: str | None = None,
    name: str | None = None,
    *,
    batch_shape: Sequence[int | None] | None = None,
) -> InputVariable:
    """Return the symbolic input of a model.

    Layers are called on it, PyTensor's own operations may be mixed in, and
    ``Model(inputs, outputs)`` makes a model of the result.

    Parameters
    ----------
    shape : tuple of int or None
        The shape of one sample, without the batch; None for sizes that vary, such as the number
        of steps.
    batch_size : int, optional
        The number of samples, if it is fixed.
    dtype : str, optional
        ``"float32"``, ``"float64"``, ``"int32"`` or ``"bool"``. By default integers for an
        `Embedding`, and otherwise `seqnet.config.floatx()`.
    name : str, optional
        The name of the input in dictionaries of data, unique within a model.
    batch_shape : tuple, optional
        The shape with the batch, instead of `shape` and `batch_size`.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.layers import LSTM, Concatenate, Dense
    >>> words, other = seqnet.Input((None, 8), name="words"), seqnet.Input((3,), name="other")
    >>> output = Dense(1)(Concatenate()([LSTM(4)(words), other]))
    >>> model = seqnet.Model([words, other], output)
    >>> data = {"words": np.zeros((2, 5, 8)), "other": np.zeros((2, 3))}
    >>> model.predict(data).shape
    (2, 1)
    """
    if batch_shape is not None:
        if shape is not None or batch_size is not None:
            raise ValueError("Pass batch_shape, or shape and batch_size, and not both.")
        whole = check_shape(batch_shape, "batch_shape")
        if not whole:
            raise ValueError("batch_shape begins with the size of the batch, or None; got ().")
    else:
        if shape is None:
            raise TypeError("Input needs the shape of one sample, such as shape=(None, 8).")
        size = None if batch_size is None else check_count(batch_size, "batch_size")
        whole = (size, *check_shape(shape, "shape"))
    if name is not None and (not isinstance(name, str) or not name):
        raise TypeError(f"The name of an input is text, got {name!r}.")
    chosen = None if dtype is None else checked_dtype(dtype)
    # A size of one is not static, or PyTensor would mark the axis as broadcastable.
    variable = InputVariable(TensorType(chosen or config.floatx(), whole), None, name=name)
    variable.chosen_dtype = chosen
    return variable


def checked_dtype(dtype: Any) -> str:
    """Return the dtype of an input as compiled functions take it, or raise."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise ValueError(f"The dtype of an input is not {dtype!r}.") from None
    if found.kind in "iu":
        return "int32"
    if found.kind == "b":
        return "bool"
    return config.check_float_dtype(found.name)


# ---- recorded calls


@dataclass(frozen=True)
class Slot:
    """The place of a variable in the arguments of a recorded call."""

    index: int


def take_variables(tree: Any, found: list[Variable]) -> Any:
    """Return nested arguments with a `Slot` for each variable, which is appended to `found`."""
    if isinstance(tree, Variable):
        found.append(tree)
        return Slot(len(found) - 1)
    if isinstance(tree, (list, tuple)):
        return [take_variables(item, found) for item in tree]
    if isinstance(tree, dict):
        return {key: take_variables(item, found) for key, item in tree.items()}
    return tree


def put_values(tree: Any, values: Sequence[Any] | Mapping[int, Any]) -> Any:
    """Return nested arguments with a value for each `Slot`."""
    if isinstance(tree, Slot):
        return values[tree.index]
    if isinstance(tree, list):
        return [put_values(item, values) for item in tree]
    if isinstance(tree, dict):
        return {key: put_values(item, values) for key, item in tree.items()}
    return tree


class LayerCall(Op):
    """A recorded call of a layer: a node that represents its outputs.

    Parameters
    ----------
    layer : Layer
    inputs
        The first argument of the call: a `Slot`, or a list or dictionary of them.
    options : dict
        Further arguments by name, with a `Slot` for each variable. Those named ``mask`` and
        ``training`` replace the mask that comes with the inputs, and the mode of the pass.
    types : list of TensorType
        The types of the outputs.
    several : bool
        Whether the layer returns a list.
    """

    def __init__(
        self,
        layer: Layer,
        inputs: Any = Slot(0),
        options: Mapping[str, Any] | None = None,
        types: Sequence[TensorType] = (),
        several: bool = False,
    ):
        self.layer, self.inputs, self.options = layer, inputs, dict(options or {})
        self.types, self.several = list(types), several

    def make_node(self, *inputs: Variable) -> Apply:
        """Return a node with outputs of the layer's types."""
        return Apply(self, list(inputs), [out_type() for out_type in self.types])

    def apply(
        self, values: Sequence[Tensor], masks: Sequence[Tensor | None], context: CallContext
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Call the layer on variables with masks; return its outputs and their masks."""
        options = put_values(self.options, values)
        option_masks = put_values(self.options, masks)
        training = options.pop("training", None)
        if training is not None:
            context = context.with_training(training)
        mask = options.pop("mask", put_values(self.inputs, masks))
        inputs = put_values(self.inputs, values)
        return self.layer.replay(inputs, mask, options, option_masks, context)

    def output_masks(
        self, values: Sequence[Tensor], masks: Sequence[Tensor | None], outputs: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """Return the masks of the outputs, given variables of the right number of axes."""
        mask = put_values(self.inputs, masks)
        if "mask" in self.options:
            mask = put_values(self.options["mask"], values)
        results = list(outputs) if self.several else outputs[0]
        found = output_masks(self.layer, put_values(self.inputs, values), mask, results)
        return found if isinstance(found, list) else [found]

    def output_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        """Return the shapes of the outputs for the shapes of the variables."""
        named = put_values({k: v for k, v in self.options.items() if slots_of(v)}, shapes)
        others = {k: v for k, v in self.options.items() if k not in named}
        named = others | {f"{k}_shape": v for k, v in named.items() if not k.endswith("mask")}
        compute = self.layer.compute_output_shape
        found = compute(put_values(self.inputs, shapes), **taken_shapes(compute, named))
        return list(found) if isinstance(found, list) else [found]

    def perform(self, node: Apply, inputs: Sequence, output_storage: Sequence) -> None:
        """Raise an error: a recorded call has no values."""
        self.refuse()

    def grad(self, *args: Any) -> list:
        """Raise an error: a recorded call has no gradient."""
        self.refuse()

    pullback = L_op = R_op = pushforward = grad  # type: ignore[assignment]

    def refuse(self) -> NoReturn:
        """Raise an error that names the layer."""
        raise TypeError(
            f"The output of layer {self.layer.display_name!r} depends on seqnet.Input, which has "
            "no values outside a model. Make a model, seqnet.Model(inputs, outputs), and call it "
            "on a PyTensor variable, or call predict."
        )

    def __str__(self) -> str:
        return f"{type(self.layer).__name__}[{self.layer.display_name}]"


def depends_on_input(tree: Any) -> bool:
    """Return whether a variable among nested arguments depends on an `Input`.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> from seqnet.layers.symbolic import depends_on_input
    >>> x = seqnet.Input((3,))
    >>> depends_on_input([2 * x]), depends_on_input(pt.matrix())
    (True, False)
    """
    stack: list[Variable] = []
    take_variables(tree, stack)
    seen = set()
    while stack:
        variable = stack.pop()
        if isinstance(variable, InputVariable):
            return True
        node = variable.owner
        if node is None or node in seen:
            continue
        if isinstance(node.op, LayerCall):
            return True
        seen.add(node)
        stack += node.inputs
    return False


def record(
    layer: Layer, inputs: Any, mask: Any, options: Mapping[str, Any], training: bool | None
) -> Any:
    """Record a call of a layer; return the variables that stand for its outputs.

    The layer is built, and called once on other variables to find the types of its outputs.
    """
    named = dict(options)
    named |= {} if mask is None else {"mask": mask}
    named |= {} if training is None else {"training": check_bool(training, "training")}
    variables: list[Variable] = []
    places, slots = take_variables(inputs, variables), take_variables(named, variables)
    takes = layer.consumers(places)
    trial = [
        trial_variable(layer, v, any(other.integer_input for other in takes.get(k, ())))
        for k, v in enumerate(variables)
    ]
    result = layer(put_values(places, trial), **put_values(slots, trial))
    outputs = result if isinstance(result, list) else [result]
    shapes = LayerCall(layer, places, slots).output_shapes([v.type.shape for v in variables])
    types = [TensorType(output.dtype, shape) for output, shape in zip(outputs, shapes, strict=True)]
    call = LayerCall(layer, places, slots, types, isinstance(result, list))
    recorded = call.make_node(*variables).outputs
    return recorded if call.several else recorded[0]


def trial_variable(layer: Layer, variable: Variable, integers: bool) -> Variable:
    """Return a variable without history, like one that a layer is called on.

    `integers` is whether the layer takes integers in its place.
    """
    if isinstance(variable, (Constant, SharedVariable)):
        return variable
    shape = list(variable.type.shape)
    if layer.needs_length and len(shape) > 1 and shape[1] is None:
        shape[1] = 2  # the number of steps is known when a function is compiled
    is_open = isinstance(variable, InputVariable) and variable.chosen_dtype is None
    dtype = "int32" if is_open and integers else variable.type.dtype
    return pt.tensor(dtype=dtype, shape=tuple(shape))


def slots_of(tree: Any) -> list[Slot]:
    """Return the places of variables in nested arguments."""
    if isinstance(tree, (list, dict)):
        items = tree.values() if isinstance(tree, dict) else tree
        return [slot for item in items for slot in slots_of(item)]
    return [tree] if isinstance(tree, Slot) else []


def recorded_nodes(
    outputs: Iterable[Variable], stops: Callable[[Variable], bool] = lambda variable: False
) -> list[Apply]:
    """Return the nodes that variables depend on, each after those of its inputs."""
    done: dict[Apply, None] = {}
    stack: list[tuple[Variable, bool]] = [(variable, False) for variable in reversed(list(outputs))]
    while stack:
        variable, ready = stack.pop()
        node = variable.owner
        if node is None or node in done or stops(variable):
            continue
        if ready:
            done[node] = None
            continue
        stack.append((variable, True))
        stack += [(parent, False) for parent in reversed(node.inputs)]
    return list(done)

"""The graph of a model: layers, and operations of PyTensor, between named inputs and outputs.

A `Graph` is made from the variables that `Input` and recorded calls of layers return, or from a
list of layers. It is applied to the variables of each function that is compiled, and passes masks
from node to node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.op import Op
from pytensor.graph.traversal import ancestors
from pytensor.tensor.basic import Join
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.math import Dot
from pytensor.tensor.shape import Shape as ShapeOp
from pytensor.tensor.shape import Shape_i, SpecifyShape
from pytensor.tensor.sharedvar import TensorSharedVariable
from pytensor.tensor.special import LogSoftmax, Softmax
from pytensor.tensor.subtensor import Subtensor
from pytensor.tensor.type import TensorType

from seqnet import config
from seqnet.common.types import Shape, Tensor
from seqnet.layers.calling import masks_together
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.layers.symbolic import InputVariable, LayerCall, recorded_nodes

Mask = Tensor | None

MOST_SHAPES = 100
"""The maximum number of shapes of inputs whose shapes of values are kept."""


@dataclass(frozen=True, eq=False)
class Node:
    """A layer or an operation, applied to values of the graph.

    Attributes
    ----------
    op : LayerCall or Op
    inputs, outputs : tuple of int
        The numbers of values.
    types : tuple of TensorType
        The types that the inputs had when the call was recorded; empty in a stack of layers.
    results : tuple of TensorType
        The types that the outputs had.
    """

    op: Op
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    types: tuple[TensorType, ...] = ()
    results: tuple[TensorType, ...] = ()


@dataclass(frozen=True)
class StepsSource:
    """Where the steps of a value come from.

    Attributes
    ----------
    input : int
        The number of an input of the model.
    backwards : bool
        Whether they are in the reverse order.
    joined : bool
        Whether the steps of several inputs follow one another, so that padding is between them.
    """

    input: int
    backwards: bool = False
    joined: bool = False


@dataclass
class Graph:
    """Layers and operations between inputs and outputs.

    Attributes
    ----------
    inputs : tuple of int
        The numbers of the values that are inputs.
    outputs : tuple of int
        The numbers of the values that are outputs.
    nodes : list of Node
        Each after those whose outputs it takes.
    constants : dict
        Constants and shared variables by number.
    known_shapes : dict
        The shapes of all values, by those of the inputs, once all layers are built.
    dtypes : dict
        The dtypes that inputs are cast to, by number; others are taken as they come.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    nodes: list[Node]
    constants: dict[int, Variable] = field(default_factory=dict)
    known_shapes: dict[tuple, dict[int, Shape]] = field(default_factory=dict, repr=False)
    dtypes: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of_stack(cls, layers: Sequence[Layer]) -> Graph:
        """Return the graph of a stack of layers."""
        nodes = [
            Node(LayerCall(layer), (number,), (number + 1,)) for number, layer in enumerate(layers)
        ]
        return cls((0,), (len(nodes),), nodes)

    @classmethod
    def between(cls, inputs: Sequence[InputVariable], outputs: Sequence[Variable]) -> Graph:
        """Return the graph of recorded calls between variables.

        Raises
        ------
        ValueError
            If the outputs depend on an input that is missing, or on another symbolic variable
            without a value, or if an output does not depend on the inputs.
        """
        numbers: dict[Variable, int] = {}

        def number(variable: Variable) -> int:
            return numbers.setdefault(variable, len(numbers))

        given = tuple([number(variable) for variable in inputs])
        known = set(inputs)
        nodes: list[Node] = []
        constants: dict[int, Variable] = {}
        for node in recorded_nodes(outputs, known.__contains__):
            nodes.append(
                Node(
                    node.op,
                    tuple([number(variable) for variable in node.inputs]),
                    tuple([number(variable) for variable in node.outputs]),
                    tuple([variable.type for variable in node.inputs]),
                    tuple([variable.type for variable in node.outputs]),
                )
            )
        found = tuple([number(variable) for variable in outputs])
        for variable, k in numbers.items():
            if variable.owner is not None or variable in known:
                continue
            if not isinstance(variable, (Constant, SharedVariable)):
                raise ValueError(missing_input(variable, inputs))
            constants[k] = variable
        dtypes = {number(v): v.chosen_dtype for v in inputs if v.chosen_dtype is not None}
        return cls(given, found, nodes, constants, dtypes=dtypes)

    @cached_property
    def layers(self) -> list[Layer]:
        """The layers of the graph; those that are called first come first."""
        return list(dict.fromkeys(call.layer for call in self.calls()))

    @property
    def weights(self) -> list[TensorSharedVariable]:
        """The shared variables that operations use and no layer has."""
        found = [v for v in self.constants.values() if isinstance(v, TensorSharedVariable)]
        return [v for v in found if np.dtype(v.dtype).kind == "f"]

    def calls(self) -> Iterator[LayerCall]:
        """Yield the calls of layers."""
        return (node.op for node in self.nodes if isinstance(node.op, LayerCall))

    def operations(self) -> list[Op]:
        """Return the nodes that are not layers."""
        return [node.op for node in self.nodes if not isinstance(node.op, LayerCall)]

    def build(self, inputs: Sequence[Shape]) -> None:
        """Create the weights of all layers for inputs of some shapes, and check the shapes."""
        key = tuple(inputs)
        if key in self.known_shapes:
            return  # these shapes were checked before
        if not self.constants and all(len(node.inputs) == 1 for node in self.nodes):
            found = dict(zip(self.inputs, inputs, strict=True))
            for node in self.nodes:  # other layers were built when their calls were recorded
                shape = found[node.inputs[0]]
                if isinstance(node.op, LayerCall):
                    node.op.layer.ensure_built(shape)
                    results = node.op.output_shapes([shape])
                found.update(zip(node.outputs, results, strict=True))
        self.shapes(inputs)

    # ---- applied to variables

    def apply(
        self, inputs: Sequence[Tensor], masks: Sequence[Mask], context: CallContext
    ) -> tuple[list[Tensor], list[Mask]]:
        """Return the outputs for symbolic inputs, and their masks."""
        values: dict[int, Any] = dict(self.constants)
        known: dict[int, Mask] = {}
        values.update(zip(self.inputs, inputs, strict=True))
        values.update({k: pt.cast(values[k], dtype) for k, dtype in self.dtypes.items()})
        known.update(zip(self.inputs, masks, strict=True))
        for node in self.nodes:
            given = [values[k] for k in node.inputs]
            covers = [known.get(k) for k in node.inputs]
            if isinstance(node.op, LayerCall):
                results, found = node.op.apply(given, covers, context)
            else:
                given = [as_recorded(v, t) for v, t in zip(given, node.types, strict=True)]
                results = cast(list[Tensor], node.op.make_node(*given).outputs)
                found = [mask_after(node.op, given, covers, results)] * len(results)
            values.update(zip(node.outputs, results, strict=True))
            known.update(zip(node.outputs, found, strict=True))
        return [values[k] for k in self.outputs], [known.get(k) for k in self.outputs]

    def shapes(self, inputs: Sequence[Shape]) -> dict[int, Shape]:
        """Return the static shapes of all values, by their numbers.

        Parameters
        ----------
        inputs : list of tuple
            The shapes of the inputs, the batch first; None for sizes that vary.
        """
        key = tuple(inputs)
        if key in self.known_shapes:
            return self.known_shapes[key]
        found: dict[int, Shape] = {k: tuple(v.type.shape) for k, v in self.constants.items()}
        found.update(zip(self.inputs, inputs, strict=True))
        for node in self.nodes:
            shapes = [found[k] for k in node.inputs]
            if isinstance(node.op, LayerCall):
                results = node.op.output_shapes(shapes)
            else:
                given = [
                    self.constants.get(k, pt.tensor(dtype=t.dtype, shape=shape))
                    for k, t, shape in zip(node.inputs, node.types, shapes, strict=True)
                ]
                made = node.op.make_node(*given).outputs
                recorded = node.results or [v.type for v in made]
                results = [known_sizes(v.type, t) for v, t in zip(made, recorded, strict=True)]
            found.update(zip(node.outputs, results, strict=True))
        if all(layer.built for layer in self.layers):
            if len(self.known_shapes) >= MOST_SHAPES:
                self.known_shapes.clear()
            self.known_shapes[key] = found
        return found

    def masks(self, inputs: Sequence[Shape], masks: Sequence[Mask]) -> dict[int, Mask]:
        """Return the masks of all values, by their numbers, without applying the layers.

        Parameters
        ----------
        inputs : list of tuple
            The shapes of the inputs.
        masks : list of bool variable or None
            The masks of the inputs.
        """
        shapes = self.shapes(inputs)
        known: dict[int, Mask] = dict(zip(self.inputs, masks, strict=True))
        for node in self.nodes:
            covers = [known.get(k) for k in node.inputs]
            dtypes = [t.dtype for t in node.types] or [config.floatx()]
            given, results = [
                [pt.tensor(dtype=dtype, shape=(None,) * len(shapes[k])) for k, dtype in numbers]
                for numbers in (
                    zip(node.inputs, dtypes, strict=True),
                    [(k, config.floatx()) for k in node.outputs],
                )
            ]
            if isinstance(node.op, LayerCall):
                found = node.op.output_masks(given, covers, results)
            else:
                given = [
                    cast(Tensor, self.constants.get(k, v))
                    for k, v in zip(node.inputs, given, strict=True)
                ]
                kept = keeps_masks(node.op, given, covers, results[0])
                found = [mask_after(node.op, given, covers, results) if kept else None]
                found *= len(results)
            known.update(zip(node.outputs, found, strict=True))
        return known

    def mask_ranks(self, inputs: Sequence[Shape], ranks: Sequence[int]) -> list[int]:
        """Return the number of axes of the mask of each output; 0 without a mask.

        Parameters
        ----------
        inputs : list of tuple
            The shapes of the inputs.
        ranks : list of int
            The number of axes of the mask of each input; 0 for no mask.
        """
        masks = [pt.tensor(dtype="bool", shape=(None,) * n) if n else None for n in ranks]
        known = self.masks(inputs, masks)
        found = [known.get(k) for k in self.outputs]
        return [0 if mask is None else mask.ndim for mask in found]

    def last_layer(self, output: int) -> Layer | None:
        """Return the layer that computes an output; None if it is an operation."""
        for node in self.nodes:
            if self.outputs[output] in node.outputs and isinstance(node.op, LayerCall):
                return node.op.layer
        return None

    @cached_property
    def consumers(self) -> list[list[Layer]]:
        """Return the layers that take each input directly, as the first argument."""
        found: dict[int, dict[Layer, None]] = {k: {} for k in self.inputs}
        for node in self.nodes:
            if isinstance(node.op, LayerCall):
                for place, layers in node.op.layer.consumers(node.op.inputs).items():
                    found.get(node.inputs[place], {}).update(dict.fromkeys(layers))
        return [list(found[k]) for k in self.inputs]

    def sources(self, inputs: Sequence[Shape]) -> list[StepsSource | None]:
        """Return for each output the input that its mask comes from; None if no mask reaches it.

        Parameters
        ----------
        inputs : list of tuple
            The shapes of the inputs.
        """
        masks = step_masks(inputs)
        known = self.masks(inputs, masks)
        place: dict[Variable, int] = {m: k for k, m in enumerate(masks) if m is not None}
        backwards = {(k, number): False for number, k in enumerate(self.inputs)}
        for node in self.nodes:
            reverses = isinstance(node.op, LayerCall) and node.op.layer.reverses_time
            for k in node.outputs:
                for number in origins(known.get(k), place):
                    before = [backwards.get((i, number), False) for i in node.inputs]
                    backwards[k, number] = any(before) != reverses
        found: list[StepsSource | None] = []
        for k in self.outputs:
            mask = known.get(k)
            numbers = origins(mask, place)
            source = None
            if numbers:
                source = StepsSource(numbers[0], backwards[k, numbers[0]], joins(mask, place))
            found.append(source)
        return found

    def aligned_inputs(self, inputs: Sequence[Shape]) -> list[set[int]]:
        """Return the inputs whose steps meet one by one, such as those of an `Add`.

        Parameters
        ----------
        inputs : list of tuple
            The shapes of the inputs.
        """
        masks = step_masks(inputs)
        known = self.masks(inputs, masks)
        place: dict[Variable, int] = {m: k for k, m in enumerate(masks) if m is not None}
        found = [aligned(known.get(k), place) for node in self.nodes for k in node.outputs]
        return [numbers for numbers in found if len(numbers) > 1]


def has_steps(shape: Shape) -> bool:
    """Return whether the second axis of a batch of this shape is time."""
    return len(shape) > 2 or shape[1:] == (None,)


def origins(mask: Variable | None, masks: Mapping[Variable, int]) -> list[int]:
    """Return the places of the masks that a mask is computed from."""
    if mask is None:
        return []
    return sorted(masks[v] for v in ancestors([mask]) if v in masks)


def step_masks(inputs: Sequence[Shape]) -> list[Mask]:
    """Return a new mask for each input that has steps, and None for the others."""
    return [
        pt.tensor(dtype="bool", shape=(None, None)) if has_steps(shape) else None
        for shape in inputs
    ]


def joins(mask: Mask, masks: Mapping[Variable, int]) -> bool:
    """Return whether a mask has those of several inputs one after the other."""
    return mask is not None and any(
        v.owner is not None and isinstance(v.owner.op, Join) and len(origins(v, masks)) > 1
        for v in ancestors([mask])
    )


def aligned(mask: Mask, masks: Mapping[Variable, int]) -> set[int]:
    """Return the places of the masks of which a mask is a function step by step."""
    found, stack = set(), [] if mask is None else [mask]
    while stack:
        variable: Any = stack.pop()
        if variable in masks:
            found.add(masks[variable])
        elif variable.owner is not None and isinstance(
            variable.owner.op, (Elemwise, DimShuffle, CAReduce)
        ):
            stack += variable.owner.inputs
    return found


def missing_input(variable: Variable, inputs: Sequence[InputVariable]) -> str:
    """Return the message for a variable that is no input of the model and has no value."""
    names = ", ".join(repr(v.name) for v in inputs)
    what = f"the symbolic variable {variable}"
    if isinstance(variable, InputVariable):
        named = "without a name" if variable.name is None else repr(variable.name)
        what = f"the Input {named} of shape {variable.batch_shape}"
    return (
        f"The outputs of the model depend on {what}, which is not among its inputs ({names}). Add "
        "it to inputs=, or leave out the outputs that need it."
    )


def as_recorded(variable: Tensor, recorded: TensorType) -> Tensor:
    """Return a variable as an operation had it when it was recorded.

    It has the same dtype, and the same axes are known to have the size one.
    """
    known = getattr(recorded, "shape", ())
    if len(known) != getattr(variable, "ndim", 0):
        return variable
    variable = pt.cast(variable, recorded.dtype)
    ones = [k for k, n in enumerate(known) if n == 1 and variable.type.shape[k] is None]
    return pt.specify_broadcastable(variable, *ones) if ones else variable


def known_sizes(found: TensorType, recorded: TensorType) -> Shape:
    """Return the shape of an operation's output: the sizes found, or else those recorded.

    PyTensor may know a size from values, such as the shape that a reshape is given, and these are
    not among the types of the inputs.
    """
    pairs = zip(found.shape, recorded.shape, strict=True)
    return tuple([before if now is None else now for now, before in pairs])


# ---- masks of operations that are not layers


def mask_after(
    op: Op, inputs: Sequence[Tensor], masks: Sequence[Mask], outputs: Sequence[Tensor]
) -> Mask:
    """Return the mask of an operation's output, for operations that keep steps where they are.

    Raises
    ------
    ValueError
        If an input has a mask, and it is not known what the operation does to steps.
    """
    if isinstance(op, (ShapeOp, Shape_i)):
        return None
    if keeps_masks(op, inputs, masks, outputs[0]):
        result: Mask = None
        for mask in masks:
            result = masks_together(result, mask)
        return result
    raise ValueError(
        f"The operation {op} gets a value with a mask (batch, time), and it is not known what it "
        "does to steps: padding could change its result. Use a layer, such as "
        "GlobalAveragePooling1D for a mean over steps, or a Lambda whose function has an argument "
        "named mask."
    )


def keeps_masks(op: Op, inputs: Sequence[Tensor], masks: Sequence[Mask], output: Tensor) -> bool:
    """Return whether an operation treats each step alone, if one of its inputs has a mask."""
    masked = [k for k, mask in enumerate(masks) if mask is not None]
    rank = max((mask.ndim for mask in masks if mask is not None), default=0)
    return not masked or keeps_steps(op, inputs, masked, output, rank)


def keeps_steps(
    op: Op, inputs: Sequence[Tensor], masked: Sequence[int], output: Tensor, rank: int
) -> bool:
    """Return whether an operation treats each step of its masked inputs alone.

    Parameters
    ----------
    op : Op
    inputs : list of variables
    masked : list of int
        The inputs that have a mask.
    output : variable
    rank : int
        The number of axes of the mask.
    """
    first = tuple(range(rank))
    if isinstance(op, DimShuffle):
        return tuple(op.new_order[:rank]) == first
    if isinstance(op, Elemwise):
        return all(inputs[k].ndim == output.ndim for k in masked)
    if isinstance(op, Join):
        axis = getattr(op, "axis", None)  # since PyTensor 3.1; before, the first input
        if axis is None and isinstance(inputs[0], Constant):
            axis = int(inputs[0].data)
        return axis is not None and axis % output.ndim >= rank
    if isinstance(op, CAReduce):
        axes = op.axis
        return axes is not None and all(axis % inputs[0].ndim >= rank for axis in axes)
    if isinstance(op, (Softmax, LogSoftmax)):
        axis = op.axis
        axes = axis if isinstance(axis, tuple) else (axis,)
        return None not in axes and all(a % inputs[0].ndim >= rank for a in axes)
    if isinstance(op, Subtensor):
        whole = slice(None)
        kept = op.idx_list[:rank]
        return len(kept) == rank and all(index == whole for index in kept)
    if isinstance(op, SpecifyShape):
        return True
    is_product = type(op).__name__ == "Matmul" or (
        isinstance(op, Blockwise) and isinstance(op.core_op, Dot)
    )
    return is_product and list(masked) == [0] and rank < inputs[0].ndim

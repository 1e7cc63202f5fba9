"""Split the graph of a model into what is computed once and what is computed at each time step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import Any

from pytensor.graph.basic import Constant
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.shape import Shape as ShapeOp
from pytensor.tensor.shape import Shape_i
from pytensor.tensor.subtensor import Subtensor

from seqnet.common.types import Shape
from seqnet.graph.graph import Graph, Node, keeps_steps
from seqnet.graph.nested import ModelLayer
from seqnet.layers import Dot
from seqnet.layers.calling import items_of, map_several
from seqnet.layers.layer import Layer
from seqnet.layers.merge import Merge
from seqnet.layers.recurrent import Loop
from seqnet.layers.states import layers_in_time
from seqnet.layers.symbolic import LayerCall, Slot, put_values, slots_of

PROBE = 1009
"""A number of steps by which the time axis is found in shapes."""


class Kind(Enum):
    """How a value changes from step to step."""

    ONCE = "computed once"
    STEPS = "has a time axis"
    LAST = "the value of the last step so far, without a time axis"
    SIZES = "the shape of a value"
    ROWS = "depends on the number of rows only"


@dataclass
class Split:
    """A graph in two parts.

    Attributes
    ----------
    once : Graph
        From the inputs that are not stepped to the values that the steps need, then the initial
        states that the graph computes.
    steps : Graph
        From the stepped inputs, and then the values that they need, to the outputs.
    given_states : dict
        For each recurrent layer with ``initial_state=``, these arguments, with a `Slot` for each
        value after the ones that the steps need.
    kinds : list of Kind
        Of each output.
    """

    once: Graph
    steps: Graph
    given_states: dict[Loop, Any]
    kinds: list[Kind]

    @property
    def values(self) -> int:
        """The number of values that are computed once and that the steps need."""
        return len(self.once.outputs) - sum(len(slots_of(s)) for s in self.given_states.values())

    @classmethod
    def of(
        cls,
        graph: Graph,
        shapes: Sequence[Shape],
        stepped: Sequence[int],
        outputs: Sequence[int],
    ) -> Split:
        """Split a graph at some of its inputs.

        Parameters
        ----------
        graph : Graph
        shapes : list of tuple
            The shapes of its inputs.
        stepped : list of int
            Which inputs are given step by step.
        outputs : list of int
            Which outputs are needed.

        Raises
        ------
        ValueError
            If an operation or a layer needs the whole sequence of a stepped input.
        """
        graph = flattened(graph)
        wanted = [graph.outputs[k] for k in outputs]
        nodes = needed_nodes(graph.nodes, wanted)
        probed = [
            (shape[0], PROBE, *shape[2:]) if k in stepped else shape
            for k, shape in enumerate(shapes)
        ]
        sizes = Graph(graph.inputs, tuple(wanted), nodes, graph.constants).shapes(probed)
        kinds = {k: Kind.ONCE for k in (*graph.inputs, *graph.constants)}
        kinds.update((graph.inputs[k], Kind.STEPS) for k in stepped)
        used = {*wanted, *(k for node in nodes for k in node.inputs)}
        for node in nodes:
            kinds.update(kinds_after(node, used, kinds, sizes, graph.constants))

        once = [n for n in nodes if all(kinds[k] is Kind.ONCE for k in n.outputs)]
        given: dict[Loop, Any] = {}
        states: list[int] = []
        steps: list[Node] = []
        for node in nodes:
            if node in once:
                continue
            op = node.op
            if isinstance(op, LayerCall) and op.options.get("initial_state") is not None:
                numbers = [node.inputs[s.index] for s in slots_of(op.options["initial_state"])]
                state = take_slots(op.options["initial_state"], len(states))
                states += numbers
                given[op.layer] = state  # type: ignore[index]
                node = without_option(node, "initial_state")
            steps.append(node)
        check_called_once(steps)
        inner = {k for node in steps for k in node.outputs}
        starts = [graph.inputs[k] for k in stepped]
        known = {*inner, *graph.constants, *starts}
        taken = dict.fromkeys([*(k for node in steps for k in node.inputs), *wanted])
        values = [k for k in taken if k not in known]
        given = {layer: shifted(state, len(values)) for layer, state in given.items()}
        sources = tuple(graph.inputs[k] for k in range(len(shapes)) if k not in stepped)
        return cls(
            Graph(sources, (*values, *states), once, graph.constants),
            Graph((*starts, *values), tuple(wanted), steps, graph.constants),
            given,
            [kinds[k] for k in wanted],
        )


def check_called_once(nodes: Iterable[Node]) -> None:
    """Raise ``ValueError`` if a recurrent layer is called twice, which has one state to carry."""
    called: set[Layer] = set()
    for node in nodes:
        if not isinstance(node.op, LayerCall):
            continue
        for layer in layers_in_time([node.op.layer]):
            if isinstance(layer, Loop) and layer in called:
                raise ValueError(
                    f"Layer {layer.display_name!r} is called twice, but it has one state that is "
                    "carried from step to step. Use two layers."
                )
            called.add(layer)


def flattened(graph: Graph) -> Graph:
    """Return a graph with the nodes of models in the place of models that are layers."""
    numbers = {*graph.inputs, *graph.constants, *(k for n in graph.nodes for k in n.outputs)}
    fresh = count(max(numbers) + 1)
    nodes: list[Node] = []
    constants, renamed = dict(graph.constants), {k: k for k in numbers}
    for node in graph.nodes:
        inputs = tuple(renamed[k] for k in node.inputs)
        op = node.op
        if not isinstance(op, LayerCall) or not isinstance(op.layer, ModelLayer) or op.options:
            nodes.append(Node(op, inputs, node.outputs, node.types))
            continue
        model = op.layer.model
        inner = flattened(model.graph)
        given = model.signature.inputs.leaves(put_values(op.inputs, inputs))
        place = dict(zip(inner.inputs, given, strict=True))
        for k in (*inner.constants, *(k for n in inner.nodes for k in n.outputs)):
            place[k] = next(fresh)
        constants |= {place[k]: v for k, v in inner.constants.items()}
        nodes += [
            Node(
                n.op, tuple(place[k] for k in n.inputs), tuple(place[k] for k in n.outputs), n.types
            )
            for n in inner.nodes
        ]
        renamed.update(zip(node.outputs, [place[k] for k in inner.outputs], strict=True))
    return Graph(graph.inputs, tuple(renamed[k] for k in graph.outputs), nodes, constants)


def needed_nodes(nodes: Sequence[Node], outputs: Iterable[int]) -> list[Node]:
    """Return the nodes that some values depend on, in the same order."""
    needed, found = set(outputs), []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            needed |= set(node.inputs)
            found.append(node)
    return found[::-1]


def take_slots(tree: Any, first: int) -> Any:
    """Return nested arguments with slots that count from a number, in their order."""
    numbers = count(first)
    renamed = {slot.index: Slot(next(numbers)) for slot in slots_of(tree)}
    return put_values(tree, renamed)


def shifted(tree: Any, by: int) -> Any:
    """Return nested arguments with a number added to each slot."""
    return put_values(tree, {s.index: Slot(s.index + by) for s in slots_of(tree)})


def without_option(node: Node, name: str) -> Node:
    """Return the node of a call without one of its options."""
    call: Any = node.op
    options = {key: value for key, value in call.options.items() if key != name}
    kept = [slot.index for slot in slots_of([call.inputs, options])]
    new = {index: Slot(place) for place, index in enumerate(kept)}
    same = LayerCall(
        call.layer, put_values(call.inputs, new), put_values(options, new), call.types, call.several
    )
    types = tuple(node.types[k] for k in kept)
    return Node(same, tuple(node.inputs[k] for k in kept), node.outputs, types)


# ---- what happens to the steps


def kinds_after(
    node: Node,
    used: Collection[int],
    kinds: Mapping[int, Kind],
    sizes: Mapping[int, Shape],
    constants: Mapping[int, Any],
) -> dict[int, Kind]:
    """Return the kinds of the outputs of a node, or raise if it cannot run step by step."""
    given = [kinds[k] for k in node.inputs]
    found = {kind for kind in given if kind is not Kind.ONCE}
    if not found or found == {Kind.ROWS}:
        return dict.fromkeys(node.outputs, Kind.ROWS if found else Kind.ONCE)
    if isinstance(node.op, (ShapeOp, Shape_i)):
        rows = isinstance(node.op, Shape_i) and node.op.i == 0
        return dict.fromkeys(node.outputs, Kind.ROWS if rows else Kind.SIZES)
    if Kind.SIZES in found:
        if is_first_size(node, constants):
            return dict.fromkeys(node.outputs, Kind.ROWS)
        raise needs_all(node.op, "uses the number of steps")
    reason = ""
    if {Kind.LAST, Kind.STEPS} <= found:
        reason = "takes the last step as well as all steps"
    elif isinstance(node.op, LayerCall):
        reason = why_not_call(node.op, given, [sizes[k] for k in node.inputs])
    elif Kind.STEPS in found:
        reason = why_not_operation(node, given, constants)
    if reason:
        raise needs_all(node.op, reason)
    if Kind.STEPS not in found:
        return dict.fromkeys(node.outputs, Kind.LAST)
    after = {k: Kind.STEPS if sizes[k][1:2] == (PROBE,) else Kind.LAST for k in node.outputs}
    lasting = [k for k, kind in after.items() if kind is Kind.LAST and k in used]
    if lasting and not carries_states(node.op):
        raise needs_all(node.op, "gives an output without the steps of its input")
    return after


def needs_all(op: Any, reason: str) -> ValueError:
    """Return the error for what cannot run step by step."""
    layer = isinstance(op, LayerCall)
    what = f"Layer {op.layer.display_name!r}" if layer else f"The operation {op}"
    return ValueError(
        f"{what} {reason}, so it needs the whole sequence and cannot run step by step."
    )


def carries_states(op: Any) -> bool:
    """Return whether a node is a call of a layer that is or holds a recurrent layer."""
    return isinstance(op, LayerCall) and any(
        isinstance(layer, Loop) for layer in layers_in_time([op.layer])
    )


def is_first_size(node: Node, constants: Mapping[int, Any]) -> bool:
    """Return whether an operation takes the first number of a shape."""
    indices = [constants.get(k) for k in node.inputs[1:]]
    return (
        isinstance(node.op, Subtensor)
        and len(indices) == 1
        and isinstance(indices[0], Constant)
        and not indices[0].data
    )


def why_not_call(call: LayerCall, given: Sequence[Kind], sizes: Sequence[Shape]) -> str:
    """Return why the call of a layer cannot run step by step; empty if it can."""
    layer: Layer = call.layer
    varies = [kind is not Kind.ONCE for kind in given]
    options = {name: put_values(value, varies) for name, value in call.options.items()}
    if any(varies[slot.index] for slot in slots_of(call.options.get("initial_state"))):
        return "gets an initial state that depends on the steps"
    if Kind.LAST in given and carries_states(call):
        return "runs over the last step"
    inputs = put_values(call.inputs, varies)
    if not any(items_of(inputs)) and carries_states(call):
        return "gets its steps by another argument than its input"
    if isinstance(layer, Merge) and not isinstance(layer, Dot):
        shapes = put_values(call.inputs, sizes)
        rank = max(len(shape) for shape in items_of(shapes))
        own = map_several(lambda on, s: not on and len(s) == rank and s[1] != 1, inputs, shapes)
        if any(items_of(own)):
            return "merges steps that are given one at a time with other steps"
    return layer.why_not_stepwise(inputs, options)


def why_not_operation(node: Node, given: Sequence[Kind], constants: Mapping[int, Any]) -> str:
    """Return why an operation of PyTensor cannot run step by step; empty if it can."""
    inputs: list[Any] = [
        constants.get(k, t()) for k, t in zip(node.inputs, node.types, strict=True)
    ]
    stepped = [k for k, kind in enumerate(given) if kind is Kind.STEPS]
    output: Any = node.op.make_node(*inputs).outputs[0]
    if not keeps_steps(node.op, inputs, stepped, output, 2):
        return "may mix the steps of its input"
    others = [v for v, kind in zip(inputs, given, strict=True) if kind is not Kind.STEPS]
    if isinstance(node.op, Elemwise) and any(v.type.shape[1] != 1 for v in others):
        return "merges steps that are given one at a time with other steps"
    return ""

"""The base of seqnet's Ops: an Op whose definition is a graph of PyTensor's own Ops."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import ClassVar

import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.tensor.type import TensorType


class GraphOp(OpFromGraph):
    """An Op that is defined by a graph of other Ops.

    `define` is the definition. seqnet's own modes replace the node by a compiled kernel where there
    is one (`seqnet.backend`). Every other mode of PyTensor replaces it by the graph, because it is
    an `OpFromGraph` with ``inline=True``. The graph is the same whoever compiles it.

    Unlike in `OpFromGraph` itself, the inner graph is built when it is first needed, and the
    shapes of the outputs come from `shapes`, in which no inner graph is walked through. A model
    that runs on kernels therefore never builds its scans.

    Subclasses list their attributes in ``__props__`` and implement `define`, `outputs_for` and
    `shapes`. They may override `pullback`; by default the definition is differentiated.
    """

    is_inline = True
    shared_inputs: Sequence = ()
    destroy_map: ClassVar[dict] = {}
    pullback_overrides = pushforward_overrides = None
    name = None
    kwargs: ClassVar[dict] = {}
    input_types: Sequence = ()

    def __init__(self) -> None:
        pass  # OpFromGraph would build the inner graph here

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        # PyTensor derives these two from __props__ alone and keeps one of equal Ops, but a
        # definition belongs to the types of its inputs, too.
        cls.__eq__, cls.__hash__ = GraphOp.__eq__, GraphOp.__hash__

    def key(self) -> tuple:
        """Return what tells this Op from others."""
        props = (getattr(self, name) for name in self.__props__)
        return (type(self), *props, tuple(self.input_types))

    def __eq__(self, other) -> bool:
        return self is other or (type(self) is type(other) and self.key() == other.key())

    def __hash__(self) -> int:
        return hash(self.key())

    # ---- what a subclass defines

    def define(self, *inputs) -> list:
        """Return the outputs as a graph of the inputs."""
        raise NotImplementedError

    def outputs_for(self, *inputs) -> list:
        """Return new variables of the types of the outputs."""
        raise NotImplementedError

    def shapes(self, *shapes: tuple) -> list[tuple]:
        """Return the shapes of the outputs from those of the inputs."""
        raise NotImplementedError

    # ---- what PyTensor asks for

    def __call__(self, *inputs, **options):
        return Op.__call__(self, *inputs, **options)

    def __str__(self) -> str:
        return type(self).__name__

    def clone(self) -> GraphOp:
        return self  # an Op never changes, and neither does its definition

    def make_node(self, *inputs) -> Apply:
        inputs = [pt.as_tensor_variable(v) for v in inputs]
        op = copy(self)
        vars(op).pop("definition", None)
        vars(op).pop("_fn", None)
        op.input_types = [v.type for v in inputs]
        return Apply(op, inputs, self.outputs_for(*inputs))

    @cached_property
    def definition(self) -> OpFromGraph:
        """The definition as an ordinary `OpFromGraph`, for the input types of this node."""
        inputs = [t() for t in self.input_types]
        outputs = list(self.define(*inputs))
        return OpFromGraph(inputs, outputs, inline=True, on_unused_input="ignore")

    @property
    def fgraph(self):
        """The inner graph."""
        return self.definition.fgraph

    @property
    def _frozen_fgraph(self):  # PyTensor 3.0 inlines this one
        return self.definition._frozen_fgraph

    @property
    def output_types(self) -> list:
        """The types of the outputs."""
        return [v.type for v in self.outputs_for(*[t() for t in self.input_types])]

    def pullback(self, inputs, outputs, output_grads) -> list[Variable]:
        return self.definition.pullback(inputs, outputs, output_grads)

    def connection_pattern(self, node) -> list[list[bool]]:
        return self.definition.connection_pattern(node)

    def infer_shape(self, *given):  # (node, shapes); older PyTensors put the graph first
        return self.shapes(*given[-1])

    def __getstate__(self) -> dict:
        return {k: v for k, v in vars(self).items() if k not in ("definition", "_fn")}


def like(variable, ndim: int | None = None, leading: tuple[int | None, ...] = (), last=None):
    """Return a new variable of another's dtype, of its rank or `ndim`.

    `leading` are the sizes of the first axes and `last` that of the last one, as far as they are
    known.
    """
    rank = variable.ndim if ndim is None else ndim
    shape = [*leading, *[None] * (rank - len(leading))]
    if last is not None and len(leading) < rank:
        shape[-1] = last
    return TensorType(variable.dtype, tuple(shape))()


def connected(gradients: Sequence) -> list[bool]:
    """Tell which output gradients there are."""
    return [not isinstance(g.type, DisconnectedType) for g in gradients]

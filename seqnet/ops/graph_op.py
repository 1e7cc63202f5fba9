"""The base class of seqnet's Ops: an Op defined by a graph of PyTensor's own Ops."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Any, TypeAlias, cast

import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import AbstractFunctionGraph, FrozenFunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.type import Type
from pytensor.tensor.type import TensorType

from seqnet.common.types import Tensor

SymbolicShape: TypeAlias = tuple[Tensor | int, ...]
"""The shape of a symbolic array: variables, and numbers where sizes are known."""


class GraphOp(OpFromGraph):
    """An Op that is defined by a graph of other Ops.

    `define` builds that graph. seqnet's own modes replace the node by a compiled kernel if there is
    one (`seqnet.backend`). All other modes of PyTensor replace it by the graph, because it is an
    `OpFromGraph` with ``inline=True``. A model's graph is therefore the same for every mode.

    Unlike `OpFromGraph`, it builds the inner graph when it is first needed, and infers the shapes
    of the outputs with `shapes` instead of the inner graph. A model that runs on compiled kernels
    never builds its scans.

    Subclasses list their attributes in ``__props__`` and implement `define`, `outputs_for` and
    `shapes`. They may override `pullback`; by default the definition is differentiated.
    """

    __props__: tuple[str, ...]
    # Attributes that OpFromGraph sets when it builds the inner graph. They are never changed.
    is_inline = True
    shared_inputs: list = []  # noqa: RUF012
    destroy_map: dict = {}  # noqa: RUF012
    pullback_overrides = pushforward_overrides = None
    name = None
    kwargs: dict = {}  # noqa: RUF012
    input_types: list[Type] = []  # noqa: RUF012

    def __init__(self) -> None:
        pass  # OpFromGraph would build the inner graph here

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # PyTensor derives these two from __props__ alone and merges equal Ops. The definition also
        # depends on the types of the inputs.
        cls.__eq__ = GraphOp.__eq__  # type: ignore[method-assign]
        cls.__hash__ = GraphOp.__hash__  # type: ignore[method-assign]

    def key(self) -> tuple:
        """Return the key by which Ops are compared: type, properties and types of inputs."""
        props = (getattr(self, name) for name in self.__props__)
        return (type(self), *props, tuple(self.input_types))

    def __eq__(self, other: object) -> bool:
        return self is other or (type(self) is type(other) and self.key() == other.key())

    def __hash__(self) -> int:
        return hash(self.key())

    # ---- defined by subclasses. These signatures allow each of them any number of named inputs.

    def define(self, *inputs: Any, **unused: Any) -> list[Tensor]:
        """Return the outputs as a graph of the inputs."""
        raise NotImplementedError

    def outputs_for(self, *inputs: Any, **unused: Any) -> list[Tensor]:
        """Return a new variable of the type of each output."""
        raise NotImplementedError

    def shapes(self, *shapes: Any, **unused: Any) -> list[SymbolicShape]:
        """Return the shapes of the outputs from those of the inputs."""
        raise NotImplementedError

    # ---- called by PyTensor

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return Op.__call__(self, *inputs, **options)

    def __str__(self) -> str:
        return type(self).__name__

    def clone(self) -> GraphOp:
        return self  # an Op and its definition are immutable

    def make_node(self, *inputs: Variable) -> Apply:
        tensors = [pt.as_tensor_variable(v) for v in inputs]
        op = copy(self)
        vars(op).pop("definition", None)
        vars(op).pop("_fn", None)
        op.input_types = [v.type for v in tensors]
        return Apply(op, tensors, self.outputs_for(*tensors))

    @cached_property
    def definition(self) -> OpFromGraph:
        """The definition as an ordinary `OpFromGraph` of the input types of this node."""
        inputs: list[Variable] = [t() for t in self.input_types]
        outputs: list[Variable] = list(self.define(*inputs))
        return OpFromGraph(inputs, outputs, inline=True, on_unused_input="ignore")

    # PyTensor declares these three as attributes that can be set; it never sets them from outside.
    @property
    def fgraph(self) -> AbstractFunctionGraph:  # type: ignore[override]
        """The inner graph."""
        return self.definition.fgraph

    @property
    def _frozen_fgraph(self) -> FrozenFunctionGraph:  # type: ignore[override]
        """The inner graph, as PyTensor 3.0 inlines it."""
        return self.definition._frozen_fgraph

    @property
    def output_types(self) -> list[Type]:  # type: ignore[override]
        """The types of the outputs."""
        return [v.type for v in self.outputs_for(*[t() for t in self.input_types])]

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        return self.definition.pullback(inputs, outputs, output_grads)

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return self.definition.connection_pattern(node)

    # PyTensor 3.0 calls it with (graph, node, shapes), later releases with (node, shapes).
    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        return self.shapes(*given[-1])

    def __getstate__(self) -> dict:
        return {k: v for k, v in vars(self).items() if k not in ("definition", "_fn")}


def like(
    variable: Variable,
    ndim: int | None = None,
    leading: tuple[int | None, ...] = (),
    last: int | None = None,
) -> Tensor:
    """Return a new variable with the dtype of another, and its rank unless `ndim` is given.

    `leading` has the known sizes of the first axes, and `last` that of the last axis.
    """
    rank = variable.type.ndim if ndim is None else ndim
    shape = [*leading, *[None] * (rank - len(leading))]
    if last is not None and len(leading) < rank:
        shape[-1] = last
    return TensorType(variable.type.dtype, tuple(shape))()


def apply_op(op: Op, *inputs: Variable) -> list[Variable]:
    """Apply an Op and return its outputs as a list, even if there is only one."""
    return cast("list[Variable]", op(*inputs, return_list=True))


def connected(gradients: Sequence) -> list[bool]:
    """Return for each output gradient whether it is connected to the cost."""
    return [not isinstance(g.type, DisconnectedType) for g in gradients]

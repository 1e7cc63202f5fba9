"""The rewrites of seqnet's own modes, which choose how each node is computed.

Before PyTensor's own rewrites, `ChooseKernels` replaces each Op of `seqnet.ops` by a compiled
kernel or by its definition. After them, `LowerForVM` replaces the remaining nodes by Ops that
PyTensor's Python virtual machine runs fast.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import cast

from pytensor.compile.builders import OpFromGraph
from pytensor.compile.mode import Mode
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import ComputeMapType, Op, StorageMapType, ThunkType
from pytensor.graph.rewriting.basic import GraphRewriter, dfs_rewriter, node_rewriter
from pytensor.scan.op import Scan
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.math import Dot, Sum
from pytensor.tensor.rewriting.ofg import inline_ofg_node

from seqnet.backend.elementwise import NumpySum, lower_elementwise
from seqnet.backend.kernel_ops import (
    KERNELS,
    KernelOp,
    kernel_op,
    native,
    uses_bfloat16,
    without_slope,
)
from seqnet.backend.recurrence import lower_recurrences
from seqnet.backend.updates import SharedUpdates, merge_updates
from seqnet.ops.affine import Affine
from seqnet.ops.bfloat16 import RoundToBfloat16
from seqnet.ops.graph_op import apply_op
from seqnet.ops.lookup import SetRows
from seqnet.ops.unrolled import StackSteps, UnrolledStep, UnstackSteps


class ChooseKernels(GraphRewriter):
    """Replace seqnet's Ops by compiled kernels where available, else by their definitions."""

    def __init__(self, with_kernels: bool) -> None:
        self.with_kernels = with_kernels

    def add_requirements(self, fgraph: FunctionGraph) -> None:
        pass

    def apply(self, fgraph: FunctionGraph) -> None:
        while True:  # a definition may contain Ops of seqnet
            nodes = [n for n in fgraph.toposort() if is_inlined(n.op)]
            if not nodes:
                return
            if self.with_kernels:
                lower_recurrences(fgraph)
            for node in nodes:
                if node in fgraph.apply_nodes:
                    pairs = zip(node.outputs, self.replacement(node), strict=True)
                    fgraph.replace_all_validate(list(pairs), reason="ChooseKernels")

    def replacement(self, node: Apply) -> list:
        """Return the variables that replace the outputs of a node."""
        op = kernel_op(node) if self.with_kernels else None
        if op is not None:
            return Apply(op, list(node.inputs), [v.type() for v in node.outputs]).outputs
        # The definition is built on new input variables. Built on the inputs themselves, a scan
        # would traverse all scans before it to infer its shapes, and those would do the same.
        return inline_ofg_node(node)


def is_inlined(op: Op) -> bool:
    """Return whether an Op is to be replaced by its inner graph."""
    return isinstance(op, OpFromGraph) and op.is_inline


@node_rewriter([OpFromGraph])
def inline_inner_graph(fgraph: FunctionGraph, node: Apply) -> list[Variable] | bool:
    """Replace a node by its inner graph (for example a softmax), so that it can be fused.

    Otherwise the virtual machine would compile the inner graph with PyTensor's default linker.
    """
    kept = isinstance(node.op, (UnrolledStep, UnstackSteps, StackSteps))
    return False if kept else inline_ofg_node(node)


inline_inner_graphs = dfs_rewriter(inline_inner_graph)


@node_rewriter([SetRows, SharedUpdates])
def overwrite(fgraph: FunctionGraph, node: Apply) -> list[Variable] | bool:
    """Overwrite old values in place if no other node reads them afterwards."""
    return False if node.op.inplace else apply_op(node.op.in_place(), *node.inputs)


work_in_place = dfs_rewriter(overwrite, ignore_newtrees=True)


class VMScan(Scan):
    """A scan with PyTensor's precompiled loop and its step compiled in one of seqnet's modes."""

    @classmethod
    def of(cls, scan: Scan, mode: Mode) -> VMScan:
        """Return a copy of a scan with its step compiled in another mode."""
        result = cast("VMScan", copy(scan))
        result.__class__ = cls
        result.mode = mode
        result._fn = None
        return result

    def make_thunk(
        self,
        node: Apply,
        storage_map: StorageMapType,
        compute_map: ComputeMapType,
        no_recycling: list[Variable],
        impl: str | None = None,
    ) -> ThunkType:
        # The virtual machine requests a Python thunk; the precompiled loop is used instead.
        return super().make_thunk(node, storage_map, compute_map, no_recycling, impl=None)


class LowerForVM(GraphRewriter):
    """Replace nodes by Ops that the virtual machine runs fast.

    Elementwise nodes become `NumpyElemwise` or `KernelElemwise`. Matrix products run as compiled
    kernels, so that no second thread pool competes for the cores. The steps of scans and of
    unrolled loops are compiled in the same mode with `looped`.
    """

    def __init__(
        self,
        inner_mode: Callable,
        compile_inner: Callable,
        with_kernels: bool,
        looped: bool = False,
    ) -> None:
        self.inner_mode = inner_mode
        self.compile_inner = compile_inner
        self.with_kernels = with_kernels
        self.looped = looped

    def add_requirements(self, fgraph: FunctionGraph) -> None:
        pass

    def apply(self, fgraph: FunctionGraph) -> None:
        if self.with_kernels:
            merge_updates(fgraph)
        steps: dict[UnrolledStep, UnrolledStep] = {}
        for node in list(fgraph.toposort()):
            if isinstance(node.op, Elemwise):
                self.lower_elemwise(fgraph, node)
            elif type(node.op) is Sum and node.op.acc_dtype is not None:
                node.op = NumpySum.of(node.op)
            elif isinstance(node.op, Scan):
                node.op = VMScan.of(node.op, self.inner_mode())
            elif isinstance(node.op, KernelOp) and (alone := without_slope(node.op.run)):
                if not fgraph.clients[node.outputs[1]]:
                    node.op = KernelOp(node.op.op, alone)
            elif isinstance(node.op, RoundToBfloat16) and self.with_kernels:
                if not uses_bfloat16():
                    pair = (node.outputs[0], node.inputs[0])
                    fgraph.replace_validate(*pair, reason="LowerForVM")
            elif isinstance(node.op, Dot) and self.with_kernels:
                self.lower_product(fgraph, node)
            elif isinstance(node.op, StackSteps) and self.with_kernels:
                node.op = copy(node.op)
                node.op.empty = native.empty
            elif isinstance(node.op, UnrolledStep):
                if node.op not in steps:
                    steps[node.op] = copy(node.op)
                    steps[node.op].run = self.compile_inner(node.op)
                node.op = steps[node.op]

    def lower_product(self, fgraph: FunctionGraph, node: Apply) -> None:
        x, y = node.inputs
        if x.type.ndim == y.type.ndim == 2 and x.type.dtype == y.type.dtype in (
            "float32",
            "float64",
        ):
            op = KernelOp(Affine(), KERNELS[Affine])
            product = Apply(op, [x, y], [node.outputs[0].type()])
            fgraph.replace_validate(node.outputs[0], product.outputs[0], reason="LowerForVM")

    def lower_elemwise(self, fgraph: FunctionGraph, node: Apply) -> None:
        lowered = lower_elementwise(node, self.with_kernels, self.looped)
        if lowered is None:
            return
        new = Apply(lowered, list(node.inputs), [o.type() for o in node.outputs])
        fgraph.replace_all_validate(
            list(zip(node.outputs, new.outputs, strict=True)), reason="LowerForVM"
        )

"""What makes PyTensor's Python virtual machine fast: elementwise work as chains of NumPy calls.

PyTensor's default linker turns a graph into one machine-code function, which takes tens of
seconds. Its Python virtual machine starts at once but evaluates a fused or many-operand
elementwise node one number at a time. The rewrite here replaces such nodes, at the very end of
compilation, by an Op that runs a short Python function of whole-array NumPy calls.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from types import ModuleType

import numpy as np
from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Apply, Constant
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import GraphRewriter, dfs_rewriter, node_rewriter
from pytensor.graph.traversal import ancestors
from pytensor.scalar import basic as scalar
from pytensor.scalar import math as scalar_math
from pytensor.scan.op import Scan
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.math import Dot
from pytensor.tensor.rewriting.ofg import inline_ofg_node
from pytensor.tensor.type import TensorType

from seqnet.ops.affine import Affine
from seqnet.ops.crossentropy import SoftmaxCrossEntropy
from seqnet.ops.lookup import SetRows
from seqnet.ops.shared_updates import SharedUpdates, merge_updates
from seqnet.ops.unrolled import Part, Stack, Step


def _sigmoid(x):
    return np.reciprocal(np.add(np.exp(np.negative(x)), np.asarray(1, dtype=x.dtype)))


def _softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


_ARRAY_FUNCTIONS: dict[type, Callable] = {
    scalar.Switch: np.where,
    scalar.Clip: lambda x, low, high: np.minimum(np.maximum(x, low), high),
    scalar.Second: lambda a, b: np.broadcast_arrays(a, b)[1],
    scalar.Identity: lambda x: x,
    scalar.Sqr: lambda x: np.multiply(x, x),
    scalar_math.Sigmoid: _sigmoid,
    scalar_math.Softplus: _softplus,
}
_CHAINED = (scalar.Add, scalar.Mul, scalar.AND, scalar.OR, scalar.Maximum, scalar.Minimum)


def array_function(op: scalar.ScalarOp, dtype: str, operands: int) -> Callable | None:
    """Return a function of whole arrays that does what a scalar op does, or None."""
    if isinstance(op, scalar.Cast):
        return lambda x: np.asarray(x).astype(dtype)
    if type(op) in _ARRAY_FUNCTIONS:
        return _ARRAY_FUNCTIONS[type(op)]
    spec = getattr(op, "nfunc_spec", None)
    if spec is None or spec[2] != 1 or spec[0].startswith("scipy."):
        return None
    ufunc = getattr(np, spec[0], None)
    if ufunc is None:
        return None
    if operands == spec[1]:
        return ufunc
    if operands > 2 and isinstance(op, _CHAINED):

        def chain(first, *others):
            for other in others:
                first = ufunc(first, other)
            return first

        return chain
    return None


def compile_scalar_graph(op: scalar.ScalarOp, node: Apply) -> Callable | None:
    """Write a Python function of arrays for a (composite) scalar op, or return None."""
    if isinstance(op, scalar.Composite):
        inner_inputs, inner_outputs = op.fgraph.inputs, op.fgraph.outputs
        inner_nodes = op.fgraph.toposort()
    else:
        fake = op.make_node(*[scalar.get_scalar_type(i.dtype)() for i in node.inputs])
        inner_inputs, inner_outputs, inner_nodes = fake.inputs, fake.outputs, [fake]
    names = {variable: f"x{k}" for k, variable in enumerate(inner_inputs)}
    scope: dict[str, object] = {"asarray": np.asarray}
    lines = []

    def name_of(variable) -> str:
        if variable not in names:
            if not isinstance(variable, Constant):
                raise KeyError(variable)
            names[variable] = f"c{len(scope)}"
            scope[names[variable]] = np.asarray(variable.data, dtype=variable.dtype)
        return names[variable]

    for inner in inner_nodes:
        if len(inner.outputs) != 1:
            return None
        output = inner.outputs[0]
        function = array_function(inner.op, output.dtype, len(inner.inputs))
        if function is None:
            return None
        arguments = ", ".join(
            f"asarray({name_of(v)}, dtype={output.dtype!r})"
            if whole_to_float(inner)
            else name_of(v)
            for v in inner.inputs
        )
        label = f"f{len(scope)}"
        scope[label] = function
        names[output] = f"t{len(lines)}"
        call = f"{label}({arguments})"
        if function_changes_dtype(inner):
            call = f"asarray({call}, dtype={output.dtype!r})"
        lines.append(f"    {names[output]} = {call}")
    results = ", ".join(name_of(v) for v in inner_outputs)
    inputs = ", ".join(f"x{k}" for k in range(len(inner_inputs)))
    source = f"def run({inputs}):\n" + "\n".join(lines) + f"\n    return ({results},)\n"
    exec(source, scope)  # the source is made above, from the graph alone
    return scope["run"]


def whole_to_float(node: Apply) -> bool:
    """Tell whether a node makes floats of integers only; NumPy would compute small ones in halves.

    ``exp`` of int8 is float16 in NumPy and float32 in PyTensor.
    """
    kinds = {np.dtype(v.dtype).kind for v in node.inputs}
    return np.dtype(node.outputs[0].dtype).kind == "f" and kinds <= set("iub")


def function_changes_dtype(node: Apply) -> bool:
    """Tell whether NumPy may pick another dtype than PyTensor did."""
    dtypes = {v.dtype for v in node.inputs} | {node.outputs[0].dtype}
    return len(dtypes) > 1 and node.outputs[0].dtype != "bool"


class LoweredElemwise(Op):
    """An elementwise node that is computed in another way."""

    __props__: tuple[str, ...] = ("elemwise",)

    def __init__(self, elemwise: Elemwise, run: Callable):
        self.elemwise = elemwise
        self.run = run

    def __str__(self):
        return f"{type(self).__name__}{{{self.elemwise.scalar_op}}}"

    def make_node(self, *inputs):
        outputs = self.elemwise(*inputs, return_list=True)
        return Apply(self, list(inputs), [o.type() for o in outputs])

    def infer_shape(self, *given):
        return self.elemwise.infer_shape(*given)


class NumpyElemwise(LoweredElemwise):
    """An elementwise node, evaluated by whole-array NumPy calls."""

    def __init__(self, elemwise: Elemwise, run: Callable):
        super().__init__(elemwise, run)
        self.complete = outputs_depend_on_all(elemwise.scalar_op)

    def perform(self, node, inputs, output_storage):
        with np.errstate(all="ignore"):
            results = self.run(*inputs)
        shape = None if self.complete else np.broadcast_shapes(*[i.shape for i in inputs])
        for result, storage, variable in zip(results, output_storage, node.outputs, strict=True):
            result = np.asarray(result, dtype=variable.type.dtype)
            if shape is not None and result.shape != shape:
                result = np.broadcast_to(result, shape)
            flags = result.flags
            storage[0] = result if flags.owndata and flags.writeable else result.copy()


def outputs_depend_on_all(op: scalar.ScalarOp) -> bool:
    """Tell whether every output of a scalar op is computed from every input."""
    if not isinstance(op, scalar.Composite):
        return not isinstance(op, scalar.Second)
    wanted = set(op.fgraph.inputs)
    return all(wanted <= set(ancestors([output])) for output in op.fgraph.outputs)


class KernelElemwise(LoweredElemwise):
    """An elementwise node over arrays of one shape and single numbers, as a compiled kernel."""

    __props__ = ("elemwise", "numbers")

    def __init__(self, elemwise: Elemwise, run: Callable, numbers: tuple[int, ...]):
        super().__init__(elemwise, run)
        self.numbers = numbers

    def perform(self, node, inputs, output_storage):
        inputs = list(inputs)
        for k in self.numbers:
            inputs[k] = inputs[k].reshape(())
        for storage, result in zip(output_storage, self.run(*inputs), strict=True):
            storage[0] = result


SMALL = 32768
"""Arrays with fewer elements are worked on as fast by NumPy, a call of a kernel being dearer."""

MANY = 4
"""With so many operations at every step of a loop, a kernel pays whatever the size."""


def elementwise_kernel(node: Apply, kernels: ModuleType, looped: bool) -> KernelElemwise | None:
    """Return an Op that runs an elementwise node as a kernel, if that pays and is possible.

    It pays for what is known to be large, and for the steps of a loop.
    """
    scalar_op, output = node.op.scalar_op, node.outputs[0]
    if output.dtype not in ("float32", "float64") or any(
        v.dtype != output.dtype for v in (*node.inputs, *node.outputs)
    ):
        return None
    operations = len(scalar_op.fgraph.apply_nodes) if isinstance(scalar_op, scalar.Composite) else 1
    sizes = output.type.shape
    large = bool(sizes) and None not in sizes and np.prod(sizes) >= SMALL
    if not (large and operations > 1 or looped and operations >= MANY):
        return None
    numbers = tuple(k for k, v in enumerate(node.inputs) if all(v.type.broadcastable))
    arrays = [v for k, v in enumerate(node.inputs) if k not in numbers]
    if not arrays or any(any(v.type.broadcastable) for v in arrays):
        return None
    plain = Elemwise(scalar_op)
    variables = [
        TensorType(v.dtype, () if k in numbers else (None,) * v.ndim)()
        for k, v in enumerate(node.inputs)
    ]
    try:
        kernel = kernels.ElementwiseKernel(variables, plain(*variables, return_list=True))
    except kernels.KernelUnavailable:
        return None
    return KernelElemwise(plain, kernel, numbers)


@node_rewriter([OpFromGraph])
def inline_inner_graph(fgraph, node):
    """Replace a node that stands for a graph (a softmax) by that graph, so that it can be fused.

    Left alone, the virtual machine would compile the inner graph with PyTensor's default linker.
    """
    return False if isinstance(node.op, Part) else inline_ofg_node(node)


inline_inner_graphs = dfs_rewriter(inline_inner_graph)


@node_rewriter([SetRows, SharedUpdates])
def overwrite(fgraph, node):
    """Let new values overwrite the old ones, where nothing else reads these afterwards."""
    return False if node.op.inplace else node.op.in_place()(*node.inputs, return_list=True)


work_in_place = dfs_rewriter(overwrite, ignore_newtrees=True)


class VMScan(Scan):
    """A scan whose loop is PyTensor's precompiled one, and whose inside a mode of ours."""

    @classmethod
    def of(cls, scan: Scan, mode) -> VMScan:
        """Return a copy of a scan with its inside compiled in another mode."""
        result = copy(scan)
        result.__class__ = cls
        result.mode = mode
        result._fn = None
        return result

    def make_thunk(self, node, storage_map, compute_map, no_recycling, impl=None):
        # The virtual machine asks for Python; the loop itself need not be.
        return super().make_thunk(node, storage_map, compute_map, no_recycling, impl=None)


class LowerForVM(GraphRewriter):
    """Replace nodes by ones the virtual machine runs fast.

    Elementwise nodes become `NumpyElemwise`; products of matrices run by `kernels`, if there are
    any, so that no second pool of threads competes for the cores; scans and the steps of unrolled
    loops have their insides compiled in a mode like this one, `looped`.
    """

    def __init__(
        self,
        inner_mode: Callable,
        compile_inner: Callable,
        kernels: ModuleType | None,
        looped: bool = False,
    ):
        self.inner_mode = inner_mode
        self.compile_inner = compile_inner
        self.kernels = kernels
        self.looped = looped

    def add_requirements(self, fgraph):
        pass

    def apply(self, fgraph):
        if self.kernels is not None:
            merge_updates(fgraph, self.kernels)
        steps: dict[Step, Step] = {}
        for node in list(fgraph.toposort()):
            if isinstance(node.op, Elemwise):
                self.lower_elemwise(fgraph, node)
            elif isinstance(node.op, Scan):
                node.op = VMScan.of(node.op, self.inner_mode())
            elif isinstance(node.op, SoftmaxCrossEntropy) and not fgraph.clients[node.outputs[1]]:
                node.op = SoftmaxCrossEntropy(self.kernels, slope=False)
            elif isinstance(node.op, Dot) and self.kernels is not None:
                self.lower_product(fgraph, node)
            elif isinstance(node.op, Stack) and self.kernels is not None:
                node.op = copy(node.op)
                node.op.empty = self.kernels.empty
            elif isinstance(node.op, Step):
                if node.op not in steps:
                    steps[node.op] = copy(node.op)
                    steps[node.op].run = self.compile_inner(node.op)
                node.op = steps[node.op]

    def lower_product(self, fgraph, node):
        x, y = node.inputs
        if x.ndim == y.ndim == 2 and x.dtype == y.dtype in ("float32", "float64"):
            product = Apply(Affine(self.kernels), [x, y], [node.outputs[0].type()])
            fgraph.replace_validate(node.outputs[0], product.outputs[0], reason="LowerForVM")

    def lower_elemwise(self, fgraph, node):
        lowered = None
        if self.kernels is not None:
            lowered = elementwise_kernel(node, self.kernels, self.looped)
        if lowered is None:
            run = compile_scalar_graph(node.op.scalar_op, node)
            if run is None:
                return
            lowered = NumpyElemwise(Elemwise(node.op.scalar_op), run)
        new = Apply(lowered, list(node.inputs), [o.type() for o in node.outputs])
        fgraph.replace_all_validate(
            list(zip(node.outputs, new.outputs, strict=True)), reason="LowerForVM"
        )

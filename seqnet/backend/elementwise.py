"""Elementwise nodes as NumPy calls or compiled kernels, for PyTensor's Python virtual machine.

PyTensor's default linker turns a graph into one machine-code function, which takes tens of seconds.
Its Python virtual machine starts immediately, but evaluates an elementwise node that is fused or
has many operands one number at a time. At the end of compilation, `lower_elementwise` replaces such
nodes by Ops that run a short Python function of whole-array NumPy calls, or a compiled kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import Op, OutputStorageType
from pytensor.graph.traversal import ancestors
from pytensor.scalar import basic as scalar
from pytensor.scalar.math import Sigmoid, Softplus
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.math import Sum
from pytensor.tensor.type import TensorType

from seqnet.backend.kernel_ops import native
from seqnet.common.types import Array
from seqnet.ops.graph_op import SymbolicShape, apply_op


class NumpySum(Sum):
    """A sum that accumulates in a wider dtype without a copy of its input in that dtype."""

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        found = np.add.reduce(inputs[0], axis=self.axis, dtype=self.acc_dtype)
        outputs[0][0] = np.asarray(found, dtype=node.outputs[0].type.dtype)

    @classmethod
    def of(cls, op: Sum) -> NumpySum:
        """Return the same sum as an Op of this class."""
        return cls(axis=op.axis, dtype=op.dtype, acc_dtype=op.acc_dtype)


def _sigmoid(x: Array) -> Array:
    return np.reciprocal(np.add(np.exp(np.negative(x)), np.asarray(1, dtype=x.dtype)))


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


_ARRAY_FUNCTIONS: dict[type, Callable] = {
    scalar.Switch: np.where,
    scalar.Clip: lambda x, low, high: np.minimum(np.maximum(x, low), high),
    scalar.Second: lambda a, b: np.broadcast_arrays(a, b)[1],
    scalar.Identity: lambda x: x,
    scalar.Sqr: lambda x: np.multiply(x, x),
    Sigmoid: _sigmoid,
    Softplus: _softplus,
}
_CHAINED = (scalar.Add, scalar.Mul, scalar.AND, scalar.OR, scalar.Maximum, scalar.Minimum)


def array_function(op: scalar.ScalarOp, dtype: str, operands: int) -> Callable | None:
    """Return a function of whole arrays that computes a scalar Op, or None."""
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

        def chain(first: Array, *others: Array) -> Array:
            for other in others:
                first = ufunc(first, other)
            return first

        return chain
    return None


OPERATORS = {scalar.Add: " + ", scalar.Sub: " - ", scalar.Mul: " * ", scalar.TrueDiv: " / "}
"""Operations of single numbers that Python's operators compute faster than NumPy's functions."""


def compile_scalar_graph(op: scalar.ScalarOp, node: Apply) -> Callable | None:
    """Generate a Python function of arrays for a scalar Op; return None if that is impossible."""
    if isinstance(op, scalar.Composite):
        inner_inputs, inner_outputs = op.fgraph.inputs, op.fgraph.outputs
        inner_nodes = op.fgraph.toposort()
    else:
        fake = op.make_node(*[scalar.get_scalar_type(i.type.dtype)() for i in node.inputs])
        inner_inputs, inner_outputs, inner_nodes = fake.inputs, fake.outputs, [fake]
    single = all(v.type.ndim == 0 for v in node.inputs)  # single numbers, not arrays
    names = {variable: f"x{k}{'[()]' if single else ''}" for k, variable in enumerate(inner_inputs)}
    scope: dict[str, object] = {"asarray": np.asarray}
    lines: list[str] = []

    def name_of(variable: Variable) -> str:
        if variable not in names:
            if not isinstance(variable, Constant):
                raise KeyError(variable)
            names[variable] = f"c{len(scope)}"
            value = np.asarray(variable.data, dtype=variable.type.dtype)
            scope[names[variable]] = value[()] if single else value
        return names[variable]

    for inner in inner_nodes:
        if len(inner.outputs) != 1:
            return None
        output = inner.outputs[0]
        function = array_function(inner.op, output.type.dtype, len(inner.inputs))
        if function is None:
            return None
        arguments = ", ".join(
            f"asarray({name_of(v)}, dtype={output.type.dtype!r})"
            if whole_to_float(inner)
            else name_of(v)
            for v in inner.inputs
        )
        names[output] = f"t{len(lines)}"
        operator = OPERATORS.get(type(inner.op)) if single and not whole_to_float(inner) else None
        to_float = single and output.type.dtype in ("float32", "float64")
        if operator is not None:
            call = operator.join(map(name_of, inner.inputs))
        elif to_float and isinstance(inner.op, scalar.Cast):
            call = name_of(inner.inputs[0])
        else:
            label = f"f{len(scope)}"
            scope[label] = function
            call = f"{label}({arguments})"
        if function_changes_dtype(inner) and to_float:
            scope[output.type.dtype] = np.dtype(output.type.dtype).type
            call = f"{output.type.dtype}({call})"
        elif function_changes_dtype(inner):
            call = f"asarray({call}, dtype={output.type.dtype!r})"
        lines.append(f"    {names[output]} = {call}")
    results = ", ".join(name_of(v) for v in inner_outputs)
    inputs = ", ".join(f"x{k}" for k in range(len(inner_inputs)))
    source = f"def run({inputs}):\n" + "\n".join(lines) + f"\n    return ({results},)\n"
    exec(source, scope)  # the source is generated above, from the graph alone
    return cast("Callable", scope["run"])


def whole_to_float(node: Apply) -> bool:
    """Return whether a node computes floats from integers only.

    NumPy may use a narrower type: ``exp`` of int8 is float16 in NumPy and float32 in PyTensor.
    """
    kinds = {np.dtype(v.type.dtype).kind for v in node.inputs}
    return np.dtype(node.outputs[0].type.dtype).kind == "f" and kinds <= set("iub")


def function_changes_dtype(node: Apply) -> bool:
    """Return whether NumPy may choose another dtype than PyTensor."""
    dtype = node.outputs[0].type.dtype
    return dtype != "bool" and any(v.type.dtype != dtype for v in node.inputs)


class LoweredElemwise(Op):
    """An elementwise node, evaluated by a function of arrays."""

    __props__: tuple[str, ...] = ("elemwise",)

    def __init__(self, elemwise: Elemwise, run: Callable) -> None:
        self.elemwise = elemwise
        self.run = run

    def __str__(self) -> str:
        return f"{type(self).__name__}{{{self.elemwise.scalar_op}}}"

    def make_node(self, *inputs: Variable) -> Apply:
        outputs = apply_op(self.elemwise, *inputs)
        return Apply(self, list(inputs), [o.type() for o in outputs])

    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        return cast("list[SymbolicShape]", self.elemwise.infer_shape(*given))


class NumpyElemwise(LoweredElemwise):
    """An elementwise node, evaluated by whole-array NumPy calls."""

    def __init__(self, elemwise: Elemwise, run: Callable) -> None:
        super().__init__(elemwise, run)
        self.complete = outputs_depend_on_all(elemwise.scalar_op)

    def perform(
        self, node: Apply, inputs: Sequence[Array], output_storage: OutputStorageType
    ) -> None:
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
    """Return whether every output of a scalar Op depends on every input."""
    if not isinstance(op, scalar.Composite):
        return not isinstance(op, scalar.Second)
    wanted = set(op.fgraph.inputs)
    return all(wanted <= set(ancestors([output])) for output in op.fgraph.outputs)


class KernelElemwise(LoweredElemwise):
    """An elementwise node of arrays of one shape and single numbers, as a compiled kernel."""

    __props__ = ("elemwise", "numbers")

    def __init__(self, elemwise: Elemwise, run: Callable, numbers: tuple[int, ...]) -> None:
        super().__init__(elemwise, run)
        self.numbers = numbers

    def perform(
        self, node: Apply, inputs: Sequence[Array], output_storage: OutputStorageType
    ) -> None:
        inputs = list(inputs)
        for k in self.numbers:
            inputs[k] = inputs[k].reshape(())
        for storage, result in zip(output_storage, self.run(*inputs), strict=True):
            storage[0] = result


SMALL = 32768
"""With fewer elements, NumPy is as fast: a call of a compiled kernel has a higher fixed cost."""

MANY = 4
"""With so many operations at every step of a loop, a compiled kernel is faster at any size."""


def elementwise_kernel(node: Apply, looped: bool) -> KernelElemwise | None:
    """Return an Op that runs an elementwise node as a compiled kernel, or None.

    Compiled kernels are used for arrays that are known to be large and for the steps of a loop,
    where they are faster than NumPy.
    """
    scalar_op, output = node.op.scalar_op, node.outputs[0]
    dtype = output.type.dtype
    if dtype not in ("float32", "float64") or any(
        v.type.dtype != dtype for v in (*node.inputs, *node.outputs)
    ):
        return None
    operations = len(scalar_op.fgraph.apply_nodes) if isinstance(scalar_op, scalar.Composite) else 1
    sizes = output.type.shape
    large = bool(sizes) and None not in sizes and np.prod(sizes) >= SMALL
    if not ((large and operations > 1) or (looped and operations >= MANY)):
        return None
    numbers = tuple(k for k, v in enumerate(node.inputs) if all(v.type.broadcastable))
    arrays = [v for k, v in enumerate(node.inputs) if k not in numbers]
    if not arrays or any(any(v.type.broadcastable) for v in arrays):
        return None
    plain = Elemwise(scalar_op)
    variables = [
        TensorType(dtype, () if k in numbers else (None,) * v.type.ndim)()
        for k, v in enumerate(node.inputs)
    ]
    try:
        kernel = native.ElementwiseKernel(variables, apply_op(plain, *variables))
    except native.KernelUnavailable:
        return None
    return KernelElemwise(plain, kernel, numbers)


def lower_elementwise(node: Apply, with_kernels: bool, looped: bool) -> LoweredElemwise | None:
    """Return an Op that evaluates an elementwise node fast, or None if it is not supported.

    `looped` says that the node runs at every step of a loop.
    """
    lowered = elementwise_kernel(node, looped) if with_kernels else None
    if lowered is not None:
        return lowered
    run = compile_scalar_graph(node.op.scalar_op, node)
    return None if run is None else NumpyElemwise(Elemwise(node.op.scalar_op), run)

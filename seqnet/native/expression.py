"""Elementwise PyTensor graphs as a list of operations without duplicates.

PyTensor's graph of a cell and its gradient has many duplicates (`tanh` of the same value in four
places) and shape operations around numbers. `Expressions` holds only the arithmetic: a list of
``(operation, arguments)`` in a computable order, without duplicates, and with few simplifications,
such as ``x * 1`` and ``x + 0``. A compiled kernel therefore computes what was written, and reading
a graph takes a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from .compiler import KernelUnavailable

if TYPE_CHECKING:
    from pytensor.graph.basic import Apply, Variable
    from pytensor.graph.op import Op
    from pytensor.scalar.basic import Composite

COMPARISONS = {"lt": "<", "gt": ">", "le": "<=", "ge": ">=", "eq": "==", "neq": "!="}
MASKS = {*COMPARISONS, "and", "or", "not", "xor", "isnan"}

# Class names of PyTensor's scalar operations -> names here
ARITHMETIC = {
    "Add": "add",
    "Mul": "mul",
    "Sub": "sub",
    "TrueDiv": "div",
    "Neg": "neg",
    "Sqrt": "sqrt",
    "Abs": "abs",
    "Sign": "sign",
    "Switch": "switch",
    "Maximum": "maximum",
    "Minimum": "minimum",
    "ScalarMaximum": "maximum",
    "ScalarMinimum": "minimum",
    "Floor": "floor",
    "Ceil": "ceil",
    "Trunc": "trunc",
    "RoundHalfToEven": "rint",
    "RoundHalfAwayFromZero": "round",
    "LT": "lt",
    "GT": "gt",
    "LE": "le",
    "GE": "ge",
    "EQ": "eq",
    "NEQ": "neq",
    "AND": "and",
    "OR": "or",
    "XOR": "xor",
    "Invert": "not",
    "IsNan": "isnan",
}
FUNCTIONS = {
    "Exp": "exp",
    "Exp2": "exp2",
    "Expm1": "expm1",
    "Log": "log",
    "Log2": "log2",
    "Log10": "log10",
    "Log1p": "log1p",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "Softplus": "softplus",
    "Erf": "erf",
    "Erfc": "erfc",
    "Sin": "sin",
    "Cos": "cos",
    "Tan": "tan",
    "ArcSin": "asin",
    "ArcCos": "acos",
    "ArcTan": "atan",
    "ArcTan2": "atan2",
    "Sinh": "sinh",
    "Cosh": "cosh",
    "ArcSinh": "asinh",
    "ArcCosh": "acosh",
    "ArcTanh": "atanh",
}
SIMPLE = ARITHMETIC | FUNCTIONS
TRANSCENDENTAL = {*FUNCTIONS.values(), "pow"}
"""Functions whose values a forward pass saves for the gradient, because they are expensive."""

# Operations that have no effect here on a single number, because all arrays have the same shape.
SHAPES = (
    "DimShuffle",
    "ExpandDims",
    "Squeeze",
    "TensorFromScalar",
    "ScalarFromTensor",
    "SpecifyShape",
    "Alloc",
)


PASSED = ("GradClip", "RoundGradient", "ZeroGrad", "DisconnectedGrad", "ConsiderConstant")
"""Operations that return their input, and change its gradient."""

FOLDED = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}


class Expressions:
    """Operations in computable order; a value is its index in `nodes`."""

    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self.nodes: list[tuple] = []
        self._known: dict[tuple, int] = {}
        self._rounded: set[Variable] | None = None

    # ---- building -------------------------------------------------------------------
    def add(self, operation: str, *arguments: int | str) -> int:
        """Return the value of an operation: an existing one if there is an equal one."""
        simpler = self._simplify(operation, arguments)
        if simpler is not None:
            return simpler
        key = (operation, *arguments)
        if key not in self._known:
            self._known[key] = len(self.nodes)
            self.nodes.append(key)
        return self._known[key]

    def constant(self, value: float) -> int:
        """Return the value of a number, rounded to the compiled kernel's precision."""
        number = float(self.dtype.type(value))
        return self.add("constant", number.hex())  # as text, because -0.0 == 0.0 and NaN != NaN

    def is_mask(self, value: int) -> bool:
        """Return whether a value is a boolean and not a number."""
        return self.nodes[value][0] in MASKS

    def value_of(self, value: int) -> float | None:
        """Return the number of a constant, None for other values."""
        operation, *arguments = self.nodes[value]
        return float.fromhex(arguments[0]) if operation == "constant" else None

    def _simplify(self, operation: str, arguments: tuple) -> int | None:
        if operation in ("input", "constant"):
            return None
        numbers = [self.value_of(a) for a in arguments]
        if operation in FOLDED and None not in numbers:
            with np.errstate(all="ignore"):
                a, b = (self.dtype.type(n) for n in numbers)
                return self.constant(FOLDED[operation](a, b))
        if (
            operation == "mul" and 0.0 in numbers
        ):  # PyTensor writes a gradient of zero as 0 * something
            return self.constant(0.0)
        if operation == "mul" and 1.0 in numbers:
            return self.number(arguments[1 - numbers.index(1.0)])
        if operation == "add" and 0.0 in numbers:
            return self.number(arguments[1 - numbers.index(0.0)])
        if operation in ("sub", "div") and numbers[1] == (0.0 if operation == "sub" else 1.0):
            return self.number(arguments[0])
        if operation == "switch" and arguments[1] == arguments[2]:
            return arguments[1]
        if operation == "neg" and numbers[0] is not None:
            return self.constant(-numbers[0])
        return None

    def number(self, value: int) -> int:
        """Return a value as a number: masks become 1 and 0."""
        return self.add("number", value) if self.is_mask(value) else value

    def mask(self, value: int) -> int:
        """Return a value as a mask: numbers are true where they are not 0."""
        return value if self.is_mask(value) else self.add("neq", value, self.constant(0.0))

    # ---- reading PyTensor -----------------------------------------------------------
    def read(self, outputs: Sequence, known: dict) -> list[int]:
        """Return the values of PyTensor variables, given those of the variables they depend on.

        Parameters
        ----------
        outputs
            Variables, each an elementwise function of the keys of `known`.
        known
            The value of each input variable. Intermediate variables are added.

        Raises
        ------
        KernelUnavailable
            If an operation is not elementwise, not supported, or of another precision.
        """
        from pytensor.graph.traversal import io_toposort

        for node in io_toposort(list(known), outputs):
            for variable in node.inputs:
                if variable not in known:
                    known[variable] = self._leaf(variable)
            if len(node.outputs) == 1 and node.outputs[0] in known:
                continue
            arguments = [known[v] for v in node.inputs]
            for variable, value in zip(node.outputs, self._apply(node, arguments), strict=True):
                known[variable] = value
        return [known[v] if v in known else self._leaf(v) for v in outputs]

    def gradients(self, slopes: Sequence, known: dict) -> list[int]:
        """Return the values of gradients as numbers: 0 for None.

        PyTensor's gradient of a comparison is a zero of its own default dtype. What is of that
        dtype only because of such numbers is computed in the precision of the compiled kernel.
        """
        self._rounded = set()
        found = [
            self.constant(0.0) if s is None else self.number(self.read([s], known)[0])
            for s in slopes
        ]
        self._rounded = None
        return found

    @staticmethod
    def unavailable(what: str) -> KernelUnavailable:
        """Return the error that names what a compiled kernel cannot compute."""
        return KernelUnavailable(f"a compiled kernel cannot be made: {what}")

    def _leaf(self, variable: Variable) -> int:
        data = getattr(variable, "data", None)
        if data is None:
            raise KernelUnavailable(
                f"a compiled kernel cannot be made: {variable} is not one of the declared inputs"
            )
        data = np.asarray(data)
        if self._rounded is not None:
            self._rounded.add(variable)
        if data.size != 1 and not (data.size and (data == data.flat[0]).all()):
            raise KernelUnavailable(
                f"a compiled kernel cannot be made: the constant {variable} is more than one number"
            )
        return self.constant(data.flat[0])

    def _apply(self, node: Apply, arguments: list[int]) -> list[int]:
        op, name = node.op, type(node.op).__name__
        if name == "Elemwise":
            return self._scalar(op.scalar_op, node, arguments)
        if name in PASSED:
            return [arguments[0]]
        if name == "RoundToBfloat16":
            return [self.add("bfloat16", self.number(arguments[0]))]
        if name in SHAPES and (
            name == "SpecifyShape" or all(getattr(node.inputs[0].type, "broadcastable", ()))
        ):
            if self._rounded is not None and node.inputs[0] in self._rounded:
                self._rounded.update(node.outputs)
            return [arguments[0]]
        raise KernelUnavailable(
            f"a compiled kernel cannot be made: the operation {op} is not elementwise or not known"
        )

    def _scalar(self, op: Op, node: Apply, arguments: list[int]) -> list[int]:
        """Add one PyTensor scalar operation; `node` has the types."""
        name = type(op).__name__
        if name == "Composite":
            return self._composite(cast("Composite", op), arguments)
        output = node.outputs[0].type.dtype
        if output != "bool" and np.dtype(output).kind == "f" and output != self.dtype.name:
            same = [v for v in node.inputs if v.type.dtype == output]
            if not same or self._rounded is None or not self._rounded.issuperset(same):
                raise KernelUnavailable(
                    f"a compiled kernel cannot be made: {op} returns {output}, "
                    f"the compiled kernel computes in {self.dtype.name}"
                )
            self._rounded.update(node.outputs)
        if np.dtype(output).kind not in "fb":
            raise KernelUnavailable(
                f"a compiled kernel cannot be made: {op} returns {output}; "
                "only floats and bools are supported"
            )
        if name == "Second":
            return [arguments[1]]
        if name in ("Identity", "Cast") or name.startswith("Cast"):
            return [self.mask(arguments[0]) if output == "bool" else self.number(arguments[0])]
        if name == "Sqr":
            return [self.add("mul", self.number(arguments[0]), self.number(arguments[0]))]
        if name == "Reciprocal":
            return [self.add("div", self.constant(1.0), self.number(arguments[0]))]
        if name == "Clip":
            return [self.add("clip", *map(self.number, arguments))]
        if name == "Pow":
            return [self._power(*arguments)]
        if name == "Switch":
            return [self.add("switch", self.mask(arguments[0]), *map(self.number, arguments[1:]))]
        if name not in SIMPLE:
            raise KernelUnavailable(
                f"a compiled kernel cannot be made: the operation {op} ({name}) is not known"
            )
        operation = SIMPLE[name]
        if operation in ("and", "or", "xor", "not"):
            return [self.add(operation, *map(self.mask, arguments))]
        if output == "bool" and operation not in MASKS:
            raise KernelUnavailable(f"a compiled kernel cannot be made: {op} of bools")
        values = [self.number(a) for a in arguments]
        while operation in ("add", "mul", "maximum", "minimum") and len(values) > 2:
            values[:2] = [self.add(operation, *values[:2])]
        return (
            [self.add(operation, *values)]
            if len(values) > 1 or operation not in ("add", "mul")
            else values
        )

    def _composite(self, op: Composite, arguments: list[int]) -> list[int]:
        graph = op.fgraph
        values = dict(zip(graph.inputs, arguments, strict=True))
        for node in graph.toposort():
            for variable in node.inputs:
                if variable not in values:
                    values[variable] = self._leaf(variable)
            results = self._scalar(node.op, node, [values[v] for v in node.inputs])
            values.update(zip(node.outputs, results, strict=True))
        return [values[v] if v in values else self._leaf(v) for v in graph.outputs]

    def _power(self, base: int, exponent: int) -> int:
        power, base = self.value_of(exponent), self.number(base)
        if power == 0.5:
            return self.add("sqrt", base)
        if power is None or power != int(power) or abs(power) > 16:
            return self.add("pow", base, self.number(exponent))
        result = None
        for bit in bin(abs(int(power)))[:1:-1]:  # from the least
            if bit == "1":
                result = base if result is None else self.add("mul", result, base)
            base = self.add("mul", base, base)
        result = self.constant(1.0) if result is None else result
        return result if power >= 0 else self.add("div", self.constant(1.0), result)

    # ---- queries --------------------------------------------------------------------
    def arguments(self, value: int) -> tuple[int, ...]:
        """Return the values that a value is computed from."""
        operation, *arguments = self.nodes[value]
        return () if operation in ("input", "constant") else tuple(arguments)

    def needed(self, outputs: Sequence[int], given: Sequence[int] = ()) -> list[int]:
        """Return the values that `outputs` depend on, in computable order, up to those `given`."""
        wanted: set[int] = set()
        stack = list(outputs)
        while stack:
            value = stack.pop()
            if value not in wanted:
                wanted.add(value)
                if value not in given:
                    stack.extend(self.arguments(value))
        return sorted(wanted)

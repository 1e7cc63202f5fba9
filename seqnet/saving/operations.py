"""Operations of PyTensor between layers, as JSON and back.

Only the operations listed here are written, each by its name: reading a file never runs code that
the file names. `encode` returns None for all others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytensor.scalar as ps
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.op import Op
from pytensor.tensor.basic import Join
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.special import LogSoftmax, Softmax
from pytensor.tensor.subtensor import Subtensor

ELEMENTWISE = (
    *("Abs", "Add", "Mul", "Sub", "TrueDiv", "IntDiv", "Mod", "Pow", "Neg", "Reciprocal", "Sqr"),
    *("Sqrt", "Exp", "Exp2", "Expm1", "Log", "Log2", "Log10", "Log1p", "Log1mexp", "Sigmoid"),
    *("Softplus", "Tanh", "Sinh", "Cosh", "Sin", "Cos", "Tan", "ArcSin", "ArcCos", "ArcTan"),
    *("ArcTan2", "ArcSinh", "ArcCosh", "ArcTanh", "Erf", "Erfc", "Maximum", "Minimum"),
    *("ScalarMaximum", "ScalarMinimum", "Clip", "Switch", "EQ", "NEQ", "LT", "LE", "GT", "GE"),
    *("AND", "OR", "XOR", "Invert", "Sign", "Ceil", "Floor", "Trunc", "RoundHalfToEven"),
    *("RoundHalfAwayFromZero", "IsNan", "IsInf", "Identity", "Second"),
)
"""Classes of elementwise operations, which are found in `pytensor.scalar`."""

SCALAR_OPS: dict[str, type] = {
    name: getattr(found, name)
    for name in ELEMENTWISE
    for found in (ps.basic, ps.math)
    if isinstance(getattr(found, name, None), type)
}
INSTANCES = {type(op): op for op in (*vars(ps.basic).values(), *vars(ps.math).values())}
"""The instance of each class that PyTensor itself uses: it decides the type of the result."""

REDUCTIONS: dict[str, Callable] = {
    name: getattr(pt, name) for name in ("sum", "prod", "max", "min", "all", "any")
}


def encode(op: Op) -> dict[str, Any] | None:
    """Return an operation as values that JSON holds; None if it is not a known one.

    Examples
    --------
    >>> import pytensor.tensor as pt
    >>> from seqnet.saving.operations import encode
    >>> encode(pt.tanh(pt.matrix()).owner.op)
    {'name': 'elementwise', 'of': 'Tanh'}
    """
    if isinstance(op, Elemwise):
        scalar = op.scalar_op
        kind = type(scalar).__name__
        if isinstance(scalar, ps.Cast):
            return {"name": "cast", "dtype": scalar.o_type.dtype}
        if SCALAR_OPS.get(kind) is not type(scalar) or type(scalar) not in INSTANCES:
            return None
        return {"name": "elementwise", "of": kind}
    if isinstance(op, DimShuffle):
        return {"name": "axes", "order": [-1 if k == "x" else int(k) for k in op.new_order]}
    if isinstance(op, CAReduce):
        kind = type(op).__name__.lower()
        axes = None if op.axis is None else [int(axis) for axis in op.axis]
        return {"name": "reduce", "of": kind, "axes": axes} if kind in REDUCTIONS else None
    if isinstance(op, (Softmax, LogSoftmax)):
        kind = "softmax" if isinstance(op, Softmax) else "log_softmax"
        axis = op.axis if op.axis is None or isinstance(op.axis, int) else op.axis[0]
        whole = isinstance(op.axis, tuple) and len(op.axis) > 1
        return None if whole else {"name": kind, "axis": axis}
    if isinstance(op, Join):
        found = getattr(op, "axis", None)
        return {"name": "join", "axis": found} if found is not None else {"name": "join"}
    if isinstance(op, Subtensor):
        return {"name": "index", "of": [index_to_json(index) for index in op.idx_list]}
    return None


def decode(given: dict[str, Any], inputs: list[Any]) -> list[Variable]:
    """Return the outputs of an operation that `encode` returned, applied to inputs.

    Raises
    ------
    ValueError
        If the operation is unknown.
    """
    name = given.get("name")
    if name == "elementwise" and given.get("of") in SCALAR_OPS:
        return Elemwise(INSTANCES[SCALAR_OPS[given["of"]]]).make_node(*inputs).outputs
    if name == "cast":
        return [pt.cast(inputs[0], str(given["dtype"]))]
    if name == "axes":
        order = ["x" if k == -1 else k for k in given["order"]]
        return [inputs[0].dimshuffle(*order)]
    if name == "reduce" and given.get("of") in REDUCTIONS:
        axes = given["axes"]
        return [REDUCTIONS[given["of"]](inputs[0], None if axes is None else tuple(axes))]
    if name == "softmax":
        return [pt.special.softmax(inputs[0], axis=given["axis"])]
    if name == "log_softmax":
        return [pt.special.log_softmax(inputs[0], axis=given["axis"])]
    if name == "join":
        axis, *parts = inputs if "axis" not in given else (given["axis"], *inputs)
        return [pt.join(axis, *parts)]
    if name == "index":
        indices = [index_from_json(index) for index in given["of"]]
        return Subtensor(indices).make_node(*inputs).outputs
    raise ValueError(f"{str(given)[:100]} is no operation that a model can be read with.")


def index_to_json(index: Any) -> Any:
    """Return an item of the list of indices of a `Subtensor`: the place of an input, or a slice."""
    if isinstance(index, slice):
        return {"slice": [index.start, index.stop, index.step]}
    return int(index)


def index_from_json(index: Any) -> Any:
    """Return what `index_to_json` was given."""
    return slice(*index["slice"]) if isinstance(index, dict) else index

"""seqnet's Ops and PyTensor's softmax, computed by compiled kernels.

`KERNELS` maps each Op of `seqnet.ops` to the function of arrays that computes it. The functions
process rows in the order in which they are stored: a time-major sequence that is transposed to
batch-major needs no copy for a product.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op, OutputStorageType
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.tensor.special import LogSoftmax, Softmax

from seqnet.common.types import Array
from seqnet.ops.additive import AdditiveScores, AdditiveScoresGradient
from seqnet.ops.affine import Affine, AffineGradient
from seqnet.ops.chain import ChainBestPath, ChainGradient, ChainLogSum
from seqnet.ops.count import Count
from seqnet.ops.crossentropy import SoftmaxCrossEntropy
from seqnet.ops.ctc import CTCLoss
from seqnet.ops.graph_op import GraphOp, SymbolicShape, apply_op
from seqnet.ops.lookup import Gather, ScatterAdd, SumRows
from seqnet.ops.lookup_affine import LookupAffine, LookupAffineGradient
from seqnet.ops.norms import SquaredNorms

try:
    from seqnet import native
except ImportError:  # the package is optional: everything works without it, slower
    native = None  # type: ignore[assignment]

log = logging.getLogger("seqnet")


def uses_bfloat16() -> bool:
    """Return whether compiled kernels round to bfloat16 here; log once if they do not."""
    if native.bfloat16_products():
        return True
    log_float32()
    return False


@cache
def log_float32() -> None:
    """Log once that layers with a mixed policy compute in float32."""
    log.warning(
        "This processor has no instruction for products in bfloat16 (AVX-512 BF16), so layers with "
        "the policy 'mixed_bfloat16' compute in float32."
    )


# ---- arrays as matrices


def memory_order(x: np.ndarray) -> tuple[int, ...]:
    """Return the storage order of all axes but the last, slowest first."""
    if x.ndim == 3:  # by far the most frequent
        first, second, _ = x.strides
        return (0, 1) if abs(first) >= abs(second) else (1, 0)
    if x.ndim == 2:
        return (0,)
    return tuple(sorted(range(x.ndim - 1), key=lambda axis: -abs(x.strides[axis])))


def rows_of(x: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Return `x` as (rows, features), with the leading axes in the given order."""
    if x.ndim == 2:
        return x
    return x.transpose(*order, x.ndim - 1).reshape(-1, x.shape[-1])


def shape_back(rows: np.ndarray, shape: tuple[int, ...], order: tuple[int, ...]) -> np.ndarray:
    """Undo `rows_of` for an array of leading `shape` and any number of features."""
    if len(order) == 1:
        return rows
    inverse = order if len(order) == 2 else sorted(range(len(order)), key=order.__getitem__)
    ordered = rows.reshape(*[shape[axis] for axis in order], rows.shape[-1])
    return ordered.transpose(*inverse, len(order))


# ---- the function of each Op: it takes arrays and returns a tuple of arrays


def compute_affine(
    x: Array, kernel: Array, bias: Array | None = None, *, bfloat16: bool = False
) -> tuple[Array]:
    """Return ``x @ kernel + bias`` over the last axis."""
    order = memory_order(x)
    rows = native.gemm(rows_of(x, order), kernel, bias=bias, bfloat16=bfloat16)
    return (shape_back(rows, x.shape, order),)


def compute_affine_gradient(
    x: Array, gradient: Array, *, bfloat16: bool = False
) -> tuple[Array, ...]:
    """Return the gradients of an affine map's kernel and bias."""
    order = memory_order(x)
    return native.gemm(
        rows_of(x, order).T, rows_of(gradient, order), column_sums=True, bfloat16=bfloat16
    )


def compute_gather(table: Array, ids: Array) -> tuple[Array]:
    """Return ``table[ids]``.

    Two-dimensional ids, (batch, time), are looked up in time-major order, so that the result is
    stored in the order in which a recurrence reads it.
    """
    if ids.ndim == 2:
        return (native.gather(table, ids.T).transpose(1, 0, 2),)
    return (native.gather(table, ids),)


def compute_scatter_add(rows: Array, ids: Array, count: Array | int) -> tuple[Array]:
    """Return (count, width): the sum of the rows (..., width) of each id in `ids` (...)."""
    order = memory_order(rows)
    rows = rows.transpose(*order, rows.ndim - 1)
    return (native.scatter_add(rows, ids.transpose(order), int(count)),)


def compute_sum_rows(rows: Array, ids: Array) -> tuple[Array, ...]:
    """Return the unique ids and the sum of the rows of each."""
    order = memory_order(rows)
    unique, place = np.unique(ids.transpose(order).reshape(-1), return_inverse=True)
    summed = native.scatter_add(rows_of(rows, order), place.reshape(-1), len(unique))
    return unique.astype("int64"), summed


def compute_lookup_affine(
    table: Array, ids: Array, *weights: Array, bfloat16: bool = False
) -> tuple[Array, ...]:
    """Return ``table[ids] @ kernel + bias``.

    Either the whole table is multiplied and the products are looked up, or the rows of the table
    are looked up and multiplied, whichever is less work.
    """
    if len(table) <= ids.size:
        return compute_gather(*compute_affine(table, *weights, bfloat16=bfloat16), ids)
    return compute_affine(*compute_gather(table, ids), *weights, bfloat16=bfloat16)


def compute_lookup_affine_gradient(
    table: Array, ids: Array, kernel: Array, gradient: Array, *, bfloat16: bool = False
) -> tuple[Array, ...]:
    """Return the gradients of a table, a kernel and a bias, in the order with less work.

    With `bfloat16` the rows are summed first, because the sums are what is rounded.
    """
    rows = len(table)
    if rows <= ids.size or bfloat16:
        (summed,) = compute_scatter_add(gradient, ids, rows)
        return (
            *compute_affine(summed, kernel.T, bfloat16=bfloat16),
            *compute_affine_gradient(table, summed, bfloat16=bfloat16),
        )
    (x,) = compute_gather(table, ids)
    of_table = compute_scatter_add(*compute_affine(gradient, kernel.T), ids, rows)
    return (*of_table, *compute_affine_gradient(x, gradient))


def compute_cross_entropy(logits: Array, targets: Array, slope: bool = True) -> tuple[Array, ...]:
    """Return the cross-entropy of a softmax, and its derivative.

    Without `slope` the second array is a placeholder.
    """
    order = memory_order(logits)
    loss, slopes = native.softmax_cross_entropy(
        rows_of(logits, order), targets.transpose(order).reshape(-1), gradient=slope
    )
    loss = shape_back(loss[:, None], logits.shape[:-1], order)[..., 0]
    return loss, logits if slopes is None else shape_back(slopes, logits.shape[:-1], order)


def compute_cross_entropy_alone(logits: Array, targets: Array) -> tuple[Array, ...]:
    """Return the cross-entropy of a softmax without its derivative."""
    return compute_cross_entropy(logits, targets, slope=False)


@dataclass(frozen=True)
class InBfloat16:
    """A function of arrays whose products have rounded operands."""

    run: Callable

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        return self.run(*arrays, bfloat16=True)


@dataclass(frozen=True)
class ComputeCTC:
    """The CTC loss and its derivative; without `slope` the second array is a placeholder."""

    blank: int
    slope: bool = True

    def __call__(
        self, logits: Array, mask: Array, labels: Array, lengths: Array
    ) -> tuple[Array, ...]:
        loss, slope = native.ctc_loss(
            logits, mask, labels, lengths, self.blank, gradient=self.slope
        )
        return loss, logits if slope is None else slope


def without_slope(run: Callable) -> Callable | None:
    """Return the function that computes a loss without its derivative, if there is one."""
    if run is compute_cross_entropy:
        return compute_cross_entropy_alone
    return ComputeCTC(run.blank, slope=False) if isinstance(run, ComputeCTC) else None


def compute_additive_scores(query: Array, key: Array, scale: Array) -> tuple[Array]:
    """Return ``sum(scale * tanh(query + key))``, one example at a time."""
    (batch, queries, features), steps = query.shape, key.shape[1]
    scores = np.empty((batch, queries, steps), dtype=query.dtype)
    activated = np.empty((queries, steps, features), dtype=query.dtype)
    for q, k, row in zip(query, key, scores, strict=True):
        np.add(q[:, None, :], k, out=activated)
        np.tanh(activated, out=activated)
        np.matmul(activated, scale, out=row)
    return (scores,)


def compute_additive_scores_gradient(
    query: Array, key: Array, scale: Array, gradient: Array
) -> tuple[Array, ...]:
    """Return the gradients of the query, the key and the scale, one example at a time."""
    (_, queries, features), steps = query.shape, key.shape[1]
    d_query, d_key = np.empty_like(query, order="C"), np.empty_like(key, order="C")
    d_scale = np.zeros_like(scale)
    a = np.empty((queries, steps, features), dtype=query.dtype)
    for q, k, g, d_q, d_k in zip(query, key, gradient, d_query, d_key, strict=True):
        np.add(q[:, None, :], k, out=a)
        np.tanh(a, out=a)
        d_scale += np.matmul(g.reshape(-1), a.reshape(-1, features))
        np.multiply(a, a, out=a)
        np.subtract(1, a, out=a)  # the slope of tanh
        np.multiply(np.matmul(g[:, None, :], a)[:, 0], scale, out=d_q)
        np.multiply(np.matmul(g.T[:, None, :], a.transpose(1, 0, 2))[:, 0], scale, out=d_k)
    return d_query, d_key, d_scale


KERNELS: dict[type[GraphOp], Callable] = {
    AdditiveScores: compute_additive_scores,
    AdditiveScoresGradient: compute_additive_scores_gradient,
    Affine: compute_affine,
    AffineGradient: compute_affine_gradient,
    ChainBestPath: lambda *arrays: (native.chain_best(*arrays),),
    ChainGradient: lambda *arrays: native.chain_backward(*arrays),
    ChainLogSum: lambda *arrays: native.chain_forward(*arrays),
    Count: lambda x: (np.asarray(x.size, x.dtype),),
    Gather: compute_gather,
    LookupAffine: compute_lookup_affine,
    LookupAffineGradient: compute_lookup_affine_gradient,
    ScatterAdd: compute_scatter_add,
    SoftmaxCrossEntropy: compute_cross_entropy,
    SquaredNorms: lambda *arrays: (native.squared_norms(arrays),),
    SumRows: compute_sum_rows,
}


class KernelOp(Op):
    """An Op of `seqnet.ops` that is computed by a compiled kernel.

    Parameters
    ----------
    op : GraphOp
        The Op to compute.
    run : callable
        The function of arrays that computes it.
    """

    __props__: tuple[str, ...] = ("op", "run")

    def __init__(self, op: GraphOp, run: Callable) -> None:
        self.op, self.run = op, run

    def __str__(self) -> str:
        return f"{type(self).__name__}{{{self.op}}}"

    def make_node(self, *inputs: Variable) -> Apply:
        return Apply(self, list(inputs), self.op.outputs_for(*inputs))

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        for storage, value in zip(outputs, self.run(*inputs), strict=True):
            storage[0] = value

    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        return self.op.infer_shape(*given)


def function_of(op: GraphOp) -> Callable | None:
    """Return the function of arrays that computes an Op, or None."""
    if isinstance(op, CTCLoss):
        return ComputeCTC(op.blank)
    run: Callable | None = KERNELS.get(type(op))
    return InBfloat16(run) if run and getattr(op, "bfloat16", False) and uses_bfloat16() else run


def kernel_op(node: Apply) -> KernelOp | None:
    """Return an Op that computes a node by a compiled kernel, or None if there is none."""
    op: GraphOp = node.op
    run = function_of(op)
    floats = {v.type.dtype for v in node.outputs if v.type.dtype.startswith("float")}
    if run is None or not floats <= {"float32", "float64"}:
        return None
    if isinstance(op, SquaredNorms):
        dtypes = {v.type.dtype for v in node.inputs}
        if len(dtypes) > 1 or not dtypes <= {"float32", "float64"}:
            return None
    return KernelOp(op, run)


class RowSoftmax(Op):
    """``softmax(x)`` over the last axis of (..., classes), or its logarithm if `log`.

    It has no gradient: it replaces PyTensor's own Ops after differentiation.
    """

    __props__ = ("log",)

    def __init__(self, log: bool = False) -> None:
        self.log = log

    def make_node(self, *inputs: Variable) -> Apply:
        (x,) = inputs
        return Apply(self, [x], [x.type()])

    def perform(self, node: Apply, inputs: Sequence[Array], outputs: OutputStorageType) -> None:
        (x,) = inputs
        order = memory_order(x)
        run = native.log_softmax if self.log else native.softmax
        outputs[0][0] = shape_back(run(rows_of(x, order)), x.shape, order)

    def infer_shape(self, *given: Any) -> list[SymbolicShape]:
        return given[-1]


@node_rewriter([Softmax, LogSoftmax])
def softmax_of_rows(fgraph: FunctionGraph, node: Apply) -> list[Variable] | bool:
    """Replace PyTensor's softmaxes over the last axis."""
    (x,) = node.inputs
    if node.op.axis != (x.type.ndim - 1,) or x.type.dtype not in ("float32", "float64"):
        return False
    return apply_op(RowSoftmax(isinstance(node.op, LogSoftmax)), x)


use_softmax_kernels = dfs_rewriter(softmax_of_rows)

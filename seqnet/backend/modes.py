"""Modes of the configured backend, and `compile`, the only caller of `pytensor.function`."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytensor
from pytensor.compile.mode import OPT_FAST_RUN, Mode, get_mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.graph.traversal import ancestors
from pytensor.link.vm import VMLinker
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor.elemwise import CAReduce
from pytensor.tensor.random.type import RandomType

from seqnet import config
from seqnet.backend.kernel_ops import native as native_code
from seqnet.backend.kernel_ops import use_softmax_kernels, uses_bfloat16
from seqnet.backend.lowering import ChooseKernels, LowerForVM, inline_inner_graphs, work_in_place
from seqnet.backend.recurrence import why_not_fused
from seqnet.common.locking import compiling
from seqnet.common.types import Array
from seqnet.ops.bfloat16 import RoundToBfloat16
from seqnet.ops.recurrence import Recurrence
from seqnet.ops.schedule import ScheduledRate, rate_at
from seqnet.ops.unrolled import UnrolledStep

log = logging.getLogger("seqnet")


@cache
def vm_mode(with_kernels: bool, looped: bool = False) -> Mode:
    """Return seqnet's own mode: PyTensor's Python virtual machine, with seqnet's compiled kernels.

    `looped` selects the mode of functions that run at every step of a loop.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.backend.vm_mode(with_kernels=False).linker.__class__.__name__
    'VMLinker'
    """
    linker = VMLinker(use_cloop=False, c_thunks=False, allow_gc=True)

    def inner_mode() -> Mode:
        return vm_mode(with_kernels, looped=True)

    def compile_inner(step: UnrolledStep) -> Callable:
        inputs, outputs = step.body
        function = pytensor.function(inputs, outputs, mode=inner_mode(), on_unused_input="ignore")
        function.trust_input = True
        return function

    lower = LowerForVM(inner_mode, compile_inner, with_kernels, looped)
    query = OPT_FAST_RUN
    if with_kernels:
        query = query.excluding("BlasOpt").register((use_softmax_kernels, 1.55))
    query = query.register(
        # PyTensor's annotation is wrong: rewriters are registered, not queries.
        # First, because a recurrence and its gradient are matched by their inputs, which PyTensor's
        # rewrites change. PyTensor's own inlining (-0.01) replaces the remaining Ops.
        (ChooseKernels(with_kernels), -0.5),  # type: ignore[arg-type]
        # After stabilization (1.5), which rewrites log(softmax), and before specialization (2).
        (inline_inner_graphs, 1.6),
        # After fusion (49), before the in-place rewrites (from 50), which expect Elemwise.
        (lower, 49.4),  # type: ignore[arg-type]
        # With the in-place rewrites, which check that no other node reads the overwritten value.
        (work_in_place, 70),
    )
    return Mode(linker, query)


def native() -> ModuleType | None:
    """Return `seqnet.native` if the backend uses compiled kernels and they work here, else None.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.config.set_backend("numpy")
    >>> seqnet.backend.native() is None
    True
    >>> seqnet.config.set_backend("auto")
    """
    if config.backend() != "auto" or native_code is None:
        return None
    usable, reason = native_code.available()
    if not usable:
        log_once(f"The compiled kernels are not used: {reason}")
        return None
    return native_code


def rounds_to_bfloat16() -> bool:
    """Return whether the configured backend rounds the operands of products in bfloat16.

    Compiled kernels do so where the processor has an instruction for it. All other backends do.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.config.set_backend("numpy")
    >>> seqnet.backend.rounds_to_bfloat16()
    True
    >>> seqnet.config.set_backend("auto")
    """
    kernels = native()
    return kernels is None or uses_bfloat16()


def needs_sizes() -> bool:
    """Return whether the configured backend compiles only for fixed sizes of all arrays.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.backend.needs_sizes()
    False
    """
    return config.backend() == "jax"


@cache
def log_once(message: str) -> None:
    """Log a warning once in this process.

    Examples
    --------
    >>> import seqnet
    >>> for _ in range(2):
    ...     seqnet.backend.log_once("This computer has no GPU.")
    """
    log.warning(message)


@node_rewriter([CAReduce])
def reduce_in_own_type(fgraph: FunctionGraph, node: Apply) -> list[Variable] | None:
    """Accumulate a sum in its own dtype: PyTensor's JAX linker returns the accumulator's dtype."""
    dtype = node.outputs[0].type.dtype
    if node.op.acc_dtype in (None, dtype):
        return None
    return [node.op.clone(acc_dtype=dtype)(node.inputs[0])]


@node_rewriter([CheckAndRaise])
def without_check(fgraph: FunctionGraph, node: Apply) -> list[Variable]:
    """Remove checks of values inside a function: JAX cannot raise there, and would warn."""
    return [node.inputs[0]]


@cache
def register_for_jax() -> None:
    """Tell PyTensor's JAX linker how to call the schedules of learning rates, which are Python."""
    jax = importlib.import_module("jax")
    dispatch = importlib.import_module("pytensor.link.jax.dispatch.basic")

    @dispatch.jax_funcify.register(ScheduledRate)
    def scheduled_rate(op: ScheduledRate, **_: Any) -> Callable:
        result = jax.ShapeDtypeStruct((), jax.dtypes.canonicalize_dtype("float64"))

        def rate(step: Array) -> Array:
            return np.asarray(rate_at(op.schedule, int(step)), dtype=result.dtype)

        return lambda step: jax.pure_callback(rate, result, step)

    @dispatch.jax_funcify.register(RoundToBfloat16)
    def rounded(op: RoundToBfloat16, **_: Any) -> Callable:
        least = np.finfo("float32").smallest_normal

        def function(x: Any) -> Any:
            nearest = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
            return jax.numpy.where(abs(x) < least, x * 0, nearest)

        return function


@cache
def register_for_numba() -> None:
    """Tell PyTensor's Numba linker how to round to bfloat16."""
    dispatch = importlib.import_module("pytensor.link.numba.dispatch.basic")

    @dispatch.register_funcify_default_op_cache_key(RoundToBfloat16)
    def rounded(op: RoundToBfloat16, **_: Any) -> Callable:
        @dispatch.numba_njit
        def function(x: Array) -> Array:
            values = np.ascontiguousarray(x).ravel()
            bits, out = values.view(np.uint32), np.empty_like(values)
            to = out.view(np.uint32)
            for i in range(values.size):
                word = bits[i]
                if np.isnan(values[i]):
                    to[i] = word
                elif word & 0x7F800000:
                    to[i] = (word + (0x7FFF + ((word >> 16) & 1))) & 0xFFFF0000
                else:
                    to[i] = word & 0x80000000
            return out.reshape(x.shape)

        return function


def mode() -> Mode:
    """Return the PyTensor mode of the configured backend.

    Examples
    --------
    >>> import pytensor, pytensor.tensor as pt, seqnet
    >>> x = pt.dvector("x")
    >>> f = pytensor.function([x], pt.sum(x**2), mode=seqnet.backend.mode())
    >>> float(f([3.0, 4.0]))
    25.0
    """
    name = config.backend()
    if name in ("auto", "numpy"):
        return vm_mode(with_kernels=native() is not None)
    if name == "c":
        return Mode("cvm", "fast_run")
    if name == "jax":
        register_for_jax()
        rewriters = dfs_rewriter(reduce_in_own_type), dfs_rewriter(without_check)
        return get_mode("JAX").register(*((rewriter, 49.4) for rewriter in rewriters))
    if name == "numba":
        register_for_numba()
    return get_mode(name.upper())


def put(variable: SharedVariable, array: Array) -> None:
    """Set a shared variable to an array that nothing changes; with JAX, on its device.

    Examples
    --------
    >>> import numpy as np, pytensor, seqnet
    >>> data = pytensor.shared(np.zeros((2, 3)), shape=(None, 3))
    >>> seqnet.backend.put(data, np.ones((5, 3)))
    >>> data.get_value().shape
    (5, 3)
    """
    if config.backend() == "jax":
        jax = importlib.import_module("jax")
        variable.container.storage[0] = jax.device_put(array)
    else:
        variable.set_value(array, borrow=True)


def needs_seeds(variable: Variable) -> bool:
    """Return whether a variable is a random generator that compiled functions cannot update.

    Examples
    --------
    >>> import numpy as np, pytensor, seqnet
    >>> seqnet.backend.needs_seeds(pytensor.shared(np.random.default_rng(0)))
    False
    """
    return config.backend() == "jax" and isinstance(variable.type, RandomType)


def seeding(function: Callable, generators: Sequence) -> Callable:
    """Return a JAX function whose random numbers are drawn from keys of the shared generators.

    PyTensor's JAX linker copies generators into each function, where they cannot be saved or reset.

    Examples
    --------
    >>> import numpy as np, pytensor, seqnet
    >>> generator = pytensor.shared(np.random.default_rng(0))
    >>> function = seqnet.backend.seeding(lambda x, key: key["jax_state"].shape, [generator])
    >>> function(1.0)
    (2,)
    """

    def call(*arguments: Array) -> list[Array]:
        keys = []
        for generator in generators:
            source = generator.get_value()
            keys.append({"jax_state": source.integers(2**32, size=2, dtype="uint32")})
            generator.set_value(source, borrow=True)
        return function(*arguments, *keys)

    return call


def execution_mode(op: Recurrence) -> str:
    """Return how the configured backend runs a recurrence: fused, unrolled or as a scan.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> layer = seqnet.layers.SimpleRNN(2, unroll=True)
    >>> y = layer(pt.zeros((1, 3, 2)))
    >>> nodes = seqnet.backend.modes.ancestors([y])
    >>> ops = [v.owner.op for v in nodes if v.owner]
    >>> kind = seqnet.ops.recurrence.Recurrence
    >>> [seqnet.backend.execution_mode(op) for op in ops if isinstance(op, kind)]
    ['unroll']
    """
    if op.unroll:
        return "unroll"
    reason = why_not(op)
    if not reason:
        return "fused"
    return "scan" if op.fused is False else f"scan ({reason})"


def why_not(op: Recurrence) -> str:
    """Return why the backend does not run a recurrence as one compiled kernel; empty if it does."""
    return "compiled kernels are not available" if native() is None else why_not_fused(op)


def check_fused(outputs: Sequence) -> None:
    """Raise an error if a layer with ``fused=True`` cannot run as one compiled kernel."""
    for variable in ancestors(outputs):
        op = None if variable.owner is None else variable.owner.op
        if isinstance(op, Recurrence) and op.fused is True and (reason := why_not(op)):
            raise ValueError(f"Layer {op.layer!r} has fused=True, but {reason}.")


def compile(
    inputs: Sequence,
    outputs: Sequence,
    updates: dict | None = None,
    *,
    name: str,
) -> Callable:
    """Compile a graph with the configured backend.

    Parameters
    ----------
    inputs, outputs : lists of variables
    updates : dict, optional
        New values of shared variables.
    name : str
        Name of the function in messages and profiles.

    Returns
    -------
    function
        It takes arrays of exactly the types of the inputs, which it does not check, and returns a
        list. ``pytensor.function(..., mode=seqnet.backend.mode())`` makes one that checks.

    Examples
    --------
    >>> import numpy as np, pytensor.tensor as pt, seqnet
    >>> x = pt.dvector("x")
    >>> f = seqnet.backend.compile([x], [pt.sum(x**2)], name="squares")
    >>> float(f(np.array([3.0, 4.0]))[0])
    25.0
    """
    updates = dict(updates or {})
    check_fused([*outputs, *updates.values()])
    seeded = [v for v in updates if needs_seeds(v)]
    given = {generator: generator.type() for generator in seeded}
    with compiling():
        function = pytensor.function(
            [*inputs, *given.values()],
            list(outputs),
            updates=[(v, new) for v, new in updates.items() if v not in given],
            givens=given,
            mode=mode(),
            name=name,
            on_unused_input="ignore",
        )
    function.trust_input = True
    if seeded:
        function = seeding(function, seeded)
    return function

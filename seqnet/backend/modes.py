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
from seqnet.backend.kernel_ops import use_softmax_kernels
from seqnet.backend.lowering import ChooseKernels, LowerForVM, inline_inner_graphs, work_in_place
from seqnet.backend.recurrence import why_not_fused
from seqnet.locking import compiling
from seqnet.ops.recurrence import Recurrence
from seqnet.ops.schedule import ScheduledRate, rate_at
from seqnet.ops.unrolled import UnrolledStep
from seqnet.types import Array

log = logging.getLogger("seqnet")


@cache
def vm_mode(with_kernels: bool, looped: bool = False) -> Mode:
    """Return seqnet's own mode: PyTensor's Python virtual machine, with seqnet's compiled kernels.

    `looped` selects the mode of functions that run at every step of a loop.
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
    """Return `seqnet.native` if the backend uses compiled kernels and they work here, else None."""
    if config.backend() != "auto" or native_code is None:
        return None
    usable, reason = native_code.available()
    if not usable:
        log_once(f"The compiled kernels are not used: {reason}")
        return None
    return native_code


def needs_sizes() -> bool:
    """Return whether the configured backend compiles only for fixed sizes of all arrays."""
    return config.backend() == "jax"


@cache
def log_once(message: str) -> None:
    """Log a warning once in this process."""
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
    return get_mode(name.upper())


def put(variable: SharedVariable, array: Array) -> None:
    """Set a shared variable to an array that nothing changes; with JAX, on its device."""
    if config.backend() == "jax":
        jax = importlib.import_module("jax")
        variable.container.storage[0] = jax.device_put(array)
    else:
        variable.set_value(array, borrow=True)


def needs_seeds(variable: Variable) -> bool:
    """Return whether a variable is a random generator that compiled functions cannot update."""
    return config.backend() == "jax" and isinstance(variable.type, RandomType)


def seeding(function: Callable, generators: Sequence) -> Callable:
    """Return a JAX function whose random numbers are drawn from keys of the shared generators.

    PyTensor's JAX linker copies generators into each function, where they cannot be saved or reset.
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
    """Return how the configured backend runs a recurrence: fused, unrolled or as a scan."""
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

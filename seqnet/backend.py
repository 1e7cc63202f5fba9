"""The only place that calls `pytensor.function`: which mode, and how long it took."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType

import pytensor
from pytensor.compile.mode import OPT_FAST_RUN, Mode, get_mode
from pytensor.graph.rewriting.basic import dfs_rewriter, node_rewriter
from pytensor.link.vm import VMLinker
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor.elemwise import CAReduce
from pytensor.tensor.random.type import RandomType

from seqnet import config
from seqnet.locking import COMPILING
from seqnet.lowering import LowerForVM, inline_inner_graphs, work_in_place
from seqnet.ops import softmax

try:
    from seqnet import kernels as compiled_kernels
except ImportError:  # the folder may be deleted: everything works without it, slower
    compiled_kernels = None

log = logging.getLogger("seqnet")


@cache
def vm_mode(with_kernels: bool, looped: bool = False) -> Mode:
    """Return seqnet's own mode: PyTensor's Python virtual machine, nothing compiled but kernels.

    `looped` is for what runs at every step of a loop.
    """
    linker = VMLinker(use_cloop=False, c_thunks=False, allow_gc=True)

    def inner_mode() -> Mode:
        return vm_mode(with_kernels, looped=True)

    def compile_inner(op) -> Callable:
        function = pytensor.function(
            list(op.inner_inputs),
            list(op.inner_outputs),
            mode=inner_mode(),
            on_unused_input="ignore",
        )
        function.trust_input = True
        return function

    lower = LowerForVM(
        inner_mode, compile_inner, compiled_kernels if with_kernels else None, looped
    )
    query = OPT_FAST_RUN
    if with_kernels:
        query = query.excluding("BlasOpt").register((softmax.by_kernels(compiled_kernels), 1.55))
    query = query.register(
        # After stabilisation (1.5), which knows log(softmax), before specialisation (2).
        (inline_inner_graphs, 1.6),
        # After fusion (49), before in-place rewrites (50 and on), which are made for Elemwise.
        (lower, 49.4),
        # With the in-place rewrites, which check that nothing reads what is overwritten.
        (work_in_place, 70),
    )
    return Mode(linker, query)


def kernels() -> ModuleType | None:
    """Return `seqnet.kernels` if the configured backend runs them and they can be compiled."""
    if config.backend() != "auto" or compiled_kernels is None:
        return None
    usable, reason = compiled_kernels.available()
    if not usable:
        log_once(f"The compiled kernels are not used: {reason}")
        return None
    return compiled_kernels


def needs_sizes() -> bool:
    """Tell whether the configured backend compiles for fixed sizes of all arrays only."""
    return config.backend() == "jax"


@cache
def log_once(message: str) -> None:
    """Log a warning, the first time only."""
    log.warning(message)


@node_rewriter([CAReduce])
def reduce_in_own_type(fgraph, node):
    """Let a sum of float32 be one; PyTensor's JAX linker gives out the wider type it adds up in."""
    dtype = node.outputs[0].dtype
    if node.op.acc_dtype in (None, dtype):
        return None
    return [node.op.clone(acc_dtype=dtype)(node.inputs[0])]


@node_rewriter([CheckAndRaise])
def without_check(fgraph, node):
    """Leave out what checks values within a function: JAX cannot raise there, and would warn."""
    return [node.inputs[0]]


def mode() -> Mode:
    """Return the PyTensor mode of the backend that `seqnet.config` names."""
    name = config.backend()
    if name in ("auto", "numpy"):
        return vm_mode(with_kernels=kernels() is not None)
    if name == "c":
        return Mode("cvm", "fast_run")
    if name == "jax":
        rewriters = dfs_rewriter(reduce_in_own_type), dfs_rewriter(without_check)
        return get_mode("JAX").register(*((rewriter, 49.4) for rewriter in rewriters))
    return get_mode(name.upper())


def needs_seeds(variable) -> bool:
    """Tell whether a variable is a random generator that compiled functions cannot move on."""
    return config.backend() == "jax" and isinstance(variable.type, RandomType)


def seeding(function: Callable, generators: Sequence) -> Callable:
    """Return a function of JAX whose random numbers follow from shared generators.

    PyTensor's JAX linker gives each function a copy of them, which nobody can save or set back.
    """

    def call(*arguments):
        keys = []
        for generator in generators:
            source = generator.get_value()
            keys.append({"jax_state": source.integers(2**32, size=2, dtype="uint32")})
            generator.set_value(source, borrow=True)
        return function(*arguments, *keys)

    return call


def compile(
    inputs: Sequence,
    outputs: Sequence,
    updates: dict | None = None,
    *,
    name: str,
    announce: bool = False,
) -> Callable:
    """Compile a graph with the configured backend.

    Parameters
    ----------
    inputs, outputs : lists of variables
    updates : dict, optional
        New values of shared variables.
    name : str
        What the function is, for messages and profiles.
    announce : bool
        Say on the screen that it compiles and how long it took.
    """
    if announce:
        print(f"Compiling the {name} function ...", end="", file=sys.stderr, flush=True)
    start = time.perf_counter()
    updates = dict(updates or {})
    seeded = [v for v in updates if needs_seeds(v)]
    given = {generator: generator.type() for generator in seeded}
    with COMPILING:
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
    if announce:
        print(f" {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    return function

"""Compile symbolic graphs to functions.

`compile` compiles a graph with the backend that `seqnet.config` selects. The default backend runs
PyTensor's Python virtual machine and computes the Ops of `seqnet.ops` by the C code of
`seqnet.native`. All other backends run the graphs that define these Ops.

- `modes`: `compile`, and the PyTensor modes of all backends.
- `lowering`: the graph rewrites of the default backend. They choose how each node is computed.
- `kernel_ops`: affine maps, lookups, cross-entropy and softmax as compiled kernels.
- `recurrence`: a whole recurrence, and its gradient, as one compiled kernel each.
- `updates`: the updates of all weights of an optimizer as one compiled kernel.
- `elementwise`: elementwise nodes as compiled kernels or as NumPy calls.
- `compiledir`: whether PyTensor can write its compiled code, checked at import.
"""

from seqnet.backend import compiledir  # isort: skip -- before anything that uses PyTensor
from seqnet.backend.modes import (
    compile,
    execution_mode,
    log_once,
    mode,
    native,
    needs_seeds,
    needs_sizes,
    put,
    rounds_to_bfloat16,
    seeding,
    vm_mode,
    without_check,
)

__all__ = [
    "compile",
    "execution_mode",
    "log_once",
    "mode",
    "native",
    "needs_seeds",
    "needs_sizes",
    "put",
    "rounds_to_bfloat16",
    "seeding",
    "vm_mode",
    "without_check",
]


def __dir__() -> list[str]:
    return sorted(__all__)

"""From graphs to compiled functions: modes, and which node is computed by what.

- `modes`: the modes of the configured backend, and the only call of `pytensor.function`.
- `lowering`: the rewrites of seqnet's own modes.
- `compiledir`: whether PyTensor can write its compiled code, checked at import.
- `kernel_ops`, `recurrence`, `updates`, `elementwise`: the Ops that they put into graphs.
"""

from seqnet.backend import compiledir  # isort: skip -- before anything that uses PyTensor
from seqnet.backend.modes import (
    compile,
    log_once,
    mode,
    native,
    needs_seeds,
    needs_sizes,
    seeding,
    vm_mode,
    way_of,
    without_check,
)

__all__ = [
    "compile",
    "log_once",
    "mode",
    "native",
    "needs_seeds",
    "needs_sizes",
    "seeding",
    "vm_mode",
    "way_of",
    "without_check",
]

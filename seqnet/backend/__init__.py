"""From graphs to compiled functions: modes, and which node is computed by what.

- `modes`: the modes of the configured backend, and the only call of `pytensor.function`.
- `lowering`: the rewrites of seqnet's own modes.
- `kernel_ops`, `recurrence`, `updates`, `elementwise`: the Ops that they put into graphs.
"""

from seqnet.backend.modes import (
    compile,
    kernels,
    log_once,
    mode,
    needs_seeds,
    needs_sizes,
    seeding,
    vm_mode,
    way_of,
    without_check,
)

__all__ = [
    "compile",
    "kernels",
    "log_once",
    "mode",
    "needs_seeds",
    "needs_sizes",
    "seeding",
    "vm_mode",
    "way_of",
    "without_check",
]

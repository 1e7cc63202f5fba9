"""Check at import that PyTensor can write to the folder for its compiled code.

PyTensor uses the folder when a function is compiled for the first time, and its error is then a
chain of tracebacks. seqnet does not set PyTensor's configuration, so it can only say what to do.
"""

from __future__ import annotations

try:
    import pytensor

    pytensor.config.compiledir  # noqa: B018 -- PyTensor makes the folder when it is read first
except (OSError, RuntimeError, ValueError) as error:
    reason = " ".join(str(error).split())
    raise ImportError(
        f"PyTensor cannot keep its compiled code: {reason} Set the environment variable "
        "PYTENSOR_FLAGS=base_compiledir=/some/writable/folder before Python starts."
    ) from None

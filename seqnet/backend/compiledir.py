"""Check at import that PyTensor can write to the directory of its compiled code.

PyTensor creates the directory when it compiles its first function, and its error is then a chain of
tracebacks. seqnet does not set PyTensor's configuration, so the message says what to set.
"""

from __future__ import annotations

try:
    import pytensor

    pytensor.config.compiledir  # noqa: B018 -- the first access creates the directory
except (OSError, RuntimeError, ValueError) as error:
    reason = " ".join(str(error).split())
    raise ImportError(
        f"PyTensor cannot keep its compiled code: {reason} Set the environment variable "
        "PYTENSOR_FLAGS=base_compiledir=/some/writable/folder before Python starts."
    ) from None

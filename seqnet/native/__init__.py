"""Compiled kernels for the processor: recurrences, products, and what goes with them.

Written in C with vector extensions (``src/``), compiled at first use by the machine's own compiler
and cached on disk. Everything takes and gives NumPy arrays. The folder imports nothing of the rest
of seqnet and may be deleted.
"""

from __future__ import annotations

from .compiler import KernelUnavailable
from .core import available, calls, get_num_threads, set_num_threads, vector_bytes
from .dense import gemm
from .elementwise import ElementwiseKernel
from .embedding import gather, scatter_add
from .memory import empty, release
from .norms import squared_norms
from .recurrence import Gradients, RecurrenceKernel
from .softmax import log_softmax, softmax, softmax_cross_entropy

__all__ = [
    "ElementwiseKernel",
    "Gradients",
    "KernelUnavailable",
    "RecurrenceKernel",
    "available",
    "calls",
    "empty",
    "gather",
    "gemm",
    "get_num_threads",
    "log_softmax",
    "release",
    "scatter_add",
    "set_num_threads",
    "softmax",
    "softmax_cross_entropy",
    "squared_norms",
    "vector_bytes",
]

"""Compiled CPU kernels: recurrences, matrix products, elementwise functions, softmax, embeddings.

They are written in C with vector extensions (``src/``), compiled at first use by the machine's C
compiler, and cached on disk. All functions take and return NumPy arrays. This package imports
nothing else of seqnet and can be deleted.
"""

from __future__ import annotations

from .compiler import KernelUnavailable
from .core import available, calls, get_num_threads, set_num_threads, vector_bytes
from .dense import gemm
from .elementwise import ElementwiseKernel
from .embedding import gather, scatter_add
from .memory import empty, free_memory
from .norms import squared_norms
from .recurrence import RecurrenceGradients, RecurrenceKernel
from .softmax import log_softmax, softmax, softmax_cross_entropy

__all__ = [
    "ElementwiseKernel",
    "KernelUnavailable",
    "RecurrenceGradients",
    "RecurrenceKernel",
    "available",
    "calls",
    "empty",
    "free_memory",
    "gather",
    "gemm",
    "get_num_threads",
    "log_softmax",
    "scatter_add",
    "set_num_threads",
    "softmax",
    "softmax_cross_entropy",
    "squared_norms",
    "vector_bytes",
]

"""Squared norms of several arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .core import address, core, count_call


def squared_norms(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum of squares of each array, accumulated in double precision.

    All arrays must have the same float dtype.

    Examples
    --------
    >>> import numpy as np
    >>> squared_norms([np.array([3.0, 4.0]), np.ones((2, 2))])
    array([25.,  4.])
    """
    if not arrays:
        return np.zeros(0)
    dtypes = {a.dtype for a in arrays}
    if len(dtypes) > 1:
        names = sorted(str(dtype) for dtype in dtypes)
        raise ValueError(f"squared_norms: the arrays must have one dtype, got {names}")
    contiguous = [np.ascontiguousarray(a) for a in arrays]
    # Each row is a norm_arguments of src/rows.c: address, size, and a double for the result.
    rows = np.array([(address(a), a.size, 0) for a in contiguous], "int64")
    core(arrays[0].dtype).squared_norms(address(rows), len(arrays))
    count_call("squared_norms")
    return rows[:, 2].view("float64")

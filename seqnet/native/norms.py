"""How long several arrays are, as vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .core import address, core, count_call


def squared_norms(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of the squares of each of several arrays of one float dtype, added up in double.

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
        raise ValueError(f"squared_norms: the arrays have the dtypes {names}, not one")
    contiguous = [np.ascontiguousarray(a) for a in arrays]
    # Each row is a norm_arguments of src/rows.c: where, how many numbers, and a double to fill in.
    rows = np.array([(address(a), a.size, 0) for a in contiguous], "int64")
    core(arrays[0].dtype).squared_norms(address(rows), len(arrays))
    count_call("squared_norms")
    return rows[:, 2].view("float64")

"""How long several arrays are, as vectors."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import Structure, addressof, c_double, c_long, c_void_p

import numpy as np

from .core import address, core, count_call


class _Arguments(Structure):  # norm_arguments in src/rows.c
    _fields_ = [("data", c_void_p), ("size", c_long), ("squares", c_double)]


def squared_norms(arrays: Sequence[np.ndarray]) -> list[float]:
    """The sum of the squares of each of several arrays of one float dtype, added up in double.

    Examples
    --------
    >>> import numpy as np
    >>> squared_norms([np.array([3.0, 4.0]), np.ones((2, 2))])
    [25.0, 4.0]
    """
    if not arrays:
        return []
    dtypes = {a.dtype.name for a in arrays}
    if len(dtypes) > 1:
        raise ValueError(f"squared_norms: the arrays have the dtypes {sorted(dtypes)}, not one")
    contiguous = [np.ascontiguousarray(a) for a in arrays]
    arguments = (_Arguments * len(arrays))(*((address(a), a.size) for a in contiguous))
    core(arrays[0].dtype).squared_norms(addressof(arguments), len(arrays))
    count_call("squared_norms")
    return [a.squares for a in arguments]

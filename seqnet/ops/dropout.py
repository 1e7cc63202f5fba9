"""Dropout masks, drawn outside of loops and scaled so that expected values do not change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from seqnet.common.types import Tensor


def dropout_mask(
    rng: Variable, shape: Sequence[Variable | int], rate: Tensor | float, dtype: str
) -> tuple[Variable, Tensor]:
    """Draw a mask that is 0 with probability `rate` and ``1 / (1 - rate)`` elsewhere.

    Parameters
    ----------
    rng : symbolic random generator
    shape : sequence of symbolic or plain sizes
    rate : symbolic or plain number
        Fraction of elements to drop, in [0, 1).
    dtype : str

    Returns
    -------
    (next_rng, mask)
        The generator to store for the next draw, and the mask.
    """
    next_rng, uniform = pt.random.uniform(
        0.0, 1.0, size=tuple(shape), rng=rng, return_next_rng=True
    )
    keep = pt.cast(1.0 / (1.0 - rate), dtype)
    return next_rng, pt.switch(uniform >= rate, keep, np.asarray(0.0, dtype=dtype))

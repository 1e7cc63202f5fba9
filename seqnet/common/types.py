"""Names for the types of arguments, for annotations."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from pytensor.tensor.variable import TensorVariable

Tensor: TypeAlias = TensorVariable
"""A symbolic array."""

Array: TypeAlias = np.ndarray
"""An array of numbers."""

TensorLike: TypeAlias = Tensor | ArrayLike
"""What becomes a symbolic array: a variable, an array or a number."""

Shape: TypeAlias = tuple[int | None, ...]
"""The shape of an array; None for a size that is not known."""

__all__ = ["Array", "ArrayLike", "Shape", "Tensor", "TensorLike"]

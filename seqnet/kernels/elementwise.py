"""Elementwise expressions as one kernel: one pass over memory, by all threads if it is long.

An optimizer's update is such an expression: new values of a parameter and its slots from the old
ones and the gradient.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import Structure, addressof, byref, c_long, c_void_p, sizeof
from math import prod

import numpy as np

from . import emit, memory
from .compiler import KernelUnavailable
from .core import address, core, count_call, get_num_threads
from .expression import Expressions

MOST_BLOCKS = 96  # as in src/recurrence.c


class _Arguments(Structure):  # elementwise_arguments in src/rows.c
    _fields_ = [
        ("function", c_void_p),
        *((n, c_long) for n in ("rows", "columns", "inputs", "outputs")),
        *((n, c_void_p) for n in ("inputs_at", "outputs_at")),
    ]


class ElementwiseKernel:
    """A compiled function of arrays of one shape.

    Parameters
    ----------
    inputs
        PyTensor variables of one float dtype. A 0-d variable stands for a single number.
    outputs
        PyTensor variables, elementwise functions of the inputs.

    Raises
    ------
    KernelUnavailable
        If an operation is not known, or there is no compiler.

    Examples
    --------
    >>> import numpy as np, pytensor.tensor as pt
    >>> weight, gradient = pt.vector(dtype="float32"), pt.vector(dtype="float32")
    >>> rate = pt.scalar(dtype="float32")
    >>> descend = ElementwiseKernel([weight, gradient, rate], [weight - rate * gradient])
    >>> w = np.ones(3, "float32")
    >>> descend(w, np.arange(3, dtype="float32"), np.float32(0.5), out=[w])
    [array([1. , 0.5, 0. ], dtype=float32)]
    """

    def __init__(self, inputs: Sequence, outputs: Sequence) -> None:
        dtypes = {v.type.dtype for v in [*inputs, *outputs]}
        if len(dtypes) != 1:
            raise KernelUnavailable(
                f"a kernel has one float dtype, these inputs and outputs have {sorted(dtypes)}"
            )
        if len(inputs) > MOST_BLOCKS or len(outputs) > MOST_BLOCKS:
            raise KernelUnavailable(f"a kernel takes and gives at most {MOST_BLOCKS} arrays")
        self.dtype = np.dtype(dtypes.pop())
        self._is_array = [v.type.ndim != 0 for v in inputs]
        self._inputs, self._outputs = len(inputs), len(outputs)
        if len({v.type.ndim for v in [*inputs, *outputs]} - {0}) != 1:
            raise KernelUnavailable(
                "the arrays of a kernel have one number of axes; there are several here, or none"
            )
        if not any(self._is_array):
            raise KernelUnavailable("a kernel needs at least one input that is an array")
        e = Expressions(self.dtype.name)
        values = [e.add("input", "array", i) for i in range(len(inputs))]
        results = e.read(outputs, dict(zip(inputs, values, strict=True)))
        single = [i for i, is_array in enumerate(self._is_array) if not is_array]
        function = emit.block_function(
            "function", e, values, [e.number(v) for v in results], single
        )
        source = emit.unit(self.dtype, [function])
        self._core, self._library = core(self.dtype.name, source)
        self._function = ctypes.cast(self._library.function, c_void_p)

    def __call__(
        self, *arrays: np.ndarray, out: Sequence[np.ndarray | None] | None = None
    ) -> list[np.ndarray]:
        """Compute every output.

        Parameters
        ----------
        arrays
            One for each input, of one shape; 0-d for a single number.
        out
            For each output a contiguous array to write to, which may be one of the inputs, or None.
        """
        if len(arrays) != self._inputs or (out is not None and len(out) != self._outputs):
            raise ValueError(f"this kernel takes {self._inputs} arrays and gives {self._outputs}")
        shape = arrays[self._is_array.index(True)].shape
        # One long row, unless some input is a matrix whose rows lie apart.
        whole = all(np.asarray(a).flags.c_contiguous or not has_rows(a) for a in arrays)
        size = self.dtype.itemsize
        given, blocks = [], []  # a block (src/block.h): an address, then the distance of rows
        for array, is_array in zip(arrays, self._is_array, strict=True):
            array = np.asarray(array, order="C") if whole or not has_rows(array) else array
            if array.dtype != self.dtype or array.shape != (shape if is_array else ()):
                raise ValueError(
                    f"input {len(given)} is {array.dtype}{array.shape}, not {self.dtype}{shape}"
                )
            given.append(array)
            row = 0 if not is_array else 1 if whole else max(array.strides[0] // size, 1)
            blocks += address(array), row
        results = [
            memory.empty(shape, self.dtype) if o is None else o
            for o in out or [None] * self._outputs
        ]
        for array in results:
            flags = array.flags
            if (
                array.dtype != self.dtype
                or array.shape != shape
                or not (flags.c_contiguous and flags.writeable)
            ):
                raise ValueError(
                    f"an output must be contiguous, writeable and {self.dtype}{shape}, "
                    f"got {array.dtype}{array.shape}"
                )
            blocks += address(array), shape[-1]
        packed = (c_long * len(blocks))(*blocks)
        at, count = addressof(packed), prod(shape)
        rows, columns = (1, count) if whole else shape
        inputs = self._inputs
        arguments = _Arguments(
            *(self._function, rows, columns, inputs, self._outputs),
            *(at, at + inputs * 2 * sizeof(c_long)),
        )
        if count:
            self._core.elementwise(byref(arguments), get_num_threads())
        count_call("elementwise")
        return results


def has_rows(array: np.ndarray) -> bool:
    """Whether an array is a matrix with contiguous rows, at any distance from each other."""
    return (
        array.ndim == 2
        and array.strides[1] == array.itemsize
        and array.strides[0] >= array.shape[1] * array.itemsize
        and array.strides[0] % array.itemsize == 0
    )

"""Elementwise expressions as one kernel: one pass over memory, by all threads if it is long.

An optimizer's update is such an expression: new values of a parameter and its slots from the old
ones and the gradient.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import Structure, addressof, byref, c_long, c_void_p, sizeof

import numpy as np

from . import emit, memory
from .compiler import KernelUnavailable
from .core import address, core, count_call, get_num_threads
from .expression import Expressions

MOST_BLOCKS = 96  # as in src/recurrence.c


class _Function(Structure):  # elementwise_function in src/rows.c
    _fields_ = [
        ("function", c_void_p),
        *((n, c_long) for n in ("inputs", "outputs")),
        ("single", c_void_p),
    ]


class _Call(Structure):  # elementwise_call in src/rows.c
    _fields_ = [
        *((n, c_long) for n in ("rows", "columns")),
        *((n, c_void_p) for n in ("arrays", "steps")),
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
        self.inputs, self.outputs = len(inputs), len(outputs)
        if len({v.type.ndim for v in [*inputs, *outputs]} - {0}) != 1:
            raise KernelUnavailable(
                "the arrays of a kernel have one number of axes; there are several here, or none"
            )
        if not any(self._is_array):
            raise KernelUnavailable("a kernel needs at least one input that is an array")
        self._first = self._is_array.index(True)
        self._single = (c_long * len(inputs))(*(not is_array for is_array in self._is_array))
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
        return self.each([(arrays, out)])[0]

    def each(self, calls: Sequence[tuple]) -> list[list[np.ndarray]]:
        """Do several calls, each ``(arrays, out)``, at once: threads share the work of all."""
        keep: list[np.ndarray] = []  # what addresses point into
        pointers: list[int] = []
        steps: list[int] = []
        sizes, found = [], []
        for arrays, out in calls:
            given, whole = self._given(arrays)
            results = self._results(given, out or [None] * self.outputs)
            pointers += (address(a) if whole else a.ctypes.data for a in given)
            pointers += map(address, results)
            first = given[self._first]
            if whole:
                steps += [1] * (self.inputs + self.outputs)
                sizes.append((1, first.size))
            else:
                steps += [a.strides[0] // a.itemsize if a.ndim else 0 for a in given]
                steps += [first.shape[1]] * self.outputs
                sizes.append(first.shape)
            keep += given
            found.append(results)
        packed, stepped = (c_void_p * len(pointers))(*pointers), (c_long * len(steps))(*steps)
        at, step_at, size = addressof(packed), addressof(stepped), sizeof(c_void_p)
        starts = range(0, len(pointers) * size, (self.inputs + self.outputs) * size)
        arguments = (_Call * len(calls))(
            *((*s, at + k, step_at + k) for s, k in zip(sizes, starts, strict=True))
        )
        function = _Function(self._function, self.inputs, self.outputs, addressof(self._single))
        self._core.elementwise(byref(function), arguments, len(calls), get_num_threads())
        count_call("elementwise")
        return found

    def _given(self, arrays) -> tuple[list[np.ndarray], bool]:
        """Check the inputs of a call; tell whether each is one long row in memory.

        If not, they are matrices with contiguous rows; what has neither is copied.
        """
        if len(arrays) != self.inputs:
            raise ValueError(f"this kernel takes {self.inputs} arrays, got {len(arrays)}")
        shape, dtype, given, whole = arrays[self._first].shape, self.dtype, [], True
        for array, is_array in zip(arrays, self._is_array, strict=True):
            array = array if is_array else np.asarray(array)
            if array.dtype != dtype or array.shape != (shape if is_array else ()):
                raise ValueError(
                    f"input {len(given)} is {array.dtype}{array.shape}, not {dtype}{shape}"
                )
            if not array.flags.c_contiguous:
                if has_rows(array):
                    whole = False
                else:
                    array = np.ascontiguousarray(array)
            given.append(array)
        return given, whole

    def _results(self, given, out) -> list[np.ndarray]:
        """Check the arrays to write to; make those that are not given."""
        if len(out) != self.outputs:
            raise ValueError(f"this kernel gives {self.outputs} arrays, not {len(out)}")
        shape, dtype = given[self._first].shape, self.dtype
        results = [memory.empty(shape, dtype) if array is None else array for array in out]
        for array in results:
            flags = array.flags
            fits = array.dtype == dtype and array.shape == shape
            if not (fits and flags.c_contiguous and flags.writeable):
                raise ValueError(
                    f"an output must be contiguous, writeable and {dtype}{shape}, "
                    f"got {array.dtype}{array.shape}"
                )
        return results


def has_rows(array: np.ndarray) -> bool:
    """Whether an array is a matrix with contiguous rows, at any distance from each other."""
    return (
        array.ndim == 2
        and array.strides[1] == array.itemsize
        and array.strides[0] >= array.shape[1] * array.itemsize
        and array.strides[0] % array.itemsize == 0
    )

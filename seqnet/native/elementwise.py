"""Elementwise expressions as one compiled kernel: one pass over memory, threads for large arrays.

An optimizer's update is such an expression: new values of a parameter and its slots, computed from
the old values and the gradient.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from ctypes import Structure, addressof, byref, c_long, c_void_p

import numpy as np

from . import emit, memory
from .compiler import KernelUnavailable
from .core import address, core_and, count_call, get_num_threads
from .expression import Expressions

MAX_BLOCKS = 160  # as in src/recurrence.c


class _Function(Structure):  # elementwise_function in src/rows.c
    _fields_ = [
        ("function", c_void_p),
        *((n, c_long) for n in ("inputs", "outputs")),
        ("single", c_void_p),
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
        If an operation is not supported, or there is no compiler.

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
                "a compiled kernel has one float dtype; "
                f"these inputs and outputs have {sorted(dtypes)}"
            )
        if len(inputs) > MAX_BLOCKS or len(outputs) > MAX_BLOCKS:
            raise KernelUnavailable(
                f"a compiled kernel takes and returns at most {MAX_BLOCKS} arrays"
            )
        self.dtype = np.dtype(dtypes.pop())
        self._is_array = [v.type.ndim != 0 for v in inputs]
        self.inputs, self.outputs = len(inputs), len(outputs)
        if len({v.type.ndim for v in [*inputs, *outputs]} - {0}) != 1:
            raise KernelUnavailable(
                "all arrays of a compiled kernel must have the same number of axes, at least one"
            )
        if not any(self._is_array):
            raise KernelUnavailable("a compiled kernel needs at least one input that is an array")
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
        self._core, self._library = core_and(self.dtype.name, source)
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
        """Compute several calls, each ``(arrays, out)``; threads divide the work of all calls.

        Parameters
        ----------
        calls
            The arguments of each call, as `__call__` takes them.

        Returns
        -------
        list of list of numpy.ndarray
            The outputs of each call.
        """
        width = self.inputs + self.outputs
        known: dict[int, int] = {}  # addresses by identity: calls share arrays
        pointers: list[int] = []
        steps: list[int] = []
        sizes: list[tuple[int, ...]] = []
        kept: list[np.ndarray] = []
        found: list[list[np.ndarray]] = []
        for arrays, out in calls:
            self._check_count("takes", arrays, self.inputs)
            first = arrays[self._first]
            given, whole = self._given(arrays, first.shape, known)
            results = self._results(out or [None] * self.outputs, first.shape)
            for a in results:
                key = id(a)
                if key not in known:
                    known[key] = address(a)
            kept += given  # the addresses point to them
            pointers += [known[id(a)] for a in given]
            pointers += [known[id(a)] for a in results]
            found.append(results)
            if whole:
                steps += [1] * width
                sizes.append((1, first.size))
            else:
                steps += [a.strides[0] // a.itemsize if a.ndim else 0 for a in given]
                steps += [first.shape[1]] * self.outputs
                sizes.append(first.shape)
        pointer_array, step_array = array("L", pointers), array("l", steps)
        at, step_at = pointer_array.buffer_info()[0], step_array.buffer_info()[0]
        packed: list[int] = []  # four numbers for each call: elementwise_call of src/rows.c
        for rows, columns in sizes:
            packed += (rows, columns, at, step_at)
            at += width * pointer_array.itemsize
            step_at += width * step_array.itemsize
        packed_array = array("L", packed)
        function = _Function(self._function, self.inputs, self.outputs, addressof(self._single))
        self._core.elementwise(
            byref(function), packed_array.buffer_info()[0], len(calls), get_num_threads()
        )
        count_call("elementwise")
        return found

    @staticmethod
    def _check_count(verb: str, arrays: Sequence, count: int) -> None:
        if len(arrays) != count:
            plural = "" if count == 1 else "s"
            raise ValueError(
                f"this compiled kernel {verb} {count} array{plural}, got {len(arrays)}"
            )

    def _given(
        self, arrays: Sequence[np.ndarray], shape: tuple[int, ...], known: dict
    ) -> tuple[list[np.ndarray], bool]:
        """Check the inputs of a call, and add their addresses to `known`.

        Inputs that have no contiguous rows are copied.

        Returns
        -------
        given : list of numpy.ndarray
            The inputs.
        whole : bool
            Whether all are contiguous. Otherwise they are matrices with contiguous rows.
        """
        dtype, whole = self.dtype, True
        given: list[np.ndarray] = []
        for a, is_array in zip(arrays, self._is_array, strict=True):
            if not is_array:
                if id(a) in known:
                    given.append(a)
                    continue
                a = np.asarray(a)
            if a.dtype != dtype or a.shape != (shape if is_array else ()):
                raise ValueError(f"input {len(given)} is {a.dtype}{a.shape}, not {dtype}{shape}")
            if not a.flags.c_contiguous:
                if has_rows(a):
                    whole = False
                else:
                    a = np.ascontiguousarray(a)
            known[id(a)] = address(a)
            given.append(a)
        return given, whole

    def _results(
        self, out: Sequence[np.ndarray | None], shape: tuple[int, ...]
    ) -> list[np.ndarray]:
        """Check the arrays to write to, and create those that are not given."""
        self._check_count("returns", out, self.outputs)
        dtype = self.dtype
        results = [memory.empty(shape, dtype) if a is None else a for a in out]
        for a in results:
            fits = a.dtype == dtype and a.shape == shape
            if not (fits and a.flags.c_contiguous and a.flags.writeable):
                raise ValueError(
                    f"an output must be contiguous, writeable and {dtype}{shape}, "
                    f"got {a.dtype}{a.shape}"
                )
        return results


def has_rows(array: np.ndarray) -> bool:
    """Return whether an array is a matrix with contiguous rows, at any distance."""
    return (
        array.ndim == 2
        and array.strides[1] == array.itemsize
        and array.strides[0] >= array.shape[1] * array.itemsize
        and array.strides[0] % array.itemsize == 0
    )

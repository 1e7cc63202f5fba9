"""Elementwise expressions as one compiled kernel: one pass over memory, threads for large arrays.

An optimizer's update is such an expression: new values of a parameter and its slots, computed from
the old values and the gradient.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from ctypes import Structure, addressof, c_long, c_void_p

import numpy as np

from . import emit, memory
from .compiler import KernelUnavailable
from .core import address, core_and, count_call, get_num_threads
from .expression import Expressions
from .recording import run

MAX_BLOCKS = 160  # as in src/recurrence.c


class _Function(Structure):  # elementwise_function in src/rows.c
    _fields_ = [
        ("function", c_void_p),
        *((n, c_long) for n in ("inputs", "outputs")),
        ("single", c_void_p),
    ]


class _Work(Structure):  # elementwise_work in src/rows.c
    _fields_ = [("function", c_void_p), ("calls", c_void_p), ("count", c_long)]


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
        self._core, (self._library,) = core_and(self.dtype.name, source)
        pointer = ctypes.cast(self._library.function, c_void_p)
        self._description = _Function(pointer, self.inputs, self.outputs, addressof(self._single))
        self._whole_steps = [1] * (self.inputs + self.outputs)

    def __call__(
        self, *arrays: np.ndarray, out: Sequence[np.ndarray | int | None] | None = None
    ) -> list[np.ndarray]:
        """Compute every output.

        Parameters
        ----------
        arrays
            One for each input, of one shape; 0-d for a single number.
        out
            For each output a contiguous array to write to, which may be one of the inputs; the
            number of an input to overwrite if it is contiguous and writeable; or None.
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
        dtype, width = self.dtype, self.inputs + self.outputs
        known: dict[int, int] = {}  # addresses by identity: calls share arrays
        pointers: list[int] = []
        steps: list[int] = []
        sizes: list[tuple[int, ...]] = []
        kept: list[np.ndarray] = []  # the addresses point to them
        found: list[list[np.ndarray]] = []
        for arrays, out in calls:
            self._check_count("takes", arrays, self.inputs)
            first = arrays[self._first]
            shape, whole = first.shape, True  # whether all arrays are contiguous
            begin = len(kept)
            for a, is_array in zip(arrays, self._is_array, strict=True):
                key = id(a)
                if not is_array and key in known:
                    kept.append(a)
                    pointers.append(known[key])
                    continue
                if not is_array:
                    a = np.asarray(a)
                if a.dtype != dtype or a.shape != (shape if is_array else ()):
                    raise ValueError(
                        f"input {len(kept) - begin} is {a.dtype}{a.shape}, not {dtype}{shape}"
                    )
                if not a.flags.c_contiguous:
                    if has_rows(a):
                        whole = False
                    else:
                        a = np.ascontiguousarray(a)
                known[key] = at = address(a)
                kept.append(a)
                pointers.append(at)
            results: list[np.ndarray] = []
            out = out or [None] * self.outputs
            self._check_count("returns", out, self.outputs)
            for a in out:
                if type(a) is int:  # the number of an input: overwrite it if that is possible
                    a, at = arrays[a], pointers[a - self.inputs - len(results)]
                    flags = a.flags
                    if not (flags.c_contiguous and flags.writeable):
                        a = None
                elif a is not None:
                    flags, at = a.flags, address(a)
                    fits = a.dtype == dtype and a.shape == shape
                    if not (fits and flags.c_contiguous and flags.writeable):
                        raise ValueError(
                            f"an output must be contiguous, writeable and {dtype}{shape}, "
                            f"got {a.dtype}{a.shape}"
                        )
                if a is None:
                    a = memory.empty(shape, dtype)
                    at = address(a)
                results.append(a)
                pointers.append(at)
            found.append(results)
            if whole:
                steps += self._whole_steps
                sizes.append((1, first.size))
            else:
                steps += [a.strides[0] // a.itemsize if a.ndim else 0 for a in kept[begin:]]
                steps += [shape[1]] * self.outputs
                sizes.append(shape)
        pointer_array, step_array = array("L", pointers), array("l", steps)
        at, step_at = pointer_array.buffer_info()[0], step_array.buffer_info()[0]
        packed: list[int] = []  # four numbers for each call: elementwise_call of src/rows.c
        for rows, columns in sizes:
            packed += (rows, columns, at, step_at)
            at += width * pointer_array.itemsize
            step_at += width * step_array.itemsize
        packed_array = array("L", packed)
        work = _Work(addressof(self._description), packed_array.buffer_info()[0], len(calls))
        run(
            self._core.elementwise,
            work,
            get_num_threads(),
            *(self, kept, found, pointer_array, step_array, packed_array),
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


def has_rows(array: np.ndarray) -> bool:
    """Return whether an array is a matrix with contiguous rows, at any distance."""
    return (
        array.ndim == 2
        and array.strides[1] == array.itemsize
        and array.strides[0] >= array.shape[1] * array.itemsize
        and array.strides[0] % array.itemsize == 0
    )

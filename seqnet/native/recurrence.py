"""A recurrence as one compiled kernel: any elementwise cell, all time steps, and the gradient.

`CellSource` translates the step to two small C functions. The loops over time, threads and tiles
are in ``src/recurrence.c``, which is the same for every cell. This module checks and packs its
arguments.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import Structure, addressof, byref, c_long, c_void_p
from typing import ClassVar, NamedTuple

import numpy as np

from . import memory
from .cell import CellSource, Other
from .compiler import KernelUnavailable
from .core import address, core_and, count_call, threads_for
from .recording import here, run

MAX_BLOCKS = 160  # as in src/recurrence.c
MAX_SIZES = 256  # for which the arguments that calls share are kept


class _Sequence(Structure):  # sequence in src/recurrence.c
    _fields_ = [("data", c_void_p), ("time_step", c_long), ("batch_step", c_long)]


def _fields(kind: type, *names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names]


class _Arguments(Structure):  # recurrence in src/recurrence.c
    _fields_ = [
        *_fields(c_long, "time", "batch", "units", "gates", "states", "saved_values", "distinct"),
        *_fields(c_void_p, "distinct_slot", "cell", "cell_gradient"),
        *_fields(c_long, "others"),
        *_fields(c_void_p, "other", "operand_of"),
        *_fields(c_long, "computed"),
        *_fields(c_void_p, "compute_operands", "operands_gradient", "operand"),
        *_fields(c_long, "operand_slots", "saved_slots"),
        *_fields(c_void_p, "recurrent_kernel", "bias", "initial", "mask"),
        *_fields(c_long, "mask_time_step", "mask_batch_step"),
        *_fields(_Sequence, "projected"),
        *_fields(c_void_p, "state"),
        *_fields(c_long, "state_time_step", "state_batch_step"),
        *_fields(c_void_p, "saved"),
        *_fields(c_void_p, "gradient", "carried"),
        *_fields(_Sequence, "d_projected"),
        *_fields(c_void_p, "dr", "d_kernel", "d_bias"),
        *_fields(c_long, "other_sequences", "other_sums"),
        *_fields(c_void_p, "d_other", "sums"),
        *_fields(c_long, "want_initial", "bfloat16"),
        *_fields(c_void_p, "scratch"),
        *_fields(c_long, "keeps_packed", "packed_for"),
    ]


class Saved(NamedTuple):
    """What `RecurrenceKernel.backward` needs of `forward`; the layouts are private to it."""

    values: np.ndarray | None  # (time, saved values, batch, padded units)
    operands: np.ndarray | None  # (operands, time, batch, units): those that are not states


class RecurrenceGradients(NamedTuple):
    """The gradients that `RecurrenceKernel.backward` returns."""

    projected: np.ndarray  # (time, batch, gates * units)
    recurrent_kernel: np.ndarray | None  # (units, gates * units)
    recurrent_bias: np.ndarray | None  # (gates * units,)
    initial_states: list[np.ndarray] | None  # (batch, units) each
    others: list[np.ndarray]  # of those that have a gradient, in order


class RecurrenceKernel:
    """A compiled recurrence of one cell; the sizes are arguments of each call.

    Parameters
    ----------
    step
        ``step(x, r, states) -> new_states`` on tuples of PyTensor variables ``(batch, units)``,
        elementwise: for each gate the projected input ``x`` and ``r = states[0] @ recurrent_kernel
        + recurrent_bias``. With `others` it takes a fourth tuple, the other arrays. A step that
        uses no ``r`` needs no recurrent kernel, and no product is computed.
    gates
        Number of gates.
    states
        Number of states.
    dtype
        ``"float32"`` or ``"float64"``.
    others
        Other arrays that the step takes. In `step` each is ``(batch, units)``.
    operands
        ``operands(states, others)`` returns for each gate the left operand of its product with the
        recurrent kernel, ``(batch, units)``, an elementwise function of the states before the step
        and of `others`; None for a gate whose ``r`` is not used. By default it is the first state.
    bfloat16
        Whether to round the operands of all products to bfloat16, also in the gradients. States,
        sums and all else are float32.

    Raises
    ------
    ValueError
        If `bfloat16` is asked for with float64.
    KernelUnavailable
        If the step uses an operation that is not supported, or there is no compiler.
    """

    _known: ClassVar[dict[tuple, RecurrenceKernel]] = {}
    state_sizes: ClassVar[None] = None  # they are those of the arrays

    @classmethod
    def of(
        cls,
        step: Callable,
        gates: int,
        states: int,
        dtype: str = "float32",
        others: Sequence[Other] = (),
        operands: Callable | None = None,
        bfloat16: bool = False,
    ) -> RecurrenceKernel:
        """Return the compiled kernel of a step; equal ones are made once.

        Compiled kernels are equal if the code generated from their steps is equal.
        """
        others = tuple(others)
        cell = CellSource(step, gates, states, np.dtype(dtype).name, others, operands)
        sizes = (tuple(cell.distinct), tuple(cell.operand_of), gates, states)
        key = (cell.source, *sizes, others, np.dtype(dtype).name, bfloat16)
        if key not in cls._known:
            cls._known[key] = cls(cell, gates, states, dtype, others, bfloat16=bfloat16)
        return cls._known[key]

    def __init__(
        self,
        step: Callable | CellSource,
        gates: int,
        states: int,
        dtype: str = "float32",
        others: Sequence[Other] = (),
        operands: Callable | None = None,
        bfloat16: bool = False,
    ) -> None:
        self.gates, self.states, self.dtype = gates, states, np.dtype(dtype)
        if bfloat16 and self.dtype != np.float32:
            raise ValueError(f"bfloat16=True takes a float32 recurrence, got {self.dtype}")
        self.bfloat16 = bfloat16
        self.others = tuple(others)
        cell = (
            step
            if isinstance(step, CellSource)
            else CellSource(step, gates, states, self.dtype.name, self.others, operands)
        )
        self.saved_values, self.computed = len(cell.saved), cell.computed
        self.has_products = cell.has_products
        self.needs_projected = cell.needs_projected
        self._distinct = len(cell.distinct)
        kinds = [other.kind for other in self.others if other.gradient]
        self._sums, self._sequences = len(cell.sums), kinds.count("sequence")
        blocks = 2 * gates + 4 * states + self.saved_values + self._distinct + self.computed
        if blocks + len(self.others) + len(kinds) > MAX_BLOCKS:
            raise KernelUnavailable(
                "the cell has too many gates, states, other arrays and intermediate results "
                f"({MAX_BLOCKS} fit)"
            )
        slots = [cell.distinct.index(g) if g in cell.distinct else -1 for g in range(gates)]
        self._slots = (c_long * gates)(*slots)
        self._operand_of = (c_long * gates)(*cell.operand_of)
        self._core, (self._library,) = core_and(self.dtype.name, cell.source)
        self._elementwise = not cell.has_products
        self._functions = [
            ctypes.cast(f, c_void_p) for f in (self._library.cell, self._library.cell_gradient)
        ]
        self._operand_functions: list = [None, None]
        if self.computed:
            library = self._library
            self._operand_functions = [
                ctypes.cast(f, c_void_p)
                for f in (library.compute_operands, library.operands_gradient)
            ]
        self._padding = self._core.vector_bytes() // self.dtype.itemsize
        # Kept here, because ctypes creates such a type again otherwise.
        self._pointers_type, self._sequences_type = c_void_p * states, _Sequence * states
        self._others_type = _Sequence * len(self.others)
        self._same: dict[tuple[int, ...], tuple[int, _Arguments]] = {}
        self._d_others_type = _Sequence * self._sequences

    def _threads(self, time: int, batch: int, units: int) -> int:
        """Return the most threads to use; the compiled kernel uses fewer where that is faster.

        It is called once a call, because another thread may change the number of threads.
        """
        return threads_for(self.gates * units * units * batch * time)

    def forward(
        self,
        projected: np.ndarray,
        recurrent_kernel: np.ndarray | None = None,
        recurrent_bias: np.ndarray | None = None,
        initial_states: Sequence[np.ndarray] | None = None,
        mask: np.ndarray | None = None,
        save: bool = True,
        out: Sequence[np.ndarray] | None = None,
        others: Sequence[np.ndarray] = (),
    ) -> tuple[list[np.ndarray], Saved | None]:
        """Return every state after every step.

        Parameters
        ----------
        projected
            ``(time, batch, gates * units)``: gate ``g`` has the columns from ``g * units``. Any
            strides of time and batch, so that a reversed or transposed view needs no copy.
        recurrent_kernel
            ``(units, gates * units)``; not needed without `has_products`.
        recurrent_bias
            ``(gates * units,)``.
        initial_states
            ``(batch, units)`` for each state; zeros if not given.
        mask
            ``(time, batch)`` of bool: where False, the states keep their values.
        save
            Whether to save the values that `backward` needs.
        out
            ``(time, batch, units)`` for each state, to write to: contiguous, as is each returned
            state. Without `has_products` states may be views of ``(batch, time, units)``.
        others
            The other arrays that the step takes; sequences with any strides of time and batch. A
            last axis of 1 is broadcast to the units.

        Returns
        -------
        states : list of numpy.ndarray
            ``(time, batch, units)`` each.
        saved : Saved or None
            For `backward`.
        """
        time, batch, units = self._sizes(projected, recurrent_kernel)
        shape = (time, batch, units)
        if out is None:
            states = [self._empty_like(projected, shape) for _ in range(self.states)]
        else:
            states = list(out)
            self._expect_states("out", states, shape)
        padded = -(-units // self._padding) * self._padding
        values = operands = None
        if save:
            values = memory.empty((time, self.saved_values, batch, padded), self.dtype)
        if self.computed:
            slots = time if save else 2
            operands = memory.empty((self.computed, slots, batch, units), self.dtype)
        saved = Saved(values, operands)
        threads = self._threads(time, batch, units)
        keep, a = self._arguments(
            projected,
            recurrent_kernel,
            recurrent_bias,
            initial_states,
            mask,
            states,
            saved,
            others,
            threads,
        )
        if time and batch and units:
            run(self._core.recurrence_forward, a, threads, self, projected, keep)
        count_call("recurrence.forward")
        del keep
        return states, saved if save else None

    def backward(
        self,
        recurrent_kernel: np.ndarray | None,
        states: Sequence[np.ndarray],
        saved: Saved,
        grads: Sequence[np.ndarray | None],
        *,
        projected: np.ndarray | None = None,
        recurrent_bias: np.ndarray | None = None,
        initial_states: Sequence[np.ndarray] | None = None,
        mask: np.ndarray | None = None,
        final_grads: Sequence[np.ndarray | None] | None = None,
        out: np.ndarray | None = None,
        others: Sequence[np.ndarray] = (),
    ) -> RecurrenceGradients:
        """Return the gradients of a scalar with respect to all arguments of `forward`.

        Parameters
        ----------
        recurrent_kernel, projected, recurrent_bias, initial_states, mask, others
            As given to `forward`. `projected` is only read if `needs_projected` is True. The values
            of the bias are not read.
        states, saved
            As returned by `forward`.
        grads
            For each state the gradient with respect to its sequence, ``(time, batch, units)`` with
            the last axis contiguous, or None.
        final_grads
            For each state the gradient with respect to its last value alone, ``(batch, units)``, or
            None: added to `grads`.
        out
            ``(time, batch, gates * units)`` with any strides of time and batch, for the gradient of
            `projected`. It may be a reversed view, as `projected` may.

        Returns
        -------
        RecurrenceGradients
            `recurrent_bias` is None without a bias, `initial_states` None without initial states.
        """
        time, batch, units = states[0].shape
        shape, columns = (time, batch, units), self.gates * units
        self._expect_states("states", states, shape)
        d_projected = self._empty_like(projected, (*shape[:2], columns)) if out is None else out
        if projected is None:
            if self.needs_projected:
                raise ValueError(
                    "this cell's gradient needs `projected`, as it was given to forward"
                )
            projected = d_projected  # never read
        if (
            self._sizes(projected, recurrent_kernel) != shape
            or d_projected.shape != projected.shape
        ):
            raise ValueError(
                f"the shapes of projected {projected.shape}, out {d_projected.shape} "
                f"and states {shape} do not match"
            )
        threads = self._threads(time, batch, units)
        keep, a = self._arguments(
            projected,
            recurrent_kernel,
            recurrent_bias,
            initial_states,
            mask,
            states,
            saved,
            others,
            threads,
        )
        given = self._sequences_type(
            *(self._sequence(g, f"grads[{s}]", shape) for s, g in enumerate(grads))
        )
        carried = [memory.empty((batch, units), self.dtype) for _ in range(self.states)]
        for s, array in enumerate(carried):
            array[...] = 0 if final_grads is None or final_grads[s] is None else final_grads[s]
        pointers = self._pointers(carried)
        dr = (
            memory.empty((time, batch, self._distinct * units), self.dtype)
            if self._distinct
            else None
        )
        d_kernel = None if recurrent_kernel is None else memory.empty((units, columns), self.dtype)
        d_bias = None if recurrent_bias is None else memory.empty((columns,), self.dtype)
        a.gradient, a.carried = addressof(given), addressof(pointers)
        a.d_projected = self._sequence(d_projected, "out", d_projected.shape)
        a.dr = dr is not None and address(dr)
        if self.has_products and d_kernel is not None:
            a.d_kernel, a.d_bias = address(d_kernel), d_bias is not None and address(d_bias)
        # Operands of the first step may depend on other arrays, too.
        a.want_initial = initial_states is not None or bool(self.computed and self._sums)
        of_others: list[np.ndarray] = []
        if self.others:
            padded = -(-units // self._padding) * self._padding
            sums = memory.empty((self._sums, batch, padded), self.dtype)
            sums.fill(0)
            d_sequences = [memory.empty(shape, self.dtype) for _ in range(self._sequences)]
            d_others = self._d_others_type(
                *(self._sequence(d, "gradients", shape) for d in d_sequences)
            )
            a.other_sequences, a.other_sums = self._sequences, self._sums
            a.d_other, a.sums = addressof(d_others), address(sums)
        if time and batch and units:
            self._core.recurrence_backward(byref(a), threads)
            written = self.has_products
            if time == 1 and initial_states is None and d_bias is None and not self.computed:
                written = False
        else:
            written = False
        if not written:
            for d in (d_kernel, d_bias):
                if d is not None:
                    d[...] = 0
        count_call("recurrence.backward")
        del keep
        if self.others:
            of_others = self._gradients_of_others(sums[..., :units], d_sequences, others)
        return RecurrenceGradients(
            d_projected,
            d_kernel,
            d_bias,
            carried if initial_states is not None else None,
            of_others,
        )

    def _gradients_of_others(
        self, sums: np.ndarray, sequences: list[np.ndarray], others: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Return the gradients of the other arrays in the shapes in which they were given."""
        of_sums, of_sequences = iter(sums), iter(sequences)
        found = []
        for other, array in zip(self.others, others, strict=True):
            if not other.gradient:
                continue
            if other.kind == "sequence":
                gradient = next(of_sequences)
            else:
                rows = next(of_sums)
                gradient = (
                    rows.sum(axis=0) if other.kind == "vector" else np.ascontiguousarray(rows)
                )
            if array.ndim == 0 or array.shape[-1] == 1:
                gradient = gradient.sum(axis=-1)
            found.append(gradient.reshape(array.shape))
        return found

    # ---- packing the arguments ----------------------------------------------------------
    def _empty_like(self, projected: np.ndarray | None, shape: tuple[int, int, int]) -> np.ndarray:
        """Return an array (time, batch, ...); if the cell is elementwise, in the order of another.

        The order in memory is (time, batch) or (batch, time).
        """
        if self._elementwise and projected is not None:
            time_step, batch_step, _ = map(abs, projected.strides)
            if time_step < batch_step:
                time, batch, size = shape
                return memory.empty((batch, time, size), self.dtype).transpose(1, 0, 2)
        return memory.empty(shape, self.dtype)

    def _expect_states(
        self, name: str, states: Sequence[np.ndarray], shape: tuple[int, int, int]
    ) -> None:
        turned = self._elementwise and not all(s.flags.c_contiguous for s in states)
        if turned:
            states = [s.transpose(1, 0, 2) for s in states]
            shape = (shape[1], shape[0], shape[2])
        self._expect(name, states, shape)

    def _sizes(
        self, projected: np.ndarray, recurrent_kernel: np.ndarray | None
    ) -> tuple[int, int, int]:
        if recurrent_kernel is None:
            if self.has_products:
                raise ValueError("the cell multiplies by recurrent_kernel, which is not given")
            units = projected.shape[-1] // self.gates
        else:
            units = recurrent_kernel.shape[0]
        if recurrent_kernel is not None and recurrent_kernel.shape != (units, self.gates * units):
            raise ValueError(
                f"recurrent_kernel must be (units, {self.gates} * units), "
                f"got {recurrent_kernel.shape}"
            )
        if projected.ndim != 3 or projected.shape[2] != self.gates * units:
            raise ValueError(
                f"projected must be (time, batch, {self.gates * units}), got {projected.shape}"
            )
        return (*projected.shape[:2], units)

    def _arguments(
        self,
        projected: np.ndarray,
        recurrent_kernel: np.ndarray | None,
        recurrent_bias: np.ndarray | None,
        initial_states: Sequence[np.ndarray] | None,
        mask: np.ndarray | None,
        states: Sequence[np.ndarray],
        saved: Saved,
        others: Sequence[np.ndarray],
        threads: int,
    ) -> tuple[tuple, _Arguments]:
        """Return the arrays that must stay alive during the call, and the C structure."""
        time, batch, units = states[0].shape
        if not self.has_products:
            recurrent_kernel = recurrent_bias = None
        if recurrent_kernel is not None:
            recurrent_kernel = np.ascontiguousarray(recurrent_kernel)
            self._expect("recurrent_kernel", [recurrent_kernel])
        if recurrent_bias is not None:
            self._expect(
                "recurrent_bias",
                [recurrent_bias := np.ascontiguousarray(recurrent_bias)],
                (self.gates * units,),
            )
        initial: Sequence[np.ndarray | None] = [None] * self.states
        if initial_states is not None:
            contiguous = [np.ascontiguousarray(s) for s in initial_states]
            self._expect("initial_states", contiguous, (batch, units))
            initial = contiguous
        if mask is not None and (mask.shape != (time, batch) or mask.dtype != bool):
            raise ValueError(f"mask must be bool({time}, {batch}), got {mask.dtype}{mask.shape}")
        if len(others) != len(self.others):
            raise ValueError(
                f"others must be {len(self.others)} arrays, as the step takes, got {len(others)}"
            )
        sizes = (time, batch, units, threads)
        same = self._same.get(sizes)
        if same is None:
            if len(self._same) >= MAX_SIZES:
                self._same.clear()
            same = self._same[sizes] = self._arguments_of(*sizes)
        size, template = same
        a = _Arguments.from_buffer_copy(template)
        a.scratch = memory.scratch(size)
        a.keeps_packed = here() is not None  # a call that is noted is repeated with these weights
        initial_pointers, state_pointers = self._pointers(initial), self._pointers(states)
        if recurrent_kernel is not None:
            a.recurrent_kernel = address(recurrent_kernel)
        a.state, a.initial = addressof(state_pointers), addressof(initial_pointers)
        time_step, batch_step, _ = states[0].strides
        a.state_time_step = time_step // self.dtype.itemsize
        a.state_batch_step = batch_step // self.dtype.itemsize
        a.projected = self._sequence(projected, "projected", projected.shape)
        if recurrent_bias is not None:
            a.bias = address(recurrent_bias)
        if mask is not None:
            a.mask, (a.mask_time_step, a.mask_batch_step) = address(mask), mask.strides
        given = None
        if others:
            others = [
                wide(array, o.kind, units) for array, o in zip(others, self.others, strict=True)
            ]
            given = self._others_type(
                *(
                    self._other(array, f"others[{i}]", other.kind, (time, batch, units))
                    for i, (array, other) in enumerate(zip(others, self.others, strict=True))
                )
            )
            a.other = addressof(given)
        values, history = saved
        if values is not None:
            a.saved, a.saved_slots = address(values), max(1, len(values))
        if history is not None:
            a.operand, a.operand_slots = address(history), history.shape[1]
        keep = (
            recurrent_kernel,
            recurrent_bias,
            initial,
            mask,
            initial_pointers,
            state_pointers,
            given,
            others,
        )
        return keep, a

    def _arguments_of(
        self, time: int, batch: int, units: int, threads: int
    ) -> tuple[int, _Arguments]:
        """Return the bytes of scratch memory, and the arguments that calls of a size share."""
        operands = self.states + self.computed
        if self._elementwise:
            size = self._core.elementwise_scratch(units, self.states, threads)
        else:
            sizes = (batch, units, self.gates, operands, self.bfloat16)
            size = self._core.recurrence_scratch(*sizes, threads)
        step, step_gradient = self._functions
        compute_operands, operands_gradient = self._operand_functions
        return size * self.dtype.itemsize, _Arguments(
            time=time,
            batch=batch,
            units=units,
            gates=self.gates,
            states=self.states,
            saved_values=self.saved_values,
            distinct=self._distinct,
            distinct_slot=addressof(self._slots),
            cell=step,
            cell_gradient=step_gradient,
            others=len(self.others),
            operand_of=addressof(self._operand_of),
            computed=self.computed,
            compute_operands=compute_operands,
            operands_gradient=operands_gradient,
            operand_slots=1,
            saved_slots=1,
            bfloat16=self.bfloat16,
        )

    def _other(
        self, array: np.ndarray, name: str, kind: str, shape: tuple[int, int, int]
    ) -> _Sequence:
        """Return an other array as a sequence, whose steps of time and batch may be 0."""
        wanted = shape[{"sequence": 0, "batch": 1, "vector": 2}[kind] :]
        if array.shape == wanted:
            array = np.broadcast_to(array, shape)
        return self._sequence(array, name, shape)

    def _sequence(self, array: np.ndarray | None, name: str, shape: tuple[int, ...]) -> _Sequence:
        if array is None:
            return _Sequence(None, 0, 0)
        size = self.dtype.itemsize
        time_step, batch_step, step = array.strides
        if (
            array.shape != shape
            or array.dtype != self.dtype
            or (step != size and array.size and shape[2] > 1)
        ):
            raise ValueError(
                f"{name} must be {self.dtype}{shape} with its last axis contiguous, "
                f"got {array.dtype}{array.shape} with strides {array.strides}"
            )
        return _Sequence(address(array), time_step // size, batch_step // size)

    def _pointers(self, arrays: Sequence[np.ndarray | None]) -> ctypes.Array:
        return self._pointers_type(*(None if a is None else address(a) for a in arrays))

    def _expect(
        self, name: str, arrays: Sequence[np.ndarray], shape: tuple[int, ...] | None = None
    ) -> None:
        if shape is not None and len(shape) > 1 and len(arrays) != self.states:
            raise ValueError(f"{name} must be {self.states} arrays, got {len(arrays)}")
        for array in arrays:
            if (
                array.dtype != self.dtype
                or not array.flags.c_contiguous
                or (shape and array.shape != shape)
            ):
                wanted = shape if shape else "any shape"
                raise ValueError(
                    f"{name} must be contiguous, {self.dtype} and {wanted}, "
                    f"got {array.dtype}{array.shape}"
                )


def wide(array: np.ndarray, kind: str, units: int) -> np.ndarray:
    """Return an other array with the units as its last axis, which is contiguous."""
    if kind == "vector":
        array = array.reshape(-1)
    if array.shape[-1] == 1 != units:
        array = np.broadcast_to(array, (*array.shape[:-1], units))
    return array if array.strides[-1] == array.itemsize else np.ascontiguousarray(array)

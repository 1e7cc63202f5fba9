"""Cells: one time step of a recurrence, with its weights.

A cell is a layer of one step, ``cell(x, states) -> output, new states``. A recurrent layer applies
it along time (`seqnet.layers.recurrent`). The equations of a step exist once, in the `step` of the
cell: the call by hand, the scan, the unrolled loop and the kernel are made from its trace
(`seqnet.ops.step`).

`CellInLoop` is what a recurrent layer needs to know of a cell. `Cell` is the base class of cells
with one block of columns of the kernels for each gate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.gradient import grad_clip
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import graph_inputs

from seqnet import activations, backend, config, constraints, initializers, regularizers
from seqnet.common.checks import check_bool, check_count, check_fits, check_number
from seqnet.common.hyperparameters import Rate, numbers_of
from seqnet.common.locking import COMPILING, ForkSafeLock
from seqnet.common.types import Array, ArrayLike, Shape, Tensor
from seqnet.layers.calling import describe
from seqnet.layers.context import CallContext
from seqnet.layers.dense import affine
from seqnet.layers.evaluation import functions_of
from seqnet.layers.layer import Layer
from seqnet.layers.seeded import Seeded
from seqnet.layers.states import InitialState, given_states
from seqnet.ops.step import TracedStep, check_states, each_step, run_step, trace_step
from seqnet.ops.step import drawn as before
from seqnet.registry import Identifier

Drawn: TypeAlias = tuple
"""Dropout masks that are drawn before the loop, of a stack in one tuple for each cell.

Those of a `Cell` are the mask of the input (batch, features) or None; a tuple of the masks of the
recurrent products (batch, size): none, one for all gates, or one for each gate; and None or a tuple
of the masks of zoneout, one for each state, (time, batch, size) or for one step (batch, size).
"""


class LoopStep(NamedTuple):
    """A traced step and the place of the output among its states.

    A step whose output is not one of its states has it as the last of the traced states, of
    which the first ones, `states` in number, are those of the cell.
    """

    step: TracedStep
    output: int
    states: int


class CellInLoop(ABC):
    """What a recurrent layer needs of a cell."""

    dtype: str
    dtype_policy: str
    units: int
    gates: tuple[str, ...]
    state_names: tuple[str, ...]

    @property
    @abstractmethod
    def state_sizes(self) -> tuple[int, ...]:
        """The size of each state, the last axis."""

    @property
    def output_size(self) -> int:
        """The size of the output, the last axis; by default that of the first state."""
        return self.state_sizes[0]

    @property
    def input_size(self) -> int | None:
        """The last axis of what the loop reads, for each gate; None is `units`."""
        return None

    @abstractmethod
    def trace(self, drawn: Drawn) -> LoopStep:
        """Return the graph of one step, given the dropout masks of the pass."""

    def draw(
        self,
        features: Tensor | int,
        batch: Tensor,
        context: CallContext,
        steps: Tensor | int | None = None,
    ) -> Drawn:
        """Draw the masks of a pass: for all of its steps, or of each of them; None is one step."""
        return ()

    def no_masks(self) -> Drawn:
        """Return what `draw` returns outside training."""
        return ()

    def project(self, inputs: Tensor, drawn: Drawn) -> Tensor:
        """Return what the loop reads: (batch, ..., size) for inputs (batch, ..., features)."""
        return inputs

    def recurrent_weights(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the recurrent kernel and its bias, None for what the cell does not have."""
        return None, None

    @abstractmethod
    def build_in_loop(self, input_shape: Shape) -> None:
        """Make the weights for inputs (batch, features)."""

    @abstractmethod
    def within(
        self, x: tuple[Tensor, ...], states: Sequence[Tensor], recur: Callable, drawn: Drawn
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the output and new states of one step, from its projected input."""

    @abstractmethod
    def advance(
        self, inputs: Tensor, states: Sequence[Tensor], drawn: Drawn
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the output and new states of one step, from its input (batch, features)."""


class CellLayer(CellInLoop, Layer):
    """A cell that is called by hand, on variables or on arrays."""

    input_axes = ("batch", "features")
    takes_several_inputs = False

    def build_in_loop(self, input_shape: Shape) -> None:
        # A recurrent layer as a cell takes sequences.
        time = (None,) * (len(self.input_axes) - 2)
        self.ensure_built((input_shape[0], *time, input_shape[-1]))

    def call(  # type: ignore[override]
        self, inputs: Tensor, states: InitialState, context: CallContext
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the output and the list of new states of one step."""
        given = given_states(self, states, self.state_names, self.state_sizes)
        given = [
            s if s.ndim == 2 else cast(Tensor, pt.alloc(s, inputs.shape[0], s.shape[0]))
            for s in given
        ]
        drawn = self.draw(inputs.shape[1], inputs.shape[0], context)
        return self.advance(inputs, given, drawn)

    def __call__(  # type: ignore[override]
        self, inputs: Any = None, states: Any = None, **options: Any
    ) -> Any:
        """Compute one step on variables or on arrays; return the output and the new states.

        Parameters
        ----------
        inputs : variable or array (batch, features)
        states : list of variables or arrays (batch, size)
            In the order of `state_names`; a cell with one state takes it without a list.
        **options
            Of calls on variables: see `Layer.__call__`.

        Returns
        -------
        output : variable or array (batch, units)
        new_states : list of variables or arrays (batch, size)
            Arrays if the inputs and states are arrays.
        """
        if states is None:
            raise TypeError(
                f"{describe(self)} is called on the input of one step and its "
                f"{len(self.state_names)} states ({', '.join(self.state_names)}): cell(x, states). "
                "get_initial_state(batch_size) returns the first states. RNN(cell) takes sequences."
            )
        several = list(states) if isinstance(states, (list, tuple)) else [states]
        if options or any(isinstance(v, Variable) for v in (inputs, *several)):
            output, new = super().__call__(inputs, states=several, **options)
            return output, new
        return self._compute(inputs, several)

    def check_as_cell(self) -> None:
        """Raise ``ValueError`` if it has options that it cannot have as the cell of a layer."""

    def get_initial_state(self, batch_size: int) -> list[Array]:
        """Return the states before the first step: zeros (batch, size)."""
        return [np.zeros((batch_size, size), dtype=self.dtype) for size in self.state_sizes]

    def _compute(self, inputs: ArrayLike, states: Sequence[ArrayLike]) -> tuple[Array, list[Array]]:
        """Compute one step of arrays by a compiled function, which is kept."""
        x = np.asarray(inputs)
        if x.ndim != 2 or x.dtype.kind not in "fiub":
            raise ValueError(
                f"{describe(self)} takes numbers of the shape (batch, features) for one step, got "
                f"the shape {x.shape} and the dtype {x.dtype}."
            )
        check_fits(x, "The input", self.dtype)
        self.ensure_built((None, x.shape[1]))
        names, sizes = self.state_names, self.state_sizes
        shapes = [np.shape(state) for state in states]
        if shapes != [(len(x), size) for size in sizes]:
            wanted = ", ".join(f"{n} ({len(x)}, {k})" for n, k in zip(names, sizes, strict=True))
            raise ValueError(
                f"{describe(self)} takes the states {wanted} for an input of {len(x)} rows, got "
                f"{', '.join(map(str, shapes)) or 'none'}."
            )
        function = one_step(self)
        with _running:
            output, *new = function(
                *[np.ascontiguousarray(value, dtype=self.dtype) for value in (x, *states)]
            )
        return output, new


_running = ForkSafeLock()


def one_step(cell: CellLayer) -> Callable:
    """Return the compiled function of a cell: ``x, *states -> output, *new states``."""
    with COMPILING:
        functions = functions_of(cell)
        if "step" not in functions:
            x = pt.matrix("x", dtype=cell.dtype)
            states = [pt.matrix(name, dtype=cell.dtype) for name in cell.state_names]
            output, new = cell.advance(x, states, cell.no_masks())
            functions["step"] = backend.compile([x, *states], [output, *new], name="step")
        return functions["step"]


class Cell(CellLayer, Seeded):
    """The base class of cells. Subclasses define one step; `RNN` applies it along time.

    ``cell(x, states)`` computes one step on an input ``(batch, features)`` and a list of states
    ``(batch, size)``. It returns the output, which is the first state, and the list of new states.

    Parameters
    ----------
    units : int
        Size of the state and of the output.
    activation : str or callable
        Of the candidate and the output, by default tanh.
    use_bias : bool
    kernel_initializer, recurrent_initializer, bias_initializer
        Names or objects of `seqnet.initializers`.
    kernel_regularizer, recurrent_regularizer, bias_regularizer
        Names or objects of `seqnet.regularizers`.
    kernel_constraint, recurrent_constraint, bias_constraint
        Names or objects of `seqnet.constraints`.
    dropout : float
        Share of the input's features that training sets to zero, one mask for each sequence: a
        feature is dropped at all steps or at none. Kept values are scaled by ``1 / (1 - rate)``.
        Both rates can be set at any time; a new graph is compiled only if one becomes 0 or was 0.
    recurrent_dropout : float
        The same for the state where it is multiplied by the recurrent kernel: one mask ``(batch,
        units)``, drawn before the loop, for all steps and all gates. The state that is carried
        and returned is not dropped. Source of both: Gal and Ghahramani, "A
        theoretically grounded application of dropout in recurrent neural networks" (2016).
    recurrent_dropout_per_gate : bool
        Draw a mask of `recurrent_dropout` for each gate instead of one for all gates.
    zoneout : float
        Probability that a unit of a state keeps its value at a step of training, drawn for each
        unit, sequence and step. Otherwise each state is its expectation ``z h + (1 - z) h'``, with
        h before and h' after the step. Source: Krueger et al., "Zoneout: regularizing RNNs by
        randomly preserving hidden activations" (2017).
    gradient_clip : float, optional
        Clip the gradients of the projected input and of the recurrent products to ``[-c, c]`` at
        each step, before they are passed on to the step before. Source: Graves, "Generating
        sequences with recurrent neural networks" (2013).

    Attributes
    ----------
    gates : tuple of str
        One name for each block of `units` columns of the kernels.
    state_names : tuple of str
        One name for each state; the first is the output.
    uses_recur : bool
        Whether the step calls `recur`. A cell whose class sets False has no recurrent kernel, and
        the arguments for it are errors; its loop over time has no matrix product.

    Raises
    ------
    ValueError
        If an argument is invalid, or is one for the recurrent kernel and the cell has none.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.layers import RNN, Cell
    >>> class Leaky(Cell):
    ...     gates = ("h",)
    ...     def step(self, x, states, recur):
    ...         (h,), (x_h,), (r_h,) = states, x, recur(states[0])
    ...         return (0.9 * h + 0.1 * self.activation(x_h + r_h),)
    >>> cell = Leaky(4)
    >>> output, states = cell(np.zeros((2, 3)), cell.get_initial_state(2))
    >>> output.shape
    (2, 4)
    >>> seqnet.Model([RNN(cell)]).predict(np.zeros((2, 5, 3))).shape
    (2, 4)
    """

    gates: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ("h",)
    uses_recur: bool = True
    layer_normalization: bool = False
    dropout = Rate()
    recurrent_dropout = Rate()
    zoneout = Rate()

    def __init__(
        self,
        units: int,
        *,
        activation: Identifier | None = "tanh",
        use_bias: bool = True,
        kernel_initializer: Identifier = "glorot_uniform",
        recurrent_initializer: Identifier = "orthogonal",
        bias_initializer: Identifier = "zeros",
        kernel_regularizer: Identifier | None = None,
        recurrent_regularizer: Identifier | None = None,
        bias_regularizer: Identifier | None = None,
        kernel_constraint: Identifier | None = None,
        recurrent_constraint: Identifier | None = None,
        bias_constraint: Identifier | None = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_per_gate: bool = False,
        zoneout: float = 0.0,
        gradient_clip: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = check_count(units, f"The units of {type(self).__name__}")
        self.activation = activations.get(activation)
        self.use_bias = check_bool(use_bias, "use_bias")
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.recurrent_constraint = constraints.get(recurrent_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.recurrent_dropout_per_gate = check_bool(
            recurrent_dropout_per_gate, "recurrent_dropout_per_gate"
        )
        self.zoneout = zoneout
        if gradient_clip is not None and check_number(gradient_clip, "gradient_clip") <= 0:
            raise ValueError(f"gradient_clip must be above 0 or None, got {gradient_clip!r}.")
        self.gradient_clip = gradient_clip
        if not self.uses_recur:
            given = {
                "recurrent_initializer": not isinstance(
                    self.recurrent_initializer, initializers.Orthogonal
                ),
                "recurrent_regularizer": recurrent_regularizer is not None,
                "recurrent_constraint": recurrent_constraint is not None,
                "recurrent_dropout": recurrent_dropout,
                "recurrent_dropout_per_gate": recurrent_dropout_per_gate,
            }
            self.refuse_recurrent([name for name, is_given in given.items() if is_given])

    def refuse_recurrent(self, names: Sequence[str]) -> None:
        """Raise ``ValueError`` if there are arguments for a kernel that does not exist."""
        if names:
            raise ValueError(
                f"{type(self).__name__} has no recurrent kernel, because its step has no product "
                f"with the state, so {names[0]} has no effect: leave it out."
            )

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The size of each state, the last axis; `units` by default, as the first must have."""
        return tuple(self.units for _ in self.state_names)

    @property
    def normalized_gates(self) -> tuple[tuple[str, ...], ...]:
        """The groups of gates that `layer_normalization` normalises together."""
        return (self.gates,)

    @property
    def zoneout_rates(self) -> tuple[str, ...]:
        """For each state the name of its rate of zoneout."""
        return tuple("zoneout" for _ in self.state_names)

    @property
    def has_zoneout(self) -> bool:
        """Whether a rate of zoneout is above 0."""
        return any(getattr(self, name) for name in self.zoneout_rates)

    @property
    def generators(self) -> list[SharedVariable]:
        """The generator of the dropout masks, and that of zoneout, if rates are above 0."""
        count = 2 if self.has_zoneout else 1 if self.dropout or self.recurrent_dropout else 0
        while self.built and len(self._generators) < count:
            self.add_generator()
        return self._generators[:count]

    @property
    def sequence_generators(self) -> list[SharedVariable]:  # type: ignore[override]
        """The generator of both kinds of dropout, which draw one mask for each sequence."""
        return self.generators[:1]

    # ---- for cells to define

    @abstractmethod
    def step(self, x: tuple, states: tuple, recur: Callable) -> tuple:
        """Return the new states of one step.

        Parameters
        ----------
        x : tuple of variables, each (batch, units)
            The projected input of this step, one for each gate.
        states : tuple of variables, each (batch, units)
            The states before this step, in the order of `state_names`.
        recur : callable
            ``recur(h)`` is `h` times the recurrent kernel (plus the recurrent bias, if the
            cell has one), one ``(batch, units)`` array for each gate; ``recur(h, "r", "z")``
            returns only those gates, in that order.
        """

    def initial_bias(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the first value of the bias, one block of `units` for each gate."""
        return initializers.draw(self.bias_initializer, shape, self.dtype)

    # ---- weights

    def build(self, input_shape: Shape) -> None:
        features = self.needed_features(input_shape)
        columns = self.kernel_columns(features)
        self.kernel = self.add_weight(
            "kernel",
            (features, columns),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernel: Tensor | None = None
        if self.uses_recur:
            self.add_recurrent_kernel((self.state_sizes[0], columns))
        self.bias: Tensor | None = None
        self.recurrent_bias: Tensor | None = None
        if self.use_bias:
            self.build_bias(columns)
        if self.layer_normalization:
            self.input_gain = self.add_weight("input_gain", (columns,), "ones")
            self.recurrent_gain = self.add_weight("recurrent_gain", (columns,), "ones")

    def kernel_columns(self, features: int) -> int:
        """Return the columns of the kernel: `units` for each gate."""
        return len(self.gates) * self.units

    def add_recurrent_kernel(self, shape: tuple[int, ...]) -> None:
        """Create the recurrent kernel, with the arguments that are for it."""
        self.recurrent_kernel = self.add_weight(
            "recurrent_kernel",
            shape,
            self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )

    def build_bias(self, columns: int) -> None:
        """Create the bias; cells with more than one override this."""
        self.bias = self.add_weight(
            "bias",
            (columns,),
            lambda shape, dtype: self.initial_bias(shape),
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
        )

    def input_bias(self) -> Tensor | None:
        """Return the bias that is added to the projected input, (gates * units,), or None."""
        return self.bias

    # ---- one step

    def no_masks(self) -> Drawn:
        return (None, (), None)

    def draw(
        self,
        features: Tensor | int,
        batch: Tensor,
        context: CallContext,
        steps: Tensor | int | None = None,
    ) -> Drawn:
        def mask(name: str, size: Tensor | int) -> Tensor:
            rate = numbers_of(self)[name]
            return context.dropout_mask(self.generators[0], (batch, size), rate, self.dtype)

        of_input, of_state, kept = self.no_masks()
        if context.training and self.dropout:
            of_input = mask("dropout", features)
        if context.training and self.recurrent_dropout:
            if not self.uses_recur:
                self.refuse_recurrent(["recurrent_dropout"])
            count = len(self.gates) if self.recurrent_dropout_per_gate else 1
            rows = self.state_sizes[0]
            of_state = tuple(mask("recurrent_dropout", rows) for _ in range(count))
        if context.training and self.has_zoneout:
            generator, leading = self.generators[1], (batch,) if steps is None else (steps, batch)
            kept = tuple(
                pt.cast(
                    context.uniform(generator, (*leading, open_size(size)), self.dtype)
                    < numbers_of(self)[rate],
                    self.dtype,
                )
                for size, rate in zip(self.state_sizes, self.zoneout_rates, strict=True)
            )
        return of_input, of_state, kept

    def project(self, inputs: Tensor, drawn: Drawn) -> Tensor:
        mask, *_ = drawn
        if mask is not None:
            inputs = pt.cast(inputs, self.dtype)
            inputs = inputs * (mask if inputs.ndim == 2 else mask[:, None, :])
        if not self.layer_normalization:
            return affine(inputs, self.kernel, self.input_bias(), self.compute_dtype)
        product = affine(inputs, self.kernel, None, self.compute_dtype)
        size, bias = self.units, self.input_bias()
        columns = [product[..., k * size : (k + 1) * size] for k in range(len(self.gates))]
        normed = cast(Tensor, pt.concatenate(self.normed(columns, self.input_gain), axis=-1))
        return normed if bias is None else cast(Tensor, normed + bias)

    def normed(
        self, values: Sequence[Tensor], gain: Tensor, names: Sequence[str] = ()
    ) -> list[Tensor]:
        """Return the values of some gates, (..., units), normalised together within each group."""
        found = dict(zip(names or self.gates, values, strict=True))
        for group in self.normalized_gates:
            inside = {gate: value for gate, value in found.items() if gate in group}
            if not inside:
                continue
            means = [pt.mean(value, axis=-1, keepdims=True) for value in inside.values()]
            mean = sum(means[1:], means[0]) / len(means)
            centred = {gate: value - mean for gate, value in inside.items()}
            squares = [pt.mean(pt.sqr(v), axis=-1, keepdims=True) for v in centred.values()]
            variance = sum(squares[1:], squares[0]) / len(squares)
            size = pt.sqrt(variance + np.asarray(0.001, self.dtype))
            for gate, value in centred.items():
                place = self.gates.index(gate) * self.units
                found[gate] = gain[place : place + self.units] * value / size
        return list(found.values())

    def step_with_options(
        self, x: tuple, states: tuple, recur: Callable, drawn: Drawn
    ) -> list[Tensor]:
        """Return the new states of a step, with the options that all cells have."""
        given, product = x, recur
        if self.layer_normalization:

            def normed(h: Tensor, *gates: str) -> tuple:
                return tuple(self.normed(recur(h, *gates), self.recurrent_gain, gates))

            product = normed
        if self.gradient_clip is not None:
            limit = np.dtype(self.dtype).type(self.gradient_clip)

            def clipped(values: Sequence[Tensor]) -> tuple:
                return tuple(grad_clip(v, -limit, limit) for v in values)

            given, unclipped = clipped(x), product

            def product(h: Tensor, *gates: str) -> tuple:
                return clipped(unclipped(h, *gates))

        new = check_states(self.step(given, states, product), self.state_names, describe(self))
        if not self.has_zoneout:
            return new
        *_, masks = drawn
        found = []
        for k, (old, value, name) in enumerate(zip(states, new, self.zoneout_rates, strict=True)):
            if not getattr(self, name):
                found.append(value)
                continue
            if masks is None:
                kept = pt.cast(numbers_of(self)[name], self.dtype)
            elif masks[k].ndim == 2:
                kept = before(masks[k])
            else:
                kept = each_step(masks[k], gradient=False)
            found.append(kept * old + (1 - kept) * value)
        return found

    def recurrent_weights(self) -> tuple[Tensor | None, Tensor | None]:
        return (self.recurrent_kernel, self.recurrent_bias) if self.uses_recur else (None, None)

    def within(
        self, x: tuple[Tensor, ...], states: Sequence[Tensor], recur: Callable, drawn: Drawn
    ) -> tuple[Tensor, list[Tensor]]:
        new = self.step_with_options(x, tuple(states), recur, drawn)
        return new[0], new

    def trace(self, drawn: Drawn) -> LoopStep:
        step = trace_step(
            lambda x, states, recur: self.step_with_options(x, states, recur, drawn),
            self.gates,
            self.state_names,
            self.units,
            self.dtype,
            describe(self),
            self.state_sizes,
            drawn[1],
            bfloat16=self.dtype_policy == config.MIXED,
        )
        if step.products and not self.uses_recur:
            raise ValueError(
                f"{describe(self)} calls recur in its step, but its class has uses_recur = False, "
                "so it has no recurrent kernel. Remove one of the two."
            )
        check_extras(self, step)
        return LoopStep(step, 0, len(self.state_names))

    def advance(
        self, inputs: Tensor, states: Sequence[Tensor], drawn: Drawn
    ) -> tuple[Tensor, list[Tensor]]:
        step, kernel, bias = self.trace(drawn).step, *self.recurrent_weights()

        def product(operand: Tensor, gates: Sequence[str]) -> Tensor:
            return step.product(operand, gates, cast(Tensor, kernel), bias)

        new, _, _ = run_step(
            step,
            self.project(inputs, drawn),
            states,
            product,
            [extra.variable for extra in step.extras],
        )
        return new[0], new


def trace_with_output(
    cell: CellInLoop, drawn: Drawn, what: str, more: Mapping[str, int] | None = None
) -> LoopStep:
    """Return the graph of one step of a cell whose output may be none of its states.

    `more` has the sizes of values, by name, that `within` takes and returns after the states.
    """
    count = len(cell.state_names)
    names = (*cell.state_names, *(more or ()))
    sizes = (*cell.state_sizes, *(more or {}).values())
    place: list[int] = []

    def traced(own_output: bool) -> TracedStep:
        def step(x: tuple, states: tuple, recur: Callable) -> list[Tensor]:
            output, new = cell.within(x, states[: len(names)], recur, drawn)
            place[:] = [k for k, state in enumerate(new) if state is output]
            return [*new, output] if own_output else new

        last = {"output": cell.output_size} if own_output else {}
        return trace_step(
            step,
            cell.gates,
            (*names, *last),
            cell.units,
            cell.dtype,
            what,
            (*sizes, *last.values()),
            input_size=cell.input_size,
            bfloat16=cell.dtype_policy == config.MIXED,
        )

    whole = traced(own_output=True)
    if not place:
        return LoopStep(whole, len(names), count)
    return LoopStep(traced(own_output=False), place[-1], count)


def open_size(size: int) -> int | Tensor:
    """Return a size of an array; an axis of the size one does not become broadcastable."""
    return size if size != 1 else pytensor.shared(np.int64(1))


def marked(drawn: Drawn) -> Drawn:
    """Return masks, in nested tuples, as a step within a loop uses them."""

    def mark(mask: Any) -> Any:
        if mask is None or isinstance(mask, tuple):
            return None if mask is None else marked(mask)
        return before(mask) if mask.ndim == 2 else each_step(mask, gradient=False)

    return tuple(mark(mask) for mask in drawn)


def check_extras(layer: Layer, step: TracedStep) -> None:
    """Raise ``ValueError`` if a step uses shared variables that are not weights of its layer."""
    known = {id(v) for v in (*layer.weights, *numbers_of(layer).values())}
    own = [e.variable for e in step.extras if e.has_gradient and not e.of_each_step]
    for root in graph_inputs(own):
        if isinstance(root, SharedVariable) and id(root) not in known:
            raise ValueError(
                f"{describe(layer)} uses the shared variable {root.name or root!s} in its step, "
                "which is not one of its weights, so it would neither be trained nor saved. Make "
                "it with add_weight in build."
            )

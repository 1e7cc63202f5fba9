"""Recurrent layers: a cell applied along time.

The steps of one call:

1. The input ``(batch, time, features)`` is multiplied by the kernel for all steps at once. This
   does not depend on the state, so it stays outside the loop.
2. The cell's `step` computes one time step: it gets the product of that step, one array per
   gate, and the states, and returns the new states (`seqnet.layers.cell`).
3. The step is applied along time in one of three ways, with one result: as a scan or unrolled
   (`seqnet.ops.recurrence`), or as one compiled kernel made from the same step
   (`seqnet.backend.recurrence`), if the backend has kernels and the step is elementwise.
4. The initial states are passed by the caller, carried from the previous batch
   (`seqnet.layers.states`), learned, or zero.

`Loop` is the base class. `seqnet.layers.RNN` is the layer of any cell, and `Recurrent` a layer that
is its own cell: a new one is one small class with its gates, its states and a `step` (see
`SimpleRNN`, `LSTM`).
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytensor.tensor as pt

from seqnet.common.checks import check_bool, check_count, check_number
from seqnet.common.types import Shape, Tensor, TensorLike
from seqnet.initializers import Constant
from seqnet.layers.calling import describe
from seqnet.layers.cell import Cell, CellInLoop, Drawn, open_size
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.layers.states import RUNS, CarriedStates, InitialState, Stateful, given_states
from seqnet.ops.flags import last_steps, resets_in_effect, with_gradient_steps, with_resets
from seqnet.ops.recurrence import Recurrence, recurrence


class Loop(Stateful):
    """The base class of recurrent layers: it applies a cell along time.

    Input ``(batch, time, features)``; output ``(batch, units)``, the last step's, or
    ``(batch, time, units)`` with `return_sequences`. A masked step keeps every state, so its
    output repeats the one before it (zeros before the first).

    Parameters
    ----------
    return_sequences : bool
        Return every step's output and not only the last one's.
    return_state : bool
        Calling the layer on a variable returns the list ``[output, *last states]``, the states in
        the order of `state_names`, each ``(batch, size)``. Not in a stack of layers.
    go_backwards : bool
        Run from the last step to the first; outputs come in that order (as in Keras).
    unroll : bool
        True builds a Python loop over the steps, whose number must then be known; False builds
        a scan, which takes any number of steps.
    fused : "auto", True or False
        Run the recurrence as one compiled kernel instead of a scan: ``"auto"`` if possible,
        True or an error, False never. `Model.summary` shows the choice.
    stateful : bool, "training" or "evaluation"
        Start each batch from the last states of the previous batch, row by row, with no gradient
        between batches. A batch of another size starts from zeros. Training,
        evaluation and prediction carry separate states; see `Model.reset_states`.
        ``"training"`` carries states in training only, ``"evaluation"`` in evaluation and
        prediction only.
    learn_initial_state : bool
        Start from weights ``initial_h`` (and so on, one ``(size,)`` for each state), the same for
        every sequence, that are trained; their initial value is `initial_state_value`.
    initial_state_value : float
        The value of all states before the first step.
    zero_output_for_mask : bool
        With `return_sequences`, outputs at masked steps are zeros instead of repeating the one
        before.
    return_in_order : bool
        With `go_backwards` and `return_sequences`, return the outputs in the order of the input.
    gradient_steps : int, optional
        Backpropagate through the last `gradient_steps` steps of each row only, in the order in
        which they are computed; by default through all. Masked steps do not count. The outputs of
        earlier steps have no gradient, and their inputs neither.
    """

    input_axes: tuple[str, ...] = ("batch", "time", "features")
    takes_several_inputs = False

    def __init__(
        self,
        *args: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        unroll: bool = False,
        fused: bool | str = "auto",
        stateful: bool | str = False,
        learn_initial_state: bool = False,
        initial_state_value: float = 0.0,
        zero_output_for_mask: bool = False,
        return_in_order: bool = False,
        gradient_steps: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.return_sequences = check_bool(return_sequences, "return_sequences")
        self.return_state = check_bool(return_state, "return_state")
        self.go_backwards = check_bool(go_backwards, "go_backwards")
        self.unroll = check_bool(unroll, "unroll")
        if not isinstance(fused, (bool, np.bool_)) and fused != "auto":
            raise ValueError(f"fused is 'auto', True or False, got {fused!r}.")
        self.fused = fused if isinstance(fused, str) else bool(fused)
        if isinstance(stateful, str) and stateful not in CARRYING_RUNS:
            raise ValueError(
                f"stateful is True, False, 'training' or 'evaluation', got {stateful!r}."
            )
        chosen = stateful if isinstance(stateful, str) else check_bool(stateful, "stateful")
        self.stateful = chosen  # type: ignore[assignment]
        self.learn_initial_state = check_bool(learn_initial_state, "learn_initial_state")
        self.initial_state_value = check_number(initial_state_value, "initial_state_value")
        self.zero_output_for_mask = check_bool(zero_output_for_mask, "zero_output_for_mask")
        self.return_in_order = check_bool(return_in_order, "return_in_order")
        self.gradient_steps = (
            None if gradient_steps is None else check_count(gradient_steps, "gradient_steps")
        )
        if self.fused is True and unroll:
            raise ValueError("fused=True and unroll=True contradict each other: choose one.")
        if stateful and learn_initial_state:
            raise ValueError(
                "stateful=True and learn_initial_state=True contradict each other: a batch starts "
                "from the states before it or from learned ones."
            )
        if stateful and initial_state_value:
            raise ValueError(
                "stateful=True and initial_state_value contradict each other: a batch starts from "
                "the states before it or from zeros."
            )

    @property
    @abstractmethod
    def loop_cell(self) -> CellInLoop:
        """The cell that the layer applies."""

    @property
    def needs_length(self) -> bool:  # type: ignore[override]
        """Whether the graph is unrolled, with a fixed number of steps."""
        return self.unroll

    @property
    def non_causal(self) -> str:  # type: ignore[override]
        """Why the layer cannot run step by step; empty if it can."""
        return "runs backwards" if self.go_backwards else ""

    @property
    def has_multiple_outputs(self) -> bool:  # type: ignore[override]
        """Whether a call returns a list: with `return_state`."""
        return self.return_state

    @property
    def reverses_time(self) -> bool:  # type: ignore[override]
        return self.go_backwards and self.return_sequences and not self.return_in_order

    def runs_as(self, execution_mode: Callable[[Recurrence], str]) -> str:
        traced = self.loop_cell.trace(self.loop_cell.no_masks()).step
        op = Recurrence(traced, (), self.unroll, self.fused, layer=self.display_name)
        return execution_mode(op)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        cell = self.loop_cell
        if self.learn_initial_state:
            self.initial_state = [
                self.add_weight(f"initial_{name}", (size,), Constant(self.initial_state_value))
                for name, size in zip(cell.state_names, cell.state_sizes, strict=True)
            ]
        if self.stateful:
            self.carried = CarriedStates(self, cell.state_names, cell.state_sizes)

    # ---- one pass

    def call(
        self,
        inputs: Tensor,
        mask: Tensor | None,
        context: CallContext,
        initial_state: InitialState | None = None,
        resets: TensorLike | None = None,
    ) -> Tensor | list[Tensor]:
        """Return the output, with `return_state` the list ``[output, *last states]``.

        `initial_state` is a list of one variable or array for each state, ``(batch, size)`` or
        ``(size,)`` for all sequences; it takes precedence over carried, learned and zero states.

        `resets` is ``(batch, time)`` of bool, True at the first step of each of several sequences
        in one row. The layer starts anew there, from learned states if it has them and otherwise
        from `initial_state_value`; a layer with `go_backwards` starts anew at the last step of
        each sequence. A masked step is not computed, so a reset there takes effect at the next
        step that is.
        """
        batch = inputs.shape[0]
        time_mask = None if mask is None else mask.transpose(1, 0)
        anew, pending = None, None
        if resets is not None:
            flags = checked_resets(self, resets, inputs.type.shape).transpose(1, 0)
            anew, pending = resets_in_effect(flags, time_mask, self.go_backwards)
        drawn = self.drawn_for(inputs, time_mask, anew, context)
        projected = self.loop_cell.project(inputs, drawn)
        sequence = projected.transpose(1, 0, 2)  # (time, batch, gates * units)
        states = self.start(batch, context, initial_state)
        history, output, last = self.run(sequence, time_mask, states, drawn, anew)
        carried = last if pending is None else self.restarted(pending, last)
        if self in context.initial_states and self in context.final_states:
            raise ValueError(
                f"Layer {self.display_name!r} is called twice in one model, but tbptt and step by "
                "step computation carry one state for each layer. Use two layers."
            )
        context.final_states[self] = carried
        if self.carries(context) and self not in context.initial_states:
            cast(CarriedStates, self.carried).store(context, carried)
        if self.return_sequences:
            output = history.transpose(1, 0, 2)
            if self.return_in_order and self.go_backwards:
                output = output[:, ::-1]
            if self.zero_output_for_mask and mask is not None:
                order = mask[:, ::-1] if self.reverses_time else mask
                output = pt.switch(order[:, :, None], output, np.asarray(0, output.dtype))
        return [output, *last] if self.return_state else output

    def drawn_for(
        self, inputs: Tensor, mask: Tensor | None, resets: Tensor | None, context: CallContext
    ) -> Drawn:
        """Return what is drawn before the loop; the flags are (time, batch)."""
        batch, steps, features = inputs.shape[0], inputs.shape[1], inputs.shape[2]
        return self.loop_cell.draw(features, batch, context, steps)

    def run(
        self,
        sequence: Tensor,
        mask: Tensor | None,
        states: list[Tensor] | None,
        drawn: Drawn,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the outputs (time, batch, size), the last output and the last states."""
        cell = self.loop_cell
        if self.unroll and sequence.type.shape[0] is None:
            raise ValueError(
                f"Layer {self.display_name!r} has unroll=True, so the number of steps must be "
                "known when the graph is built, and it is not. Pass "
                f"input_shape=(steps, {self.features}) to the model's first layer, call fit or "
                "predict with data of one length, give the symbolic input a static shape, or use "
                "unroll=False."
            )
        step, place, count = cell.trace(drawn)
        if resets is not None:
            none = [np.asarray(0, self.dtype)] * (len(step.states) - count)
            step = with_resets(step, resets, [*self.own_states(), *none])
        if self.gradient_steps is not None:
            kept = last_steps(sequence, mask, self.gradient_steps, self.go_backwards)
            step = with_gradient_steps(step, kept)
        if states is not None:
            zero = np.asarray(0, self.dtype)
            sizes = map(open_size, step.state_sizes[len(states) :])
            others = [pt.alloc(zero, sequence.shape[1], size) for size in sizes]
            states = [*states, *cast("list[Tensor]", others)]
        histories, last = recurrence(
            step,
            sequence,
            *cell.recurrent_weights(),
            states,
            mask,
            unroll=self.unroll,
            fused=self.fused,
            backwards=self.go_backwards,
            layer=self.display_name,
        )
        return histories[place], last[place], last[:count]

    def start(
        self,
        batch: Tensor,
        context: CallContext,
        given: InitialState | None = None,
    ) -> list[Tensor] | None:
        """Return the states before the first step, each (batch, size); None is zeros."""
        cell = self.loop_cell
        if self in context.initial_states:
            if given is not None:
                raise ValueError(
                    f"Layer {self.display_name!r} is called with initial_state=, but later windows "
                    "of tbptt and later steps start from the states before them: tbptt does not "
                    "support it, and a Stepper or Decoder only if the model itself calls the layer."
                )
            return list(context.initial_states[self])
        if given is not None:
            states = given_states(self, given, cell.state_names, cell.state_sizes)
        elif self.carries(context):
            return cast(CarriedStates, self.carried).start(context, batch)
        elif self.learn_initial_state or self.initial_state_value:
            states = self.own_states()
        else:
            return None
        # The size as a symbol: a known size of 1 would make the state a broadcastable type.
        kernel, sizes = cell.recurrent_weights()[0], []
        for number, state in zip(cell.state_sizes, states, strict=True):
            if kernel is not None and number == cell.state_sizes[0]:
                sizes.append(kernel.shape[0])
            else:
                sizes.append(state.shape[-1] if state.ndim else number + 0 * batch)
        return [
            cast(Tensor, pt.alloc(state, batch, size))
            for state, size in zip(states, sizes, strict=True)
        ]

    def own_states(self) -> list:
        """Return the states that the layer itself starts from: weights (1, size), or numbers."""
        if self.learn_initial_state:
            return [pt.shape_padleft(weight) for weight in self.initial_state]
        value = np.asarray(self.initial_state_value, self.dtype)
        return [value for _ in self.loop_cell.state_sizes]

    def restarted(self, rows: Tensor, states: list[Tensor]) -> list[Tensor]:
        """Return states (batch, size) in which some rows, (batch,) bool, have the layer's own."""
        pairs = zip(self.own_states(), states, strict=True)
        return [cast(Tensor, pt.switch(rows[:, None], own, state)) for own, state in pairs]

    def carries(self, context: CallContext) -> bool:
        """Return whether a pass starts from carried states."""
        if self.carried is None:
            return False
        return context.run in CARRYING_RUNS.get(self.stateful, RUNS)

    def get_initial_state(self, batch_size: int) -> list[np.ndarray]:
        """Return the values of the initial states, each (batch, size): zeros or learned ones."""
        if self.learn_initial_state:
            values = [w.get_value() for w in self.initial_state]
            return [np.broadcast_to(v, (batch_size, len(v))).copy() for v in values]
        value = self.initial_state_value
        return [
            np.full((batch_size, size), value, dtype=self.dtype)
            for size in self.loop_cell.state_sizes
        ]

    def compute_output_shape(self, input_shape: Shape, resets_shape: Shape | None = None) -> Any:
        cell = self.loop_cell
        if resets_shape is not None:
            check_resets_shape(self, resets_shape, input_shape)
        batch, time, _ = input_shape
        size = cell.output_size
        output = (batch, time, size) if self.return_sequences else (batch, size)
        states = [(batch, size) for size in cell.state_sizes]
        return [output, *states] if self.return_state else output

    def compute_mask(
        self, inputs: Tensor, mask: Tensor | None = None
    ) -> Tensor | list[Tensor | None] | None:
        found = None
        if self.return_sequences and mask is not None:
            found = mask[:, ::-1] if self.reverses_time else mask
        states = len(self.loop_cell.state_names)
        return [found, *[None] * states] if self.return_state else found


def checked_resets(layer: Layer, resets: TensorLike, input_shape: Shape) -> Tensor:
    """Return where sequences begin as a bool variable (batch, time), or raise."""
    flags = pt.as_tensor_variable(resets)
    check_resets_shape(layer, flags.type.shape, input_shape)
    if np.dtype(flags.dtype).kind not in "biu":
        raise TypeError(
            f"The resets of {describe(layer)} are bool, True at the first step of each sequence, "
            f"got the dtype {flags.dtype}. The input of a model is Input((None,), dtype='bool')."
        )
    return cast(Tensor, pt.neq(flags, 0))


def check_resets_shape(layer: Layer, shape: Shape, input_shape: Shape) -> None:
    """Raise ``ValueError`` unless resets have the shape (batch, time) of an input."""
    pairs = zip(shape, input_shape, strict=False)
    if len(shape) != 2 or not all(None in pair or pair[0] == pair[1] for pair in pairs):
        raise ValueError(
            f"The resets of {describe(layer)} have the shape {tuple(shape)}, and its input "
            f"{tuple(input_shape)}: they need one value for each step, (batch, time)."
        )


CARRYING_RUNS: dict[Any, tuple[str, ...]] = {"training": ("train",), "evaluation": RUNS[1:]}
"""The runs that carry states, for values of `stateful` other than True."""


class Recurrent(Loop, Cell):  # type: ignore[misc]  # it is called on sequences
    """A recurrent layer that is its own cell. Subclasses define one step; this class applies it.

    Input ``(batch, time, features)``; output ``(batch, units)``, the last step's, or
    ``(batch, time, units)`` with `return_sequences`. A masked step keeps every state, so its
    output repeats the one before it (zeros before the first). A layer may also be given to
    `RNN` as a cell, for example as one of a stack.

    Parameters
    ----------
    units : int
        Size of the state and of the output.
    **kwargs
        The arguments of `Cell` for the step and its weights, and those of `RNN` for the loop.

    Attributes
    ----------
    gates : tuple of str
        One name for each block of `units` columns of the kernels.
    state_names : tuple of str
        One name for each state; the first is the output.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> class Leaky(seqnet.layers.Recurrent):
    ...     gates = ("h",)
    ...     def step(self, x, states, recur):
    ...         (h,), (x_h,), (r_h,) = states, x, recur(states[0])
    ...         return (0.9 * h + 0.1 * self.activation(x_h + r_h),)
    ...
    >>> model = seqnet.Model([Leaky(4, return_sequences=True)])
    >>> model.predict(np.zeros((2, 5, 3))).shape
    (2, 5, 4)
    """

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(units, **kwargs)

    __call__ = Stateful.__call__

    def check_as_cell(self) -> None:
        for name, default in LOOP_DEFAULTS.items():
            if getattr(self, name) != default:
                raise ValueError(
                    f"Layer {self.display_name!r} has {name}={getattr(self, name)!r}. Where a "
                    "recurrent layer is a cell, this is an option of RNN."
                )

    @property
    def loop_cell(self) -> CellInLoop:
        """The layer itself."""
        return self


LOOP_DEFAULTS = {
    name: argument.default
    for name, argument in inspect.signature(Loop.__init__).parameters.items()
    if argument.kind is argument.KEYWORD_ONLY
}
"""The arguments of a loop, which a layer that is used as a cell does not have."""

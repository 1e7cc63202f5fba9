"""Recurrent layers: a cell applied along time.

The steps of one call:

1. The input ``(batch, time, features)`` is multiplied by the kernel for all steps at once. This
   does not depend on the state, so it stays outside the loop.
2. The cell's `step` computes one time step: it gets the product of that step, one array per
   gate, and the states, and returns the new states.
3. The step is applied along time in one of three ways, with one result: as a scan or unrolled
   (`seqnet.ops.recurrence`), or as one compiled kernel made from the same step
   (`seqnet.backend.recurrence`), if the backend has kernels and the step is elementwise.
4. The initial states are passed by the caller, carried from the previous batch
   (`seqnet.layers.states`), learned, or zero.

A new cell is one small class: its gates, its states and a `step` (see `SimpleRNN`, `LSTM`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable

from seqnet import activations, constraints, initializers, regularizers
from seqnet.checks import check_bool, check_count
from seqnet.hyperparameters import Rate, numbers_of
from seqnet.layers.context import CallContext
from seqnet.layers.dense import affine
from seqnet.layers.states import CarriedStates, InitialState, Stateful, given_states
from seqnet.ops.recurrence import Recurrence, recurrence
from seqnet.ops.step import TracedStep, trace_step
from seqnet.registry import Identifier
from seqnet.types import Shape, Tensor


class Recurrent(Stateful):
    """The base class of recurrent layers. Subclasses define one step; this class applies it.

    Input ``(batch, time, features)``; output ``(batch, units)``, the last step's, or
    ``(batch, time, units)`` with `return_sequences`. A masked step keeps every state, so its
    output repeats the one before it (zeros before the first).

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
    return_sequences : bool
        Return every step's output and not only the last one's.
    return_state : bool
        Calling the layer on a variable returns the list ``[output, *last states]``, the states in
        the order of `state_names`, each ``(batch, units)``. Not in a stack of layers.
    go_backwards : bool
        Run from the last step to the first; outputs come in that order (as in Keras).
    unroll : bool
        True builds a Python loop over the steps, whose number must then be known; False builds
        a scan, which takes any number of steps.
    fused : "auto", True or False
        Run the recurrence as one compiled kernel instead of a scan: ``"auto"`` if possible,
        True or an error, False never. `Model.summary` shows the choice.
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
    stateful : bool
        Start each batch from the last states of the previous batch, row by row, with no gradient
        between batches. A batch of another size starts from zeros. Training,
        evaluation and prediction carry separate states; see `Model.reset_states`.
    learn_initial_state : bool
        Start from weights ``initial_h`` (and so on, one ``(units,)`` for each state), the same for
        every sequence, that are trained; their initial value is zero.

    Attributes
    ----------
    gates : tuple of str
        One name for each block of `units` columns of the kernels.
    state_names : tuple of str
        One name for each state; the first is the output.
    """

    gates: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ("h",)
    input_axes = ("batch", "time", "features")
    dropout = Rate()
    recurrent_dropout = Rate()

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
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        unroll: bool = False,
        fused: bool | str = "auto",
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_per_gate: bool = False,
        stateful: bool = False,
        learn_initial_state: bool = False,
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
        self.return_sequences = check_bool(return_sequences, "return_sequences")
        self.return_state = check_bool(return_state, "return_state")
        self.go_backwards = check_bool(go_backwards, "go_backwards")
        self.unroll = check_bool(unroll, "unroll")
        if not isinstance(fused, (bool, np.bool_)) and fused != "auto":
            raise ValueError(f"fused is 'auto', True or False, got {fused!r}.")
        self.fused = fused if isinstance(fused, str) else bool(fused)
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.recurrent_dropout_per_gate = check_bool(
            recurrent_dropout_per_gate, "recurrent_dropout_per_gate"
        )
        self.stateful = check_bool(stateful, "stateful")
        self.learn_initial_state = check_bool(learn_initial_state, "learn_initial_state")
        if self.fused is True and unroll:
            raise ValueError("fused=True and unroll=True contradict each other: choose one.")
        if stateful and learn_initial_state:
            raise ValueError(
                "stateful=True and learn_initial_state=True contradict each other: a batch starts "
                "from the states before it or from learned ones."
            )

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The size of each state, the last axis; `units` by default, as the first must have."""
        return tuple(self.units for _ in self.state_names)

    @property
    def needs_length(self) -> bool:  # type: ignore[override]
        """Whether the graph is unrolled, with a fixed number of steps."""
        return self.unroll

    @property
    def generators(self) -> list[SharedVariable]:
        """The generator of the dropout masks, if a rate is above 0."""
        if not (self.dropout or self.recurrent_dropout):
            return []
        if self.built and not self._generators:  # the rates were 0 when it was built
            self.add_generator()
        return self._generators

    @property
    def sequence_generators(self) -> list[SharedVariable]:  # type: ignore[override]
        """The generator: both kinds of dropout draw one mask for each sequence."""
        return self.generators

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
        return self.go_backwards and self.return_sequences

    def runs_as(self, execution_mode: Callable[[Recurrence], str]) -> str:
        op = Recurrence(self.traced(), (), self.unroll, self.fused, layer=self.display_name)
        return execution_mode(op)

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
        columns = len(self.gates) * self.units
        self.kernel = self.add_weight(
            "kernel",
            (features, columns),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernel = self.add_weight(
            "recurrent_kernel",
            (self.units, columns),
            self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )
        self.bias: Tensor | None = None
        self.recurrent_bias: Tensor | None = None
        if self.use_bias:
            self.build_bias(columns)
        if self.learn_initial_state:
            self.initial_state = [
                self.add_weight(f"initial_{name}", (size,), "zeros")
                for name, size in zip(self.state_names, self.state_sizes, strict=True)
            ]
        if self.stateful:
            self.carried = CarriedStates(self, self.state_names, self.state_sizes)
        if self.dropout or self.recurrent_dropout:
            self.add_generator()

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

    # ---- one pass

    def call(
        self,
        inputs: Tensor,
        mask: Tensor | None,
        context: CallContext,
        initial_state: InitialState | None = None,
    ) -> Tensor | list[Tensor]:
        """Return the output, with `return_state` the list ``[output, *last states]``.

        `initial_state` is a list of one variable or array for each state, ``(batch, units)`` or
        ``(units,)`` for all sequences; it takes precedence over carried, learned and zero states.
        """
        batch = inputs.shape[0]
        if context.training and self.dropout:
            inputs = pt.cast(inputs, self.dtype)
            kept = (batch, inputs.shape[2])
            rate = numbers_of(self)["dropout"]
            dropped = context.dropout_mask(self.generators[0], kept, rate, self.dtype)
            inputs = inputs * dropped[:, None, :]
        projected = affine(inputs, self.kernel, self.input_bias())
        sequence = projected.transpose(1, 0, 2)  # (time, batch, gates * units)
        time_mask = None if mask is None else mask.transpose(1, 0)
        states = self.start(batch, context, initial_state)
        history, last = self.run(sequence, time_mask, states, context)
        if self in context.initial_states and self in context.final_states:
            raise ValueError(
                f"Layer {self.display_name!r} is called twice in one model, but tbptt and step by "
                "step computation carry one state for each layer. Use two layers."
            )
        context.final_states[self] = last
        if self.carried is not None and self not in context.initial_states:
            self.carried.store(context, last)
        output = history.transpose(1, 0, 2) if self.return_sequences else last[0]
        return [output, *last] if self.return_state else output

    def run(
        self,
        sequence: Tensor,
        mask: Tensor | None,
        states: list[Tensor] | None,
        context: CallContext,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the output's history (time, batch, units) and the last states (batch, units)."""
        dropped = []
        if context.training and self.recurrent_dropout:
            kept = (sequence.shape[1], self.recurrent_kernel.shape[0])
            rate = numbers_of(self)["recurrent_dropout"]
            count = len(self.gates) if self.recurrent_dropout_per_gate else 1
            dropped = [
                context.dropout_mask(self.generators[0], kept, rate, self.dtype)
                for _ in range(count)
            ]
        if self.unroll and sequence.type.shape[0] is None:
            raise ValueError(
                f"Layer {self.display_name!r} has unroll=True, so the number of steps must be "
                "known when the graph is built, and it is not. Pass "
                f"input_shape=(steps, {self.features}) to the model's first layer, call fit or "
                "predict with data of one length, give the symbolic input a static shape, or use "
                "unroll=False."
            )
        histories, last = recurrence(
            self.traced(dropped),
            sequence,
            self.recurrent_kernel,
            self.recurrent_bias,
            states,
            mask,
            unroll=self.unroll,
            fused=self.fused,
            backwards=self.go_backwards,
            layer=self.display_name,
        )
        return histories[0], last

    def traced(self, dropout: Sequence[Tensor] = ()) -> TracedStep:
        """Return the graph of one step, given the masks of the recurrent dropout, if any."""
        name = f"Layer {self.display_name!r} ({type(self).__name__})"
        return trace_step(
            self.step,
            self.gates,
            self.state_names,
            self.units,
            self.dtype,
            name,
            self.state_sizes,
            dropout,
        )

    def start(
        self,
        batch: Tensor,
        context: CallContext,
        given: InitialState | None = None,
    ) -> list[Tensor] | None:
        """Return the states before the first step, each (batch, size); None is zeros."""
        if self in context.initial_states:
            if given is not None:
                raise ValueError(
                    f"Layer {self.display_name!r} is called with initial_state=, but later windows "
                    "of tbptt and later steps start from the states before them: tbptt does not "
                    "support it, and a Stepper or Decoder only if the model itself calls the layer."
                )
            return list(context.initial_states[self])
        if given is not None:
            states = given_states(self, given, self.state_names, self.state_sizes)
        elif self.carried is not None:
            return self.carried.start(context, batch)
        elif self.learn_initial_state:
            states = list(self.initial_state)
        else:
            return None
        # The size as a symbol: a known size of 1 would make the state a broadcastable type.
        units = self.recurrent_kernel.shape[0]
        sizes = [
            units if n == self.units else state.shape[-1]
            for n, state in zip(self.state_sizes, states, strict=True)
        ]
        return [
            cast(Tensor, pt.alloc(state, batch, size))
            for state, size in zip(states, sizes, strict=True)
        ]

    def first_states(self, batch: int) -> list[np.ndarray]:
        """Return the values of the initial states: zeros, or the learned ones."""
        if self.learn_initial_state:
            values = [w.get_value() for w in self.initial_state]
            return [np.broadcast_to(v, (batch, len(v))).copy() for v in values]
        return [np.zeros((batch, size), dtype=self.dtype) for size in self.state_sizes]

    def compute_output_shape(self, input_shape: Shape) -> Any:
        batch, time, _ = input_shape
        output = (batch, time, self.units) if self.return_sequences else (batch, self.units)
        states = [(batch, size) for size in self.state_sizes]
        return [output, *states] if self.return_state else output

    def compute_mask(
        self, inputs: Tensor, mask: Tensor | None
    ) -> Tensor | list[Tensor | None] | None:
        found = None
        if self.return_sequences and mask is not None:
            found = mask[:, ::-1] if self.go_backwards else mask
        return [found, *[None] * len(self.state_names)] if self.return_state else found

"""Loops in which a cell reads what it has computed itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable

from seqnet.common.checks import check_bool, check_count, check_number
from seqnet.common.hyperparameters import Hyperparameter, numbers_of
from seqnet.common.types import Shape, Tensor, TensorLike
from seqnet.layers.calling import describe
from seqnet.layers.cell import (
    CellInLoop,
    Drawn,
    LoopStep,
    check_extras,
    marked,
    open_size,
    trace_with_output,
)
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.layers.recurrent import LOOP_DEFAULTS
from seqnet.layers.rnn import RNN
from seqnet.layers.states import InitialState
from seqnet.layers.user_cell import cell_in_loop
from seqnet.ops.step import each_step
from seqnet.registry import register


class Feedback(CellInLoop):
    """A cell whose next input follows from its output.

    Parameters
    ----------
    cell : CellInLoop
    owner : Layer
        The layer of the loop, with `next_input`, which is a function or a layer.
    returns_inputs : bool
        Whether the next input is the output.
    """

    gates = ("x",)

    def __init__(self, cell: CellInLoop, owner: FedBack, returns_inputs: bool):
        self.cell, self.owner, self.returns_inputs = cell, owner, returns_inputs
        self.dtype, self.dtype_policy = cell.dtype, cell.dtype_policy
        self.features = 0

    @property
    def state_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.cell.state_names

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return self.cell.state_sizes

    @property
    def units(self) -> int:  # type: ignore[override]
        return (*self.state_sizes, self.features)[0]

    @property
    def output_size(self) -> int:
        return self.features if self.returns_inputs else self.cell.output_size

    @property
    def input_size(self) -> int:
        return self.features if self.owner.takes_sequences else 1

    def build_in_loop(self, input_shape: Shape) -> None:
        self.cell.build_in_loop(input_shape)
        self.features = cast(int, input_shape[-1])

    def no_masks(self) -> Drawn:
        return (self.cell.no_masks(), None)

    def draw(
        self,
        features: Tensor | int,
        batch: Tensor,
        context: CallContext,
        steps: Tensor | int | None = None,
    ) -> Drawn:
        return (self.cell.draw(features, batch, context, steps), None)

    def trace(self, drawn: Drawn) -> LoopStep:
        found = trace_with_output(self, drawn, describe(self.owner), {"next_input": self.features})
        check_extras(self.owner, found.step)
        return found

    def within(
        self, x: tuple[Tensor, ...], states: Sequence[Tensor], recur: Callable, drawn: Drawn
    ) -> tuple[Tensor, list[Tensor]]:
        (masks, flags), (*own, fed) = drawn, states
        if not self.owner.takes_sequences:
            inputs = fed
        elif flags is None:
            inputs = x[0]
        else:
            flag = each_step(pt.shape_padright(pt.cast(flags, self.dtype)), gradient=False)
            inputs = cast(Tensor, pt.switch(pt.neq(flag, np.asarray(0, self.dtype)), fed, x[0]))
        output, new = self.cell.advance(inputs, own, marked(masks))
        if not self.owner.takes_sequences or flags is not None:
            fed = self.owner.following(inputs, output, self.features)
        return (fed if self.returns_inputs else output), [*new, fed]

    def advance(
        self, inputs: Tensor, states: Sequence[Tensor], drawn: Drawn
    ) -> tuple[Tensor, list[Tensor]]:
        return self.within((inputs,), states, lambda *arguments: (), drawn)


class FedBack(RNN):
    """The base class of layers whose cell reads its own outputs."""

    takes_sequences = True
    """Whether the input has a value for each step, and not for the first one only."""

    next_input: Callable[[Tensor, Tensor], TensorLike] | Layer | None

    def loop_of(self, cell: Layer) -> CellInLoop:
        found = cell_in_loop(cell, type(self).__name__, stateless=True)
        return Feedback(found, self, getattr(self, "return_inputs", False))

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        if isinstance(self.next_input, Layer):
            if not self.next_input.built:
                self.next_input.name = f"{self.display_name}/next_input"
                sizes = self.needed_features(input_shape), self._loop.cell.output_size  # type: ignore[attr-defined]
                trial = [pt.matrix(dtype=self.dtype, shape=(None, size)) for size in sizes]
                self.next_input(*trial)
            self.enter(self.next_input)

    def following(self, inputs: Tensor, output: Tensor, features: int) -> Tensor:
        """Return the input of the next step, (batch, features), or raise."""
        found: Any = output
        if self.next_input is not None:
            found = self.next_input(inputs, output)
        what = f"The next_input of {describe(self)}"
        try:
            following = pt.as_tensor_variable(found)
        except (TypeError, ValueError, NotImplementedError):
            raise TypeError(
                f"{what} must return a variable (batch, {features}), got {found!r}."
            ) from None
        shape = following.type.shape
        if following.ndim != 2 or shape[1] not in (None, features):
            hint = "" if self.next_input is not None else " Without it, the output is the input."
            raise ValueError(
                f"{what} must return an input of the shape (batch, {features}), got {shape}.{hint}"
            )
        return following


@register("layer")
class ClosedLoop(FedBack):
    """Run a cell on its own outputs for a number of steps, from a first input.

    Input ``(batch, features)``, the first input of the cell; output ``(batch, steps, size)`` with
    `return_sequences`, otherwise the last step's, ``(batch, size)``. At each step the cell computes
    ``output = cell(input)``, and the input of the next step is ``next_input(input, output)``.
    With the equations of a system as `next_input`, the cell learns to control it: the gradient
    flows through the system. By default the next input is the output, as in forecasts.

    Parameters
    ----------
    cell : cell or list
        As `RNN` takes it. A list is a stack, in which layers without states such as `Dense` are
        applied at each step.
    steps : int, optional
        The number of steps. A call may pass another one, also a symbolic integer:
        ``layer(first, steps=target.shape[1])``.
    next_input : function or layer, optional
        ``next_input(input, output)`` of variables (batch, ...) returns the next input (batch,
        features), of PyTensor operations. The weights of a layer are trained, too.
    return_inputs : bool
        Return the next input of each step instead of the output, such as the states of a system.
    **kwargs
        The options of `RNN`, but for those of masks, directions and carried states.

    Raises
    ------
    TypeError, ValueError
        If there is no number of steps, or `next_input` does not return an input.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.layers import ClosedLoop, Dense, LSTMCell
    >>> def cart(state, force):  # position and velocity; a step of 0.1 s
    ...     position, velocity = state[:, :1], state[:, 1:]
    ...     return pt.concatenate([position + 0.1 * velocity, velocity + 0.1 * force], axis=1)
    >>> import pytensor.tensor as pt
    >>> layer = ClosedLoop(
    ...     [LSTMCell(8), Dense(1)], 20, cart, return_inputs=True, return_sequences=True
    ... )
    >>> layer(np.array([[1.0, 0.0]])).shape  # the states of the cart
    (1, 20, 2)
    """

    input_axes = ("batch", "features")
    supports_masking = False
    needs_length = False
    non_causal = "makes all steps from one input"
    takes_sequences = False

    def __init__(
        self,
        cell: Layer | Sequence[Layer],
        steps: int | None = None,
        next_input: Callable[[Tensor, Tensor], TensorLike] | Layer | None = None,
        *,
        return_inputs: bool = False,
        **kwargs: Any,
    ):
        for name in NOT_IN_A_CLOSED_LOOP:
            if name in kwargs and kwargs[name] != LOOP_DEFAULTS[name]:
                raise ValueError(f"A ClosedLoop has no {name}: its input is one step.")
        self.return_inputs = check_bool(return_inputs, "return_inputs")
        self.next_input = next_input
        super().__init__(cell, **kwargs)
        self.steps = None if steps is None else check_count(steps, "steps")

    def masking_hint(self) -> str:
        return "Its input is one step, (batch, features)."

    def call(  # type: ignore[override]
        self,
        inputs: Tensor,
        context: CallContext,
        initial_state: InitialState | None = None,
        steps: int | Tensor | None = None,
    ) -> Tensor | list[Tensor]:
        """Return the output, with `return_state` the list ``[output, *last states]``."""
        number, cell = self.number_of_steps(steps), self.loop_cell
        batch = inputs.shape[0]
        drawn = cell.draw(inputs.shape[1], batch, context, number)
        zero = np.asarray(0, self.dtype)
        states = self.start(batch, context, initial_state)
        if states is None:
            states = [cast(Tensor, pt.alloc(zero, batch, open_size(n))) for n in cell.state_sizes]
        sequence = cast(Tensor, pt.alloc(zero, number, batch, open_size(1)))
        first = pt.cast(inputs, self.dtype)
        if first.type.shape[1] == 1:
            first = cast(Tensor, pt.alloc(first, batch, open_size(1)))
        history, output, last = self.run(sequence, None, [*states, first], drawn)
        context.final_states[self] = last
        if self.return_sequences:
            output = history.transpose(1, 0, 2)
        return [output, *last] if self.return_state else output

    def number_of_steps(self, steps: Any) -> int | Tensor:
        """Return the number of steps of a call, or raise."""
        found = self.steps if steps is None else steps
        if found is None:
            raise ValueError(
                f"{describe(self)} has no number of steps: pass steps= to the layer or to the call."
            )
        if isinstance(found, Variable):
            if found.type.ndim or np.dtype(found.type.dtype).kind not in "iu":
                raise TypeError(f"The steps of {describe(self)} are an integer, got {found.type}.")
            return cast(Tensor, found)
        return check_count(found, f"The steps of {describe(self)}")

    def compute_output_shape(  # type: ignore[override]
        self, input_shape: Shape, steps: int | None = None, steps_shape: Shape | None = None
    ) -> Any:
        number = None if steps_shape is not None else self.number_of_steps(steps)
        cell = self.loop_cell
        batch, size = input_shape[0], cell.output_size
        output = (batch, number, size) if self.return_sequences else (batch, size)
        states = [(batch, n) for n in cell.state_sizes]
        return [output, *states] if self.return_state else output

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        return None


NOT_IN_A_CLOSED_LOOP = (*("go_backwards", "return_in_order", "stateful", "zero_output_for_mask"),)


class Probability(Hyperparameter):
    """A number from 0 to 1, with both."""

    def check(self, value: Any) -> None:
        check_number(value, self.name)
        if not 0 <= value <= 1:
            raise ValueError(f"{self.name} must be from 0 to 1, got {value!r}.")


@register("layer")
class ScheduledSampling(FedBack):
    """Apply a cell along time, in training partly to its own outputs instead of the inputs.

    Input ``(batch, time, features)``, output ``(batch, time, size)`` with `return_sequences`. In
    training the input of a step is, with the probability `rate`, what follows from the output of
    the step before; otherwise it is the one that is given. So a decoder learns to go on from its
    own errors. Outside of training the inputs are those that are given, as with `rate` 0, which is
    teacher forcing. The first step of each sequence always is. Source: Bengio et al., "Scheduled
    sampling for sequence prediction with recurrent neural networks" (2015).

    Parameters
    ----------
    cell : cell or list
        As `ClosedLoop` takes it; it ends with the layers that make a prediction, such as
        ``[LSTMCell(64), Dense(classes, activation="softmax")]``.
    next_input : function or layer, optional
        ``next_input(input, output)`` of variables (batch, ...) returns the input of the next step
        (batch, features), such as the embedding of the class that is predicted. By default it is
        the output. See `ClosedLoop`.
    rate : float
        From 0 to 1. It can be set at any time, for example by a callback that raises it with the
        epochs; a new graph is compiled only if it becomes 0 or was 0.
    **kwargs
        The options of `RNN`, but for `go_backwards`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.layers import Dense, GRUCell, ScheduledSampling
    >>> layer = ScheduledSampling([GRUCell(8), Dense(2)], rate=0.25, return_sequences=True)
    >>> model = seqnet.Model([layer])
    >>> model.compile("adam", "mse")
    >>> x = np.random.default_rng(0).normal(size=(4, 6, 2))
    >>> history = model.fit(x[:, :-1], x[:, 1:], verbose=0)
    >>> layer.rate = 0.5
    """

    rate = Probability()

    def __init__(
        self,
        cell: Layer | Sequence[Layer],
        next_input: Callable[[Tensor, Tensor], TensorLike] | Layer | None = None,
        rate: float = 0.0,
        **kwargs: Any,
    ):
        if kwargs.get("go_backwards"):
            raise ValueError("ScheduledSampling runs forwards: it has no go_backwards.")
        self.next_input = next_input
        super().__init__(cell, **kwargs)
        self.rate = rate

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.generator = self.add_generator()

    def drawn_for(
        self, inputs: Tensor, mask: Tensor | None, resets: Tensor | None, context: CallContext
    ) -> Drawn:
        drawn = super().drawn_for(inputs, mask, resets, context)
        if not (context.training and self.rate):
            return drawn
        sizes = inputs.shape[1], inputs.shape[0]
        chosen = context.uniform(self.generator, sizes, "float64") < numbers_of(self)["rate"]
        if mask is None:
            later = pt.arange(inputs.shape[1])[:, None] > 0
        else:
            computed = pt.cast(mask, "int64")
            later = pt.cumsum(computed, axis=0) > computed
        chosen = chosen & later
        return (drawn[0], chosen if resets is None else chosen & ~resets)

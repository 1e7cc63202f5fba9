"""A layer that applies any cell along time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytensor.compile.sharedvalue import SharedVariable

from seqnet.common.types import Shape
from seqnet.layers.cell import CellInLoop
from seqnet.layers.layer import Layer
from seqnet.layers.recurrent import Loop
from seqnet.layers.stacked_cells import StackedRNNCells
from seqnet.layers.user_cell import cell_in_loop, revived_cell
from seqnet.registry import register


@register("layer")
class RNN(Loop):
    """Apply a cell along time.

    Input ``(batch, time, features)``; output ``(batch, size)``, the last step's, or
    ``(batch, time, size)`` with `return_sequences`. A masked step keeps every state, so its
    output repeats the one before it (zeros before the first). Arguments as in Keras 3.

    Parameters
    ----------
    cell : cell or list of cells
        `LSTMCell`, `GRUCell`, `SimpleRNNCell`, a subclass of `Cell`, or a layer of your own with
        ``call(inputs, states)``, which returns the output and the list of new states, and
        ``state_size``, the size of the state or a list of sizes. A list is a stack, see
        `StackedRNNCells`: its cells run in one loop.
    return_sequences : bool
        Return every step's output and not only the last one's.
    return_state : bool
        Calling the layer on a variable returns the list ``[output, *last states]``, the states in
        the order of `state_names`, each ``(batch, size)``. Not in a stack of layers.
    go_backwards : bool
        Run from the last step to the first; outputs come in that order (as in Keras).
    stateful : bool, "training" or "evaluation"
        Start each batch from the last states of the previous batch, row by row, with no gradient
        between batches. A batch of another size starts from zeros. Training, evaluation and
        prediction carry separate states; see `Model.reset_states`. ``"training"`` carries states
        in training only, ``"evaluation"`` in evaluation and prediction only.
    unroll : bool
        True builds a Python loop over the steps, whose number must then be known; False builds
        a scan, which takes any number of steps.
    zero_output_for_mask : bool
        With `return_sequences`, outputs at masked steps are zeros instead of repeating the one
        before.
    fused : "auto", True or False
        Run the recurrence as one compiled kernel instead of a scan: ``"auto"`` if possible,
        True or an error, False never. `Model.summary` shows the choice.
    learn_initial_state : bool
        Start from weights ``initial_h`` (and so on, one ``(size,)`` for each state), the same for
        every sequence, that are trained; their initial value is `initial_state_value`.
    initial_state_value : float
        The value of all states before the first step.
    return_in_order : bool
        With `go_backwards` and `return_sequences`, return the outputs in the order of the input.
    gradient_steps : int, optional
        Backpropagate through the last `gradient_steps` steps of each row only, in the order in
        which they are computed; by default through all. Masked steps do not count. The outputs of
        earlier steps have no gradient, and their inputs neither.
    **kwargs
        See `Layer`; the dtype is that of the cell.

    Raises
    ------
    TypeError
        If something is no cell.

    Examples
    --------
    >>> import numpy as np, pytensor.tensor as pt, seqnet
    >>> from seqnet.layers import RNN, GRUCell, Layer, LSTMCell
    >>> class MinimalCell(Layer):
    ...     def __init__(self, units, **options):
    ...         super().__init__(**options)
    ...         self.units = self.state_size = units
    ...     def build(self, input_shape):
    ...         shapes = (input_shape[-1], self.units), (self.units, self.units)
    ...         self.kernel = self.add_weight("kernel", shapes[0], "uniform")
    ...         self.recurrent_kernel = self.add_weight("recurrent_kernel", shapes[1], "uniform")
    ...     def call(self, inputs, states):
    ...         (h,) = states
    ...         h = pt.tanh(pt.dot(inputs, self.kernel) + pt.dot(h, self.recurrent_kernel))
    ...         return h, [h]
    >>> model = seqnet.Model([RNN([LSTMCell(4), GRUCell(3), MinimalCell(2)])])
    >>> model.predict(np.zeros((2, 5, 6))).shape
    (2, 2)
    """

    def __init__(self, cell: Layer | Sequence[Layer], **kwargs: Any):
        single: Any = StackedRNNCells(cell) if isinstance(cell, (list, tuple)) else cell
        loop = self.loop_of(single)
        super().__init__(**({"dtype": loop.dtype_policy} | kwargs))
        self.cell: Layer = single
        self._loop = loop
        if self.dtype_policy != loop.dtype_policy:
            raise ValueError(
                f"RNN has the dtype {self.dtype_policy} and its cell {loop.dtype_policy}: give "
                "both the same."
            )
        if "trainable" in kwargs and not self.trainable:
            self.trainable = False

    def loop_of(self, cell: Layer) -> CellInLoop:
        """Return the cell of the loop, or raise."""
        loop = cell_in_loop(cell, "RNN")
        if not loop.state_names:
            raise TypeError("RNN takes a cell that has a state, and none of this stack has one.")
        return loop

    @classmethod
    def _revive(cls, value: Any, custom_objects: dict[str, Any] | None) -> Any:
        return revived_cell(value, custom_objects)

    @property
    def loop_cell(self) -> CellInLoop:
        return self._loop

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of the cell's states."""
        return self._loop.state_names

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The size of each state."""
        return self._loop.state_sizes

    @property
    def units(self) -> int:
        """The size of the output."""
        return self._loop.output_size

    @property
    def sequence_generators(self) -> list[SharedVariable]:  # type: ignore[override]
        """The generators of the cell's dropout masks."""
        return list(self.cell.sequence_generators)

    def build(self, input_shape: Shape) -> None:
        features = self.needed_features(input_shape)
        name = self.cell.display_name.rpartition("/")[2]
        self.cell.name = f"{self.display_name}/{name}"
        self._loop.build_in_loop((input_shape[0], features))
        self.enter(self.cell)
        super().build(input_shape)

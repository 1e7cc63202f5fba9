"""Several cells, one above the other, as one cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from pytensor.compile.sharedvalue import SharedVariable

from seqnet.common.checks import check_bool
from seqnet.common.types import Shape, Tensor
from seqnet.layers.calling import describe
from seqnet.layers.cell import CellInLoop, CellLayer, Drawn, LoopStep, marked, trace_with_output
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.layers.user_cell import cell_in_loop, revived_cell
from seqnet.registry import register


@register("layer")
class StackedRNNCells(CellLayer):
    """A stack of cells as one cell: the output of each is the input of the next.

    ``RNN([first, second])`` makes one of its list. The whole stack runs in one loop over time; the
    states of all cells are those of the stack, from the first cell to the last.

    Parameters
    ----------
    cells : list of cells
        Objects of `Cell`, recurrent layers, or layers of your own that `RNN` takes as cells. Layers
        without states, such as `Dense`, are applied at each step.
    residual : bool
        Each cell after the first adds its input to its output: ``y_k = y_(k-1) + cell_k(y_(k-1))``,
        so all cells need one size of output. The states are those of the cells, without the sum.
        Source: Wu et al., "Google's neural machine translation system" (2016), section 3.1.

    Raises
    ------
    ValueError
        If a cell is there twice, or dtypes differ, or with `residual` sizes of outputs differ.

    Attributes
    ----------
    state_names : tuple of str
        The number of the cell and the name of its state: ``"0_h", "0_c", "1_h"``.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.layers import RNN, GRUCell, LSTMCell, StackedRNNCells
    >>> stack = StackedRNNCells([LSTMCell(4), GRUCell(3)])
    >>> [state.shape for state in stack.get_initial_state(2)]
    [(2, 4), (2, 4), (2, 3)]
    >>> output, states = stack(np.zeros((2, 5)), stack.get_initial_state(2))
    >>> output.shape
    (2, 3)
    """

    def __init__(self, cells: Sequence[Layer], *, residual: bool = False, **kwargs: Any):
        if not isinstance(cells, (list, tuple)) or not cells:
            raise TypeError(f"StackedRNNCells takes a list of cells, got {cells!r}.")
        kwargs.setdefault("dtype", getattr(cells[0], "dtype_policy", None))
        super().__init__(**kwargs)
        self.cells = list(cells)
        if len({id(cell) for cell in cells}) < len(cells):
            raise ValueError(
                "A stack has the same cell twice, so that both would share their weights: make "
                "an object for each."
            )
        self._loops = [cell_in_loop(cell, "StackedRNNCells", stateless=True) for cell in cells]
        self.residual = check_bool(residual, "residual")
        for cell in cells[1:]:
            if cell.dtype_policy != self.dtype_policy:
                raise ValueError(
                    f"The cells of a stack must have one dtype, got {self.dtype_policy} and "
                    f"{cell.dtype_policy}."
                )

    @classmethod
    def _revive(cls, value: Any, custom_objects: dict[str, Any] | None) -> Any:
        return revived_cell(value, custom_objects)

    @property
    def state_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(f"{k}_{n}" for k, cell in enumerate(self._loops) for n in cell.state_names)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return tuple(size for cell in self._loops for size in cell.state_sizes)

    @property
    def units(self) -> int:  # type: ignore[override]
        """The size of the blocks of columns of the first cell's kernels."""
        return self._loops[0].units or self.state_sizes[0]

    @property
    def output_size(self) -> int:
        return self._loops[-1].output_size

    @property
    def sequence_generators(self) -> list[SharedVariable]:  # type: ignore[override]
        return [g for cell in self.cells for g in cell.sequence_generators]

    def build(self, input_shape: Shape) -> None:
        self.needed_features(input_shape)
        shape = input_shape
        for k, (cell, loop) in enumerate(zip(self.cells, self._loops, strict=True)):
            name = cell.display_name.rpartition("/")[2]
            cell.name = f"{self.display_name}/{k}_{name.removeprefix(f'{k}_')}"
            loop.build_in_loop(shape)
            self.enter(cell)
            shape = (input_shape[0], loop.output_size)
        sizes = [loop.output_size for loop in self._loops]
        if self.residual and len(set(sizes)) > 1:
            raise ValueError(
                "A stack with residual=True adds outputs of neighbouring cells, so all must have "
                f"one size, got {', '.join(map(str, sizes))}."
            )

    # ---- one step

    def no_masks(self) -> Drawn:
        return tuple(cell.no_masks() for cell in self._loops)

    def draw(
        self,
        features: Tensor | int,
        batch: Tensor,
        context: CallContext,
        steps: Tensor | int | None = None,
    ) -> Drawn:
        drawn = []
        for cell in self._loops:
            drawn.append(cell.draw(features, batch, context, steps))
            features = cell.output_size
        return tuple(drawn)

    def project(self, inputs: Tensor, drawn: Drawn) -> Tensor:
        return self._loops[0].project(inputs, drawn[0])

    def recurrent_weights(self) -> tuple[Tensor | None, Tensor | None]:
        return self._loops[0].recurrent_weights()

    @property
    def input_size(self) -> int | None:
        return self._loops[0].input_size

    @property
    def gates(self) -> tuple[str, ...]:  # type: ignore[override]
        return self._loops[0].gates

    def parts(self, states: Sequence[Tensor]) -> Iterator[tuple[CellInLoop, list[Tensor]]]:
        """Return each cell with its states."""
        rest = list(states)
        for cell in self._loops:
            count = len(cell.state_names)
            yield cell, rest[:count]
            rest = rest[count:]

    def within(
        self, x: tuple[Tensor, ...], states: Sequence[Tensor], recur: Callable, drawn: Drawn
    ) -> tuple[Tensor, list[Tensor]]:
        (first, own), *others = self.parts(states)
        output, found = first.within(x, own, recur, drawn[0])
        found = list(found)
        for (cell, own), masks in zip(others, drawn[1:], strict=True):
            above, new = cell.advance(output, own, marked(masks))
            output = output + above if self.residual else above
            found += new
        return output, found

    def trace(self, drawn: Drawn) -> LoopStep:
        return trace_with_output(self, drawn, describe(self))

    def advance(
        self, inputs: Tensor, states: Sequence[Tensor], drawn: Drawn
    ) -> tuple[Tensor, list[Tensor]]:
        output, found = None, []
        for (cell, own), masks in zip(self.parts(states), drawn, strict=True):
            below = inputs if output is None else output
            above, new = cell.advance(below, own, masks)
            output = output + above if self.residual and output is not None else above
            found += new
        return cast("Tensor", output), found

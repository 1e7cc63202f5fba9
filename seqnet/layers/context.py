"""What one call of layers decides and collects while a graph is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable

from seqnet.ops.dropout import dropout_mask
from seqnet.types import Tensor

if TYPE_CHECKING:
    from seqnet.layers.layer import Layer


@dataclass
class CallContext:
    """One pass through the layers while a graph is built.

    What a pass decides and collects lives here, so that nothing about it is written onto layers.

    Attributes
    ----------
    training : bool
        Whether dropout and the like are active.
    updates : dict
        New values of shared variables (random generators, carried states) that a compiled function
        must store.
    initial_states : dict
        States to start from, by recurrent layer: lists of symbolic (batch, units).
    final_states : dict
        Filled with the states after the last step, by recurrent layer.
    run : "train", "test" or "predict"
        Whose states stateful layers go on from; by default what `training` says.
    """

    training: bool = False
    updates: dict[SharedVariable, Variable] = field(default_factory=dict)
    initial_states: dict[Layer, list[Tensor]] = field(default_factory=dict)
    final_states: dict[Layer, list[Tensor]] = field(default_factory=dict)
    run: str = ""

    def __post_init__(self) -> None:
        self.run = self.run or ("train" if self.training else "predict")

    def dropout_mask(
        self,
        generator: SharedVariable,
        shape: Sequence[Tensor | int],
        rate: Tensor | float,
        dtype: str,
    ) -> Tensor:
        """Draw a mask from a layer's generator, and note the generator's next value.

        The mask is 0 with probability `rate` and ``1 / (1 - rate)`` elsewhere.
        """
        current = self.updates.get(generator, generator)
        self.updates[generator], mask = dropout_mask(current, shape, rate, dtype)
        return mask

"""The settings and results of one pass through layers while a graph is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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

    A pass keeps its settings and results here and does not change the layers.

    Attributes
    ----------
    training : bool
        Whether layers such as dropout run in training mode.
    updates : dict
        New values of shared variables (random generators, carried states) that a compiled function
        must store.
    initial_states : dict
        States to start from, by recurrent layer: lists of symbolic (batch, units).
    final_states : dict
        Filled with the states after the last step, by recurrent layer.
    run : "train", "test" or "predict"
        Whose carried states stateful layers use; by default according to `training`.
    """

    training: bool = False
    updates: dict[SharedVariable, Variable] = field(default_factory=dict)
    initial_states: dict[Layer, list[Tensor]] = field(default_factory=dict)
    final_states: dict[Layer, list[Tensor]] = field(default_factory=dict)
    run: str = ""

    def __post_init__(self) -> None:
        self.run = self.run or ("train" if self.training else "predict")

    def with_training(self, training: bool) -> CallContext:
        """Return a context of the same pass, in training mode or not."""
        return replace(self, training=training)

    def dropout_mask(
        self,
        generator: SharedVariable,
        shape: Sequence[Tensor | int],
        rate: Tensor | float,
        dtype: str,
    ) -> Tensor:
        """Draw a mask from a layer's generator, and store the generator's next value in `updates`.

        The mask is 0 with probability `rate` and ``1 / (1 - rate)`` elsewhere.
        """
        current = self.updates.get(generator, generator)
        self.updates[generator], mask = dropout_mask(current, shape, rate, dtype)
        return mask

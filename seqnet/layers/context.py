"""The settings and results of one pass through layers while a graph is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.tensor.sharedvar import TensorSharedVariable

from seqnet.common.types import Tensor, TensorLike
from seqnet.ops.dropout import dropout_mask

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
    losses : list
        Scalars that are added to the loss of the batch; see `add_loss`.
    rows : bool variable (batch,), optional
        Which rows of the inputs hold data, where a layer turns steps into rows, as
        `TimeDistributed` does; None is all.
    examples : integer variable, optional
        The number of examples in the batch, where it is not the number of rows.
    share : (integer variable, integer variable, integer variable), optional
        The number of the first row within the whole batch, the rows of the inputs, and those of the
        whole batch, where the inputs are some rows of a batch. Random numbers that are drawn for
        each row are then those of these rows within the whole batch.
    run : "train", "test" or "predict"
        Whose carried states stateful layers use; by default according to `training`.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> from seqnet.layers import CallContext, Dropout
    >>> context = CallContext(training=True)
    >>> y = Dropout(0.5)(pt.fmatrix("x"), context=context)
    >>> len(context.updates)  # the next state of the random generator
    1
    """

    training: bool = False
    updates: dict[SharedVariable, Variable] = field(default_factory=dict)
    initial_states: dict[Layer, list[Tensor]] = field(default_factory=dict)
    final_states: dict[Layer, list[Tensor]] = field(default_factory=dict)
    losses: list[Tensor] = field(default_factory=list)
    rows: Tensor | None = None
    examples: Tensor | None = None
    share: tuple[Tensor, Tensor, Tensor] | None = None
    run: str = ""

    def __post_init__(self) -> None:
        self.run = self.run or ("train" if self.training else "predict")

    def with_training(self, training: bool) -> CallContext:
        """Return a context of the same pass, in training mode or not."""
        return replace(self, training=training)

    def add_loss(self, value: TensorLike) -> None:
        """Add a number to the loss of the batch, such as a penalty on what a layer computes.

        Like the loss it is a mean over the examples of the batch, so that its weight does not
        depend on their number. The loss of an epoch has its mean over all examples. Steps that are
        masked must not change it.

        Raises
        ------
        ValueError
            If the value is not one number.

        Examples
        --------
        >>> import pytensor.tensor as pt, seqnet
        >>> class Small(seqnet.layers.Layer):
        ...     def call(self, inputs, context):
        ...         context.add_loss(0.1 * pt.sqr(inputs).sum(axis=1).mean())
        ...         return inputs
        >>> model = seqnet.Model([Small()])
        >>> model.compile("sgd", "mse")
        >>> round(model.evaluate([[2.0]], [[2.0]], verbose=0), 6)
        0.4
        """
        value = pt.as_tensor_variable(value)
        if value.ndim:
            raise ValueError(
                f"add_loss takes one number, the mean over the examples of a batch; it got "
                f"{value.ndim} axes."
            )
        self.losses.append(value)

    def assign(self, weight: TensorSharedVariable, value: TensorLike) -> None:
        """Store the next value of a weight that is not trained; it is cast to the weight's dtype.

        The weight changes when the compiled function has run.

        Raises
        ------
        ValueError
            If the value has another number of axes.
        """
        value = pt.as_tensor_variable(value)
        if value.ndim != weight.ndim:
            raise ValueError(
                f"The next value of the weight {weight.name} must have its {weight.ndim} axes, "
                f"got {value.ndim}."
            )
        self.updates[weight] = pt.cast(value, weight.dtype)

    def present(self, mask: Tensor | None) -> Tensor | None:
        """Return where there is data: `mask`, and the rows that hold data; None is everywhere."""
        if self.rows is None or mask is None:
            return self.rows if mask is None else mask
        return mask & self.rows[(slice(None), *(None,) * (mask.ndim - 1))]

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
        return self.draw(generator, shape, partial(dropout_mask, rate=rate, dtype=dtype))

    def uniform(
        self, generator: SharedVariable, shape: Sequence[Tensor | int], dtype: str
    ) -> Tensor:
        """Draw values from 0 to 1 from a layer's generator, and store its next value."""

        def values(rng: Variable, size: Sequence[Tensor | int]) -> tuple[Variable, Tensor]:
            return pt.random.uniform(0.0, 1.0, size=tuple(size), rng=rng, return_next_rng=True)

        return pt.cast(self.draw(generator, shape, values), dtype)

    def normal(
        self, generator: SharedVariable, shape: Sequence[Tensor | int], dtype: str
    ) -> Tensor:
        """Draw standard normal values from a layer's generator, and store its next value."""

        def values(rng: Variable, size: Sequence[Tensor | int]) -> tuple[Variable, Tensor]:
            return pt.random.normal(0.0, 1.0, size=tuple(size), rng=rng, return_next_rng=True)

        return pt.cast(self.draw(generator, shape, values), dtype)

    def draw(
        self, generator: SharedVariable, shape: Sequence[Tensor | int], values: Callable
    ) -> Tensor:
        """Draw values from a layer's generator, and store its next value.

        A first axis of symbolic size has the rows of the batch, perhaps several for each: of a part
        of a batch, the values of the whole batch are drawn, and those of the part are taken. So
        they belong to the row, and not to the part. A first axis of fixed size is for all rows.

        Parameters
        ----------
        generator : shared random generator
        shape : sequence of symbolic or plain sizes
        values : function of (rng, shape)
            Returns the next generator and the values.
        """
        current = self.updates.get(generator, generator)
        if self.share is None or not (shape and isinstance(shape[0], Variable)):
            self.updates[generator], found = values(current, shape)
            return found
        start, rows, total = self.share
        each = shape[0] // rows
        self.updates[generator], found = values(current, (total * each, *shape[1:]))
        return found[start * each : start * each + shape[0]]

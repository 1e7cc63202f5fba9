"""Embeddings: rows of a table, looked up by integer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet import constraints, initializers, regularizers
from seqnet.common.checks import WrongValueError, check_bool, check_count, first_place
from seqnet.common.types import Array, Shape, Tensor
from seqnet.layers.calling import masks_together
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.ops.lookup import Gather
from seqnet.registry import Identifier, register


@register("layer")
class Embedding(Layer):
    """Turn integers into vectors: ``output[b, t] = embeddings[inputs[b, t]]``.

    Input ``(batch, time)`` of integers in ``[0, input_dim)`` (any rank works), output
    ``(batch, time, output_dim)``.

    Parameters
    ----------
    input_dim : int
        Size of the vocabulary.
    output_dim : int
        Length of each vector.
    mask_zero : bool
        Take 0 as padding: later layers get the mask ``inputs != 0``. Then 0 has no other
        meaning, and `input_dim` includes it. Sentences of words (batch, sentences, words) get a
        mask of that shape, which `TimeDistributed` passes to the layer that reads the words.
    embeddings_initializer, embeddings_regularizer, embeddings_constraint
        Names or objects of `seqnet.initializers`, `seqnet.regularizers` and `seqnet.constraints`.

    Raises
    ------
    TypeError
        If the inputs are not integers.
    ValueError
        If a number is outside ``[0, input_dim)``, negative ones included.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.Embedding(5, 3, mask_zero=True)])
    >>> model.predict(np.array([[1, 2, 0]]), verbose=0).shape
    (1, 3, 3)
    """

    takes_several_inputs = False
    integer_input = True

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        *,
        mask_zero: bool = False,
        embeddings_initializer: Identifier = "uniform",
        embeddings_regularizer: Identifier | None = None,
        embeddings_constraint: Identifier | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.input_dim = check_count(input_dim, "The input_dim of Embedding")
        self.output_dim = check_count(output_dim, "The output_dim of Embedding")
        self.mask_zero = check_bool(mask_zero, "mask_zero")
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(embeddings_regularizer)
        self.embeddings_constraint = constraints.get(embeddings_constraint)

    def build(self, input_shape: Shape) -> None:
        self.embeddings = self.add_weight(
            "embeddings",
            (self.input_dim, self.output_dim),
            self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
        )

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        if np.dtype(inputs.type.dtype).kind not in "iu":
            raise TypeError(
                f"Layer {self.display_name!r} (Embedding) looks numbers up, so its input must be "
                f"integers, not {inputs.type.dtype}."
            )
        what = f"The inputs of layer {self.display_name!r} (Embedding)"
        return Gather(what)(self.embeddings, inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.output_dim)

    def compute_mask(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor | None:
        if not self.mask_zero:
            return mask
        return masks_together(mask, pt.neq(inputs, 0))

    def known_mask(self, values: Array) -> Array | None:
        return values != 0 if self.mask_zero else None

    def check_input(self, values: Array, name: str) -> None:
        if values.dtype.kind not in "iu":
            raise TypeError(
                f"{name} must be integers for the Embedding layer {self.display_name!r}, got the "
                f"dtype {values.dtype}. Convert with {name}.astype('int32')."
            )
        if values.size and (values.min() < 0 or values.max() >= self.input_dim):
            wrong = (values < 0) | (values >= self.input_dim)
            where = first_place(wrong)
            raise WrongValueError(
                f"{name} holds {values[where]} at {{where}}, but the Embedding layer "
                f"{self.display_name!r} knows 0 to {self.input_dim - 1} "
                f"(input_dim={self.input_dim}).",
                where,
            )

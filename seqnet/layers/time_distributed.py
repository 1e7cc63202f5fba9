"""A layer applied to every step of a sequence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytensor.tensor as pt

from seqnet import activations
from seqnet.common.types import Array, Shape, Tensor
from seqnet.layers.calling import masks_together, with_ndim
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.layers.wrapper import Wrapper
from seqnet.losses.logits import softmax_logits
from seqnet.registry import register


@register("layer")
class TimeDistributed(Wrapper):
    """Apply a layer to every step of a sequence separately.

    Input ``(batch, time, ...)``; the wrapped layer sees ``(batch * time, ...)``. `Dense`,
    `Softmax`, `Activation` and `Dropout` do this without a wrapper.

    Parameters
    ----------
    layer : Layer

    Notes
    -----
    A mask ``(batch, time)`` is passed to the next layer and not to the wrapped one. With more axes,
    such as ``(batch, sentences, words)`` from ``Embedding(mask_zero=True)``, the wrapped layer gets
    the mask of each step, ``(batch * sentences, words)``. The mask of the output is then:

    - if the wrapped layer returns a mask for the words, the mask ``(batch, sentences, words)``;
    - otherwise, for example with an `LSTM` that returns one vector for each sentence, the mask
      ``(batch, sentences)``, True for a sentence with any unmasked word.

    ``TimeDistributed(Embedding(..., mask_zero=True))`` also returns the mask of the words. Keras 3
    passes the mask of the input to the next layer unchanged, with all its axes, and does not use
    the wrapped layer's `compute_mask`.

    Examples
    --------
    >>> import seqnet
    >>> layer = seqnet.layers.TimeDistributed(seqnet.layers.Dense(8))
    """

    takes_several_inputs = False
    passes_time_on = False

    def __init__(self, layer: Layer, **kwargs: Any):
        super().__init__(layer, **kwargs)
        if self.layer.has_multiple_outputs:
            raise ValueError(
                f"TimeDistributed applies a layer of one output; {self.layer.display_name!r} "
                "returns several (return_state=True)."
            )

    def check_axes(self, input_shape: Shape) -> None:
        if len(input_shape) < 3:
            raise ValueError(
                f"Layer {self.display_name!r} (TimeDistributed) takes (batch, time, ...), got the "
                f"shape {input_shape}."
            )

    @property
    def integer_input(self) -> bool:  # type: ignore[override]
        """Whether the wrapped layer takes integers."""
        return self.layer.integer_input

    def check_input(self, values: Array, name: str) -> None:
        self.layer.check_input(values, name)

    def build(self, input_shape: Shape) -> None:
        self.build_inner(self.layer, "", (None, *input_shape[2:]))

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        sizes = tuple(inputs.shape)
        steps = inputs.reshape((-1, *sizes[2:]), ndim=inputs.ndim - 1)
        context = self.inner_context(inputs, mask, context)
        output = cast(Tensor, self.layer(steps, mask=self.inner_mask(mask), context=context))
        whole = (sizes[0], sizes[1], *tuple(output.shape)[1:])
        logits = softmax_logits(output)
        if logits is not None:  # the softmax is applied last, so that losses find the logits
            return activations.softmax(logits.reshape(whole, ndim=output.ndim + 1))
        return output.reshape(whole, ndim=output.ndim + 1)

    @staticmethod
    def inner_context(inputs: Tensor, mask: Tensor | None, context: CallContext) -> CallContext:
        """Return the context of the wrapped layer, whose rows are the steps of the inputs."""
        examples = inputs.shape[0] if context.examples is None else context.examples
        present = context.present(mask)
        if present is not None:
            while present.ndim > 2:
                present = present.any(axis=-1)
            present = pt.broadcast_to(with_ndim(present, 2), tuple(inputs.shape)[:2]).flatten()
        return replace(context, rows=present, examples=examples)

    @staticmethod
    def inner_mask(mask: Tensor | None) -> Tensor | None:
        """Return the mask inside the steps, (batch * time, ...), or None."""
        if mask is None or mask.ndim < 3:
            return None
        return mask.reshape((-1, *tuple(mask.shape)[2:]), ndim=mask.ndim - 1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        inner = self.layer.compute_output_shape((None, *input_shape[2:]))
        return (*input_shape[:2], *inner[1:])

    def compute_mask(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor | None:
        sizes = tuple(inputs.shape)
        steps = inputs.reshape((-1, *sizes[2:]), ndim=inputs.ndim - 1)
        inner = self.layer.compute_mask(steps, self.inner_mask(mask))
        outer = mask
        if outer is not None and outer.ndim > 2:
            outer = outer.any(axis=tuple(range(2, outer.ndim)))
        if inner is not None:
            inner = inner.reshape((*sizes[:2], *tuple(inner.shape)[1:]), ndim=inner.ndim + 1)
        return masks_together(outer, inner)

    def known_mask(self, values: Array) -> Array | None:
        return self.layer.known_mask(values)

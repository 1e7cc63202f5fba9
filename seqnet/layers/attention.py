"""Attention: weighted means of the steps of one sequence, one for each step of another.

The weights are a softmax of scores. A step that is masked gets the weight zero, and where all
steps are masked all weights are zero, so that padding changes neither values nor gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, cast

import numpy as np
import pytensor.tensor as pt

from seqnet import activations, constraints, initializers, regularizers
from seqnet.activations import constant
from seqnet.common.checks import check_bool, check_count
from seqnet.common.hyperparameters import Rate, numbers_of
from seqnet.common.types import Shape, Tensor
from seqnet.layers.calling import describe, items_of, with_ndim
from seqnet.layers.context import CallContext
from seqnet.layers.dense import affine
from seqnet.layers.layer import Layer
from seqnet.layers.seeded import Seeded
from seqnet.ops.additive import AdditiveScores
from seqnet.registry import Identifier, register


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return the softmax over the last axis of the scores where a mask is True, zeros elsewhere.

    All is zero where the mask has no True, and so is the gradient.

    Parameters
    ----------
    scores : variable (..., steps)
    mask : bool variable that broadcasts with the scores, or None
    """
    if mask is None:
        return activations.softmax(scores)
    lowest = constant(np.finfo(scores.dtype).min / 2, scores)
    weights = activations.softmax(pt.switch(mask, scores, lowest))
    return pt.switch(mask, weights, constant(0.0, scores))


def batched_product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b`` over the last two axes, for each index of the others."""
    return cast(Tensor, pt.matmul(a, b))  # type: ignore[arg-type]


def causal_mask(queries: Tensor, values: Tensor) -> Tensor:
    """Return (1, queries, values), True where the step of the value is not after the query's."""
    return (pt.arange(queries.shape[1])[:, None] >= pt.arange(values.shape[1])[None, :])[None]


def attended_steps(step_masks: Sequence[Tensor | None], *masks: Tensor | None) -> Tensor | None:
    """Return where queries attend, (batch, queries, steps) or 1 for a size, or None.

    `step_masks` are (batch, steps), and hold for all queries; `masks` are masks of queries and
    steps.
    """
    found = [m[:, None, :] for m in step_masks if m is not None]
    found += [m for m in masks if m is not None]
    return reduce(lambda a, b: a & b, found) if found else None


def as_batch(variable: Tensor) -> Tensor:
    """Return (batch, ..., steps, features) with one axis before the steps."""
    if variable.ndim == 3:
        return variable
    return variable.reshape((-1, *tuple(variable.shape)[-2:]), ndim=3)


def as_batch_mask(mask: Tensor | None, variable: Tensor) -> Tensor | None:
    """Return the mask (batch, steps) of `as_batch`, from one of the first axes of a variable."""
    if mask is None or variable.ndim == 3:
        return mask
    sizes = tuple(variable.shape)[:-1]
    every = pt.broadcast_to(with_ndim(mask, variable.ndim - 1), sizes)
    return every.reshape((-1, sizes[-1]), ndim=2)


def why_not_queries(layer: Layer, attended: Sequence[Any], options: Mapping[str, Any]) -> str:
    """Return why an attention cannot be computed query by query; empty if it can.

    Parameters
    ----------
    layer : Layer
    attended : list of bool
        Whether the value and the key are given one step at a time.
    options : dict
        The options of the call.
    """
    if any(attended):
        return layer.non_causal
    if options.get("use_causal_mask"):
        return "gives each query other steps, by use_causal_mask"
    if options.get("attention_mask") is False:  # a variable that is given as a whole
        return "gives each query other steps, by an attention_mask"
    return ""


def set_to_zero(outputs: Tensor, mask: Tensor | None) -> Tensor:
    """Return outputs (batch, time, features) with zeros at masked steps."""
    if mask is None:
        return outputs
    return pt.switch(mask[:, :, None], outputs, constant(0.0, outputs))


@register("layer")
class Attention(Seeded):
    """Dot-product attention: weighted means of values, from how queries and keys fit.

    Called on ``[query, value]`` or ``[query, value, key]``, of the shapes ``(batch, queries,
    features)``, ``(batch, steps, width)`` and ``(batch, steps, features)``; without a key, the
    value is the key. More axes may stand between the batch and the steps, such as ``(batch,
    sentences, words, features)``: each sentence of queries then attends to the words of its own
    sentence. The output is ``(batch, queries, width)``::

        scores = scale * query @ key.T                           # (batch, queries, steps)
        output = softmax(scores) @ value

    With ``score_mode="concat"`` the scores are ``w * sum(tanh(scale * (query + key)))`` over the
    features. A masked step of the value or the key has the weight zero, and a masked query the
    output zero. The output has the mask of the query. Source: Luong, Pham and Manning, "Effective
    approaches to attention-based neural machine translation" (2015); arguments as in Keras 3.

    Parameters
    ----------
    use_scale : bool
        Whether `scale` is a trained weight; otherwise it is 1.
    score_mode : "dot" or "concat"
    dropout : float
        Share of the weights that training sets to zero, in ``[0, 1)``.
    seed : int, optional
        As for `Dropout`.

    Notes
    -----
    A call takes two options: ``use_causal_mask=True`` gives a query only the steps of the value up
    to its own, and ``return_attention_scores=True`` returns the list [output, weights], the
    weights as ``(batch, queries, steps)``.

    Weights: `scale` (), if used, and `concat_score_weight` () in the mode "concat".

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> query, value = np.array([[[1.0, 0.0]]]), np.array([[[9.0, 0.0], [0.0, 9.0]]])
    >>> seqnet.layers.Attention()([query, value]).round(2).tolist()
    [[[9.0, 0.0]]]
    """

    takes_several_inputs = True
    non_causal = "attends to all steps"
    dropout = Rate()

    def __init__(
        self,
        use_scale: bool = False,
        score_mode: str = "dot",
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.use_scale = check_bool(use_scale, "use_scale")
        if score_mode not in ("dot", "concat"):
            raise ValueError(f"score_mode is 'dot' or 'concat', got {score_mode!r}.")
        self.score_mode = score_mode
        self.dropout = dropout

    def check_axes(self, input_shape: Any) -> None:
        shapes = items_of(input_shape)
        text = ", ".join(str(shape) for shape in shapes)
        ranks = {len(shape) for shape in shapes}
        if len(shapes) not in (2, 3) or len(ranks) != 1 or min(ranks) < 3:
            raise ValueError(
                f"{describe(self)} takes [query, value] or [query, value, key], each (batch, time, "
                f"features), got the shapes {text}."
            )
        query, value, key = [*shapes, shapes[1]][:3]
        outer = [
            (
                query,
                other,
                axis,
                f"axis {axis} of the inputs" if axis else "the batches of the inputs",
            )
            for axis in range(len(query) - 2)
            for other in (value, key)
        ]
        for a, b, axis, what in (
            (query, key, -1, "the features of the query and the key"),
            (value, key, -2, "the steps of the value and the key"),
            *outer,
        ):
            if None not in (a[axis], b[axis]) and a[axis] != b[axis]:
                raise ValueError(
                    f"{describe(self)} needs as many of {what}, got {a[axis]} and {b[axis]} in "
                    f"the shapes {text}."
                )

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight("scale", (), "ones") if self.use_scale else None
        self.concat_score_weight = None
        if self.score_mode == "concat":
            self.concat_score_weight = self.add_weight("concat_score_weight", (), "ones")
        self.generator = self.add_generator()

    def why_not_stepwise(self, varies: Any, options: Mapping[str, Any]) -> str:
        _, *whole = items_of(varies)
        return why_not_queries(self, whole, options)

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Return how each query fits each key, (batch, queries, steps)."""
        if self.score_mode == "dot":
            found = batched_product(query, key.transpose(0, 2, 1))
            return found if self.scale is None else found * self.scale
        sums = query[:, :, None, :] + key[:, None, :, :]
        sums = sums if self.scale is None else sums * self.scale
        return self.concat_score_weight * pt.tanh(sums).sum(axis=-1)

    def call(
        self,
        inputs: Any,
        mask: Any,
        context: CallContext,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
    ) -> Tensor | list[Tensor]:
        whole = [pt.cast(v, self.dtype) for v in items_of(inputs)]
        masks = [None, None] if mask is None else items_of(mask)
        outer = tuple(whole[0].shape)[:-2]
        query, value, *keys = (as_batch(v) for v in whole)
        masks = [as_batch_mask(m, v) for m, v in zip(masks, whole, strict=False)]
        causal = causal_mask(query, value) if use_causal_mask else None
        attended = attended_steps(masks[1:], causal)
        weights = masked_softmax(self.scores(query, keys[0] if keys else value), attended)
        kept = weights
        if context.training and self.dropout:
            rate = numbers_of(self)["dropout"]
            sizes = tuple(weights.shape)
            kept = weights * context.dropout_mask(self.generator, sizes, rate, weights.dtype)
        output = set_to_zero(batched_product(kept, value), masks[0])
        if len(outer) > 1:
            output, weights = (
                v.reshape((*outer, *tuple(v.shape)[1:]), ndim=len(outer) + 2)
                for v in (output, weights)
            )
        return [output, weights] if return_attention_scores else output

    def compute_output_shape(
        self, input_shape: Any, return_attention_scores: bool = False
    ) -> Shape | list[Shape]:
        query, value, *_ = items_of(input_shape)
        output = (*query[:-1], value[-1])
        return [output, (*query[:-1], value[-2])] if return_attention_scores else output


@register("layer")
class AdditiveAttention(Attention):
    """Additive attention: the scores are ``sum(scale * tanh(query + key))`` over the features.

    Called as `Attention`, with masks and options as there. Source: Bahdanau, Cho and Bengio,
    "Neural machine translation by jointly learning to align and translate" (2015), without the two
    matrices, for which `Dense` layers before it serve; arguments as in Keras 3.

    Parameters
    ----------
    use_scale : bool
        Whether `scale` is a trained weight; otherwise it is 1.
    dropout : float
        Share of the weights that training sets to zero, in ``[0, 1)``.
    seed : int, optional
        As for `Dropout`.

    Notes
    -----
    Weights: `scale` (features,), if used.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> query, value = np.array([[[1.0]]]), np.array([[[9.0], [-9.0]]])
    >>> layer = seqnet.layers.AdditiveAttention(use_scale=False)
    >>> layer([query, value]).tolist()                 # softmax([1, -1]) @ [9, -9]
    [[[6.85...]]]
    """

    def __init__(self, use_scale: bool = True, dropout: float = 0.0, **kwargs: Any):
        super().__init__(use_scale, dropout=dropout, **kwargs)

    @classmethod
    def parameters(cls) -> list[str]:
        return [name for name in super().parameters() if name != "score_mode"]  # it has one

    def build(self, input_shape: Any) -> None:
        self.scale = None
        if self.use_scale:
            features = items_of(input_shape)[0][-1]
            if features is None:
                raise ValueError(
                    f"{describe(self)} needs to know the number of features to make its weights."
                )
            self.scale = self.add_weight("scale", (features,), "glorot_uniform")
        self.generator = self.add_generator()

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        ones = pt.ones(query.shape[2], dtype=query.dtype)
        scale = ones if self.scale is None else self.scale
        return cast(Tensor, AdditiveScores()(query, key, scale))


@register("layer")
class MultiHeadAttention(Seeded):
    """Several dot-product attentions side by side, of projections of the same sequences.

    Called as ``layer(query, value, key=None)``, of the shapes ``(batch, queries, features)``,
    ``(batch, steps, ...)`` and ``(batch, steps, ...)``; without a key, the value is the key, and
    ``layer(x, x)`` is self-attention. The output is ``(batch, queries, features)``. For each head::

        weights = softmax((query @ W_q + b_q) @ (key @ W_k + b_k).T / sqrt(key_dim))
        heads   = weights @ (value @ W_v + b_v)
        output  = concatenate(heads) @ W_o + b_o

    A masked step of the value or the key has the weight zero. The output has the mask of the
    query. Source: Vaswani et al., "Attention is all you need" (2017); arguments, weights and their
    order as in Keras 3.

    Parameters
    ----------
    num_heads : int
        Number of heads.
    key_dim : int
        Size of each head's queries and keys.
    value_dim : int, optional
        Size of each head's values, by default `key_dim`.
    dropout : float
        Share of the weights that training sets to zero, in ``[0, 1)``.
    use_bias : bool
    output_shape : int or tuple of int, optional
        Size of the last axis of the output, by default that of the query; a tuple makes several
        axes of it.
    attention_axes : int or tuple of int, optional
        The axis of the steps; only 1, the time axis, is supported.
    kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer
        Names or objects of `seqnet.initializers` and `seqnet.regularizers`.
    kernel_constraint, bias_constraint
        Names or objects of `seqnet.constraints`.
    seed : int, optional
        As for `Dropout`.

    Notes
    -----
    A call takes these options: ``query_mask``, ``value_mask`` and ``key_mask``, bool ``(batch,
    steps)``; ``attention_mask``, bool ``(batch, queries, steps)``, True where a query may attend to
    a step; ``use_causal_mask=True``, which gives a query only the steps of the value up to its
    own; ``return_attention_scores=True``, which returns the list [output, weights], the weights as
    ``(batch, heads, queries, steps)``.

    Weights: `query_kernel`, `key_kernel` (features, heads, key_dim), `value_kernel` (features,
    heads, value_dim), each followed by its bias (heads, size), and `output_kernel` (heads,
    value_dim, output), `output_bias` (output,).

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.MultiHeadAttention(num_heads=2, key_dim=4)
    >>> query, value = np.zeros((3, 5, 8), "float32"), np.zeros((3, 7, 6), "float32")
    >>> layer(query, value).shape
    (3, 5, 8)
    """

    input_axes = ("batch", "time", "features")
    non_causal = "attends to all steps"
    dropout = Rate()

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_shape: int | Sequence[int] | None = None,
        attention_axes: int | Sequence[int] | None = None,
        *,
        kernel_initializer: Identifier = "glorot_uniform",
        bias_initializer: Identifier = "zeros",
        kernel_regularizer: Identifier | None = None,
        bias_regularizer: Identifier | None = None,
        kernel_constraint: Identifier | None = None,
        bias_constraint: Identifier | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_heads = check_count(num_heads, "num_heads")
        self.key_dim = check_count(key_dim, "key_dim")
        self.value_dim = self.key_dim if value_dim is None else check_count(value_dim, "value_dim")
        self.dropout = dropout
        self.use_bias = check_bool(use_bias, "use_bias")
        sizes = output_shape if isinstance(output_shape, (list, tuple)) else (output_shape,)
        self.output_shape = (
            None
            if output_shape is None
            else tuple(check_count(size, "A size in output_shape") for size in sizes)
        )
        axes = attention_axes if isinstance(attention_axes, (list, tuple)) else (attention_axes,)
        if attention_axes is not None and tuple(axes) not in ((1,), (-2,)):
            raise ValueError(
                "attention_axes is 1, the time axis of (batch, time, features): attention along "
                f"others is not supported, got {attention_axes!r}."
            )
        self.attention_axes = attention_axes
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def build(  # type: ignore[override]
        self,
        query_shape: Shape,
        value_shape: Shape,
        key_shape: Shape | None = None,
    ) -> None:
        key_shape = value_shape if key_shape is None else key_shape
        heads = self.num_heads
        self.projections = {}
        for name, shape, size in (
            ("query", query_shape, self.key_dim),
            ("key", key_shape, self.key_dim),
            ("value", value_shape, self.value_dim),
        ):
            if len(shape) != 3 or shape[-1] is None:
                raise ValueError(
                    f"{describe(self)} takes a {name} (batch, time, features) of a known number of "
                    f"features, got the shape {shape}."
                )
            self.projections[name] = self.add_projection(name, (shape[-1],), (heads, size))
        if None not in (key_shape[1], value_shape[1]) and key_shape[1] != value_shape[1]:
            raise ValueError(
                f"{describe(self)} needs as many steps of the value as of the key, got the shapes "
                f"{value_shape} and {key_shape}."
            )
        self.needed_features(query_shape)
        self.projections["output"] = self.add_projection(
            "output", (heads, self.value_dim), self.output_sizes(query_shape)
        )
        self.generator = self.add_generator()

    def add_projection(
        self, name: str, inputs: tuple[int, ...], outputs: tuple[int, ...]
    ) -> tuple[Tensor, Tensor | None]:
        """Make the kernel ``(*inputs, *outputs)`` and the bias ``(*outputs,)`` of an affine map."""
        kernel = self.add_weight(
            f"{name}_kernel",
            (*inputs, *outputs),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        bias = None
        if self.use_bias:
            bias = self.add_weight(
                f"{name}_bias",
                outputs,
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        return kernel, bias

    def project(self, name: str, inputs: Tensor, sizes: tuple[int, ...]) -> Tensor:
        """Return the affine map of a name, its output axis as several of given sizes."""
        kernel, bias = self.projections[name]
        columns = int(np.prod(sizes))
        matrix = kernel.reshape((-1, columns))
        vector = None if bias is None else bias.reshape((columns,))
        flat = affine(inputs, matrix, vector, self.compute_dtype)
        return flat.reshape((*tuple(flat.shape)[:2], *sizes))

    def call(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        use_causal_mask: bool = False,
        *,
        context: CallContext,
    ) -> Tensor | list[Tensor]:
        value = pt.as_tensor_variable(value)
        key = value if key is None else pt.as_tensor_variable(key)
        heads = self.num_heads
        # (batch, heads, steps, size)
        q = self.project("query", query, (heads, self.key_dim)).transpose(0, 2, 1, 3)
        k = self.project("key", key, (heads, self.key_dim)).transpose(0, 2, 3, 1)
        v = self.project("value", value, (heads, self.value_dim)).transpose(0, 2, 1, 3)
        scores = batched_product(q * constant(self.key_dim**-0.5, q), k)
        if attention_mask is not None and (attention_mask.ndim, attention_mask.dtype) != (
            3,
            "bool",
        ):
            raise ValueError(
                f"The attention_mask of layer {self.display_name!r} is bool (batch, queries, "
                f"steps), got {attention_mask.type}."
            )
        causal = causal_mask(query, value) if use_causal_mask else None
        attended = attended_steps([value_mask, key_mask], causal, attention_mask)
        weights = masked_softmax(scores, None if attended is None else attended[:, None])
        kept = weights
        if context.training and self.dropout:
            rate = numbers_of(self)["dropout"]
            sizes = tuple(weights.shape)
            kept = weights * context.dropout_mask(self.generator, sizes, rate, weights.dtype)
        joined = batched_product(kept, v).transpose(0, 2, 1, 3)
        flat = joined.reshape((*tuple(joined.shape)[:2], heads * self.value_dim))
        output = self.project("output", flat, self.output_sizes(query.type.shape))
        return [output, weights] if return_attention_scores else output

    def why_not_stepwise(self, varies: Any, options: Mapping[str, Any]) -> str:
        return why_not_queries(self, [options.get("value"), options.get("key")], options)

    def output_sizes(self, query_shape: Shape) -> tuple:
        """Return the sizes of the output's axes after the batch and time."""
        return self.output_shape or (query_shape[-1] or self.features,)

    def compute_output_shape(
        self,
        query_shape: Shape,
        value_shape: Shape | None = None,
        return_attention_scores: bool = False,
    ) -> Shape | list[Shape]:
        output = (*query_shape[:-1], *self.output_sizes(query_shape))
        if not return_attention_scores:
            return output
        steps = None if value_shape is None else value_shape[1]
        return [output, (query_shape[0], self.num_heads, query_shape[1], steps)]

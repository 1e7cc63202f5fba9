"""A softmax over a very large number of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet import constraints, initializers, regularizers
from seqnet.common.checks import check_bool, check_count
from seqnet.common.types import Shape, Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.ops.sampled_softmax import SampledOutput, class_scores
from seqnet.registry import Identifier, register

SAMPLERS = ("log_uniform", "uniform")


@register("layer")
class SampledSoftmax(Layer):
    """A dense softmax whose cross-entropy is trained on a sample of the classes.

    Input ``(batch, ..., features)``, output ``(batch, ..., units)``: ``softmax(x W^T + b)``, as of
    a `Dense` layer with a softmax. Evaluation and prediction are exact. In training
    ``sparse_categorical_crossentropy`` estimates the sum over all classes from `num_sampled` of
    them, which are drawn anew for each batch, with replacement [1]_ [2]_ ::

        l = -z_y + log(exp(z_y) + sum_s exp(z_s) / (num_sampled q_s))

    over the sampled classes s other than the target y, with scores z and the probability q of
    drawing a class. The estimated sum has no bias. The gradient of its logarithm has one, which
    goes to zero with one over `num_sampled`. The cost of an update depends on `num_sampled` and
    much less on `units`, if no metric needs all probabilities. Other losses are computed from all
    classes.

    Parameters
    ----------
    units : int
        The number of classes.
    num_sampled : int
        How many classes to draw for each batch. From `units` on, training is exact, too.
    sampler : "log_uniform" or "uniform"
        ``q_k = log((k + 2) / (k + 1)) / log(units + 1)``, for classes in the order of their
        frequency, the most frequent first; or the same q for all.
    use_bias : bool
    kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer
        Names or objects of `seqnet.initializers` and `seqnet.regularizers`.
    kernel_constraint, bias_constraint
        Names or objects of `seqnet.constraints`.

    References
    ----------
    .. [1] Bengio and Senécal, "Adaptive importance sampling to accelerate training of a neural
       probabilistic language model", IEEE Transactions on Neural Networks 19, 2008.
    .. [2] Jean et al., "On using very large target vocabulary for neural machine translation", ACL
       2015.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.layers import LSTM, Embedding, SampledSoftmax
    >>> layers = [Embedding(5000, 8), LSTM(8), SampledSoftmax(5000, num_sampled=20)]
    >>> model = seqnet.Model(layers)
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> X, y = np.array([[1, 2], [3, 4]]), np.array([3, 5])
    >>> history = model.fit(X, y, verbose=0)
    >>> model.predict(X).shape
    (2, 5000)
    """

    takes_several_inputs = False

    def __init__(
        self,
        units: int,
        num_sampled: int,
        sampler: str = "log_uniform",
        *,
        use_bias: bool = True,
        kernel_initializer: Identifier = "glorot_uniform",
        bias_initializer: Identifier = "zeros",
        kernel_regularizer: Identifier | None = None,
        bias_regularizer: Identifier | None = None,
        kernel_constraint: Identifier | None = None,
        bias_constraint: Identifier | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = check_count(units, "The units of SampledSoftmax")
        self.num_sampled = check_count(num_sampled, "The num_sampled of SampledSoftmax")
        if sampler not in SAMPLERS:
            known = " or ".join(map(repr, SAMPLERS))
            raise ValueError(f"The sampler of SampledSoftmax is {known}, got {sampler!r}.")
        self.sampler = sampler
        self.use_bias = check_bool(use_bias, "use_bias")
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def check_axes(self, input_shape: Shape) -> None:
        if len(input_shape) < 2:
            raise ValueError(
                f"Layer {self.display_name!r} ({type(self).__name__}) takes (batch, ..., "
                f"features), got the shape {input_shape}."
            )

    def build(self, input_shape: Shape) -> None:
        features = self.needed_features(input_shape)
        self.kernel = self.add_weight(
            "kernel",
            (self.units, features),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                "bias",
                (self.units,),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.generator = self.add_generator()

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        if inputs.dtype != self.dtype:
            inputs = pt.cast(inputs, self.dtype)
        bias = pt.zeros(self.units, self.dtype) if self.bias is None else self.bias
        if not context.training or self.num_sampled >= self.units:
            return pt.special.softmax(class_scores(inputs, self.kernel, bias), axis=-1)
        u = context.uniform(self.generator, (self.num_sampled,), "float64")
        if self.sampler == "uniform":
            drawn = pt.floor(u * self.units)
            q: Tensor = pt.full_like(u, 1 / self.units)
        else:
            drawn = pt.floor(pt.exp(u * np.log(self.units + 1))) - 1
            drawn = pt.minimum(drawn, self.units - 1)  # exp may round up
            q = pt.log1p(1 / (drawn + 1)) / np.log(self.units + 1)
        log_expected = pt.cast(pt.log(self.num_sampled * q), self.dtype)
        sampled = pt.cast(drawn, "int64")
        return SampledOutput()(inputs, self.kernel, bias, sampled, log_expected)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

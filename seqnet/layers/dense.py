"""A matrix product, a bias and an activation."""

from __future__ import annotations

from typing import Any

import pytensor.tensor as pt

from seqnet import activations, constraints, initializers, regularizers
from seqnet.common.checks import check_bool, check_count
from seqnet.common.types import Shape, Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.ops.affine import Affine
from seqnet.ops.lookup_affine import LookupAffine, match_small_lookup
from seqnet.registry import Identifier, register


@register("layer")
class Dense(Layer):
    """``output = activation(inputs @ kernel + bias)`` over the last axis.

    Input ``(batch, ..., features)``, output ``(batch, ..., units)``: all steps of a
    sequence share the weights.

    Parameters
    ----------
    units : int
        Size of the output's last axis.
    activation : str or callable, optional
        None is linear.
    use_bias : bool
    kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer
        Names or objects of `seqnet.initializers` and `seqnet.regularizers`.
    kernel_constraint, bias_constraint
        Names or objects of `seqnet.constraints`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.Dense(2, activation="softmax")])
    >>> model.predict(np.zeros((1, 4), "float32"), verbose=0).tolist()
    [[0.5, 0.5]]
    """

    takes_several_inputs = False

    def __init__(
        self,
        units: int,
        activation: Identifier | None = None,
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
        self.units = check_count(units, "The units of Dense")
        self.activation = activations.get(activation)
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
            (features, self.units),
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

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        product = affine(inputs, self.kernel, self.bias, self.compute_dtype)
        return activations.apply(self.activation, product)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)


def affine(
    inputs: Tensor, kernel: Tensor, bias: Tensor | None = None, compute_dtype: str = ""
) -> Tensor:
    """Return ``inputs @ kernel + bias`` over the last axis as one matrix product.

    ``(batch, ..., features)`` times ``(features, units)`` is ``(batch, ..., units)``; integer
    inputs are cast to the kernel's float type. With the `compute_dtype` ``"bfloat16"`` the operands
    are rounded, see `Layer.compute_dtype`.
    """
    bfloat16 = compute_dtype == "bfloat16"
    if bfloat16 and inputs.dtype == "float64":
        raise ValueError(
            "A layer with the policy 'mixed_bfloat16' has an input of float64, which would lose "
            "most of its digits: give the layers before it, or the input, the dtype float32, or "
            "this layer dtype='float64'."
        )
    if inputs.dtype != kernel.dtype:
        inputs = pt.cast(inputs, kernel.dtype)
    weights = [kernel] if bias is None else [kernel, bias]
    found = match_small_lookup(inputs)
    if found is not None:
        return LookupAffine(bfloat16)(*found, *weights)
    return Affine(bfloat16)(inputs, *weights)

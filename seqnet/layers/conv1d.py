"""Convolution along time."""

from __future__ import annotations

from typing import Any

import pytensor.tensor as pt

from seqnet import activations, constraints, initializers, regularizers
from seqnet.common.checks import check_bool, check_count
from seqnet.common.types import Shape, Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.dense import affine
from seqnet.layers.windows import PADDINGS, Windowed, check_one, cut
from seqnet.registry import Identifier, register


@register("layer")
class Conv1D(Windowed):
    """Apply the same affine map to each window of steps, and an activation.

    Input ``(batch, time, features)``, output ``(batch, steps, filters)``::

        y[t] = activation(sum_k x[t strides + k dilation_rate] @ kernel[k] + bias)

    for k from 0 to kernel_size - 1 (a cross-correlation, as in Keras 3 and PyTorch).

    Parameters
    ----------
    filters : int
        Number of features of the output.
    kernel_size : int
        Number of steps in a window.
    strides : int
        Steps from one window to the next.
    padding : "valid", "same" or "causal"
        ``"valid"`` has the windows that lie in the sequence, ``(time - span) // strides + 1`` with
        ``span = (kernel_size - 1) * dilation_rate + 1``. The other two add zeros and give
        ``ceil(time / strides)`` steps: ``"same"`` on both sides, ``"causal"`` in front, so that no
        output depends on later inputs.
    dilation_rate : int
        Steps from one step of a window to the next; above 1 only without strides.
    groups : int
        Features and filters are divided into this number of groups, each with a separate kernel.
    activation : str or callable, optional
        None is linear.
    use_bias : bool
    kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer
        Names or objects of `seqnet.initializers` and `seqnet.regularizers`. The kernel has the
        shape (kernel_size, features / groups, filters).
    kernel_constraint, bias_constraint
        Names or objects of `seqnet.constraints`.

    Notes
    -----
    Masked steps count as zeros, like those that ``"same"`` and ``"causal"`` add, so that they never
    reach the others. The output has a mask: with ``"valid"``, a step is unmasked if all steps of
    its window are; otherwise, if the input's step at its place is. A sequence therefore has the
    same outputs in any amount of padding at its end, and without strides also in front of it. With
    ``"same"`` and strides, the places of windows can depend on the length of a sequence; a mask is
    an error then.

    The windows are joined along their features and multiplied by the kernel in one matrix product.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.Conv1D(1, 2, padding="causal", kernel_initializer="ones")
    >>> layer(np.array([[[1.0], [2.0], [3.0]]])).tolist()
    [[[1.0], [3.0], [5.0]]]
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        padding: str = "valid",
        dilation_rate: int = 1,
        groups: int = 1,
        activation: Identifier | None = None,
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
        self.filters = check_count(filters, "The filters of Conv1D")
        self.size = self.kernel_size = check_one(kernel_size, "kernel_size")
        self.strides = check_one(strides, "strides")
        self.padding = self.check_padding(padding, PADDINGS)
        self.dilation = self.dilation_rate = check_one(dilation_rate, "dilation_rate")
        self.groups = check_count(groups, "groups")
        if self.strides > 1 and self.dilation > 1:
            raise ValueError(
                f"Conv1D has either strides or a dilation_rate above 1, got {strides} and "
                f"{dilation_rate}."
            )
        if self.filters % self.groups:
            raise ValueError(
                f"The groups of Conv1D must divide its filters, got {groups} and {filters}."
            )
        self.activation = activations.get(activation)
        self.use_bias = check_bool(use_bias, "use_bias")
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def build(self, input_shape: Shape) -> None:
        features = self.needed_features(input_shape)
        if features % self.groups:
            raise ValueError(
                f"Layer {self.display_name!r} (Conv1D) has {self.groups} groups, which do not "
                f"divide the {features} features of its input."
            )
        self.kernel = self.add_weight(
            "kernel",
            (self.kernel_size, features // self.groups, self.filters),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                "bias",
                (self.filters,),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def output_size(self, features: int | None) -> int | None:
        return self.filters

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        self.check_mask(mask)
        x = inputs if inputs.dtype.startswith("float") else pt.cast(inputs, self.dtype)
        taps = self.taps(self.padded(cut(x, mask, 0), mask, 0))
        features, filters = (n // self.groups for n in (self.features or 0, self.filters))
        outputs = []
        for group in range(self.groups):
            own, kernel, bias = taps, self.kernel, self.bias
            if self.groups > 1:
                columns = slice(group * filters, (group + 1) * filters)
                own = [tap[..., group * features : (group + 1) * features] for tap in taps]
                kernel = kernel[..., columns]
                bias = None if bias is None else bias[columns]
            joined = own[0] if len(own) == 1 else pt.concatenate(own, axis=-1)
            matrix = kernel.reshape((self.kernel_size * features, filters))
            outputs.append(affine(joined, matrix, bias, self.compute_dtype))
        output = outputs[0] if self.groups == 1 else pt.concatenate(outputs, axis=-1)
        return activations.apply(self.activation, output)

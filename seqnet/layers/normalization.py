"""The base of layers that normalise, then scale and shift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.tensor.sharedvar import TensorSharedVariable

from seqnet import constraints, initializers, regularizers
from seqnet.common.checks import check_bool, check_number
from seqnet.common.types import Shape, Tensor
from seqnet.layers.calling import own_axis
from seqnet.layers.layer import Layer
from seqnet.registry import Identifier


class Normalization(Layer):
    """The base of layers that return ``gamma (x - mean) / sqrt(variance + epsilon) + beta``.

    Parameters
    ----------
    epsilon : float
    center, scale : bool
        Whether there is a beta, and a gamma.
    beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer
        Names or objects of `seqnet.initializers` and `seqnet.regularizers`.
    beta_constraint, gamma_constraint
        Names or objects of `seqnet.constraints`.
    """

    takes_several_inputs = False

    def __init__(
        self,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Identifier = "zeros",
        gamma_initializer: Identifier = "ones",
        beta_regularizer: Identifier | None = None,
        gamma_regularizer: Identifier | None = None,
        beta_constraint: Identifier | None = None,
        gamma_constraint: Identifier | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.epsilon = check_number(epsilon, "epsilon")
        if not 0 <= self.epsilon < np.inf:
            raise ValueError(f"epsilon must be at least 0 and finite, got {epsilon!r}.")
        self.center = check_bool(center, "center")
        self.scale = check_bool(scale, "scale")
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)

    def parameter_axes(self, ndim: int) -> list[int]:
        """Return the axes, from 0, along which gamma and beta have a value each."""
        return [ndim - 1]

    def own_axes(self, axis: int | Sequence[int], ndim: int) -> list[int]:
        """Return axes of an input, from 0 and in order."""
        axes = [axis] if isinstance(axis, int) else axis
        return sorted({own_axis(self, one, ndim) for one in axes})

    def check_axes(self, input_shape: Shape) -> None:
        super().check_axes(input_shape)
        self.parameter_axes(len(input_shape))

    def parameter_shape(self, input_shape: Shape) -> tuple[int, ...]:
        """Return the shape of gamma and beta, or raise if it is unknown."""
        axes = self.parameter_axes(len(input_shape))
        sizes = []
        for axis in axes:
            size = input_shape[axis]
            if axis == len(input_shape) - 1:
                size = self.needed_features(input_shape)
            if size is None:
                raise ValueError(
                    f"Layer {self.display_name!r} ({type(self).__name__}) has weights along the "
                    f"axis {axis} of its input, whose size is unknown: the shape is {input_shape}."
                )
            sizes.append(size)
        return tuple(sizes)

    def build(self, input_shape: Shape) -> None:
        shape = self.parameter_shape(input_shape)
        self.gamma = self.beta = None
        if self.scale:
            self.gamma = self.add_weight(
                "gamma",
                shape,
                self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
            )
        if self.center:
            self.beta = self.add_weight(
                "beta",
                shape,
                self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
            )

    def along(self, weight: TensorSharedVariable | Tensor, ndim: int) -> Tensor:
        """Return a weight along the axes of the inputs that it belongs to."""
        axes = self.parameter_axes(ndim)
        return weight.dimshuffle([axes.index(k) if k in axes else "x" for k in range(ndim)])

    def normalized(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Return ``(x - mean) / sqrt(variance + epsilon)``."""
        return (x - mean) / pt.sqrt(variance + np.asarray(self.epsilon, dtype=x.dtype))

    def scaled(self, x: Tensor) -> Tensor:
        """Return ``gamma x + beta``."""
        if self.gamma is not None:
            x = x * self.along(self.gamma, x.ndim)
        return x if self.beta is None else x + self.along(self.beta, x.ndim)

    def floats(self, inputs: Tensor) -> Tensor:
        """Return inputs as floats."""
        return inputs if inputs.dtype.startswith("float") else pt.cast(inputs, self.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

"""Activations with arguments as layers: ReLU and its relatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytensor.tensor as pt

from seqnet import activations, initializers, regularizers
from seqnet.common.checks import check_axis, check_number
from seqnet.common.types import Shape, Tensor
from seqnet.layers.calling import own_axis
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.registry import Identifier, register


class Elementwise(Layer):
    """The base of layers whose output has the shape of the input."""

    takes_several_inputs = False

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


def check_least(value: object, name: str, least: float = 0.0) -> float:
    """Return a finite number of at least `least`, or raise."""
    number = check_number(value, name)
    if not least <= number < np.inf:
        raise ValueError(f"{name} must be finite and at least {least:g}, got {value!r}.")
    return number


@register("layer")
class ReLU(Elementwise):
    """``max(x, 0)``, or with arguments a piecewise linear function.

    The output is ``max_value`` from there on, x above ``threshold``, and
    ``negative_slope * (x - threshold)`` elsewhere (Keras 3).

    Parameters
    ----------
    max_value : float, optional
        None is no limit.
    negative_slope, threshold : float

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.ReLU(max_value=2.0, negative_slope=0.5)
    >>> layer(np.array([[-1.0, 1.0, 3.0]])).tolist()
    [[-0.5, 1.0, 2.0]]
    """

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.max_value = None if max_value is None else check_least(max_value, "max_value")
        self.negative_slope = check_least(negative_slope, "negative_slope")
        self.threshold = check_least(threshold, "threshold")

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        return activations.relu(inputs, self.negative_slope, self.max_value, self.threshold)


@register("layer")
class LeakyReLU(Elementwise):
    """x where it is positive, ``negative_slope * x`` elsewhere (Maas et al., 2013).

    Parameters
    ----------
    negative_slope : float

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.LeakyReLU(0.5)(np.array([[-1.0, 1.0]])).tolist()
    [[-0.5, 1.0]]
    """

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any):
        super().__init__(**kwargs)
        self.negative_slope = check_least(negative_slope, "negative_slope")

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        return activations.leaky_relu(inputs, self.negative_slope)


@register("layer")
class ELU(Elementwise):
    """x where it is positive, ``alpha * (exp(x) - 1)`` elsewhere (Clevert et al., 2016).

    Parameters
    ----------
    alpha : float

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.ELU()(np.array([[0.0, 1.0]])).tolist()
    [[0.0, 1.0]]
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.alpha = check_number(alpha, "alpha")

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        return activations.elu(inputs, self.alpha)


@register("layer")
class PReLU(Elementwise):
    """x where it is positive, ``alpha * x`` elsewhere, with a trained alpha (He et al., 2015).

    Parameters
    ----------
    alpha_initializer, alpha_regularizer
        Names or objects of `seqnet.initializers` and `seqnet.regularizers`.
    shared_axes : int or sequence of int, optional
        Axes along which alpha is the same. Each other axis but the batch must have a known size,
        so sequences of any length need ``shared_axes=1``.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.PReLU(alpha_initializer="ones", shared_axes=1)
    >>> layer(np.array([[[-1.0], [2.0]]])).tolist()
    [[[-1.0], [2.0]]]
    """

    def __init__(
        self,
        alpha_initializer: Identifier = "zeros",
        alpha_regularizer: Identifier | None = None,
        shared_axes: int | Sequence[int] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.alpha_regularizer = regularizers.get(alpha_regularizer)
        axes = [shared_axes] if isinstance(shared_axes, int) else shared_axes
        self.shared_axes = (
            None if axes is None else [check_axis(axis, "An axis of shared_axes") for axis in axes]
        )

    def build(self, input_shape: Shape) -> None:
        shared = [own_axis(self, axis, len(input_shape)) for axis in self.shared_axes or ()]
        sizes = [1 if axis in shared else n for axis, n in enumerate(input_shape)][1:]
        if None in sizes:
            raise ValueError(
                f"Layer {self.display_name!r} (PReLU) has an alpha for each element of its input, "
                f"whose shape {input_shape} has unknown sizes. Pass these axes as shared_axes=, "
                "such as shared_axes=1 for sequences of any length."
            )
        self.same = [axis - 1 for axis in shared]
        self.alpha = self.add_weight(
            "alpha",
            cast("tuple[int, ...]", tuple(sizes)),
            self.alpha_initializer,
            regularizer=self.alpha_regularizer,
        )

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        alpha = pt.specify_broadcastable(self.alpha, *self.same) if self.same else self.alpha
        return pt.switch(activations.above(inputs), inputs, alpha * inputs)

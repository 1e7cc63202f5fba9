"""Adagrad."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet.common.checks import check_number
from seqnet.common.hyperparameters import Hyperparameter
from seqnet.common.types import Array, Tensor
from seqnet.optimizers.optimizer import Optimizer
from seqnet.registry import register


@register("optimizer", "adagrad")
class Adagrad(Optimizer):
    """``s' = s + g^2;  w' = w - r g / sqrt(s' + epsilon)`` (Duchi, Hazan and Singer, 2011).

    The constant is inside the root, as in theano_lstm, Lasagne and Keras 3; Keras 1 and PyTorch
    add it outside. The accumulator starts at zero, as in the paper; Keras 3 starts at 0.1.

    Parameters
    ----------
    learning_rate : float or function of the step
        r; see `Optimizer`.
    initial_accumulator_value : float
        s before the first step
    epsilon : float
    **kwargs
        Weight decay, clipping and averages of the weights, see `Optimizer`.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.optimizers.Adagrad().learning_rate
    0.01
    """

    slots = ("accumulator",)
    epsilon = Hyperparameter()

    def __init__(
        self,
        learning_rate: float | Callable = 0.01,
        initial_accumulator_value: float = 0.0,
        epsilon: float = 1e-6,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        value = check_number(initial_accumulator_value, "initial_accumulator_value")
        if not 0 <= value < np.inf:
            raise ValueError(
                f"initial_accumulator_value must be finite and not negative, got {value!r}."
            )
        self.initial_accumulator_value = value
        self.epsilon = epsilon

    def initial_slot(self, slot: str, weight: Array) -> Array:
        return np.full_like(weight, self.initial_accumulator_value)

    def supports_sparse_rows(self) -> bool:
        return True

    def change(
        self, gradient: Tensor, h: SimpleNamespace, accumulator: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        accumulator = accumulator + pt.sqr(gradient)
        change = -h.learning_rate * gradient / pt.sqrt(accumulator + h.epsilon)
        return change, {"accumulator": accumulator}

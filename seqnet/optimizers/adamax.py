"""Adamax."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytensor.tensor as pt

from seqnet.common.hyperparameters import Hyperparameter
from seqnet.common.types import Tensor
from seqnet.optimizers.optimizer import Optimizer
from seqnet.registry import register


@register("optimizer", "adamax")
class Adamax(Optimizer):
    """Adam with the maximum norm: Kingma and Ba (2015), section 7.1::

        m' = b1 m + (1 - b1) g
        u' = max(b2 u, |g|)
        w' = w - r / (1 - b1^t) m' / (u' + epsilon)

    with t the number of this step, from 1. The paper has no constant; this one and the defaults
    are Keras 3's.

    Parameters
    ----------
    learning_rate : float or function of the step
        r; see `Optimizer`.
    beta_1, beta_2, epsilon : float
        b1, b2 and the constant
    **kwargs
        Weight decay, clipping and averages of the weights, see `Optimizer`.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.optimizers.Adamax(2e-3).beta_1
    0.9
    """

    slots = ("momentum", "norm")
    beta_1 = Hyperparameter(below=1.0)
    beta_2 = Hyperparameter(below=1.0)
    epsilon = Hyperparameter()

    def __init__(
        self,
        learning_rate: float | Callable = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def change(
        self, gradient: Tensor, h: SimpleNamespace, momentum: Tensor, norm: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        m = h.beta_1 * momentum + (1 - h.beta_1) * gradient
        u = pt.maximum(h.beta_2 * norm, pt.abs(gradient))
        rate = h.learning_rate / (1 - h.beta_1**h.step)
        return -rate * m / (u + h.epsilon), {"momentum": m, "norm": u}

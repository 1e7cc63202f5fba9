"""Nadam."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet.common.hyperparameters import Hyperparameter
from seqnet.common.types import Tensor
from seqnet.optimizers.optimizer import Optimizer
from seqnet.registry import register

DECAY = 0.96
FACTORS = np.cumprod(1 - 0.5 * DECAY ** np.arange(1.0, 1001.0))
"""The product of ``1 - 0.5 * 0.96^i`` for i from 1 to t, by t - 1; later factors round to 1."""


@register("optimizer", "nadam")
class Nadam(Optimizer):
    """Adam with Nesterov momentum: Dozat, "Incorporating Nesterov momentum into Adam" (2016)::

        u_t = b1 (1 - 0.96^t / 2),    U_t = u_1 u_2 ... u_t
        m' = b1 m + (1 - b1) g
        v' = b2 v + (1 - b2) g^2
        n = u_(t+1) m' / (1 - U_(t+1)) + (1 - u_t) g / (1 - U_t)
        w' = w - r n / (sqrt(v' / (1 - b2^t)) + epsilon)

    with t the number of this step, from 1. Defaults are Keras 3's.

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
    >>> seqnet.optimizers.Nadam(2e-3).beta_2
    0.999
    """

    slots = ("momentum", "velocity")
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
        self, gradient: Tensor, h: SimpleNamespace, momentum: Tensor, velocity: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        dtype, t = gradient.dtype, h.step
        half, decay = np.asarray(0.5, dtype), np.asarray(DECAY, dtype)
        u, following = [h.beta_1 * (1 - half * decay**n) for n in (t, t + 1)]
        place = pt.minimum(pt.cast(t, "int64"), len(FACTORS)) - 1
        product = h.beta_1**t * pt.as_tensor_variable(FACTORS.astype(dtype))[place]
        m = h.beta_1 * momentum + (1 - h.beta_1) * gradient
        v = h.beta_2 * velocity + (1 - h.beta_2) * pt.sqr(gradient)
        nesterov = following / (1 - product * following) * m + (1 - u) / (1 - product) * gradient
        root = pt.sqrt(v / (1 - h.beta_2**t)) + h.epsilon
        return -h.learning_rate * nesterov / root, {"momentum": m, "velocity": v}

"""Adam."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytensor.tensor as pt

from seqnet.common.checks import check_bool
from seqnet.common.hyperparameters import Hyperparameter
from seqnet.common.types import Tensor
from seqnet.optimizers.optimizer import Optimizer
from seqnet.registry import register


@register("optimizer", "adam")
class Adam(Optimizer):
    """Kingma and Ba (2015), in the form at the end of their section 2::

        m' = b1 m + (1 - b1) g
        v' = b2 v + (1 - b2) g^2
        w' = w - r sqrt(1 - b2^t) / (1 - b1^t) m' / (sqrt(v') + epsilon)

    with t the number of this step, from 1. With `amsgrad` the largest v' so far takes the place of
    v' in the last line (Reddi, Kale and Kumar, "On the convergence of Adam and beyond", 2018).
    Defaults are Keras 3's.

    Parameters
    ----------
    learning_rate : float or function of the step
        r; see `Optimizer`.
    beta_1, beta_2, epsilon : float
        b1, b2 and the constant
    amsgrad : bool
    **kwargs
        Weight decay, clipping and averages of the weights, see `Optimizer`.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.optimizers.Adam(3e-3).beta_2
    0.999
    """

    slots = ("momentum", "velocity", "velocity_hat")
    beta_1 = Hyperparameter(below=1.0)
    beta_2 = Hyperparameter(below=1.0)
    epsilon = Hyperparameter()

    def __init__(
        self,
        learning_rate: float | Callable = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.amsgrad = check_bool(amsgrad, "amsgrad")

    def used_slots(self) -> tuple[str, ...]:
        return self.slots if self.amsgrad else self.slots[:2]

    def structure(self) -> tuple:
        return (*super().structure(), self.amsgrad)

    def change(
        self,
        gradient: Tensor,
        h: SimpleNamespace,
        momentum: Tensor,
        velocity: Tensor,
        velocity_hat: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        m = h.beta_1 * momentum + (1 - h.beta_1) * gradient
        v = h.beta_2 * velocity + (1 - h.beta_2) * pt.sqr(gradient)
        correction = pt.sqrt(1 - h.beta_2**h.step) / (1 - h.beta_1**h.step)
        new = {"momentum": m, "velocity": v}
        if velocity_hat is not None:
            v = new["velocity_hat"] = pt.maximum(velocity_hat, v)
        return -h.learning_rate * correction * m / (pt.sqrt(v) + h.epsilon), new

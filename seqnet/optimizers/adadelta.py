"""Adadelta."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytensor.tensor as pt

from seqnet.common.hyperparameters import Hyperparameter
from seqnet.common.types import Tensor
from seqnet.optimizers.optimizer import Optimizer
from seqnet.registry import register


@register("optimizer", "adadelta")
class Adadelta(Optimizer):
    """Zeiler's method, "ADADELTA: an adaptive learning rate method" (2012), algorithm 1::

        s' = rho s + (1 - rho) g^2
        d  = -sqrt(x + epsilon) / sqrt(s' + epsilon) g
        x' = rho x + (1 - rho) d^2
        w' = w + r d

    The paper has no learning rate, so r is 1 by default. Keras 3's default of 0.001 makes much
    smaller steps.

    Parameters
    ----------
    learning_rate : float or function of the step
        r; see `Optimizer`.
    rho, epsilon : float
    **kwargs
        Weight decay, clipping and averages of the weights, see `Optimizer`.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.optimizers.Adadelta(clipnorm=5.0).rho
    0.95
    """

    slots = ("mean_square_gradient", "mean_square_change")
    rho = Hyperparameter(below=1.0, decays=True)
    epsilon = Hyperparameter()

    def __init__(
        self,
        learning_rate: float | Callable = 1.0,
        rho: float = 0.95,
        epsilon: float = 1e-6,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.rho = rho
        self.epsilon = epsilon

    def supports_sparse_rows(self) -> bool:
        return True

    def idle(
        self,
        h: SimpleNamespace,
        steps: Tensor,
        mean_square_gradient: Tensor,
        mean_square_change: Tensor,
    ) -> dict[str, Tensor]:
        decay = h.rho**steps
        return {
            "mean_square_gradient": decay * mean_square_gradient,
            "mean_square_change": decay * mean_square_change,
        }

    def change(
        self,
        gradient: Tensor,
        h: SimpleNamespace,
        mean_square_gradient: Tensor,
        mean_square_change: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        s = h.rho * mean_square_gradient + (1 - h.rho) * pt.sqr(gradient)
        change = -gradient * pt.sqrt(mean_square_change + h.epsilon) / pt.sqrt(s + h.epsilon)
        x = h.rho * mean_square_change + (1 - h.rho) * pt.sqr(change)
        new = {"mean_square_gradient": s, "mean_square_change": x}
        return h.learning_rate * change, new

"""RMSprop."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytensor.tensor as pt

from seqnet.hyperparameters import Hyperparameter
from seqnet.optimizers.optimizer import Optimizer
from seqnet.registry import register
from seqnet.types import Tensor


@register("optimizer", "rmsprop")
class RMSprop(Optimizer):
    """``s' = rho s + (1 - rho) g^2;  w' = w - r g / sqrt(s' + epsilon)`` (Tieleman, Hinton, 2012).

    Defaults and the place of the constant are Keras 3's.

    Parameters
    ----------
    learning_rate : float
        r
    rho, epsilon : float
    **kwargs
        Clipping, see `Optimizer`.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.optimizers.RMSprop(0.002, rho=0.95).rho
    0.95
    """

    slots = ("mean_square_gradient",)
    rho = Hyperparameter(below=1.0, decays=True)
    epsilon = Hyperparameter()

    def __init__(
        self,
        learning_rate: float = 0.001,
        rho: float = 0.9,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.rho = rho
        self.epsilon = epsilon

    def supports_sparse_rows(self) -> bool:
        return True

    def idle(
        self, h: SimpleNamespace, steps: Tensor, mean_square_gradient: Tensor
    ) -> dict[str, Tensor]:
        return {"mean_square_gradient": h.rho**steps * mean_square_gradient}

    def change(
        self, gradient: Tensor, h: SimpleNamespace, mean_square_gradient: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        s = h.rho * mean_square_gradient + (1 - h.rho) * pt.sqr(gradient)
        return -h.learning_rate * gradient / pt.sqrt(s + h.epsilon), {"mean_square_gradient": s}

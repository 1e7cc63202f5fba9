"""RMSprop."""

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


@register("optimizer", "rmsprop")
class RMSprop(Optimizer):
    """``s' = rho s + (1 - rho) g^2;  w' = w - r g / sqrt(s' + epsilon)`` (Tieleman, Hinton, 2012).

    If `centered`, the root is of ``s' - a'^2 + epsilon`` with ``a' = rho a + (1 - rho) g`` (Graves,
    "Generating sequences with recurrent neural networks", 2013). With `momentum` m, the steps d are
    summed: ``p' = m p + d`` is subtracted. Defaults and the place of the constant are Keras 3's.

    Parameters
    ----------
    learning_rate : float or function of the step
        r; see `Optimizer`.
    rho, momentum, epsilon : float
    centered : bool
    **kwargs
        Weight decay, clipping and averages of the weights, see `Optimizer`.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.optimizers.RMSprop(0.002, rho=0.95).rho
    0.95
    """

    slots = ("mean_square_gradient", "momentum", "mean_gradient")
    rho = Hyperparameter(below=1.0, decays=True)
    momentum = Hyperparameter(below=1.0)
    epsilon = Hyperparameter()

    def __init__(
        self,
        learning_rate: float | Callable = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon
        self.centered = check_bool(centered, "centered")

    def used_slots(self) -> tuple[str, ...]:
        used = (True, self.momentum > 0, self.centered)
        return tuple([slot for slot, on in zip(self.slots, used, strict=True) if on])

    def structure(self) -> tuple:
        return (*super().structure(), self.momentum > 0, self.centered)

    def supports_sparse_rows(self) -> bool:
        return not self.momentum

    def idle(self, h: SimpleNamespace, steps: Tensor, **means: Tensor) -> dict[str, Tensor]:
        decay = h.rho**steps
        return {
            slot: value if slot == "momentum" else decay * value for slot, value in means.items()
        }

    def change(
        self,
        gradient: Tensor,
        h: SimpleNamespace,
        mean_square_gradient: Tensor,
        momentum: Tensor | None = None,
        mean_gradient: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        s = h.rho * mean_square_gradient + (1 - h.rho) * pt.sqr(gradient)
        new = {"mean_square_gradient": s}
        if mean_gradient is not None:
            a = new["mean_gradient"] = h.rho * mean_gradient + (1 - h.rho) * gradient
            s = s - pt.sqr(a)
        step = h.learning_rate * gradient / pt.sqrt(s + h.epsilon)
        if momentum is not None:
            step = new["momentum"] = h.momentum * momentum + step
        return -step, new

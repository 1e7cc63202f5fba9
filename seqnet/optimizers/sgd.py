"""Gradient descent, with or without momentum."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from seqnet.common.checks import check_bool
from seqnet.common.hyperparameters import Hyperparameter
from seqnet.common.types import Tensor
from seqnet.optimizers.optimizer import Optimizer
from seqnet.registry import register


@register("optimizer", "sgd")
class SGD(Optimizer):
    """Stochastic gradient descent.

    Without momentum ``w' = w - r g``. With momentum ``v' = m v - r g`` and ``w' = w + v'``
    (Polyak, 1964) or, with `nesterov`, ``w' = w + m v' - r g`` (Sutskever et al., 2013).

    Parameters
    ----------
    learning_rate : float or function of the step
        r; see `Optimizer`.
    momentum : float
        m, in [0, 1)
    nesterov : bool
    **kwargs
        Weight decay, clipping and averages of the weights, see `Optimizer`.

    Examples
    --------
    >>> import seqnet
    >>> optimizer = seqnet.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=5.0)
    >>> optimizer.learning_rate = 0.05            # does not recompile
    >>> optimizer.learning_rate
    0.05
    """

    slots = ("velocity",)
    momentum = Hyperparameter(below=1.0)

    def __init__(
        self,
        learning_rate: float | Callable = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.momentum = momentum
        self.nesterov = check_bool(nesterov, "nesterov")

    def used_slots(self) -> tuple[str, ...]:
        return self.slots if self.momentum else ()

    def structure(self) -> tuple:
        return (*super().structure(), self.momentum > 0, self.nesterov)

    def supports_sparse_rows(self) -> bool:
        return not self.momentum

    def change(
        self, gradient: Tensor, h: SimpleNamespace, velocity: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        step = -h.learning_rate * gradient
        if velocity is None:
            return step, {}
        velocity = h.momentum * velocity + step
        change = h.momentum * velocity + step if self.nesterov else velocity
        return change, {"velocity": velocity}

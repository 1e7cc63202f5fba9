"""Lion."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytensor.tensor as pt

from seqnet.common.hyperparameters import Hyperparameter
from seqnet.common.types import Tensor
from seqnet.optimizers.optimizer import Optimizer
from seqnet.registry import register


@register("optimizer", "lion")
class Lion(Optimizer):
    """Chen et al., "Symbolic discovery of optimization algorithms" (2023), algorithm 2::

        w' = w - r sign(b1 m + (1 - b1) g)
        m' = b2 m + (1 - b2) g

    Every element of a weight moves by the learning rate, which the paper sets 3 to 10 times lower
    than for `AdamW`, with a `weight_decay` that is higher by the same factor. Defaults are
    Keras 3's.

    Parameters
    ----------
    learning_rate : float or function of the step
        r; see `Optimizer`.
    beta_1 : float
        b1, above 0 and below 1
    beta_2 : float
        b2
    **kwargs
        Weight decay, clipping and averages of the weights, see `Optimizer`.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.optimizers.Lion(1e-4, weight_decay=0.1).beta_2
    0.99
    """

    slots = ("momentum",)
    beta_1 = Hyperparameter(below=1.0, positive=True)
    beta_2 = Hyperparameter(below=1.0)

    def __init__(
        self,
        learning_rate: float | Callable = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2

    def change(
        self, gradient: Tensor, h: SimpleNamespace, momentum: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        direction = pt.sign(h.beta_1 * momentum + (1 - h.beta_1) * gradient)
        m = h.beta_2 * momentum + (1 - h.beta_2) * gradient
        return -h.learning_rate * direction, {"momentum": m}

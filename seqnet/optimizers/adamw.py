"""AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seqnet.optimizers.adam import Adam
from seqnet.registry import register


@register("optimizer", "adamw")
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    ``w <- w - r d w`` comes before the update of `Adam`. As in Keras 3 and PyTorch the decay d is
    multiplied by the learning rate.

    Parameters
    ----------
    learning_rate : float or function of the step
        r; see `Optimizer`.
    weight_decay : float
        d
    beta_1, beta_2, epsilon, amsgrad
        See `Adam`.
    **kwargs
        Clipping and averages of the weights, see `Optimizer`.

    Examples
    --------
    >>> import seqnet
    >>> optimizer = seqnet.optimizers.AdamW(3e-3, weight_decay=0.01)
    >>> optimizer.exclude_from_weight_decay(var_names=["bias"])
    >>> optimizer.weight_decay
    0.01
    """

    def __init__(
        self,
        learning_rate: float | Callable = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ):
        if weight_decay is None:
            raise ValueError("The weight_decay of AdamW is a number; use Adam for none.")
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **kwargs
        )

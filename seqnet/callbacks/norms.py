"""Norms of gradients and weights in the logs of an epoch."""

from __future__ import annotations

import math
from typing import Any

from seqnet.callbacks.base import Callback
from seqnet.training.diagnostics import norm_of


class NormLogger(Callback):
    """Add the norms of gradients and weights to the logs of each epoch.

    ``gradient_norm`` is the L2 norm of all gradients together before clipping, averaged over the
    updates of the epoch. ``weight_norm`` is the L2 norm of all weights at the end of the epoch.
    There is no extra cost for gradients, because every training step computes their norms. Put this
    callback before callbacks that write logs; the history and the progress bar always come after
    it.

    Parameters
    ----------
    per_weight : bool
        Also add ``gradient_norm/NAME`` of each trained weight and ``weight_norm/NAME`` of each
        weight. The mean over updates starts again when the set of trained layers changes.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> model = seqnet.Model([seqnet.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    >>> model.compile(seqnet.optimizers.SGD(1.0), "mse")
    >>> norms = seqnet.callbacks.NormLogger()
    >>> history = model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0, callbacks=[norms])
    >>> history.history                      # the error is -1, so the gradient is -2
    {'loss': [1.0], 'gradient_norm': [2.0], 'weight_norm': [2.0]}
    """

    def __init__(self, per_weight: bool = False):
        self.per_weight = per_weight
        self.adds = None if per_weight else ("gradient_norm", "weight_norm")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None:
            return
        weights = {weight.name: norm_of(weight) for weight in self.model.weights}
        logs["gradient_norm"] = self.model.gradient_norms.mean()
        logs["weight_norm"] = math.hypot(*weights.values())
        if self.per_weight:
            gradients = self.model.gradient_norms.means(self.model.weights)
            logs |= {f"gradient_norm/{name}": norm for name, norm in gradients.items()}
            logs |= {f"weight_norm/{name}": norm for name, norm in weights.items()}

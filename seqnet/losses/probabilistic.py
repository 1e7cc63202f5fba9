"""Losses between distributions, and for counts."""

from __future__ import annotations

import pytensor.tensor as pt

from seqnet.common.types import Array, Shape, Tensor
from seqnet.losses.logits import clipped_log, log_probabilities, softmax_logits
from seqnet.losses.loss import Loss, function_of
from seqnet.losses.regression import small
from seqnet.losses.targets import check_counts
from seqnet.registry import register


@register("loss", "kl_divergence", "kld", "kullback_leibler_divergence")
class KLDivergence(Loss):
    """Kullback-Leibler divergence from predictions to targets: ``sum_k y_k log(y_k / p_k)``.

    Targets and predictions are clipped to the range from epsilon (`seqnet.config.epsilon`, 1e-7
    by default) to 1, as in Keras 3. If predictions are a softmax, ``log p`` is computed from its
    logits and needs no clipping.

    Examples
    --------
    >>> import seqnet
    >>> round(float(seqnet.losses.KLDivergence()([[0.5, 0.5]], [[0.25, 0.75]])), 6)
    0.143841
    """

    registered_name = "kl_divergence"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = self.paired(y_true, y_pred)
        known = softmax_logits(y_pred) is not None
        log_p = log_probabilities(y_pred) if known else clipped_log(y_pred)
        y = pt.clip(y_true, small(y_pred), pt.ones_like(y_true))
        return pt.sum(y * (pt.log(y) - log_p), axis=-1)


@register("loss", "poisson")
class Poisson(Loss):
    """Mean over the last axis of ``y_pred - y_true log(y_pred + epsilon)``.

    The negative log-likelihood of counts `y_true` under Poisson distributions with the rates
    `y_pred`, without the term ``log(y_true!)`` that does not depend on the rates. Rates are
    positive: the last layer may be a softplus or an exponential.

    Examples
    --------
    >>> import seqnet
    >>> round(float(seqnet.losses.Poisson()([[2.0, 0.0]], [[1.0, 3.0]])), 5)
    2.0
    """

    registered_name = "poisson"

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        y_true, y_pred = self.paired(y_true, y_pred)
        return pt.mean(y_pred - y_true * pt.log(y_pred + small(y_pred)), axis=-1)

    def check_targets(self, y: Array, output_shape: Shape, name: str) -> None:
        super().check_targets(y, output_shape, name)
        check_counts(y, name, self.name)


kl_divergence = function_of(KLDivergence)
poisson = function_of(Poisson)

"""Optimizers: updates of weights by gradients; `get` returns one by name or configuration."""

from seqnet.common.hyperparameters import Hyperparameter
from seqnet.optimizers import schedules
from seqnet.optimizers.adadelta import Adadelta
from seqnet.optimizers.adagrad import Adagrad
from seqnet.optimizers.adam import Adam
from seqnet.optimizers.adamax import Adamax
from seqnet.optimizers.adamw import AdamW
from seqnet.optimizers.lion import Lion
from seqnet.optimizers.nadam import Nadam
from seqnet.optimizers.optimizer import Optimizer
from seqnet.optimizers.rmsprop import RMSprop
from seqnet.optimizers.sgd import SGD
from seqnet.registry import Identifier
from seqnet.registry import get as _get

AdaGrad, AdaDelta = Adagrad, Adadelta  # the spelling of the papers

__all__ = [
    "SGD",
    "AdaDelta",
    "AdaGrad",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Hyperparameter",
    "Lion",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "get",
    "schedules",
]


def __dir__() -> list[str]:
    return sorted(__all__)


def get(identifier: Identifier | Optimizer) -> Optimizer:
    """Return the optimizer of a name, a saved configuration, a class or an object.

    Examples
    --------
    >>> from seqnet import optimizers
    >>> optimizers.get("sdg")
    Traceback (most recent call last):
        ...
    ValueError: Unknown optimizer 'sdg'. Did you mean 'sgd'? ...
    """
    found = _get("optimizer", identifier)
    if not isinstance(found, Optimizer):
        raise TypeError(f"An optimizer is a seqnet.optimizers.Optimizer, got {found!r}.")
    return found

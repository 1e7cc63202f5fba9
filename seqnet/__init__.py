"""seqnet: layered recurrent networks on PyTensor, the Theano of today."""

from seqnet.backend import compiledir  # isort: skip -- before anything that uses PyTensor
from seqnet import (
    activations,
    backend,
    callbacks,
    config,
    constraints,
    data,
    distributed,
    generation,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    regularizers,
    text,
    theano_lstm,
    utils,
)
from seqnet.config import set_random_seed
from seqnet.distributed import distribute
from seqnet.environment import info
from seqnet.layers.symbolic import Input
from seqnet.model import Model, Sequential, clone_model, load_model, model_from_json
from seqnet.training.diagnostics import NumericalError
from seqnet.version import __version__

__all__ = [
    "Input",
    "Model",
    "NumericalError",
    "Sequential",
    "activations",
    "backend",
    "callbacks",
    "clone_model",
    "config",
    "constraints",
    "data",
    "distribute",
    "distributed",
    "generation",
    "info",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "model_from_json",
    "optimizers",
    "regularizers",
    "set_random_seed",
    "text",
    "theano_lstm",
    "utils",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

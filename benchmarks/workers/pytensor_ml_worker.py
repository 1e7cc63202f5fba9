"""Trains with pytensor-ml: layers as PyTensor graphs, recurrent layers with scan."""

from __future__ import annotations

import os

import protocol  # first: it starts the clock of the import time

os.environ["PYTENSOR_FLAGS"] = protocol.flags("PYTENSOR_FLAGS", "floatX=float32")

# isort: split
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytensor_ml
from pytensor_ml import optim
from pytensor_ml.layers import GRU, LSTM, RNN, Embedding, Linear
from pytensor_ml.loss import CrossEntropy

CELLS = {"simple_rnn": RNN, "gru": GRU, "lstm": LSTM}


class Trainer:
    """See `protocol.Session`."""

    def __init__(self, settings):
        protocol.refuse(settings, masks=True, go_backwards=True)
        self.settings = settings
        first = protocol.first_weights(settings)
        x, y = pt.imatrix("x"), pt.imatrix("y")
        embedding = Embedding(
            "embedding", n_embeddings=settings.vocabulary, n_features=settings.embedding
        )
        embedding.W.set_value(first.embedding)
        h = embedding(x)
        for number, weights in enumerate(first.layers):
            features = settings.units if number else settings.embedding
            layer = CELLS[settings.cell](f"layer_{number}", n_in=features, n_hidden=settings.units)
            self.load(layer.cell, *weights)
            h = layer(h)
        linear = Linear("linear", n_in=settings.units, n_out=settings.classes)
        linear.W.set_value(first.kernel)
        linear.b.set_value(first.bias)
        self.inputs = [x, y]
        self.loss = CrossEntropy(expect_logits=True)(y, linear(h))
        self.batches = protocol.random_batches(settings)

    def load(self, cell, kernel, recurrent, bias):
        """Copy the common initial weights; a GRU has one bias for r and z, and r before z."""
        if self.settings.cell == "gru":
            (z, r, n), (rz, rr, rn) = (np.split(b, 3) for b in bias)
            bias = np.concatenate([r + rr, z + rz, n])
            cell.c.set_value(rn)
            kernel, recurrent = (
                np.concatenate([np.split(a, 3, 1)[k] for k in (1, 0, 2)], 1)
                for a in (kernel, recurrent)
            )
        cell.W_ih.set_value(kernel)
        cell.W_hh.set_value(recurrent)
        cell.b.set_value(bias)

    def versions(self):
        return {
            "pytensor_ml": pytensor_ml.__version__,
            "pytensor": pytensor.__version__,
            "numpy": np.__version__,
            "mode": f"{pytensor.config.mode}, linker {pytensor.config.linker}",
        }

    def compile(self):
        name = self.settings.optimizer
        rate = protocol.RATES[name]
        rule = {
            "sgd": lambda: optim.sgd(rate),
            "adagrad": lambda: optim.adagrad(rate, epsilon=1e-6),
            "adadelta": lambda: optim.adadelta(rate, rho=0.95, epsilon=1e-6),
            "rmsprop": lambda: optim.rmsprop(rate, epsilon=1e-7),
            "adam": lambda: optim.adam(rate, epsilon=1e-7),
        }[name]()
        self.function = optim.compile_train(self.loss, rule, inputs=self.inputs)

    def step(self, number):
        x, y = self.batches[number % len(self.batches)]
        return float(self.function(x, y))


if __name__ == "__main__":
    protocol.serve(Trainer)

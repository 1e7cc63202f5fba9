"""Trains with Keras 3 on JAX.

Additional setting: ``through``. ``step`` (the default) is one jitted function made from Keras's own
`stateless_call` and `stateless_apply`, with donated buffers, as in Keras's guide to custom JAX
loops; ``train_on_batch`` uses the ordinary method, which runs more Python code.
"""

from __future__ import annotations

import os

import protocol  # first: it starts the clock of the import time

os.environ["KERAS_BACKEND"] = "jax"

# isort: split
import jax
import keras
import numpy as np
from keras import layers

CELLS = {"simple_rnn": layers.SimpleRNN, "gru": layers.GRU, "lstm": layers.LSTM}


class Trainer:
    """See `protocol.Session`."""

    def __init__(self, settings):
        protocol.refuse(settings, masks=True)
        self.settings = settings
        if settings.dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        keras.config.set_floatx(settings.dtype)
        cell = CELLS[settings.cell]
        recurrent = [
            cell(settings.units, return_sequences=True, go_backwards=settings.go_backwards)
            for _ in range(settings.layers)
        ]
        self.model = keras.Sequential(
            [
                layers.Embedding(settings.vocabulary, settings.embedding),
                *recurrent,
                layers.Dense(settings.classes),
            ]
        )
        self.model.build((settings.batch, settings.length))
        first = protocol.first_weights(settings)
        weights = [first.embedding, *[w for layer in first.layers for w in layer]]
        self.model.set_weights([*weights, first.kernel, first.bias])
        self.batches = protocol.random_batches(settings)

    def versions(self):
        return {"keras": keras.__version__, "jax": jax.__version__, "numpy": np.__version__}

    def compile(self):
        name = self.settings.optimizer
        rate, optimizers = protocol.RATES[name], keras.optimizers
        optimizer = {
            "sgd": lambda: optimizers.SGD(rate),
            "adagrad": lambda: optimizers.Adagrad(rate, 0.0, epsilon=1e-6),
            "adadelta": lambda: optimizers.Adadelta(rate, epsilon=1e-6),
            "rmsprop": lambda: optimizers.RMSprop(rate, epsilon=1e-7),
            "adam": lambda: optimizers.Adam(rate, epsilon=1e-7),
        }[name]()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if getattr(self.settings, "through", "step") == "train_on_batch":
            self.model.compile(optimizer, loss, jit_compile=True)
            self.step = self.train_on_batch
            return
        model = self.model
        optimizer.build(model.trainable_variables)

        def compute(trainable, fixed, x, y):
            logits, fixed = model.stateless_call(trainable, fixed, x, training=True)
            return loss(y, logits), fixed

        gradient = jax.value_and_grad(compute, has_aux=True)

        def train(state, x, y):
            trainable, fixed, slots = state
            (value, fixed), gradients = gradient(trainable, fixed, x, y)
            trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
            return value, (trainable, fixed, slots)

        self.train = jax.jit(train, donate_argnums=0)
        variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
        # Copies, because donated buffers are invalid afterwards and the model keeps its own.
        self.state = jax.tree.map(
            lambda v: v.value.copy(), variables, is_leaf=lambda v: hasattr(v, "value")
        )

    def step(self, number):
        x, y = self.batches[number % len(self.batches)]
        value, self.state = self.train(self.state, x, y)
        # The loss is available before the update: wait for both.
        return float(jax.block_until_ready((value, self.state))[0])

    def train_on_batch(self, number):
        """Make a step with the ordinary method; its loss is the mean over batches so far."""
        x, y = self.batches[number % len(self.batches)]
        self.model.reset_metrics()
        value = float(self.model.train_on_batch(x, y))
        jax.block_until_ready([v.value for v in self.model.trainable_variables])
        return value


if __name__ == "__main__":
    protocol.serve(Trainer)

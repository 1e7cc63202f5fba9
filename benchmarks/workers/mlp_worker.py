"""Trains the perceptron of Theano's introduction (reference 003) with one of several systems.

A batch of 60 rows of 784 numbers, 500 units with tanh, a softmax over 10 classes, and one step of
gradient descent. The setting ``system`` is ``seqnet``, ``pytorch`` or ``numpy``. All start from the
same weights.
"""

from __future__ import annotations

import protocol  # first: it starts the clock of the import time

# isort: split
import numpy as np

BATCH, FEATURES, UNITS, CLASSES, RATE = 60, 784, 500, 10, 0.1


class Trainer:
    """See `protocol.Session`. The batch and the weights that all systems start from."""

    def __init__(self, settings):
        random = np.random.RandomState(settings.seed)
        self.x = random.normal(size=(BATCH, FEATURES)).astype("float32")
        self.y = random.randint(0, CLASSES, BATCH).astype("int32")
        shapes = (FEATURES, UNITS), (UNITS, CLASSES)
        first, second = [(random.normal(size=s) / s[0] ** 0.5).astype("float32") for s in shapes]
        self.weights = [first, np.zeros(UNITS, "f"), second, np.zeros(CLASSES, "f")]

    def compile(self):
        pass

    def versions(self):
        return {"numpy": np.__version__}


class NumPy(Trainer):
    """The gradients are derived by hand."""

    def step(self, number):
        W, b, V, c = self.weights
        rows = np.arange(BATCH)
        h = np.tanh(self.x @ W + b)
        z = h @ V + c
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(z)
        p /= p.sum(axis=1, keepdims=True)
        loss = -np.log(p[rows, self.y]).mean()
        p[rows, self.y] -= 1
        p /= BATCH
        d = (p @ V.T) * (1 - h * h)
        gradients = self.x.T @ d, d.sum(axis=0), h.T @ p, p.sum(axis=0)
        for weight, gradient in zip(self.weights, gradients):  # noqa: B905
            weight -= np.float32(RATE) * gradient
        return float(loss)


class Seqnet(Trainer):
    """`Model.train_on_batch`."""

    def compile(self):
        import seqnet
        from seqnet.layers import Dense

        layers = [Dense(UNITS, activation="tanh"), Dense(CLASSES, activation="softmax")]
        self.model = seqnet.Model(layers)
        self.model.build((None, FEATURES))
        self.model.set_weights(self.weights)
        self.model.compile(seqnet.optimizers.SGD(RATE), "sparse_categorical_crossentropy")

    def step(self, number):
        return self.model.train_on_batch(self.x, self.y)

    def versions(self):
        import seqnet

        return {"seqnet": seqnet.__version__}


class PyTorch(Trainer):
    """Gradients are set to None, and the batch is a tensor beforehand."""

    def compile(self):
        import torch

        first, second = torch.nn.Linear(FEATURES, UNITS), torch.nn.Linear(UNITS, CLASSES)
        with torch.no_grad():
            for layer, (kernel, bias) in ((first, self.weights[:2]), (second, self.weights[2:])):
                layer.weight.copy_(torch.from_numpy(kernel.T))
                layer.bias.copy_(torch.from_numpy(bias))
        self.model = torch.nn.Sequential(first, torch.nn.Tanh(), second)
        self.optimizer = torch.optim.SGD(self.model.parameters(), RATE)
        self.loss = torch.nn.functional.cross_entropy
        self.batch = torch.from_numpy(self.x), torch.from_numpy(self.y.astype("int64"))

    def step(self, number):
        x, y = self.batch
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return float(loss)

    def versions(self):
        import torch

        return {"torch": torch.__version__}


if __name__ == "__main__":
    systems = {"seqnet": Seqnet, "numpy": NumPy, "pytorch": PyTorch}
    protocol.serve(lambda settings: systems[settings.system](settings))

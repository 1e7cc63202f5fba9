"""Trains one recurrent layer that returns all steps, for seqnet and for PyTorch.

The setting ``cell`` is a cell of the contract tests for seqnet, which must run as a kernel, and
``simple_rnn``, ``gru``, ``lstm`` or ``layer_norm_lstm`` for PyTorch. PyTorch has no LSTM with layer
normalisation: it is written step by step, and compiled with ``torch.compile`` if the setting
``compiled`` is true. A step computes the mean squared error to zeros
from the same random numbers, its gradients, and an update of plain SGD.
"""

from __future__ import annotations

import sys
from pathlib import Path

import protocol  # first: it starts the clock of the import time

# isort: split
import numpy as np


def arrays_of(settings):
    """Return the input (batch, time, features) and the target (batch, time, units)."""
    random = np.random.RandomState(settings.seed)
    x = random.randn(settings.batch, settings.length, settings.features)
    y = np.zeros((settings.batch, settings.length, settings.units))
    return x.astype(settings.dtype), y.astype(settings.dtype)


class SeqnetTrainer:
    """See `protocol.Session`."""

    def __init__(self, settings):
        self.settings, self.given = settings, arrays_of(settings)

    def compile(self):
        import seqnet

        sys.path.append(str(Path(__file__).parents[2] / "tests"))
        import cells

        cls, own = cells.CELLS[self.settings.cell]
        layer = cls(self.settings.units, fused=True, return_sequences=True, **own)
        self.model = seqnet.Model([layer])
        self.model.compile(seqnet.optimizers.SGD(protocol.RATES["sgd"]), "mse")

    def step(self, number):
        return self.model.train_on_batch(*self.given)

    def versions(self):
        import pytensor

        import seqnet

        return {"seqnet": seqnet.__version__, "pytensor": pytensor.__version__}


class PyTorchTrainer:
    """See `protocol.Session`."""

    def __init__(self, settings):
        import torch

        self.settings, self.torch = settings, torch
        self.given = [torch.tensor(a) for a in arrays_of(settings)]
        cell = {"simple_rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
        if settings.cell == "layer_norm_lstm":
            self.layer = layer_norm_lstm(settings.features, settings.units)
            if getattr(settings, "compiled", False):
                self.layer.advance = torch.compile(self.layer.advance)
        else:
            self.layer = cell[settings.cell](settings.features, settings.units, batch_first=True)
        self.optimizer = torch.optim.SGD(self.layer.parameters(), protocol.RATES["sgd"])

    def compile(self):
        """PyTorch compiles a step when it is called for the first time."""

    def step(self, number):
        x, y = self.given
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.torch.nn.functional.mse_loss(self.layer(x)[0], y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def versions(self):
        return {"torch": self.torch.__version__}


def layer_norm_lstm(features, units):
    """Return the layer_norm_lstm of the contract tests as a module of PyTorch."""
    import torch

    class LayerNormLSTM(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.input = torch.nn.Linear(features, 4 * units)
            self.recurrent = torch.nn.Linear(units, 4 * units, bias=False)
            self.gains = torch.nn.Parameter(torch.ones(5, units))

        def norm(self, x, gain):
            return torch.nn.functional.layer_norm(x, (units,), gain, eps=1e-3)

        def advance(self, x, h, c):
            products = self.recurrent(h).chunk(4, dim=-1)
            normed = [self.norm(r, g) for r, g in zip(products, self.gains[:4], strict=True)]
            i, f, g, o = (a + b for a, b in zip(x.chunk(4, dim=-1), normed, strict=True))
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(self.norm(c, self.gains[4])), c

        def forward(self, x):
            h = c = x.new_zeros(len(x), units)
            outputs = []
            for step in self.input(x).unbind(dim=1):
                h, c = self.advance(step, h, c)
                outputs.append(h)
            return torch.stack(outputs, dim=1), (h, c)

    return LayerNormLSTM()


def trainer(settings):
    """Return the trainer of the system that the settings name."""
    return {"seqnet": SeqnetTrainer, "pytorch": PyTorchTrainer}[settings.system](settings)


if __name__ == "__main__":
    protocol.serve(trainer)

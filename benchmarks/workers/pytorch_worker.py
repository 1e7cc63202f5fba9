"""Trains with PyTorch's layers: nn.Embedding, nn.LSTM (RNN, GRU), nn.Linear, cross_entropy.

It uses all threads, sets gradients to None, and converts batches to tensors in advance. One
difference remains: PyTorch's cells train two biases, seqnet's and Keras's only one (except for the
GRU's recurrent bias); the initial sums are equal. Additional settings: ``sparse`` (gradients of the
embedding), ``threads`` and ``autocast`` (the forward pass in `torch.autocast` with bfloat16).
"""

from __future__ import annotations

import time

import protocol  # first: it starts the clock of the import time

# isort: split
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

CELLS = {"simple_rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
STEP_CELLS = {"simple_rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
IGNORED = -100  # the target that cross_entropy ignores


def torch_order(array, cell):
    """Return Keras's (..., gates * units) as PyTorch's (gates * units, ...); a GRU has r, z, n."""
    blocks = np.split(array, protocol.GATES[cell], axis=-1)
    if cell == "gru":
        blocks = [blocks[1], blocks[0], blocks[2]]
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(blocks, axis=-1).T))


class Network(nn.Module):
    """Embedding, recurrent layers, linear layer."""

    def __init__(self, settings):
        super().__init__()
        self.settings = settings
        sparse = getattr(settings, "sparse", False)
        self.embedding = nn.Embedding(settings.vocabulary, settings.embedding, sparse=sparse)
        cell, backwards = CELLS[settings.cell], settings.go_backwards
        sizes = [settings.embedding] + [settings.units] * (settings.layers - 1)
        if backwards:  # each layer starts at the end, so the layers cannot be one module
            layers = [cell(size, settings.units, batch_first=True) for size in sizes]
        else:
            layers = [cell(sizes[0], settings.units, settings.layers, batch_first=True)]
        self.layers = nn.ModuleList(layers)
        self.linear = nn.Linear(settings.units, settings.classes)
        self.load(protocol.first_weights(settings))

    @torch.no_grad()
    def load(self, first):
        """Copy the common initial weights."""
        cell = self.settings.cell
        self.embedding.weight.copy_(torch.from_numpy(first.embedding))
        targets = [
            [getattr(layer, f"{name}_l{k}") for name in WEIGHTS]
            for layer in self.layers
            for k in range(layer.num_layers)
        ]
        for target, (kernel, recurrent, bias) in zip(targets, first.layers, strict=True):
            both = bias if cell == "gru" else np.stack([bias, np.zeros_like(bias)])
            values = [kernel, recurrent, both[0], both[1]]
            for parameter, value in zip(target, values, strict=True):
                parameter.copy_(torch_order(value, cell))
        self.linear.weight.copy_(torch.from_numpy(first.kernel.T.copy()))
        self.linear.bias.copy_(torch.from_numpy(first.bias))

    def forward(self, x):
        h = self.embedding(x)
        for layer in self.layers:
            h, _ = layer(h.flip(1) if self.settings.go_backwards else h)
        return self.linear(h)


WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class Trainer:
    """See `protocol.Session`."""

    def __init__(self, settings):
        if settings.masks and settings.go_backwards:
            raise protocol.UnsupportedError("no masks with go_backwards here")
        self.settings = settings
        if getattr(settings, "threads", None):
            torch.set_num_threads(settings.threads)
        torch.set_default_dtype(getattr(torch, settings.dtype))
        self.network = Network(settings)
        self.batches = []
        for x, y in protocol.random_batches(settings):
            if settings.masks:  # padding is at the end, so it does not affect earlier steps
                y = np.where(x == 0, IGNORED, y)
            self.batches.append((torch.from_numpy(x).long(), torch.from_numpy(y).long().flatten()))

    def autocast(self):
        return torch.autocast(
            "cpu", torch.bfloat16, enabled=getattr(self.settings, "autocast", False)
        )

    def versions(self):
        return {
            "torch": torch.__version__,
            "numpy": np.__version__,
            "threads": torch.get_num_threads(),
        }

    def compile(self):
        name, parameters = self.settings.optimizer, self.network.parameters()
        rate = protocol.RATES[name]
        self.optimizer = {
            "sgd": lambda: torch.optim.SGD(parameters, rate),
            "adagrad": lambda: torch.optim.Adagrad(parameters, rate, eps=1e-6),
            "adadelta": lambda: torch.optim.Adadelta(parameters, rate, rho=0.95, eps=1e-6),
            "rmsprop": lambda: torch.optim.RMSprop(parameters, rate, alpha=0.9, eps=1e-7),
            "adam": lambda: torch.optim.Adam(parameters, rate, eps=1e-7),
        }[name]()

    def step(self, number):
        x, y = self.batches[number % len(self.batches)]
        if getattr(self.settings, "predict", False):
            return self.predict(x)
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            loss = cross_entropy(self.network(x).flatten(0, 1), y, ignore_index=IGNORED)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    @torch.inference_mode()
    def predict(self, x):
        with self.autocast():
            probabilities = torch.softmax(self.network(x), -1)
        return probabilities.float().numpy()[0, 0, 0].item()

    @torch.inference_mode()
    def generate(self, count, temperature, how, streams=1):
        """Generate from character 1; return the characters per second and those of a stream.

        `how` is ``layer`` (nn.LSTM, one step a call), ``layer, no mkldnn`` or ``cell``
        (nn.LSTMCell, the weights copied).
        """
        advance = self.cells() if how == "cell" else self.whole_layers()
        torch.backends.mkldnn.set_flags(how != "layer, no mkldnn")
        torch.manual_seed(1)
        self.write(advance, 5, temperature, streams)
        start = time.perf_counter()
        written = self.write(advance, count, temperature, streams)
        seconds = time.perf_counter() - start
        torch.backends.mkldnn.set_flags(True)
        return {"per_second": streams * count / seconds, "written": written[:, 0].tolist()}

    def write(self, advance, count, temperature, streams):
        token, state, written = torch.ones(streams, dtype=torch.long), None, []
        for _ in range(count):
            h, state = advance(self.network.embedding(token), state)
            logits = self.network.linear(h)
            if temperature == 0:
                token = logits.argmax(1)
            else:
                token = torch.multinomial(torch.softmax(logits / temperature, 1), 1)[:, 0]
            written.append(token)
        return torch.stack(written)

    def whole_layers(self):
        """Return a function of one step with the trained layers."""

        def advance(x, state):
            state = state or [None] * len(self.network.layers)
            after = []
            for layer, before in zip(self.network.layers, state, strict=True):
                x, s = layer(x if x.ndim == 3 else x[:, None], before)
                after.append(s)
            return x[:, 0], after

        return advance

    def cells(self):
        """Return a function of one step with LSTMCell modules of the same weights."""
        cells = []
        for layer in self.network.layers:
            for k in range(layer.num_layers):
                size = layer.input_size if k == 0 else layer.hidden_size
                cell = STEP_CELLS[self.settings.cell](size, layer.hidden_size)
                for name in WEIGHTS:
                    getattr(cell, name).copy_(getattr(layer, f"{name}_l{k}"))
                cells.append(cell)

        def advance(x, state):
            state, after = state or [None] * len(cells), []
            for cell, before in zip(cells, state, strict=True):
                s = cell(x, before)
                x = s[0] if isinstance(s, tuple) else s
                after.append(s)
            return x, after

        return advance


if __name__ == "__main__":
    protocol.serve(Trainer)

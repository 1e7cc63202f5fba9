"""One training step of an encoder-decoder with attention, for seqnet and for PyTorch.

Two embeddings, an LSTM that reads the source, an LSTM that starts from its states and reads the
target, dot-product attention from each step of the decoder to the steps of the encoder, and a
softmax over the vocabulary from the decoder's output and what it attends to. With the setting
``masks`` the sources have half to all of the steps.
"""

from __future__ import annotations

import protocol  # first: it starts the clock of the import time

# isort: split
import numpy as np


def batch_of(settings):
    """Return sources, their mask, the decoder's inputs and the targets."""
    random = np.random.RandomState(settings.seed)
    shape, size = (settings.batch, settings.length), settings.vocabulary
    source = random.randint(1, size, shape).astype("int32")
    lengths = np.full(settings.batch, settings.length)
    if settings.masks:
        lengths = random.randint((settings.length + 1) // 2, settings.length + 1, settings.batch)
    mask = np.arange(settings.length)[None, :] < lengths[:, None]
    source[~mask] = 0
    target = random.randint(1, size, shape).astype("int32")
    given = np.concatenate([np.ones((settings.batch, 1), "int32"), target[:, :-1]], axis=1)
    return source, mask, given, target


def first_weights(settings):
    """Return weights in seqnet's order: of two embeddings, two LSTMs and the output layer."""
    random = np.random.RandomState(settings.seed + 1)
    size, width, units = settings.vocabulary, settings.embedding, settings.units

    def draw(*shape):
        return (random.uniform(-0.1, 0.1, shape)).astype(settings.dtype)

    lstm = [(width, 4 * units), (units, 4 * units), (4 * units,)]
    shapes = [(size, width), *lstm, (size, width), *lstm, (2 * units, size), (size,)]
    return [draw(*shape) for shape in shapes]


class SeqnetTrainer:
    """See `protocol.Session`."""

    def __init__(self, settings):
        import seqnet
        from seqnet import layers

        size, width, units = settings.vocabulary, settings.embedding, settings.units
        source, target = seqnet.Input((None,), name="source"), seqnet.Input((None,), name="target")
        read = layers.Embedding(size, width, mask_zero=settings.masks)(source)
        steps, *states = layers.LSTM(units, return_sequences=True, return_state=True)(read)
        written = layers.Embedding(size, width)(target)
        decoder = layers.LSTM(units, return_sequences=True)
        decoded = decoder(written, initial_state=states)
        attended = layers.Attention()([decoded, steps])
        both = layers.Concatenate()([decoded, attended])
        output = layers.Dense(size, activation="softmax")(both)
        self.seqnet, self.model = seqnet, seqnet.Model([source, target], output)
        by_shape = list(first_weights(settings))
        self.model.set_weights(ordered(self.model.get_weights(), by_shape, self.model.weights))
        source, _, given, wanted = batch_of(settings)
        self.data, self.wanted = {"source": source, "target": given}, wanted

    def compile(self):
        rate = self.seqnet.optimizers.SGD(0.1)
        self.model.compile(rate, "sparse_categorical_crossentropy")

    def step(self, number):
        return float(self.model.train_on_batch(self.data, self.wanted))

    def versions(self):
        import pytensor

        return {"seqnet": self.seqnet.__version__, "pytensor": pytensor.__version__}


def ordered(current, values, weights):
    """Return values in the order of a model's weights, by the names of their layers."""
    places = {
        "embedding": 0, "lstm": 1, "embedding_1": 4, "lstm_1": 5, "dense": 8,
    }  # fmt: skip
    counts: dict[str, int] = {}
    found = []
    for old, weight in zip(current, weights, strict=True):
        layer = str(weight.name).split("/")[0]
        place = places[layer] + counts.get(layer, 0)
        counts[layer] = counts.get(layer, 0) + 1
        assert values[place].shape == old.shape, (weight.name, values[place].shape, old.shape)
        found.append(values[place])
    return found


class PyTorchTrainer:
    """See `protocol.Session`."""

    def __init__(self, settings):
        import torch

        self.settings, self.torch = settings, torch
        size, width, units = settings.vocabulary, settings.embedding, settings.units
        nn = torch.nn
        self.read, self.written = nn.Embedding(size, width), nn.Embedding(size, width)
        self.encoder = nn.LSTM(width, units, batch_first=True)
        self.decoder = nn.LSTM(width, units, batch_first=True)
        self.out = nn.Linear(2 * units, size)
        w = [torch.tensor(a) for a in first_weights(settings)]
        with torch.no_grad():
            self.read.weight[:], self.written.weight[:] = w[0], w[4]
            for lstm, (kernel, recurrent, bias) in (
                (self.encoder, w[1:4]),
                (self.decoder, w[5:8]),
            ):
                lstm.weight_ih_l0[:], lstm.weight_hh_l0[:] = kernel.T, recurrent.T
                lstm.bias_ih_l0[:], lstm.bias_hh_l0[:] = bias, 0
            self.out.weight[:], self.out.bias[:] = w[8].T, w[9]
        for lstm in (self.encoder, self.decoder):
            lstm.bias_hh_l0.requires_grad_(False)
        modules = [self.read, self.written, self.encoder, self.decoder, self.out]
        parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, 0.1)
        source, mask, given, wanted = batch_of(settings)
        self.source, self.given = torch.tensor(source).long(), torch.tensor(given).long()
        self.mask, self.wanted = torch.tensor(mask), torch.tensor(wanted).long()

    def compile(self):
        """PyTorch compiles nothing."""

    def step(self, number):
        torch, pack = self.torch, self.torch.nn.utils.rnn
        self.optimizer.zero_grad()
        embedded = self.read(self.source)
        if self.settings.masks:
            lengths = self.mask.sum(dim=1)
            packed = pack.pack_padded_sequence(
                embedded, lengths, batch_first=True, enforce_sorted=False
            )
            steps, states = self.encoder(packed)
            steps, _ = pack.pad_packed_sequence(
                steps, batch_first=True, total_length=self.source.shape[1]
            )
        else:
            steps, states = self.encoder(embedded)
        decoded, _ = self.decoder(self.written(self.given), states)
        scores = decoded @ steps.transpose(1, 2)
        if self.settings.masks:
            scores = scores.masked_fill(~self.mask[:, None, :], -1e9)
        attended = torch.softmax(scores, dim=-1) @ steps
        logits = self.out(torch.cat([decoded, attended], dim=-1))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), self.wanted.flatten())
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def versions(self):
        return {"torch": self.torch.__version__}


def trainer(settings):
    """Return the trainer of the system that the settings name."""
    return {"seqnet": SeqnetTrainer, "pytorch": PyTorchTrainer}[settings.system](settings)


if __name__ == "__main__":
    protocol.serve(trainer)

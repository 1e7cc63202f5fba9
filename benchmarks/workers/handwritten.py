"""The model written by hand in Theano or PyTensor, whose names are nearly the same.

The embedding and the product of the input and the kernel are outside of the loop, and the four
gates of an LSTM are one product, as is usual with scan. Runs under Python 3.7.
"""

from __future__ import annotations

import numpy as np
import protocol


class Trainer:
    """See `protocol.Session`. Subclasses define the parts that differ in Theano and PyTensor."""

    tensor = None  # theano.tensor or pytensor.tensor
    root = None  # theano or pytensor

    def scan(self, step, sequences, states, constants):
        """Return the histories of all states."""
        raise NotImplementedError

    def cross_entropy(self, logits, targets):
        """Return the mean of -log softmax(logits)[targets] for (rows, classes) and (rows,)."""
        raise NotImplementedError

    def __init__(self, settings):
        protocol.refuse(settings, masks=True)
        self.settings = settings
        self.parameters = []
        first = protocol.first_weights(settings)
        T = self.tensor
        x, y = T.imatrix("x"), T.imatrix("y")  # (batch, time)
        embedding = self.share(first.embedding)
        by_time = x.T
        h = embedding[by_time.flatten()].reshape(
            (by_time.shape[0], by_time.shape[1], settings.embedding)
        )
        for weights in first.layers:
            kernel, recurrent, bias = (self.share(w) for w in weights)
            if settings.go_backwards:
                h = h[::-1]
            both = (bias[0], bias[1]) if settings.cell == "gru" else (bias, None)
            h = self.recurrence(h, kernel, recurrent, *both)
        rows = h.dimshuffle(1, 0, 2).reshape((-1, settings.units))
        logits = T.dot(rows, self.share(first.kernel)) + self.share(first.bias)
        self.inputs = [x, y]
        self.loss = self.cross_entropy(logits, y.flatten())
        self.batches = protocol.random_batches(settings)

    def share(self, value):
        variable = self.root.shared(value)
        self.parameters.append(variable)
        return variable

    def recurrence(self, h, kernel, recurrent, bias, recurrent_bias):
        """Return the output of one layer, (time, batch, units)."""
        T, cell, units = self.tensor, self.settings.cell, self.settings.units
        columns = protocol.GATES[cell] * units
        time, batch = h.shape[0], h.shape[1]
        flat = T.dot(h.reshape((time * batch, -1)), kernel) + bias
        projected = flat.reshape((time, batch, columns))
        zeros = T.zeros((batch, units), dtype=self.settings.dtype)

        def cut(a, k):
            return a[:, k * units : (k + 1) * units]

        def lstm(p, h, c, recurrent):
            a = p + T.dot(h, recurrent)
            gates = T.nnet.sigmoid if hasattr(T, "nnet") else T.sigmoid
            i, f, o = gates(cut(a, 0)), gates(cut(a, 1)), gates(cut(a, 3))
            c = f * c + i * T.tanh(cut(a, 2))
            return [o * T.tanh(c), c]

        def gru(p, h, recurrent, recurrent_bias):
            r = T.dot(h, recurrent) + recurrent_bias
            gates = T.nnet.sigmoid if hasattr(T, "nnet") else T.sigmoid
            z, reset = gates(cut(p, 0) + cut(r, 0)), gates(cut(p, 1) + cut(r, 1))
            return z * h + (1 - z) * T.tanh(cut(p, 2) + reset * cut(r, 2))

        def simple_rnn(p, h, recurrent):
            return T.tanh(p + T.dot(h, recurrent))

        step = {"lstm": lstm, "gru": gru, "simple_rnn": simple_rnn}[cell]
        states = [zeros, zeros] if cell == "lstm" else [zeros]
        constants = [recurrent, recurrent_bias] if cell == "gru" else [recurrent]
        return self.scan(step, [projected], states, constants)[0]

    def updates(self):
        """Return pairs (shared variable, new value)."""
        T, name = self.tensor, self.settings.optimizer
        rate = np.asarray(protocol.RATES[name], self.settings.dtype)
        gradients = self.root.grad(self.loss, self.parameters)
        pairs = []
        for k, gradient in enumerate(gradients):
            weight = self.parameters[k]
            if name == "sgd":
                pairs.append((weight, weight - rate * gradient))
            elif name == "adadelta":
                rho, rest, epsilon = (
                    np.asarray(v, self.settings.dtype) for v in (0.95, 1 - 0.95, 1e-6)
                )
                zeros = np.zeros_like(weight.get_value())
                square, change_square = self.root.shared(zeros), self.root.shared(zeros)
                s = rho * square + rest * gradient**2
                change = -T.sqrt(change_square + epsilon) / T.sqrt(s + epsilon) * gradient
                pairs.append((square, s))
                pairs.append((change_square, rho * change_square + rest * change**2))
                pairs.append((weight, weight + rate * change))
            else:
                raise protocol.UnsupportedError(f"no optimizer={name!r} here")
        return pairs

    def compile(self):
        self.function = self.root.function(self.inputs, self.loss, updates=self.updates())

    def step(self, number):
        x, y = self.batches[number % len(self.batches)]
        return float(self.function(x, y))

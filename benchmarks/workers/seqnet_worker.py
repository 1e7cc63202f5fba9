"""Trains with seqnet, through `Model.train_on_batch`.

Additional settings: ``path`` (fused, scan, unroll; none: seqnet's choice), ``backend`` (see
`seqnet.config.BACKENDS`) and ``policy`` (see `seqnet.config.set_dtype_policy`).
"""

from __future__ import annotations

import os
import tempfile
import time

import protocol  # first: it starts the clock of the import time

# isort: split
import numpy as np
import pytensor

import seqnet
from seqnet.callbacks import (
    CSVLogger,
    EarlyStopping,
    ProgressBar,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from seqnet.callbacks.base import HOOKS, CallbackList
from seqnet.layers import GRU, LSTM, Dense, Embedding, SimpleRNN
from seqnet.training.results import Totals

CELLS = {"simple_rnn": SimpleRNN, "gru": GRU, "lstm": LSTM}
PATHS = {
    None: {},
    "fused": {"fused": True},
    "scan": {"fused": False},
    "unroll": {"unroll": True},
}


class Screen:
    """A file that acts as a terminal."""

    def __init__(self, file):
        self.write, self.flush = file.write, file.flush

    def isatty(self):
        return True


class Clock:
    """Measures the total time in some functions."""

    def __init__(self):
        self.seconds = 0.0

    def around(self, function):
        def timed(*given):
            start = time.perf_counter()
            result = function(*given)
            self.seconds += time.perf_counter() - start
            return result

        return timed


class Trainer:
    """See `protocol.Session`."""

    def __init__(self, settings):
        self.settings = settings
        seqnet.config.set_dtype_policy(getattr(settings, "policy", settings.dtype))
        seqnet.config.set_backend(getattr(settings, "backend", "auto"))
        cell = CELLS[settings.cell]
        how = dict(PATHS[getattr(settings, "path", None)], go_backwards=settings.go_backwards)
        self.model = seqnet.Model(
            [
                Embedding(settings.vocabulary, settings.embedding, mask_zero=settings.masks),
                *[
                    cell(settings.units, return_sequences=True, **how)
                    for _ in range(settings.layers)
                ],
                Dense(settings.classes, activation="softmax"),
            ]
        )
        self.model.build((None, None))
        first = protocol.first_weights(settings)
        weights = [first.embedding, *[w for layer in first.layers for w in layer]]
        self.model.set_weights([*weights, first.kernel, first.bias])
        self.batches = protocol.random_batches(settings)

    def versions(self):
        summary = []
        self.model.summary(print_fn=lambda text: summary.extend(text.splitlines()))
        layer = next(line for line in summary if self.model.layers[1].name + " (" in line)
        return {
            "recurrence": layer.split("  ")[-1].strip(),
            "seqnet": seqnet.__version__,
            "pytensor": pytensor.__version__,
            "numpy": np.__version__,
        }

    def compile(self):
        name = self.settings.optimizer
        optimizer = seqnet.optimizers.get(name)
        optimizer.learning_rate = protocol.RATES[name]
        self.model.compile(optimizer, "sparse_categorical_crossentropy")

    def step(self, number):
        x, y = self.batches[number % len(self.batches)]
        if getattr(self.settings, "predict", False):
            return float(self.model.predict_on_batch(x)[0, 0, 0])
        return float(self.model.train_on_batch(x, y))

    def predict_last(self, rows, steps, units, features):
        """Return the memory that predicting the last output of long sequences takes."""
        how = PATHS[getattr(self.settings, "path", None)]
        layer = CELLS[self.settings.cell](units, **how)
        model = seqnet.Model([layer])
        x = np.random.default_rng(0).normal(size=(rows, steps, features)).astype("float32")
        model.predict(x[:, :100], verbose=0)
        before = protocol.peak_mb()
        model.predict(x, verbose=0)
        peak = protocol.peak_mb()
        return {"peak_mb": peak, "after_import_mb": before, "growth_mb": peak - before}

    def overhead(self, batches, verbose):
        """Return milliseconds per batch for the compiled function, train_on_batch and fit."""
        x, y = self.examples(batches)
        size = self.settings.batch
        pieces = [slice(k * size, (k + 1) * size) for k in range(batches)]
        # Record the arguments of the compiled function while train_on_batch calls it.
        ((key, function),) = self.model.steps.functions.items()
        ready = []
        self.model.steps.functions[key] = lambda *given: ready.append(given) or function(*given)
        for rows in pieces:
            self.model.train_on_batch(x[rows], y[rows])
        self.model.steps.functions[key] = function

        start = time.perf_counter()
        for given in ready:
            function(*given)
        bare = time.perf_counter() - start
        start = time.perf_counter()
        for rows in pieces:
            self.model.train_on_batch(x[rows], y[rows])
        on_batch = time.perf_counter() - start
        start = time.perf_counter()
        self.model.fit(x, y, batch_size=size, epochs=1, verbose=verbose)
        fit = time.perf_counter() - start
        return {
            name: 1e3 * seconds / batches
            for name, seconds in (("bare", bare), ("train_on_batch", on_batch), ("fit", fit))
        }

    def epoch_with(self, batches, way):
        """Return milliseconds per batch of an epoch, in total and in callbacks.

        The time in callbacks includes the computation of their logs.
        """
        x, y = self.examples(batches)
        with open(os.devnull, "w") as nowhere, tempfile.TemporaryDirectory() as folder:
            bar = ProgressBar(file=Screen(nowhere) if way == "bar" else nowhere)
            watching = [
                TerminateOnNaN(),
                EarlyStopping("loss", patience=9, restore_best_weights=True),
                ReduceLROnPlateau("loss"),
                CSVLogger(f"{folder}/log.csv"),
            ]
            callbacks = {"history": [], "bar": [bar], "lines": [bar], "all": [*watching, bar]}[way]
            clock = Clock()
            for callback in callbacks:
                own = CallbackList([callback])
                for hook in filter(own.with_hooks, HOOKS):
                    setattr(callback, hook, clock.around(getattr(callback, hook)))
            logs, Totals.logs = Totals.logs, clock.around(Totals.logs)
            start = time.perf_counter()
            self.model.fit(x, y, self.settings.batch, verbose=0, callbacks=callbacks)
            whole = time.perf_counter() - start
            Totals.logs = logs
            return {"ms": 1e3 * whole / batches, "callbacks_ms": 1e3 * clock.seconds / batches}

    def examples(self, batches):
        """Return the arrays of a number of consecutive batches."""
        return [
            np.concatenate([self.batches[k % len(self.batches)][part] for k in range(batches)])
            for part in (0, 1)
        ]

    def generate(self, count, temperature, how, streams=1):
        """Generate from character 1; return the characters per second and those of a stream."""
        if how != "generate":
            raise protocol.UnsupportedError("only how='generate' here")
        primes = [[1]] * streams
        self.model.generate(primes, 5, temperature=temperature)
        start = time.perf_counter()
        written = self.model.generate(primes, count, temperature=temperature, seed=1)[0]
        seconds = time.perf_counter() - start
        return {"per_second": streams * count / seconds, "written": written.tolist()}


if __name__ == "__main__":
    protocol.serve(Trainer)

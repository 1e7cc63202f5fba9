"""Trains with a handwritten Theano 1.0.5 model, with its scan. Runs under Python 3.7."""

from __future__ import annotations

import os

import protocol  # first: it starts the clock of the import time

os.environ["THEANO_FLAGS"] = protocol.flags(
    "THEANO_FLAGS", "floatX=float32,blas.ldflags=-lopenblas"
)

# isort: split
import handwritten
import numpy as np
import theano
import theano.tensor


class Trainer(handwritten.Trainer):
    """See `protocol.Session`."""

    root, tensor = theano, theano.tensor

    def scan(self, step, sequences, states, constants):
        result, _ = theano.scan(step, sequences, states, constants, strict=True)
        return result if isinstance(result, list) else [result]

    def cross_entropy(self, logits, targets):
        probabilities = theano.tensor.nnet.softmax(logits)
        return theano.tensor.nnet.categorical_crossentropy(probabilities, targets).mean()

    def versions(self):
        blas = theano.config.blas.ldflags or "NumPy's"
        return {"theano": theano.__version__, "numpy": np.__version__, "blas": blas}


if __name__ == "__main__":
    protocol.serve(Trainer)

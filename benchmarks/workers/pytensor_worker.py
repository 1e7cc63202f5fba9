"""Trains with a handwritten PyTensor model, with its scan and its default mode."""

from __future__ import annotations

import os

import protocol  # first: it starts the clock of the import time

os.environ["PYTENSOR_FLAGS"] = protocol.flags("PYTENSOR_FLAGS", "floatX=float32")

# isort: split
import handwritten
import numpy as np
import pytensor
import pytensor.tensor as pt


class Trainer(handwritten.Trainer):
    """See `protocol.Session`."""

    root, tensor = pytensor, pt

    def scan(self, step, sequences, states, constants):
        result = pytensor.scan(
            step, sequences, states, constants, strict=True, return_updates=False
        )
        return result if isinstance(result, list) else [result]

    def cross_entropy(self, logits, targets):
        rows = pt.arange(targets.shape[0])
        return -pt.special.log_softmax(logits, axis=-1)[rows, targets].mean()

    def versions(self):
        return {
            "pytensor": pytensor.__version__,
            "numpy": np.__version__,
            "mode": f"{pytensor.config.mode}, linker {pytensor.config.linker}",
        }


if __name__ == "__main__":
    protocol.serve(Trainer)

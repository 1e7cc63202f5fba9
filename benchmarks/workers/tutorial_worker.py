"""The experiment of "Unrolling loops in Theano" (reference 000), for PyTensor and for Theano 1.0.5.

One sequence of `length` numbers below `vocabulary`, ``h_t = tanh(Wh h + Wi[x_t])``, a softmax over
the vocabulary, and the gradients of Wh, Wi and Wo stored in shared variables; there is no update.

The setting ``form`` is ``unroll`` or ``scan``, both with ``Wi[x_t]`` inside the loop as in the
tutorial, or ``scan-hoisted``, with ``Wi[x]`` computed for all steps before the loop. Runs with
Theano under Python 3.7, and with PyTensor under later versions.
"""

from __future__ import annotations

import os

import protocol  # first: it starts the clock of the import time

# isort: split
import numpy as np

os.environ["THEANO_FLAGS"] = protocol.flags(
    "THEANO_FLAGS", "floatX=float32,blas.ldflags=-lopenblas"
)
os.environ["PYTENSOR_FLAGS"] = protocol.flags("PYTENSOR_FLAGS", "floatX=float32")
try:
    import theano as root
    from theano import tensor
except ImportError:
    import pytensor as root
    from pytensor import tensor

T = tensor
NEW = root.__name__ == "pytensor"


class Trainer:
    """See `protocol.Session`; a step computes the loss and the gradients."""

    def __init__(self, settings):
        self.settings = settings
        units, vocabulary, length = settings.units, settings.vocabulary, settings.length
        random = np.random.RandomState(20160825)

        def normal(*shape):
            return (random.randn(*shape) / np.sqrt(units)).astype("float32")

        numbers = random.randint(0, vocabulary, length + 1).astype("int32")
        start = random.random_sample(units).astype("float32")
        weights = [normal(units, units), normal(vocabulary, units), normal(units, vocabulary)]
        self.given = [numbers[:-1], numbers[1:], start, *weights]

    def compile(self):
        x, y, start = T.ivector("x"), T.ivector("y"), T.fvector("h0")
        Wh, Wi, Wo = weights = [T.fmatrix(name) for name in ("Wh", "Wi", "Wo")]
        history = self.history(x, start, Wh, Wi)
        logits = T.dot(history, Wo)
        if NEW:
            picked = T.special.log_softmax(logits, axis=-1)[T.arange(x.shape[0]), y]
            loss = -picked.mean()
        else:
            loss = T.nnet.categorical_crossentropy(T.nnet.softmax(logits), y).mean()
        self.shared = [root.shared(np.zeros_like(v)) for v in self.given[3:]]
        states = root.shared(np.zeros((self.settings.length, self.settings.units), "float32"))
        gradients = [g.astype("float32") for g in root.grad(loss, weights)]
        updates = [(self.shared[k], gradients[k]) for k in range(3)] + [(states, history)]
        self.function = root.function([x, y, start, *weights], loss, updates=updates)

    def history(self, x, start, Wh, Wi):
        """Return the states, (time, units)."""
        form = self.settings.form
        if form == "unroll":
            h, states = start, []
            for t in range(self.settings.length):
                h = T.tanh(T.dot(Wh, h) + Wi[x[t]])
                states.append(h)
            return T.stack(states)
        more = {"return_updates": False} if NEW else {}
        if form == "scan":
            result = root.scan(
                lambda x_t, h, Wh, Wi: T.tanh(T.dot(Wh, h) + Wi[x_t]),
                sequences=[x],
                outputs_info=[start],
                non_sequences=[Wh, Wi],
                **more,
            )
        else:
            result = root.scan(
                lambda e_t, h, Wh: T.tanh(T.dot(Wh, h) + e_t),
                sequences=[Wi[x]],
                outputs_info=[start],
                non_sequences=[Wh],
                **more,
            )
        return result if NEW else result[0]

    def versions(self):
        return {root.__name__: root.__version__, "numpy": np.__version__}

    def step(self, number):
        return float(self.function(*self.given))

    def save_gradients(self, path):
        """Write the gradients of Wh, Wi and Wo to a file."""
        np.savez(path, *[v.get_value() for v in self.shared])


if __name__ == "__main__":
    protocol.serve(Trainer)

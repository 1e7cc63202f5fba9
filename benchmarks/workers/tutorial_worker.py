"""The experiment of "Unrolling loops in Theano" (reference 000) in several systems.

One sequence of `length` numbers below `vocabulary`, ``h_t = tanh(Wh h + Wi[x_t])``, a softmax over
the vocabulary, and the gradients of Wh, Wi and Wo stored in shared variables; there is no update.
As in the tutorial, a function of the numbers, the first state and the three matrices returns the
loss.

The setting ``system`` is ``pytensor``, ``theano``, ``seqnet`` or ``numpy``. The setting ``form`` of
the first two is ``unroll`` or ``scan``, both with ``Wi[x_t]`` inside the loop as in the tutorial,
or ``scan-hoisted``, with ``Wi[x]`` computed for all steps before the loop; that of seqnet is
``unroll``, ``scan`` or ``fused``; that of NumPy ``loop``, or
``float64``. Runs with Theano under Python 3.7, and under later versions.
"""

from __future__ import annotations

import os
import sys

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
sys.setrecursionlimit(20_000)  # Theano traverses an unrolled graph by recursion
PATHS = {"fused": {"fused": True}, "scan": {"fused": False}, "unroll": {"unroll": True}}


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
        self.gradients = []

    def versions(self):
        return {"numpy": np.__version__}

    def step(self, number):
        return float(self.function(*self.given))

    def save_gradients(self, path):
        """Write the gradients of Wh, Wi and Wo to a file."""
        np.savez(path, *[getattr(g, "get_value", lambda g=g: g)() for g in self.gradients])


class Symbolic(Trainer):
    """The tutorial's graph in Theano or PyTensor."""

    def compile(self, **options):
        x, y, start = T.ivector("x"), T.ivector("y"), T.fvector("h0")
        Wh, Wi, Wo = weights = [T.fmatrix(name) for name in ("Wh", "Wi", "Wo")]
        history = self.history(x, start, Wh, Wi)
        logits = T.dot(history, Wo)
        if NEW:
            picked = T.special.log_softmax(logits, axis=-1)[T.arange(x.shape[0]), y]
            loss = -picked.mean()
        else:
            loss = T.nnet.categorical_crossentropy(T.nnet.softmax(logits), y).mean()
        self.gradients = [root.shared(np.zeros_like(v)) for v in self.given[3:]]
        states = root.shared(np.zeros((self.settings.length, self.settings.units), "float32"))
        found = [g.astype("float32") for g in root.grad(loss, weights)]
        updates = [(self.gradients[k], found[k]) for k in range(3)] + [(states, history)]
        self.function = self.compiled([x, y, start, *weights], loss, updates, **options)

    def compiled(self, inputs, loss, updates, **options):
        """Return the function; `options` are those of ``function``."""
        return root.function(inputs, loss, updates=updates, **options)

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

    def profile(self, steps, share=0.05):
        """Return what takes more than a share of the time of PyTensor's loops, by operation."""
        from pytensor.compile.mode import Mode
        from pytensor.scan.op import Scan

        with root.config.change_flags(profile=True, profile_memory=True):
            self.compile(mode=Mode(linker="vm", optimizer="fast_run"))
            for number in range(steps):
                self.step(number)
        lines = []
        loops = [n.op for n in self.function.maker.fgraph.toposort() if isinstance(n.op, Scan)]
        for name, op in zip(("forward", "gradient"), loops, strict=True):
            found = op.fn.profile
            for key, seconds in sorted(found.apply_time.items(), key=lambda item: -item[1]):
                node = key[1]
                if seconds > share * sum(found.apply_time.values()):
                    lines.append(
                        {
                            "loop": name,
                            "operation": str(node.op),
                            "shape": str(found.variable_shape.get(node.outputs[0])),
                            "calls": found.apply_callcount[key] // steps,
                            "ms": 1e3 * seconds / steps,
                        }
                    )
        return lines


class Seqnet(Symbolic):
    """The same graph, with the loop of a seqnet layer, and compiled by seqnet."""

    def history(self, x, start, Wh, Wi):
        from pytensor.graph.replace import graph_replace

        from seqnet.layers import SimpleRNN

        class Rows(SimpleRNN):
            """Adds its input to the product with the state, without a kernel of its own."""

            def project(self, inputs, drawn):
                return inputs

        options = PATHS[self.settings.form]
        layer = Rows(self.settings.units, use_bias=False, return_sequences=True, **options)
        steps = self.settings.length if self.settings.form == "unroll" else None
        rows = T.specify_shape(Wi[x], (steps, self.settings.units))
        states = layer(rows[None], initial_state=[start])[0]
        return graph_replace([states], {layer.recurrent_kernel: Wh.T})[0]

    def compiled(self, inputs, loss, updates, **options):
        from seqnet import backend

        function = backend.compile(inputs, [loss], dict(updates), name="tutorial")
        return lambda *given: function(*given)[0]

    def versions(self):
        import seqnet

        return {"seqnet": seqnet.__version__, **super().versions()}


class Numpy(Trainer):
    """The same in NumPy, with the gradients derived by hand; in float32, or in float64."""

    def compile(self):
        self.function = self.run
        if self.settings.form == "float64":
            self.given = [v if v.dtype.kind == "i" else v.astype("float64") for v in self.given]
        self.gradients = [np.zeros_like(v) for v in self.given[3:]]

    def run(self, x, y, start, Wh, Wi, Wo):
        steps = np.arange(len(x))
        of_Wh, of_Wi, of_Wo = self.gradients
        history = np.empty((len(x) + 1, len(start)), start.dtype)
        history[0] = start
        for t, row in enumerate(x):
            np.tanh(Wh.dot(history[t]) + Wi[row], out=history[t + 1])
        states = history[1:]
        logits = states.dot(Wo)
        logits -= logits.max(axis=1, keepdims=True)
        picked = logits[steps, y]
        np.exp(logits, out=logits)
        total = logits.sum(axis=1, keepdims=True)
        loss = (np.log(total[:, 0]) - picked).mean()

        of_logits = np.divide(logits, total * len(x), out=logits)
        of_logits[steps, y] -= 1.0 / len(x)
        np.dot(states.T, of_logits, out=of_Wo)
        of_states = of_logits.dot(Wo.T)
        slopes = 1 - states**2
        of_sums = np.empty_like(states)
        carried = np.zeros_like(start)
        for t in reversed(range(len(x))):
            of_sums[t] = (of_states[t] + carried) * slopes[t]
            carried = Wh.T.dot(of_sums[t])
        np.dot(of_sums.T, history[:-1], out=of_Wh)
        of_Wi[...] = 0
        np.add.at(of_Wi, x, of_sums)
        return loss


def trainer(settings):
    """Return the trainer of a system."""
    return {"seqnet": Seqnet, "numpy": Numpy}.get(settings.system, Symbolic)(settings)


if __name__ == "__main__":
    protocol.serve(trainer)

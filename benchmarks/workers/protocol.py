"""Shared code of all workers: the line protocol, the clock, the data and the initial weights.

A worker is a process in a separate environment. It reads one command per line on its standard input
and writes one line of JSON for each. Between commands it waits in a read and uses no processor.
Only one command runs at a time.

This file and `handwritten.py` also run under Python 3.7, which Theano needs, and import only NumPy.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import json  # noqa: E402 -- importing is part of what is timed
import os  # noqa: E402
import platform  # noqa: E402
import sys  # noqa: E402
import traceback  # noqa: E402
from types import SimpleNamespace  # noqa: E402

import numpy as np  # noqa: E402

GATES = {"simple_rnn": 1, "gru": 3, "lstm": 4}
RATES = {"sgd": 0.1, "adagrad": 0.01, "adadelta": 1.0, "rmsprop": 0.001, "adam": 0.001}
DEFAULTS = {
    "vocabulary": 65,
    "classes": None,  # of the output; None: the size of the vocabulary
    "embedding": 64,
    "units": 128,
    "layers": 1,
    "batch": 32,
    "length": 50,
    "cell": "lstm",
    "optimizer": "sgd",
    "dtype": "float32",
    "masks": False,  # pad sequences to random lengths of half to all steps
    "go_backwards": False,
    "distinct": 8,  # number of batches, which are repeated in order
    "seed": 1,
}


class UnsupportedError(Exception):
    """A worker does not support the settings."""


def flags(variable, wanted) -> str:
    """Return flags for PyTensor or Theano; values in the environment variable take precedence."""
    return ",".join(filter(None, [wanted, os.environ.get(variable)]))


def refuse(settings, **unsupported) -> None:
    """Raise if settings are not supported by a worker: ``refuse(s, masks=True)``."""
    for name, value in unsupported.items():
        if getattr(settings, name) == value:
            raise UnsupportedError(f"no {name}={value!r} here")


def random_batches(settings) -> list:
    """Return pairs (x, y) of int32 arrays (batch, length), the same for all workers.

    With masks, 0 is padding at the end, and each sequence has half to all of the steps.
    """
    random = np.random.RandomState(settings.seed)  # the same stream in every version of NumPy
    shape = (settings.batch, settings.length)
    batches = []
    for _ in range(settings.distinct):
        x = random.randint(1 if settings.masks else 0, settings.vocabulary, shape)
        y = random.randint(0, settings.classes, shape)
        if settings.masks:
            lengths = random.randint((settings.length + 1) // 2, settings.length + 1, shape[0])
            padding = np.arange(settings.length)[None, :] >= lengths[:, None]
            x[padding] = y[padding] = 0
        batches.append((x.astype("int32"), y.astype("int32")))
    return batches


def first_weights(settings) -> SimpleNamespace:
    """Return the initial weights of all workers, in Keras's layout and gate order.

    `embedding` (vocabulary, embedding); `layers`, a list of (kernel (features, gates * units),
    recurrent_kernel (units, gates * units), bias); `kernel` (units, classes); `bias` (classes,).
    A GRU's bias is (2, 3 * units), any other's (gates * units,). They are large enough that
    losses differ before the fourth digit if two systems compute different functions.
    """
    random = np.random.RandomState(settings.seed + 1)

    def uniform(bound, *shape):
        values = random.random_sample(shape)
        values -= 0.5
        values *= 2 * bound
        return values.astype(settings.dtype)

    units, columns = settings.units, GATES[settings.cell] * settings.units
    bias = (2, columns) if settings.cell == "gru" else (columns,)
    embedding = uniform(1.0, settings.vocabulary, settings.embedding)
    layers = []
    for number in range(settings.layers):
        features = units if number else settings.embedding
        kernel = uniform((3.0 / features) ** 0.5, features, columns)
        recurrent = uniform((2.0 / units) ** 0.5, units, columns)
        layers.append((kernel, recurrent, uniform(0.3, *bias)))
    return SimpleNamespace(
        embedding=embedding,
        layers=layers,
        kernel=uniform((8.0 / units) ** 0.5, units, settings.classes),
        bias=uniform(0.3, settings.classes),
    )


def status_mb(field: str) -> float | None:
    """Return a value of this process from Linux's /proc in MiB, or None on other systems.

    ``VmHWM`` is the largest resident size. It is preferred to `resource.getrusage`, whose
    ``ru_maxrss`` a child process on Linux inherits from its parent.
    """
    try:
        with open("/proc/self/status") as lines:
            for line in lines:
                if line.startswith(field):
                    return int(line.split()[1]) / 1024.0
    except OSError:
        pass
    return None


def peak_mb() -> float:
    """Return the largest resident size of this process so far, in MiB."""
    peak = status_mb("VmHWM")
    if peak is None:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2.0**20
    return peak


class Session:
    """Runs commands on a trainer.

    A trainer is constructed from settings and builds the model with `first_weights`. It has
    ``compile()``, ``step(number)``, which trains on batch `number` and returns the loss before the
    update as a Python float, and ``versions()``; it may have more methods for `call`.
    """

    def __init__(self, trainer_class):
        self.trainer_class = trainer_class
        self.trainer = None
        self.count = 0
        self.import_s = time.perf_counter() - STARTED
        self.after_import_mb = status_mb("VmRSS") or peak_mb()

    def setup(self, text):
        """Build the model: ``setup {settings}``."""
        settings = SimpleNamespace(**dict(DEFAULTS, **json.loads(text)))
        if settings.classes is None:
            settings.classes = settings.vocabulary
        start = time.perf_counter()
        self.trainer = self.trainer_class(settings)
        return {
            "versions": dict(self.trainer.versions(), python=platform.python_version()),
            "import_s": self.import_s,
            "build_s": time.perf_counter() - start,
        }

    def first(self, _):
        """Compile and make the first step; its time includes all one-time work."""
        start = time.perf_counter()
        self.trainer.compile()
        loss = self.trainer.step(0)
        self.count = 1
        return {"ms": 1e3 * (time.perf_counter() - start), "loss": loss}

    def step(self, text):
        """Make steps: ``step 20``; return the time of each."""
        times = []
        loss = None
        for _ in range(int(text)):
            start = time.perf_counter()
            loss = self.trainer.step(self.count)
            times.append(1e3 * (time.perf_counter() - start))
            self.count += 1
        return {"ms": times, "loss": loss}

    def memory(self, _):
        """Return the peak memory of the process."""
        return {"after_import_mb": self.after_import_mb, "peak_mb": peak_mb()}

    def call(self, text):
        """Call a method of the trainer: ``call generate {"count": 100}``."""
        name, _, arguments = text.partition(" ")
        if not hasattr(self.trainer, name):
            raise UnsupportedError(f"nothing to {name} with here")
        return {"result": getattr(self.trainer, name)(**json.loads(arguments or "{}"))}


def serve(trainer_class) -> None:
    """Handle commands until the input ends."""
    session = Session(trainer_class)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that output of libraries is not mistaken for a response
    for line in sys.stdin:
        name, _, rest = line.strip().partition(" ")
        try:
            answer = getattr(session, name)(rest)
        except UnsupportedError as error:
            answer = {"error": str(error)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

"""What all workers share: the line protocol, the clock, the data and the first weights.

A worker is a process in an environment of its own. It reads one command a line on its standard
input and answers each with one line of JSON, so between commands it waits in a read and uses no
processor. A command that is not answered yet is the only thing that runs.

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
    "classes": None,  # of the output; None: as many as the vocabulary
    "embedding": 64,
    "units": 128,
    "layers": 1,
    "batch": 32,
    "length": 50,
    "cell": "lstm",
    "optimizer": "sgd",
    "dtype": "float32",
    "masks": False,  # pad the second half of the sequences' steps, to lengths that vary
    "go_backwards": False,
    "distinct": 8,  # batches that follow each other in turn
    "seed": 1,
}


class UnsupportedError(Exception):
    """A worker has no way to do what the settings ask for."""


def flags(variable, wanted) -> str:
    """Return a configuration for PyTensor or Theano; what the variable has already wins."""
    return ",".join(filter(None, [wanted, os.environ.get(variable)]))


def refuse(settings, **unsupported) -> None:
    """Raise if a setting is not what a worker can do: ``refuse(s, masks=True)``."""
    for name, value in unsupported.items():
        if getattr(settings, name) == value:
            raise UnsupportedError(f"no {name}={value!r} here")


def random_batches(settings) -> list:
    """Return pairs (x, y) of int32 arrays (batch, length), the same for all workers.

    With masks, 0 is padding at the end and each sequence has half to all of the steps.
    """
    random = np.random.RandomState(settings.seed)  # its stream is the same in every NumPy
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
    """Return the weights that every worker starts from, in Keras's layout and gate order.

    `embedding` (vocabulary, embedding); `layers`, a list of (kernel (features, gates * units),
    recurrent_kernel (units, gates * units), bias); `kernel` (units, classes); `bias` (classes,).
    A GRU's bias is (2, 3 * units), any other's (gates * units,). They are large enough for losses
    to differ well before the fourth digit if two systems do not compute the same.
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
    """Return a figure of this process from Linux's /proc, in MiB, or None elsewhere.

    ``VmHWM`` is the largest resident size. It is asked for before `resource.getrusage`, whose
    ``ru_maxrss`` a child process on Linux inherits from the one that started it.
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
    """Answers commands with what a trainer does.

    A trainer is made from settings, which builds the model with `first_weights`. It has
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
        """Compile and make the first step; its time has all that is done once."""
        start = time.perf_counter()
        self.trainer.compile()
        loss = self.trainer.step(0)
        self.count = 1
        return {"ms": 1e3 * (time.perf_counter() - start), "loss": loss}

    def step(self, text):
        """Make steps: ``step 20``; returns the time of each."""
        times = []
        loss = None
        for _ in range(int(text)):
            start = time.perf_counter()
            loss = self.trainer.step(self.count)
            times.append(1e3 * (time.perf_counter() - start))
            self.count += 1
        return {"ms": times, "loss": loss}

    def memory(self, _):
        """Say how much memory the process has used at most."""
        return {"after_import_mb": self.after_import_mb, "peak_mb": peak_mb()}

    def call(self, text):
        """Call a method of the trainer: ``call generate {"count": 100}``."""
        name, _, arguments = text.partition(" ")
        if not hasattr(self.trainer, name):
            raise UnsupportedError(f"nothing to {name} with here")
        return {"result": getattr(self.trainer, name)(**json.loads(arguments or "{}"))}


def serve(trainer_class) -> None:
    """Answer commands until the input ends."""
    session = Session(trainer_class)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
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

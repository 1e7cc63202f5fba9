"""Count the Python functions of seqnet that one small `fit` calls, and the modules they are in.

Two counts are printed: from the call of `Model.fit` to the first batch, and from one batch to the
next. The compiled functions exist already (an earlier `fit` of the same model compiled them), so
the building of graphs is not counted. Neither are comprehensions, nor what the compiled functions
run themselves (`RUN_BY_THE_GRAPH`).

    python benchmarks/count_calls.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import seqnet
from seqnet.callbacks import Callback
from seqnet.layers import LSTM, Dense, Embedding

ROOT = str(Path(seqnet.__file__).parent)
RUN_BY_THE_GRAPH = ("ops/", "kernels/", "native/", "lowering.py", "backend/lowering.py")


class Counter:
    """Collects the calls of seqnet's own functions while it is switched on."""

    def __init__(self):
        self.calls: list[tuple[str, str]] = []

    def __call__(self, frame, event, argument):
        """Take an event of `sys.setprofile`."""
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(ROOT) and "<" not in code.co_name:
            file = code.co_filename.removeprefix(f"{ROOT}/")
            if not file.startswith(RUN_BY_THE_GRAPH):
                self.calls.append((file, code.co_qualname))

    def result(self) -> dict:
        """Return what was counted, and forget it."""
        calls, self.calls = self.calls, []
        return {
            "calls": len(calls),
            "functions": sorted({f"{file}:{name}" for file, name in calls}),
            "modules": sorted({file for file, _ in calls}),
        }


class Marks(Callback):
    """Takes the counts when the first and the third batch begin."""

    adds = ()

    def __init__(self, counter: Counter):
        self.counter = counter
        self.found: list[dict] = []

    def on_train_batch_begin(self, batch, logs=None):
        self.found.append(self.counter.result())


def main() -> None:
    """Print both counts as one line of JSON, with ``-v`` the names too."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 10, (64, 5)), rng.integers(0, 2, 64)
    model = seqnet.Model([Embedding(10, 4), LSTM(8), Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(X, y, 8, verbose=0)
    counter = Counter()
    marks = Marks(counter)
    sys.setprofile(counter)
    model.fit(X, y, 8, verbose=0, callbacks=[marks])
    sys.setprofile(None)
    for name, counts in (("before the first batch", marks.found[0]), ("a batch", marks.found[2])):
        numbers = {key: v if isinstance(v, int) else len(v) for key, v in counts.items()}
        print(json.dumps({"counted": name} | numbers))
        if "-v" in sys.argv:
            print("   ", *counts["functions"], sep="\n    ")


if __name__ == "__main__":
    main()

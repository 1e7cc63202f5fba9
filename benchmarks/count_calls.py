"""Count the Python functions of seqnet that one small `fit` calls, and the modules they are in.

Two counts are printed: from the call of `Model.fit` to the first batch, and from one batch to the
next. Each has the calls, the functions, their modules, the pairs of calling and called modules, and
the depth: the largest number of seqnet's functions on the stack. The compiled functions
exist already (an earlier `fit` of the same model compiled them), so the building of graphs is not
counted. Comprehensions and code run by compiled functions (`RUN_BY_THE_GRAPH`) are not counted.

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
RUN_BY_THE_GRAPH = ("ops/", "kernels/", "native/", "backend/", "lowering.py")


def file_of(frame) -> str:
    """Return the file of a frame in seqnet; empty for other frames and for compiled functions."""
    name = frame.f_code.co_filename
    file = name.removeprefix(f"{ROOT}/") if name.startswith(ROOT) else ""
    return "" if file.startswith(RUN_BY_THE_GRAPH) else file


def callers(frame):
    """Yield the files of seqnet's functions on the stack of a frame, innermost first."""
    while (frame := frame.f_back) is not None:
        if (file := file_of(frame)) and "<" not in frame.f_code.co_name:
            yield file


class Counter:
    """Records calls of seqnet's functions while it is active."""

    def __init__(self):
        self.calls: list[tuple[str, str]] = []
        self.edges: set[tuple[str, str]] = set()
        self.depth = 0

    def __call__(self, frame, event, argument):
        """Handle an event of `sys.setprofile`."""
        file = file_of(frame)
        if event == "call" and file and "<" not in frame.f_code.co_name:
            self.calls.append((file, frame.f_code.co_qualname))
            stack = list(callers(frame))
            self.depth = max(self.depth, len(stack) + 1)
            if stack and stack[0] != file:
                self.edges.add((stack[0], file))

    def result(self) -> dict:
        """Return the counts and reset them."""
        calls, self.calls = self.calls, []
        edges, self.edges = self.edges, set()
        depth, self.depth = self.depth, 0
        return {
            "calls": len(calls),
            "functions": sorted({f"{file}:{name}" for file, name in calls}),
            "modules": sorted({file for file, _ in calls}),
            "module_pairs": sorted(" -> ".join(edge) for edge in edges),
            "depth": depth,
        }


class Marks(Callback):
    """Stores the counts when the first and the third batch begin."""

    adds = ()

    def __init__(self, counter: Counter):
        self.counter = counter
        self.found: list[dict] = []

    def on_train_batch_begin(self, batch, logs=None):
        self.found.append(self.counter.result())


def main() -> None:
    """Print both counts as one line of JSON; with ``-v`` also the names."""
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

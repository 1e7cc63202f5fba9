"""Train for a long time and measure memory, open files, threads, and the time of an update.

    python soak.py --updates 20000

A small model is trained on sequences of different lengths, with dropout, validation on rows in a
file, a progress bar, a log, and two callbacks that save after each epoch of 20 updates. The program
ends with status 1 if memory or the number of objects grew more than 5 % after the first tenth, if
files or threads stayed open, or if an update took 20 % longer in the last tenth than in the second.
Times are the lower deciles of epochs, which depend least on other load of the machine.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import seqnet
from seqnet.callbacks import BackupAndRestore, CSVLogger, ModelCheckpoint, ProgressBar
from seqnet.layers import LSTM, Dense, Embedding

BATCH, BATCHES = 10, 20
RNG = np.random.default_rng(0)
SEQUENCES = [RNG.integers(1, 20, length) for length in RNG.integers(3, 13, BATCH * BATCHES)]
CLASSES = RNG.integers(0, 4, BATCH * BATCHES)


class Screen(io.StringIO):
    """A terminal that discards its output."""

    def isatty(self):
        return True

    def write(self, text):
        return len(text)


class Watch(seqnet.callbacks.Callback):
    """Records the resources of the process and the time of updates at the end of each epoch.

    Attributes
    ----------
    found : dict of str to list
        ``ms`` an update, without validation and saving; ``epoch_ms``, with them; ``rss_mb``,
        ``objects``, ``files``, ``threads``.
    """

    def on_train_begin(self, logs=None):
        self.found: dict[str, list] = {}
        self.ended = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        self.begun = time.perf_counter()

    def on_batch_end(self, batch, logs=None):
        self.trained = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        now = time.perf_counter()
        noted = {
            "ms": 1e3 * (self.trained - self.begun) / BATCHES,
            "epoch_ms": 1e3 * (now - self.ended) / BATCHES,
            **held(objects=epoch % 20 == 4),
        }
        for name, value in noted.items():
            self.found.setdefault(name, []).append(value)
        self.ended = now


def held(objects: bool = True) -> dict[str, float]:
    """Return the resources of the process that the system reports; counting objects is slow."""
    found: dict[str, float] = {"threads": threading.active_count()}
    if objects:
        gc.collect()
        found["objects"] = len(gc.get_objects())
    if os.path.exists("/proc/self"):
        status = Path("/proc/self/status").read_text().splitlines()
        found["rss_mb"] = next(int(s.split()[1]) for s in status if s.startswith("VmRSS")) / 1024
        found["files"] = len(os.listdir("/proc/self/fd"))
    return found


def soak(updates: int, folder: Path) -> dict[str, list]:
    """Train for a number of updates; return the measurements of `Watch`."""
    seqnet.set_random_seed(1)
    model = seqnet.Model([Embedding(20, 8), LSTM(8, recurrent_dropout=0.1), Dense(4)])
    model.compile("adam", seqnet.losses.SparseCategoricalCrossentropy(from_logits=True), ["acc"])
    rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", "int32", (40, 12))
    rows[:] = RNG.integers(1, 20, rows.shape)
    watch = Watch()
    callbacks = [
        ProgressBar(file=Screen()),
        CSVLogger(folder / "log.csv"),
        ModelCheckpoint(folder / "best.h5"),
        watch,
        BackupAndRestore(folder / "run.h5"),
    ]
    model.fit(
        SEQUENCES, CLASSES, BATCH, updates // BATCHES, verbose=0, callbacks=callbacks,
        validation_data={"X": rows, "y": CLASSES[:40], "lengths": RNG.integers(3, 13, 40)},
    )  # fmt: skip
    return watch.found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--updates", type=int, default=20_000)
    updates = parser.parse_args().updates
    if updates < 20 * BATCHES:
        parser.error(f"--updates is at least {20 * BATCHES}.")
    with tempfile.TemporaryDirectory() as folder:
        found = soak(updates, Path(folder))
    gc.collect()
    failed = []
    tenth = updates // BATCHES // 10
    print(f"{updates} updates       after 10 %     at the end      growth")
    for name, most in {"rss_mb": 5, "objects": 5, "files": 0, "threads": 0}.items():
        values = found.get(name, [])
        if values:
            before, after = values[min(len(values) // 10, tenth)], values[-1]
            growth = 100 * (after / before - 1)
            failed += [name] if growth > most else []
            print(f"{name:16}  {before:14.1f}  {after:13.1f}  {growth:8.1f} %")
    for name in ("ms", "epoch_ms"):
        parts = found[name][tenth : 2 * tenth], found[name][-tenth:]
        before, after = (np.percentile(part, 10) for part in parts)
        growth = 100 * (after / before - 1)
        failed += [name] if growth > 20 else []
        print(f"{name:16}  {before:14.2f}  {after:13.2f}  {growth:8.1f} %")
    print(f"too much: {', '.join(failed)}" if failed else "nothing grew")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

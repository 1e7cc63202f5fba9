"""Compare the time and memory of training on rows in a file and on rows in memory.

    python benchmarks/data_beyond_memory.py --gigabytes 4

Writes files of tokens and targets into a temporary folder, and trains size A on some batches of
random rows: from a `numpy.memmap`, from contiguous HDF5 and HDF5 in chunks of 256 rows, from a
generator, and from an array in memory, which is measured twice to show random variation. The files
were just written and are in the system's cache, except for `cold`, a memmap that is dropped from
the cache before each turn, as if it did not fit into memory.

The variants alternate. The time of a step is the mean over all batches of a turn except the first;
drawing the order of an epoch is reported separately. Memory is the growth of `RssAnon` of this
process since `fit` began, without mapped pages of files, which the system can reclaim. The goal is
at most 10 % more time and at most 500 MB more memory. Needs Linux.

For a file that does not fit into memory, with ten times the rows of the array:

    python benchmarks/data_beyond_memory.py --gigabytes 40 --ways array,array:again,memmap
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from harness import SIZES, Report, parser, spread, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the seqnet of this repository

import seqnet
from seqnet.layers import LSTM, Dense, Embedding, Softmax

WAYS = (
    "array", "array:again", "memmap", "memmap:batch", "h5py", "h5py:batch", "generator",
    "cold", "chunks", "chunks:batch",
)  # fmt: skip


class Watch(seqnet.callbacks.Callback):
    """Records the end times of batches and the largest memory in use at these times."""

    def on_train_begin(self, logs=None):
        self.ends, self.peak_mb = [], 0.0
        self.start = time.perf_counter()

    def on_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.first = time.perf_counter()

    def on_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())
        if batch % 20 == 0:
            self.peak_mb = max(self.peak_mb, anonymous_mb())

    @property
    def step_ms(self) -> float:
        return 1e3 * float(np.mean(np.diff(self.ends)))


def anonymous_mb() -> float:
    """Return the anonymous memory of this process, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def repeated(block: np.ndarray, rows: int) -> list[np.ndarray]:
    """Return a block repeated to a number of rows."""
    return [block[: rows - start] for start in range(0, rows, len(block))]


def write_rows(path: Path, kind: str, block: np.ndarray, rows: int) -> None:
    """Write inputs and targets, each a block repeated to a number of rows."""
    shape = (rows, *block.shape[1:])
    if kind in ("h5py", "chunks"):
        file = h5py.File(path, "w")
        chunks = (256, *shape[1:]) if kind == "chunks" else None
        targets = [file.create_dataset(n, shape, block.dtype, chunks=chunks) for n in "xy"]
    else:
        names = [path.with_suffix(f".{kind}.{name}.npy") for name in "xy"]
        targets = [np.lib.format.open_memmap(name, "w+", block.dtype, shape) for name in names]
    for target in targets:
        start = 0
        for part in repeated(block, rows):
            target[start : start + len(part)] = part
            start += len(part)
    if kind in ("h5py", "chunks"):
        file.close()
    os.sync()  # otherwise it is written while others are timed


def forget(path: Path) -> None:
    """Drop a file from the system's cache; pages that are mapped by a process would stay."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def generated(x, y, batch: int):
    """Yield batches of consecutive rows endlessly."""
    while True:
        for start in range(0, len(x) - batch, batch):
            yield x[start : start + batch], y[start : start + batch]


def main(arguments=None) -> None:
    result = parser(__doc__)
    add = result.add_argument
    add("--gigabytes", type=float, default=4.0, help="of the file")
    add("--memory", type=float, default=4.0, help="most gigabytes in memory to compare with")
    add("--size", default="A", choices=list(SIZES))
    add("--ways", default=",".join(WAYS))
    add("--batches", type=int, default=150, help="in a turn")
    add("--rounds", type=int, default=5)
    options = result.parse_args(arguments)
    vocabulary, embedding, units, _, batch, length = SIZES[options.size]
    rows = int(options.gigabytes * 1e9 / (8 * length))
    ways = options.ways.split(",")
    kinds = dict.fromkeys(way.partition(":")[0] for way in ways)
    files = [kind for kind in kinds if kind not in ("array", "generator")]
    report = Report("data_beyond_memory", options)
    logging.getLogger("seqnet").setLevel(logging.ERROR)

    with tempfile.TemporaryDirectory() as folder:
        free = shutil.disk_usage(folder).free
        if free < 1.1 * len(files) * options.gigabytes * 1e9:
            sys.exit(f"{folder} has {free / 1e9:.1f} GB left: choose fewer.")
        block = np.random.default_rng(0).integers(0, vocabulary, (100_000, length), "int32")
        path = Path(folder) / "rows"
        for kind in files:
            write_rows(path.with_suffix(f".{kind}"), kind, block, rows)
        layers = [
            Embedding(vocabulary, embedding),
            LSTM(units, return_sequences=True),
            Dense(vocabulary),
            Softmax(),
        ]
        model = seqnet.Model(layers)
        model.compile("adam", "sparse_categorical_crossentropy")
        held = int(rows * min(1, options.memory / options.gigabytes))
        arrays = tuple(np.concatenate(repeated(block, held)) for _ in "xy")
        watch = Watch()

        def sources(way):
            kind = way.partition(":")[0]
            if kind == "array":
                return arrays
            if kind == "generator":
                return (generated(*arrays, batch),)
            if kind in ("h5py", "chunks"):
                file = h5py.File(path.with_suffix(f".{kind}"), "r")
                return file["x"], file["y"]
            names = [path.with_suffix(f".{kind}.{n}.npy") for n in "xy"]
            if kind == "cold":
                for name in names:
                    forget(name)
            return tuple(np.load(name, mmap_mode="r") for name in names)

        anew = ("generator", "cold")
        opened = {way: sources(way) for way in ways if way not in anew}  # the pages stay mapped

        def turn(way, batches) -> tuple[float, float, float]:
            gc.collect()
            given = sources(way) if way in anew else opened[way]
            before = anonymous_mb()
            model.fit(
                *given, batch_size=batch, steps_per_epoch=batches, verbose=0, callbacks=[watch],
                shuffle="batch" if way.endswith(":batch") else True,
            )  # fmt: skip
            return watch.step_ms, watch.peak_mb - before, 1e3 * (watch.first - watch.start)

        for way in ways:
            turn(way, 5)
        report.begin()
        found: dict[str, list] = {way: [] for way in ways}
        for number in range(options.rounds):
            for way in ways if number % 2 == 0 else ways[::-1]:
                found[way].append(turn(way, options.batches))
    lines = [["way", "ms a step", "over an array %", "growth MB", "ms to the first batch"]]
    for way in ways:
        steps, growth, start = (list(values) for values in zip(*found[way], strict=True))
        base = [f[0] for f in found.get("array", found[way])]
        over = spread([100 * (s / b - 1) for s, b in zip(steps, base, strict=True)])
        report.add(
            way=way, gigabytes=options.gigabytes, rows=rows, size=options.size,
            ms=spread(steps), over_percent=over, growth_mb=max(growth), first_ms=spread(start),
        )  # fmt: skip
        figures = (spread(steps)["median"], over["median"], max(growth), spread(start)["median"])
        lines.append([way, f"{figures[0]:.2f}", *[f"{f:.1f}" for f in figures[1:]]])
    table(lines)


if __name__ == "__main__":
    main()

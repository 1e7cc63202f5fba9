"""Compare the cost of ragged sequences with that of the same sequences in a padded array.

    python benchmarks/ragged.py

One process alternates epochs of `fit` with the same sequences: as a list, as an array padded to the
longest, with a mask, and packed by `seqnet.data.pack`, several in a row, with fewer rows in a batch
so that a batch has as many sequences. The mean length is about a quarter of the longest (a
truncated exponential distribution). The numbers of steps include padding.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import numpy as np
from harness import Report, parser, spread, table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import seqnet
from seqnet.data.dataset import tree_items
from seqnet.layers import LSTM, Dense, Embedding
from seqnet.training.step import CompiledSteps

VOCABULARY = 1000


def sequences(count: int, longest: int) -> list[np.ndarray]:
    """Return sequences of tokens; the longest has the given length."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(1 + rng.exponential(longest / 4, count).astype(int), longest)
    lengths[0] = longest
    return [rng.integers(1, VOCABULARY, n) for n in lengths]


def new_model(units: int, with_resets: bool) -> seqnet.Model:
    """Return a model of the next token, whose LSTM takes resets or not."""
    words = seqnet.Input((None,), name="x")
    resets = seqnet.Input((None,), dtype="bool", name="resets")
    options = {"resets": resets} if with_resets else {}
    steps = LSTM(units, return_sequences=True)(Embedding(VOCABULARY, 64)(words), **options)
    output = Dense(VOCABULARY, activation="softmax")(steps)
    model = seqnet.Model([words, resets] if with_resets else words, output)
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def main(arguments=None) -> None:
    result = parser(__doc__)
    result.add_argument("--sequences", type=int, default=640)
    result.add_argument("--longest", type=int, default=100)
    result.add_argument("--units", type=int, default=128)
    result.add_argument("--batch-size", type=int, default=32)
    result.add_argument("--row", type=int, help="steps of a packed row; by default the longest")
    result.add_argument("--rounds", type=int, default=5)
    options = result.parse_args(arguments)
    logging.getLogger("seqnet").setLevel(logging.ERROR)
    x = sequences(options.sequences, options.longest)
    lengths = [len(row) for row in x]
    padded = seqnet.data.pad_sequences(x, padding="post")
    mask = np.arange(options.longest) < np.array(lengths)[:, None]
    began = time.perf_counter()
    packed = seqnet.data.pack(x, x, length=options.row)
    pack_s = time.perf_counter() - began
    model, with_resets = new_model(options.units, False), new_model(options.units, True)
    size = options.batch_size
    packed_size = max(1, round(size * len(packed) / len(x)))
    ways = {
        "padded": (model, (padded, padded), {"mask": mask, "batch_size": size}),
        "list": (model, (x, x), {"batch_size": size}),
        "packed": (with_resets, (packed,), {"batch_size": packed_size}),
    }
    steps: dict[str, list] = {way: [] for way in ways}
    seconds: dict[str, list] = {way: [] for way in ways}
    current, train = "", CompiledSteps.train

    def count(compiled, batch, *states):
        steps[current].append(tree_items(batch.inputs, "")[0][1].size)
        return train(compiled, batch, *states)

    CompiledSteps.train = count
    report = Report("ragged", options)
    for number in range(options.rounds + 1):  # the first round compiles and is not measured
        if number == 1:
            report.begin()
        for current, (trained, data, more) in ways.items():
            steps[current].clear()
            began = time.perf_counter()
            trained.fit(*data, verbose=0, **more)
            if number:
                seconds[current].append(time.perf_counter() - began)
    over = {
        way: spread([a / b for a, b in zip(seconds[way], seconds["padded"], strict=True)])
        for way in ways
        if way != "padded"
    }
    record = report.add(
        sequences=options.sequences,
        longest=options.longest,
        mean_length=float(np.mean(lengths)),
        units=options.units,
        batch_size=options.batch_size,
        rows=len(packed),
        pack_s=pack_s,
        steps={way: sum(counts) for way, counts in steps.items()},
        updates={way: len(counts) for way, counts in steps.items()},
        epoch_s={way: spread(values) for way, values in seconds.items()},
        over_padded=over,
    )
    rows = [["passed as", "steps", "updates", "epoch s", "over padded"]]
    for way in ways:
        share = over[way]["median"] if way in over else 1.0
        median = record["epoch_s"][way]["median"]
        counts = record["steps"][way], record["updates"][way]
        rows.append([way, *counts, f"{median:.3f}", f"{share:.2f}"])
    table(rows)


if __name__ == "__main__":
    main()

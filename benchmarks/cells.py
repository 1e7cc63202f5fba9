"""What do options and own cells cost beside the plain LSTM, in training? (Kernels only.)

    python benchmarks/cells.py --units 128 --batch 32 --length 50

The cells are those of the contract tests. They take turns in one process: a round is some steps of
each, and every other round goes the other way round. The ratio is that of medians, round by round.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from harness import Report, flat, parser, ratios, spread, table

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

CELLS = {
    "lstm": ("lstm", {}),
    "lstm, recurrent_dropout": ("lstm", {"recurrent_dropout": 0.2}),
    "lstm, recurrent_dropout_per_gate": (
        "lstm",
        {"recurrent_dropout": 0.2, "recurrent_dropout_per_gate": True},
    ),
    "peephole": ("peephole", {}),
    "layer_norm_lstm": ("layer_norm_lstm", {}),
}
PLAIN = "lstm"


def model_of(cell: str, own: dict, units: int):
    """Return a compiled model of one layer that must run as a kernel."""
    import cells

    import seqnet

    model = seqnet.Model([cells.CELLS[cell][0](units, fused=True, return_sequences=True, **own)])
    model.compile("sgd", "mse")
    return model


def main(arguments=None) -> None:
    result = parser(__doc__)
    for name, value in (("units", 128), ("batch", 32), ("length", 50), ("features", 64)):
        result.add_argument(f"--{name}", type=int, default=value)
    result.add_argument("--rounds", type=int, default=12)
    result.add_argument("--steps", type=int, default=20)
    options = result.parse_args(arguments)
    rng, report = np.random.default_rng(0), Report("cells", options)
    x = rng.normal(size=(options.batch, options.length, options.features)).astype("float32")
    y = np.zeros((options.batch, options.length, options.units), "float32")
    models, first_s = {}, {}
    for name, (cell, own) in CELLS.items():
        models[name] = model_of(cell, own, options.units)
        start = time.perf_counter()
        models[name].train_on_batch(x, y)
        first_s[name] = time.perf_counter() - start
    report.begin()
    times: dict[str, list] = {name: [] for name in models}
    for number in range(options.rounds):
        for name in list(models) if number % 2 == 0 else list(models)[::-1]:
            found = []
            for _ in range(options.steps):
                start = time.perf_counter()
                models[name].train_on_batch(x, y)
                found.append((time.perf_counter() - start) * 1e3)
            times[name].append(found)
    rows = [["cell", "step ms", "best ms", "it / lstm", "spread", "first s"]]
    found = {}
    for name in models:
        step, ratio = spread(flat(times[name])), ratios(times, name, PLAIN)
        best = min(flat(times[name]))
        found[name] = {"step_ms": step, "best_ms": best, "ratio": ratio, "first_s": first_s[name]}
        rows.append(
            [
                name,
                f"{step['median']:.2f}",
                f"{best:.2f}",
                f"{ratio['median']:.2f}",
                f"{ratio['q1']:.2f}-{ratio['q3']:.2f}",
                f"{first_s[name]:.2f}",
            ]
        )
    sizes = {n: getattr(options, n) for n in ("units", "batch", "length", "features")}
    report.add(settings=sizes, cells=found)
    table(rows)


if __name__ == "__main__":
    main()

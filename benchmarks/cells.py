"""What do options and own cells cost beside the plain LSTM, in training? (Kernels only.)

    python benchmarks/cells.py --units 128 --batch 32 --length 50
    python benchmarks/cells.py --long

With `--long` the question is what a loop without a matrix product gains: minGRU at 1,000 steps
against the GRU of seqnet and of PyTorch, each in a process (`workers/recurrence_worker.py`).

The cells are those of the contract tests. They take turns in one process: a round is some steps of
each, and every other round goes the other way round. The ratio is that of medians, round by round.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import numpy as np
from harness import (
    Report,
    Worker,
    WorkerError,
    flat,
    parser,
    ratios,
    spread,
    table,
    take_turns,
)

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
LONG = {
    "min_gru": ("seqnet:recurrence", "min_gru"),
    "gru": ("seqnet:recurrence", "gru"),
    "PyTorch's nn.GRU": ("pytorch:recurrence", "gru"),
}


def model_of(cell: str, own: dict, units: int):
    """Return a compiled model of one layer that must run as a kernel."""
    import cells

    import seqnet

    model = seqnet.Model([cells.CELLS[cell][0](units, fused=True, return_sequences=True, **own)])
    model.compile("sgd", "mse")
    return model


def compare_long(options) -> None:
    """Time the layers of `LONG` in turns, and print how many times minGRU's step each takes."""
    report, rows = (
        Report("cells_long", options),
        [["layer", "step ms", "quartiles", "it / min_gru"]],
    )
    sizes = {n: getattr(options, n) for n in ("units", "batch", "length", "features")}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, (side, cell) in LONG.items():
            try:
                worker = Worker(side, {**sizes, "cell": cell})
            except WorkerError as error:
                if side.startswith("seqnet"):
                    sys.exit(str(error))
                print(f"Left out: {error}", file=sys.stderr)
                continue
            workers[name] = stack.enter_context(worker)
            worker.ask("first")
        report.begin()
        times = take_turns(workers, options.rounds, options.steps)
    found = {}
    for name in times:
        step, ratio = spread(flat(times[name])), ratios(times, name, "min_gru")
        found[name] = {"step_ms": step, "ratio": ratio}
        quartiles = f"{step['q1']:.1f} to {step['q3']:.1f}"
        rows.append([name, f"{step['median']:.1f}", quartiles, f"{ratio['median']:.2f}"])
    report.add(settings=sizes, layers=found)
    table(rows)


def main(arguments=None) -> None:
    result = parser(__doc__)
    for name in ("units", "batch", "length", "features", "rounds", "steps"):
        result.add_argument(f"--{name}", type=int)
    result.add_argument("--long", action="store_true", help="minGRU and GRU at 1,000 steps")
    options = result.parse_args(arguments)
    defaults = {"units": 128, "batch": 32, "length": 50, "features": 64, "rounds": 12, "steps": 20}
    if options.long:
        defaults |= {"length": 1000, "rounds": 6, "steps": 3}
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.long:
        compare_long(options)
        return
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

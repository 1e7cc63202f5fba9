"""What do options and own cells cost beside the plain LSTM, in training? (Kernels only.)

    python benchmarks/cells.py --units 128 --batch 32 --length 50
    python benchmarks/cells.py --long

With `--long` the question is what a loop without a matrix product gains: minGRU at 1,000 steps
against the GRU of seqnet and of PyTorch, each in a process (`workers/recurrence_worker.py`).

The cells are those of the contract tests; a case is one entry of `CASES`. They take turns in one
process: a round is some steps of each, and every other round goes the other way round. The ratio is
that of medians, round by round. PyTorch takes part where it is installed (`environments.py`).
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import numpy as np
from harness import (
    SETTLE_S,
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


def cell(name: str, **own):
    """Return a function from units to the layers of a model of one cell of the contract tests."""

    def layers(units: int) -> list:
        import cells

        return [cells.CELLS[name][0](units, **OPTIONS, **own)]

    return layers


def lstm_stack(units: int) -> list:
    """Return two LSTM cells in one loop."""
    from seqnet.layers import RNN, LSTMCell

    return [RNN([LSTMCell(units), LSTMCell(units)], **OPTIONS)]


OPTIONS = {"fused": True, "return_sequences": True}  # every layer must run as a kernel
CASES = {  # name: (layers of a number of units, the case that it is compared with)
    "lstm": (cell("lstm"), "lstm"),
    "lstm, recurrent_dropout": (cell("lstm", recurrent_dropout=0.2), "lstm"),
    "lstm, recurrent_dropout_per_gate": (
        cell("lstm", recurrent_dropout=0.2, recurrent_dropout_per_gate=True),
        "lstm",
    ),
    "lstm, zoneout": (cell("lstm", zoneout=0.1, cell_zoneout=0.1), "lstm"),
    "lstm, gradient_clip": (cell("lstm", gradient_clip=1.0), "lstm"),
    "peephole": (cell("peephole"), "lstm"),
    "layer_norm_lstm": (cell("layer_norm_lstm"), "lstm"),
    "gru": (cell("gru"), "lstm"),
    "gru_reset_before": (cell("gru_reset_before"), "gru"),
    "two lstm layers": (lambda units: [*cell("lstm")(units), *cell("lstm")(units)], "lstm"),
    "stack of two lstm cells": (lstm_stack, "two lstm layers"),
}
PEERS = {  # the same with PyTorch, each in a process (`workers/recurrence_worker.py`)
    "PyTorch's nn.LSTM": ({"cell": "lstm"}, "lstm"),
    "PyTorch, layer_norm_lstm": ({"cell": "layer_norm_lstm"}, "layer_norm_lstm"),
    "PyTorch, layer_norm_lstm, torch.compile": (
        {"cell": "layer_norm_lstm", "compiled": True},
        "layer_norm_lstm",
    ),
}
LONG = {
    "min_gru": ("seqnet:recurrence", "min_gru"),
    "gru": ("seqnet:recurrence", "gru"),
    "PyTorch's nn.GRU": ("pytorch:recurrence", "gru"),
}


def model_of(layers: list):
    """Return a compiled model."""
    import seqnet

    model = seqnet.Model(layers)
    model.compile("sgd", "mse")
    return model


def peers(names, sizes: dict, stack: contextlib.ExitStack) -> dict:
    """Return the workers of peers, compiled; those that do not start are left out."""
    workers = {}
    for name in names:
        try:
            worker = Worker("pytorch:recurrence", {**sizes, **PEERS[name][0]})
        except WorkerError as error:
            print(f"Left out: {error}", file=sys.stderr)
            continue
        workers[name] = stack.enter_context(worker)
    return workers


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
    result.add_argument("--cases", help="names of CASES and PEERS, separated by semicolons")
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
    chosen = options.cases.split(";") if options.cases else [*CASES, *PEERS]
    sizes = {n: getattr(options, n) for n in ("units", "batch", "length", "features")}
    rng, report = np.random.default_rng(0), Report("cells", options)
    x = rng.normal(size=(options.batch, options.length, options.features)).astype("float32")
    y = np.zeros((options.batch, options.length, options.units), "float32")
    models, first_s = {}, {}
    for name in (n for n in chosen if n in CASES):
        models[name] = model_of(CASES[name][0](options.units))
        start = time.perf_counter()
        models[name].train_on_batch(x, y)
        first_s[name] = time.perf_counter() - start
    with contextlib.ExitStack() as stack:
        workers = peers([n for n in chosen if n in PEERS], sizes, stack)
        for name, worker in workers.items():
            first_s[name] = worker.ask("first")["ms"] / 1e3
        report.begin()
        times: dict[str, list] = {name: [] for name in [*models, *workers]}
        for number in range(options.rounds):
            for name in list(times) if number % 2 == 0 else list(times)[::-1]:
                if name in workers:
                    time.sleep(SETTLE_S)
                    times[name].append(workers[name].ask(f"step {options.steps}")["ms"])
                    continue
                found = []
                for _ in range(options.steps):
                    start = time.perf_counter()
                    models[name].train_on_batch(x, y)
                    found.append((time.perf_counter() - start) * 1e3)
                times[name].append(found)
    rows = [["cell", "step ms", "best ms", "ratio", "quartiles", "to", "first s"]]
    found = {}
    for name in times:
        base = (CASES | PEERS)[name][1]
        base = base if base in times else name
        step, ratio = spread(flat(times[name])), ratios(times, name, base)
        best = min(flat(times[name]))
        found[name] = {
            "step_ms": step,
            "best_ms": best,
            "ratio": ratio,
            "ratio_to": base,
            "first_s": first_s[name],
        }
        rows.append(
            [
                name,
                f"{step['median']:.2f}",
                f"{best:.2f}",
                f"{ratio['median']:.2f}",
                f"{ratio['q1']:.2f}-{ratio['q3']:.2f}",
                base,
                f"{first_s[name]:.2f}",
            ]
        )
    report.add(settings=sizes, cells=found)
    table(rows)


if __name__ == "__main__":
    main()

"""Measure the characters per second that a model generates step by step.

    python benchmarks/generation.py

Compares seqnet's `Model.generate` and PyTorch in inference mode: nn.LSTM called for one step at a
time, the same without oneDNN, and nn.LSTMCell; with all threads and with one. The weights are the
same, so the greedy outputs (--temperature 0) must be equal. Several streams (--streams) are written
side by side, and all their characters are counted.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import sys
import time

from harness import SETTLE_S, Report, Worker, WorkerError, parser, size_settings, spread, table

WAYS = {
    "seqnet": ["generate"],
    "pytorch": ["layer", "layer, no mkldnn", "cell"],
    "pytorch:1thread": ["layer", "layer, no mkldnn", "cell"],
}
CHECKED = 40  # number of greedy characters that must agree


def check_agreement(workers: dict) -> None:
    """Raise `SystemExit` unless the greedy outputs of all systems are equal."""
    written = {
        (side, how): worker.call("generate", count=CHECKED, temperature=0, how=how)["written"]
        for side, worker in workers.items()
        for how in WAYS[side]
    }
    (first, expected), *others = written.items()
    for other, found in others:
        if found != expected:
            sys.exit(f"{other} and {first} do not write the same: {found} and {expected}.")


def main(arguments=None) -> None:
    result = parser(__doc__)
    add = result.add_argument
    add("--size", default="B", help="for vocabulary, embedding, units and layers")
    add("--units", type=int)
    add("--layers", type=int)
    add("--cell", default="lstm", choices=["simple_rnn", "gru", "lstm"])
    add("--temperature", type=float, default=1.0)
    add("--streams", default="1", help="sequences side by side, several with commas")
    add(
        "--count",
        type=int,
        default=2000,
        help="characters in a turn, of all streams; at least 100 of each",
    )
    add("--rounds", type=int, default=8)
    options = result.parse_args(arguments)
    settings = {**size_settings(options.size), "cell": options.cell}
    settings |= {n: getattr(options, n) for n in ("units", "layers") if getattr(options, n)}
    report = Report("generation", options)
    rates: dict = {}
    sizes = [int(n) for n in options.streams.split(",")]
    with contextlib.ExitStack() as stack:
        workers = {}
        for side in WAYS:
            try:
                workers[side] = stack.enter_context(Worker(side, settings))
            except WorkerError as error:
                if side == "seqnet":
                    sys.exit(str(error))
                print(f"Left out: {error}", file=sys.stderr)
        check_agreement(workers)
        report.begin()
        for _ in range(options.rounds):
            for streams, (side, worker) in itertools.product(sizes, workers.items()):
                for how in WAYS[side]:
                    time.sleep(SETTLE_S)
                    asked = {"temperature": options.temperature, "streams": streams, "how": how}
                    count = max(100, options.count // streams)
                    found = worker.call("generate", count=count, **asked)
                    rates.setdefault((streams, side, how), []).append(found["per_second"])
    for streams in sizes:
        mine = {tuple(way): found for (n, *way), found in rates.items() if n == streams}
        add_record(report, settings, options, streams, mine)


def add_record(report, settings: dict, options, streams: int, rates: dict) -> None:
    """Save and print the rates of one number of streams."""
    best = max((w for w in rates if w[0] != "seqnet"), default=None, key=lambda w: median(rates[w]))
    ratio = None
    if best:
        pairs = zip(rates["seqnet", "generate"], rates[best], strict=True)
        ratio = spread([a / b for a, b in pairs])
    record = report.add(
        settings=settings,
        temperature=options.temperature,
        count=options.count,
        streams=streams,
        per_second=[
            {"side": side, "how": how, **spread(found)} for (side, how), found in rates.items()
        ],
        best_peer=best,
        ratio_to_best_peer=ratio,
    )
    rows = [["streams", "side", "how", "characters / s", "quartiles"]]
    for found in record["per_second"]:
        row = [str(streams), found["side"], found["how"], f"{found['median']:,.0f}"]
        rows.append([*row, f"{found['q1']:,.0f}-{found['q3']:,.0f}"])
    table(rows)
    if ratio:
        print(f"seqnet / best peer: {ratio['median']:.2f}", file=sys.stderr)


median = statistics.median


if __name__ == "__main__":
    main()

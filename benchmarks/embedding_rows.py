"""Measure how the time of a step depends on the number of rows of an embedding.

    python benchmarks/embedding_rows.py

Models with 10,000 and with 1,000,000 rows alternate, for each optimizer. A step that updates only
the rows of its batch takes about the same time in both; the time of a step that updates all rows
grows with the table.
"""

from __future__ import annotations

import contextlib
import sys

from harness import (
    SIDES,
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

MODEL = {"embedding": 64, "units": 64, "layers": 1, "batch": 32, "length": 20, "classes": 65}


def main(arguments=None) -> None:
    result = parser(__doc__)
    add = result.add_argument
    add("--rows", default="10000,1000000", help="fewest first")
    add("--optimizers", default="sgd,adagrad,adadelta")
    add("--sides", default="seqnet,pytorch", help=f"of {', '.join(SIDES)}")
    add("--rounds", type=int, default=8)
    add("--steps", type=int, default=10)
    options = result.parse_args(arguments)
    report = Report("embedding_rows", options)
    counts = [int(n) for n in options.rows.split(",")]
    shown = [["side", "optimizer", *[f"{n:,} rows, ms" for n in counts], "most / fewest"]]
    for optimizer in options.optimizers.split(","):
        for side in options.sides.split(","):
            try:
                with contextlib.ExitStack() as stack:
                    workers = {}
                    for n in counts:
                        settings = {**MODEL, "vocabulary": n, "optimizer": optimizer}
                        workers[n] = stack.enter_context(Worker(side, settings))
                        workers[n].ask("first")
                    report.begin()
                    times = take_turns(workers, options.rounds, options.steps)
            except WorkerError as error:
                print(f"Left out: {error}", file=sys.stderr)
                report.add(side=side, optimizer=optimizer, error=str(error))
                continue
            ratio = ratios(times, counts[-1], counts[0])
            medians = {n: spread(flat(times[n])) for n in counts}
            report.add(
                side=side, optimizer=optimizer, model=MODEL, rows=counts, step_ms=medians,
                ratio=ratio,
            )  # fmt: skip
            shown.append(
                [
                    side,
                    optimizer,
                    *[f"{medians[n]['median']:.2f}" for n in counts],
                    f"{ratio['median']:.2f}",
                ]
            )
    table(shown)


if __name__ == "__main__":
    main()

"""Measure the peak memory of training, and of predictions of the last output.

    python benchmarks/memory.py

Each result is from a separate process: the largest resident size after some steps, and its growth
after the imports. A prediction is of `--predicted` steps of 64 units, 8 sequences of 8 features;
its growth is that after a prediction of 100 steps, without the array of the inputs.
"""

from __future__ import annotations

import json
import sys

from harness import SIDES, Report, Worker, WorkerError, parser, size_settings, table


def main(arguments=None) -> None:
    result = parser(__doc__)
    add = result.add_argument
    add("--sides", default="seqnet,seqnet:scan,pytorch", help=f"of {', '.join(SIDES)}")
    add("--size", default="B", help="everything but the length")
    add("--lengths", default="50,500")
    add("--cell", default="lstm", choices=["simple_rnn", "gru", "lstm"])
    add("--steps", type=int, default=30)
    add("--predicted", type=int, default=50_000, help="steps of a prediction; 0 for none")
    options = result.parse_args(arguments)
    report = Report("memory", options)
    report.quiet = True  # memory does not depend on other load
    rows = [["size", "length", "side", "peak MiB", "after import", "growth"]]
    for length in options.lengths.split(","):
        for side in options.sides.split(","):
            settings = {**size_settings(options.size), "length": int(length), "cell": options.cell}
            settings["distinct"] = 2
            try:
                with Worker(side, settings) as worker:
                    worker.ask("first")
                    worker.ask(f"step {options.steps}")
                    found = worker.ask("memory")
            except WorkerError as error:
                print(f"Left out: {error}", file=sys.stderr)
                report.add(size=options.size, length=int(length), side=side, error=str(error))
                continue
            growth = found["peak_mb"] - found["after_import_mb"]
            report.add(
                size=options.size, length=int(length), side=side, settings=settings,
                steps=options.steps, growth_mb=growth, versions=worker.versions, **found,
            )  # fmt: skip
            figures = (found["peak_mb"], found["after_import_mb"], growth)
            rows.append([options.size, length, side, *[f"{f:.0f}" for f in figures]])
    for side in ("seqnet", "seqnet:scan") if options.predicted else ():
        settings = {**size_settings(options.size), "cell": options.cell, "length": 2}
        with Worker(side, settings) as worker:
            size = {"rows": 8, "steps": options.predicted, "units": 64, "features": 8}
            found = worker.ask("call predict_last " + json.dumps(size))["result"]
        report.add(size="predict", length=options.predicted, side=side, **found)
        figures = (found[f"{key}_mb"] for key in ("peak", "after_import", "growth"))
        rows.append(["predict", options.predicted, side, *[f"{f:.0f}" for f in figures]])
    table(rows)


if __name__ == "__main__":
    main()

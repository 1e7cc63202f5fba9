"""Measure the time until a new model has made its first step.

    python benchmarks/compile_time.py

Each time is from `compile` to the end of the first batch, in a new process: cold, with empty
caches, as on the first use of a machine; and warm, in a second process with filled caches. Finally
the time of ``import seqnet`` is compared with that of ``import pytensor``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

from harness import (
    HERE,
    SIDES,
    Report,
    Worker,
    WorkerError,
    empty_caches,
    parser,
    size_settings,
    spread,
    table,
)

IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def first_step(side: str, settings: dict, caches: dict, limit_s: float) -> dict:
    """Return the seconds of the imports and of the first step in a new process."""
    try:
        with Worker(side, settings, caches) as worker:
            first = worker.ask("first", limit_s)
            return {"import_s": worker.import_s, "first_s": first["ms"] / 1e3}
    except WorkerError as error:
        return {"error": str(error)}


def import_seconds(module: str) -> float:
    """Return how long a module takes to import in a new process."""
    command = [sys.executable, "-c", IMPORT.format(module)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE.parent)
    return float(done.stdout)


def imports(report: Report, repeats: int) -> dict:
    report.begin()
    import_seconds("seqnet")  # not counted: it reads the files from disk
    times: dict[str, list] = {"pytensor": [], "seqnet": []}
    for _ in range(repeats):
        for module, found in times.items():
            found.append(import_seconds(module))
    more = [s - p for s, p in zip(times["seqnet"], times["pytensor"], strict=True)]
    return report.add(
        part="import",
        seconds={module: spread(found) for module, found in times.items()},
        more_than_pytensor_s=spread(more),
    )


def shown(found: dict) -> str:
    return f"{found['first_s']:.2f}" if "first_s" in found else found["error"].splitlines()[0][:60]


def main(arguments=None) -> None:
    result = parser(__doc__)
    add = result.add_argument
    add("--sides", default="seqnet:fused,seqnet:scan,seqnet:unroll", help=f"of {', '.join(SIDES)}")
    add("--steps", default="64,128,300,1000", help="lengths of the sequences")
    add("--size", default="A", help="everything but the length")
    add("--cell", default="lstm", choices=["simple_rnn", "gru", "lstm"])
    add("--optimizer", default="sgd")
    add("--repeats", type=int, default=3, help="cold and warm starts of each")
    add("--import-repeats", type=int, default=11)
    add("--limit", type=float, default=900, help="seconds that a first step may take")
    options = result.parse_args(arguments)
    report = Report("compile_time", options)
    rows = [["side", "steps", "cold s", "second process s"]]
    for side in options.sides.split(","):
        for steps in options.steps.split(","):
            settings = {**size_settings(options.size), "length": int(steps), "distinct": 1}
            settings |= {"cell": options.cell, "optimizer": options.optimizer}
            report.begin()
            cold, warm = [], []
            for _ in range(options.repeats):
                with tempfile.TemporaryDirectory() as folder:
                    for found in (cold, warm):
                        found.append(
                            first_step(side, settings, empty_caches(folder), options.limit)
                        )
                        if "error" in found[-1]:
                            break
                if "error" in cold[-1]:  # a repetition would give the same
                    break
            report.add(
                part="first step", side=side, steps=int(steps), settings=settings, cold=cold,
                warm=warm,
            )  # fmt: skip
            best = [
                min(found, key=lambda f: f.get("first_s", 1e9)) for found in (cold, warm) if found
            ]
            rows.append([side, steps, *map(shown, best), *[""] * (2 - len(best))])
    table(rows)
    if options.import_repeats:
        record = imports(report, options.import_repeats)
        median = {module: found["median"] for module, found in record["seconds"].items()}
        print(
            f"import pytensor {median['pytensor']:.2f} s, import seqnet {median['seqnet']:.2f} s, "
            f"{record['more_than_pytensor_s']['median']:.3f} s more",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()

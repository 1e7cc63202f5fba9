"""Compare the step and compile times of an unrolled loop and scan (reference 000).

    python benchmarks/unroll_vs_scan.py --chart unroll_vs_scan.png

The tutorial's experiment has vocabularies of 256 and 65,536, sequences of 32, 64 and 128 steps, and
three forms: unrolled, scan, and scan with the lookup of rows outside of the loop, which the
tutorial does not have. seqnet's layers, unrolled, as a scan and fused, are also measured; they also
update their weights. The gradients of the forms are compared, as in the tutorial. Every combination
runs in a separate process with empty caches, so that compile times are those of a first use.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from harness import (
    SIDES,
    Report,
    Worker,
    WorkerError,
    empty_caches,
    parser,
    spread,
    table,
)

FORMS = ("unroll", "scan", "scan-hoisted")
UNITS = 128
AGREEMENT = 1e-6  # the tutorial's tolerance, in its norm


def relative(expected, found) -> float:
    """Return the tutorial's measure: the ratio of the largest row sums of difference and value."""
    rows = np.abs(expected - found).sum(1).max()
    return float(rows / np.abs(expected).sum(1).max())


def measure(side: str, vocabulary: int, length: int, options, gradients: Path) -> dict:
    """Return the compile time and the step times of one combination."""
    settings = {"vocabulary": vocabulary, "length": length, "units": UNITS, "embedding": UNITS}
    settings |= {"batch": 1, "cell": "simple_rnn", "distinct": 1}
    with (
        tempfile.TemporaryDirectory() as folder,
        Worker(side, settings, empty_caches(folder)) as worker,
    ):
        first = worker.ask("first", options.limit)
        times = worker.ask(f"step {options.steps}")["ms"]
        if "tutorial" in side:
            worker.call("save_gradients", path=str(gradients))
    # The time of the first call minus that of a usual step.
    compile_s = (first["ms"] - spread(times)["median"]) / 1e3
    return {"compile_s": compile_s, "step_ms": spread(times), "best_ms": min(times)}


def disagreement(folder: Path, sides: list) -> dict:
    """Return the largest relative difference of any gradient from the first side's."""
    loaded = {side: np.load(folder / f"{side}.npz") for side in sides}
    (_, expected), *others = loaded.items()
    return {side: max(relative(expected[k], g[k]) for k in expected) for side, g in others}


def chart(records: list, path: Path) -> None:
    """Draw the tutorial's two charts: step times, and compile times on a logarithmic scale."""
    try:
        import matplotlib
    except ImportError:
        sys.exit("A chart needs matplotlib: pip install matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    vocabularies = sorted({r["vocabulary"] for r in records})
    lengths = sorted({r["length"] for r in records})
    sides = list(dict.fromkeys(s for r in records for s in r["sides"]))
    width = 0.8 / len(sides)
    figure, axes = pyplot.subplots(2, len(vocabularies), figsize=(11, 7), squeeze=False)
    for column, vocabulary in enumerate(vocabularies):
        for row, (title, scale) in enumerate((("step, s", "linear"), ("compile, s", "log"))):
            axis = axes[row, column]
            for k, side in enumerate(sides):
                heights = []
                for length in lengths:
                    found = next(
                        r["sides"].get(side, {})
                        for r in records
                        if (r["vocabulary"], r["length"]) == (vocabulary, length)
                    )
                    heights.append(
                        found.get("best_ms", 0) / 1e3 if row == 0 else found.get("compile_s", 0)
                    )
                places = [n + width * (k - (len(sides) - 1) / 2) for n in range(len(lengths))]
                axis.bar(places, heights, width, label=side)
            axis.set(title=f"vocabulary {vocabulary:,}", ylabel=title, yscale=scale)
            axis.set_xticks(range(len(lengths)), [str(n) for n in lengths])
            axis.grid(axis="y", alpha=0.4)
    axes[0, 0].legend(fontsize=8)
    figure.supxlabel("steps of the sequence")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(arguments=None) -> None:
    result = parser(__doc__)
    add = result.add_argument
    add("--vocabularies", default="256,65536")
    add("--lengths", default="32,64,128")
    add("--systems", default="pytensor", help="pytensor, theano or both with a comma between")
    add("--layers", default="seqnet:unroll,seqnet:scan,seqnet:fused", help="of seqnet, or nothing")
    add("--steps", type=int, default=9, help="timed; the best and the median are told")
    add("--limit", type=float, default=900, help="seconds that compiling may take")
    add("--chart", type=Path, metavar="FILE", help="draw both charts (needs matplotlib)")
    options = result.parse_args(arguments)
    forms = [f"{system}:tutorial-{f}" for system in options.systems.split(",") for f in FORMS]
    sides = [*forms, *filter(None, options.layers.split(","))]
    if wrong := [s for s in sides if s not in SIDES]:
        result.error(f"no sides {wrong}")
    report, records = Report("unroll_vs_scan", options), []
    rows = [["vocabulary", "steps", "form", "step ms", "compile s", "gradients differ by"]]
    for vocabulary in map(int, options.vocabularies.split(",")):
        for length in map(int, options.lengths.split(",")):
            found, refused = {}, {}
            with tempfile.TemporaryDirectory() as name:
                report.begin()
                for side in sides:
                    path = Path(name, f"{side}.npz")
                    try:
                        found[side] = measure(side, vocabulary, length, options, path)
                    except WorkerError as error:
                        refused[side] = str(error)
                        print(f"Left out: {error}", file=sys.stderr)
                differ = disagreement(Path(name), [s for s in forms if s in found])
            records.append(
                report.add(
                    vocabulary=vocabulary,
                    length=length,
                    units=UNITS,
                    sides=found,
                    refused=refused,
                    gradients_differ_by=differ,
                    gradients_agree=all(d < AGREEMENT for d in differ.values()),
                )
            )
            for side, f in found.items():
                differs = f"{differ[side]:.1e}" if side in differ else ""
                step = f"{f['step_ms']['median']:.2f}"
                rows.append([vocabulary, length, side, step, f"{f['compile_s']:.1f}", differs])
    table(rows)
    if options.chart:
        chart(records, options.chart)


if __name__ == "__main__":
    main()

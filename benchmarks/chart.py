"""Draw bar charts of saved results (needs matplotlib).

    python benchmarks/chart.py results.jsonl docs/performance.png
    python benchmarks/chart.py results.jsonl docs/unrolling.png --of unroll_vs_scan
    python benchmarks/chart.py results.jsonl docs/scale-out.png --of scale_out

The first shows the LSTM step times of compare.py, the second the two charts of reference 000: run
times, and compile times on a logarithmic scale. The third shows what a model of the time says of
many machines.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import report
from harness import SIZES
from scale_out import exchange_s


def plain(record: dict) -> bool:
    """Return whether a record is of the default comparison: seqnet's LSTM with SGD."""
    s, usual = record["settings"], report.size_settings(record["size"])
    return (
        record["side"] == "seqnet"
        and (s["cell"], s["optimizer"], s["dtype"]) == ("lstm", "sgd", "float32")
        and not (s["masks"] or s["go_backwards"] or "pytorch:1thread" in record["sides"])
        and all(s[name] == size for name, size in usual.items())
    )


def by_size(records: list[dict]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the last ratio of each peer's time to seqnet's, and its milliseconds, by size."""
    found: dict[str, dict] = {}
    for r in filter(plain, records):
        for side, figures in r["sides"].items():
            if "ratio" in figures:  # the ratio of adjacent turns
                over = 1 / figures["ratio"]["median"]
                found.setdefault(r["size"], {})[side] = over, figures["step_ms"]["median"]
    return found


def pyplot() -> Any:
    """Return matplotlib's pyplot, for drawing into files."""
    try:
        import matplotlib
    except ImportError:
        sys.exit("A chart needs matplotlib: pip install matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def compare(records: list[dict], path: Path) -> None:
    """Draw one group of bars per size: the step time of each system relative to seqnet's."""
    found = by_size(records)
    sizes = [name for name in SIZES if name in found]
    sides = list(dict.fromkeys(side for peers in found.values() for side in peers))
    width = 0.85 / len(sides)
    figure, axis = pyplot().subplots(figsize=(10, 4.5))
    for k, side in enumerate(sides):
        places = [n for n, size in enumerate(sizes) if side in found[size]]
        bars = axis.bar(
            [n + width * (k - (len(sides) - 1) / 2) for n in places],
            [found[sizes[n]][side][0] for n in places],
            width,
            color=f"C{k}",
            label=side,
        )
        times = [report.number(found[sizes[n]][side][1]) for n in places]
        axis.bar_label(bars, times, fontsize=7)
    axis.set_xticks(range(len(sizes)), sizes)
    axis.set_yscale("log")
    axis.set_yticks([1, 2, 3, 5, 10, 20], ["1", "2", "3", "5", "10", "20"])
    axis.minorticks_off()
    axis.axhline(1, color="black", linewidth=0.8)
    axis.set_ylabel("time of a step, seqnet = 1")
    cpu = records[0]["machine"]
    axis.set_title(f"LSTM training step, ms above the bars ({cpu['cpu']}, {cpu['cores']} cores)")
    axis.legend(ncols=3, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


COLOURS = {
    "theano": ("#9e6b1f", "#dda63a", "#f3d9a4"),
    "pytensor": ("#1f5a9e", "#4a90d9", "#aecdf0"),
    "seqnet": ("#14602f", "#2f9e55", "#8fd6a8"),
    "numpy": ("#777777",),
}


def unroll_vs_scan(records: list[dict], path: Path) -> None:
    """Draw one group of bars per length: the best step above, and the compile time below."""
    vocabularies = sorted({r["vocabulary"] for r in records})
    lengths = sorted({r["length"] for r in records})
    sides = list(dict.fromkeys(s for r in records for s in r["sides"]))
    width = 0.84 / len(sides)
    figure, axes = pyplot().subplots(2, len(vocabularies), figsize=(10, 6.6), squeeze=False)
    shades = {system: iter(colours) for system, colours in COLOURS.items()}
    for k, side in enumerate(sides):
        system, _, form = side.partition(":tutorial")
        colour = next(shades[system])
        label = f"{system} {form.removeprefix('-')}".strip()
        for column, vocabulary in enumerate(vocabularies):
            of_length = {
                r["length"]: r["sides"][side]
                for r in records
                if r["vocabulary"] == vocabulary and side in r["sides"]
            }
            places = [lengths.index(n) + width * (k - (len(sides) - 1) / 2) for n in of_length]
            best = [found["best_ms"] / 1e3 for found in of_length.values()]
            compiling = [found["compile_s"] for found in of_length.values()]
            axes[0, column].bar(places, best, width, color=colour, label=label)
            if system != "numpy":  # which compiles nothing
                axes[1, column].bar(places, compiling, width, color=colour)
    for column, vocabulary in enumerate(vocabularies):
        axes[0, column].set(title=f"vocabulary {vocabulary:,}", ylabel="run time of a step, s")
        axes[1, column].set(ylabel="compile time, s", yscale="log", xlabel="steps of the sequence")
        for axis in axes[:, column]:
            axis.set_xticks(range(len(lengths)), [str(n) for n in lengths])
            axis.grid(axis="y", alpha=0.4)
            axis.set_axisbelow(True)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, fontsize=9, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))  # the legend is below the charts
    figure.savefig(path, dpi=110)


NETWORKS = {"10 Gbit/s, 30 µs": (10e9, 30e-6), "100 Gbit/s, 2 µs": (100e9, 2e-6)}
"""Bits per second and latency of a message in seconds."""


def scale_out(records: list[dict], path: Path) -> None:
    """Draw the speed of each machine among many, as a share of that of one machine."""
    figure, axes = pyplot().subplots(1, len(NETWORKS), figsize=(10, 3.8), sharey=True)
    machines = [2**k for k in range(11)]
    found = {r["model"]: r for r in records if "sent" in r}
    for axis, (title, (bits, latency)) in zip(axes, NETWORKS.items(), strict=True):
        for name, r in found.items():
            alone = r["ms"]["seqnet, 1 x 2"]["median"] / 1e3
            rows = 2 * r["row_bytes"]  # measured with half of a batch
            sizes = r["dense_bytes"], rows, r["table_bytes"]
            times = [alone + exchange_s(n, *sizes, latency, bits) for n in machines]
            axis.plot(machines, [100 * alone / t for t in times], marker="o", label=name)
        axis.set(title=title, xscale="log", xlabel="machines", ylim=(0, 105))
        axis.set_xticks(machines[::2], [f"{n:,}" for n in machines[::2]])
        axis.minorticks_off()
        axis.grid(alpha=0.4)
    axes[0].set_ylabel("speed of each machine, %")
    axes[0].legend(title="model")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


CHARTS = {"compare": compare, "unroll_vs_scan": unroll_vs_scan, "scale_out": scale_out}


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, help="saved results")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--of", choices=CHARTS, default="compare", help="what to draw")
    options = parser.parse_args(arguments)
    records = report.read(options.files).get(options.of)
    if not records:
        sys.exit(f"There is nothing of {options.of}.py in these files.")
    CHARTS[options.of](records, options.picture)


if __name__ == "__main__":
    main()

"""Draw a bar chart of the LSTM step times saved by compare.py (needs matplotlib).

python benchmarks/chart.py results.jsonl docs/performance.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import report
from harness import SIZES


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


def draw(records: list[dict], path: Path) -> None:
    """Draw one group of bars per size: the step time of each system relative to seqnet's."""
    try:
        import matplotlib
    except ImportError:
        sys.exit("A chart needs matplotlib: pip install matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = by_size(records)
    sizes = [name for name in SIZES if name in found]
    sides = list(dict.fromkeys(side for peers in found.values() for side in peers))
    width = 0.85 / len(sides)
    figure, axis = pyplot.subplots(figsize=(10, 4.5))
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


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, help="what compare.py saved")
    parser.add_argument("picture", type=Path)
    options = parser.parse_args(arguments)
    records = report.read(options.files).get("compare")
    if not records:
        sys.exit("There is nothing of compare.py in these files.")
    draw(records, options.picture)


if __name__ == "__main__":
    main()

"""Draw the step times that compare.py saved as one bar chart (needs matplotlib).

python benchmarks/chart.py results.jsonl docs/performance.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import report


def draw(records: list[dict], path: Path) -> None:
    """Draw groups of bars, one group a size: each system's step over the first one's."""
    try:
        import matplotlib
    except ImportError:
        sys.exit("A chart needs matplotlib: pip install matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    sides = list(dict.fromkeys(side for r in records for side in r["sides"]))
    width = 0.8 / len(sides)
    figure, axis = pyplot.subplots(figsize=(10, 4.5))
    for k, side in enumerate(sides):
        for n, r in enumerate(records):
            found = r["sides"].get(side)
            if found is None:
                continue
            # From the ratios and not from the times: they are of turns right after each other.
            height = 1 / found["ratio"]["median"] if "ratio" in found else 1.0
            bar = axis.bar(
                n + width * (k - (len(sides) - 1) / 2),
                height,
                width,
                color=f"C{k}",
                label=side if n == 0 else None,
            )
            axis.bar_label(bar, [report.number(found["step_ms"]["median"])], fontsize=7)
    names = [f"{r['size']}{report.star(r)}\n{r['settings']['cell']}" for r in records]
    axis.set_xticks(range(len(records)), names)
    axis.set_yscale("log")
    axis.axhline(1, color="black", linewidth=0.6)
    axis.set_ylabel(f"time of a step, {records[0]['side']} = 1")
    cpu = records[0]["machine"]
    axis.set_title(f"Training step, ms above the bars ({cpu['cpu']}, {cpu['cores']} cores)")
    axis.legend(ncols=min(len(sides), 4), fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


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

"""Measure the overhead of `fit` over the compiled function alone.

    python benchmarks/fit_overhead.py

One worker repeatedly trains on the same batches in three ways: by calling the compiled function on
prepared arrays, by `train_on_batch`, and by `fit` (which shuffles, selects and checks batches,
aggregates metrics and calls callbacks). The goal is at most 3 % for size A.
"""

from __future__ import annotations

from harness import Report, Worker, epochs_parser, percent_cells, size_settings, spread, table

WAYS = ("bare", "train_on_batch", "fit")


def main(arguments=None) -> None:
    options = epochs_parser(__doc__, sizes="A", rounds=15).parse_args(arguments)
    report = Report("fit_overhead", options)
    rows = [["size", "way", "ms a batch", "over bare %", "quartiles"]]
    for size in options.sizes.split(","):
        for verbose in (0, 1):
            with Worker("seqnet", size_settings(size)) as worker:
                worker.ask("first")
                worker.call("overhead", batches=min(options.batches, 10), verbose=verbose)
                report.begin()
                found = [
                    worker.call("overhead", batches=options.batches, verbose=verbose)
                    for _ in range(options.rounds)
                ]
            over = {
                way: spread([100 * (f[way] / f["bare"] - 1) for f in found]) for way in WAYS[1:]
            }
            record = report.add(
                size=size,
                verbose=verbose,
                batches=options.batches,
                ms={way: spread([f[way] for f in found]) for way in WAYS},
                over_bare_percent=over,
            )
            for way in WAYS:
                more = over.get(way)
                name = f"fit(verbose={verbose})" if way == "fit" else way
                rows.append(
                    [
                        size + (" (busy)" if record["busy"] else ""),
                        name,
                        f"{record['ms'][way]['median']:.3f}",
                        *percent_cells(more),
                    ]
                )
    table(rows)


if __name__ == "__main__":
    main()

"""Measure the time spent in callbacks.

    python benchmarks/callbacks_cost.py

One worker trains the smallest model on the same batches repeatedly, one epoch at a time: with only
the history, with a progress bar on a terminal or as lines in a log file, and with all callbacks
that monitor a metric. The time in callbacks is also measured directly, which is more precise than
the difference of whole epochs. The goal is at most 2 % of an epoch for the default callbacks.
"""

from __future__ import annotations

from harness import Report, Worker, epochs_parser, percent_cells, size_settings, spread, table

WAYS = ("history", "bar", "lines", "all")


def main(arguments=None) -> None:
    options = epochs_parser(__doc__, sizes="small", rounds=25).parse_args(arguments)
    report = Report("callbacks_cost", options)
    rows = [["size", "callbacks", "ms a batch", "in callbacks %", "over history %", "quartiles"]]
    for size in options.sizes.split(","):
        found: dict[str, list] = {way: [] for way in WAYS}
        with Worker("seqnet", size_settings(size)) as worker:
            worker.ask("first")
            for way in WAYS:
                worker.call("epoch_with", batches=min(options.batches, 10), way=way)
            report.begin()
            for number in range(options.rounds):
                for way in WAYS if number % 2 == 0 else WAYS[::-1]:
                    found[way].append(worker.call("epoch_with", batches=options.batches, way=way))
        alone = [f["ms"] for f in found["history"]]
        record = report.add(
            size=size,
            batches=options.batches,
            ms={way: spread([f["ms"] for f in found[way]]) for way in WAYS},
            callbacks_percent={
                way: spread([100 * f["callbacks_ms"] / f["ms"] for f in found[way]]) for way in WAYS
            },
            over_history_percent={
                way: spread(
                    [100 * (f["ms"] / h - 1) for f, h in zip(found[way], alone, strict=True)]
                )
                for way in WAYS[1:]
            },
        )
        for way in WAYS:
            more = record["over_history_percent"].get(way)
            rows.append(
                [
                    size + (" (busy)" if record["busy"] else ""),
                    way,
                    f"{record['ms'][way]['median']:.3f}",
                    f"{record['callbacks_percent'][way]['median']:.2f}",
                    *percent_cells(more),
                ]
            )
    table(rows)


if __name__ == "__main__":
    main()

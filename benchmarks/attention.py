"""Measure a training step of an encoder-decoder with attention, against PyTorch.

    python benchmarks/attention.py

Both systems start from the same weights, train on the same batch, and must agree on the losses. See
`workers/attention_worker.py` for the model.
"""

from __future__ import annotations

import contextlib
import sys

from harness import Report, Worker, WorkerError, flat, parser, ratios, spread, table, take_turns

# embedding, units, vocabulary, batch, length
CASES = {
    "small": (32, 64, 65, 32, 20),
    "medium": (64, 128, 65, 32, 20),
    "words": (128, 256, 5000, 32, 30),
}
FIELDS = ("embedding", "units", "vocabulary", "batch", "length")


def main(arguments=None) -> None:
    result = parser(__doc__)
    add = result.add_argument
    add("--cases", default=",".join(CASES))
    add("--sides", default="seqnet:attention,pytorch:attention")
    add("--masks", action="store_true", help="sources of half to all of the steps")
    add("--rounds", type=int, default=10)
    add("--steps", type=int, default=20, help="in a turn")
    options = result.parse_args(arguments)
    report = Report("attention", options)
    rows = [["case", "side", "ms", "quartiles", "seqnet / PyTorch"]]
    for case in options.cases.split(","):
        settings = {**dict(zip(FIELDS, CASES[case], strict=True)), "masks": options.masks}
        with contextlib.ExitStack() as stack:
            workers, losses = {}, {}
            for side in options.sides.split(","):
                try:
                    workers[side] = stack.enter_context(Worker(side, settings))
                except WorkerError as error:
                    if side.startswith("seqnet"):
                        sys.exit(str(error))
                    print(f"Left out: {error}", file=sys.stderr)
                    continue
                losses[side] = workers[side].ask("first")["loss"]
            low, high = min(losses.values()), max(losses.values())
            if high - low > 1e-4 * abs(high):
                sys.exit(f"The first losses differ: {losses}.")
            report.begin()
            times = take_turns(workers, options.rounds, options.steps)
        ratio = ratios(times, *workers) if len(workers) > 1 else None
        found = {side: spread(flat(rounds)) for side, rounds in times.items()}
        report.add(case=case, settings=settings, ms=found, ratio_to_peer=ratio)
        for side, ms in found.items():
            quartiles = f"{ms['q1']:.2f} to {ms['q3']:.2f}"
            own = ratio and side.startswith("seqnet")
            last = f"{ratio['median']:.2f}" if own else ""
            rows.append([case, side, f"{ms['median']:.2f}", quartiles, last])
    table(rows)


if __name__ == "__main__":
    main()

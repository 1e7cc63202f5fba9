"""Measure the losses of whole sequences, CRF and CTC, with their gradients, against PyTorch.

    python benchmarks/sequence_losses.py

The two systems get the same arrays and must agree on the loss. PyTorch has no CRF, so its side is
written step by step; its CTC is `torch.nn.functional.ctc_loss`. See `workers/losses_worker.py`.
"""

from __future__ import annotations

import contextlib
import sys

from harness import Report, Worker, WorkerError, flat, parser, ratios, spread, table, take_turns

# loss, batch, length, classes, labels
CASES = {
    "crf-tags": ("crf", 32, 40, 9, 0),
    "crf-many-classes": ("crf", 32, 40, 50, 0),
    "crf-long": ("crf", 8, 1000, 9, 0),
    "ctc-characters": ("ctc", 32, 200, 30, 40),
    "ctc-pieces": ("ctc", 16, 200, 1000, 40),
}
FIELDS = ("loss", "batch", "length", "classes", "labels")


def main(arguments=None) -> None:
    result = parser(__doc__)
    add = result.add_argument
    add("--cases", default=",".join(CASES))
    add("--sides", default="seqnet:losses,pytorch:losses")
    add("--masks", action="store_true", help="sequences of half to all of the steps")
    add("--rounds", type=int, default=8)
    add("--steps", type=int, default=20, help="in a turn")
    options = result.parse_args(arguments)
    report = Report("sequence_losses", options)
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
            if high - low > 1e-3 * abs(high):
                sys.exit(f"The losses differ: {losses}.")
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

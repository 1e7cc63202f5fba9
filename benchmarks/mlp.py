"""Time a training step of the perceptron of Theano's introduction (reference 003).

    python benchmarks/mlp.py --save results.jsonl

60 rows of 784 numbers, 500 units with tanh, 10 classes, in float32: seqnet, NumPy with gradients
derived by hand, and PyTorch, in turns. The systems must agree in the first loss and in that after
all steps.
"""

from __future__ import annotations

import contextlib
import sys

from harness import Report, Worker, WorkerError, flat, parser, ratios, spread, table, take_turns

TOLERANCE = 1e-3


def main(arguments=None) -> None:
    result = parser(__doc__)
    add = result.add_argument
    add("--sides", default="seqnet:mlp,numpy:mlp,pytorch:mlp", help="the first is the reference")
    add("--rounds", type=int, default=9)
    add("--steps", type=int, default=100, help="in a turn")
    options = result.parse_args(arguments)
    report = Report("mlp", options)
    with contextlib.ExitStack() as stack:
        workers, first = {}, {}
        for side in options.sides.split(","):
            try:
                workers[side] = stack.enter_context(Worker(side, {}))
            except WorkerError as error:
                print(f"Left out: {error}", file=sys.stderr)
                continue
            first[side] = workers[side].ask("first")["loss"]
        report.begin()
        times = take_turns(workers, options.rounds, options.steps)
        last = {side: worker.ask("step 1")["loss"] for side, worker in workers.items()}
    for losses in (first, last):
        low, high = min(losses.values()), max(losses.values())
        if high - low > TOLERANCE * high:
            sys.exit(f"The losses differ: {losses}.")
    ours = next(iter(workers))
    sides = {
        side: {
            "step_ms": spread(flat(rounds)),
            "ratio": None if side == ours else ratios(times, ours, side),
            "versions": workers[side].versions,
        }
        for side, rounds in times.items()
    }
    report.add(sides=sides, side=ours)
    rows = [["side", "step ms", "quartiles", f"{ours} / side"]]
    for side, found in sides.items():
        ms, ratio = found["step_ms"], found["ratio"]
        cells = [f"{ms['median']:.3f}", f"{ms['q1']:.3f} to {ms['q3']:.3f}"]
        rows.append([side, *cells, f"{ratio['median']:.2f}" if ratio else ""])
    table(rows)


if __name__ == "__main__":
    main()

"""Compare the time of a training step with that of other systems.

    python benchmarks/compare.py --sizes small,A,B,C,word --peer pytorch

seqnet and its peers alternate in one run: a round is a number of steps of each. All start from the
same weights and use the same batches, and a run ends with an error if their losses differ. The
first step, which includes compilation, is reported separately.
"""

from __future__ import annotations

import contextlib
import sys

from harness import (
    FIELDS,
    SIDES,
    SIZES,
    Report,
    Worker,
    WorkerError,
    flat,
    parser,
    ratios,
    size_settings,
    spread,
    table,
    take_turns,
)

FIRST_LOSS = 1e-4  # relative difference between the losses of two systems before any update
FIRST_LOSS_BFLOAT16 = 1e-2  # the same where operands are rounded to bfloat16
DISTINCT = 8  # consecutive batches, then from the first again
PROGRESS = 0.2  # and of the decrease of the first batch's loss when it is repeated
# (PyTorch trains two biases where the others have one; this causes up to 12 %.)


def parse(arguments=None):
    result = parser(__doc__)
    add = result.add_argument
    add("--sizes", default="small,A,B,C,word", help=f"of {', '.join(SIZES)}")
    add("--peer", default="pytorch", help=f"sides, with commas between, of {', '.join(SIDES)}")
    add("--side", default="seqnet", help="what the peers are compared with")
    add("--cell", default="lstm", choices=["simple_rnn", "gru", "lstm"])
    add("--optimizer", default="sgd", choices=["sgd", "adagrad", "adadelta", "rmsprop", "adam"])
    add("--dtype", default="float32", choices=["float32", "float64"])
    add("--masks", action="store_true", help="pad, with lengths that vary")
    add("--go-backwards", action="store_true")
    add("--predict", action="store_true", help="predictions of batches instead of training steps")
    add("--rounds", type=int, default=12)
    add("--steps", type=int, default=20, help="steps of one side in a round")
    for name in FIELDS:
        add(f"--{name}", type=int, help="instead of the size's own")
    options = result.parse_args(arguments)
    options.sizes = options.sizes.split(",")
    options.sides = [options.side, *options.peer.split(",")]
    if wrong := [s for s in options.sizes if s not in SIZES]:
        result.error(f"no sizes {wrong}; there are {', '.join(SIZES)}")
    if wrong := [s for s in options.sides if s not in SIDES]:
        result.error(f"no sides {wrong}; there are {', '.join(SIDES)}")
    return options


def settings_of(options, size: str) -> dict:
    names = ("cell", "optimizer", "dtype", "masks", "go_backwards", "predict")
    own = {n: getattr(options, n) for n in FIELDS if getattr(options, n) is not None}
    chosen = {n: getattr(options, n) for n in names}
    return {**size_settings(size), **own, **chosen, "distinct": DISTINCT}


def differ(a: float, b: float, tolerance: float) -> bool:
    return not abs(a - b) <= tolerance * abs(b)  # so that NaN counts as different


def check_losses(losses: dict[str, tuple[float, float]]) -> None:
    """Raise `SystemExit` if a side computes other losses than the first one.

    Each side has the loss of the first batch before any update and when it is repeated.
    """
    (one, (first, again)), *others = losses.items()
    for side, (its_first, its_again) in others:
        rounded = "bfloat16" in side + one
        if differ(its_first, first, FIRST_LOSS_BFLOAT16 if rounded else FIRST_LOSS) or differ(
            its_first - its_again, first - again, PROGRESS
        ):
            sys.exit(
                f"{side} and {one} do not compute the same: the first batch's loss is "
                f"{its_first:.6f} and {first:.6f}, and later {its_again:.6f} and {again:.6f}."
            )


def start(options, settings: dict, stack, refused: dict) -> tuple[dict, dict, dict]:
    """Start the workers one by one; return them, the times of their first steps, and the losses."""
    workers, first_ms, losses = {}, {}, {}
    for side in options.sides:
        try:
            worker = stack.enter_context(Worker(side, settings))
            first = worker.ask("first")
            again = worker.ask(f"step {DISTINCT}")["loss"]  # ends with the first batch
        except WorkerError as error:
            if side == options.side:
                sys.exit(str(error))
            refused[side] = str(error)
            print(f"Left out: {error}", file=sys.stderr)
            continue
        workers[side], first_ms[side], losses[side] = worker, first["ms"], (first["loss"], again)
    return workers, first_ms, losses


def compare(options, size: str, report: Report) -> dict:
    """Measure one size and return its record."""
    settings, refused = settings_of(options, size), {}
    with contextlib.ExitStack() as stack:
        workers, first_ms, losses = start(options, settings, stack, refused)
        check_losses(losses)
        report.begin()
        times = take_turns(workers, options.rounds, options.steps)
        sides = {
            side: {
                "step_ms": spread(flat(times[side])),
                "first_step_ms": first_ms[side],
                "import_s": worker.import_s,
                "losses": losses[side],
                "versions": worker.versions,
            }
            for side, worker in workers.items()
        }
    for side in sides:
        if side != options.side:
            sides[side]["ratio"] = ratios(times, options.side, side)
    return report.add(
        size=size,
        settings=settings,
        side=options.side,
        rounds=options.rounds,
        steps=options.steps,
        sides=sides,
        refused=refused,
    )


def main(arguments=None) -> None:
    options = parse(arguments)
    report = Report("compare_bfloat16" if "bfloat16" in options.side else "compare", options)
    rows = [["size", "side", "step ms", "quartiles", f"{options.side} / it", "spread", "first s"]]
    for size in options.sizes:
        record = compare(options, size, report)
        for side, found in record["sides"].items():
            step, ratio = found["step_ms"], found.get("ratio")
            rows.append(
                [
                    size + (" (busy)" if record["busy"] else ""),
                    side,
                    f"{step['median']:.2f}",
                    f"{step['q1']:.2f}-{step['q3']:.2f}",
                    f"{ratio['median']:.2f}" if ratio else "",
                    f"{ratio['q1']:.2f}-{ratio['q3']:.2f}" if ratio else "",
                    f"{found['first_step_ms'] / 1e3:.2f}",
                ]
            )
    table(rows)


if __name__ == "__main__":
    main()

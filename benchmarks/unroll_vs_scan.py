"""Compare the step and compile times of an unrolled loop and scan (reference 000).

    python benchmarks/unroll_vs_scan.py --save results.jsonl
    python benchmarks/chart.py results.jsonl docs/unrolling.png --of unroll_vs_scan
    python benchmarks/unroll_vs_scan.py --profile --save results.jsonl
    python benchmarks/unroll_vs_scan.py --accuracy --lengths 32 --save results.jsonl

The tutorial's experiment has vocabularies of 256 and 65,536, and one sequence of 32, 64 and 128
steps. PyTensor and Theano run its graph unrolled, as a scan, and as a scan with the lookup of rows
outside of the loop, which the tutorial does not have; seqnet runs it unrolled, as a scan and fused;
and NumPy runs a loop with gradients that were derived by hand. All compute the same loss. The
gradients of the forms of a system are compared by the tutorial's measure; a difference that is more
than rounding is an error. Every combination runs in a separate process with empty caches, so that
compile times are those of a first use; the steps are made in turns afterwards.

With ``--profile``, the steps of the scans are profiled instead, in PyTensor's virtual machine,
where each operation of a step is one call. With ``--accuracy``, nothing is timed: the gradients of
each form are compared with those that NumPy computes in float64.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time

import numpy as np
from harness import (
    SETTLE_S,
    SIDES,
    Report,
    Worker,
    WorkerError,
    empty_caches,
    flat,
    parser,
    spread,
    table,
)

UNITS = 128
AGREEMENT = 2e-6  # of the forms of a system: each is within about 1e-6 of float64
EXACT = "numpy:tutorial-float64"
TURN_S = 0.2  # a turn has as many steps as fit
DEFAULT = ",".join(
    [
        *(f"{s}:tutorial-{f}" for s in ("theano", "pytensor") for f in ("unroll", "scan")),
        *(f"{s}:tutorial-scan-hoisted" for s in ("theano", "pytensor")),
        *(f"seqnet:tutorial-{f}" for f in ("unroll", "scan", "fused")),
        "numpy:tutorial",
    ]
)


def relative(expected, found) -> float:
    """Return the tutorial's measure: the ratio of the largest row sums of difference and value."""
    rows = np.abs(expected - found).sum(1).max()
    return float(rows / np.abs(expected).sum(1).max())


def settings_of(vocabulary: int, length: int) -> dict:
    return {"vocabulary": vocabulary, "length": length, "units": UNITS}


def measure(vocabulary: int, length: int, sides: list, options, report: Report) -> tuple:
    """Return the times of each side, the differences of gradients, and why sides are missing."""
    found: dict = {}
    refused: dict = {}
    workers: dict = {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for side in sides:
            caches = empty_caches(f"{folder}/{side.replace(':', '-')}")
            try:
                worker = Worker(side, settings_of(vocabulary, length), caches)
                stack.enter_context(worker)
                first = worker.ask("first", options.limit)
            except WorkerError as error:
                refused[side] = str(error)
                print(f"Left out: {error}", file=sys.stderr)
                continue
            workers[side] = worker
            found[side] = {"first_ms": first["ms"], "loss": first["loss"]}
        report.begin()
        times = turns(workers, options.rounds)
        for side, rounds in times.items():
            worker, ms = workers[side], flat(rounds)
            worker.call("save_gradients", path=f"{folder}/{side}.npz")
            # The time of the first call minus that of a usual step.
            compile_s = (found[side].pop("first_ms") - spread(ms)["median"]) / 1e3
            found[side] |= {"compile_s": compile_s, "step_ms": spread(ms), "best_ms": min(ms)}
            found[side]["versions"] = worker.versions
        differ = disagreement(folder, list(found))
    return found, differ, refused


def turns(workers: dict, rounds: int) -> dict:
    """Let the workers make steps alternately; return step times (ms) by side and round.

    A turn begins with one step that is not counted, and lasts about `TURN_S` seconds or one step.
    """
    times: dict[str, list] = {side: [] for side in workers}
    for number in range(rounds):
        for side in list(workers)[:: 1 if number % 2 == 0 else -1]:
            time.sleep(SETTLE_S)
            (ms,) = workers[side].ask("step 1")["ms"]
            steps = max(1, min(100, int(1e3 * TURN_S / ms)))
            times[side].append(workers[side].ask(f"step {steps}")["ms"])
    return times


def gradients(folder: str, side: str) -> list[np.ndarray]:
    """Return the gradients that a worker has saved."""
    with np.load(f"{folder}/{side}.npz") as found:
        return [found[name] for name in found.files]


def largest(expected: list, found: list) -> float:
    """Return the largest relative difference of any gradient."""
    return max(relative(e, f) for e, f in zip(expected, found, strict=True))


def disagreement(folder: str, sides: list) -> dict:
    """Return the differences of the gradients of each side from those of its system's first one."""
    first: dict = {}
    differ = {}
    for side in sides:
        found, system = gradients(folder, side), side.partition(":")[0]
        if system in first:
            differ[side] = largest(first[system], found)
        else:
            first[system] = found
    return differ


def accuracy(options) -> None:
    """Print how far the gradients are from those in float64, and from another form's."""
    report = Report("unroll_accuracy", options)
    rows = [["vocabulary", "steps", "side", "from float64", "from the system's first side"]]
    for vocabulary in map(int, options.vocabularies.split(",")):
        for length in map(int, options.lengths.split(",")):
            errors: dict = {}
            with tempfile.TemporaryDirectory() as folder:
                for side in (EXACT, *options.sides.split(",")):
                    try:
                        with Worker(side, settings_of(vocabulary, length)) as worker:
                            worker.ask("first", options.limit)
                            worker.call("save_gradients", path=f"{folder}/{side}.npz")
                    except WorkerError as error:
                        print(f"Left out: {error}", file=sys.stderr)
                        continue
                    errors[side] = largest(gradients(folder, EXACT), gradients(folder, side))
                del errors[EXACT]
                differ = disagreement(folder, list(errors))
            report.add(vocabulary=vocabulary, length=length, errors=errors, differ=differ)
            for side, error in errors.items():
                cells = [f"{error:.1e}", f"{differ[side]:.1e}" if side in differ else ""]
                rows.append([vocabulary, length, side, *cells])
    table(rows)


def profile(options) -> None:
    """Print where the time of the scans goes."""
    report = Report("scan_profile", options)
    rows = [["vocabulary", "form", "loop", "operation", "result", "calls", "ms of a training step"]]
    for vocabulary in map(int, options.vocabularies.split(",")):
        for form in ("scan", "scan-hoisted"):
            length = int(options.lengths.split(",")[0])
            with Worker(f"pytensor:tutorial-{form}", settings_of(vocabulary, length)) as worker:
                report.begin()
                lines = worker.call("profile", steps=5)
            report.add(vocabulary=vocabulary, length=length, form=form, lines=lines)
            for line in lines:
                ms = f"{line['ms']:.2f}"
                cells = [line[k] for k in ("loop", "operation", "shape", "calls")]
                rows.append([vocabulary, form, *cells, ms])
    table(rows)


def main(arguments=None) -> None:
    result = parser(__doc__)
    add = result.add_argument
    add("--vocabularies", default="256,65536")
    add("--lengths", default="32,64,128")
    add("--sides", default=DEFAULT, help="those of a system are compared with its first")
    add("--rounds", type=int, default=3, help="turns of each side")
    add("--limit", type=float, default=900, help="seconds that compiling may take")
    add("--profile", action="store_true", help="profile the loops instead")
    add("--accuracy", action="store_true", help="compare gradients with float64 instead")
    options = result.parse_args(arguments)
    if options.profile or options.accuracy:
        (profile if options.profile else accuracy)(options)
        return
    sides = options.sides.split(",")
    if wrong := [s for s in sides if s not in SIDES or "tutorial" not in s]:
        result.error(f"no sides {wrong}")
    report, records = Report("unroll_vs_scan", options), []
    rows = [["vocabulary", "steps", "side", "step ms", "compile s", "gradients differ by"]]
    for vocabulary in map(int, options.vocabularies.split(",")):
        for length in map(int, options.lengths.split(",")):
            found, differ, refused = measure(vocabulary, length, sides, options, report)
            records.append(
                report.add(
                    vocabulary=vocabulary,
                    length=length,
                    units=UNITS,
                    sides=found,
                    refused=refused,
                    gradients_differ_by=differ,
                )
            )
            for side, f in found.items():
                differs = f"{differ[side]:.1e}" if side in differ else ""
                step = f"{f['step_ms']['median']:.2f}"
                rows.append([vocabulary, length, side, step, f"{f['compile_s']:.1f}", differs])
    table(rows)
    if any(not d < AGREEMENT for r in records for d in r["gradients_differ_by"].values()):
        sys.exit(f"Some gradients differ by more than {AGREEMENT:g}.")


if __name__ == "__main__":
    main()

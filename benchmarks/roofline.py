"""Compare the time of a training step with the time that its matrix products take at least.

    python benchmarks/roofline.py --sizes A,B,C,D

The ceiling of the machine is measured with the inner loop of seqnet's products alone, on data in
the nearest caches, on all processors: in float32, and with bfloat16 operands if the processor has
an instruction for it. Then each size is trained in both. The operations counted are those of matrix
products only: three products of two matrices for each layer and step, of which two are in the
gradient. A product with the rows of a small embedding is counted once for each row of the table.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
import time

from harness import FIELDS, HERE, SIZES, Report, Worker, flat, parser, size_settings, spread, table
from harness import take_turns as take
from machine import cores

sys.path.insert(0, str(HERE.parent))

import numpy as np

from seqnet import native
from seqnet.native import compiler, emit
from seqnet.ops.lookup import FEW_ROWS

LOOP = """
void run(long bfloat16, long depth, long times, const real *a, const real *b, real *c) {
    tile_function *tile = (bfloat16 ? pair_tiles : tiles)[TILE_VECTORS - 1][TILE_ROWS - 1];
    for (long i = 0; i < times; i++) tile(depth, a, depth, 1, b, PANEL, NULL, 0, c, PANEL);
}
long tile_size(void) { return TILE_ROWS * PANEL; }
"""
DEPTH = 96  # of a product: its operands fit into the first cache
GATES = {"simple_rnn": 1, "gru": 3, "lstm": 4}


def ceiling(bfloat16: bool, rounds: int = 20, seconds: float = 0.05) -> float:
    """Return the operations a second of the inner loop, on all processors together."""
    (library,) = compiler.load(emit.header("float32") + emit.read_source("tile.h") + LOOP)
    size = library.tile_size()
    operations = 2 * size * DEPTH * (2 if bfloat16 else 1)
    data = [[np.zeros(DEPTH * 64, "float32") for _ in range(3)] for _ in range(cores())]
    found = []

    def run(arrays: list, times: int) -> None:
        addresses = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
        library.run(ctypes.c_long(bfloat16), ctypes.c_long(DEPTH), ctypes.c_long(times), *addresses)

    times = int(seconds * 50e9 / operations)
    for _ in range(rounds):
        threads = [threading.Thread(target=run, args=(arrays, times)) for arrays in data]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found.append(cores() * times * operations / (time.perf_counter() - start))
    return max(found)


def operations(settings: dict) -> int:
    """Return the operations of all matrix products of a training step."""
    rows, units = settings["batch"] * settings["length"], settings["units"]
    columns, vocabulary = GATES[settings["cell"]] * units, settings["vocabulary"]
    first = min(rows, vocabulary) if vocabulary < FEW_ROWS else rows
    products = first * settings["embedding"] * columns
    products += (settings["layers"] - 1) * rows * units * columns
    products += settings["layers"] * (rows - settings["batch"]) * units * columns
    products += rows * units * vocabulary
    return 3 * 2 * products


def parse(arguments=None):
    result = parser(__doc__)
    add = result.add_argument
    add("--sizes", default="small,A,B,C,D,word", help=f"of {', '.join(SIZES)}")
    add("--cell", default="lstm", choices=list(GATES))
    add("--rounds", type=int, default=8)
    add("--steps", type=int, default=10, help="steps of one side in a round")
    return result.parse_args(arguments)


def main(arguments=None) -> None:
    options = parse(arguments)
    report = Report("roofline", options)
    sides = {"seqnet": False}
    if native.bfloat16_products() == "instruction":
        sides["seqnet:bfloat16"] = True
    report.begin()
    ceilings = {side: ceiling(bfloat16) for side, bfloat16 in sides.items()}
    rows = [["size", "side", "operations", "at the ceiling, ms", "step, ms", "reached"]]
    for side, found in ceilings.items():
        print(f"{side}: {found / 1e9:.0f} billion operations a second", file=sys.stderr)
    for size in options.sizes.split(","):
        settings = {**size_settings(size), "cell": options.cell, "distinct": 8}
        with contextlib.ExitStack() as stack:
            workers = {side: stack.enter_context(Worker(side, settings)) for side in sides}
            for worker in workers.values():
                worker.ask("first")
            report.begin()
            times = take(workers, options.rounds, options.steps)
        count = operations(settings)
        for side in sides:
            step, least = spread(flat(times[side])), 1e3 * count / ceilings[side]
            report.add(
                size=size,
                side=side,
                settings={name: settings[name] for name in (*FIELDS, "cell")},
                operations=count,
                ceiling=ceilings[side],
                least_ms=least,
                step_ms=step,
            )
            shown = f"{count / 1e9:.3g}e9", f"{least:.2f}", f"{step['median']:.2f}"
            rows.append([size, side, *shown, f"{least / step['median']:.0%}"])
    table(rows)


if __name__ == "__main__":
    main()

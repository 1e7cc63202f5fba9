"""Shared code of the benchmarks: sizes, workers, alternation, statistics, and printed results.

A worker is a process that trains with one system in that system's environment (`workers/`). It
handles one command at a time and waits in between, so two systems alternate in one run and never
run at the same time: changes of the machine affect both.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import environments
from machine import BUSY, describe, taken_by_others, wait_for_quiet

HERE = Path(__file__).resolve().parent
SETTLE_S = 0.1  # pause after a turn, until thread pools of the other system stop spinning

# vocabulary, embedding, units, layers, batch, length
SIZES = {
    "small": (65, 32, 64, 1, 16, 25),
    "A": (65, 64, 128, 1, 32, 50),
    "B": (65, 64, 256, 2, 32, 50),
    "C": (65, 64, 512, 1, 64, 50),
    "D": (65, 64, 1024, 1, 32, 25),
    "word": (10000, 200, 200, 2, 20, 20),
}
FIELDS = ("vocabulary", "embedding", "units", "layers", "batch", "length")

# By default glibc returns large arrays to the system at each step; these settings keep them.
MALLOC = {
    "MALLOC_TOP_PAD_": str(1 << 26),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),  # the largest value that glibc accepts
}


@dataclass(frozen=True)
class Side:
    """A participant of a comparison: a worker, its settings and its environment variables."""

    worker: str
    settings: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)


SIDES = {
    "seqnet": Side("seqnet"),
    **{f"seqnet:{path}": Side("seqnet", {"path": path}) for path in ("fused", "scan", "unroll")},
    **{f"seqnet:{b}": Side("seqnet", {"backend": b}) for b in ("numpy", "numba", "c", "jax")},
    "seqnet:bfloat16": Side("seqnet", {"policy": "mixed_bfloat16"}),
    "pytorch": Side("pytorch"),
    "pytorch:bfloat16": Side("pytorch", {"autocast": True}),
    "pytorch:malloc": Side("pytorch", environment=MALLOC),
    "pytorch:sparse": Side("pytorch", {"sparse": True}),
    "pytorch:1thread": Side("pytorch", {"threads": 1}),
    "keras": Side("keras"),
    "keras:train_on_batch": Side("keras", {"through": "train_on_batch"}),
    "theano": Side("theano"),
    "pytensor": Side("pytensor"),
    "pytensor_ml": Side("pytensor_ml"),
    # One recurrent layer of any kind; see workers/recurrence_worker.py and cells.py.
    **{f"{s}:recurrence": Side("recurrence", {"system": s}) for s in ("seqnet", "pytorch")},
    # The losses of whole sequences; see workers/losses_worker.py and sequence_losses.py.
    **{f"{s}:losses": Side("losses", {"system": s}) for s in ("seqnet", "pytorch")},
    # An encoder-decoder with attention; see workers/attention_worker.py and attention.py.
    **{f"{s}:attention": Side("attention", {"system": s}) for s in ("seqnet", "pytorch")},
    # The perceptron of reference 003; see workers/mlp_worker.py and mlp.py.
    **{f"{s}:mlp": Side("mlp", {"system": s}) for s in ("seqnet", "numpy", "pytorch")},
    # Reference 000's experiment; see workers/tutorial_worker.py and unroll_vs_scan.py.
    **{
        f"{system}:tutorial-{form}": Side("tutorial", {"form": form, "system": system})
        for system in ("pytensor", "theano")
        for form in ("unroll", "scan", "scan-hoisted")
    },
    **{
        f"seqnet:tutorial-{form}": Side("tutorial", {"form": form, "system": "seqnet"})
        for form in ("unroll", "scan", "fused")
    },
    "numpy:tutorial": Side("tutorial", {"form": "loop", "system": "numpy"}),
    "numpy:tutorial-float64": Side("tutorial", {"form": "float64", "system": "numpy"}),
}


def size_settings(name: str) -> dict:
    """Return the settings of a size by name."""
    return dict(zip(FIELDS, SIZES[name], strict=True))


class WorkerError(RuntimeError):
    """A worker is missing, refused, failed or timed out; the message has the reason."""


class Worker:
    """A process of one side. Use it in a ``with`` statement.

    Parameters
    ----------
    side : str
        A key of `SIDES`.
    settings : dict
        See `workers/protocol.py`.
    environment : dict, optional
        Environment variables in addition to those of the side.
    """

    def __init__(self, side: str, settings: dict, environment: dict | None = None):
        self.side, kind = side, SIDES[side]
        system = kind.settings.get("system", kind.worker)
        python = self._python(system)
        variables = {**os.environ, **kind.environment}
        if system == "seqnet":  # measure the repository of this file
            variables["PYTHONPATH"] = str(HERE.parent)
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the process)
        self.process = subprocess.Popen(
            [str(python), str(HERE / "workers" / f"{kind.worker}_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**variables, **(environment or {})},
        )
        try:
            answer = self.ask("setup " + json.dumps({**settings, **kind.settings}))
        except WorkerError:
            self.close()
            raise
        self.versions, self.import_s = answer["versions"], answer["import_s"]

    @staticmethod
    def _python(worker: str):
        if worker in ("seqnet", "pytensor", "numpy"):
            return sys.executable
        python = environments.python_of(worker)
        if python is None:
            raise WorkerError(
                f"{worker} has no environment; run "
                f"python benchmarks/environments.py --only {worker}"
            )
        return python

    def ask(self, command: str, limit_s: float | None = None) -> dict:
        """Send a command and return the response; a worker that times out is killed."""
        timer = threading.Timer(limit_s, self.process.kill) if limit_s else None
        try:
            if timer:
                timer.start()
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            if timer:
                timer.cancel()
        if not line:
            if timer and self.process.wait() == -9:
                raise WorkerError(f"{self.side} took more than {limit_s:g} s or was out of memory")
            raise WorkerError(f"{self.side} ended:\n{self._said()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.side}: {answer['error']}")
        return answer

    def call(self, name: str, **arguments):
        """Call a method of the trainer."""
        return self.ask(f"call {name} {json.dumps(arguments)}")["result"]

    def _said(self) -> str:
        self.log.seek(0)
        return "".join(self.log.readlines()[-12:])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def empty_caches(folder: str) -> dict[str, str]:
    """Return variables that place the compiled code of seqnet and its peers in a folder."""
    return {
        "SEQNET_CACHE_DIR": f"{folder}/seqnet",
        "NUMBA_CACHE_DIR": f"{folder}/numba",
        "PYTENSOR_FLAGS": f"base_compiledir={folder}/pytensor",
        "THEANO_FLAGS": f"base_compiledir={folder}/theano",
    }


def take_turns(workers: dict[str, Worker], rounds: int, steps: int, warm: int = 2) -> dict:
    """Let the workers make steps alternately; return step times (ms) by side and round.

    Each turn begins with steps that are not counted; every other round reverses the order.
    """
    times: dict[str, list] = {side: [] for side in workers}
    for number in range(rounds):
        order = list(workers) if number % 2 == 0 else list(workers)[::-1]
        for side in order:
            time.sleep(SETTLE_S)
            if warm:
                workers[side].ask(f"step {warm}")
            times[side].append(workers[side].ask(f"step {steps}")["ms"])
    return times


def spread(values: list) -> dict:
    """Return the median, the quartiles and the number of values."""
    low, middle, high = quartiles(values)
    return {"median": middle, "q1": low, "q3": high, "n": len(values)}


def quartiles(values: list) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratios(times: dict, side: str, other: str) -> dict:
    """Return the spread of the ratio of medians, side over other, of each round."""
    pairs = zip(times[side], times[other], strict=True)
    return spread([statistics.median(a) / statistics.median(b) for a, b in pairs])


def flat(rounds: list) -> list:
    return [value for values in rounds for value in values]


# ---- printing


def parser(text: str | None) -> argparse.ArgumentParser:
    """Return a parser with the common options of the benchmarks."""
    result = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument(
        "--save", type=Path, metavar="FILE", help="append the results as JSON lines"
    )
    result.add_argument(
        "--wait", type=float, default=120, help="seconds to wait for a quiet machine"
    )
    return result


def epochs_parser(text: str | None, sizes: str, rounds: int) -> argparse.ArgumentParser:
    """Return a parser for benchmarks that measure epochs of several sizes."""
    result = parser(text)
    result.add_argument("--sizes", default=sizes)
    result.add_argument("--batches", type=int, default=100, help="in an epoch")
    result.add_argument("--rounds", type=int, default=rounds)
    return result


def percent_cells(more: dict | None) -> list[str]:
    """Return table cells of a median and its quartiles; empty cells for None."""
    if more is None:
        return ["", ""]
    return [f"{more['median']:.1f}", f"{more['q1']:.1f} to {more['q3']:.1f}"]


class Report:
    """Prints results as lines of JSON, and optionally writes them to a file."""

    def __init__(self, question: str, options):
        self.question, self.options, self.machine = question, options, describe()
        self.quiet = False

    def begin(self) -> None:
        """Wait for a quiet machine before a measurement."""
        self.quiet = wait_for_quiet(self.options.wait)

    def add(self, **result) -> dict:
        """Print one result and whether other processes disturbed it."""
        record = {
            "question": self.question,
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "busy": not (self.quiet and taken_by_others() <= BUSY),
            **result,
            "machine": self.machine,
        }
        line = json.dumps(record)
        print(line, flush=True)
        if self.options.save:
            with self.options.save.open("a") as file:
                file.write(line + "\n")
        return record


def table(rows: list[list], file=sys.stderr) -> None:
    """Print a table with aligned columns; the first row is the header."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[k]) for row in texts) for k in range(len(texts[0]))]
    for row in texts:
        cells = [
            c.rjust(w) if k else c.ljust(w)
            for k, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells), file=file)


def compare_cases(question: str, cases: dict, fields: tuple, options, tolerance: float) -> None:
    """Time two sides in turns for each case, save the results and print a table.

    Parameters
    ----------
    question : str
        The name of the report.
    cases : dict
        The settings of each case, in the order of `fields`.
    options
        Has `cases`, `sides`, `masks`, `rounds` and `steps`.
    tolerance : float
        The relative difference that the first losses of the sides may have.
    """
    report = Report(question, options)
    rows = [["case", "side", "ms", "quartiles", "seqnet / PyTorch"]]
    for case in options.cases.split(","):
        settings = {**dict(zip(fields, cases[case], strict=True)), "masks": options.masks}
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
            if high - low > tolerance * abs(high):
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

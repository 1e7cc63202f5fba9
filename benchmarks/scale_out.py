"""Compare two processes of one thread each, on MPI, with one process of two threads.

    python benchmarks/scale_out.py --mpiexec mpiexec

A step is one update with the whole batch, which has the same size on all sides. The sides take
turns in one run; `speed` is that of two processes, in units of that of one, in the same round.
PyTorch is measured with DistributedDataParallel over gloo, if there is an environment for it (see
`environments.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import environments
import numpy as np
from harness import SETTLE_S, SIZES, Report, parser, spread, table

HERE = Path(__file__).resolve()
MODELS = {**{name: SIZES[name] for name in ("A", "B")}, "words": (100_000, 128, 256, 1, 32, 35)}
"""Vocabulary, embedding, units, layers, batch, length: a language model of each."""


def classes(name: str) -> int:
    """Return the size of the output; a small one next to the table, which is measured."""
    return 64 if name == "words" else MODELS[name][0]


def tokens(name: str) -> tuple:
    vocabulary, *_, batch, length = MODELS[name]
    x = np.random.default_rng(0).integers(0, vocabulary, (batch, length + 1), "int32")
    return x[:, :-1], x[:, 1:] % classes(name)


class Seqnet:
    """seqnet, in one process or under mpiexec."""

    def __init__(self, name: str):
        sys.path.insert(0, str(HERE.parent.parent))
        import seqnet
        from seqnet.layers import LSTM, Dense, Embedding

        self.world = seqnet.distribute("mpi")
        self.rank = self.world.rank
        vocabulary, embedding, units, layers, *_ = MODELS[name]
        stack = [LSTM(units, return_sequences=True) for _ in range(layers)]
        last = Dense(classes(name), activation="softmax")
        self.model = seqnet.Model([Embedding(vocabulary, embedding), *stack, last])
        self.model.compile("adagrad", "sparse_categorical_crossentropy")
        self.batch = tokens(name)

    def step(self) -> None:
        self.model.train_on_batch(*self.batch)

    def told(self, steps: int) -> int:
        """Return what rank 0 is told; the other ranks sleep meanwhile, and do not poll."""
        if self.world.size == 1:
            return steps
        if self.rank == 0:
            for other in range(1, self.world.size):
                self.world.comm.send(steps, other)
            return steps
        while not self.world.comm.Iprobe(0):
            time.sleep(0.002)
        return self.world.comm.recv()

    def exchanged(self) -> dict:
        return dict(vars(self.world.traffic))


class Torch:
    """PyTorch, in one process or with DistributedDataParallel over gloo."""

    def __init__(self, name: str):
        import torch
        import torch.distributed as dist

        self.torch, self.dist = torch, dist
        self.ranks, self.rank = int(os.environ.get("WORLD_SIZE", "1")), 0
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.manual_seed(0)
        if self.ranks > 1:
            dist.init_process_group("gloo")
            self.rank = dist.get_rank()
        vocabulary, embedding, units, layers, batch, _ = MODELS[name]

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.table = torch.nn.Embedding(vocabulary, embedding)
                self.lstm = torch.nn.LSTM(embedding, units, layers, batch_first=True)
                self.out = torch.nn.Linear(units, classes(name))

            def forward(self, x):
                return self.out(self.lstm(self.table(x))[0])

        net = Net()
        self.net = torch.nn.parallel.DistributedDataParallel(net) if self.ranks > 1 else net
        self.optimizer = torch.optim.Adagrad(net.parameters())
        own = slice(self.rank * batch // self.ranks, (self.rank + 1) * batch // self.ranks)
        self.x, self.y = [torch.as_tensor(a[own].astype("int64")) for a in tokens(name)]

    def step(self) -> None:
        self.optimizer.zero_grad()
        outputs = self.net(self.x).flatten(0, 1)
        loss = self.torch.nn.functional.cross_entropy(outputs, self.y.reshape(-1))
        loss.backward()
        self.optimizer.step()
        loss.item()

    def told(self, steps: int) -> int:
        if self.ranks == 1:
            return steps
        count = self.torch.tensor(steps)
        self.dist.broadcast(count, 0)
        return int(count)

    def exchanged(self) -> dict:
        return {}


def work(kind: str, name: str) -> None:
    """Make the numbers of steps that come in lines; print the time of one, and what it sent."""
    trainer = Seqnet(name) if kind == "seqnet" else Torch(name)
    while True:
        line = sys.stdin.readline() if trainer.rank == 0 else ""
        steps = trainer.told(int(line or 0))
        if not steps:
            break
        trainer.step()  # not counted: the first one after a pause
        before, began = trainer.exchanged(), time.perf_counter()
        for _ in range(steps):
            trainer.step()
        took = time.perf_counter() - began
        sent = {key: (v - before[key]) / steps for key, v in trainer.exchanged().items()}
        if trainer.rank == 0:
            print(json.dumps({"ms": took / steps * 1e3, **sent}), flush=True)


class Side:
    """The processes of one side, which make steps when they are asked to.

    Parameters
    ----------
    start : list of str
        What starts a Python program: one process of it, or several.
    kind : "seqnet" or "torch"
    name : str
        A key of `MODELS`.
    threads : int
        Of each process.
    """

    def __init__(self, start: list[str], kind: str, name: str, threads: int):
        variables = {"OMP_NUM_THREADS": str(threads), "MASTER_ADDR": "127.0.0.1"}
        self.process = subprocess.Popen(
            [*start, str(HERE), "--work", f"{kind}:{name}"],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def steps(self, count: int) -> dict:
        """Make steps and return the time of one in ms, with messages, bytes and seconds in them."""
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended.")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(20)


def sides_of(mpiexec: str, name: str) -> dict[str, tuple]:
    """Return the arguments of each `Side` by its name."""
    found = {
        "seqnet, 1 x 2": ([sys.executable], "seqnet", name, 2),
        "seqnet, 2 x 1": ([mpiexec, "-n", "2", sys.executable], "seqnet", name, 1),
    }
    torch = environments.python_of("pytorch")
    if torch is not None:
        ddp = [str(torch), "-m", "torch.distributed.run", "--nproc-per-node=2"]
        found["PyTorch, 1 x 2"] = ([str(torch)], "torch", name, 2)
        found["PyTorch, 2 x 1"] = (ddp, "torch", name, 1)
    return found


def compare(name: str, options, report: Report) -> list[list]:
    """Measure a model; return rows of a table."""
    with contextlib.ExitStack() as stack:
        sides = {
            side: stack.enter_context(Side(*given))
            for side, given in sides_of(options.mpiexec, name).items()
        }
        counts = {}
        for side, worker in sides.items():
            worker.steps(2)
            counts[side] = max(2, int(options.seconds * 1e3 / worker.steps(3)["ms"]))
        report.begin()
        found: dict[str, list] = {side: [] for side in sides}
        for number in range(options.rounds):
            for side in list(sides) if number % 2 == 0 else list(sides)[::-1]:
                time.sleep(SETTLE_S)
                found[side].append(sides[side].steps(counts[side]))
    ms = {side: [turn["ms"] for turn in turns] for side, turns in found.items()}
    sent = {
        key: float(np.median([turn[key] for turn in found["seqnet, 2 x 1"]]))
        for key in ("messages", "bytes", "seconds")
    }
    speed = {
        peer: spread(
            [a / b for a, b in zip(ms[f"{peer}, 1 x 2"], ms[f"{peer}, 2 x 1"], strict=True)]
        )
        for peer in ("seqnet", "PyTorch")
        if f"{peer}, 1 x 2" in ms
    }
    report.add(
        model=name,
        ms={side: spread(values) for side, values in ms.items()},
        speed=speed,
        sent=sent,
    )
    rows = []
    for side, values in ms.items():
        peer, _, kind = side.partition(", ")
        row = [name, side, f"{np.median(values):.2f}", "", "", "", ""]
        if kind == "2 x 1":
            row[3] = f"{speed[peer]['median']:.2f}"
        if side == "seqnet, 2 x 1":
            share = sent["seconds"] * 1e3 / np.median(values)
            row[4:] = f"{sent['messages']:.0f}", f"{sent['bytes'] / 1e3:.0f}", f"{share:.1%}"
        rows.append(row)
    return rows


def main(arguments=None) -> None:
    result = parser(__doc__)
    result.add_argument("--models", default="A,B,words")
    result.add_argument("--mpiexec", default=str(Path(sys.executable).parent / "mpiexec"))
    result.add_argument("--rounds", type=int, default=7)
    result.add_argument("--seconds", type=float, default=0.7, help="of each turn")
    result.add_argument("--work", help=argparse.SUPPRESS)
    options = result.parse_args(arguments)
    if options.work:
        work(*options.work.split(":"))
        return
    report = Report("scale_out", options)
    rows = [["model", "processes x threads", "ms", "speed", "messages", "kB", "exchanging"]]
    for name in options.models.split(","):
        rows += compare(name, options, report)
    table(rows)


if __name__ == "__main__":
    main()

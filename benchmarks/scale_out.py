"""Compare two processes of one thread each, on MPI, with one process of two threads.

    python benchmarks/scale_out.py --mpiexec mpiexec

Each measurement is a process, or two, of its own; the sides alternate. A step is one update with
the whole batch, which has the same size on all sides. PyTorch is measured with
DistributedDataParallel over gloo, if there is an environment for it (see `environments.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from harness import SIZES, Report, parser, spread, table

HERE = Path(__file__).resolve()
MODELS = {**{name: SIZES[name] for name in ("A", "B")}, "words": (100_000, 128, 256, 1, 32, 35)}
"""Vocabulary, embedding, units, layers, batch, length: a language model of each."""


def tokens(name: str) -> tuple:
    vocabulary, *_, batch, length = MODELS[name]
    x = np.random.default_rng(0).integers(0, vocabulary, (batch, length + 1), "int32")
    return x[:, :-1], x[:, 1:]


def seqnet_steps(name: str, seconds: float) -> dict:
    sys.path.insert(0, str(HERE.parent.parent))
    import seqnet
    from seqnet.layers import LSTM, Dense, Embedding

    world = seqnet.distribute("mpi")
    vocabulary, embedding, units, layers, *_ = MODELS[name]
    stack = [LSTM(units, return_sequences=True) for _ in range(layers)]
    last = [] if name == "words" else [Dense(vocabulary, activation="softmax")]
    if name == "words":  # next to the table, a small output: what is measured is the table
        last = [Dense(64, activation="softmax")]
    model = seqnet.Model([Embedding(vocabulary, embedding), *stack, *last])
    model.compile("adagrad", "sparse_categorical_crossentropy")
    x, y = tokens(name)
    y = y % 64 if name == "words" else y
    for _ in range(5):
        model.train_on_batch(x, y)
    before = dict(vars(world.traffic))
    steps, began = 0, time.perf_counter()
    while not world.any(time.perf_counter() - began > seconds):
        for _ in range(5):
            model.train_on_batch(x, y)
            steps += 1
    took = time.perf_counter() - began
    spent = {key: value - before[key] for key, value in vars(world.traffic).items()}
    return {
        "ms": took / steps * 1e3,
        "rank": world.rank,
        "messages": spent["messages"] / steps,
        "kB": spent["bytes"] / steps / 1e3,
        "share": spent["seconds"] / took,
    }


def torch_steps(name: str, seconds: float) -> dict:
    import torch
    import torch.distributed as dist

    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rank = 0
    if ranks > 1:
        dist.init_process_group("gloo")
        rank = dist.get_rank()
    vocabulary, embedding, units, layers, batch, _ = MODELS[name]
    classes = 64 if name == "words" else vocabulary

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(vocabulary, embedding)
            self.lstm = torch.nn.LSTM(embedding, units, layers, batch_first=True)
            self.out = torch.nn.Linear(units, classes)

        def forward(self, x):
            return self.out(self.lstm(self.table(x))[0])

    net = Net()
    net = torch.nn.parallel.DistributedDataParallel(net) if ranks > 1 else net
    optimizer = torch.optim.Adagrad(net.parameters())
    x, y = [torch.as_tensor(a.astype("int64")) for a in tokens(name)]
    own = slice(rank * batch // ranks, (rank + 1) * batch // ranks)
    x, y = x[own], (y % classes)[own].reshape(-1)

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x).flatten(0, 1), y).backward()
        optimizer.step()

    for _ in range(5):
        step()
    steps = max(5, int(seconds / ((time_of(step) + time_of(step)) / 2)))
    if ranks > 1:
        count = torch.tensor(steps)
        dist.broadcast(count, 0)
        steps = int(count)
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return {"ms": (time.perf_counter() - began) / steps * 1e3, "rank": rank}


def time_of(step) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def measure(command: list[str], threads: int) -> dict:
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return next(found for found in map(json.loads, lines) if found["rank"] == 0)


def main(arguments=None) -> None:
    result = parser(__doc__)
    result.add_argument("--models", default="A,B,words")
    result.add_argument("--mpiexec", default=str(Path(sys.executable).parent / "mpiexec"))
    result.add_argument("--rounds", type=int, default=3)
    result.add_argument("--seconds", type=float, default=2.0)
    result.add_argument("--worker", help="internal: seqnet or torch")
    options = result.parse_args(arguments)
    if options.worker:
        steps = seqnet_steps if options.worker == "seqnet" else torch_steps
        print(json.dumps(steps(options.models, options.seconds)), flush=True)
        return
    torch = HERE.parent / ".envs" / "pytorch" / "bin" / "python"
    report = Report("scale_out", options)
    report.begin()
    rows = [["model", "processes x threads", "ms a step", "messages", "kB", "share"]]
    for name in options.models.split(","):
        found: dict[str, list] = {}
        script = [str(HERE), "--models", name, "--seconds", str(options.seconds), "--worker"]
        sides = {
            "seqnet, 1 x 2": ([sys.executable, *script, "seqnet"], 2),
            "seqnet, 2 x 1": ([options.mpiexec, "-n", "2", sys.executable, *script, "seqnet"], 1),
        }
        if torch.exists():
            run = [str(torch), "-m", "torch.distributed.run", "--nproc-per-node=2"]
            sides["PyTorch, 1 x 2"] = ([str(torch), *script, "torch"], 2)
            sides["PyTorch, 2 x 1"] = ([*run, *script, "torch"], 1)
        for _ in range(options.rounds):
            for side, (command, threads) in sides.items():
                found.setdefault(side, []).append(measure(command, threads))
        best = {side: min(several, key=lambda one: one["ms"]) for side, several in found.items()}
        report.add(
            model=name,
            ms={side: spread([o["ms"] for o in s]) for side, s in found.items()},
            exchanged=best["seqnet, 2 x 1"],
        )
        for side, one in best.items():
            more = [f"{one[k]:.2f}" if k in one else "" for k in ("messages", "kB", "share")]
            rows.append([name, side, f"{one['ms']:.2f}", *more])
    table(rows)


if __name__ == "__main__":
    main()

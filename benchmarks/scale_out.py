"""Compare two processes of one thread each, on MPI, with one process of two threads.

    python benchmarks/scale_out.py --mpiexec mpiexec

A step is one update with the whole batch, which has the same size on all sides. The sides take
turns in one run; `speed` is that of two processes, in units of that of one, in the same round.
PyTorch is measured with DistributedDataParallel over gloo, if there is an environment for it (see
`environments.py`).

    python benchmarks/scale_out.py --rates 1000mbit,100mbit      # as root, on Linux

compares a model of the time (`exchange_s`) with processes in network namespaces.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import environments
import numpy as np
from harness import SETTLE_S, SIZES, Report, parser, spread, table

HERE = Path(__file__).resolve()
MODELS = {**{name: SIZES[name] for name in ("A", "B")}, "words": (100_000, 128, 256, 1, 32, 35)}
"""Vocabulary, embedding, units, layers, batch, length: a language model of each."""


FEW_ROWS = 1024
"""Tables with fewer rows are exchanged whole."""

SMALL_BYTES = 128
"""What is sent of sums and news in a step of these models."""

HOSTS = "-hosts"


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

    def facts(self) -> dict:
        """Return what the model of the time needs to know."""
        weights = [w.get_value(borrow=True) for w in self.model.weights]
        tables = sum(w.nbytes for w in weights if w.ndim == 2 and len(w) >= FEW_ROWS)
        dense = sum(w.nbytes for w in weights) - tables
        meets = []
        for _ in range(200):
            began = time.perf_counter()
            self.world.meet("a step of training")
            meets.append(time.perf_counter() - began)
        latency = float(np.median(meets[100:]))
        return {"dense_bytes": dense, "table_bytes": tables, "latency_s": latency}


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

    def facts(self) -> dict:
        return {}


def work(kind: str, name: str) -> None:
    """Make the numbers of steps that come in lines; print the time of one, and what it sent."""
    trainer = Seqnet(name) if kind == "seqnet" else Torch(name)
    trainer.step()
    facts = trainer.facts()
    if trainer.rank == 0:
        print(json.dumps(facts), flush=True)
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
        if HOSTS in start:
            variables["UCX_TLS"] = "tcp"  # not the memory, which the "machines" share
        self.process = subprocess.Popen(
            [*start, str(HERE), "--work", f"{kind}:{name}"],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = self.answer()

    def steps(self, count: int) -> dict:
        """Make steps and return the time of one in ms, with messages, bytes and seconds in them."""
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict:
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
    facts = sides["seqnet, 2 x 1"].facts
    report.add(
        model=name,
        **facts,
        row_bytes=max(0.0, sent["bytes"] - facts["dense_bytes"] - SMALL_BYTES),
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


# ---- a model of the time, and networks of limited rates to check it


def exchange_s(
    ranks: int,
    dense_bytes: float,
    row_bytes: float,
    table_bytes: float,
    latency_s: float,
    bits_per_s: float,
) -> float:
    """Return how long the exchanges of a step take, in seconds.

    Sums are made by recursive halving and doubling; rows are passed on in a tree. A rank sends and
    receives at the same time.

    Parameters
    ----------
    ranks : int
    dense_bytes : float
        Of the gradients that are added up.
    row_bytes : float
        Of the rows of tables that one rank contributes.
    table_bytes : float
        Of these tables, which are added up whole if all rows are more than they have.
    latency_s : float
        Of one message.
    bits_per_s : float
    """
    rounds = math.ceil(math.log2(ranks)) if ranks > 1 else 0
    messages = rounds * (2 + 2 + (2 if row_bytes else 0))  # two small ones, the sum, the rows
    if ranks * row_bytes > table_bytes:
        dense_bytes, row_bytes = dense_bytes + table_bytes, 0
    volume = 2 * (ranks - 1) / ranks * dense_bytes + (ranks - 1) * row_bytes
    return messages * latency_s + 8 * volume / bits_per_s


def shell(text: str) -> None:
    subprocess.run(text.split(), check=True, capture_output=True)


@contextlib.contextmanager
def network(ranks: int, rate: str):
    """Make a network namespace for each rank, with links of a rate; yield how to start ranks.

    It needs Linux, the rights of root, and the commands ip and tc.
    """
    with contextlib.ExitStack() as stack:
        shell("ip link add seqnet type bridge")
        stack.callback(shell, "ip link del seqnet")
        shell("ip addr add 10.77.0.254/24 dev seqnet")
        shell("ip link set seqnet up")
        for n in range(1, ranks + 1):
            shell(f"ip netns add seqnet{n}")
            stack.callback(shell, f"ip netns del seqnet{n}")
            shell(f"ip link add seqnet{n} type veth peer name eth0 netns seqnet{n}")
            stack.callback(shell, f"ip link del seqnet{n}")
            shell(f"ip link set seqnet{n} master seqnet up")
            shell(f"ip -n seqnet{n} addr add 10.77.0.{n}/24 dev eth0")
            shell(f"ip -n seqnet{n} link set eth0 up")
            shell(f"ip -n seqnet{n} link set lo up")
            if rate != "unlimited":
                limit = f"tbf rate {rate} burst 128kb latency 100ms"
                shell(f"ip netns exec seqnet{n} tc qdisc add dev eth0 root {limit}")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        launcher = folder / "launcher"
        launcher.write_text(
            "#!/bin/sh\nwhile case $1 in -*) ;; *) false; esac; do shift; done\n"
            'host=${1##*.}; shift; exec ip netns exec seqnet$host sh -c "$*"\n'
        )
        launcher.chmod(0o755)
        hosts = ",".join(f"10.77.0.{n}" for n in range(1, ranks + 1))
        how = f"{HOSTS} {hosts} -iface seqnet -launcher ssh -launcher-exec {launcher}"
        yield [*how.split(), "-n", str(ranks)]


def check_rates(name: str, options, report: Report) -> list[list]:
    """Compare the model of the time with runs at limited rates; return rows of a table."""
    rows, alone = [], None
    for rate in ("unlimited", *options.rates.split(",")):
        with network(options.ranks, rate) as start:
            given = [options.mpiexec, *start, sys.executable], "seqnet", name, 1
            with Side(*given) as side:
                side.steps(2)
                count = max(3, int(options.seconds * 1e3 / side.steps(3)["ms"]))
                turns = [side.steps(count) for _ in range(options.rounds)]
        ms = spread([turn["ms"] for turn in turns])
        dense, table = side.facts["dense_bytes"], side.facts["table_bytes"]
        sent = float(np.median([turn["bytes"] for turn in turns]))
        if alone is None:
            latency = side.facts["latency_s"] / math.ceil(math.log2(options.ranks))
            alone = ms["median"] - 1e3 * float(np.median([turn["seconds"] for turn in turns]))
            continue
        by_row = max(0.0, sent - dense - SMALL_BYTES)
        bits = float(rate.removesuffix("mbit")) * 1e6
        expected = alone + 1e3 * exchange_s(options.ranks, dense, by_row, table, latency, bits)
        report.add(model=name, ranks=options.ranks, rate=rate, ms=ms, predicted_ms=expected)
        rows.append([name, rate, f"{ms['median']:.1f}", f"{expected:.1f}"])
    return rows


def main(arguments=None) -> None:
    result = parser(__doc__)
    result.add_argument("--models", default="A,B,words")
    result.add_argument("--mpiexec", default=str(Path(sys.executable).parent / "mpiexec"))
    result.add_argument("--rounds", type=int, default=7)
    result.add_argument("--seconds", type=float, default=0.7, help="of each turn")
    result.add_argument("--rates", help="check the model at these rates instead: 1000mbit,100mbit")
    result.add_argument("--ranks", type=int, default=2, help="with --rates")
    result.add_argument("--work", help=argparse.SUPPRESS)
    options = result.parse_args(arguments)
    if options.work:
        work(*options.work.split(":"))
        return
    report = Report("scale_out", options)
    if options.rates:
        rows = [["model", "rate", "ms", "predicted"]]
        for name in options.models.split(","):
            rows += check_rates(name, options, report)
        table(rows)
        return
    rows = [["model", "processes x threads", "ms", "speed", "messages", "kB", "exchanging"]]
    for name in options.models.split(","):
        rows += compare(name, options, report)
    table(rows)


if __name__ == "__main__":
    main()

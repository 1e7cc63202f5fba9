"""The ranks of a run under ``mpiexec``, through mpi4py.

Every exchange begins with `MPIWorld.synchronize`, one small message. A rank that fails reports it
there, whatever the other ranks are about to do, so that all of them end.
"""

from __future__ import annotations

import atexit
import logging
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import numpy as np

from seqnet import backend, config
from seqnet.common.checks import check_bool, check_count, check_not_negative
from seqnet.common.types import Array
from seqnet.distributed.world import RankError, Sums, World, current, enter

log = logging.getLogger("seqnet")

PURPOSES = (
    "a step of training",
    "the weights of a step of training",
    "a step of evaluation",
    "a step of prediction",
    "the state at the start",
    "a check of the data",
    "a decision to stop",
    "the end of a call",
    "the end of the program",
    "the file of a run",
    "the rows with a loss that is not finite",
    "an error",
)
"""Why ranks wait for each other."""

REPORT_DELAY_S = 1.0
"""How long other ranks than the first wait before they report an error that all may have."""


def distribute(
    engine: str = "mpi", *, deterministic: bool | int = False, timeout: float = 1800.0
) -> World:
    """Train with all processes that ``mpiexec`` has started; call it once, before making a model.

    The rest of the script is the same on all ranks and stays as it is. `batch_size` is the size of
    the whole batch, of which each rank computes its share of the rows. Weights, losses, metrics and
    predictions are those of one process, to rounding, on all ranks. Rank 0 shows progress and
    writes the files of callbacks.

    Parameters
    ----------
    engine : "mpi"
        MPI, through the package mpi4py: ``pip install "seqnet[mpi]"``.
    deterministic : bool or int
        Make sums bit for bit the same with any number of ranks, 1 included: each batch is cut into
        8 shards, or into that many, which are added in a fixed order. Ranks beyond the number of
        shards are idle.
    timeout : float
        End all ranks, with a message that names the missing ones, if some wait for the others for
        so many seconds: a process hangs, or its machine is gone. It is longer than a rank may take
        alone, to compile or to read data.

    Returns
    -------
    World
        With `rank` and `size`. Without mpi4py, or if the program was not started by ``mpiexec``, a
        line is logged and it is a world of one.

    Raises
    ------
    ValueError
        If the engine is unknown.
    RuntimeError
        If it was called before with several processes.

    Examples
    --------
    >>> import seqnet
    >>> world = seqnet.distribute("mpi")
    >>> world.rank, world.size
    (0, 1)
    """
    if engine != "mpi":
        raise ValueError(f"The engine of distribute is 'mpi', got {engine!r}.")
    if not isinstance(deterministic, (bool, np.bool_)):
        check_count(deterministic, "deterministic")
    else:
        deterministic = check_bool(deterministic, "deterministic")
    timeout = check_not_negative(timeout, "timeout")
    if current().size > 1:
        raise RuntimeError("distribute is called once in a program.")
    try:
        from mpi4py import MPI
    except ImportError as error:
        log.warning(
            "distribute: mpi4py cannot be used (%s), so this process trains alone. "
            'pip install "seqnet[mpi]" installs it.',
            error,
        )
        return enter(World(deterministic))
    if MPI.COMM_WORLD.size == 1:
        log.info("distribute: there is one process. Start several with mpiexec -n 4 python ...")
        return enter(World(deterministic))
    return enter(MPIWorld(MPI, deterministic, timeout))


class MPIWorld(World):
    """The ranks of ``mpiexec``.

    Parameters
    ----------
    mpi : module
        ``mpi4py.MPI``
    deterministic : bool or int
        See `World`.
    timeout : float
        See `distribute`.

    Attributes
    ----------
    ranks_here : int
        The number of ranks on this machine.
    """

    def __init__(self, mpi: Any, deterministic: bool | int = False, timeout: float = 1800.0):
        super().__init__(deterministic)
        self.mpi, self.comm = mpi, mpi.COMM_WORLD.Dup()
        self.rank, self.size = self.comm.rank, self.comm.size
        self.library = mpi.Get_library_version().splitlines()[0].strip(" :\0")
        self.depth, self.agreed = 0, 0
        self.known_error: BaseException | None = None
        self.failed_rank = 0
        here = self.comm.Split_type(mpi.COMM_TYPE_SHARED)
        self.ranks_here = here.size
        share_cores(here.allgather(sorted(cores())))
        here.Free()
        self._introduce()
        self.waiting: tuple[float, int] | None = None  # since when, in which exchange
        self.left = threading.Event()
        self.watch = threading.Thread(target=self._watch, args=(self.comm.Dup(), timeout))
        self.watch.daemon = True
        if mpi.Query_thread() == mpi.THREAD_MULTIPLE:
            self.watch.start()
        if self.rank > 0:
            log.addFilter(errors_only)
        state = self.comm.bcast(config.random_generator().bit_generator.state)
        config.random_generator().bit_generator.state = state
        sys.excepthook = self._hook(sys.excepthook)
        atexit.register(self._leave)

    def _introduce(self) -> None:
        """Print which process each rank is: mpiexec names a process that died, not its rank."""
        processes = self.comm.gather((platform.node(), os.getpid()))
        machines: dict[str, list[str]] = {}
        for rank, (machine, process) in enumerate(processes or ()):
            machines.setdefault(machine, []).append(f"rank {rank} is process {process}")
        for machine, ranks in machines.items():
            print(f"{machine}: {', '.join(ranks)}", file=sys.stderr, flush=True)

    # ---- exchanges

    def synchronize(self, purpose: str, rows: int = 0, failed: bool = False) -> None:
        number = PURPOSES.index(purpose)
        signal = (self.signals and self.signals.received) or 0
        values = [self.size - self.rank if failed else 0, signal, number, -number, rows, -rows]
        header = np.array(values, dtype="int64")
        self._exchange(lambda: self.comm.Allreduce(self.mpi.IN_PLACE, header, self.mpi.MAX), header)
        self.agreed = int(header[1])
        if header[0]:
            self.failed_rank = self.size - int(header[0])
            if not failed:
                text = self.comm.bcast(None, self.failed_rank)
                self.known_error = RankError(
                    f"Rank {self.failed_rank} of {self.size} failed: {text}"
                )
                raise self.known_error
        elif header[2] != -header[3]:
            others = {PURPOSES[int(n)] for n in (header[2], -header[3])}
            raise RuntimeError(
                f"The ranks do different things at the same time ({' and '.join(sorted(others))}). "
                "All ranks must make the same calls of fit, evaluate and predict, in callbacks too."
            )
        elif header[4] != -header[5]:
            raise RuntimeError(
                f"The ranks have batches of different sizes ({-header[5]} to {header[4]} rows). "
                "Each rank is given the same data, all of it, and takes its share by itself."
            )

    def _exchange(self, exchange: Callable, *arrays: Array) -> Any:
        """Make an exchange, and count it; an error in it ends all ranks."""
        began = time.perf_counter()
        self.waiting = began, self.traffic.messages
        try:
            return exchange()
        except BaseException:
            self._abort("An exchange with the other ranks failed.")
            raise
        finally:
            self.waiting = None
            self.traffic.messages += 1
            self.traffic.bytes += sum(array.nbytes for array in arrays)
            self.traffic.seconds += time.perf_counter() - began

    def total(self, sums: Sums) -> list[Array]:
        arrays = super().total(sums)
        for array in () if self.shards else arrays:
            if array.size:
                self._exchange(
                    lambda a=array: self.comm.Allreduce(self.mpi.IN_PLACE, a, self.mpi.SUM), array
                )
        return arrays

    def _move(self, arrays: list[Array], like: list[Array], source: int, to: int) -> list[Array]:
        if self.rank == source:
            for array in arrays:
                self._exchange(lambda a=array: self.comm.Send(a, to), array)
        if self.rank != to:
            return []
        arrays = [np.empty_like(array) for array in like]
        for array in arrays:
            self._exchange(lambda a=array: self.comm.Recv(a, source))
        return arrays

    def _spread(self, arrays: list[Array], like: Sequence[Array], source: int) -> list[Array]:
        arrays = arrays if self.rank == source else [np.empty_like(array) for array in like]
        for array in arrays:
            if array.size:
                self._exchange(lambda a=array: self.comm.Bcast(a, source), array)
        return arrays

    def counts(self, count: int) -> list[int]:
        found, own = np.empty(self.size, dtype="int64"), np.array([count], dtype="int64")
        self._exchange(lambda: self.comm.Allgather(own, found), own)
        return found.tolist()

    def joined(self, array: Array, counts: Sequence[int] | None = None) -> Array:
        array = np.ascontiguousarray(array)
        counts = self.counts(len(array)) if counts is None else counts
        result = np.empty((sum(counts), *array.shape[1:]), dtype=array.dtype)
        sizes = np.asarray(counts) * row_bytes(array)
        view = [result.reshape(-1).view("uint8"), sizes, self.mpi.BYTE]
        given = array.reshape(-1).view("uint8")
        self._exchange(lambda: self.comm.Allgatherv(given, view), array)
        return result

    def broadcast(self, value: Any) -> Any:
        self.synchronize("the state at the start")
        return self._exchange(lambda: self.comm.bcast(value))

    def any(self, flag: bool) -> bool:
        self.synchronize("a decision to stop")
        found = np.array([bool(flag)], dtype="int64")
        self._exchange(lambda: self.comm.Allreduce(self.mpi.IN_PLACE, found, self.mpi.MAX), found)
        return bool(found[0])

    def gathered(self, value: Any, purpose: str) -> list:
        self.synchronize(purpose)
        return self._exchange(lambda: self.comm.allgather(value))

    def stopping(self, signals: Any) -> int | None:
        return self.agreed or None

    # ---- errors

    @contextmanager
    def together(self) -> Iterator[None]:
        """Tell the other ranks if the block fails, and wait for all at its end."""
        self.depth += 1
        self.agreed = self.agreed if self.depth > 1 else 0
        try:
            yield
            if self.depth == 1:
                self.synchronize("the end of a call")
        except BaseException as error:
            if self.depth == 1 and error is not self.known_error:
                self._fail(error)
            raise
        finally:
            self.depth -= 1

    def _fail(self, error: BaseException) -> None:
        """Tell the other ranks of an error, of which the first rank that has one reports."""
        self.synchronize("an error", failed=True)
        self.known_error = error
        text = f"{type(error).__name__}: {error}"
        self._exchange(lambda: self.comm.bcast(text, self.failed_rank))

    def _hook(self, before: Callable) -> Callable:
        def report(
            kind: type[BaseException], error: BaseException, where: TracebackType | None
        ) -> None:
            if error is self.known_error:  # all ranks know of it and end
                if self.rank == self.failed_rank:
                    self._report(before, kind, error, where)
                return
            if self.rank:
                time.sleep(REPORT_DELAY_S)  # rank 0 may have the same error, and ends all ranks
            self._report(before, kind, error, where)
            self._abort("An error outside of fit, evaluate and predict.")

        return report

    def _watch(self, comm: Any, timeout: float) -> None:
        """End all ranks if this one waits too long, in a thread.

        After half of the time a rank tells the others in which exchange it waits. So those of
        which nothing was heard in the end are missing.
        """
        reported, heard, sent = -1, dict.fromkeys(range(self.size), -1), []
        while not self.left.wait(min(1.0, timeout / 10)):
            while comm.Iprobe():
                status = self.mpi.Status()
                number = comm.recv(status=status)
                heard[status.Get_source()] = number
            waiting = self.waiting
            if waiting is None:
                continue
            since, number = waiting
            waited = time.perf_counter() - since
            if waited > timeout / 2 and reported != number:
                reported = heard[self.rank] = number
                sent = [comm.isend(number, r) for r in range(self.size) if r != self.rank]
            if waited > timeout and sent:
                missing = [str(rank) for rank, last in heard.items() if last != number]
                self._abort(
                    f"It has waited {timeout:g} s for the others (see distribute, timeout). "
                    f"Nothing was heard of rank {', '.join(missing) or 'any'}."
                )

    def _report(self, before: Callable, *error: Any) -> None:
        print(f"Rank {self.rank} of {self.size} failed:", file=sys.stderr)
        before(*error)
        sys.stderr.flush()

    def _abort(self, why: str) -> None:
        """End all ranks."""
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        print(f"Rank {self.rank} of {self.size} ends all ranks: {why}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        self.comm.Abort(1)

    def _leave(self) -> None:
        """Wait at the end of the program for all ranks; one that still trains gets an error."""
        try:
            self.synchronize("the end of the program")
        except RuntimeError as error:
            if error is not self.known_error or self.failed_rank == self.rank:
                self._abort(str(error))
        finally:
            self.left.set()
            if self.watch.is_alive():
                self.watch.join()


def row_bytes(array: Array) -> int:
    """Return the size of a row of an array."""
    return int(np.prod(array.shape[1:], dtype="int64")) * array.dtype.itemsize


def errors_only(record: logging.LogRecord) -> bool:
    """Return whether a rank other than the first shows a message of the log."""
    return record.levelno >= logging.ERROR


def cores() -> set[int]:
    """Return the processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def share_cores(of_ranks: list[list[int]]) -> None:
    """Divide the cores of a machine among its ranks, unless the user chose a number of threads.

    Parameters
    ----------
    of_ranks : list of list of int
        The cores that each rank on this machine may use: separate ones if ``mpiexec`` binds ranks.
    """
    if any(os.environ.get(name) for name in ("SEQNET_NUM_THREADS", "OMP_NUM_THREADS")):
        return
    own = cores()
    sharing = sum(bool(own & set(others)) for others in of_ranks)
    kernels = backend.native()
    if kernels is not None:
        kernels.set_num_threads(max(1, len(own) // sharing))

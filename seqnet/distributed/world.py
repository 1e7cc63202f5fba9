"""What the processes of one training do together.

Each batch is cut into shards, consecutive rows that are computed one after another. Each process,
a rank, computes some of the shards. Sums over shards are added up; nothing else is exchanged in a
step. A `World` of one rank has the same methods, so that the training does not ask how many there
are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from seqnet.common.types import Array

SHARDS = 8
"""The number of shards of a batch where sums must not depend on the number of ranks."""


Sums = dict[tuple[int, int], list[Array]]
"""Arrays that are added up over some shards, by the first shard and the one after the last."""


class RankError(RuntimeError):
    """Another rank failed; the message says which and why.

    Examples
    --------
    >>> from seqnet.distributed import RankError
    >>> str(RankError("Rank 1 of 2 failed: OSError: the disk is full"))
    'Rank 1 of 2 failed: OSError: the disk is full'
    """

    def __init__(self, message: str):
        super().__init__(message)


@dataclass
class Traffic:
    """What a rank has exchanged with others in steps.

    Attributes
    ----------
    messages : int
        The number of collective operations.
    bytes : int
        The size of what this rank contributed to them.
    seconds : float
        The time in them, including the time to wait for slower ranks.

    Examples
    --------
    >>> from seqnet.distributed import current
    >>> current().traffic
    Traffic(messages=0, bytes=0, seconds=0.0)
    """

    messages: int = 0
    bytes: int = 0
    seconds: float = 0.0


class World:
    """The ranks of a training; this one alone.

    Parameters
    ----------
    deterministic : bool or int
        Whether sums are the same bit for bit with any number of ranks. Then each batch is cut into
        8 shards, or into that many if it is a number, which are added in a fixed order.

    Attributes
    ----------
    rank : int
        The number of this process, from 0.
    size : int
        The number of processes.
    shards : int
        The fixed number of shards of a batch; 0 if it is not fixed.
    traffic : Traffic
    signals : object, optional
        Its attribute `received` is the number of a signal that asks this rank to stop.

    Examples
    --------
    >>> from seqnet.distributed import World
    >>> World().cuts(10, accumulate=3)
    [(0, 3), (3, 6), (6, 10)]
    """

    rank = 0
    size = 1
    library = ""

    def __init__(self, deterministic: bool | int = False):
        self.shards = SHARDS if deterministic is True else int(deterministic)
        self.traffic = Traffic()
        self.signals: Any = None

    def __repr__(self) -> str:
        return f"<World: rank {self.rank} of {self.size}>"

    # ---- which rows a rank computes

    def number_of_shards(self, accumulate: int = 1) -> int:
        """Return how many shards a batch is cut into, if each rank computes `accumulate`."""
        return self.shards or self.size * accumulate

    def own_shards(self, accumulate: int = 1, rank: int | None = None) -> range:
        """Return the numbers of the shards of a rank, by default this one."""
        count, rank = self.number_of_shards(accumulate), self.rank if rank is None else rank
        return range(count * rank // self.size, count * (rank + 1) // self.size)

    def cuts(self, rows: int, accumulate: int = 1) -> list[tuple[int, int]]:
        """Return the first row, and the row after the last, of each shard of this rank."""
        count = self.number_of_shards(accumulate)
        return [(rows * k // count, rows * (k + 1) // count) for k in self.own_shards(accumulate)]

    def part(self, rows: int) -> tuple[int, int]:
        """Return the first row, and the row after the last, of a batch that this rank computes."""
        count, own = self.number_of_shards(), self.own_shards()
        return rows * own.start // count, rows * own.stop // count

    def cuts_batches(self, accumulate: int = 1) -> bool:
        """Return whether a step is more than one call of one compiled function."""
        return self.size > 1 or self.shards > 0 or accumulate > 1

    # ---- what ranks do together

    def synchronize(self, purpose: str, rows: int = 0) -> None:
        """Wait for all ranks, and raise if one of them failed or does something else.

        Every exchange begins with it, so a rank that fails need not know what the others do.

        Parameters
        ----------
        purpose : str
            Why the ranks wait for each other, an item of `PURPOSES`.
        rows : int
            The rows of the batch, which must be the same on all ranks.
        """

    def own_sums(self, shards: Iterable[list[Array]]) -> Sums:
        """Add up arrays over the shards of this rank, as far as the order of additions permits.

        Parameters
        ----------
        shards : iterable of lists of array
            The same arrays for each shard, which may be overwritten. A rank without shards passes
            one list of arrays, which have the shapes and are not added.

        Returns
        -------
        dict
            Sums by range of shards. There is one, unless `shards` is fixed.
        """
        pairs = pairs_of(0, self.shards)
        found: list[tuple[int, int, list[Array]]] = []
        for number, arrays in enumerate(shards, self.own_shards().start):
            start, stop = number, number + 1
            while found and (not self.shards or (found[-1][0], start, stop) in pairs):
                start, _, before = found.pop()
                arrays = added(before, arrays)
            found.append((start, stop, arrays))
        return {(start, stop): arrays for start, stop, arrays in found}

    def total(self, sums: Sums) -> list[Array]:
        """Return the sums of arrays over the shards of all ranks, from those of `own_sums`.

        With a fixed number of shards, neighbours are added in pairs, and so on: ((0 + 1) + (2 +
        3)) + ((4 + 5) + (6 + 7)).
        """
        like = next(iter(sums.values()))
        if not self.shards:
            return like
        owners = [rank for rank in range(self.size) for _ in self.own_shards(rank=rank)]

        def add(start: int, stop: int) -> list[Array]:
            """Return the sum of some shards on the rank of the first, and nothing on others."""
            if owners[start] == owners[stop - 1]:
                return sums.get((start, stop), [])
            middle = (start + stop) // 2
            left, right = add(start, middle), add(middle, stop)
            to, source = owners[start], owners[middle]
            if to != source:
                right = self._move(right, like, source, to)
            return added(left, right) if self.rank == to else []

        return self._spread(add(0, self.shards), like, owners[0])

    def _move(self, arrays: list[Array], like: list[Array], source: int, to: int) -> list[Array]:
        """Send arrays from a rank to another, which gets arrays `like` its own."""
        return arrays

    def _spread(self, arrays: list[Array], like: Sequence[Array], source: int) -> list[Array]:
        """Send arrays of a rank to all."""
        return arrays

    def counts(self, count: int) -> list[int]:
        """Return a number of each rank."""
        return [count]

    def joined(self, array: Array, counts: Sequence[int] | None = None) -> Array:
        """Return the rows of all ranks, one after another; `counts` if the numbers are known."""
        return array

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0, any object that can be pickled."""
        return value

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set on any rank."""
        return flag

    def gathered(self, value: Any, purpose: str) -> list:
        """Return a value of each rank, any object that can be pickled."""
        return [value]

    def same(self, text: str, what: str) -> None:
        """Raise ``ValueError`` unless a text is the same on all ranks."""
        texts = self.gathered(text, "a check of the data")
        unlike = [rank for rank, other in enumerate(texts) if other != texts[0]]
        if unlike:
            raise ValueError(
                f"Rank {unlike[0]} has {what} that rank 0 does not have. Each rank is given the "
                "same data, all of it, and takes its share by itself."
            )

    @contextmanager
    def watching(self, signals: Any) -> Iterator[None]:
        """Tell the other ranks, inside the block, of signals that this one receives."""
        before, self.signals = self.signals, signals
        try:
            yield
        finally:
            self.signals = before

    def stopping(self, signals: Any) -> int | None:
        """Return the number of a signal that asked to stop, once all ranks know of it."""
        return signals.received

    @contextmanager
    def together(self) -> Iterator[None]:
        """Tell the other ranks if the block fails."""
        yield


def pairs_of(start: int, stop: int) -> set[tuple[int, int, int]]:
    """Return which sums of a fixed number of shards are added: start, middle and stop of each."""
    middle = (start + stop) // 2
    if middle == start:
        return set()
    return {(start, middle, stop)} | pairs_of(start, middle) | pairs_of(middle, stop)


def added(arrays: list[Array], others: Sequence[Array]) -> list[Array]:
    """Add other arrays to some, in place, and return these."""
    for array, other in zip(arrays, others, strict=True):
        array += other
    return arrays


_current = World()


def current() -> World:
    """Return the ranks that train together; a world of one before `seqnet.distribute`.

    Examples
    --------
    >>> from seqnet.distributed import current
    >>> current().size
    1
    """
    return _current


def enter(world: World) -> World:
    """Make a world the current one."""
    global _current
    _current = world
    return world

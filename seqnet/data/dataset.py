"""Batches and data sets.

The training loop, evaluation and prediction use data only through `Dataset`. `RowDataset`
implements it for data whose samples can be read by number; a subclass defines ``__len__`` and
`load`.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from seqnet import config
from seqnet.common.checks import check_number
from seqnet.common.types import ArrayLike
from seqnet.data.prefetch import prefetch_if_slow

Tree = Any
"""An array, a dictionary of trees by name, or None."""

RowSelection: TypeAlias = slice | np.ndarray
"""Rows of a data set: a slice, or an array of row numbers."""


def map_tree(function: Callable, tree: Tree) -> Tree:
    """Return a tree of the same structure with a function applied to each array.

    Examples
    --------
    >>> from seqnet.data.dataset import map_tree
    >>> map_tree(len, {"words": [1, 2], "tags": None})
    {'words': 2, 'tags': None}
    """
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {name: map_tree(function, branch) for name, branch in tree.items()}
    return function(tree)


def zip_trees(function: Callable, trees: Sequence[Tree]) -> Tree:
    """Return a tree with a function applied to the list of the arrays at each place.

    Examples
    --------
    >>> from seqnet.data.dataset import zip_trees
    >>> zip_trees(sum, [{"words": 1, "tags": 2}, {"words": 3, "tags": 4}])
    {'words': 4, 'tags': 6}
    """
    if isinstance(trees[0], dict):
        return {name: zip_trees(function, [tree[name] for tree in trees]) for name in trees[0]}
    return function(trees)


def tree_items(tree: Tree, name: str) -> list[tuple[str, Any]]:
    """Return the arrays of a tree, each with its name.

    Examples
    --------
    >>> from seqnet.data.dataset import tree_items
    >>> tree_items({"words": 1, "tags": 2}, "X")
    [('X/words', 1), ('X/tags', 2)]
    """
    if tree is None:
        return []
    if isinstance(tree, dict):
        return [pair for key, t in tree.items() for pair in tree_items(t, f"{name}/{key}")]
    return [(name, tree)]


class Place(NamedTuple):
    """Which rows of a batch some samples are.

    Attributes
    ----------
    start, stop : int
        The first row, and the row after the last. If they are equal, the samples are one row that
        only stands for the shapes.
    total : int
        The rows of the whole batch.
    """

    start: int
    stop: int
    total: int


@dataclass(slots=True)
class Batch:
    """A batch of samples: inputs, and targets, sample weights and mask if present.

    Each part is an array, or a dictionary of arrays by the name of a model input or output.

    Parameters
    ----------
    inputs : array (samples, ...)
    targets : array (samples, ...), optional
    sample_weight : array (samples,) or (samples, time), optional
        With several outputs, those that are missing have no weights.
    mask : bool array (samples, time), optional
        True where there is data. With several inputs, those that are missing have no mask.
    place : Place, optional
        Which rows of a batch the samples are; None if they are all of it.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.data import Batch
    >>> batch = Batch(np.zeros((4, 3)), np.arange(4))
    >>> len(batch), batch.take(slice(1, 3)).targets.tolist()
    (4, [1, 2])
    """

    inputs: Tree
    targets: Tree = None
    sample_weight: Tree = None
    mask: Tree = None
    place: Place | None = None

    def __len__(self) -> int:
        inputs = self.inputs
        return len(tree_items(inputs, "X")[0][1] if isinstance(inputs, dict) else inputs)

    def parts(self) -> tuple:
        """Return inputs, targets, sample weights and mask."""
        return (self.inputs, self.targets, self.sample_weight, self.mask)

    def leaves(self) -> list:
        """Return all arrays, in a fixed order."""
        return [leaf for part in self.parts() for _, leaf in tree_items(part, "")]

    def map(self, function: Callable) -> Batch:
        """Return a batch with a function applied to each array."""
        found = Batch(*[map_tree(function, part) for part in self.parts()])
        found.place = self.place
        return found

    def take(self, rows: RowSelection) -> Batch:
        """Return the samples of some rows (a slice or an array of numbers)."""
        select = itemgetter(rows)
        parts = []
        for part in (self.inputs, self.targets, self.sample_weight, self.mask):
            if part is not None:  # one call less for each array of each batch
                part = map_tree(select, part) if isinstance(part, dict) else part[rows]
            parts.append(part)
        return Batch(*parts)

    def part(self, start: int, stop: int) -> Batch:
        """Return some rows of a batch, with their place; one row if there are none."""
        rows, before = self.place or Place(0, len(self), len(self)), 0
        if self.place is not None:
            before = rows.start
        found = self.take(slice(start - before, stop - before) if stop > start else slice(0, 1))
        found.place = Place(start, stop, rows.total)
        return found


@dataclass(frozen=True)
class Epoch:
    """The batches of an epoch and their order.

    Parameters
    ----------
    batch_size : int
    rng : numpy.random.Generator, optional
        Draws the order of the samples; without it the order is kept.
    first : int
        The number of the first batch; earlier batches of the epoch were already used.
    steps : int, optional
        The number of batches in the epoch, by default all. After the last batch, the data starts
        again with the first.
    before : int, optional
        The number of batches in the earlier epochs. With `steps` and without `rng`, this epoch
        continues after them.
    contiguous : bool
        Each batch consists of neighbouring rows, and only the order of the batches is shuffled.
    part : function of an int, optional
        Returns the first row, and the row after the last, that are wanted of a batch of so many
        rows. A data set that can load these alone does so, and sets `Batch.place`.

    Examples
    --------
    >>> from seqnet.data import Epoch
    >>> list(Epoch(batch_size=2, first=1).select(["a", "b", "c"]))
    ['b', 'c']
    """

    batch_size: int = 32
    rng: np.random.Generator | None = None
    first: int = 0
    steps: int | None = None
    before: int | None = None
    contiguous: bool = False
    part: Callable[[int], tuple[int, int]] | None = None

    def select(self, batches: Iterable) -> Iterator:
        """Return the batches that belong to the epoch, given all batches in order.

        Examples
        --------
        >>> from seqnet.data import Epoch
        >>> list(Epoch(steps=3, before=2).select(range(4)))
        [2, 3, 0]
        """
        if self.steps is None:
            return islice(batches, self.first, None)
        before = self.before or 0 if self.rng is None else 0
        return islice(cycle(batches), before + self.first, before + self.steps)


class Dataset(ABC):
    """A source of batches.

    A subclass defines `batches`; all other methods have defaults that it may override. If samples
    can be read by number, `RowDataset` is the simpler base class. An iterable of batches needs no
    class: pass it to `Model.fit`.

    `Model.fit`, `Model.evaluate` and `Model.predict` accept a data set as ``X``, and check each of
    its batches like arrays.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.data import Batch, Dataset
    >>> class Noise(Dataset):
    ...     def batches(self, epoch):
    ...         rng = np.random.default_rng(0)
    ...         for _ in range(3):
    ...             x = rng.normal(size=(epoch.batch_size, 2))
    ...             yield Batch(x, x.sum(axis=1, keepdims=True))
    ...
    >>> model = seqnet.Model([seqnet.layers.Dense(1)])
    >>> history = model.fit(Noise(), batch_size=8, epochs=2, verbose=0)
    >>> len(history.history["loss"])
    2
    """

    name = "X"
    """The name of the data in messages."""

    one_pass = False
    """Whether the batches can be read only once."""

    @abstractmethod
    def batches(self, epoch: Epoch) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch, as selected by `Epoch.select`.

        A resumed run requests only the rest of an epoch. Batch number k must therefore be the same
        whether the earlier batches are requested or not. The generator is closed when the epoch
        ends or is interrupted.
        """

    def first_batch(self, batch_size: int) -> Batch:
        """Return the first batch without consuming it; functions are compiled for it."""
        batches = self.batches(Epoch(batch_size, steps=1))
        try:
            return next(batches)
        except StopIteration:
            raise ValueError(f"{self.name} has no batches.") from None
        finally:
            batches.close()

    def has_more(self) -> bool:
        """Return whether there is a batch for another epoch."""
        return True

    def batch_count(self, batch_size: int) -> int | None:
        """Return the number of batches, None if it is unknown."""
        return None

    def order_matters(self, batch_size: int) -> bool:
        """Return whether another order of the samples gives other batches."""
        return True

    def sample_count(self) -> int | None:
        """Return the number of samples, None if it is unknown."""
        return None

    def split(self, share: float) -> tuple[Dataset, Dataset]:
        """Split off the last `share` of the samples; return the two parts."""
        raise ValueError(
            f"validation_split splits off the end of arrays, but {self.name} is a stream of "
            "batches: pass validation_data."
        )

    def as_batch(self) -> Batch:
        """Return all samples as one batch."""
        self.close()
        raise ValueError(f"{self.name} is a stream of batches, but this takes one batch: x, y.")

    def map(self, function: Callable[[Batch], Batch]) -> Dataset:
        """Return the data set with a function applied to each batch."""
        return MappedDataset(self, function)

    def sorted_by_length(self) -> Dataset:
        """Return the data in the order that is fastest to compute; `join` restores the order."""
        return self

    def join(self, outputs: list[Tree]) -> Tree:
        """Concatenate the outputs of all batches, in the original order of the samples."""
        return outputs[0] if len(outputs) == 1 else zip_trees(np.concatenate, outputs)

    def fingerprint(self) -> dict[str, Any]:
        """Return shapes, dtypes and checksums that identify the data, as JSON can hold them."""
        return batch_fingerprint(self.first_batch(32))

    def close(self) -> None:  # noqa: B027  (most data sets hold no resources)
        """Release resources."""


class Indexable(Protocol):
    """An object with a length and items: a tensor, a dataset in a file, numbered batches."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


Data: TypeAlias = ArrayLike | Indexable | Iterable[Any] | Mapping[str, Any] | Dataset
"""Data that a model accepts: arrays, lists of sequences, rows in a file, streams of batches; for
several inputs or outputs, dictionaries of these by name."""


class MappedDataset(Dataset):
    """A data set with a function applied to each batch."""

    def __init__(self, dataset: Dataset, function: Callable[[Batch], Batch]):
        self.dataset, self.function = dataset, function
        self.name, self.one_pass = dataset.name, dataset.one_pass

    def batches(self, epoch: Epoch) -> Generator[Batch, None, None]:
        batches = self.dataset.batches(epoch)
        try:
            for batch in batches:
                mapped = self.function(batch)
                mapped.place = batch.place
                yield mapped
                del batch, mapped  # not kept alive while the next one is read
        finally:
            batches.close()

    def first_batch(self, batch_size: int) -> Batch:
        return self.function(self.dataset.first_batch(batch_size))

    def has_more(self) -> bool:
        return self.dataset.has_more()

    def batch_count(self, batch_size: int) -> int | None:
        return self.dataset.batch_count(batch_size)

    def order_matters(self, batch_size: int) -> bool:
        return self.dataset.order_matters(batch_size)

    def sample_count(self) -> int | None:
        return self.dataset.sample_count()

    def split(self, share: float) -> tuple[Dataset, Dataset]:
        first, last = self.dataset.split(share)
        return MappedDataset(first, self.function), MappedDataset(last, self.function)

    def as_batch(self) -> Batch:
        return self.function(self.dataset.as_batch())

    def sorted_by_length(self) -> Dataset:
        return MappedDataset(self.dataset.sorted_by_length(), self.function)

    def join(self, outputs: list[Tree]) -> Tree:
        return self.dataset.join(outputs)

    def fingerprint(self) -> dict[str, Any]:
        return self.dataset.fingerprint()

    def close(self) -> None:
        self.dataset.close()


class RowDataset(Dataset):
    """A data set whose samples can be read by number.

    A subclass defines ``__len__`` and `load`. This class provides shuffling, splitting, counting, a
    fingerprint for resumed runs, and a thread that prefetches batches that are slow to read.
    Override `plan` for a custom order (and `split`, because its parts use the default order).

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.data import Batch, RowDataset
    >>> class Squares(RowDataset):
    ...     def __len__(self):
    ...         return 100
    ...     def load(self, rows):
    ...         x = np.arange(100)[rows, None] / 100
    ...         return Batch(x, x**2)
    >>> model = seqnet.Model([seqnet.layers.Dense(1)])
    >>> history = model.fit(Squares(), epochs=2, verbose=0, validation_split=0.2)
    >>> sorted(history.history)
    ['loss', 'val_loss']
    """

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def load(self, rows: RowSelection) -> Batch:
        """Return the samples of some rows: a slice, or an array of row numbers."""

    def plan(self, batch_size: int, rng: np.random.Generator | None = None) -> Iterator:
        """Return the rows of each batch, in order or shuffled by a random generator."""
        size = len(self)
        starts = range(0, size, batch_size)
        slices = (slice(start, min(start + batch_size, size)) for start in starts)
        if rng is None:
            return slices
        order = rng.permutation(size)
        return (order[rows] for rows in slices)

    def epoch_rows(self, epoch: Epoch) -> Iterator:
        """Return the rows of each batch of an epoch."""
        if epoch.rng is not None and epoch.contiguous:
            slices = list(self.plan(epoch.batch_size))
            return epoch.select([slices[k] for k in epoch.rng.permutation(len(slices))])
        return epoch.select(self.plan(epoch.batch_size, epoch.rng))

    def batches(self, epoch: Epoch) -> Generator[Batch, None, None]:
        """Yield batches, prefetched by a thread if they are slow; the order is drawn first."""
        rows = self.epoch_rows(epoch)
        load = self.loader(epoch)
        return prefetch_if_slow((load(r) for r in rows), config.prefetch())

    def loader(self, epoch: Epoch) -> Callable[[RowSelection], Batch]:
        """Return what loads the samples of a batch that an epoch asks for."""
        return self.load if epoch.part is None else partial(self.load_part, part=epoch.part)

    def load_part(self, rows: RowSelection, part: Callable[[int], tuple[int, int]]) -> Batch:
        """Return a part of a batch of some rows; see `Epoch`."""
        total = count_rows(rows)
        start, stop = part(total)
        batch = self.load(some_rows(rows, start, stop))
        batch.place = Place(start, stop, total)
        return batch

    def first_batch(self, batch_size: int) -> Batch:
        return self.load(slice(0, min(batch_size, len(self))))

    def batch_count(self, batch_size: int) -> int | None:
        return -(-len(self) // batch_size)

    def sample_count(self) -> int | None:
        return len(self)

    def split_row(self, share: float) -> int:
        """Return the first row of the second part, or raise an error if a part would be empty."""
        if not 0 < check_number(share, "validation_split") < 1:
            raise ValueError(f"validation_split is a fraction between 0 and 1, got {share}.")
        row = int(len(self) * (1 - share))
        if row == 0 or row == len(self):
            raise ValueError(
                f"validation_split={share} of {len(self)} samples leaves nothing to "
                f"{'train' if row == 0 else 'validate'} on."
            )
        return row

    def split(self, share: float) -> tuple[Dataset, Dataset]:
        row = self.split_row(share)
        return RowRange(self, 0, row), RowRange(self, row, len(self))

    def as_batch(self) -> Batch:
        return self.load(slice(0, len(self)))

    def fingerprint(self) -> dict[str, Any]:
        """Return the shapes and dtypes of the parts, and checksums of a few rows."""
        rows = np.unique(np.linspace(0, len(self) - 1, FINGERPRINT_ROWS, dtype=int))
        found = batch_fingerprint(self.load(rows))
        return {name: part | {"samples": len(self)} for name, part in found.items()}


def count_rows(rows: RowSelection) -> int:
    """Return the number of rows of a batch."""
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)


def some_rows(rows: RowSelection, start: int, stop: int) -> RowSelection:
    """Return a part of the rows of a batch; the first row if it is empty.

    Examples
    --------
    >>> from seqnet.data.dataset import some_rows
    >>> some_rows(slice(10, 20), 2, 4)
    slice(12, 14, None)
    """
    start, stop = (start, stop) if stop > start else (0, 1)
    if isinstance(rows, slice):
        return slice(rows.start + start, rows.start + stop)
    return rows[start:stop]


class RowRange(RowDataset):
    """Neighbouring rows of another data set."""

    def __init__(self, dataset: RowDataset, start: int, stop: int):
        self.dataset, self.start, self.stop = dataset, start, stop
        self.name = dataset.name

    def __len__(self) -> int:
        return self.stop - self.start

    def load(self, rows: RowSelection) -> Batch:
        if isinstance(rows, slice):
            first, last, _ = rows.indices(len(self))
            return self.dataset.load(slice(self.start + first, self.start + last))
        return self.dataset.load(rows + self.start)

    def close(self) -> None:
        self.dataset.close()


FINGERPRINT_ROWS = 100
"""The number of regularly spaced rows in the fingerprint of a data set."""

FINGERPRINT_BYTES = 2**26
"""The approximate number of bytes read for a fingerprint; of larger arrays, rows are skipped."""


def fingerprint(array: np.ndarray) -> dict[str, Any]:
    """Return the shape, the dtype and a checksum of an array, as JSON can hold them."""
    rows = array[:: 1 + array.nbytes // FINGERPRINT_BYTES]
    checksum = zlib.crc32(np.ascontiguousarray(rows).data)
    return {"shape": list(array.shape), "dtype": array.dtype.name, "checksum": checksum}


PART_NAMES = ("X", "y", "sample_weight", "mask")
"""The names of the parts of a batch in messages."""


def batch_fingerprint(batch: Batch, of: Callable = fingerprint) -> dict[str, Any]:
    """Return the fingerprints of the arrays of a batch, by their names in messages.

    `of` returns the fingerprint of an array.
    """
    pairs = zip(PART_NAMES, batch.parts(), strict=True)
    return {name: map_tree(of, part) for name, part in pairs if part is not None}

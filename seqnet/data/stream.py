"""Streams of batches: generators, loaders, and objects that return batches by number."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from seqnet import config
from seqnet.common.checks import preceded
from seqnet.data.dataset import Batch, Dataset, Epoch, Tree, zip_trees
from seqnet.data.out_of_core import is_out_of_core
from seqnet.data.prefetch import prefetch
from seqnet.data.validation import described

if TYPE_CHECKING:
    from seqnet.data.arrays import ArrayDataset
    from seqnet.data.ragged import RaggedDataset
    from seqnet.model import Model


def is_stream(values: Any, alone: bool) -> bool:
    """Return whether values are batches and not rows.

    Parameters
    ----------
    values
        The user's X. An iterator, or an iterable without items, is a stream. An object with a
        length and items is a stream if its first item is a tuple, (x, y).
    alone : bool
        Whether X was passed without y: a list of tuples is then a stream, too.
    """
    if hasattr(values, "__next__"):
        return True
    if isinstance(values, Mapping):  # several inputs, such as an h5py.Group
        return False
    if is_out_of_core(values):
        return not hasattr(values, "shape") and gives_batches(values)
    if isinstance(values, list):
        return alone and bool(values) and all(isinstance(v, tuple) for v in values)
    return hasattr(values, "__iter__") and not hasattr(values, "__getitem__")


def gives_batches(values: Any) -> bool:
    """Return whether the items of an object are tuples (x, y), and not rows."""
    try:
        return len(values) > 0 and isinstance(values[0], tuple)
    except (TypeError, AttributeError):  # it only supports slices
        return False


class Stream(Dataset):
    """Batches of an iterable, prefetched by a thread.

    Parameters
    ----------
    source : iterable of batches
        An iterator can be read only once, and is closed with the stream.
    prepare : function
        Converts a batch of the source to a checked `ArrayDataset` or `RaggedDataset`, or raises an
        error.
    name : str
        The name in messages.
    continues : bool
        Whether each epoch begins where the previous one ended, and the source is restarted when it
        ends. Otherwise each epoch begins with the first batch.
    """

    def __init__(self, source: Any, prepare: Callable, name: str, continues: bool = False):
        self.source, self.prepare, self.name = source, prepare, name
        self.one_pass = hasattr(source, "__next__")
        self.continues = continues or self.one_pass
        self.reader: Generator | None = None
        self.waiting: list = []
        self.number = 0
        self.outlines: list = []

    def batch_count(self, batch_size: int) -> int | None:
        known = hasattr(self.source, "__len__") and not self.one_pass
        return len(self.source) if known else None

    def first_batch(self, batch_size: int | None = None) -> Batch:
        """Return the next batch without consuming it."""
        return self.first().as_batch()

    def first(self) -> ArrayDataset | RaggedDataset:
        """Return the next batch as a data set, without consuming it."""
        if not self.has_more():
            hint = " An iterator can be read only once." if self.one_pass else ""
            raise ValueError(f"{self.name} has no batches.{hint}")
        return self.prepared(self.number, self.waiting[0])

    def batches(self, epoch: Epoch) -> Generator[Batch, None, None]:
        """Yield batches in the order and with the sizes of the source.

        Batches that are skipped are read nevertheless. There are fewer batches than steps in the
        epoch if the source is an iterator that ends.
        """
        self.outlines = []
        before = self.number if epoch.before is None else epoch.before
        end = None if epoch.steps is None else before + epoch.steps
        try:
            while (end is None or self.number < end) and self.has_more():
                raw, number = self.waiting.pop(), self.number
                self.number += 1
                if number >= before + epoch.first:
                    yield self.padded(self.prepared(number, raw))
        finally:
            if not self.continues:
                self.close()

    def has_more(self) -> bool:
        """Return whether there is another batch; it is read and kept for later."""
        if self.reader is None:
            self.reader = prefetch(self.read(), config.prefetch())
        if not self.waiting:
            self.waiting += islice(self.reader, 1)
        return bool(self.waiting)

    def read(self) -> Generator:
        """Yield the batches of the source once, or repeatedly if epochs continue each other."""
        found = True
        while found:
            found = False
            iterator = iter(self.source)
            try:
                for raw in iterator:
                    found = True
                    yield raw
            finally:
                if hasattr(iterator, "close"):
                    iterator.close()
            if self.one_pass or not self.continues:
                return

    def prepared(self, number: int, raw: Any) -> ArrayDataset | RaggedDataset:
        """Return a batch of the source as a data set; an error names the batch."""
        try:
            return self.prepare(raw)
        except (ValueError, TypeError) as error:
            raise preceded(error, f"Batch {number} of {self.name}") from error

    def padded(self, samples: ArrayDataset | RaggedDataset) -> Batch:
        """Return the samples of a batch as arrays; keep what `join` needs to undo padding."""
        batch = samples.as_batch()
        if batch.targets is None:
            self.outlines.append(samples.outline())
        return batch

    def join(self, outputs: list[Tree]) -> Tree:
        """Return the outputs of all batches as an array, or a list of rows if lengths differ."""
        if not outputs:
            raise ValueError(f"{self.name} has no batches.")
        found = [s.join([output]) for s, output in zip(self.outlines, outputs, strict=True)]
        return zip_trees(array_or_rows, found)

    def fingerprint(self) -> dict[str, Any]:
        """Return the shapes, dtypes and checksums of the next batch."""
        return self.first().fingerprint()

    def close(self) -> None:
        """Stop reading, and close the iterator of the source."""
        if self.reader is not None:
            self.reader.close()
        self.reader, self.waiting, self.number = None, [], 0


class NumberedBatches(Stream):
    """Batches that an object returns by number, such as Keras's ``PyDataset``.

    If the epoch has a random generator, the batches are read in a new order. Batches that are
    skipped are not read. If the object has `on_epoch_end`, it is called after the last batch was
    read.
    """

    def first(self) -> ArrayDataset | RaggedDataset:
        if len(self.source) == 0:
            raise ValueError(f"{self.name} has no batches.")
        return self.prepared(0, self.source[0])

    def batches(self, epoch: Epoch) -> Generator[Batch, None, None]:
        self.outlines = []
        order: range | list[int] = range(len(self.source))
        if epoch.rng is not None:
            order = epoch.rng.permutation(len(self.source)).tolist()
        numbers = epoch.select(order)
        return self.in_order(prefetch(self.numbered(numbers), config.prefetch()))

    def has_more(self) -> bool:
        return True

    def numbered(self, numbers: Iterator[int]) -> Generator:
        """Yield the source's batches with their numbers."""
        for number in numbers:
            yield number, self.source[number]
        if hasattr(self.source, "on_epoch_end"):
            self.source.on_epoch_end()

    def in_order(self, reader: Generator) -> Generator:
        """Check and yield the batches."""
        with closing(reader):
            for number, raw in reader:
                yield self.padded(self.prepared(number, raw))


def array_or_rows(outputs: list) -> np.ndarray | list[np.ndarray]:
    """Return the outputs of batches as one array, or as a list of rows if lengths differ."""
    shapes = {o.shape[1:] if isinstance(o, np.ndarray) else None for o in outputs}
    if len(shapes) == 1 and None not in shapes:
        return np.concatenate(outputs)
    return [row for rows in outputs for row in rows]


def open_stream(source: Any, prepare: Callable, name: str, continues: bool = False) -> Stream:
    """Return the stream for a source that `is_stream` accepts."""
    kind = NumberedBatches if hasattr(source, "__getitem__") else Stream
    return kind(source, prepare, name, continues)


def batch_parts(raw: Any, targets: bool, model: Model) -> tuple:
    """Return x, y and the weights of a batch of a stream, or only x."""
    if targets:
        if not isinstance(raw, (tuple, list)) or len(raw) not in (2, 3):
            raise TypeError(f"a batch is (x, y) or (x, y, sample_weight), got {described(raw)}.")
        return tuple(raw)
    names = model.input_names
    if isinstance(raw, tuple):
        first = raw[0] if raw else None
        # (a, b) is both inputs, and (x, y) has an x that holds both.
        whole = isinstance(first, dict) or (
            isinstance(first, (list, tuple)) and len(first) == len(names)
        )
        return raw[:1] if len(names) != len(raw) or len(names) == 1 or whole else (list(raw),)
    if not isinstance(raw, list) or not raw:
        return (raw,)
    # A list contains sequences of different lengths, or several inputs, except that loaders return
    # tuples as lists.
    if len(names) > 1:
        loaded = len(raw) != len(names) or isinstance(raw[0], dict)
    else:
        loaded = model.input_shape is not None and np.ndim(raw[0]) == len(model.input_shape)
    return tuple(raw[:1]) if loaded else (raw,)

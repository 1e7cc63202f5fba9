"""Batches that come one after another: from generators, loaders, or by number."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np

from seqnet import config
from seqnet.checks import preceded
from seqnet.data import Examples, portion
from seqnet.readahead import read_ahead
from seqnet.sequences import described
from seqnet.sources import is_source


def is_stream(values, alone: bool) -> bool:
    """Tell whether these are batches and not rows.

    Parameters
    ----------
    values
        What the user passed as X: an iterator, or what has one but no items, is a stream. An
        object with a length and items is one if the first of them is a tuple, (x, y).
    alone : bool
        Whether it came without y: then a list of tuples is one too.
    """
    if hasattr(values, "__next__"):
        return True
    if is_source(values):
        return not hasattr(values, "shape") and gives_batches(values)
    if isinstance(values, list):
        return alone and bool(values) and all(isinstance(v, tuple) for v in values)
    return hasattr(values, "__iter__") and not hasattr(values, "__getitem__")


def gives_batches(values) -> bool:
    """Tell whether the items of an object are (x, y), and not rows."""
    try:
        return len(values) > 0 and isinstance(values[0], tuple)
    except (TypeError, AttributeError):  # it takes slices only
        return False


class Stream:
    """Batches of an iterable, read ahead; it has the interface of `Examples` as far as it goes.

    Parameters
    ----------
    source : iterable of batches
        One that is an iterator can be gone through once, and is closed with the stream.
    check : function
        Turns one of its batches into checked `Examples`, or raises.
    name : str
        What messages call it.
    goes_on : bool
        Whether `batches` goes on where it ended the last time, and begins anew when the source
        ends. Without it, it begins anew each time.
    """

    def __init__(self, source, check: Callable, name: str, goes_on: bool = False):
        self.source, self.check, self.name = source, check, name
        self.once = hasattr(source, "__next__")
        self.goes_on = goes_on or self.once
        self.reader: Generator | None = None
        self.waiting: list = []
        self.number = 0
        self.checked: list[Examples] = []

    def __len__(self) -> int:
        raise TypeError(f"The number of samples of {self.name} is not known: it is a stream.")

    def count(self, batch_size: int) -> int | None:
        """Return the number of batches, None where it is not known."""
        known = hasattr(self.source, "__len__") and not self.once
        return len(self.source) if known else None

    def samples(self) -> None:
        """Return None: the number of samples is not known."""

    def split(self, share: float):
        raise ValueError(
            f"validation_split cuts off the end of arrays, but {self.name} is a stream of batches: "
            "pass validation_data."
        )

    def whole(self):
        self.close()
        raise ValueError(f"{self.name} is a stream of batches, but this takes one batch: x, y.")

    def by_length(self) -> Stream:
        """Return the stream: its order is that of the source."""
        return self

    def first_batch(self, batch_size: int | None = None) -> Examples:
        """Return the batch that comes next, which stays the next one."""
        if not self.more():
            hint = " An iterator can be gone through only once." if self.once else ""
            raise ValueError(f"{self.name} has no batches.{hint}")
        return self.checked_batch(self.number, self.waiting[0]).whole()

    def batches(
        self,
        batch_size: int | None = None,
        rng: np.random.Generator | None = None,
        first: int = 0,
        steps: int | None = None,
        before: int | None = None,
        contiguous: bool = False,
    ) -> Generator:
        """Yield batches in the source's order, as `Examples.batches` does.

        Those left out are read. There are fewer than `steps` if the source is an iterator and ends.
        Sizes and order are the source's own.
        """
        self.checked = []
        before = self.number if before is None else before
        end = None if steps is None else before + steps
        try:
            while (end is None or self.number < end) and self.more():
                raw, number = self.waiting.pop(), self.number
                self.number += 1
                if number >= before + first:
                    yield self.padded(self.checked_batch(number, raw))
        finally:
            if not self.goes_on:
                self.close()

    def more(self) -> bool:
        """Tell whether there is another batch, which is then waiting."""
        if self.reader is None:
            self.reader = read_ahead(self.read(), config.read_ahead())
        if not self.waiting:
            self.waiting += islice(self.reader, 1)
        return bool(self.waiting)

    def read(self) -> Generator:
        """Yield the source's batches once, or without end if the stream goes on."""
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
            if self.once or not self.goes_on:
                return

    def checked_batch(self, number: int, raw) -> Examples:
        """Return a batch checked; what is wrong with it is said with its number."""
        try:
            return self.check(raw)
        except (ValueError, TypeError) as error:
            raise preceded(error, f"Batch {number} of {self.name}") from error

    def padded(self, batch: Examples) -> Examples:
        """Return a batch as arrays; `join` needs to know how sequences lie in it."""
        if batch.y is None:
            self.checked.append(replace(batch, x=None, mask=None))
        return batch.whole()

    def join(self, outputs: list[np.ndarray]):
        """Return the outputs of all batches as an array, or a list of rows if lengths differ."""
        if not outputs:
            raise ValueError(f"{self.name} has no batches.")
        found = [b.join([output]) for b, output in zip(self.checked, outputs, strict=True)]
        shapes = {f.shape[1:] if isinstance(f, np.ndarray) else None for f in found}
        if len(shapes) == 1 and None not in shapes:
            return np.concatenate(found)
        return [row for rows in found for row in rows]

    def fingerprint(self) -> dict[str, dict]:
        """Return the shapes, dtypes and checksums of the batch that comes next."""
        return self.first_batch().fingerprint()

    def close(self) -> None:
        """End the reading, and with it the source's iterator."""
        if self.reader is not None:
            self.reader.close()
        self.reader, self.waiting, self.number = None, [], 0


class NumberedBatches(Stream):
    """Batches that an object gives by number, as Keras's ``PyDataset`` does.

    They are read in a new order for each epoch if there is a generator, and those that are skipped
    are not read. If the object has `on_epoch_end`, that is called when the last one was read.
    """

    def __len__(self) -> int:
        return len(self.source)

    def first_batch(self, batch_size: int | None = None) -> Examples:
        if len(self) == 0:
            raise ValueError(f"{self.name} has no batches.")
        return self.checked_batch(0, self.source[0]).whole()

    def batches(
        self,
        batch_size: int | None = None,
        rng: np.random.Generator | None = None,
        first: int = 0,
        steps: int | None = None,
        before: int = 0,
        contiguous: bool = False,
    ) -> Generator:
        self.checked = []
        if rng is None:
            numbers = portion(range(len(self)), first, steps, before)
        else:
            numbers = portion(rng.permutation(len(self)).tolist(), first, steps)
        return self.in_order(read_ahead(self.numbered(numbers), config.read_ahead()))

    def more(self) -> bool:
        return True

    def numbered(self, numbers: Iterator[int]) -> Generator:
        """Yield the source's batches with their numbers."""
        for number in numbers:
            yield number, self.source[number]
        if hasattr(self.source, "on_epoch_end"):
            self.source.on_epoch_end()

    def in_order(self, reader: Generator) -> Generator:
        """Yield what is read, checked."""
        with closing(reader):
            for number, raw in reader:
                yield self.padded(self.checked_batch(number, raw))


Data = Examples | Stream
"""A data set: rows, or batches."""


def stream_of(source, check: Callable, name: str, goes_on: bool = False) -> Stream:
    """Return the stream for what `is_stream` takes for one."""
    kind = NumberedBatches if hasattr(source, "__getitem__") else Stream
    return kind(source, check, name, goes_on)


def batch_parts(raw, targets: bool, input_shape: tuple | None) -> tuple:
    """Return x, y and the weights of a stream's batch, or x alone."""
    if targets:
        if not isinstance(raw, (tuple, list)) or len(raw) not in (2, 3):
            raise TypeError(f"a batch is (x, y) or (x, y, sample_weight), got {described(raw)}.")
        return tuple(raw)
    if isinstance(raw, tuple):
        return raw[:1]
    # A list is sequences of different lengths, except that loaders make lists of tuples.
    rank = None if input_shape is None else len(input_shape)
    if isinstance(raw, list) and raw and np.ndim(raw[0]) == rank:
        return tuple(raw[:1])
    return (raw,)

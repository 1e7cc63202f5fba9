"""Arrays that stay in shared variables during a training; batches are taken by index."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqnet.data.arrays import ArrayDataset
from seqnet.data.dataset import Batch, Dataset, Epoch, MappedDataset, RowDataset, RowSelection


@dataclass(slots=True)
class Selection:
    """A batch of data in shared variables.

    Parameters
    ----------
    data : Batch
        Shared variables, each (samples, ...).
    kind : tuple
        Identifies the variables: a function that is compiled with some has them inside.
    rows : int array, optional
        Which rows; without it, all of them.
    size : int
        The number of rows.
    """

    data: Batch
    kind: tuple
    rows: np.ndarray | None
    size: int

    def __len__(self) -> int:
        return self.size


class ResidentDataset(RowDataset):
    """A data set of arrays whose batches are numbers of rows.

    Parameters
    ----------
    source : Dataset
        Arrays in memory.
    data : Batch
        Shared variables with the values of all its samples.
    kind : tuple
        See `Selection`.
    """

    def __init__(self, source: Dataset, data: Batch, kind: tuple):
        self.source, self.data, self.kind = source, data, kind
        self.name, self.size = source.name, source.sample_count() or 0

    def __len__(self) -> int:
        return self.size

    def load(self, rows: RowSelection) -> Batch:
        return self.source.as_batch().take(rows)

    def select(self, rows: RowSelection) -> Selection:
        """Return the batch of some rows."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.size)
            if stop - start == self.size:
                return Selection(self.data, self.kind, None, self.size)
            rows = np.arange(start, stop)
        return Selection(self.data, self.kind, rows, len(rows))

    def batches(self, epoch: Epoch) -> Generator[Any, None, None]:
        """Yield a `Selection` for each batch."""
        for rows in self.epoch_rows(epoch):
            yield self.select(rows)

    def first_batch(self, batch_size: int) -> Any:
        return self.select(slice(0, min(batch_size, self.size)))

    def order_matters(self, batch_size: int) -> bool:
        return self.source.order_matters(batch_size)

    def fingerprint(self) -> dict[str, Any]:
        return self.source.fingerprint()


def check_resident(dataset: Dataset, name: str, tbptt: int | None) -> None:
    """Raise ``ValueError`` if data cannot be kept in shared variables."""
    source = dataset.dataset if isinstance(dataset, MappedDataset) else dataset
    if not isinstance(source, ArrayDataset):
        raise ValueError(
            f"resident=True keeps arrays in shared variables, but {name} is a list of "
            "sequences of different lengths, a stream, or data outside memory. Pass arrays "
            "(sequences padded, with a mask), or leave resident out."
        )
    if tbptt is not None:
        raise ValueError(
            "resident=True takes whole batches from shared variables, so they cannot be cut into "
            "the windows of tbptt: leave one of them out."
        )

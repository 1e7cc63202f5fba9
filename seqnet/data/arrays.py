"""Arrays in memory as a data set."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from seqnet.data.dataset import Batch, Epoch, RowDataset, RowSelection, batch_fingerprint


class ArrayDataset(RowDataset):
    """Samples that are arrays in memory.

    Parameters
    ----------
    data : Batch
        All samples.
    """

    def __init__(self, data: Batch):
        self.data, self.size = data, len(data)

    def __len__(self) -> int:
        return self.size

    def load(self, rows: RowSelection) -> Batch:
        return self.data.take(rows)

    def batches(self, epoch: Epoch) -> Generator[Batch, None, None]:
        """Yield batches; each costs only the indexing of the arrays."""
        load = self.loader(epoch)
        for rows in self.epoch_rows(epoch):
            yield load(rows)

    def order_matters(self, batch_size: int) -> bool:
        return batch_size < self.size

    def split(self, share: float) -> tuple[ArrayDataset, ArrayDataset]:
        row = self.split_row(share)
        return ArrayDataset(self.load(slice(0, row))), ArrayDataset(self.load(slice(row, None)))

    def as_batch(self) -> Batch:
        return self.data

    def fingerprint(self) -> dict[str, Any]:
        return batch_fingerprint(self.data)

    def outline(self) -> ArrayDataset:
        """Return a data set without arrays that has what `join` needs."""
        return ArrayDataset(Batch(np.empty(0)))

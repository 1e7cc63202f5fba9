"""Arrays in memory as a data set."""

from __future__ import annotations

from collections.abc import Callable, Generator
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
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def load(self, rows: RowSelection) -> Batch:
        return self.data.take(rows)

    def batches(self, epoch: Epoch) -> Generator[Batch, None, None]:
        """Yield batches; each costs only the indexing of the arrays."""
        for rows in self.epoch_rows(epoch):
            yield self.data.take(rows)

    def split(self, share: float) -> tuple[ArrayDataset, ArrayDataset]:
        row = self.split_row(share)
        return ArrayDataset(self.load(slice(0, row))), ArrayDataset(self.load(slice(row, None)))

    def as_batch(self) -> Batch:
        return self.data

    def fingerprint(self) -> dict[str, Any]:
        return batch_fingerprint(self.data)

    # The interface that the checks of values need; `RaggedDataset` has it, too.

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The shape of a batch of inputs, None for the number of samples."""
        return (None, *self.data.inputs.shape[1:])

    def has_steps_of(self, output_shape: tuple) -> bool:
        """Return whether an output of a shape, the batch first, has the steps of the inputs."""
        return len(output_shape) > 2 and output_shape[1:2] == self.data.inputs.shape[1:2]

    def target_weight(self) -> np.ndarray | None:
        """Return the sample weights, with as many rows as there are targets."""
        return self.data.sample_weight

    def reverse_steps(self, values: np.ndarray) -> np.ndarray:
        """Return values of steps with the steps of each sequence reversed."""
        return values[:, ::-1]

    per_step = False

    def checking(self, check: Callable, per_step: bool = True) -> Callable:
        """Return a check of values and a name: the given one, which already names places."""
        return check

    def outline(self) -> ArrayDataset:
        """Return a data set without arrays that has what `join` needs."""
        return ArrayDataset(Batch(np.empty(0)))

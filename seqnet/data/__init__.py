"""Data sets and batches, and functions for padding."""

from seqnet.data.dataset import Batch, Dataset, Epoch, RowDataset
from seqnet.data.padding import pad_sequences, range_weights

__all__ = ["Batch", "Dataset", "Epoch", "RowDataset", "pad_sequences", "range_weights"]


def __dir__() -> list[str]:
    return sorted(__all__)

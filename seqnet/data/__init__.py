"""Data sets and batches, and functions for padding and packing."""

from seqnet.data.dataset import Batch, Dataset, Epoch, RowDataset
from seqnet.data.packing import Packed, pack
from seqnet.data.padding import pad_sequences, range_weights

__all__ = [
    "Batch",
    "Dataset",
    "Epoch",
    "Packed",
    "RowDataset",
    "pack",
    "pad_sequences",
    "range_weights",
]


def __dir__() -> list[str]:
    return sorted(__all__)

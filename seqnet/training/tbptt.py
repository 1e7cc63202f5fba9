"""Truncated backpropagation through time: each batch is divided into windows of steps.

A window starts from the final states of the previous window, as numbers: gradients do not flow past
its first step, and the memory of an update does not depend on the length of the sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from seqnet.data.dataset import Batch
from seqnet.layers.recurrent import Recurrent
from seqnet.layers.states import all_layers

if TYPE_CHECKING:
    from seqnet.model import Model


def windows(batch: Batch, size: int, layers: Iterable = ()) -> Iterator[Batch]:
    """Divide a batch (samples, time, ...) into windows of steps; the last may be shorter.

    Random generators of layers that draw one mask per sequence are reset before each window, so
    that all windows of a batch have the same masks.
    """
    drawn = [(g, g.get_value()) for layer in layers for g in layer.sequence_generators]
    for start in range(0, batch.inputs.shape[1], size):
        for generator, value in drawn:
            generator.set_value(value)
        yield window_of(batch, slice(start, start + size))


def window_of(batch: Batch, steps: slice) -> Batch:
    """Return some steps of a batch; weights of samples are kept."""

    def cut(array: np.ndarray):
        return array if array.ndim == 1 else array[:, steps]

    return batch.map(cut)


def check_windows(model: Model, batch: Batch) -> None:
    """Raise ``ValueError`` if a model cannot be trained in windows.

    Parameters
    ----------
    model : Model
    batch : Batch
        The first batch.
    """
    shape = model.compute_output_shape((None, *batch.inputs.shape[1:]))
    if len(shape) < 3 or shape[1:2] != batch.inputs.shape[1:2]:
        raise ValueError(
            "tbptt divides sequences and their targets, so the model must have an output at each "
            "step: use return_sequences=True for all recurrent layers."
        )
    for layer in model.layers:
        reason = layer.non_causal
        if any(inner.stateful for inner in all_layers([layer])):
            reason = "is stateful, but with tbptt each batch starts from zeros"
        elif isinstance(layer, Recurrent) and layer.learn_initial_state:
            reason = "learns its initial state, which windows after the first do not have"
        if reason:
            raise ValueError(f"tbptt does not support layer {layer.display_name!r}: it {reason}.")

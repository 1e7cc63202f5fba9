"""Truncated backpropagation: a batch cut along time, states passed from window to window.

A window starts from the states that the window before ended with, as numbers: no gradient goes back
past its first step, and what a step costs in memory does not grow with the sequences.
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
    """Cut a batch (samples, time, ...) into windows of some steps; the last may be shorter.

    Random generators of layers that draw one mask for each sequence are set back before each
    window, so that all windows of a batch get the same masks.
    """
    drawn = [(g, g.get_value()) for layer in layers for g in layer.sequence_generators]
    for start in range(0, batch.inputs.shape[1], size):
        for generator, value in drawn:
            generator.set_value(value)
        yield window_of(batch, slice(start, start + size))


def window_of(batch: Batch, steps: slice) -> Batch:
    """Return some steps of a batch; weights of samples stay."""

    def cut(array: np.ndarray):
        return array if array.ndim == 1 else array[:, steps]

    return batch.map(cut)


def check_windows(model: Model, batch: Batch) -> None:
    """Raise ``ValueError`` if a model cannot be trained window by window.

    Parameters
    ----------
    model : Model
    batch : Batch
        The first one.
    """
    shape = model.compute_output_shape((None, *batch.inputs.shape[1:]))
    if len(shape) < 3 or shape[1:2] != batch.inputs.shape[1:2]:
        raise ValueError(
            "tbptt cuts sequences and their targets, so the model must give an output at each "
            "step: return_sequences=True for all recurrent layers."
        )
    for layer in model.layers:
        reason = layer.non_causal
        if any(inner.stateful for inner in all_layers([layer])):
            reason = "is stateful, but with tbptt each batch starts anew"
        elif isinstance(layer, Recurrent) and layer.learn_initial_state:
            reason = "learns its initial state, which windows after the first do not have"
        if reason:
            raise ValueError(f"tbptt does not go with layer {layer.display_name!r}: it {reason}.")

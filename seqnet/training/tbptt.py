"""Truncated backpropagation: a batch cut along time, states handed from window to window.

A window starts from the states that the window before ended with, as numbers: no gradient goes back
past its first step, and what a step costs in memory does not grow with the sequences.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytensor.tensor as pt

from seqnet.data import Examples
from seqnet.layers.recurrent import Recurrent
from seqnet.layers.states import all_layers


def windows(batch: Examples, size: int, layers=()) -> Iterator[Examples]:
    """Cut a batch (samples, time, ...) into windows of some steps; the last may be shorter.

    Random generators of layers that draw one mask for each sequence are set back before each
    window, so that all windows of a batch get the same masks.
    """
    drawn = [(g, g.get_value()) for layer in layers for g in layer.sequence_generators]
    for start in range(0, batch.x.shape[1], size):
        for generator, value in drawn:
            generator.set_value(value)
        steps = slice(start, start + size)
        weight = batch.weight
        yield Examples(
            batch.x[:, steps],
            batch.y[:, steps],
            weight if weight is None or weight.ndim == 1 else weight[:, steps],
            None if batch.mask is None else batch.mask[:, steps],
        )


def recurrent_layers(layers) -> list[Recurrent]:
    """Return the layers whose states are handed on."""
    return [layer for layer in layers if isinstance(layer, Recurrent)]


def symbolic_states(layers) -> dict[Recurrent, list]:
    """Return variables for the states that a window starts from, each (batch, units)."""
    return {
        layer: [pt.matrix(name, dtype=layer.dtype) for name in layer.state_names]
        for layer in recurrent_layers(layers)
    }


def first_states(layers, batch: int) -> list[np.ndarray]:
    """Return the states before the first step, in `symbolic_states`'s order: zeros or learned."""
    return [state for layer in recurrent_layers(layers) for state in layer.first_states(batch)]


def check_windows(model, examples: Examples) -> None:
    """Raise ``ValueError`` if a model cannot be trained window by window."""
    if not examples.gives_steps(model.compute_output_shape(examples.input_shape)):
        raise ValueError(
            "tbptt cuts sequences and their targets, so the model must give an output at each "
            "step: return_sequences=True for all recurrent layers."
        )
    for layer in model.layers:
        reason = layer.reads_ahead
        if any(inner.stateful for inner in all_layers([layer])):
            reason = "is stateful, but with tbptt each batch starts anew"
        elif isinstance(layer, Recurrent) and layer.learn_initial_state:
            reason = "learns its initial state, which windows after the first do not have"
        if reason:
            raise ValueError(f"tbptt does not go with layer {layer.display_name!r}: it {reason}.")

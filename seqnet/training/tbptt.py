"""Truncated backpropagation through time: each batch is divided into windows of steps.

A window starts from the final states of the previous window, as numbers: gradients do not flow past
its first step, and the memory of an update does not depend on the length of the sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from seqnet.data.dataset import Batch, Tree
from seqnet.data.named import Named, with_names, without_names
from seqnet.layers.states import all_layers, layers_in_time
from seqnet.losses import SequenceLoss
from seqnet.training.step import recurrent_layers

if TYPE_CHECKING:
    from seqnet.model import Model


def windows(model: Model, batch: Batch, size: int, layers: Iterable = ()) -> Iterator[Batch]:
    """Divide a batch (samples, time, ...) into windows of steps; the last may be shorter.

    Random generators of layers that draw one mask per sequence are reset before each window, so
    that all windows of a batch have the same masks.
    """
    generators = [g for layer in layers_in_time(layers) for g in layer.sequence_generators]
    drawn = [(g, g.get_value()) for g in generators]
    for start in range(0, steps_of(model, batch), size):
        for generator, value in drawn:
            generator.set_value(value)
        yield window_of(model, batch, slice(start, start + size))


def sequence_inputs(model: Model, batch: Batch) -> Named:
    """Return the inputs of a batch that have steps, by name."""
    inputs = with_names(batch.inputs, model.input_names)
    found = {n: inputs[n] for n, spec in model.input_specs.items() if spec.has_steps}
    return found or inputs


def steps_of(model: Model, batch: Batch) -> int:
    """Return the number of steps of the sequences of a batch."""
    return next(iter(sequence_inputs(model, batch).values())).shape[1]


def window_of(model: Model, batch: Batch, steps: slice) -> Batch:
    """Return some steps of a batch; inputs without steps and weights of samples are kept."""

    def cut(array: np.ndarray) -> np.ndarray:
        return array if array.ndim == 1 else array[:, steps]

    cut_inputs = sequence_inputs(model, batch)

    def cut_by_input(part: Tree) -> Tree:
        found = with_names(part, model.input_names)
        found = {n: cut(array) if n in cut_inputs else array for n, array in found.items()}
        return without_names(found, model.input_names)

    window = batch.map(cut)
    return replace(window, inputs=cut_by_input(batch.inputs), mask=cut_by_input(batch.mask))


def check_windows(model: Model, batch: Batch) -> None:
    """Raise ``ValueError`` if a model cannot be trained in windows.

    Parameters
    ----------
    model : Model
    batch : Batch
        The first batch.
    """
    arrays = with_names(batch.inputs, model.input_names)
    shapes = {name: (None, *array.shape[1:]) for name, array in arrays.items()}
    sequences = sequence_inputs(model, batch)
    times = {name: array.shape[1] for name, array in sequences.items() if array.ndim > 1}
    if len(set(times.values())) > 1:
        raise ValueError(
            "tbptt cuts all sequences at the same steps, so they must have the same number of "
            f"steps; the inputs have {', '.join(f'{t} ({name})' for name, t in times.items())}."
        )
    found = model.compute_output_shape(without_names(shapes, model.input_names))
    leaves = model.signature.outputs.leaves(found)
    output_shapes = dict(zip(model.output_names, leaves, strict=True))
    for name, output in model.output_specs.items():
        shape, follows = output_shapes[name], output.follows
        if follows is None or len(shape) < 3 or shape[1:2] != shapes[follows][1:2]:
            raise ValueError(
                "tbptt divides sequences and their targets, so the model must have an output at "
                "each step: use return_sequences=True for all recurrent layers."
            )
    for output in model.output_specs.values():
        if isinstance(output.loss, SequenceLoss):
            raise ValueError(
                f"tbptt divides sequences, but {output.loss.name} is the loss of whole sequences."
            )
    for layer in model.layers:
        reason = layer.non_causal
        if any(inner.stateful for inner in all_layers([layer])):
            reason = "is stateful, but with tbptt each batch starts from zeros"
        elif any(inner.learn_initial_state for inner in recurrent_layers([layer])):
            reason = "learns its initial state, which windows after the first do not have"
        if reason:
            raise ValueError(f"tbptt does not support layer {layer.display_name!r}: it {reason}.")

"""The masks of a model, as far as they can be determined without computing outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from seqnet.data.columns import Column, RowColumn
from seqnet.data.dataset import Batch
from seqnet.data.named import with_names
from seqnet.data.spec import InputSpec, OutputSpec
from seqnet.layers.calling import masks_together

if TYPE_CHECKING:
    from seqnet.model import Model


def counted_targets(
    targets: Column, weight: Column | None, mask: np.ndarray | None, backwards: bool
) -> np.ndarray | None:
    """Return where targets count, as far as known without computing; None means everywhere.

    Parameters
    ----------
    targets, weight : columns of an output
    mask : bool array, optional
        The mask at the output, in the order of the steps of the input.
    backwards : bool
        Whether the steps of the output are in reverse order.

    Returns
    -------
    bool array, one value for each value of the loss
    """
    counted = None
    if weight is not None:
        shared = isinstance(weight, RowColumn)  # by the steps of a sample
        counted = (targets.per_value(weight.values) if shared else weight.values) > 0
    if mask is not None and backwards:
        mask = targets.reverse(mask)
    return masks_together(mask, counted)


def mask_at_output(
    output: OutputSpec, spec: InputSpec, column: Column, mask: Column | None
) -> np.ndarray | None:
    """Return the mask of the steps that count in the loss, as far as known; None for all.

    Parameters
    ----------
    output : OutputSpec
    spec, column, mask
        The input that the output follows, its values, and the mask that is given for it.
    """
    found = first_mask(spec, column.values, None if mask is None else mask.values)
    if found is None:
        return None
    joined = len(column.shape) - column.values.ndim  # axes merged by concatenating sequences
    rank = output.mask_rank(column.shape, found.ndim + joined) - joined
    if rank <= 0:
        return None
    return np.any(found, axis=tuple(range(rank, found.ndim)))  # a masked step is padding


def first_mask(spec: InputSpec, values: np.ndarray, mask: np.ndarray | None) -> np.ndarray | None:
    """Return the combined mask of the data and of the first layers; None without a mask."""
    return masks_together(mask, spec.known_mask(values))


def is_padding(model: Model, batch: Batch) -> bool:
    """Return whether all steps of a batch are masked for all outputs, so that it has no effect."""
    if batch.place is not None and batch.place.start == batch.place.stop:
        return True  # a row that only stands for the shapes
    inputs = with_names(batch.inputs, model.input_names)
    masks = with_names(batch.mask, model.input_names)
    specs = model.input_specs
    for output in model.output_specs.values():
        name = output.follows
        if name is None:
            return False
        mask = first_mask(specs[name], inputs[name], masks.get(name))
        if mask is None or mask.any():
            return False
        if not output.mask_rank((None, *inputs[name].shape[1:]), mask.ndim):
            return False
    return True

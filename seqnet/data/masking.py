"""The masks of a model, as far as they can be determined without computing outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytensor.tensor as pt

from seqnet.data.dataset import Batch
from seqnet.layers.calling import masks_together
from seqnet.types import Tensor

if TYPE_CHECKING:
    from seqnet.data.arrays import ArrayDataset
    from seqnet.data.ragged import RaggedDataset
    from seqnet.model import Model


def counted_targets(
    model: Model, dataset: ArrayDataset | RaggedDataset, output_shape: tuple
) -> np.ndarray | None:
    """Return where targets count, as far as known without computing; None means everywhere.

    Parameters
    ----------
    model : Model
    dataset : ArrayDataset or RaggedDataset
    output_shape : tuple
        The output shape of the model; the batch size is None.

    Returns
    -------
    bool array, one value for each value of the loss
    """
    weight = dataset.target_weight()
    counted = None if weight is None else weight > 0
    mask = mask_at_output(model, dataset) if dataset.has_steps_of(output_shape) else None
    if mask is None:
        return counted
    if model.runs_backwards:
        mask = dataset.reverse_steps(mask)
    return masks_together(mask, counted)


def mask_at_output(model: Model, dataset: ArrayDataset | RaggedDataset) -> np.ndarray | None:
    """Return the mask of the steps that count in the loss, as far as known; None for all."""
    mask = first_mask(model, dataset.data)
    if mask is None:
        return None
    shape = dataset.input_shape
    joined = len(shape) - dataset.data.inputs.ndim  # axes merged by concatenating sequences
    rank = rank_at_output(model, shape, mask.ndim + joined) - joined
    if rank <= 0:
        return None
    return np.any(mask, axis=tuple(range(rank, mask.ndim)))  # an entirely masked step is padding


def first_mask(model: Model, batch: Batch) -> np.ndarray | None:
    """Return the combined mask of the data and the first layer; None without a mask."""
    return masks_together(batch.mask, model.layers[0].known_mask(batch.inputs))


def is_padding(model: Model, batch: Batch) -> bool:
    """Return whether all steps of a batch are masked, so that it has no effect."""
    mask = first_mask(model, batch)
    if mask is None or mask.any():
        return False
    return rank_at_output(model, (None, *batch.inputs.shape[1:]), mask.ndim) > 0


def rank_at_output(model: Model, input_shape: tuple, rank: int) -> int:
    """Return the rank of a mask after the last layer; 0 if a layer does not pass it on."""
    mask: Tensor | None = pt.tensor(dtype="bool", shape=(None,) * rank)
    shape = input_shape
    for layer in model.layers:
        dtype = "int32" if layer.integer_input else layer.dtype
        mask = layer.compute_mask(pt.tensor(dtype=dtype, shape=(None,) * len(shape)), mask)
        if mask is None:
            return 0
        shape = layer.compute_output_shape(shape)
    return 0 if mask is None else mask.ndim

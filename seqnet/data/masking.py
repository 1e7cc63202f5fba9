"""What is known about a model's masks before anything is computed."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt

from seqnet.data.dataset import Batch
from seqnet.data.validation import with_axes


def counted_targets(model, dataset, output_shape: tuple) -> np.ndarray | None:
    """Return where targets count, as far as it is known without computing; None is everywhere.

    Parameters
    ----------
    model : Model
    dataset : ArrayDataset or RaggedDataset
    output_shape : tuple
        The shape of the model's output, the batch None.

    Returns
    -------
    bool array, one value for each value of the loss
    """
    weight = dataset.target_weight()
    counted = None if weight is None else weight > 0
    if not dataset.has_steps_of(output_shape):
        return counted
    mask = first_mask(model, dataset.data)
    if mask is None or not mask_reaches_output(model, dataset.input_shape):
        return counted
    if model.runs_backwards:
        mask = dataset.reverse_steps(mask)
    return mask if counted is None else mask & with_axes(counted, mask.ndim)


def first_mask(model, batch: Batch) -> np.ndarray | None:
    """Return the mask from the data and from the first layer together; None without a mask."""
    found = [batch.mask, model.layers[0].known_mask(batch.inputs)]
    masks = [mask for mask in found if mask is not None]
    return np.logical_and.reduce(masks) if masks else None


def is_padding(model, batch: Batch) -> bool:
    """Return whether all steps of a batch are masked: it changes no state and no result."""
    mask = first_mask(model, batch)
    if mask is None or mask.any():
        return False
    return mask_reaches_output(model, (None, *batch.inputs.shape[1:]))


def mask_reaches_output(model, input_shape: tuple) -> bool:
    """Return whether all layers pass a mask on."""
    mask, shape = pt.matrix(dtype="bool"), input_shape
    for layer in model.layers:
        dtype = "int32" if layer.integer_input else layer.dtype
        mask = layer.compute_mask(pt.tensor(dtype=dtype, shape=(None,) * len(shape)), mask)
        if mask is None:
            return False
        shape = layer.compute_output_shape(shape)
    return True

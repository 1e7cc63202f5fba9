"""What is known of a model's masks before anything is computed."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt

from seqnet.data import Examples, with_axes


def counted(model, examples: Examples, shape: tuple) -> np.ndarray | None:
    """Return where targets count, as far as that is known without computing; None is everywhere.

    The result is bool: one for each target that a loss has a value for.
    """
    weight = examples.step_weight()
    there = None if weight is None else weight > 0
    mask = known_mask(model, examples) if examples.gives_steps(shape) else None
    if mask is None:
        return there
    if model.runs_backwards:
        mask = examples.flipped(mask)
    return mask if there is None else mask & with_axes(there, mask.ndim)


def known_mask(model, examples: Examples) -> np.ndarray | None:
    """Return the mask of the steps that counts in the loss, as far as it is known; None is none."""
    mask = first_mask(model, examples)
    return mask if mask is None or mask_reaches_output(model, examples.input_shape) else None


def first_mask(model, examples: Examples) -> np.ndarray | None:
    """Return the mask that comes with the examples and from the first layer; None is none."""
    found = [m for m in (examples.mask, model.layers[0].known_mask(examples.x)) if m is not None]
    return np.logical_and.reduce(found) if found else None


def is_padding(model, batch: Examples) -> bool:
    """Tell whether all steps of a batch are masked, so that it changes no state and no figure."""
    mask = first_mask(model, batch)
    return mask is not None and not mask.any() and mask_reaches_output(model, batch.input_shape)


def mask_reaches_output(model, input_shape: tuple) -> bool:
    """Tell whether all layers pass a mask on."""
    mask, shape = pt.matrix(dtype="bool"), input_shape
    for layer in model.layers:
        dtype = "int32" if layer.integer_input else layer.dtype
        mask = layer.compute_mask(pt.tensor(dtype=dtype, shape=(None,) * len(shape)), mask)
        if mask is None:
            return False
        shape = layer.compute_output_shape(shape)
    return True

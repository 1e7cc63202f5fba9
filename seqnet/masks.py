"""What is known of a model's masks before anything is computed."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt

from seqnet.data import Examples
from seqnet.layers.calling import masks_together


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
    return masks_together(mask, there)


def known_mask(model, examples: Examples) -> np.ndarray | None:
    """Return the mask of the steps that counts in the loss, as far as it is known; None is none."""
    mask = first_mask(model, examples)
    if mask is None:
        return None
    joined = len(examples.input_shape) - examples.x.ndim  # axes that are one, lists end to end
    rank = rank_at_output(model, examples.input_shape, mask.ndim + joined) - joined
    if rank <= 0:
        return None
    return mask.any(axis=tuple(range(rank, mask.ndim)))  # a step with nothing in it is padding


def first_mask(model, examples: Examples) -> np.ndarray | None:
    """Return the mask that comes with the examples and from the first layer; None is none."""
    return masks_together(examples.mask, model.layers[0].known_mask(examples.x))


def is_padding(model, batch: Examples) -> bool:
    """Tell whether all steps of a batch are masked, so that it changes no state and no figure."""
    mask = first_mask(model, batch)
    if mask is None or mask.any():
        return False
    return rank_at_output(model, batch.input_shape, mask.ndim) > 0


def rank_at_output(model, input_shape: tuple, rank: int) -> int:
    """Return how many axes a mask of a rank has behind the last layer; 0 if it is used up."""
    mask, shape = pt.tensor(dtype="bool", shape=(None,) * rank), input_shape
    for layer in model.layers:
        dtype = "int32" if layer.integer_input else layer.dtype
        mask = layer.compute_mask(pt.tensor(dtype=dtype, shape=(None,) * len(shape)), mask)
        if mask is None:
            return 0
        shape = layer.compute_output_shape(shape)
    return mask.ndim

"""Flags of single steps: where the states of a recurrence start anew, and where gradients end.

Both change the graph of a traced step, so that the scan, the unrolled loop, the gradient and the
compiled kernel follow from the changed step. All arrays are time-major here, ``(time, batch)``, in
the order of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import disconnected_grad
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.replace import clone_replace
from pytensor.tensor.type import TensorType

from seqnet.common.types import Tensor, TensorLike
from seqnet.ops.step import Extra, Product, TracedStep


def with_resets(step: TracedStep, resets: Tensor, starts: Sequence[TensorLike]) -> TracedStep:
    """Return a step that starts from other states than those before it where a flag is set.

    Parameters
    ----------
    step : TracedStep
    resets : bool variable (time, batch)
        Where the states before the step are replaced.
    starts : list of variables (1, size) or numbers
        For each state what replaces it. Variables have gradients.
    """
    flag, extra = flag_of_step(resets, step.dtype)
    extras, replaced = [*step.extras, extra], {}
    for state, start in zip(step.states, starts, strict=True):
        value = pt.as_tensor_variable(start)
        if not isinstance(value, Constant):
            extras.append(Extra(value, value.type()))
            value = extras[-1].placeholder
        # A switch and not a product, so that a NaN of the sequence before does not matter.
        replaced[state] = pt.switch(flag, value, state)
    outputs = [*step.new_states, *(p.operand for p in step.products)]
    found: list = clone_replace(outputs, cast("dict[Variable, Variable]", replaced))
    count = len(step.new_states)
    products = [
        Product(operand, p.gates, p.values)
        for operand, p in zip(found[count:], step.products, strict=True)
    ]
    return replace(step, products=products, new_states=found[:count], extras=extras)


def with_gradient_steps(step: TracedStep, kept: Tensor) -> TracedStep:
    """Return a step with the same values that passes gradients on only where a flag is set.

    Parameters
    ----------
    step : TracedStep
    kept : bool variable (time, batch)
    """
    flag, extra = flag_of_step(kept, step.dtype)
    new = [pt.switch(flag, state, disconnected_grad(state)) for state in step.new_states]
    return replace(step, new_states=new, extras=[*step.extras, extra])


def flag_of_step(flags: Tensor, dtype: str) -> tuple[Tensor, Extra]:
    """Return flags (time, batch) as a condition (batch, 1) within a step, and the extra it uses."""
    placeholder = TensorType(dtype, (None, 1))(name="flag")
    # A kernel takes arrays of its own dtype.
    sequence = cast("Tensor", pt.shape_padright(pt.cast(flags, dtype)))
    return pt.neq(placeholder, np.asarray(0, dtype)), Extra(sequence, placeholder, True, False)


def resets_in_effect(
    resets: Tensor, mask: Tensor | None, backwards: bool
) -> tuple[Tensor, Tensor | None]:
    """Return at which steps a loop starts anew, given the first steps of sequences.

    A loop that runs backwards starts anew at the last step of each sequence. A masked step is not
    computed, so a flag of it takes effect at the next step that is.

    Parameters
    ----------
    resets : bool variable (time, batch)
        True at the first step of each sequence.
    mask : bool variable (time, batch), optional
    backwards : bool
        Whether the loop runs from the last step to the first.

    Returns
    -------
    in_effect : bool variable (time, batch)
    pending : bool variable (batch,) or None
        Whether a flag comes after all steps that are computed. None without a mask.
    """
    if backwards:
        none = cast("Tensor", pt.zeros_like(resets[:1]))
        resets = pt.concatenate([resets[1:], none], axis=0)[::-1]
    if mask is None:
        return (resets[::-1] if backwards else resets), None
    computed = pt.cast(mask[::-1] if backwards else mask, "int64")
    time, rows = resets.shape[0], pt.arange(resets.shape[1])
    before = pt.cumsum(computed, axis=0) - computed  # the number of computed steps before each
    # For each computed step whether it starts anew; step `time + 1` stands for no step.
    first = pt.zeros((time + 2, resets.shape[1]), dtype="bool")
    first = pt.set_subtensor(first[pt.switch(resets, before, time + 1), rows], np.asarray(True))
    found = first[before, rows]
    pending = first[before[-1] + computed[-1], rows]
    return (found[::-1] if backwards else found), pending


def last_steps(sequence: Tensor, mask: Tensor | None, count: int, backwards: bool) -> Tensor:
    """Return which steps (time, batch) are among the last ones that a loop computes for their row.

    Parameters
    ----------
    sequence : variable (time, batch, ...)
    mask : bool variable (time, batch), optional
    count : int
        How many of the computed steps of each row.
    backwards : bool
        Whether the loop runs from the last step to the first.
    """
    if mask is None:
        mask = pt.ones((sequence.shape[0], sequence.shape[1]), dtype="bool")
    computed = pt.cast(mask, "int64")
    later = pt.cumsum(computed if backwards else computed[::-1], axis=0)
    return (later if backwards else later[::-1]) <= count

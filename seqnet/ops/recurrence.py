"""The recurrence, written once: one step applied along time, as a scan or as a Python loop.

Everything here is time-major, ``(time, batch, features)``; layers are batch-major outside. This
is the only file of seqnet with a call of `pytensor.scan`, an unrolled loop, or the rule of masks:

    A step whose mask is False keeps every state as it was, so that its output repeats the
    output before it.

Work that does not depend on the state (embedding gathers, input projections) is done by the
caller before the loop, for all steps in one product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytensor
import pytensor.tensor as pt


def keep_where_masked(mask, new: Sequence, old: Sequence) -> list:
    """Return `new` where the mask of this step, (batch,) bool, is True, and `old` elsewhere."""
    # A switch and not arithmetic: a NaN computed from padding must not reach the state, and
    # integer masks would turn float32 states into float64.
    return [pt.switch(mask[:, None], n, o) for n, o in zip(new, old, strict=True)]


def iterate(
    step: Callable[..., Sequence],
    sequences: Sequence,
    states: Sequence,
    constants: Sequence = (),
    mask=None,
    *,
    unroll: bool = False,
    length: int | None = None,
) -> list:
    """Apply `step` at every time and return each state after every step.

    Parameters
    ----------
    step : callable
        ``step(*sequence_values, *states, *constants)`` gives the new states. Sequence values
        have shape ``(batch, features)``, states ``(batch, units)``.
    sequences : list of variables, each (time, batch, features)
        What changes from step to step.
    states : list of variables, each (batch, units)
        The states before the first step.
    constants : list of variables
        What is the same at every step (weights, dropout masks).
    mask : variable (time, batch), bool, optional
        True where there is data.
    unroll : bool
        Build the steps one by one, in a Python loop, and not as a scan.
    length : int, optional
        The number of steps; needed by `unroll`.

    Returns
    -------
    list of variables, each (time, batch, units)
    """
    count = len(sequences)

    def masked_step(*values):
        values = list(values)
        step_mask = values.pop(0) if mask is not None else None
        previous = values[count : count + len(states)]
        new = list(step(*values))
        return new if step_mask is None else keep_where_masked(step_mask, new, previous)

    over_time = ([mask] if mask is not None else []) + list(sequences)
    if unroll:
        if length is None:
            raise ValueError("An unrolled recurrence needs its number of steps.")
        history = []
        current = list(states)
        for t in range(length):
            current = masked_step(*[s[t] for s in over_time], *current, *constants)
            history.append(current)
        return [pt.stack(steps, axis=0) for steps in zip(*history, strict=True)]

    result = pytensor.scan(
        lambda *values: masked_step(*values),
        sequences=over_time,
        outputs_info=[pt.as_tensor_variable(s) for s in states],
        non_sequences=list(constants),
        strict=True,
        return_updates=False,
    )
    return list(result) if isinstance(result, (list, tuple)) else [result]

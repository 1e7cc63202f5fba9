"""A whole recurrence as one Op, and its gradient as another.

The definition is the cell's `step` and the rule of masks in `seqnet.ops.recurrence`; a kernel
(`seqnet.kernels.RecurrenceKernel`) is compiled from that step and computes all time steps in one
call. The Ops here only say how it sits in a graph: which inputs there are, which shapes come out,
and what the gradient is.
"""

from __future__ import annotations

import numpy as np
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.link.c.type import generic

from seqnet.ops.affine import connected, like


class Recurrence(Op):
    """All steps of a cell: states' histories, last states, and what the gradient needs.

    Parameters
    ----------
    kernel : RecurrenceKernel
        Compiled from the cell's step.
    names : tuple of str
        What the inputs are, in order: ``projected`` (time, batch, gates * units),
        ``recurrent_kernel`` (units, gates * units), then, if there, ``recurrent_bias``
        (gates * units,), the initial states (batch, units) as ``state0``, ``state1``, ..., and
        ``mask`` (time, batch) bool.
    backwards : bool
        Run from the last step to the first; histories come in that order.
    save : bool
        Keep what the gradient needs.

    Outputs are the histories (time, batch, units), the last states (batch, units), and something
    only the gradient can read.
    """

    __props__ = ("kernel", "names", "backwards", "save")

    def __init__(self, kernel, names: tuple[str, ...], backwards: bool, save: bool):
        self.kernel, self.names, self.backwards, self.save = kernel, names, backwards, save

    def __str__(self):
        return f"Recurrence({', '.join(self.names)})"

    def make_node(self, projected, recurrent_kernel, *others):
        states = self.kernel.states
        outputs = [like(projected) for _ in range(states)]
        outputs += [like(projected, 2) for _ in range(states)]
        return Apply(self, [projected, recurrent_kernel, *others], [*outputs, generic()])

    def perform(self, node, inputs, outputs):
        given = named(self.names, inputs, self.kernel.states)
        projected, mask = given["projected"], given["mask"]
        histories, saved = self.kernel.forward(
            projected[::-1] if self.backwards else projected,
            given["recurrent_kernel"],
            given["recurrent_bias"],
            given["initial_states"],
            mask[::-1] if mask is not None and self.backwards else mask,
            save=self.save,
        )
        for storage, history in zip(outputs, histories, strict=False):
            storage[0] = history
        for storage, history in zip(outputs[len(histories) :], histories, strict=False):
            storage[0] = history[-1].copy()
        outputs[-1][0] = saved

    def infer_shape(self, *given):  # (node, shapes); older PyTensors put the graph first
        shapes = given[-1]
        time, batch, _ = shapes[0]
        units = shapes[1][0]
        states = self.kernel.states
        return [(time, batch, units)] * states + [(batch, units)] * states + [None]

    def connection_pattern(self, node):
        outputs = len(node.outputs)
        return [[n != "mask"] * (outputs - 1) + [False] for n in self.names]

    def pullback(self, inputs, outputs, gradients):
        if not self.save:
            raise ValueError("This recurrence was built for prediction and keeps no gradient.")
        present = connected(gradients)
        gradient = RecurrenceGradient(
            self.kernel,
            self.names,
            tuple(present[: self.kernel.states]),
            tuple(present[self.kernel.states : -1]),
            self.backwards,
        )
        used = [g for g, there in zip(gradients, present, strict=True) if there]
        results = gradient(*inputs, *outputs[: self.kernel.states], outputs[-1], *used)
        results = iter(results if isinstance(results, (list, tuple)) else [results])
        return [disconnected_type() if n == "mask" else next(results) for n in self.names]


class RecurrenceGradient(Op):
    """The gradient of `Recurrence` with respect to all its inputs but the mask.

    Its inputs are those of the recurrence, the histories, what was saved, and the gradients of
    those histories and last states that have one (`histories`, `lasts`).
    """

    __props__ = ("kernel", "names", "histories", "lasts", "backwards")

    def __init__(self, kernel, names, histories, lasts, backwards):
        self.kernel, self.names, self.backwards = kernel, names, backwards
        self.histories, self.lasts = histories, lasts

    def __str__(self):
        return f"RecurrenceGradient({', '.join(self.names)})"

    def make_node(self, *inputs):
        wanted = [like(v) for n, v in zip(self.names, inputs, strict=False) if n != "mask"]
        return Apply(self, list(inputs), wanted)

    def perform(self, node, inputs, outputs):
        states, count = self.kernel.states, len(self.names)
        given = named(self.names, inputs, states)
        rest = iter(inputs[count + states + 1 :])
        grads = [next(rest) if there else None for there in self.histories]
        final_grads = [next(rest) if there else None for there in self.lasts]
        projected, mask = given["projected"], given["mask"]
        if self.backwards:
            projected = projected[::-1]
            mask = None if mask is None else mask[::-1]
        result = self.kernel.backward(
            given["recurrent_kernel"],
            inputs[count : count + states],
            inputs[count + states],
            [None if g is None else rows_contiguous(g) for g in grads],
            projected=projected,
            recurrent_bias=given["recurrent_bias"],
            initial_states=given["initial_states"],
            mask=mask,
            final_grads=final_grads if any(self.lasts) else None,
        )
        of_projected = result.projected[::-1] if self.backwards else result.projected
        values = [of_projected, result.recurrent_kernel]
        values += [] if given["recurrent_bias"] is None else [result.recurrent_bias]
        values += result.initial_states or []
        for storage, value in zip(outputs, values, strict=True):
            storage[0] = value

    def infer_shape(self, *given):  # (node, shapes); older PyTensors put the graph first
        shapes = given[-1]
        return [s for n, s in zip(self.names, shapes, strict=False) if n != "mask"]


def named(names, inputs, states: int) -> dict:
    """Return a recurrence's inputs by name, None for what is not there."""
    given = dict(zip(names, inputs, strict=False))
    initial = [given.get(f"state{k}") for k in range(states)]
    return {
        "projected": given["projected"],
        "recurrent_kernel": given["recurrent_kernel"],
        "recurrent_bias": given.get("recurrent_bias"),
        "initial_states": None if initial[0] is None else initial,
        "mask": given.get("mask"),
    }


def rows_contiguous(array: np.ndarray) -> np.ndarray:
    """Return the array, copied if its last axis is not contiguous."""
    if array.strides[-1] == array.itemsize or array.shape[-1] == 1:
        return array
    return np.ascontiguousarray(array)


def recurrence(
    kernel,
    projected,
    recurrent_kernel,
    recurrent_bias=None,
    initial_states=None,
    mask=None,
    *,
    backwards: bool = False,
    save: bool = True,
):
    """Apply a kernel along time; return the histories and the last states.

    See `Recurrence` for shapes. `initial_states` None is zeros.
    """
    inputs = {"projected": projected, "recurrent_kernel": recurrent_kernel}
    if recurrent_bias is not None:
        inputs["recurrent_bias"] = recurrent_bias
    for number, state in enumerate(initial_states or ()):
        inputs[f"state{number}"] = state
    if mask is not None:
        inputs["mask"] = mask
    op = Recurrence(kernel, tuple(inputs), backwards, save)
    outputs = op(*inputs.values())
    return outputs[: kernel.states], outputs[kernel.states : -1]

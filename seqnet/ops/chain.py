"""Sums and maxima over all paths of a linear chain of classes, and their gradient.

A path y through the steps of a sequence has the score ::

    start[y_1] + sum_t scores[t, y_t] + sum_t transitions[y_(t-1), y_t] + end[y_n]

The steps 1 to n are those where the mask is True: masked steps are left out, also between others.
Everything is computed from logarithms of probabilities that are normalised at each step, so that no
length of a sequence makes them underflow or lose digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.replace import graph_replace

from seqnet.common.types import Tensor
from seqnet.ops.graph_op import GraphOp, SymbolicShape, connected, like
from seqnet.ops.lookup import assert_in_range
from seqnet.ops.recurrence import run_loop


def first_steps(mask: Tensor) -> Tensor:
    """Return where the first unmasked step of each sequence is, bool (batch, time)."""
    return mask & pt.eq(pt.cumsum(pt.cast(mask, "int64"), axis=1), 1)


def state(*shape: Tensor | int, dtype: str) -> Tensor:
    """Return zeros without static sizes, as the first state of a loop."""
    zeros = pt.zeros(shape, dtype=dtype)
    return pt.specify_shape(zeros, (None,) * len(shape)) if zeros.ndim else zeros


def along_time(x: Tensor) -> Tensor:
    """Return (batch, time, ...) as (time, batch, ...)."""
    return x.swapaxes(0, 1)


def log_sum(x: Tensor, axis: int) -> Tensor:
    """Return ``log(sum(exp(x)))`` along an axis."""
    most = pt.max(x, axis=axis, keepdims=True)
    return pt.log(pt.sum(pt.exp(x - most), axis=axis)) + most.squeeze(axis)


def one_hot(ids: Tensor, classes: Tensor | int, dtype: str) -> Tensor:
    """Return (..., classes) of ids (...), 1 at the id."""
    return pt.cast(pt.eq(ids[..., None], pt.arange(classes)), dtype)


def pullback_of(
    op: GraphOp, inputs: Sequence[Variable], output_grads: Sequence[Variable], floats: Sequence[int]
) -> list[Variable]:
    """Return the gradients of an Op's definition with respect to some inputs, no others."""
    given = [v.type() for v in inputs]  # not the inputs, one of which may depend on another
    outputs = zip(op.define(*given), output_grads, connected(output_grads), strict=True)
    known: dict[Variable, Variable] = {v: g for v, g, on in outputs if on}
    wanted = [given[k] for k in floats]
    found = cast(
        "list[Variable]",
        pytensor.grad(None, wanted, known_grads=known, disconnected_inputs="ignore"),
    )
    replaced = dict(zip(given, inputs, strict=True))
    gradients = dict(zip(floats, graph_replace(found, replaced, strict=False), strict=True))
    return [gradients.get(k, disconnected_type()) for k in range(len(inputs))]


class ChainLogSum(GraphOp):
    """The logarithm of the sum over all paths of the exponential of their scores.

    Inputs are scores (batch, time, classes), a bool mask (batch, time), transitions (classes,
    classes) from a class, the row, to a class, and start and end (classes,). With integer tags
    (batch, time) the score of the path of tags is subtracted: the result is minus the logarithm of
    its probability. Tags at masked steps may hold anything.

    Outputs are the logarithms (batch,), 0 where all steps are masked, and what the gradient needs:
    the logarithms of the probabilities of the classes given all scores up to a step, (batch, time,
    classes).
    """

    __props__ = ()
    default_output = 0

    def define(
        self,
        scores: Tensor,
        mask: Tensor,
        transitions: Tensor,
        start: Tensor,
        end: Tensor,
        *tags: Tensor,
    ) -> list[Tensor]:
        batch, classes = scores.shape[0], scores.shape[2]
        sequences = [along_time(x) for x in (scores, mask, first_steps(mask))]
        states = [state(batch, classes, dtype=scores.dtype)]
        if tags:
            counted = pt.switch(mask, tags[0], pt.zeros_like(tags[0]))
            known = assert_in_range(counted, scores.type.shape[2] or classes, "The class numbers")
            sequences.append(along_time(pt.cast(known, "int64")))
            states.append(state(batch, dtype="int64"))

        def step(s: Tensor, on: Tensor, first: Tensor, *others: Tensor) -> list[Tensor]:
            if tags:
                y, log_p, before, transitions, start = others
            else:
                log_p, transitions, start = others
            inner = log_sum(log_p[:, :, None] + transitions[None], axis=1)
            new = s + pt.switch(first[:, None], start[None], inner)
            total = log_sum(new, axis=1)
            result = [pt.switch(on[:, None], new - total[:, None], log_p)]
            if tags:
                total = total - s[pt.arange(s.shape[0]), y]
                total = total - pt.switch(first, start[y], transitions[before, y])
                result.append(pt.switch(on, y, before))
            return [*result, pt.switch(on, total, pt.zeros_like(total))]

        history, *last, totals = run_loop(
            step, sequences, states, [transitions, start], unroll=False, length=None
        )
        value = pt.sum(totals, axis=0) + log_sum(history[-1] + end[None], axis=1)
        if tags:
            value = value - end[last[0][-1]]
        return [pt.switch(pt.any(mask, axis=1), value, pt.zeros_like(value)), along_time(history)]

    def outputs_for(self, scores: Tensor, *others: Tensor) -> list[Tensor]:
        return [like(scores, 1, scores.type.shape[:1]), scores.type()]

    def shapes(self, scores: SymbolicShape, *others: SymbolicShape) -> list[SymbolicShape]:
        return [scores[:1], scores]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        wanted = [True, False, True, True, True]
        return [[k < 5 and wanted[k]] * 2 for k in range(len(node.inputs))]

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        if connected(output_grads) != [True, False]:  # the gradient of a gradient
            return pullback_of(self, inputs, output_grads, (0, 2, 3, 4))
        _, mask, transitions, _, end, *tags = inputs
        gradient = output_grads[0]
        found = ChainGradient()(outputs[1], mask, transitions, end, gradient, *tags)
        d_scores, d_transitions, d_start, d_end = found
        nothing = [disconnected_type() for _ in tags]
        return [d_scores, disconnected_type(), d_transitions, d_start, d_end, *nothing]


class ChainGradient(GraphOp):
    """The gradients of `ChainLogSum` with respect to scores, transitions, start and end.

    Inputs are the second output of `ChainLogSum`, the mask, transitions, end, the gradient of the
    first output (batch,), and the tags if `ChainLogSum` had them.

    The probability of a pair of neighbouring classes is that of the second times that of the first
    given the second and all scores before, which is a softmax over the first.
    """

    __props__ = ()

    def define(
        self,
        log_p: Tensor,
        mask: Tensor,
        transitions: Tensor,
        end: Tensor,
        gradient: Tensor,
        *tags: Tensor,
    ) -> list[Tensor]:
        batch, classes, dtype = log_p.shape[0], log_p.shape[2], log_p.dtype
        first, last = first_steps(mask), first_steps(mask[:, ::-1])[:, ::-1]
        previous = pt.concatenate([pt.zeros_like(log_p[:, :1]), log_p[:, :-1]], axis=1)
        sequences = [along_time(x) for x in (mask, first, last, previous)]
        any_step = pt.any(mask, axis=1)
        at_end = pt.special.softmax(log_p[:, -1] + end[None], axis=-1) * gradient[:, None]
        at_end = pt.switch(any_step[:, None], at_end, pt.zeros_like(at_end))
        states = [at_end + state(batch, classes, dtype=dtype)]
        states.append(state(classes, classes, dtype=dtype))
        if tags:
            counted = pt.cast(pt.switch(mask, tags[0], pt.zeros_like(tags[0])), "int64")
            sequences.append(along_time(counted))
            states.append(state(batch, dtype="int64"))

        def step(on: Tensor, first: Tensor, last: Tensor, before: Tensor, *others: Tensor) -> list:
            if tags:
                y, p, d_transitions, later, transitions, gradient = others
            else:
                p, d_transitions, transitions, gradient = others
            joint = pt.special.softmax(before[:, :, None] + transitions[None], axis=1)
            inside = on & pt.invert(first)  # not the first step of a sequence
            joint = joint * p[:, None, :]
            joint = pt.switch(inside[:, None, None], joint, pt.zeros_like(joint))
            result = [pt.switch(on[:, None], pt.sum(joint, axis=2), p)]
            d_transitions = d_transitions + pt.sum(joint, axis=0)
            if tags:
                follows = pt.switch(on & pt.invert(last), gradient, pt.zeros_like(gradient))
                d_transitions = pt.inc_subtensor(d_transitions[y, later], -follows)
            result.append(d_transitions)
            if tags:
                result.append(pt.switch(on, y, later))
            return [*result, pt.switch(on[:, None], p, pt.zeros_like(p))]

        *histories, d_scores = run_loop(
            step, sequences, states, [transitions, gradient], unroll=False, length=None,
            backwards=True,
        )  # fmt: skip
        d_scores = along_time(d_scores)
        if tags:
            path = one_hot(counted, classes, dtype) * pt.cast(mask[..., None], dtype)
            d_scores = d_scores - path * gradient[:, None, None]

        def at(steps: Tensor) -> Tensor:
            return pt.sum(d_scores * pt.cast(steps[..., None], dtype), axis=(0, 1))

        return [d_scores, histories[1][0], at(first), at(last)]

    def outputs_for(
        self, log_p: Tensor, mask: Tensor, transitions: Tensor, end: Tensor, *others: Tensor
    ) -> list[Tensor]:
        return [log_p.type(), transitions.type(), end.type(), end.type()]

    def shapes(self, *shapes: SymbolicShape) -> list[SymbolicShape]:
        log_p, _, transitions, end = shapes[:4]
        return [log_p, transitions, end, end]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        wanted = [True, False, True, True, True]
        return [[k < 5 and wanted[k]] * 4 for k in range(len(node.inputs))]

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        return pullback_of(self, inputs, output_grads, (0, 2, 3, 4))


class ChainOutput(GraphOp):
    """The base of Ops that are the output of a chain; inputs are the first five of `ChainLogSum`.

    A loss finds these inputs in the graph.
    """

    __props__ = ()

    def outputs_for(self, scores: Tensor, *others: Tensor) -> list[Tensor]:
        return [scores.type()]

    def shapes(self, scores: SymbolicShape, *others: SymbolicShape) -> list[SymbolicShape]:
        return [scores]


class ChainMarginals(ChainOutput):
    """The probability of each class at each step, (batch, time, classes); 0 at masked steps."""

    def define(
        self, scores: Tensor, mask: Tensor, transitions: Tensor, start: Tensor, end: Tensor
    ) -> list[Tensor]:
        total, log_p = ChainLogSum().make_node(scores, mask, transitions, start, end).outputs
        return [ChainGradient()(log_p, mask, transitions, end, pt.ones_like(total))[0]]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True], [False], [True], [True], [True]]

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        return pullback_of(self, inputs, output_grads, (0, 2, 3, 4))


class ChainBestPath(ChainOutput):
    """The path of the highest score (Viterbi), one-hot (batch, time, classes).

    It is 0 at masked steps. Of equal paths, later steps have the smaller class numbers. It has no
    gradient.
    """

    def define(
        self, scores: Tensor, mask: Tensor, transitions: Tensor, start: Tensor, end: Tensor
    ) -> list[Tensor]:
        batch, classes = scores.shape[0], scores.shape[2]
        first = first_steps(mask)

        def forwards(
            s: Tensor, on: Tensor, first: Tensor, best: Tensor, transitions: Tensor, start: Tensor
        ) -> list[Tensor]:
            pairs = best[:, :, None] + transitions[None]
            new = s + pt.switch(first[:, None], start[None], pt.max(pairs, axis=1))
            new = new - pt.max(new, axis=1, keepdims=True)
            return [pt.switch(on[:, None], new, best), pt.argmax(pairs, axis=1)]

        best, pointers = run_loop(
            forwards,
            [along_time(x) for x in (scores, mask, first)],
            [state(batch, classes, dtype=scores.dtype)],
            [transitions, start],
            unroll=False,
            length=None,
        )

        def backwards(pointer: Tensor, on: Tensor, tag: Tensor) -> list[Tensor]:
            before = pointer[pt.arange(tag.shape[0]), tag]
            return [pt.switch(on, before, tag), tag]

        _, path = run_loop(
            backwards,
            [pointers, along_time(mask)],
            [pt.argmax(best[-1] + end[None], axis=1) + state(batch, dtype="int64")],
            [],
            unroll=False,
            length=None,
            backwards=True,
        )
        tags = one_hot(along_time(path), classes, scores.dtype)
        return [pt.switch(mask[..., None], tags, pt.zeros_like(tags))]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[False] for _ in node.inputs]

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        return [disconnected_type() for _ in inputs]


def chain_inputs(y_pred: Tensor) -> list[Tensor] | None:
    """Return the inputs of the chain that a variable is the output of; None if it is none."""
    node = y_pred.owner
    if node is None or not isinstance(node.op, ChainOutput):
        return None
    return cast("list[Tensor]", list(node.inputs))


FORBIDDEN = np.float32(-1e4)
"""The score of a transition that must not occur: finite, so that no difference is NaN."""

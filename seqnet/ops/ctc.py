"""Connectionist temporal classification: the sum over all alignments of labels with steps.

The states of an alignment are the labels with a blank before, between and after them. A step stays
in a state, moves to the next one, or skips a blank between two different labels (Graves et al.,
"Connectionist temporal classification", ICML 2006). Everything is computed from logarithms that
are shifted at each step, so that no length makes them underflow or lose digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import disconnected_type
from pytensor.graph.basic import Apply, Variable

from seqnet.common.types import Tensor
from seqnet.ops.chain import along_time, first_steps, one_hot, state
from seqnet.ops.graph_op import GraphOp, SymbolicShape, connected, like
from seqnet.ops.lookup import assert_in_range
from seqnet.ops.recurrence import run_loop

LOWEST = -1e30
"""Instead of minus infinity: differences of it are numbers."""


class CTCLoss(GraphOp):
    """Minus the log probability of labels, summed over all alignments with the unmasked steps.

    Inputs are logits (batch, time, classes), a bool mask (batch, time), integer labels (batch,
    length), and how many of them each sequence has (batch,). Other labels may hold anything.

    Outputs are the losses (batch,), infinite where there is no alignment, and their derivatives by
    the logits (batch, time, classes), which are 0 there and at masked steps.

    Parameters
    ----------
    blank : int
        The class number of the blank.
    """

    __props__ = ("blank",)
    default_output = 0

    def __init__(self, blank: int = 0) -> None:
        self.blank = blank

    def define(self, logits: Tensor, mask: Tensor, labels: Tensor, lengths: Tensor) -> list[Tensor]:
        batch, dtype, classes = logits.shape[0], logits.dtype, logits.shape[2]
        lowest = np.asarray(LOWEST, dtype)
        lengths = pt.cast(lengths, "int64")
        counted = pt.arange(labels.shape[1])[None] < lengths[:, None]
        labels = pt.switch(counted, pt.cast(labels, "int64"), self.blank)
        labels = assert_in_range(labels, logits.type.shape[2] or classes, "The labels")
        # The states: blank, label, blank, ..., label, blank.
        between = pt.full_like(labels, self.blank)
        states = pt.stack([between, labels], axis=2).reshape((batch, -1))
        states = pt.concatenate([states, pt.full((batch, 1), self.blank, dtype="int64")], axis=1)
        numbers = pt.arange(states.shape[1])[None]
        present = numbers <= 2 * lengths[:, None]

        def shifted(x: Tensor, by: int) -> Tensor:
            """Return the values of states that are `by` before (or after, if negative)."""
            others = pt.full((x.shape[0], abs(by)), lowest if x.dtype == dtype else self.blank)
            others = pt.cast(others, x.dtype)
            if by > 0:
                return pt.concatenate([others, x], axis=1)[:, : x.shape[1]]
            return pt.concatenate([x, others], axis=1)[:, -by:]

        may_skip = pt.neq(states, self.blank) & pt.neq(states, shifted(states, 2))
        skip = pt.switch(may_skip, pt.zeros((), dtype), lowest)  # added to a move of two states
        log_p = pt.special.log_softmax(logits, axis=-1)
        places = pt.broadcast_to(states[:, None], (*tuple(mask.shape), states.shape[1]))
        emitted = pt.take_along_axis(log_p, places, axis=2)
        emitted = pt.switch(present[:, None], emitted, lowest)
        on_first = pt.switch(numbers < 2, pt.zeros((), dtype), lowest)

        def forwards(
            emit: Tensor, on: Tensor, first: Tensor, score: Tensor, skip: Tensor, on_first: Tensor
        ) -> list[Tensor]:
            moves = [score, shifted(score, 1), shifted(score, 2) + skip]
            most = pt.maximum(pt.maximum(moves[0], moves[1]), moves[2])
            inner = most + pt.log(sum(pt.exp(move - most) for move in moves))
            new = emit + pt.switch(first[:, None], on_first, inner)
            shift = pt.max(new, axis=1)
            kept = pt.switch(on[:, None], new - shift[:, None], score)
            return [kept, inner, pt.switch(on, shift, pt.zeros_like(shift))]

        first = first_steps(mask)
        scores, inner, shifts = run_loop(
            forwards,
            [along_time(x) for x in (emitted, mask, first)],
            [state(batch, states.shape[1], dtype=dtype)],
            [skip, on_first],
            unroll=False,
            length=None,
        )
        at_end = pt.eq(numbers, 2 * lengths[:, None]) | pt.eq(numbers, 2 * lengths[:, None] - 1)
        last = pt.switch(at_end, scores[-1], lowest)
        most = pt.max(last, axis=1)
        total = most + pt.log(pt.sum(pt.exp(last - most[:, None]), axis=1))
        begun = pt.any(mask, axis=1)
        possible = begun & (total > LOWEST / 2)
        loss = pt.switch(possible, -(pt.sum(shifts, axis=0) + total), np.asarray(np.inf, dtype))
        loss = pt.switch(begun | (lengths > 0), loss, pt.zeros_like(loss))

        # Backwards: the probability of each state given all steps.
        def backwards(
            on: Tensor, first: Tensor, inner: Tensor, before: Tensor, p: Tensor, skip: Tensor
        ) -> list[Tensor]:
            zero = pt.zeros((), dtype)
            result = pt.zeros_like(p)
            for by, extra in ((0, zero), (1, zero), (2, shifted(skip, -2))):
                to, reached = [x if by == 0 else shifted(x, -by) for x in (p, inner)]
                share = pt.exp(pt.minimum(before + extra - reached, zero))
                result = result + pt.switch(to > 0, to * share, zero)
            inside = on & pt.invert(first)
            return [
                pt.switch(inside[:, None], result, p),
                pt.switch(on[:, None], p, pt.zeros_like(p)),
            ]

        end = pt.exp(pt.minimum(last - total[:, None], 0)) + state(batch, 1, dtype=dtype)
        previous = pt.concatenate([pt.zeros_like(scores[:1]), scores[:-1]], axis=0)
        _, occupied = run_loop(
            backwards,
            [along_time(mask), along_time(first), inner, previous],
            [pt.cast(end, dtype)],
            [skip],
            unroll=False,
            length=None,
            backwards=True,
        )
        emits = one_hot(states, classes, dtype)  # (batch, states, classes)
        expected = along_time(occupied) @ emits
        kept = (mask & possible[:, None])[:, :, None]
        slope = pt.special.softmax(logits, axis=-1) - expected
        return [loss, pt.switch(kept, slope, pt.zeros_like(slope))]

    def outputs_for(self, logits: Tensor, *others: Tensor) -> list[Tensor]:
        return [like(logits, 1, logits.type.shape[:1]), logits.type()]

    def shapes(self, logits: SymbolicShape, *others: SymbolicShape) -> list[SymbolicShape]:
        return [logits[:1], logits]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        return [[True, True], *[[False, False]] * 3]

    def pullback(
        self,
        inputs: Sequence[Variable],
        outputs: Sequence[Variable],
        output_grads: Sequence[Variable],
    ) -> list[Variable]:
        if connected(output_grads) != [True, False]:
            raise NotImplementedError("The CTC loss has no gradient of its gradient.")
        gradient = cast("Tensor", output_grads[0])[:, None, None]
        return [outputs[1] * gradient, *[disconnected_type() for _ in inputs[1:]]]

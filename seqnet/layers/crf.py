"""A linear-chain conditional random field: scores of neighbouring classes, and the best path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytensor.tensor as pt

from seqnet import constraints, initializers, regularizers
from seqnet.common.checks import check_bool
from seqnet.common.types import Array, Shape, Tensor
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.ops.chain import FORBIDDEN, ChainBestPath, ChainMarginals
from seqnet.registry import Identifier, register

OUTPUTS = {"viterbi": ChainBestPath, "marginals": ChainMarginals}
BOUNDARIES = ("start", "end")


@register("layer")
class CRF(Layer):
    """A linear-chain conditional random field (CRF) over the classes of a sequence's steps.

    The input are scores ``(batch, time, classes)``, such as those of a linear `Dense` layer. A path
    of classes y has the score ::

        S(y) = start[y_1] + sum_t inputs[t, y_t] + sum_t transitions[y_(t-1), y_t] + end[y_n]

    and the probability ``exp(S(y)) / sum_y' exp(S(y'))`` [1]_. As the last layer of a model it is
    trained with ``loss="crf_loss"``, minus the logarithm of the probability of the targets
    (`seqnet.losses.CRFLoss`), which is also the loss if none is given. The output has the shape of
    the input, so that metrics such as ``"accuracy"`` compare decoded classes with targets, and
    ``predict(X).argmax(-1)`` gives class numbers.

    Masked steps are left out: the last step before and the first one after a hole are neighbours.
    The output is 0 there.

    Parameters
    ----------
    output_mode : "viterbi" or "marginals"
        The path of the highest score (Viterbi), one-hot; it has no gradient. Or the probability of
        each class at each step, whose largest is not always on the best path.
    use_boundary : bool
        Use ``start`` and ``end``; else they are 0.
    forbidden : list of pairs
        Transitions ``(from, to)`` of class numbers that never occur: their score is lowered by
        10,000. ``("start", to)`` and ``(from, "end")`` forbid a first and a last class. See
        `seqnet.text.forbidden_transitions` for tags such as ``"B-PER"``. Targets must not have
        forbidden transitions: each adds 10,000 to the loss.
    transitions_initializer, boundary_initializer
        Names or objects of `seqnet.initializers`. With zeros, the classes of a new layer do not
        depend on each other.
    transitions_regularizer, boundary_regularizer
        Names or objects of `seqnet.regularizers`.
    transitions_constraint, boundary_constraint
        Names or objects of `seqnet.constraints`.

    Raises
    ------
    ValueError
        If a number in `forbidden` is not a class.

    References
    ----------
    .. [1] Lafferty, McCallum and Pereira, "Conditional random fields: probabilistic models for
       segmenting and labeling sequence data", ICML 2001.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.layers import CRF, LSTM, Bidirectional, Dense, Embedding
    >>> encoder = Bidirectional(LSTM(8, return_sequences=True))
    >>> model = seqnet.Model([Embedding(10, 4), encoder, Dense(3), CRF(forbidden=[(0, 2)])])
    >>> X, y = [[1, 2, 3], [4, 5]], [[0, 1, 2], [0, 0]]
    >>> history = model.fit(X, y, verbose=0)
    >>> [tags.shape for tags in model.predict(X)]
    [(3, 3), (2, 3)]
    """

    takes_several_inputs = False
    input_axes = ("batch", "time", "classes")
    non_causal = "chooses the classes of all steps of a sequence together"

    def __init__(
        self,
        output_mode: str = "viterbi",
        *,
        use_boundary: bool = True,
        forbidden: Iterable[tuple[int | str, int | str]] = (),
        transitions_initializer: Identifier = "zeros",
        boundary_initializer: Identifier = "zeros",
        transitions_regularizer: Identifier | None = None,
        boundary_regularizer: Identifier | None = None,
        transitions_constraint: Identifier | None = None,
        boundary_constraint: Identifier | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if output_mode not in OUTPUTS:
            known = " or ".join(map(repr, OUTPUTS))
            raise ValueError(f"The output_mode of CRF is {known}, got {output_mode!r}.")
        self.output_mode = output_mode
        self.use_boundary = check_bool(use_boundary, "use_boundary")
        self.forbidden = check_pairs(forbidden)
        self.transitions_initializer = initializers.get(transitions_initializer)
        self.boundary_initializer = initializers.get(boundary_initializer)
        self.transitions_regularizer = regularizers.get(transitions_regularizer)
        self.boundary_regularizer = regularizers.get(boundary_regularizer)
        self.transitions_constraint = constraints.get(transitions_constraint)
        self.boundary_constraint = constraints.get(boundary_constraint)

    def build(self, input_shape: Shape) -> None:
        classes = self.needed_features(input_shape)
        penalties(classes, self.forbidden, self.dtype)  # raises if a number is not a class
        self.transitions = self.add_weight(
            "transitions",
            (classes, classes),
            self.transitions_initializer,
            regularizer=self.transitions_regularizer,
            constraint=self.transitions_constraint,
        )
        self.start = self.end = None
        if self.use_boundary:
            self.start, self.end = [
                self.add_weight(
                    name,
                    (classes,),
                    self.boundary_initializer,
                    regularizer=self.boundary_regularizer,
                    constraint=self.boundary_constraint,
                )
                for name in BOUNDARIES
            ]

    def call(self, inputs: Tensor, mask: Tensor | None, context: CallContext) -> Tensor:
        if inputs.dtype != self.dtype:
            inputs = pt.cast(inputs, self.dtype)
        if mask is None:
            mask = pt.ones(inputs.shape[:2], dtype="bool")
        lowered = penalties(self.features or 0, self.forbidden, self.dtype)
        weights = []
        for weight, penalty in zip((self.transitions, self.start, self.end), lowered, strict=True):
            if weight is None:
                weights.append(pt.as_tensor_variable(penalty))
            else:
                weights.append(weight + penalty if penalty.any() else weight)
        return OUTPUTS[self.output_mode]()(inputs, mask, *weights)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


def check_pairs(forbidden: Iterable) -> list[tuple[int | str, int | str]]:
    """Return forbidden transitions as a list of pairs, or raise."""
    found = []
    for pair in forbidden:
        values = tuple(pair) if isinstance(pair, (list, tuple, np.ndarray)) else ()
        if len(values) != 2 or not all(
            value == boundary if isinstance(value, str) else isinstance(value, (int, np.integer))
            for value, boundary in zip(values, BOUNDARIES, strict=True)
        ):
            raise ValueError(
                "forbidden is a list of pairs (from, to) of class numbers, ('start', to) and "
                f"(from, 'end'); got {pair!r}."
            )
        before, after = [v if isinstance(v, str) else int(v) for v in values]
        found.append((before, after))
    return found


def penalties(classes: int, forbidden: Iterable, dtype: str) -> tuple[Array, Array, Array]:
    """Return what is added to transitions, start and end: a low score where forbidden, else 0.

    Raises
    ------
    ValueError
        If a number is not a class.
    """
    both, start, end = [np.zeros(s, dtype) for s in ((classes, classes), classes, classes)]
    for pair in forbidden:
        for value in pair:
            if not isinstance(value, str) and not 0 <= value < classes:
                raise ValueError(
                    f"forbidden has the pair {pair}, but there are {classes} classes, 0 to "
                    f"{classes - 1}."
                )
        before, after = pair
        if before == "start" and after == "end":
            raise ValueError("forbidden has ('start', 'end'), but a sequence has a step.")
        if before == "start":
            start[after] = FORBIDDEN
        elif after == "end":
            end[before] = FORBIDDEN
        else:
            both[before, after] = FORBIDDEN
    return both, start, end

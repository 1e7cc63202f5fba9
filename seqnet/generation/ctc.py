"""From the outputs of a model trained with the CTC loss to labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from seqnet.common.checks import check_bool, check_count
from seqnet.common.types import Array, ArrayLike


def ctc_greedy_decode(
    outputs: ArrayLike | Sequence[ArrayLike],
    lengths: ArrayLike | None = None,
    mask_index: int = 0,
) -> list[Array]:
    """Return the labels of the best class at each step: repeated ones merged, blanks removed.

    It is the most probable alignment, and not always that of the most probable labels: see
    `ctc_beam_search_decode`.

    Parameters
    ----------
    outputs : array (batch, time, classes), or a list of arrays (time, classes)
        Probabilities or logits, as `Model.predict` returns them.
    lengths : int array (batch,), optional
        The number of steps of each sequence; by default all.
    mask_index : int
        The class number of the blank.

    Returns
    -------
    list of int array (length,)

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape or is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.generation import ctc_greedy_decode
    >>> best = np.eye(4)[[2, 2, 0, 2, 3]]
    >>> ctc_greedy_decode(best[None])[0].tolist()
    [2, 2, 3]
    """
    found = []
    for steps in sequences_of(outputs, lengths, mask_index):
        best = steps.argmax(axis=-1)
        changed = np.diff(best, prepend=-1) != 0
        found.append(best[changed & (best != mask_index)])
    return found


def ctc_beam_search_decode(
    outputs: ArrayLike | Sequence[ArrayLike],
    lengths: ArrayLike | None = None,
    beam_width: int = 100,
    top_paths: int = 1,
    mask_index: int = 0,
    from_logits: bool = True,
) -> tuple[list[list[Array]], Array]:
    """Return the most probable labels of each sequence, and the logarithms of their probabilities.

    The probability of labels is the sum over their alignments. At each step the `beam_width` most
    probable beginnings are kept (prefix beam search: Graves and Jaitly, ICML 2014, Algorithm 1;
    Hannun et al., 2014). With a beam as wide as there are beginnings the result is exact.

    Parameters
    ----------
    outputs, lengths, mask_index
        As in `ctc_greedy_decode`.
    beam_width : int
    top_paths : int
        How many label sequences to return for each sequence, at most `beam_width`.
    from_logits : bool
        The outputs are logits, or logarithms of probabilities. False for probabilities, such as
        those of a softmax.

    Returns
    -------
    list of lists of int array (length,)
        For each sequence its labels, the most probable ones first.
    array (batch, top_paths)
        The logarithms of probabilities, minus infinity if there are fewer label sequences.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape or is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.generation import ctc_beam_search_decode
    >>> steps = np.array([[0.6, 0.4], [0.6, 0.4]])  # the best class is the blank at both steps
    >>> labels, log_probabilities = ctc_beam_search_decode([steps], from_logits=False)
    >>> labels[0][0].tolist(), round(float(np.exp(log_probabilities[0, 0])), 5)
    ([1], 0.64)
    """
    beam_width = check_count(beam_width, "beam_width")
    if check_count(top_paths, "top_paths") > beam_width:
        raise ValueError(f"top_paths is at most beam_width={beam_width}, got {top_paths}.")
    check_bool(from_logits, "from_logits")
    sequences = sequences_of(outputs, lengths, mask_index)
    scores = np.full((len(sequences), top_paths), -np.inf)
    found = []
    for row, steps in enumerate(sequences):
        log_p = logarithms(steps, from_logits, f"outputs[{row}]")
        best = search(log_p, beam_width, mask_index)[:top_paths]
        found.append([np.array(labels, "int64") for labels, _ in best])
        scores[row, : len(best)] = [score for _, score in best]
    return found, scores


def sequences_of(
    outputs: ArrayLike | Sequence[ArrayLike], lengths: ArrayLike | None, mask_index: int
) -> list[Array]:
    """Return the outputs of each sequence as an array (time, classes), after checking them."""
    blank = check_count(mask_index, "mask_index", 0)
    if not isinstance(outputs, (list, tuple)):
        outputs = list(np.asarray(outputs))
    sequences = [np.asarray(steps) for steps in outputs]
    for row, steps in enumerate(sequences):
        if steps.ndim != 2 or steps.dtype.kind != "f" or blank >= steps.shape[1]:
            raise ValueError(
                f"outputs[{row}] must hold floats (time, classes), with more classes than "
                f"mask_index={blank}; got {steps.dtype} of shape {steps.shape}."
            )
    if lengths is None:
        return sequences
    counts = np.asarray(lengths)
    if counts.dtype.kind not in "iu" or counts.shape != (len(sequences),):
        raise ValueError(
            f"lengths must hold one integer for each of the {len(sequences)} sequences, got "
            f"{counts.dtype} of shape {counts.shape}."
        )
    for row, (steps, count) in enumerate(zip(sequences, counts, strict=True)):
        if not 0 <= count <= len(steps):
            raise ValueError(
                f"lengths[{row}] is {count}, but outputs[{row}] has {len(steps)} steps."
            )
    return [steps[:count] for steps, count in zip(sequences, counts, strict=True)]


def logarithms(steps: Array, from_logits: bool, name: str) -> Array:
    """Return the logarithms of the probabilities of classes, float64 (time, classes)."""
    steps = steps.astype("float64")
    if from_logits:
        shifted = steps - steps.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    if (steps < 0).any() or (abs(steps.sum(axis=1) - 1) > 1e-3).any():
        raise ValueError(
            f"{name} does not hold probabilities that add up to 1 at each step; for logits use "
            "from_logits=True."
        )
    with np.errstate(divide="ignore"):
        return np.log(steps)


def log_add(a: float, b: float) -> float:
    """Return ``log(exp(a) + exp(b))``."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))


def search(log_p: Array, beam_width: int, blank: int) -> list[tuple[tuple[int, ...], float]]:
    """Return the most probable labels of one sequence and the logarithms of their probabilities."""
    nothing = -math.inf
    # For each beginning: the log probability of its alignments that end with a blank, and others.
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, nothing)}
    for step in log_p:
        following: dict[tuple[int, ...], tuple[float, float]] = {}
        likely = np.argsort(step)[::-1][: beam_width + 1]
        classes = [(int(k), float(step[k])) for k in likely if k != blank]

        def add(labels: tuple[int, ...], on_blank: float, on_label: float, to: dict) -> None:
            before = to.get(labels, (nothing, nothing))
            to[labels] = log_add(before[0], on_blank), log_add(before[1], on_label)

        for labels, (on_blank, on_label) in beams.items():
            total = log_add(on_blank, on_label)
            same = on_label + float(step[labels[-1]]) if labels else nothing
            add(labels, total + float(step[blank]), same, following)
            for k, score in classes:
                from_any = on_blank if labels and k == labels[-1] else total
                if from_any > nothing:
                    add((*labels, k), nothing, from_any + score, following)
        kept = sorted(following.items(), key=lambda item: -log_add(*item[1]))[:beam_width]
        beams = dict(kept)
    found = [(labels, log_add(*scores)) for labels, scores in beams.items()]
    return sorted(((k, s) for k, s in found if s > nothing), key=lambda item: -item[1])

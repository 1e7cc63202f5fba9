"""What a user passes to a model's verbs, checked as a whole and made ready for batches.

Everything is refused here, with a message in the user's words, before anything is compiled. What
stands at steps that count nothing (masked, or of weight 0) is never refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np
import pytensor.tensor as pt

from seqnet import registry
from seqnet.checks import WrongValueError, check_finite, preceded
from seqnet.data import Examples, as_array, make_examples, same_count, with_axes
from seqnet.layers import Activation, Dense, Softmax
from seqnet.layers.layer import Phase
from seqnet.losses import Loss, MaskedLoss, guess
from seqnet.masks import counted
from seqnet.ragged import RaggedExamples, lengths_to_allow
from seqnet.sequences import (
    check_lengths,
    check_rectangular,
    described,
    enter_targets,
    is_ragged,
    ragged_examples,
)
from seqnet.sources import Rows, SourceExamples, StepsMask, is_source
from seqnet.stack import forward
from seqnet.streams import Data, Stream, batch_parts, is_stream, stream_of
from seqnet.training import signature_of
from seqnet.weighting import labels_and_weights, weigh_classes

log = logging.getLogger("seqnet")


def prepare(
    model,
    x,
    y=None,
    weight=None,
    mask=None,
    lengths=None,
    *,
    prefix="",
    announce=False,
    targets=True,
    class_weight=None,
    goes_on=False,
) -> Data:
    """Return a data set as examples, with everything checked and the model's weights built.

    Of what is beyond memory only the first row or batch is read now; the others are checked when
    they are read.

    Parameters
    ----------
    model : Model
    x, y, weight, mask, lengths
        As `Model.fit` takes them.
    prefix : str
        Put before names in messages.
    announce : bool
        Print what is chosen where nothing was.
    targets : bool
        Whether there must be targets.
    class_weight : dict, optional
    goes_on : bool
        Whether a stream of batches goes on from epoch to epoch.

    Returns
    -------
    Examples, RaggedExamples, SourceExamples or Stream
    """
    if not model.layers:
        raise ValueError("The model has no layers; add some first.")
    name = f"{prefix}X"
    options = {"prefix": prefix, "announce": announce, "class_weight": class_weight}
    if is_stream(x, targets and y is None):
        beside = {"y": y, "sample_weight": weight, "mask": mask, "lengths": lengths}
        given = [f"{prefix}{label}" for label, value in beside.items() if value is not None]
        if given:
            raise ValueError(
                f"{name} ({described(x)}) is a stream of batches, so {' and '.join(given)} cannot "
                "be passed beside it: each batch is (x, y) or (x, y, sample_weight)."
            )
        return stream(model, x, targets, goes_on, options)
    if targets and y is None:
        raise missing_targets(x, prefix)
    beyond_memory = any(map(is_source, (x, y, weight, mask)))
    if y is not None and isinstance(model.loss, MaskedLoss):
        if beyond_memory:
            raise ValueError(
                "masked_loss takes arrays, lists and streams. For rows beyond memory use "
                "sparse_categorical_crossentropy with sample_weight=range_weights(...)."
            )
        y, weight = labels_and_weights(y, weight, prefix)
    if beyond_memory:
        return sources(model, x, y, weight, mask, lengths, options)
    return in_memory(model, x, y, weight, mask, lengths, options)


def missing_targets(x, prefix: str) -> ValueError:
    """Return the error that tells what may go without targets."""
    hint = " Call it, and pass the generator it returns." if callable(x) else ""
    if isinstance(x, tuple):
        hint = " Pass X and y one after the other, not as a tuple."
    return ValueError(
        f"{prefix}y is missing. Only a stream of batches (x, y) goes without it, and {prefix}X is "
        f"{described(x)}.{hint}"
    )


def in_memory(model, x, y, weight, mask, lengths, options: dict) -> Examples:
    """Return arrays or lists as examples, checked whole."""
    prefix, announce = options["prefix"], options["announce"]
    name = f"{prefix}X"
    whole = None
    if lengths is not None:
        whole, lengths = with_lengths(x, mask, lengths, prefix)
        x = [row[:n] for row, n in zip(whole, lengths, strict=True)]
    if lengths is not None or is_ragged(x):
        examples: Examples = ragged_examples(x, mask, prefix=prefix)
    else:
        x = as_array(x, name)
        for part, values in (("y", y), ("sample_weight", weight), ("mask", mask)):
            check_rectangular(x, values, f"{prefix}{part}", prefix=prefix)
        examples = make_examples(x, y, weight, mask, prefix=prefix)
    check(examples, "x", model.layers[0].check_input, name, lambda: examples.mask)
    build(model, examples, name)
    shape = output_shape(model, examples)
    if isinstance(examples, RaggedExamples):
        examples.per_step = examples.gives_steps(shape)
        examples.backwards = model.runs_backwards
        if whole is not None:
            y, weight = cut(examples, whole, y, weight, prefix)
        enter_targets(examples, y, weight, prefix=prefix)
        examples.lengths_allowed = allow_lengths(model, examples.lengths, announce)
    if y is not None:
        choose(model, examples, announce)
        check_targets(model, examples, shape, prefix, options["class_weight"])
    return examples


def build(model, examples: Examples, name: str) -> None:
    """Make the model's weights, or check that they fit; say so if the batch axis is missing."""
    wanted = len(model.input_shape or model.layers[0].input_axes)
    rank = len(examples.input_shape)
    try:
        model.build(examples.input_shape)
    except ValueError as error:
        if isinstance(examples, RaggedExamples) or rank not in (1, wanted - 1):
            raise
        text = (
            f"{name} has the shape {examples.x.shape}, one axis less than the model takes (the "
            f"first is the batch: a single sample is {name}[None])"
        )
        raise preceded(error, text) from error


def output_shape(model, examples: Examples) -> tuple:
    """Return the shape of a model's output for examples, the batch None."""
    return (None, *model.compute_output_shape(examples.input_shape)[1:])


def sources(model, x, y, weight, mask, lengths, options: dict) -> SourceExamples:
    """Return what is beyond memory as examples; only the first row is read."""
    prefix = options["prefix"]
    name = f"{prefix}X"
    if is_ragged(x):
        raise ValueError(f"{name} is a list of sequences, so what goes with it is lists too.")
    if lengths is None:
        x = rows_of(x, name)
    else:
        x, lengths = with_lengths(x, mask, lengths, prefix)
        mask = StepsMask(lengths, x.shape[1])
    beside = {f"{prefix}y": y, f"{prefix}sample_weight": weight, f"{prefix}mask": mask}
    parts = [x, *(None if v is None else rows_of(v, label) for label, v in beside.items())]
    for label, part in zip(beside, parts[1:], strict=True):
        if part is not None:
            same_count(name, x, label, part)
    first = [None if part is None else part[0:1] for part in parts]
    try:
        examples = in_memory(model, *first, None, options)
    except WrongValueError:
        raise  # which says where
    except (ValueError, TypeError) as error:
        raise preceded(error, "Row 0") from error
    shape = output_shape(model, examples)

    def check_batch(batch: Examples) -> Examples:
        batch = make_examples(*batch.parts(), prefix=prefix)
        check(batch, "x", model.layers[0].check_input, name, lambda: batch.mask)
        if y is not None:
            check_targets(model, batch, shape, prefix, options["class_weight"])
        return batch

    return SourceExamples(*parts, check_batch=check_batch, start=0, stop=len(x))


def rows_of(values, name: str) -> np.ndarray | Rows:
    """Return what has rows as an array, or as `Rows` if it is beyond memory."""
    return Rows(values, name) if is_source(values) else as_array(values, name)


def stream(model, source, targets: bool, goes_on: bool, options: dict) -> Stream:
    """Return batches as a stream; the first one is read and checked."""

    def check_batch(raw) -> Examples:
        parts = batch_parts(raw, targets, model.input_shape)
        return prepare(model, *parts, targets=targets, **options)

    found = stream_of(source, check_batch, f"{options['prefix']}X", goes_on)
    try:
        found.first_batch()
    except BaseException:
        found.close()
        raise
    options["announce"] = False
    return found


def allow_lengths(model, lengths: np.ndarray, announce: bool) -> tuple[int, ...]:
    """Return what sequences of these lengths may be padded to; nothing for any length.

    Models that unroll, and backends that need sizes, get a function for each of a few lengths.
    """
    if not model.needs_length:
        return ()
    before = model.padded_lengths
    model.padded_lengths = lengths_to_allow(lengths, before)
    if model.padded_lengths != before:
        spelled = ", ".join(map(str, model.padded_lengths))
        tell(
            f"Sequences are padded to one of the lengths {spelled}; a function is compiled for "
            "each when it first comes.",
            announce,
        )
        model.forget_functions(set(before) - set(model.padded_lengths))
    return model.padded_lengths


def choose(model, examples: Examples, announce: bool) -> None:
    """Settle what `Model.compile` left open, now that there are targets, and say what."""
    if model.optimizer is None:
        model.compile()
        if announce:
            rate = model.optimizer.learning_rate
            name = f"{type(model.optimizer).__name__}(learning_rate={rate:g})"
            print(f"compile was not called: training with {name}.")
    if model.loss is None:
        sample = examples.take(slice(0, 1)).whole()
        signature = signature_of("predict", sample, model.dtype, model.needs_length)
        x = pt.tensor("x", dtype=signature.x_dtype, shape=signature.x_shape)
        model.loss = guess(forward(model.layers, x, None, Phase())[0], sample.y)
        model.set_metrics()
        tell(f"No loss was given: using {model.loss.name}, which fits the last layer.", announce)


def tell(message: str, announce: bool) -> None:
    """Log what was chosen, and print it if asked to."""
    log.info(message)
    if announce:
        print(message)


def with_lengths(x, mask, lengths, prefix: str = "") -> tuple[np.ndarray | Rows, np.ndarray]:
    """Check `lengths=`; return the inputs as what has rows, and the lengths as an array."""
    if mask is not None:
        raise ValueError(f"Pass {prefix}mask or {prefix}lengths, not both.")
    if is_ragged(x):
        raise ValueError(
            f"{prefix}lengths goes with an array; the sequences of {prefix}X have their own."
        )
    x = rows_of(x, f"{prefix}X")
    return x, check_lengths(x, lengths, prefix=prefix)


def mask_for(x, mask, lengths) -> np.ndarray | StepsMask | None:
    """Return the mask to predict with, which keeps the shape of the inputs."""
    if lengths is None:
        return mask
    rows, lengths = with_lengths(x, mask, lengths)
    steps = StepsMask(lengths, rows.shape[1])
    return steps if is_source(x) else steps[:]


def cut(examples: RaggedExamples, x: np.ndarray, y, weight, prefix: str) -> tuple:
    """Cut padded targets and weights for each step to the lengths of the sequences."""

    def rows(values, name):
        values = as_array(values, name)
        if values.shape[:2] != x.shape[:2]:
            raise ValueError(
                f"{name} must have the (samples, time) of {prefix}X, {x.shape[:2]}, as the model "
                f"gives an output at each step; got the shape {values.shape}."
            )
        end = slice(None, None, -1) if examples.backwards else slice(None)
        pairs = zip(values, examples.lengths, strict=True)
        return [row[end][:n][end] for row, n in pairs]

    if y is not None and examples.per_step and not is_ragged(y):
        y = rows(y, f"{prefix}y")
    if weight is not None and not is_ragged(weight) and np.ndim(weight) > 1:
        weight = rows(weight, f"{prefix}sample_weight")
    return y, weight


def check(examples: Examples, part: str, function: Callable, name: str, counted: Callable) -> None:
    """Check a part; what counts nothing is set to zero if it would be refused otherwise.

    `counted` returns where there is something that counts, bool, or None for everywhere.
    """
    try:
        examples.check(part, function, name)
        return
    except (ValueError, TypeError):
        values, there = getattr(examples, part), counted()
        if there is None or there.all() or values.shape[: there.ndim] != there.shape:
            raise
    kept = np.where(with_axes(there, values.ndim), values, np.zeros((), values.dtype))
    setattr(examples, part, kept)
    examples.check(part, function, name)


def check_last_activation(model) -> None:
    """Raise if the loss takes probabilities and the last layer gives others, or logits and not."""
    layer, loss = model.layers[-1], model.loss
    layer = getattr(layer, "layer", layer)  # of TimeDistributed
    if isinstance(layer, Softmax):
        name = "softmax"
    elif type(layer) in (Dense, Activation):
        name = layer.activation.__name__
    else:
        return
    if not isinstance(loss, Loss) or not loss.after or (name in loss.after) != loss.from_logits:
        return
    if name not in registry.names("activation"):  # a function of one's own
        return
    ends = f"but layer {layer.display_name!r} ends with the activation {name!r}"
    if loss.from_logits:
        raise ValueError(
            f"{loss.name} with from_logits=True takes what comes before a {name}, {ends}: leave "
            "out one of the two."
        )
    raise ValueError(
        f"{loss.name} takes probabilities, {ends}. Give it activation={loss.after[0]!r}, or "
        f"the loss from_logits=True: loss=seqnet.losses.{type(loss).__name__}(from_logits=True)."
    )


def check_targets(
    model, examples: Examples, shape: tuple, prefix: str, class_weight: Mapping | None = None
) -> None:
    """Raise if targets or weights do not fit the model's output of a shape; weigh classes."""
    check_last_activation(model)
    ragged = isinstance(examples, RaggedExamples)
    steps = (None, *shape[2:]) if ragged and examples.per_step else shape

    def check_values(values, name):
        check_finite(values, name)
        if isinstance(model.loss, Loss):
            model.loss.check_targets(values, steps, name)

    check(examples, "y", check_values, f"{prefix}y", lambda: counted(model, examples, shape))
    if examples.weight is not None and not ragged:
        allowed = {(len(examples),), (len(examples), *shape[1:-1])}
        if examples.weight.shape not in allowed:
            wanted = " or ".join(str(a) for a in sorted(allowed, key=len))
            raise ValueError(
                f"{prefix}sample_weight must have the shape {wanted}, got {examples.weight.shape}."
            )
    if class_weight is not None:
        weigh_classes(examples, model.loss, shape, class_weight)

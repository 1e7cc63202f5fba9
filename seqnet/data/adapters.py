"""Validate inputs and build data sets.

This is the only module that distinguishes the kinds of data. Invalid data raises an error here,
before anything is compiled; data that is not in memory is checked batch by batch by the same
functions. Values that are masked or have the weight 0 never raise an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from seqnet import registry
from seqnet.checks import WrongValueError, check_finite, check_fits, preceded
from seqnet.data.arrays import ArrayDataset
from seqnet.data.dataset import Batch, Dataset, RowDataset
from seqnet.data.masking import counted_targets
from seqnet.data.out_of_core import OutOfCoreDataset, PartRows, Rows, StepsMask, is_out_of_core
from seqnet.data.padding import range_weights
from seqnet.data.ragged import RaggedDataset
from seqnet.data.stream import Stream, batch_parts, is_stream, open_stream
from seqnet.data.validation import (
    as_array,
    check_batch,
    check_counted,
    check_lengths,
    check_rectangular,
    check_same_count,
    check_weights,
    described,
    is_ragged,
    size_of,
)
from seqnet.layers import Activation, Dense, Softmax
from seqnet.losses import Loss, MaskedLoss
from seqnet.losses.targets import aligned
from seqnet.metrics import LossMetric

if TYPE_CHECKING:
    from seqnet.model import Model


class Adapter:
    """Build data sets for a model; the first data also builds the model.

    Parameters
    ----------
    model : Model
    prefix : str
        A prefix for names in messages, such as ``"validation "``.
    announce : bool
        Print the defaults that are chosen.
    targets : bool
        Whether targets are required.
    continues : bool
        Whether each epoch of a stream begins where the previous one ended.
    """

    def __init__(
        self,
        model: Model,
        *,
        prefix: str = "",
        announce: bool = False,
        targets: bool = True,
        continues: bool = False,
    ):
        self.model, self.prefix, self.name = model, prefix, f"{prefix}X"
        self.announce, self.targets, self.continues = announce, targets, continues

    def dataset(
        self, x: Any, y: Any = None, weight: Any = None, mask: Any = None, lengths: Any = None
    ) -> Dataset:
        """Return the arguments of `Model.fit` as a data set, after checking them.

        Of data that is not in memory, only the first row or the first batch is read now.
        """
        if not self.model.layers:
            raise ValueError("The model has no layers; add some first.")
        if isinstance(x, Dataset) or is_stream(x, self.targets and y is None):
            others = {"y": y, "sample_weight": weight, "mask": mask, "lengths": lengths}
            given = [f"{self.prefix}{label}" for label, v in others.items() if v is not None]
            if given:
                raise ValueError(
                    f"{self.name} ({described(x)}) is a stream of batches, so "
                    f"{' and '.join(given)} cannot be passed as well: each batch is (x, y) or "
                    "(x, y, sample_weight)."
                )
            return self.own_dataset(x) if isinstance(x, Dataset) else self.stream(x)
        if self.targets and y is None:
            raise self.missing_targets(x)
        out_of_core = any(map(is_out_of_core, (x, y, weight, mask)))
        if y is not None and isinstance(self.model.loss, MaskedLoss):
            if out_of_core:
                raise ValueError(
                    "masked_loss takes arrays, lists and streams. For rows beyond memory use "
                    "sparse_categorical_crossentropy with sample_weight=range_weights(...)."
                )
            y, weight = labels_and_weights(y, weight, self.prefix)
        if out_of_core:
            return self.out_of_core(x, y, weight, mask, lengths)
        refuse_several_inputs(x, y, self.name)
        if lengths is not None or is_ragged(x):
            return self.sequences(x, y, weight, mask, lengths)
        return self.arrays(x, y, weight, mask)

    def missing_targets(self, x: Any) -> ValueError:
        """Return the error for missing targets."""
        hint = " Call it, and pass the generator it returns." if callable(x) else ""
        if isinstance(x, tuple):
            hint = " Pass X and y one after the other, not as a tuple."
        return ValueError(
            f"{self.prefix}y is missing. Only a stream of batches (x, y) goes without it, and "
            f"{self.name} is {described(x)}.{hint}"
        )

    # ---- the kinds of data

    def arrays(self, x: Any, y: Any, weight: Any, mask: Any) -> ArrayDataset:
        """Return arrays as a data set."""
        x = as_array(x, self.name)
        for part, values in (("y", y), ("sample_weight", weight), ("mask", mask)):
            check_rectangular(x, values, f"{self.prefix}{part}", prefix=self.prefix)
        batch = check_batch(x, y, weight, mask, prefix=self.prefix)
        dataset = ArrayDataset(self.check_inputs(batch))
        self.build(dataset.input_shape, batch.inputs.shape)
        if y is None:
            return dataset
        self.model.complete_compile(dataset, self.announce)
        return ArrayDataset(self.check_targets_and_weights(dataset, self.output_shape(dataset)))

    def sequences(self, x: Any, y: Any, weight: Any, mask: Any, lengths: Any) -> RaggedDataset:
        """Return sequences of different lengths, or an array and lengths, as a data set."""
        model = self.model
        padded: Any = None
        if lengths is not None:
            padded, lengths = with_lengths(x, mask, lengths, self.prefix)
            x = [row[:n] for row, n in zip(padded, lengths, strict=True)]
        dataset = RaggedDataset.from_sequences(x, mask, prefix=self.prefix)
        data = dataset.data
        check_input = dataset.checking(self.check_input)
        inputs = check_counted(data.inputs, check_input, self.name, lambda: data.mask)
        dataset = replace(dataset, data=replace(data, inputs=inputs))
        self.build(dataset.input_shape)
        shape = self.output_shape(dataset)
        dataset = replace(
            dataset, per_step=dataset.has_steps_of(shape), backwards=model.runs_backwards
        )
        if padded is not None:
            y, weight = cut(dataset, padded, y, weight, self.prefix)
        dataset = dataset.with_targets(y, weight, prefix=self.prefix)
        if model.needs_length:
            lengths = model.choose_padded_lengths(dataset.lengths, self.announce)
            dataset = replace(dataset, padded_lengths=lengths)
        if y is None:
            return dataset
        model.complete_compile(dataset, self.announce)
        steps = (None, *shape[2:]) if dataset.per_step else shape
        targets = self.check_targets(dataset, shape, steps)
        dataset = replace(dataset, data=replace(dataset.data, targets=targets))
        if weight is not None:
            weights = dataset.data.sample_weight
            check = dataset.checking(self.check_fits, dataset.weight_per_step)
            check(weights, f"{self.prefix}sample_weight")
        return dataset

    def out_of_core(self, x: Any, y: Any, weight: Any, mask: Any, lengths: Any) -> OutOfCoreDataset:
        """Return rows outside memory as a data set; only the first row is read now."""
        if is_ragged(x):
            raise ValueError(
                f"{self.name} is a list of sequences, so y, sample_weight and mask must also be "
                "lists."
            )
        if lengths is None:
            x = rows_of(x, self.name)
        else:
            x, lengths = with_lengths(x, mask, lengths, self.prefix)
            mask = StepsMask(lengths, x.shape[1])
        parts = Batch(x)
        for part, label, values in (
            ("targets", "y", y),
            ("sample_weight", "sample_weight", weight),
            ("mask", "mask", mask),
        ):
            if values is not None:
                rows = rows_of(values, f"{self.prefix}{label}")
                check_same_count(self.name, x, f"{self.prefix}{label}", rows)
                setattr(parts, part, rows)
        return self.read_rows(PartRows(parts))

    def own_dataset(self, dataset: Dataset) -> Dataset:
        """Return a custom data set with a check of each batch; the first batch is read now."""
        if isinstance(dataset, RowDataset):
            return self.read_rows(dataset)
        first = self.check_own(dataset.first_batch(1))
        check = self.first_check(first)
        return dataset.map(lambda batch: check(self.check_own(batch)))

    def read_rows(self, rows: RowDataset) -> OutOfCoreDataset:
        """Return samples that are read by number, with a check of each batch."""
        try:
            check = self.first_check(self.check_own(rows.load(slice(0, 1))))
        except WrongValueError:
            raise  # it already names the place
        except (ValueError, TypeError) as error:
            raise preceded(error, "Row 0") from error
        return OutOfCoreDataset(rows, lambda batch: check(self.check_own(batch)))

    def check_own(self, batch: Batch) -> Batch:
        """Return a batch of a custom data set, without targets if they are not needed."""
        if not isinstance(batch, Batch):
            raise TypeError(
                f"a data set must return objects of seqnet.data.Batch, got {described(batch)}."
            )
        if not self.targets:
            return Batch(batch.inputs, mask=batch.mask)
        if batch.targets is None:
            raise ValueError(f"a batch of {self.name} has no targets.")
        return batch

    def first_check(self, first: Batch) -> Callable[[Batch], Batch]:
        """Build the model for the first batch; return the function that checks a batch."""
        shape = self.output_shape(self.arrays(*first.parts()))

        def check(batch: Batch) -> Batch:
            batch = self.check_inputs(check_batch(*batch.parts(), prefix=self.prefix))
            if batch.targets is None:
                return batch
            return self.check_targets_and_weights(ArrayDataset(batch), shape)

        return check

    def stream(self, source: Any) -> Stream:
        """Return a stream of batches; the first batch is read and checked now."""
        first = Adapter(
            self.model, prefix=self.prefix, announce=self.announce, targets=self.targets
        )

        def prepare(raw: Any) -> Dataset:
            parts = batch_parts(raw, self.targets, self.model.input_shape)
            return first.dataset(*parts)

        stream = open_stream(source, prepare, self.name, self.continues)
        try:
            stream.first()
        except BaseException:
            stream.close()
            raise
        first.announce = False
        return stream

    # ---- the model and its checks

    def build(self, input_shape: tuple, given_shape: tuple | None = None) -> None:
        """Build the model, or check that the data fits it; detect a missing batch axis."""
        wanted = len(self.model.input_shape or self.model.layers[0].input_axes)
        try:
            self.model.build(input_shape)
        except ValueError as error:
            if given_shape is None or len(given_shape) not in (1, wanted - 1):
                raise
            text = (
                f"{self.name} has the shape {given_shape}, one axis less than the model takes (the "
                f"first is the batch: a single sample is {self.name}[None])"
            )
            raise preceded(error, text) from error

    def output_shape(self, dataset: ArrayDataset | RaggedDataset) -> tuple:
        """Return the output shape of the model for a data set; the batch size is None."""
        return (None, *self.model.compute_output_shape(dataset.input_shape)[1:])

    def check_inputs(self, batch: Batch) -> Batch:
        """Return the batch, if the first layer accepts its inputs."""
        inputs = check_counted(batch.inputs, self.check_input, self.name, lambda: batch.mask)
        return replace(batch, inputs=inputs)

    def check_input(self, values: np.ndarray, name: str) -> None:
        """Raise an error if the first layer or the model's float type cannot hold the inputs."""
        self.model.layers[0].check_input(values, name)
        check_fits(values, name, self.model.dtype)

    def check_fits(self, values: np.ndarray, name: str) -> None:
        """Raise an error if values are too large for the model's float type."""
        check_fits(values, name, self.model.dtype)

    def check_targets(
        self, dataset: ArrayDataset | RaggedDataset, output_shape: tuple, steps: tuple
    ) -> np.ndarray:
        """Return the targets, if they fit the loss, the metrics that are losses, and the output.

        Parameters
        ----------
        dataset : ArrayDataset or RaggedDataset
        output_shape : tuple
            The output shape of the model; the batch size is None.
        steps : tuple
            The shape that targets are compared with; if the steps of all sequences are
            concatenated, it has no batch axis.
        """
        model, name = self.model, f"{self.prefix}y"
        check_last_activation(model)

        def check_values(values: Any, name: str):
            check_finite(values, name)
            check_fits(values, name, model.dtype)

        def counted():
            return counted_targets(model, dataset, output_shape)

        loss = model.loss
        wanted = loss.target_shape(steps) if isinstance(loss, Loss) else steps
        targets = aligned(dataset.data.targets, wanted)
        losses = [model.loss, *(m.loss for m in model.metrics if isinstance(m, LossMetric))]
        for loss in losses:

            def check_one(values: Any, name: str, loss: Any = loss):
                check_values(values, name)
                if isinstance(loss, Loss):
                    loss.check_targets(values, steps, name)

            ignored: Callable = loss.ignored_target if isinstance(loss, Loss) else np.zeros
            check = dataset.checking(check_one, dataset.per_step)
            targets = check_counted(targets, check, name, counted, ignored)
        return targets

    def check_targets_and_weights(self, dataset: ArrayDataset, output_shape: tuple) -> Batch:
        """Return the samples, if targets and sample weights fit the model's output."""
        targets = self.check_targets(dataset, output_shape, output_shape)
        weight = dataset.data.sample_weight
        if weight is not None:
            count, name = len(dataset), f"{self.prefix}sample_weight"
            allowed = {(count,), (count, *output_shape[1:-1])}
            if weight.shape not in allowed:
                wanted = " or ".join(str(a) for a in sorted(allowed, key=len))
                raise ValueError(f"{name} must have the shape {wanted}, got {weight.shape}.")
            self.check_fits(weight, name)
        return replace(dataset.data, targets=targets)


def check_last_activation(model: Model) -> None:
    """Raise an error if the last activation does not fit the loss (probabilities or logits)."""
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
    if name not in registry.names("activation"):  # a custom function
        return
    ends = f"but layer {layer.display_name!r} ends with the activation {name!r}"
    if loss.from_logits:
        raise ValueError(
            f"{loss.name} with from_logits=True takes the values before a {name}, {ends}: remove "
            "one of the two."
        )
    raise ValueError(
        f"{loss.name} takes probabilities, {ends}. Give it activation={loss.after[0]!r}, or "
        f"the loss from_logits=True: loss=seqnet.losses.{type(loss).__name__}(from_logits=True)."
    )


def rows_of(values: Any, name: str) -> np.ndarray | Rows:
    """Return values as an array, or as `Rows` if they are not in memory."""
    return Rows(values, name) if is_out_of_core(values) else as_array(values, name)


def with_lengths(
    x: Any, mask: Any, lengths: Any, prefix: str = ""
) -> tuple[np.ndarray | Rows, np.ndarray]:
    """Check `lengths=`; return the inputs (an array or `Rows`) and the lengths as an array."""
    if mask is not None:
        raise ValueError(f"Pass {prefix}mask or {prefix}lengths, not both.")
    if is_ragged(x):
        raise ValueError(
            f"{prefix}lengths needs an array, but {prefix}X is a list of sequences, which have "
            "their own lengths."
        )
    x = rows_of(x, f"{prefix}X")
    return x, check_lengths(x, lengths, prefix=prefix)


def mask_for(x: Any, mask: Any, lengths: Any) -> np.ndarray | StepsMask | None:
    """Return the mask for a prediction; the shape of the inputs is kept."""
    if lengths is None:
        return mask
    rows, lengths = with_lengths(x, mask, lengths)
    steps = StepsMask(lengths, rows.shape[1])
    return steps if is_out_of_core(x) else steps[:]


def cut(dataset: RaggedDataset, x: np.ndarray, y: Any, weight: Any, prefix: str) -> tuple:
    """Return padded targets and weights for each step, cut to the lengths of the sequences."""

    def rows(values: Any, name: str):
        values = as_array(values, name)
        if values.shape[:2] != x.shape[:2]:
            raise ValueError(
                f"{name} must have the (samples, time) of {prefix}X, {x.shape[:2]}, because the "
                f"model has an output at each step; got the shape {values.shape}."
            )
        end = slice(None, None, -1) if dataset.backwards else slice(None)
        pairs = zip(values, dataset.lengths, strict=True)
        return [row[end][:n][end] for row, n in pairs]

    if y is not None and dataset.per_step and not is_ragged(y):
        y = rows(y, f"{prefix}y")
    if weight is not None and not is_ragged(weight) and np.ndim(weight) > 1:
        weight = rows(weight, f"{prefix}sample_weight")
    return y, weight


def refuse_several_inputs(x: Any, y: Any, name: str) -> None:
    """Raise an error if X is a list of several inputs.

    That is a list of text and numbers, of arrays of different ranks, or of arrays with one row for
    each target.
    """
    if not isinstance(x, (list, tuple)):
        return
    text = [holds_text(v) for v in x[:2]]
    if any(text) and not all(text):
        raise TypeError(
            f"{name} is a list of text and numbers. A model has one input: convert the text to "
            "numbers, such as with seqnet.text.CharacterVocabulary, and join both along the "
            "features, or use one model for each."
        )
    if not all(isinstance(v, np.ndarray) for v in x):
        return
    count = size_of(y)
    rows = {size_of(v) for v in x}
    if len({v.ndim for v in x}) > 1 or (len(x) > 1 and count != len(x) and rows == {count}):
        shapes = ", ".join(str(v.shape) for v in x)
        raise ValueError(
            f"{name} is a list of {len(x)} arrays of the shapes {shapes}. A model has one input: "
            f"join several along the features, such as with np.concatenate({name}, axis=-1), or "
            "use one model for each."
        )


def holds_text(values: Any) -> bool:
    """Return whether a value is text, or a list or an array that begins with text."""
    while isinstance(values, (list, tuple)) or (isinstance(values, np.ndarray) and values.ndim):
        if not len(values):
            return False
        values = values[0]
    return isinstance(values, (str, bytes))


def labels_and_weights(y: Any, weight: Any, prefix: str) -> tuple:
    """Return the targets of `MaskedLoss` as labels, and weights that are 0 outside the ranges."""
    name = f"{prefix}y"
    if not isinstance(y, (tuple, list)) or len(y) != 3:
        raise ValueError(
            f"With masked_loss {name} is (labels, codelengths, label_starts), got {described(y)}."
        )
    labels, lengths, starts = y
    lengths, starts = as_array(lengths, f"{name}[1]"), as_array(starts, f"{name}[2]")
    for number, what in ((1, lengths), (2, starts)):
        if what.dtype.kind not in "iu":
            raise TypeError(f"{name}[{number}] must hold whole numbers, got {what.dtype}.")
    if size_of(labels) is None:
        raise TypeError(f"{name}[0] must hold labels for each step, got {labels!r}.")
    sizes = [size_of(row) for row in labels]
    if None in sizes or not {lengths.shape, starts.shape} == {(len(sizes),)}:
        raise ValueError(
            f"With masked_loss {name} is (labels, codelengths, label_starts): labels for each step "
            f"of {len(sizes)} sequences, and as many lengths and starts; got the shapes "
            f"{lengths.shape} and {starts.shape}."
        )
    ranges = list(range_weights(starts, lengths, np.array(sizes)))
    if weight is not None:
        label = f"{prefix}sample_weight"
        if size_of(weight) != len(ranges):
            raise ValueError(f"{label} must have one entry for each sequence.")
        rows = weight if is_ragged(weight) else as_array(weight, label)
        for row, inside in enumerate(ranges):
            own = rows[row]
            if np.ndim(own) and np.shape(own) != inside.shape:
                raise ValueError(
                    f"{label}[{row}] has the shape {np.shape(own)}, but {prefix}X[{row}] has "
                    f"{len(inside)} steps."
                )
            own = as_array(np.atleast_1d(own), f"{label}[{row}]")
            check_weights(own, f"{label}[{row}]")
            ranges[row] = inside * own
    return labels, ranges if is_ragged(labels) else np.stack(ranges)

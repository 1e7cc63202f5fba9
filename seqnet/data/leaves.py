"""The data of one input or one output: from what a user passes to checked columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from seqnet import registry
from seqnet.common.checks import check_finite, check_fits
from seqnet.common.types import Shape
from seqnet.data.columns import Column, Layout, RowColumn, StepColumn
from seqnet.data.out_of_core import Rows, is_out_of_core
from seqnet.data.padding import pad_sequences, range_weights
from seqnet.data.spec import InputSpec, OutputSpec
from seqnet.data.validation import (
    as_array,
    as_mask,
    check_counted,
    check_lengths,
    check_rectangular,
    check_same_length,
    check_weights,
    described,
    is_ragged,
    scalar_steps,
    size_of,
    steps_like,
)
from seqnet.layers import CRF, Activation, Dense, SampledSoftmax, Softmax, TimeDistributed
from seqnet.losses import CRFLoss, Loss, SequenceLoss
from seqnet.losses.targets import aligned
from seqnet.metrics import MeanMetricWrapper


class InputNames(NamedTuple):
    """What the data of an input is called in messages."""

    x: str
    mask: str
    lengths: str


class OutputNames(NamedTuple):
    """What the data of an output, and the input that it follows, are called in messages."""

    y: str
    weight: str
    x: str


@dataclass(frozen=True)
class InputLeaf:
    """The data of one input.

    Parameters
    ----------
    spec : InputSpec
    names : InputNames
    dtype : str
        The model's float type.
    """

    spec: InputSpec
    names: InputNames
    dtype: str

    def columns(self, x: Any, mask: Any, lengths: Any) -> tuple[Column, Column | None]:
        """Return the inputs and their mask, if they are rectangular or sequences."""
        names = self.names
        if lengths is None and is_ragged(x):
            sequences = StepColumn.of(x, names.x)
            return sequences, None if mask is None else self.mask_of_steps(sequences, mask)
        if lengths is None:
            x = self.with_last_axis(as_array(x, names.x))
        else:
            x, lengths = with_lengths(x, mask, lengths, names)
        if len(x) == 0:
            raise ValueError(f"{names.x} is empty: its shape is {x.shape}.")
        if 0 in x.shape:
            raise ValueError(f"{names.x} has an axis of size 0: its shape is {x.shape}.")
        if lengths is None:
            return RowColumn(x), None if mask is None else self.mask_of_rows(x, mask)
        layout = Layout.of(lengths)
        return StepColumn(x[layout.places(x.shape[1])[1]], layout), None

    def with_last_axis(self, x: np.ndarray) -> np.ndarray:
        """Return an array with or without an axis of one at the end, as the input has it.

        An array (5, 1) for an input (batch, time, 1) stays as it is, because it may be one sample.
        """
        shape = self.spec.shape
        if shape is None or (len(shape) > x.ndim and x.shape[-1] == 1):
            return x
        return aligned(x, shape)

    def mask_of_steps(self, sequences: StepColumn, mask: Any) -> StepColumn:
        """Return the mask of sequences of different lengths."""
        names = self.names
        check_same_length(names.x, range(len(sequences)), names.mask, mask)
        steps = scalar_steps(mask, sequences.layout.lengths, names.mask, names.x)
        sequences.checking(as_mask)(steps, names.mask)
        return replace(sequences, values=as_mask(steps, names.mask))

    def mask_of_rows(self, x: np.ndarray, mask: Any) -> RowColumn:
        """Return the mask of an array."""
        names = self.names
        check_rectangular(x, mask, names.mask, names.x)
        mask = as_mask(mask, names.mask)
        if x.ndim < 2 or mask.shape != x.shape[:2]:
            raise ValueError(
                f"{names.mask} must have the shape (samples, time) of {names.x}, {x.shape[:2]}, "
                f"got {mask.shape}."
            )
        return RowColumn(mask)

    def checked(self, column: Column, mask: Column | None) -> Column:
        """Return the inputs, if the layers and the float type can hold those that count.

        For an input of integers, floats that are whole numbers become integers.
        """

        def check(values: np.ndarray, name: str):
            self.spec.check_input(values, name)
            check_fits(values, name, self.dtype)

        def counted():
            return None if mask is None else mask.values

        values, name = column.values, self.names.x
        if self.spec.dtype == "int32" and values.dtype.kind == "f":
            whole = check_counted(values, column.checking(self.spec.check_whole), name, counted)
            values = whole.astype("int32")
        elif self.spec.dtype == "bool":
            values = as_mask(values, name)
        kept = check_counted(values, column.checking(check), name, counted)
        return column if kept is column.values else replace(column, values=kept)


@dataclass(frozen=True)
class OutputLeaf:
    """The targets and sample weights of one output.

    Parameters
    ----------
    spec : OutputSpec
    names : OutputNames
    dtype : str
        The model's float type.
    who : str
        What has this output: ``"the model"``.
    """

    spec: OutputSpec
    names: OutputNames
    dtype: str
    who: str

    def targets(self, y: Any, x: Column | None, per_step: bool, padded: Shape | None) -> Column:
        """Return the targets as a column, if they fit the input that the output follows.

        Parameters
        ----------
        y
        x : column, optional
            The input that the output follows.
        per_step : bool
            Whether the output has the steps of that input, which is a `StepColumn`.
        padded : tuple, optional
            The (samples, time) of the user's array, if that input was given with lengths.
        """
        name = self.names.y
        if self.has_own_steps:
            return RowColumn(self.padded(y))
        if per_step:
            return self.steps(y, x, name, padded, as_array, steps_like)
        if isinstance(x, StepColumn) and is_ragged(y):
            raise ValueError(
                f"{name} has sequences of different lengths, but {self.who} has one output for "
                "each sequence. For an output at every step, the last recurrent layer needs "
                "return_sequences=True."
            )
        if isinstance(x, RowColumn):
            check_rectangular(x.values, y, name, self.names.x)
        return RowColumn(as_array(y, name))

    @property
    def has_own_steps(self) -> bool:
        """Whether targets are sequences of other lengths than the output."""
        loss = self.spec.loss
        return isinstance(loss, SequenceLoss) and not loss.targets_have_steps

    def padded(self, y: Any) -> np.ndarray:
        """Return targets with lengths of their own as an array, padded with -1."""
        name = self.names.y
        if not is_ragged(y):
            return as_array(y, name)
        for number, labels in enumerate(y):
            row = np.asarray(labels)
            if row.ndim != 1 or (row.size and row.dtype.kind not in "iu"):
                raise ValueError(
                    f"{name}[{number}] must be a sequence of class numbers, got "
                    f"{described(labels)}."
                )
        return pad_sequences(y, padding="post", value=-1)

    def weights(
        self, weight: Any, x: Column | None, per_step: bool, padded: Shape | None
    ) -> Column:
        """Return the sample weights as a column; the parameters are those of `targets`."""
        name = self.names.weight
        if isinstance(x, StepColumn):
            if size_of(weight[0]) is not None:
                if per_step:
                    return self.steps(weight, x, name, padded, check_weights, scalar_steps)
                raise ValueError(
                    f"{name} must have the shape ({len(x)},): {self.who} has one output for "
                    "each sequence."
                )
        elif x is not None:
            check_rectangular(x.values, weight, name, self.names.x)
        weight = as_array(weight, name)
        check_weights(weight, name)
        return RowColumn(weight)

    def at_output(
        self, x: StepColumn, padded: Shape | None
    ) -> tuple[OutputLeaf, StepColumn, Shape | None]:
        """Return the leaf, the column and the padded shape by which steps of targets are checked.

        They are other ones if the output does not have the steps of the input that it follows: a
        convolution with strides has fewer.
        """
        lengths = self.spec.steps(x.layout.lengths)
        if lengths is x.layout.lengths:
            return self, x, padded
        names = self.names._replace(x=f"the output for {self.names.x}")
        if padded is not None:
            padded = (padded[0], int(self.spec.steps(np.array(padded[1:]))[0]))
        return replace(self, names=names), replace(x, layout=Layout.of(lengths)), padded

    def steps(
        self,
        values: Any,
        x: Any,
        name: str,
        padded: Shape | None,
        check: Callable,
        flat: Callable,
    ) -> StepColumn:
        """Return values of the steps of an input as a column."""
        at_end = self.spec.backwards
        if padded is None or is_ragged(values):
            column = StepColumn(flat(values, x.layout.lengths, name, self.names.x), x.layout)
        else:
            values = as_array(values, name)
            if values.shape[:2] != padded:
                raise ValueError(
                    f"{name} must have the (samples, time) of {self.names.x}, {padded}, because "
                    f"{self.who} has an output at each step; got the shape {values.shape}."
                )
            present = x.layout.places(padded[1])[1]
            column = StepColumn(values[present[:, ::-1] if at_end else present], x.layout)
        column.checking(check)(column.values, name)
        return replace(column, at_end=at_end)

    def checked(
        self,
        targets: Column,
        weight: Column | None,
        counted: Callable[[], np.ndarray | None],
        output_shape: Shape,
    ) -> Column:
        """Return the targets, if they and the weights fit the loss, the metrics and the output.

        Parameters
        ----------
        targets, weight : columns
        counted : function
            Returns where targets count; see `check_counted`.
        output_shape : tuple
            The shape of the output; the batch size is None.
        """
        check_last_activation(self.spec)
        # The steps of concatenated sequences have no batch axis.
        ragged = isinstance(targets, StepColumn)
        shape = (None, *output_shape[2:]) if ragged else output_shape
        of_model = self.spec.loss
        wanted = of_model.target_shape(shape) if isinstance(of_model, Loss) else shape
        values = aligned(targets.values, wanted)
        if values is not targets.values:
            targets = replace(targets, values=values)
        losses = [m.fn for m in self.spec.metrics if isinstance(m, MeanMetricWrapper)]
        for loss in [of_model, *losses]:

            def check(values: Any, name: str, loss: Any = loss):
                check_finite(values, name)
                check_fits(values, name, self.dtype)
                if isinstance(loss, Loss):
                    loss.check_targets(values, shape, name)

            ignored: Callable = loss.ignored_target if isinstance(loss, Loss) else np.zeros
            check_all = targets.checking(check)
            kept = check_counted(targets.values, check_all, self.names.y, counted, ignored)
            if kept is not targets.values:
                targets = replace(targets, values=kept)
        if weight is not None:
            self.check_weight(weight, output_shape)
        if isinstance(self.spec.layer, CRF) and isinstance(of_model, CRFLoss):
            check_transitions(self.spec.layer, targets, counted(), self.names.y)
        return targets

    def check_weight(self, weight: Column, output_shape: Shape) -> None:
        """Raise an error if sample weights do not fit the output or the float type."""
        name, values = self.names.weight, weight.values
        if isinstance(weight, RowColumn):
            allowed = {(len(weight),), (len(weight), *output_shape[1:-1])}
            if values.shape not in allowed:
                wanted = " or ".join(str(a) for a in sorted(allowed, key=len))
                raise ValueError(f"{name} must have the shape {wanted}, got {values.shape}.")
        weight.checking(lambda part, label: check_fits(part, label, self.dtype))(values, name)


def check_last_activation(output: OutputSpec) -> None:
    """Raise an error if the last activation does not fit the loss (probabilities or logits)."""
    loss: Any = output.loss
    layer: Any = output.layer
    has_path = isinstance(layer, CRF) and layer.output_mode == "viterbi"
    if has_path and loss is not None and not isinstance(loss, CRFLoss):
        raise ValueError(
            f"The output of layer {layer.display_name!r} (CRF) is the best path, which has no "
            "gradient. Use loss='crf_loss', or CRF(output_mode='marginals')."
        )
    if isinstance(layer, TimeDistributed):
        layer = layer.layer
    if isinstance(layer, (SampledSoftmax, Softmax)):
        name = "softmax"
    elif type(layer) in (Dense, Activation):
        name = layer.activation.__name__
    else:
        return
    if not isinstance(loss, Loss) or not loss.after or (name in loss.after) != loss.from_logits:
        return
    if not registry.is_name("activation", name):  # a custom function
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


def check_transitions(layer: CRF, targets: Column, counted: np.ndarray | None, name: str) -> None:
    """Raise ``ValueError`` if the targets of a `CRF` have transitions that it forbids."""
    tags = targets.values
    if not layer.forbidden or not tags.size:
        return
    if isinstance(targets, StepColumn):
        lengths = targets.layout.lengths
        rows, steps = (
            np.repeat(np.arange(len(lengths)), lengths),
            np.concatenate([np.arange(n) for n in lengths]),
        )
        kept = np.ones(len(rows), bool) if counted is None else counted
        rows, steps, tags = rows[kept], steps[kept], tags[kept]
    else:
        kept = np.ones(tags.shape, bool)
        if counted is not None:
            kept &= counted.reshape(counted.shape + (1,) * (tags.ndim - counted.ndim))
        rows, steps = np.nonzero(kept)
        tags = tags[kept]
    first = np.diff(rows, prepend=-1) != 0
    last = np.diff(rows, append=-1) != 0
    for before, after in layer.forbidden:
        if before == "start":
            wrong = first & (tags == after)
        elif after == "end":
            wrong = last & (tags == before)
        else:
            wrong = ~first & (tags == after) & (np.roll(tags, 1) == before)
        if wrong.any():
            k = int(np.argmax(wrong))
            raise ValueError(
                f"{name}[{rows[k]}] has the transition {(before, after)} at step {steps[k]}, which "
                f"layer {layer.display_name!r} (CRF) forbids. Correct the targets, or leave the "
                "pair out of forbidden."
            )


def rows_of(values: Any, name: str) -> np.ndarray | Rows:
    """Return values as an array, or as `Rows` if they are not in memory."""
    return Rows(values, name) if is_out_of_core(values) else as_array(values, name)


def with_lengths(
    x: Any, mask: Any, lengths: Any, names: InputNames
) -> tuple[np.ndarray | Rows, np.ndarray]:
    """Check `lengths=`; return the inputs (an array or `Rows`) and the lengths as an array."""
    if mask is not None:
        raise ValueError(f"Pass {names.mask} or {names.lengths}, not both.")
    if is_ragged(x):
        raise ValueError(
            f"{names.lengths} needs an array, but {names.x} is a list of sequences, which have "
            "their own lengths."
        )
    x = rows_of(x, names.x)
    return x, check_lengths(x, lengths, names.lengths, names.x)


def labels_and_weights(y: Any, weight: Any, name: str, label: str, input_name: str) -> tuple:
    """Return the targets of `MaskedLoss` as labels, and weights that are 0 outside the ranges.

    The names are those of the targets, of the sample weights, and of the inputs.
    """
    if not isinstance(y, (tuple, list)) or len(y) != 3:
        raise ValueError(
            f"With masked_loss {name} is (labels, codelengths, label_starts), got {described(y)}."
        )
    labels, lengths, starts = y
    lengths, starts = as_array(lengths, f"{name}[1]"), as_array(starts, f"{name}[2]")
    for number, what in ((1, lengths), (2, starts)):
        if what.dtype.kind not in "iu":
            raise TypeError(f"{name}[{number}] must hold integers, got {what.dtype}.")
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
        if size_of(weight) != len(ranges):
            raise ValueError(f"{label} must have one entry for each sequence.")
        rows = weight if is_ragged(weight) else as_array(weight, label)
        for row, inside in enumerate(ranges):
            own = rows[row]
            if np.ndim(own) and np.shape(own) != inside.shape:
                raise ValueError(
                    f"{label}[{row}] has the shape {np.shape(own)}, but {input_name}[{row}] has "
                    f"{len(inside)} steps."
                )
            own = as_array(np.atleast_1d(own), f"{label}[{row}]")
            check_weights(own, f"{label}[{row}]")
            ranges[row] = inside * own
    return labels, ranges if is_ragged(labels) else np.stack(ranges)

"""Build data sets from what users pass.

This is the only module that distinguishes the kinds of data. Invalid data raises an error here,
before anything is compiled; data that is not in memory is checked batch by batch by the same
functions. Values that are masked or have the weight 0 never raise an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from seqnet.common.checks import WrongValueError, preceded
from seqnet.common.types import Shape
from seqnet.data.arrays import ArrayDataset
from seqnet.data.columns import Column, RowColumn, StepColumn
from seqnet.data.dataset import Batch, Dataset, RowDataset
from seqnet.data.leaves import (
    InputLeaf,
    InputNames,
    OutputLeaf,
    OutputNames,
    labels_and_weights,
    rows_of,
    with_lengths,
)
from seqnet.data.masking import counted_targets, mask_at_output
from seqnet.data.named import (
    Named,
    by_name,
    label,
    weights_by_name,
    without_names,
)
from seqnet.data.out_of_core import OutOfCoreDataset, PartRows, StepsMask, is_out_of_core
from seqnet.data.ragged import OutputSteps, RaggedDataset
from seqnet.data.spec import OutputSpec
from seqnet.data.stream import Stream, batch_parts, is_stream, open_stream
from seqnet.data.validation import (
    as_array,
    check_same_count,
    check_same_length,
    described,
    is_ragged,
    size_of,
)
from seqnet.losses import MaskedLoss, SequenceLoss

if TYPE_CHECKING:
    from seqnet.model import Model


@dataclass
class Given:
    """What a user passes, by the names of inputs (or outputs: targets and weights)."""

    inputs: Named
    targets: Named
    weights: Named
    masks: Named
    lengths: Named

    def values(self) -> list:
        """Return all values but the lengths."""
        parts = (self.inputs, self.targets, self.weights, self.masks)
        return [value for part in parts for value in part.values()]


@dataclass
class Columns:
    """The data of a `Given` in memory, and how padding is removed from outputs."""

    inputs: dict[str, Column] = field(default_factory=dict)
    masks: dict[str, Column] = field(default_factory=dict)
    targets: dict[str, Column] = field(default_factory=dict)
    weights: dict[str, Column] = field(default_factory=dict)
    steps: dict[str, OutputSteps] = field(default_factory=dict)

    @property
    def ragged(self) -> list[StepColumn]:
        """The inputs that are sequences of different lengths."""
        return [column for column in self.inputs.values() if isinstance(column, StepColumn)]

    def dataset(
        self, inputs: Sequence[str], outputs: Sequence[str], padded_lengths: tuple
    ) -> ArrayDataset | RaggedDataset:
        """Return a data set of the columns, given the names of the model's inputs and outputs."""
        data = Batch(
            without_names(self.inputs, inputs),
            without_names(self.targets, outputs),
            without_names(self.weights, outputs),
            without_names(self.masks, inputs),
        )
        if self.ragged:
            return RaggedDataset(data, without_names(self.steps, outputs), padded_lengths)
        return ArrayDataset(data.map(attrgetter("values")))


MOST_KINDS = 100
"""The maximum number of kinds of arrays that are remembered as accepted."""


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
        self.input_names, self.output_names = model.input_names, model.output_names
        self.announce, self.targets, self.continues = announce, targets, continues
        self.known_shapes: dict[tuple, dict[str, Shape]] = {}
        self.inputs: dict[str, InputLeaf] = {}
        self.outputs: dict[str, OutputLeaf] = {}

    def dataset(
        self, x: Any, y: Any = None, weight: Any = None, mask: Any = None, lengths: Any = None
    ) -> Dataset:
        """Return the arguments of `Model.fit` as a data set, after checking them.

        Of data that is not in memory, only the first row or the first batch is read now.
        """
        if self.model.is_empty:
            raise ValueError("The model has no layers; add some first.")
        if not self.inputs:
            self.read_specs()
        if weight is None and mask is None and lengths is None:
            accepted = self.arrays_like_before(x, y)
            if accepted is not None:
                return accepted
        if isinstance(x, Dataset) or is_stream(x, self.targets and y is None):
            others = {"y": y, "sample_weight": weight, "mask": mask, "lengths": lengths}
            extra = [f"{self.prefix}{part}" for part, v in others.items() if v is not None]
            if extra:
                raise ValueError(
                    f"{self.name} ({described(x)}) is a stream of batches, so "
                    f"{' and '.join(extra)} cannot be passed as well: each batch is (x, y) or "
                    "(x, y, sample_weight)."
                )
            return self.own_dataset(x) if isinstance(x, Dataset) else self.stream(x)
        if self.targets and y is None and self.needs_targets:
            raise self.missing_targets(x)
        given = self.given(x, y, weight, mask, lengths)
        out_of_core = any(map(is_out_of_core, given.values()))
        self.unpack_masked_losses(given, out_of_core)
        if not self.targets:
            self.mask_lengths(given)
        if out_of_core:
            return self.out_of_core(given)
        if len(self.input_names) == 1:
            (x,), targets = given.inputs.values(), list(given.targets.values())
            refuse_several_inputs(x, targets[0] if targets else None, self.name)
        return self.in_memory(given)

    @property
    def needs_targets(self) -> bool:
        """Whether a loss needs targets, or the losses are not known yet."""
        trained = [leaf.spec.loss for leaf in self.outputs.values() if leaf.spec.loss is not None]
        return not trained or any(getattr(loss, "needs_targets", True) for loss in trained)

    def arrays_like_before(self, x: Any, y: Any) -> ArrayDataset | None:
        """Return two arrays as a data set, if arrays like them were accepted before.

        Then only their values are checked. None if they are others, or if a value is not accepted.
        """
        if type(x) is not np.ndarray or type(y) is not np.ndarray or not len(x) == len(y) > 0:
            return None
        shape = self.model.steps.accepted.get(kind_of(x, y))  # of a model of one input and output
        if shape is None:
            return None
        (leaf,), (output,) = self.inputs.values(), self.outputs.values()
        inputs, targets = RowColumn(x), RowColumn(y)
        try:
            if leaf.checked(inputs, None) is not inputs:
                return None
            if output.checked(targets, None, lambda: None, shape) is not targets:
                return None
        except (ValueError, TypeError):
            return None
        return ArrayDataset(Batch(x, y))

    def missing_targets(self, x: Any) -> ValueError:
        """Return the error for missing targets."""
        hint = " Call it, and pass the generator it returns." if callable(x) else ""
        if isinstance(x, tuple):
            hint = " Pass X and y one after the other, not as a tuple."
        return ValueError(
            f"{self.prefix}y is missing. Only a stream of batches (x, y) goes without it, and "
            f"{self.name} is {described(x)}.{hint}"
        )

    # ---- names

    def given(
        self, x: Any, y: Any = None, weight: Any = None, mask: Any = None, lengths: Any = None
    ) -> Given:
        """Return the parts of the data by the names of inputs and outputs."""
        inputs, outputs, prefix = self.input_names, self.output_names, self.prefix
        if len(inputs) == 1 and self.is_list_of_inputs(x):
            (x,) = x
            y = y[0] if isinstance(y, (list, tuple)) and len(y) == 1 else y
        return Given(
            by_name(x, inputs, self.name, "input"),
            self.targets_by_name(y),
            weights_by_name(weight, outputs, f"{prefix}sample_weight"),
            by_name(mask, inputs, f"{prefix}mask", "input", optional=inputs),
            by_name(lengths, inputs, f"{prefix}lengths", "input", optional=inputs),
        )

    def is_list_of_inputs(self, x: Any) -> bool:
        """Return whether X is a list of the only input, and not a list of one sequence."""
        one = isinstance(x, (list, tuple)) and len(x) == 1 and isinstance(x[0], np.ndarray)
        return one and x[0].ndim == next(iter(self.inputs.values())).spec.rank

    def targets_by_name(self, y: Any) -> Named:
        """Return the targets of the outputs that are trained."""
        names = self.output_names
        trained = [objective.output for objective in self.model.objectives if objective.output]
        untrained = [name for name in names if trained and name not in trained]
        found = by_name(y, names, f"{self.prefix}y", "output", optional=untrained)
        return {name: value for name, value in found.items() if name not in untrained}

    def names_of_input(self, name: str) -> InputNames:
        """Return what the data of an input is called in messages."""
        return InputNames(
            *[
                label(self.prefix + part, name, self.input_names)
                for part in ("X", "mask", "lengths")
            ]
        )

    def read_specs(self) -> None:
        """Set what handles the data of each input and each output.

        It is kept for the next adapter, as long as the model and its objectives are the same.
        """
        model, names = self.model, self.output_names
        state = (model.graph, model.input_shape, model.objectives, names, self.prefix)
        kept = model.steps.leaves
        if kept is not None and all(a is b or a == b for a, b in zip(kept[0], state, strict=True)):
            _, self.inputs, self.outputs = kept
            return
        self.inputs = {
            name: InputLeaf(spec, self.names_of_input(name), model.dtype)
            for name, spec in model.input_specs.items()
        }
        self.outputs = {}
        for name, output in model.output_specs.items():
            follows = self.inputs[output.follows or self.input_names[0]].names.x
            y, weight = [label(self.prefix + part, name, names) for part in ("y", "sample_weight")]
            who = "the model" if len(names) == 1 else f"output {name!r}"
            parts = OutputNames(y, weight, follows)
            self.outputs[name] = OutputLeaf(output, parts, model.dtype, who)
        model.steps.leaves, model.steps.accepted = (state, self.inputs, self.outputs), {}

    def unpack_masked_losses(self, given: Given, out_of_core: bool) -> None:
        """Replace the targets of a `MaskedLoss` by labels and weights."""
        for name, leaf in self.outputs.items():
            if name not in given.targets or not isinstance(leaf.spec.loss, MaskedLoss):
                continue
            if out_of_core:
                raise ValueError(
                    "masked_loss takes arrays, lists and streams. For rows beyond memory use "
                    "sparse_categorical_crossentropy with sample_weight=range_weights(...)."
                )
            y, weight = given.targets[name], given.weights.get(name)
            labels, weights = labels_and_weights(y, weight, *leaf.names)
            given.targets[name], given.weights[name] = labels, weights

    def mask_lengths(self, given: Given) -> None:
        """Replace lengths by masks; the shape of the inputs, and of outputs, is kept."""
        for name, lengths in given.lengths.items():
            x, names = given.inputs[name], self.inputs[name].names
            rows, lengths = with_lengths(x, given.masks.get(name), lengths, names)
            steps = StepsMask(lengths, rows.shape[1])
            given.masks[name] = steps if is_out_of_core(x) else steps[:]
        given.lengths = {}

    # ---- the kinds of data

    def in_memory(self, given: Given) -> ArrayDataset | RaggedDataset:
        """Return arrays and sequences of different lengths as a data set."""
        model = self.model
        columns = self.input_columns(given)
        shapes = {name: column.shape for name, column in columns.inputs.items()}
        output_shapes = self.output_shapes(shapes, given)
        self.add_outputs(columns, given, output_shapes)
        allowed: tuple = ()
        if columns.ragged and model.needs_length:
            lengths = np.concatenate([column.layout.lengths for column in columns.ragged])
            allowed = model.choose_padded_lengths(lengths, self.announce)
        if not columns.targets:
            return columns.dataset(self.input_names, self.output_names, allowed)
        if model.optimizer is None or model.loss is None:
            model.complete_compile(
                columns.dataset(self.input_names, self.output_names, allowed), self.announce
            )
            self.read_specs()  # with the loss
        self.check_outputs(columns, output_shapes)
        dataset = columns.dataset(self.input_names, self.output_names, allowed)
        self.read_specs()  # of the built model
        single = len(given.values()) == 2 and len(self.inputs) == len(self.outputs) == 1
        if single and isinstance(dataset, ArrayDataset):
            (x,), (y,) = given.inputs.values(), given.targets.values()
            (output,), accepted = self.outputs.values(), model.steps.accepted
            same = dataset.data.inputs is x and dataset.data.targets is y
            if same and not output.has_own_steps and len(accepted) < MOST_KINDS:
                (accepted[kind_of(x, y)],) = output_shapes.values()
        return dataset

    def input_columns(self, given: Given) -> Columns:
        """Return the inputs and masks, after checking them."""
        columns, leaves = Columns(), self.inputs
        for name, leaf in leaves.items():
            x, mask, lengths = given.inputs[name], given.masks.get(name), given.lengths.get(name)
            columns.inputs[name], found = leaf.columns(x, mask, lengths)
            if found is not None:
                columns.masks[name] = found
        self.check_counts(columns, given)
        self.check_aligned(columns)
        for name, leaf in leaves.items():
            columns.inputs[name] = leaf.checked(columns.inputs[name], columns.masks.get(name))
        return columns

    def add_outputs(self, columns: Columns, given: Given, output_shapes: dict[str, Shape]) -> None:
        """Add targets and sample weights, if they fit the inputs."""
        for name, leaf in self.outputs.items():
            spec, x, padded = leaf.spec, None, None
            if spec.follows is not None:
                x = columns.inputs[spec.follows]
                if spec.follows in given.lengths:
                    padded = np.shape(given.inputs[spec.follows])[:2]
            per_step = isinstance(x, StepColumn) and spec.has_steps(x.shape, output_shapes[name])
            if per_step and spec.joined:
                raise ValueError(
                    f"The output {name!r} has the steps of several inputs one after the other, so "
                    "sequences of different lengths would have padding between them. Pass arrays "
                    "and masks, or use a layer that returns one output for each sequence."
                )
            of = spec.follows if per_step else None
            columns.steps[name] = OutputSteps(of, spec.backwards, spec.steps)
            per_step = per_step and not leaf.has_own_steps
            if per_step and name in given.targets:
                leaf, x, padded = leaf.at_output(cast(StepColumn, x), padded)
            if name in given.targets:
                columns.targets[name] = leaf.targets(given.targets[name], x, per_step, padded)
            if given.weights.get(name) is not None:
                columns.weights[name] = leaf.weights(given.weights[name], x, per_step, padded)

    def check_outputs(self, columns: Columns, output_shapes: dict[str, Shape]) -> None:
        """Check the values of targets and sample weights where they count."""
        for name, leaf in self.outputs.items():
            if name not in columns.targets:
                continue
            spec, shape = leaf.spec, output_shapes[name]
            targets, weight = columns.targets[name], columns.weights.get(name)

            def counted(
                spec: Any = spec, shape: Any = shape, targets: Any = targets, weight: Any = weight
            ) -> np.ndarray | None:
                mask, x = None, columns.inputs.get(spec.follows)
                ragged = isinstance(x, StepColumn) and isinstance(targets, StepColumn)
                own = isinstance(spec.loss, SequenceLoss) and not spec.loss.targets_have_steps
                if own or (ragged and cast(StepColumn, x).layout is not targets.layout):
                    x = None  # the targets do not have the steps of the input
                if x is not None and spec.has_steps(x.shape, shape):
                    given = columns.masks.get(spec.follows)
                    mask = mask_at_output(spec, self.inputs[spec.follows].spec, x, given)
                return counted_targets(targets, weight, mask, spec.backwards)

            columns.targets[name] = leaf.checked(targets, weight, counted, shape)
            if leaf.has_own_steps:
                steps = self.known_steps(columns, spec, shape)
                if steps is not None:
                    spec.loss.check_steps(columns.targets[name].values, steps, leaf.names.y)

    def known_steps(self, columns: Columns, spec: OutputSpec, shape: Shape) -> np.ndarray | None:
        """Return the number of steps of each sequence at an output (samples,), or an upper bound.

        None if it is not known without computing.
        """
        x = None if spec.follows is None else columns.inputs[spec.follows]
        if x is None or spec.follows is None:
            return None
        follows = spec.has_steps(x.shape, shape)
        mask = None
        if follows:
            given = columns.masks.get(spec.follows)
            mask = mask_at_output(spec, self.inputs[spec.follows].spec, x, given)
        if not isinstance(x, StepColumn):
            if mask is not None and mask.ndim == 2:
                return mask.sum(axis=1)
            return None if shape[1] is None else np.full(len(x), shape[1])
        lengths = x.layout.lengths
        if not follows or len(columns.inputs) > 1:
            return None
        longest = (None, int(lengths.max()), *x.shape[2:])
        if self.model.compute_output_shape(longest)[1] != longest[1]:
            return None  # a layer such as a convolution changes the number of steps
        if mask is None or mask.ndim != 1:
            return lengths
        return np.add.reduceat(mask.astype("int64"), np.cumsum(lengths) - lengths)

    def check_counts(self, columns: Columns, given: Given) -> None:
        """Raise an error if parts of the data do not have the same number of samples."""
        rows = {  # a list of sequences has no shape
            name: range(len(c)) if isinstance(c, StepColumn) else c.values
            for name, c in columns.inputs.items()
        }
        first = next(iter(rows))
        x, count = self.inputs[first].names.x, rows.pop(first)
        for name, other in rows.items():
            check_same_count(x, count, self.inputs[name].names.x, other)
        names = self.output_names
        for part, values in (("y", given.targets), ("sample_weight", given.weights)):
            for name, value in values.items():
                text = label(self.prefix + part, name, names)
                if value is None:
                    continue
                if size_of(value) is None and not columns.ragged:
                    value = as_array(value, text)
                check_same_length(x, count, text, value)

    def check_aligned(self, columns: Columns) -> None:
        """Raise an error if sequences whose steps meet one by one have different lengths."""
        if not columns.ragged:
            return  # the layers check the shapes of arrays
        for names in self.model.aligned_inputs:
            lengths = {name: steps_of(columns.inputs[name]) for name in names}
            first, *others = [name for name in names if (lengths[name] != 1).any()] or names
            for name in others:
                differ = lengths[first] != lengths[name]
                if differ.any():
                    row = int(np.argmax(differ))
                    has = " and ".join(
                        f"{self.inputs[n].names.x}[{row}] has {lengths[n][row]} steps"
                        for n in (first, name)
                    )
                    raise ValueError(
                        f"The inputs {first!r} and {name!r} meet step by step in the model, so "
                        f"they must have the same lengths; {has}."
                    )

    def out_of_core(self, given: Given) -> OutOfCoreDataset:
        """Return rows outside memory as a data set; only the first row is read now."""
        inputs, masks = {}, dict(given.masks)
        for name, x in given.inputs.items():
            names = self.inputs[name].names
            if is_ragged(x):
                raise ValueError(
                    f"{names.x} is a list of sequences, so all other parts of the data must also "
                    "be lists or arrays in memory."
                )
            if name in given.lengths:
                x, lengths = with_lengths(x, masks.get(name), given.lengths[name], names)
                masks[name] = StepsMask(lengths, x.shape[1])
            inputs[name] = rows_of(x, names.x)
        ins, outs = self.input_names, self.output_names
        (first, x), *others = inputs.items()
        x_name = self.inputs[first].names.x
        for name, rows in others:
            check_same_count(x_name, x, self.inputs[name].names.x, rows)
        parts = [without_names(inputs, ins)]
        for part, values, keys in (
            ("y", given.targets, outs),
            ("sample_weight", given.weights, outs),
            ("mask", masks, ins),
        ):
            found = {}
            for name, value in values.items():
                text = label(self.prefix + part, name, keys)
                found[name] = rows_of(value, text)
                check_same_count(x_name, x, text, found[name])
            parts.append(without_names(found, keys))
        return self.read_rows(PartRows(Batch(*parts)))

    def own_dataset(self, dataset: Dataset) -> Dataset:
        """Return a custom data set with a check of each batch; the first batch is read now."""
        if isinstance(dataset, RowDataset):
            return self.read_rows(dataset)
        self.check_own(dataset.first_batch(1))
        return dataset.map(self.check_own)

    def read_rows(self, rows: RowDataset) -> OutOfCoreDataset:
        """Return samples that are read by number, with a check of each batch."""
        try:
            self.check_own(rows.load(slice(0, 1)))
        except WrongValueError:
            raise  # it already names the place
        except (ValueError, TypeError) as error:
            raise preceded(error, "Row 0") from error
        return OutOfCoreDataset(rows, self.check_own)

    def check_own(self, batch: Batch) -> Batch:
        """Return a batch of a custom data set, without targets if they are not needed."""
        if not isinstance(batch, Batch):
            raise TypeError(
                f"a data set must return objects of seqnet.data.Batch, got {described(batch)}."
            )
        if not self.targets:
            batch = Batch(batch.inputs, mask=batch.mask)
        elif batch.targets is None and self.needs_targets:
            raise ValueError(f"a batch of {self.name} has no targets.")
        given = self.given(*batch.parts())
        for name, x in given.inputs.items():
            given.inputs[name] = as_array(x, self.inputs[name].names.x)
        return self.in_memory(given).as_batch()

    def stream(self, source: Any) -> Stream:
        """Return a stream of batches; the first batch is read and checked now."""
        first = Adapter(
            self.model, prefix=self.prefix, announce=self.announce, targets=self.targets
        )

        def prepare(raw: Any) -> Dataset:
            parts = batch_parts(raw, self.targets, self.model)
            found = first.dataset(*parts)
            self.model.check_batch(len(found))  # type: ignore[arg-type]
            return found

        stream = open_stream(source, prepare, self.name, self.continues)
        try:
            stream.first()
        except BaseException:
            stream.close()
            raise
        first.announce = False
        return stream

    # ---- the model

    def output_shapes(self, shapes: dict[str, Shape], given: Given) -> dict[str, Shape]:
        """Return the shapes of the outputs for shapes of the inputs; the batch size is None.

        The first data of a shape also builds the model, or is checked against it.
        """
        key = tuple(shapes.values())
        if key not in self.known_shapes:
            model = self.model
            self.build(shapes, given)
            found = model.compute_output_shape(without_names(shapes, self.input_names))
            leaves = model.signature.outputs.leaves(found)
            named = zip(self.output_names, leaves, strict=True)
            self.known_shapes[key] = {name: (None, *shape[1:]) for name, shape in named}
        return self.known_shapes[key]

    def build(self, shapes: dict[str, Shape], given: Given) -> None:
        """Build the model, or check that the data fits it; detect a missing batch axis."""
        model = self.model
        try:
            model.build(without_names(shapes, self.input_names))
        except ValueError as error:
            for name, spec in model.input_specs.items():
                if is_ragged(given.inputs[name]) or name in given.lengths:
                    continue
                shape, x = np.shape(given.inputs[name]), self.inputs[name].names.x
                if len(shape) in (1, spec.rank - 1):
                    text = (
                        f"{x} has the shape {shape}, one axis less than the model takes (the "
                        f"first is the batch: a single sample is {x}[None])"
                    )
                    raise preceded(error, text) from error
            raise


def steps_of(column: Column) -> np.ndarray:
    """Return the number of steps of each sample of an input."""
    if isinstance(column, StepColumn):
        return column.layout.lengths
    return np.full(len(column), column.values.shape[1])


def kind_of(x: np.ndarray, y: np.ndarray) -> tuple:
    """Return what decides whether arrays are accepted, apart from their values."""
    return (x.dtype, x.shape[1:], y.dtype, y.shape[1:])


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
            f"{name} is a list of text and numbers, but the model has one input: convert the text "
            "to numbers, such as with seqnet.text.CharacterVocabulary, and join both along the "
            "features, or use a model with several inputs."
        )
    if not all(isinstance(v, np.ndarray) for v in x):
        return
    count = size_of(y)
    rows = {size_of(v) for v in x}
    if len({v.ndim for v in x}) > 1 or (len(x) > 1 and count != len(x) and rows == {count}):
        shapes = ", ".join(str(v.shape) for v in x)
        raise ValueError(
            f"{name} is a list of {len(x)} arrays of the shapes {shapes}, but the model has one "
            f"input: join several along the features, such as with np.concatenate({name}, "
            "axis=-1), or use a model with several inputs."
        )


def holds_text(values: Any) -> bool:
    """Return whether a value is text, or a list or an array that begins with text."""
    while isinstance(values, (list, tuple)) or (isinstance(values, np.ndarray) and values.ndim):
        if not len(values):
            return False
        values = values[0]
    return isinstance(values, (str, bytes))

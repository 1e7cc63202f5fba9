"""The compiled steps of a model: train, test and predict, from a batch to a result.

The layers pass (value, mask) from one to the next; the loss gives a value for each sample or step;
values are weighted by sample weights and mask; the optimizer's updates happen inside the same
compiled call. Sums come back, never means, so that the logs of an epoch are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pytensor
import pytensor.tensor as pt

from seqnet import backend, config
from seqnet.common.hyperparameters import version
from seqnet.common.locking import COMPILING, compiling
from seqnet.common.types import Array, Tensor
from seqnet.data.dataset import PART_NAMES, Batch, Dataset, tree_items
from seqnet.data.resident import ResidentDataset, Selection
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.layers.recurrent import Loop
from seqnet.layers.states import layers_in_time
from seqnet.ops.count import Count
from seqnet.ops.lookup import SumRows
from seqnet.optimizers.optimizer import set_rows
from seqnet.regularizers import penalty as penalty_of
from seqnet.training.announcing import announced
from seqnet.training.results import PredictResult, TestResult, TrainResult, sums_of

if TYPE_CHECKING:
    from seqnet.model import Model

States = dict[Layer, list]
"""Symbolic states (batch, units) to start from, by recurrent layer."""


# ---- a batch as arrays and as variables


class ArrayType(NamedTuple):
    """The specification of an array of a compiled function."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


def arguments(
    batch: Batch, float_dtype: str, fixed_length: bool, fixed_sizes: bool
) -> tuple[list[Array], tuple[ArrayType, ...]]:
    """Return the arrays of a batch as compiled functions take them, and the types of these.

    Parameters
    ----------
    batch : Batch
    float_dtype : str
        The model's; integers are int32.
    fixed_length : bool
        Whether a function is for one number of steps: for models that unroll.
    fixed_sizes : bool
        Whether it is for one shape of all arrays: for backends that need them.

    Returns
    -------
    list of array, tuple of ArrayType
        One function is compiled for each tuple of types.
    """
    arrays, types = [], []
    parts = (batch.inputs, batch.targets, batch.sample_weight, batch.mask)
    for part, tree in zip(PART_NAMES, parts, strict=True):
        if tree is None:
            continue
        items = tree_items(tree, part) if isinstance(tree, dict) else ((part, tree),)
        for name, array in items:
            dtype = float_dtype
            if part == "mask":
                dtype = "bool"
            elif part != "sample_weight" and array.dtype.kind in "iub":
                dtype = "int32"
            ndim = array.ndim
            shape: tuple[int | None, ...] = (None,) * ndim
            if fixed_sizes:
                shape = array.shape
            elif fixed_length and part == "X" and ndim > 1:
                # All axes before the features are steps, and integers have no features.
                features = ndim - (ndim > 2 and array.dtype.kind == "f")
                shape = (None, *array.shape[1:features], *(None,) * (ndim - features))
            arrays.append(np.ascontiguousarray(array, dtype=dtype))
            types.append(ArrayType(name, dtype, shape))
    return arrays, tuple(types)


def symbolic_batch(batch: Batch, types: tuple[ArrayType, ...]) -> Batch:
    """Return a batch of variables of some types, with the structure of a batch of arrays."""
    variables = iter([pt.tensor(t.name, dtype=t.dtype, shape=t.shape) for t in types])
    return batch.map(lambda array: next(variables))


class SelectedBatch(Batch):
    """A batch of variables that are rows of shared variables; `leaves` is what selects them."""

    __slots__ = ("rows",)
    rows: list[Tensor]

    def leaves(self) -> list:
        """Return the row numbers, if there are any."""
        return self.rows


def symbolic_selection(selection: Selection) -> SelectedBatch:
    """Return the variables of a selection: those of all samples, or rows of these."""
    rows: list[Tensor] = []
    data = selection.data
    if selection.rows is not None:
        size = len(selection) if backend.needs_sizes() else None
        rows = [pt.tensor("rows", dtype="int64", shape=(size,))]
        data = data.map(lambda variable: variable[rows[0]])
    batch = SelectedBatch(*data.parts())
    batch.rows = rows
    return batch


def recurrent_layers(layers: Iterable) -> list[Loop]:
    """Return the layers whose states a step can be given, those within other layers too."""
    return [layer for layer in layers_in_time(layers) if isinstance(layer, Loop)]


def symbolic_states(layers: Iterable) -> States:
    """Return variables for the states that a step starts from, each (batch, units)."""
    return {
        layer: [pt.matrix(name, dtype=layer.dtype) for name in layer.state_names]
        for layer in recurrent_layers(layers)
    }


def first_states(layers: Iterable, batch: int) -> list[np.ndarray]:
    """Return the states before the first step, in `symbolic_states`'s order: zeros or learned."""
    return [state for layer in recurrent_layers(layers) for state in layer.get_initial_state(batch)]


# ---- graphs


def new_phase(run: str, states: States) -> CallContext:
    """Return a new pass through the layers that starts from states."""
    return CallContext(training=run == "train", run=run, initial_states=dict(states))


def compile_step(
    batch: Batch,
    states: States,
    outputs: list,
    context: CallContext,
    name: str,
    further: Sequence = (),
) -> Callable:
    """Compile a function of a batch, states and further variables."""
    given = [*further, *[state for values in states.values() for state in values]]
    last = last_states(states, context)
    return backend.compile([*batch.leaves(), *given], [*outputs, *last], context.updates, name=name)


def last_states(states: States, context: CallContext) -> list[Tensor]:
    """Return the states after the last step, in the order of the states that are given."""
    for layer in states:
        if layer not in context.final_states:
            raise ValueError(
                f"The states of layer {layer.display_name!r} cannot be carried: the layer that "
                "holds it does not pass its context on, self.layer(inputs, context=context)."
            )
    return [state for layer in states for state in context.final_states[layer]]


def compile_predict(
    model: Model, batch: Batch, states: States, name: str = "prediction"
) -> Callable:
    """Compile ``batch, states... -> outputs..., last states...``."""
    context = new_phase("predict", states)
    outputs, _ = model.forward(batch.inputs, batch.mask, context)
    outputs = list(outputs.values()) if isinstance(outputs, dict) else [outputs]
    return compile_step(batch, states, outputs, context, name)


def compile_test(model: Model, batch: Batch, states: States) -> Callable:
    """Compile ``batch, states... -> sums..., last states...``; see `TestResult`."""
    context = new_phase("test", states)
    sums, *_ = loss_sums(model, batch, context)
    return compile_step(batch, states, sums, context, "evaluation")


def trained_weights(model: Model) -> list:
    """Return the weights that are trained."""
    return [w for w, on in zip(model.weights, model.trained, strict=True) if on]


def compile_train(model: Model, batch: Batch, states: States) -> Callable:
    """Compile ``batch, states... -> sums..., squared norms, last states...`` and the update."""
    context = new_phase("train", states)
    sums, total, over = loss_sums(model, batch, context)
    weights = trained_weights(model)
    squares = pt.zeros(0, "float64")
    if weights:
        rows = backend.native() is not None
        gradients = model.optimizer.gradients(total, weights, over, sparse_rows=rows)
        updates, squares = model.optimizer.descend(gradients), gradients.squares
        context.updates = updates | context.updates
    return compile_step(batch, states, [*sums, squares], context, "training")


class Whole(NamedTuple):
    """Variables for what a part of a batch needs to know of the whole batch.

    Attributes
    ----------
    start : int64 scalar
        The number of the first row of the part.
    rows, total : int64 scalars
        The rows of the part and of the batch.
    overs : float64 vector (objectives,)
        What the sum of each objective is divided by.
    """

    start: Tensor
    rows: Tensor
    total: Tensor
    overs: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Whole:
        """Return variables for a symbolic part."""
        start, total = pt.lscalar("start"), pt.lscalar("total")
        return cls(start, batch.leaves()[0].shape[0], total, pt.dvector("overs"))

    @property
    def share(self) -> tuple[Tensor, Tensor, Tensor]:
        """The rows of the part, for `CallContext.share`."""
        return self.start, self.rows, self.total

    @property
    def given(self) -> list[Tensor]:
        """What a function of a part takes in addition."""
        return [self.start, self.total, self.overs]


def weight_penalties(model: Model) -> dict[tuple, Tensor]:
    """Return the penalties of weights, by (regularizer, weight): of shared ones, each once."""
    pairs = dict.fromkeys(pair for layer in model.layers for pair in layer.penalties)
    return {pair: penalty_of(*pair) for pair in pairs}


RUN_FUNCTIONS = {"train": compile_train, "test": compile_test, "predict": compile_predict}
"""The functions by run."""


def loss_sums(
    model: Model, batch: Batch, context: CallContext, whole: Whole | None = None
) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """Return the sums of a batch (see `seqnet.training.objectives`), and what to minimise.

    With one objective that is a sum, and the weight to divide it by.

    Parameters
    ----------
    model : Model
    batch : Batch
        Of variables.
    context : CallContext
    whole : Whole, optional
        The batch that this one is a part of. What to minimise is then the part's share of it,
        without the penalties of weights, which do not depend on the part.
    """
    outputs, masks = model.forward(batch.inputs, batch.mask, context)
    objectives = model.objectives
    single = len(objectives) == 1
    sums: list[Tensor] = []
    means: list[Tensor] = []
    for number, objective in enumerate(objectives):
        output = outputs[objective.output] if objective.output else outputs
        mask = masks[objective.output] if objective.output else masks
        y, weight = [
            part.get(objective.output) if isinstance(part, dict) else part
            for part in (batch.targets, batch.sample_weight)
        ]
        found, over = objective.graph(y, output, weight, mask, whole is None)
        sums += found
        if whole is not None:
            over = pt.cast(whole.overs[number], found[0].dtype)
        means.append(objective.weighted(found[0] if single else found[0] / over))
    dtype = means[0].dtype
    penalties = [*weight_penalties(model).values(), *context.losses]
    zero = pt.zeros((), dtype=dtype)
    penalty = added = sum([pt.cast(p, dtype) for p in penalties], zero)
    if whole is not None:  # a loss that a layer adds is a mean over examples
        share = pt.cast(whole.rows, dtype) / pt.cast(whole.total, dtype)
        penalties = context.losses
        added = sum([pt.cast(p, dtype) * share for p in penalties], zero)
    total = sum(means[1:], means[0])
    if penalties:
        total = total + added * over if single else total + added
    return [penalty, *sums], total, over if single else None


# ---- a batch in parts: gradients of each part, and an update for their sum


class GradientStep(NamedTuple):
    """The compiled step of a part of a batch, which changes no weight.

    Attributes
    ----------
    function : function
        ``batch, start, total, overs, states... -> sums..., gradients..., last states...``. The
        gradient of a table of which some rows were looked up is the numbers of these rows, and
        their gradients.
    sparse : tuple of bool
        Which gradients are such rows, one for each trained weight.
    heights : tuple of int
        The rows of each of these tables.
    needs_overs : bool
        Whether the gradient depends on `Whole.overs`. If not, it is divided in the end.
    """

    function: Callable
    sparse: tuple[bool, ...]
    heights: tuple[int, ...]
    needs_overs: bool


def compile_gradient(model: Model, batch: Batch, states: States) -> GradientStep:
    """Compile the step of a part of a batch."""
    context, whole = new_phase("train", states), Whole.of(batch)
    context.share = whole.share
    sums, total, _ = loss_sums(model, batch, context, whole)
    check_separable(model, context)
    weights = trained_weights(model)
    values: list[Tensor] = []
    ids: list[Tensor | None] = []
    if weights:
        tables = [backend.native() is not None] * len(weights)
        values, ids = model.optimizer.sums(total, weights, tables)
    found = [v for pair in zip(ids, values, strict=True) for v in pair if v is not None]
    means = [objective for objective in model.objectives if objective.reduction != "sum"]
    function = compile_step(batch, states, [*sums, *found], context, "training", whole.given)
    needs_overs = bool(means) and (len(model.objectives) > 1 or bool(context.losses))
    sparse = tuple(i is not None for i in ids)
    looked_up = [w for w, by_row in zip(weights, sparse, strict=True) if by_row]
    heights = tuple(len(table.get_value(borrow=True)) for table in looked_up)
    return GradientStep(function, sparse, heights, needs_overs)


def check_separable(model: Model, context: CallContext) -> None:
    """Raise ``ValueError`` if a layer computes something of a whole batch."""
    for layer in model.layers:
        assigned = [weight.name for weight in layer.weights if weight in context.updates]
        if assigned:
            raise ValueError(
                f"Layer {layer.display_name!r} computes {assigned[0]} from a whole batch, so a "
                "batch cannot be computed in parts: with accumulate, or by several processes. "
                "LayerNormalization and GroupNormalization treat each row alone."
            )


def compile_weights(model: Model, batch: Batch, states: States) -> Callable:
    """Compile ``batch -> the weight of each objective``, as far as possible without outputs."""
    context = new_phase("train", states)
    sums, *_ = loss_sums(model, batch, context)
    found = [sums[start] for start in model.objectives.starts]  # sums has no number of examples
    counted = [
        pt.cast(w.owner.inputs[0].size, w.dtype)  # of the shape alone
        if w.owner is not None and isinstance(w.owner.op, Count)
        else w
        for w in found
    ]
    return backend.compile(batch.leaves(), counted, name="weights of the loss")


def compile_test_part(model: Model, batch: Batch, states: States) -> Callable:
    """Compile the function of `compile_test` for a part of a batch."""
    context, whole = new_phase("test", states), Whole.of(batch)
    sums, *_ = loss_sums(model, batch, context, whole)
    return compile_step(batch, states, sums, context, "evaluation")


def compile_update(model: Model, sparse: Sequence[bool]) -> Callable:
    """Compile ``over, gradients... -> squared norms`` and the update.

    The gradients are those of `GradientStep`, added up; they are divided by `over`. Those of a
    table are the rows of all parts, one after another.
    """
    weights, over = trained_weights(model), pt.dscalar("over")
    values: list[Tensor] = []
    ids: list[Tensor | None] = []
    for weight, by_row in zip(weights, sparse, strict=True):
        shape = (None, *weight.type.shape[1:]) if by_row else weight.type.shape
        values.append(pt.tensor(f"{weight.name}/gradient", dtype=weight.dtype, shape=shape))
        ids.append(pt.lvector(f"{weight.name}/rows") if by_row else None)
    given = [v for pair in zip(ids, values, strict=True) for v in pair if v is not None]
    penalties = weight_penalties(model)
    regularized = [w for w in weights if any(w is weight for _, weight in penalties)]
    for place, (weight, rows) in enumerate(zip(weights, ids, strict=True)):
        if rows is None:
            continue
        ids[place], values[place] = unique, summed = cast(list, SumRows()(values[place], rows))
        if weight in regularized or not model.optimizer.updates_rows(weight):
            ids[place], values[place] = None, set_rows(pt.zeros_like(weight), unique, summed)
    if regularized:
        of_weights = [p for (_, w), p in penalties.items() if w in regularized]
        total = sum([pt.cast(p, model.dtype) for p in of_weights], pt.zeros((), model.dtype))
        found = dict(zip(regularized, cast(list, pytensor.grad(total, regularized)), strict=True))
        values = [
            v + pt.cast(over, v.dtype) * pt.cast(found[w], v.dtype) if w in found else v
            for w, v in zip(weights, values, strict=True)
        ]
    gradients = model.optimizer.means(weights, values, ids, over)
    updates = model.optimizer.descend(gradients)
    return backend.compile([over, *given], [gradients.squares], updates, name="update")


# ---- compiled functions, one for each kind of batch


FUNCTIONS = {
    compile_train: "training",
    compile_gradient: "training",
    compile_test: "evaluation",
    compile_test_part: "evaluation",
    compile_predict: "prediction",
}
"""What the functions compile, for messages."""


class Structure(NamedTuple):
    """The settings that compiled functions depend on, apart from batches.

    Attributes
    ----------
    layers : tuple
        `Layer.structure` of each.
    trained : tuple of bool
        Which of the model's weights are trained.
    optimizer : tuple
        `Optimizer.structure`.
    """

    layers: tuple
    trained: tuple[bool, ...]
    optimizer: tuple


class CompiledSteps:
    """The compiled steps of a model: one function is kept for each kind of batch.

    One thread at a time runs one, because a compiled function keeps its inputs and intermediate
    results in its own storage, and an update overwrites weights.

    Parameters
    ----------
    model : Model
        Built, and for `train` and `test` with a loss.
    """

    def __init__(self, model: Model):
        self.model = model
        self.functions: dict[tuple, Any] = {}
        self.updates: dict[tuple, Callable] = {}  # of weights, see `compile_update`
        self.stepping: dict[str, Any] = {}  # see `seqnet.training.stepping`
        self.residents: dict[tuple, list] = {}  # shared variables of data, by kind
        self.leaves: tuple | None = None  # see `seqnet.data.adapters`
        self.accepted: dict[tuple, tuple] = {}  # output shapes, by the kind of arrays
        self._structure: tuple[tuple, Structure] | None = None

    def __getstate__(self) -> dict:
        """Return the state to copy and pickle, without compiled functions."""
        empty: dict[str, Any] = {
            "functions": {},
            "updates": {},
            "stepping": {},
            "residents": {},
            "leaves": None,
            "accepted": {},
            "_structure": None,
        }
        return {"model": self.model, **empty}

    @contextmanager
    def resident(self, dataset: Dataset, run: str) -> Iterator[ResidentDataset]:
        """Keep arrays in shared variables inside the block, for a run; see `Model.fit`.

        A later call with arrays of the same kind uses the same variables and functions.
        """
        data = dataset.as_batch()
        fixed_sizes = backend.needs_sizes()
        arrays, types = arguments(data, self.float_dtype, self.fixed_length, fixed_sizes)
        kind = (*types, run)
        if kind not in self.residents:
            self.residents[kind] = [
                pytensor.shared(a, name=t.name, shape=t.shape, borrow=True)
                for a, t in zip(arrays, types, strict=True)
            ]
        variables = self.residents[kind]
        each = iter(variables)
        try:
            for variable, array in zip(variables, arrays, strict=True):
                backend.put(variable, array)
            yield ResidentDataset(dataset, data.map(lambda _: next(each)), kind)
        finally:
            for variable in variables:  # the variables and the functions remain, without the data
                variable.container.storage[0] = None

    def train(self, batch: Batch | Selection, states: Sequence | None = None) -> TrainResult:
        """Update the weights for a batch.

        Parameters
        ----------
        batch : Batch or Selection
        states : list of array (samples, units), optional
            What recurrent layers start from; then the result has their last states.
        """
        function, arrays, structure = self.function(compile_train, batch, states is not None)
        with self.model.lock:
            outputs = function(*arrays, *(states or ()))
        objectives = self.model.objectives
        values = objectives.number_of_sums - 1
        sums = sums_of(outputs[:values], len(batch))
        over = (cast(float, sums[3]) or 1.0) if len(objectives) == 1 else 1.0  # of a sum
        states, trained = list(outputs[values + 1 :]), structure.trained
        return TrainResult(sums, outputs[values], states, trained, objectives, over)

    def test(
        self, batch: Batch | Selection, states: Sequence | None = None, announce: bool = False
    ) -> TestResult:
        """Compute the loss and the metrics of a batch; for `states` see `train`."""
        function, arrays, _ = self.function(compile_test, batch, states is not None, announce)
        with self.model.lock:
            outputs = function(*arrays, *(states or ()))
        values = self.model.objectives.number_of_sums - 1
        return TestResult(sums_of(outputs[:values], len(batch)), outputs[values:])

    def predict(self, batch: Batch, announce: bool = False) -> PredictResult:
        """Compute the output for a batch."""
        batch = Batch(batch.inputs, mask=batch.mask)
        function, arrays, _ = self.function(compile_predict, batch, announce=announce)
        with self.model.lock:
            return PredictResult(function(*arrays), self.model.output_names)

    def function(
        self,
        compile_it: Callable,
        batch: Batch | Selection,
        with_states: bool = False,
        announce: bool = False,
    ) -> tuple[Any, list[Array], Structure]:
        """Return the function for a batch, compiled if it is the first of its kind.

        Parameters
        ----------
        compile_it : function
            `compile_train`, or another one of this module for a batch.
        batch : Batch or Selection
        with_states : bool
            Whether it takes first states and returns the last ones.
        announce : bool
            Print that it compiles.

        Returns
        -------
        function, list of array, Structure
            What to call, the arrays of the batch to call it with, and what it was compiled for.
        """
        name = config.backend()
        if isinstance(batch, Selection):
            arrays = [] if batch.rows is None else [batch.rows]
            types: tuple = (*batch.kind, backend.needs_sizes() and len(batch), len(arrays))
        else:
            arrays, types = arguments(batch, self.float_dtype, self.fixed_length, name == "jax")
        structure = self.structure()
        trains = compile_it is compile_train or compile_it is compile_gradient
        depends = structure if trains else structure.layers
        key = (compile_it, types, depends, with_states, name)
        function = self.functions.get(key)
        if function is None:
            with compiling():
                function = self.functions.get(key)  # another thread may have compiled it meanwhile
                if function is None:
                    states = symbolic_states(self.model.layers) if with_states else {}
                    if isinstance(batch, Selection):
                        variables: Batch = symbolic_selection(batch)
                    else:
                        variables = symbolic_batch(batch, types)
                    with announced(
                        FUNCTIONS.get(compile_it, ""), announce
                    ):  # kernels are compiled, too
                        function = compile_it(self.model, variables, states)
                    self.functions[key] = function
        return function, arrays, structure

    def update(self, sparse: tuple[bool, ...]) -> Callable:
        """Return the function of `compile_update`, compiled if it is the first of its kind."""
        key = (sparse, self.structure(), config.backend())
        if key not in self.updates:
            with compiling():
                self.updates[key] = compile_update(self.model, sparse)
        return self.updates[key]

    def compiled(self, run: str) -> Callable | None:
        """Return the function of a run that was compiled last, or None."""
        found = [f for key, f in self.functions.items() if key[0] is RUN_FUNCTIONS[run]]
        return found[-1] if found else None

    def structure(self) -> Structure:
        """Return the structure of the model, which is collected only after something was set."""
        model = self.model
        state = (version(), model.optimizer, *model.layers)  # before the structure: see `version`
        known = self._structure  # once, because other threads set it
        if known is not None and known[0] == state:
            return known[1]
        optimizer = () if model.optimizer is None else model.optimizer.structure()
        structure = Structure(model.structure(), model.trained, optimizer)
        self._structure = state, structure
        return structure

    def variables(self, batch: Batch) -> Batch:
        """Return symbolic variables for a batch of arrays."""
        fixed_sizes = config.backend() == "jax"
        _, types = arguments(batch, self.float_dtype, self.fixed_length, fixed_sizes)
        return symbolic_batch(batch, types)

    @cached_property
    def float_dtype(self) -> str:
        """The model's float type."""
        return self.model.dtype

    @cached_property
    def fixed_length(self) -> bool:
        """Whether functions are for one number of steps."""
        return any(layer.needs_length for layer in self.model.layers)

    def forget_lengths(self, lengths: set[int]) -> None:
        """Drop the functions for some numbers of steps."""
        with COMPILING:
            for key in [k for k in self.functions if lengths & set(k[1][0].shape[1:2])]:
                del self.functions[key]

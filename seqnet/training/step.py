"""The compiled steps of a model: train, test and predict, from a batch to a result.

The layers pass (value, mask) from one to the next; the loss gives a value for each sample or step;
values are weighted by sample weights and mask; the optimizer's updates happen inside the same
compiled call. Sums come back, never means, so that the logs of an epoch are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from seqnet import backend, config
from seqnet.data.dataset import PART_NAMES, Batch, tree_items
from seqnet.layers.calling import masks_together
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer
from seqnet.layers.recurrent import Recurrent
from seqnet.locking import COMPILING
from seqnet.losses import Loss, values_function
from seqnet.losses.reduction import step_weights, weighted_sum
from seqnet.ops.count import count
from seqnet.regularizers import penalty as penalty_of
from seqnet.types import Array, Tensor

if TYPE_CHECKING:
    from seqnet.model import Model

States = dict[Layer, list]
"""Symbolic states (batch, units) to start from, by recurrent layer."""


# ---- what a step returns


class TestResult:
    """Sums over a batch.

    Attributes
    ----------
    sums : list of float
        The loss times its weights, the weights, the penalties, and each metric times its weights.
        `Totals` adds them up.
    """

    __slots__ = ("sums",)
    __test__ = False  # not a test, whatever pytest takes its name for

    def __init__(self, outputs: Sequence):
        self.sums = [float(value) for value in outputs]


class PredictResult:
    """A model's output for a batch.

    Attributes
    ----------
    output : array (samples, ...)
    states : list of array (samples, units)
        The last states of recurrent layers, if the step was given first ones.
    """

    __slots__ = ("output", "states")

    def __init__(self, outputs: Sequence):
        self.output, *self.states = outputs


class TrainResult:
    """Sums over a batch before an update of the weights, and the gradient it was made with.

    Attributes
    ----------
    sums : list of float
        As in `TestResult`.
    loss : float
        The mean loss of the batch, penalties included.
    gradient_norms : float64 array
        The L2 norm of the gradient of each trained weight.
    trained : tuple of bool
        Which of the model's weights these belong to.
    joint_norm : float
        The norm of all gradients together.
    finite : bool
        Whether the loss and all gradients are finite.
    states : list of array (samples, units)
        The last states of recurrent layers, if the step was given first ones.
    """

    __slots__ = ("finite", "gradient_norms", "joint_norm", "loss", "states", "sums", "trained")

    def __init__(self, outputs: Sequence, trained: tuple[bool, ...], metrics: int):
        values = 3 + metrics
        self.trained = trained
        self.sums = [float(value) for value in outputs[:values]]
        self.states = outputs[values + 1 :]
        loss_sum, weight_sum, penalty = self.sums[:3]
        over = weight_sum or 1.0
        self.loss = loss_sum / over + penalty
        self.gradient_norms = np.sqrt(outputs[values]) / over
        self.joint_norm = math.sqrt(self.gradient_norms.dot(self.gradient_norms))
        self.finite = math.isfinite(self.loss + self.joint_norm) or (
            math.isfinite(self.loss) and bool(np.isfinite(self.gradient_norms).all())
        )


class Totals:
    """Adds up the sums of train and test steps, and turns them into logs.

    Attributes
    ----------
    sums : list of float
    batches : int
    """

    def __init__(self, metrics: Sequence, *results: Iterable):
        self.metrics = list(metrics)
        self.sums = [0.0] * (3 + len(self.metrics))
        self.batches = 0
        for sums in results:
            self.add(sums)

    def add(self, sums: Iterable[float]) -> None:
        """Add the sums of one batch."""
        self.sums = [total + value for total, value in zip(self.sums, sums, strict=True)]
        self.batches += 1

    def logs(self, prefix: str = "") -> dict[str, float]:
        """Return the means so far by name; 0 where nothing had any weight."""
        loss_sum, weight_sum, penalty, *metric_sums = self.sums
        scale = 1.0 / weight_sum if weight_sum > 0 else 0.0
        logs = {f"{prefix}loss": loss_sum * scale + penalty / max(self.batches, 1)}
        for metric, value in zip(self.metrics, metric_sums, strict=True):
            logs[prefix + metric.name] = metric.finish(value * scale)
        return logs

    def state_dict(self) -> dict:
        """Return the sums so far."""
        return {"sums": list(self.sums), "batches": self.batches}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""
        self.sums, self.batches = list(state["sums"]), state["batches"]


def log_names(metrics: Sequence, validation: bool = False) -> list[str]:
    """Return the names in the logs of an epoch, those of its validation too if it has one."""
    names = ["loss", *(metric.name for metric in metrics)]
    return names + ([f"val_{name}" for name in names] if validation else [])


# ---- a batch as arrays and as variables


class ArrayType(NamedTuple):
    """What a compiled function knows of one of its arrays."""

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
        The model's; whole numbers are int32.
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
        for name, array in () if tree is None else tree_items(tree, part):
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
                # All axes before the features are steps, and whole numbers have no features.
                features = ndim - (ndim > 2 and array.dtype.kind == "f")
                shape = (None, *array.shape[1:features], *(None,) * (ndim - features))
            arrays.append(np.ascontiguousarray(array, dtype=dtype))
            types.append(ArrayType(name, dtype, shape))
    return arrays, tuple(types)


def symbolic_batch(batch: Batch, types: tuple[ArrayType, ...]) -> Batch:
    """Return a batch of variables of some types, with the structure of a batch of arrays."""
    variables = iter([pt.tensor(t.name, dtype=t.dtype, shape=t.shape) for t in types])
    return batch.map(lambda array: next(variables))


def recurrent_layers(layers: Iterable) -> list[Recurrent]:
    """Return the layers whose states a step can be given."""
    return [layer for layer in layers if isinstance(layer, Recurrent)]


def symbolic_states(layers: Iterable) -> States:
    """Return variables for the states that a step starts from, each (batch, units)."""
    return {
        layer: [pt.matrix(name, dtype=layer.dtype) for name in layer.state_names]
        for layer in recurrent_layers(layers)
    }


def first_states(layers: Iterable, batch: int) -> list[np.ndarray]:
    """Return the states before the first step, in `symbolic_states`'s order: zeros or learned."""
    return [state for layer in recurrent_layers(layers) for state in layer.first_states(batch)]


# ---- graphs


def new_phase(run: str, states: States) -> CallContext:
    """Return a new pass through the layers that starts from states."""
    return CallContext(training=run == "train", run=run, initial_states=dict(states))


def compile_step(
    batch: Batch, states: States, outputs: list, context: CallContext, name: str, announce: bool
) -> Callable:
    """Compile a function of a batch and states."""
    given = [state for values in states.values() for state in values]
    last = [state for layer in states for state in context.final_states[layer]]
    return backend.compile(
        [*batch.leaves(), *given], [*outputs, *last], context.updates, name=name, announce=announce
    )


def compile_predict(
    model: Model, batch: Batch, states: States, announce: bool = False, name: str = "prediction"
) -> Callable:
    """Compile ``batch, states... -> output, last states...``."""
    context = new_phase("predict", states)
    output, _ = model.forward(batch.inputs, batch.mask, context)
    return compile_step(batch, states, [output], context, name, announce)


def compile_test(model: Model, batch: Batch, states: States, announce: bool = False) -> Callable:
    """Compile ``batch, states... -> sums..., last states...``; see `TestResult`."""
    context = new_phase("test", states)
    sums, *_ = loss_sums(model, batch, context)
    return compile_step(batch, states, sums, context, "evaluation", announce)


def compile_train(model: Model, batch: Batch, states: States, announce: bool = False) -> Callable:
    """Compile ``batch, states... -> sums..., squared norms, last states...`` and the update."""
    context = new_phase("train", states)
    sums, total, over = loss_sums(model, batch, context)
    weights = [w for w, on in zip(model.weights, model.trained, strict=True) if on]
    squares = pt.zeros(0, "float64")
    if weights:
        rows = backend.native() is not None
        gradients = model.optimizer.gradients(total, weights, over, sparse_rows=rows)
        updates, squares = model.optimizer.descend(gradients), gradients.squares
        context.updates = updates | context.updates
    return compile_step(batch, states, [*sums, squares], context, "training", announce)


def loss_sums(
    model: Model, batch: Batch, context: CallContext
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return [loss sum, weight sum, penalty, metric sums...], and what to minimise.

    That is a sum and the weight to divide it by.
    """
    output, mask = model.forward(batch.inputs, batch.mask, context)
    y, weight, loss = batch.targets, batch.sample_weight, model.loss
    what = f"The loss {name_of(model.loss)!r}"
    reduction = loss.reduction if isinstance(loss, Loss) else "mean"
    if reduction in ("none", None):
        raise ValueError(
            f"{what} has reduction={reduction!r}, which leaves no single number to minimise: in a "
            "model use 'sum', or 'sum_over_batch_size' for the mean."
        )
    values = values_of(values_function(cast(Callable, loss)), y, output, what)
    check_gradient(values, output, what)
    values = pt.cast(values, output.dtype)
    if values.ndim == 0:
        raise ValueError(
            "A loss gives one value for each example or step, (batch,) or (batch, time), and "
            "not one number: leave the averaging to seqnet, which knows masks and weights."
        )
    for name, given in (("mask", mask), ("sample_weight", weight)):
        if given is not None and values.ndim < given.ndim:
            raise ValueError(
                "The outputs at steps are masked or weighted, so the loss must give a value for "
                f"each step, (batch, time); it gives {values.ndim} axes, and the {name} has "
                f"{given.ndim}."
            )
    counted = loss.counted(y) if isinstance(loss, Loss) else None
    if counted is not None:  # the metrics look at class 0 instead of a class that is ignored
        mask, y = masks_together(mask, counted), pt.switch(counted, y, pt.zeros_like(y))
    weights = step_weights(values, weight, mask)
    loss_sum = weighted_sum(values, weights)
    weight_sum = count(values) if weights is None else pt.sum(weights)
    penalties = [penalty_of(r, w) for layer in model.layers for r, w in layer.penalties]
    penalty = pt.zeros((), dtype=values.dtype)
    if penalties:
        penalty = sum(penalties[1:], penalties[0])
    over = weight_sum
    if weights is not None:  # which may all be 0
        one = np.asarray(1, dtype=values.dtype)
        over = pt.switch(pt.gt(weight_sum, 0), weight_sum, one)
    if reduction == "sum":
        loss_sum = loss_sum * over  # which is divided by `over` in the end
    total = loss_sum + penalty * over if penalties else loss_sum
    sums = []
    for metric in model.metrics:
        metric_values = values_of(metric, y, output, f"The metric {metric.name!r}")
        metric_values = pt.cast(metric_values, output.dtype)
        if metric_values.ndim != values.ndim:
            raise ValueError(
                f"The metric {metric.name!r} gives {metric_values.ndim} axes, and the loss "
                f"{values.ndim}: a metric gives one value wherever the loss does, (batch,) or "
                "(batch, time), and leaves the averaging to seqnet."
            )
        sums.append(weighted_sum(metric_values, step_weights(metric_values, weight, mask)))
    return [loss_sum, weight_sum, penalty, *sums], total, over


def name_of(function: object) -> str:
    """Return what a loss is called in messages."""
    return getattr(function, "name", getattr(function, "__name__", type(function).__name__))


def values_of(function: Callable, y_true: Tensor, output: Tensor, what: str) -> Tensor:
    """Return the values of a loss or a metric, perhaps a user's own, as a variable."""
    try:
        values = function(y_true, output)
    except Exception as error:
        error.add_note(
            f"{what} was called with PyTensor variables (y_true, y_pred). It is made of PyTensor's "
            "functions, such as pytensor.tensor.mean; an array to be indexed by a variable is "
            "made one first: pytensor.tensor.as_tensor_variable(array)[y_true]."
        )
        raise
    if not isinstance(values, (Variable, np.ndarray, np.number, int, float)):
        kind = "None: does it end without a return?" if values is None else f"{values!r}."
        raise TypeError(
            f"{what} must return a PyTensor variable, one value for each example or step, but it "
            f"returned {kind}"
        )
    return pt.as_tensor_variable(values)


def check_gradient(values: Tensor, output: Tensor, what: str) -> None:
    """Raise if nothing could be learned from a loss: it has no gradient."""
    kind = np.dtype(values.dtype).kind
    if kind != "f":
        raise TypeError(
            f"{what} gives values of the dtype {values.dtype}, which have no gradient: nothing "
            "can be learned from it. It may be a metric."
        )
    before = [] if output.owner is None else output.owner.inputs  # the logits, of a cross-entropy
    of_output = {output, *before}
    if of_output.isdisjoint(ancestors([values], blockers=of_output)):
        raise ValueError(
            f"{what} does not depend on y_pred, so nothing can be learned from it. A loss is "
            "called as loss(y_true, y_pred)."
        )


# ---- compiled functions, one for each kind of batch


class CompiledSteps:
    """The compiled steps of a model: one function is kept for each kind of batch.

    One thread at a time runs one, because a compiled function keeps its inputs and intermediate
    results in storage of its own, and an update overwrites weights.

    Parameters
    ----------
    model : Model
        Built, and for `train` and `test` with a loss.
    """

    def __init__(self, model: Model):
        self.model = model
        self.functions: dict[tuple, Callable] = {}

    def __getstate__(self) -> dict:
        """Return what is copied and pickled: no compiled functions, which are made anew."""
        return {"model": self.model, "functions": {}}

    def train(self, batch: Batch, states: Sequence | None = None) -> TrainResult:
        """Update the weights for a batch.

        Parameters
        ----------
        batch : Batch
        states : list of array (samples, units), optional
            What recurrent layers start from; then the result has their last states.
        """
        function, arrays, trained = self.train_function(batch, states is not None)
        with self.model.lock:
            outputs = function(*arrays, *(states or ()))
        return TrainResult(outputs, trained, len(self.model.metrics))

    def test(self, batch: Batch, announce: bool = False) -> TestResult:
        """Compute the loss and the metrics of a batch."""
        function, arrays = self.test_function(batch, announce)
        with self.model.lock:
            return TestResult(function(*arrays))

    def predict(self, batch: Batch, announce: bool = False) -> PredictResult:
        """Compute the output for a batch."""
        batch = Batch(batch.inputs, mask=batch.mask)
        function, arrays = self.function(compile_predict, batch, announce=announce)
        with self.model.lock:
            return PredictResult(function(*arrays))

    def train_function(
        self, batch: Batch, with_states: bool = False, announce: bool = False
    ) -> tuple[Callable, list[Array], tuple[bool, ...]]:
        """Return the function for a batch, its arrays, and which weights it trains."""
        trained = self.model.trained
        kind = (with_states, trained, self.model.optimizer.structure())
        return *self.function(compile_train, batch, kind, with_states, announce), trained

    def test_function(self, batch: Batch, announce: bool = False) -> tuple[Callable, list[Array]]:
        """Return the function for a batch, and its arrays."""
        return self.function(compile_test, batch, announce=announce)

    def function(
        self,
        compile_it: Callable,
        batch: Batch,
        kind: tuple = (),
        with_states: bool = False,
        announce: bool = False,
    ) -> tuple[Callable, list[np.ndarray]]:
        """Return the function for a batch, compiled now if it is the first of its kind.

        Parameters
        ----------
        compile_it : function
            `compile_train`, `compile_test` or `compile_predict`.
        batch : Batch
        kind : tuple
            What else a function is compiled for.
        with_states : bool
            Whether it takes first states and returns the last ones.
        announce : bool
            Print that it compiles.

        Returns
        -------
        function, list of array
            What to call, and the arrays of the batch to call it with.
        """
        name = config.backend()
        arrays, types = arguments(batch, self.float_dtype, self.fixed_length, name == "jax")
        structure = tuple([layer.structure() for layer in self.model.layers])
        key = (compile_it, types, kind, structure, name)
        function = self.functions.get(key)
        if function is None:
            with COMPILING:
                function = self.functions.get(key)  # another thread may have compiled it meanwhile
                if function is None:
                    states = symbolic_states(self.model.layers) if with_states else {}
                    variables = symbolic_batch(batch, types)
                    function = compile_it(self.model, variables, states, announce)
                    self.functions[key] = function
        return function, arrays

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

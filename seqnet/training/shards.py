"""Steps of a batch that is cut into shards, which one or several processes compute.

A shard is some rows of a batch. Sums of losses, weights, metrics and gradients are added up over
all shards and divided once, so that the result is that of the whole batch. Shards have the lengths
of the whole batch and draw its random numbers (`CallContext.share`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, cast

import numpy as np

from seqnet import config
from seqnet.common.types import Array
from seqnet.data.dataset import Batch, Place
from seqnet.data.resident import Selection
from seqnet.distributed import World, current
from seqnet.layers.states import carried_states
from seqnet.training.objectives import Objectives, Sum
from seqnet.training.results import PredictResult, TestResult, TrainResult, sums_of
from seqnet.training.step import (
    CompiledSteps,
    compile_gradient,
    compile_predict,
    compile_test,
    compile_test_part,
    compile_train,
    compile_weights,
)

if TYPE_CHECKING:
    from seqnet.model import Model


def own_part(batch: Batch) -> Batch:
    """Return the rows of a batch that this rank computes."""
    return batch if batch.place is not None else batch.part(*current().part(len(batch)))


@dataclass
class Shard:
    """Some rows of a batch, and the states that recurrent layers start from.

    Attributes
    ----------
    batch : Batch
        With its place.
    own : slice
        Where the rows are among those of this rank.
    states : list of array (rows, units)
    """

    batch: Batch
    own: slice
    states: list[Array]

    @property
    def place(self) -> Place:
        """Where the rows are in the whole batch."""
        return cast(Place, self.batch.place)

    @property
    def empty(self) -> bool:
        """Whether there is no row; then the batch is one that only stands for the shapes."""
        return self.place.start == self.place.stop

    def whole(self, overs: Array) -> list[Array]:
        """Return the values of `Whole.given`."""
        start, _, total = self.place
        return [np.asarray(min(start, total - 1)), np.asarray(total), overs]


def shards_of(
    world: World, batch: Batch, states: Sequence | None, accumulate: int = 1
) -> list[Shard]:
    """Return the shards of a batch that this rank computes; an empty one if it has none."""
    batch = own_part(batch)
    start, stop, total = cast(Place, batch.place)
    found = []
    for first, last in world.cuts(total, accumulate) or [(start, stop)]:
        own = slice(first - start, last - start) if last > first else slice(0, 1)
        found.append(Shard(batch.part(first, last), own, [s[own] for s in states or ()]))
    return found


class Flat:
    """Arrays of some shards as one array for each dtype, so that few are exchanged.

    Parameters
    ----------
    arrays : list of array
        Their shapes and dtypes.
    """

    def __init__(self, arrays: Sequence[Array]):
        self.like = list(arrays)
        self.dtypes = list(dict.fromkeys(array.dtype for array in arrays))

    def pack(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the elements of arrays, one new array for each dtype."""
        return [np.concatenate([a.ravel() for a in arrays if a.dtype == d]) for d in self.dtypes]

    def unpack(self, packed: Sequence[Array]) -> list[Array]:
        """Return what `pack` was given."""
        places = dict(zip(self.dtypes, [0] * len(self.dtypes), strict=True))
        by_dtype, found = dict(zip(self.dtypes, packed, strict=True)), []
        for array in self.like:
            at = places[array.dtype]
            places[array.dtype] = at + array.size
            found.append(by_dtype[array.dtype][at : at + array.size].reshape(array.shape))
        return found


def total_of(
    world: World, shards: Sequence[Shard], values: Iterator[list[Array]], purpose: str
) -> list[Array]:
    """Return the sums of arrays over all shards of all ranks.

    Parameters
    ----------
    world : World
    shards : list of Shard
        Those of this rank.
    values : iterator of lists of array
        The arrays of each shard, which are added up as they come.
    purpose : str
        See `World.synchronize`.
    """
    flat = None

    def packed() -> Iterator[list[Array]]:
        nonlocal flat
        for shard, arrays in zip(shards, values, strict=True):
            flat = flat or Flat(arrays)
            found = flat.pack(arrays)
            yield [np.zeros_like(array) for array in found] if shard.empty else found

    sums = world.own_sums(packed())
    world.synchronize(purpose, shards[0].place.total)
    return cast(Flat, flat).unpack(world.total(sums))


class ShardedSteps(CompiledSteps):
    """The compiled steps of a model, for batches that may be cut into shards.

    A batch that is not cut is computed by one call of one compiled function.

    Parameters
    ----------
    model : Model

    Attributes
    ----------
    last_rows : dict
        The rows of the last batch of each run: layers carry states between batches of equal sizes.
    """

    def __init__(self, model: Model):
        super().__init__(model)
        self.last_rows: dict[str, int] = {}

    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "last_rows": {}}

    def train(
        self, batch: Batch | Selection, states: Sequence | None = None, accumulate: int = 1
    ) -> TrainResult:
        """Update the weights for a batch.

        Parameters
        ----------
        batch : Batch or Selection
            A `Selection` is never cut: `FitArguments` refuses `resident` with parts of batches.
        states : list of array (samples, units), optional
            What recurrent layers start from; then the result has their last states.
        accumulate : int
            The number of parts that each process computes one after another.
        """
        world = current()
        if not world.cuts_batches(accumulate):
            return super().train(batch, states)
        refuse_fixed_sizes()
        objectives, stateful = self.model.objectives, states is not None
        count = objectives.number_of_sums
        shards = shards_of(world, cast(Batch, batch), states, accumulate)
        with self.model.lock:
            step, _, structure = self.function(compile_gradient, shards[0].batch, stateful)
            overs = self.overs(world, shards) if step.needs_overs else np.ones(len(objectives))
            rows: list[list[Array]] = []
            last: list[list[Array]] = []
            bad: list[Place] = []

            def values() -> Iterator[list[Array]]:
                for shard in self.each(shards, "train"):
                    step, arrays, _ = self.function(compile_gradient, shard.batch, stateful)
                    outputs = iter(step.function(*arrays, *shard.whole(overs), *shard.states))
                    sums = sums_of(list(islice(outputs, count - 1)), len(arrays[0]))
                    dense, of_tables = gradients_of(outputs, step.sparse)
                    rows.append([table[:0] if shard.empty else table for table in of_tables])
                    last.append(list(outputs))
                    if not math.isfinite(objectives.total_loss(sums)):
                        bad.append(shard.place)
                    yield [*as_arrays(sums), *dense]

            found = total_of(world, shards, values(), "a step of training")
            total = self.whole_sums(found[:count])
            over = float(weights_of(objectives, total)[0]) if len(objectives) == 1 else 1.0
            squares = np.zeros(0)
            if step.sparse:
                tables = [
                    total_rows(world, np.concatenate(parts), height)
                    for height, *parts in zip(step.heights, *rows, strict=True)
                ]
                gradients = in_order(found[count:], tables, step.sparse)
                (squares,) = self.update(step.sparse)(np.asarray(over), *gradients)
        ends = last_states(shards, last)
        result = TrainResult(total, squares, ends, structure.trained, objectives, over)
        if not math.isfinite(result.loss):
            result.where = where_it_is(world, bad)
        return result

    def prepare(
        self, batch: Batch | Selection, with_states: bool, accumulate: int, announce: bool = False
    ) -> None:
        """Compile what trains with a batch."""
        world = current()
        if not world.cuts_batches(accumulate):
            self.function(compile_train, batch, with_states, announce)
            return
        refuse_fixed_sizes()
        batch = own_part(cast(Batch, batch))
        step, *_ = self.function(compile_gradient, batch, with_states, announce)
        if step.sparse:
            self.update(step.sparse)

    def test(
        self, batch: Batch | Selection, states: Sequence | None = None, announce: bool = False
    ) -> TestResult:
        """Compute the loss and the metrics of a batch; for `states` see `train`."""
        world = current()
        if not world.cuts_batches():
            return super().test(batch, states, announce)
        of_sum = any(objective.reduction == "sum" for objective in self.model.objectives)
        compile_it = compile_test_part if of_sum else compile_test
        count = self.model.objectives.number_of_sums
        shards = shards_of(world, cast(Batch, batch), states)
        last: list[list[Array]] = []

        def values() -> Iterator[list[Array]]:
            for shard in self.each(shards, "test"):
                function, arrays, _ = self.function(
                    compile_it, shard.batch, states is not None, announce
                )
                outputs = function(*arrays, *shard.states)
                last.append(outputs[count - 1 :])
                yield as_arrays(sums_of(outputs[: count - 1], len(arrays[0])))

        with self.model.lock:
            total = self.whole_sums(total_of(world, shards, values(), "a step of evaluation"))
        return TestResult(total, last_states(shards, last))

    def predict(self, batch: Batch, announce: bool = False) -> PredictResult:
        """Compute the output for a batch, which all ranks get."""
        world = current()
        if not world.cuts_batches():
            return super().predict(batch, announce)
        shards = shards_of(world, batch, None)
        found: list[list[Array]] = []
        with self.model.lock:
            for shard in self.each(shards, "predict"):
                inputs = Batch(shard.batch.inputs, mask=shard.batch.mask)
                function, arrays, _ = self.function(compile_predict, inputs, announce=announce)
                outputs = function(*arrays)
                found.append([o[:0] for o in outputs] if shard.empty else outputs)
            world.synchronize("a step of prediction", shards[0].place.total)
            whole = [world.joined(np.concatenate(parts)) for parts in zip(*found, strict=True)]
        return PredictResult(whole, self.model.output_names)

    # ---- parts of these

    def each(self, shards: Sequence[Shard], run: str) -> Iterator[Shard]:
        """Yield shards; before each, set its carried states, and its generators to those of all."""
        carried = carried_states(self.model.layers)
        rows = shards[0].place.total
        if self.last_rows.setdefault(run, rows) != rows:
            for one in carried:
                one.reset(run)
        self.last_rows[run] = rows
        if len(shards) == 1:
            yield shards[0]
            return
        layers = self.model.layers if run == "train" else []
        generators = [generator for layer in layers for generator in layer.generators]
        drawn = [generator.get_value() for generator in generators]
        before = [one.get(run) for one in carried]
        after: list[list[list[Array]]] = []
        for number, shard in enumerate(shards):
            if number:
                for generator, value in zip(generators, drawn, strict=True):
                    generator.set_value(value)
            for one, states in zip(carried, before, strict=True):
                one.set([state[shard.own] for state in states], run)
            yield shard
            if not shard.empty:
                after.append([one.get(run) for one in carried])
        for number, one in enumerate(carried if after else ()):
            parts = [of_shard[number] for of_shard in after]
            one.set([np.concatenate(states) for states in zip(*parts, strict=True)], run)

    def overs(self, world: World, shards: Sequence[Shard]) -> Array:
        """Return what the sum of each objective of a batch is divided by."""

        def values() -> Iterator[list[Array]]:
            for shard in shards:
                function, arrays, _ = self.function(compile_weights, shard.batch)
                yield [np.array([float(weight) for weight in function(*arrays)])]

        (weights,) = total_of(world, shards, values(), "the weights of a step of training")
        return divisors(self.model.objectives, weights)

    def whole_sums(self, sums: Sequence[Array]) -> list[Sum]:
        """Return the sums of a whole batch from those that were added up over its shards."""
        total: list[Sum] = [array if array.ndim else float(array) for array in sums]
        objectives = self.model.objectives
        for start, objective in zip(objectives.starts, objectives, strict=True):
            if objective.reduction == "sum":
                total[start] *= total[start + 1] or 1.0  # as the step of a whole batch does
        return total


def where_it_is(world: World, bad: Sequence[Place]) -> str:
    """Say in which rows of a batch the loss is not finite, from the parts of this rank."""
    places = world.gathered(list(bad), "the rows with a loss that is not finite")
    texts = [
        f"rows {place.start} to {place.stop - 1}" + (f" (rank {rank})" if world.size > 1 else "")
        for rank, of_rank in enumerate(places)
        for place in of_rank
        if place.start < place.stop
    ]
    return f"The loss is not finite in {', '.join(texts)} of the batch." if texts else ""


def last_states(shards: Sequence[Shard], states: Sequence[Sequence[Array]]) -> list[Array]:
    """Return the last states of the rows of this rank, from those of each shard."""
    of_rows = [s for shard, s in zip(shards, states, strict=True) if not shard.empty]
    return [np.concatenate(parts) for parts in zip(*(of_rows or states[:1]), strict=True)]


def as_arrays(sums: Sequence[Sum]) -> list[Array]:
    """Return sums as float64 arrays."""
    return [np.asarray(value, dtype="float64") for value in sums]


# ---- gradients: of tables, only the rows that were looked up


def gradients_of(
    outputs: Iterator[Array], sparse: Sequence[bool]
) -> tuple[list[Array], list[Array]]:
    """Return the gradients that a `GradientStep` returns, the whole ones and those of tables.

    The gradient of a table is an array of records: the ``id`` of a row, and the ``row``. So both
    are exchanged together.
    """
    dense, tables = [], []
    for is_sparse in sparse:
        if is_sparse:
            tables.append(records(next(outputs), next(outputs)))
        else:
            dense.append(next(outputs))
    return dense, tables


def records(ids: Array, rows: Array) -> Array:
    """Return the numbers of rows (n,), and the rows (n, width), as an array of n records."""
    found = np.empty(len(ids), dtype=[("id", "int64"), ("row", rows.dtype, rows.shape[1:])])
    found["id"], found["row"] = ids, rows
    return found


def total_rows(world: World, own: Array, height: int) -> Array:
    """Return the gradient of a table of some height, from the records of this rank and of others.

    They are the rows of all ranks, one after another. If these are more than the table has, sums of
    whole tables are exchanged, unless they must not depend on the number of ranks.
    """
    counts = world.counts(len(own))
    if world.shards or sum(counts) <= height or world.size == 1:
        return world.joined(own, counts)
    table = np.zeros((height, *own["row"].shape[1:]), dtype=own["row"].dtype)
    np.add.at(table, own["id"], own["row"])
    (table,) = world.total({(0, 0): [table]})
    return records(np.arange(height), table)


def in_order(
    dense: Sequence[Array], tables: Sequence[Array], sparse: Sequence[bool]
) -> list[Array]:
    """Return gradients in the order of the weights, as `compile_update` takes them."""
    whole, by_row, found = iter(dense), iter(tables), []
    for is_sparse in sparse:
        if is_sparse:
            table = next(by_row)
            found += [table["id"], table["row"]]
        else:
            found.append(next(whole))
    return found


def weights_of(objectives: Objectives, sums: Sequence[Sum]) -> Array:
    """Return what the sum of each objective is divided by, from the sums of a whole batch."""
    weights = np.array([sums[start + 1] for start in objectives.starts], dtype="float64")
    return divisors(objectives, weights)


def divisors(objectives: Objectives, weights: Array) -> Array:
    """Return the weights of objectives as divisors: 1 where there is no weight, or no division."""
    is_sum = np.array([objective.reduction == "sum" for objective in objectives])
    return np.where(is_sum | (weights <= 0), 1.0, weights)


def refuse_fixed_sizes() -> None:
    """Raise ``ValueError`` if the backend cannot compute parts of a batch."""
    if config.backend() == "jax":
        raise ValueError(
            "The backend 'jax' computes a batch at once, not in parts: use another backend for "
            "accumulate, distribute and deterministic sums."
        )

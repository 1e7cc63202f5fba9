"""Batches that are computed in parts: the result is that of the whole batch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seqnet
from seqnet.data import Batch
from seqnet.data.dataset import Place
from seqnet.distributed import World, world
from seqnet.layers import GRU, LSTM, BatchNormalization, Dense, Dropout, Embedding
from seqnet.training.shards import shards_of, sum_rows, total_of

RNG = np.random.default_rng(0)
RAGGED = [RNG.normal(size=(n, 4)) for n in RNG.integers(2, 9, 11)]


def close(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def trained(make, X, y, accumulate, **options):
    seqnet.set_random_seed(3)
    model = make()
    history = model.fit(X, y, 4, 2, verbose=0, accumulate=accumulate, **options)
    return [*model.get_weights(), *[np.array(v) for v in history.history.values()]]


def test_sequences_with_dropout_class_weights_and_clipping():
    def make():
        layers = [LSTM(5, return_sequences=True, dropout=0.3, recurrent_dropout=0.2), Dropout(0.2)]
        last = Dense(3, activation="softmax", kernel_regularizer="l2", activity_regularizer="l2")
        model = seqnet.Model([*layers, last])
        optimizer = seqnet.optimizers.Adam(0.01, global_clipnorm=0.05)
        model.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy"])
        return model

    y = [np.random.default_rng(1).integers(0, 3, len(x)) for x in RAGGED]
    whole, parts = [
        trained(make, RAGGED, y, k, class_weight={0: 2.0, 2: 0.3}) for k in (1, 3)
    ]  # the last batch has 3 rows
    close(parts, whole)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adadelta", "adam"])
def test_rows_of_a_table(optimizer):
    def make():
        model = seqnet.Model([Embedding(3000, 3), GRU(4), Dense(1)])
        model.compile(optimizer, "mse")
        return model

    X, y = RNG.integers(0, 3000, (9, 5)), RNG.normal(size=(9, 1))
    close(trained(make, X, y, 3), trained(make, X, y, 1))


def test_several_outputs_and_a_loss_that_is_a_sum():
    def make():
        x = seqnet.Input((None, 4))
        h = GRU(4, return_sequences=True)(x)
        b = Dense(1, name="b", activity_regularizer="l2")(GRU(3)(h))
        model = seqnet.Model(x, {"a": Dense(2)(h), "b": b})
        loss = {"a": "mse", "b": seqnet.losses.MeanAbsoluteError(reduction="sum")}
        model.compile("adam", loss, {"a": ["mae"]}, loss_weights={"a": 2.0, "b": 0.5})
        return model

    y = {"a": [RNG.normal(size=(len(x), 2)) for x in RAGGED], "b": RNG.normal(size=(11, 1))}
    weight = (np.arange(11) < 8).astype(float)  # the last batch may have no weight at all
    options = {"sample_weight": weight, "shuffle": False}
    close(trained(make, RAGGED, y, 3, **options), trained(make, RAGGED, y, 1, **options))


def test_states_stay_with_their_rows():
    def make():
        model = seqnet.Model([LSTM(4, return_sequences=True, stateful=True), Dense(1)])
        model.compile("sgd", "mse")
        return model

    X, y = RNG.normal(size=(12, 3, 2)), RNG.normal(size=(12, 3, 1))
    close(trained(make, X, y, 3, shuffle=False), trained(make, X, y, 1, shuffle=False))


def test_windows_of_steps():
    def make():
        model = seqnet.Model([LSTM(4, return_sequences=True, dropout=0.4), Dense(4)])
        model.compile("sgd", "mse")
        return model

    close(trained(make, RAGGED, RAGGED, 2, tbptt=3), trained(make, RAGGED, RAGGED, 1, tbptt=3))


def test_a_layer_that_needs_whole_batches_is_an_error():
    model = seqnet.Model([Dense(3), BatchNormalization(), Dense(1)])
    with pytest.raises(ValueError, match=r"'batch_normalization' computes .* from a whole batch"):
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, accumulate=2)


def test_accumulate_is_a_number_of_parts():
    with pytest.raises(ValueError, match="accumulate"):
        seqnet.Model([Dense(1)]).fit(np.ones((4, 2)), np.ones((4, 1)), accumulate=0)


class Ranks(World):
    """A rank of several in one process."""

    def __init__(self, rank, size, deterministic=False):
        super().__init__(deterministic)
        self.rank, self.size = rank, size


@given(
    rows=st.integers(1, 40), size=st.integers(1, 9), accumulate=st.integers(1, 4),
    fixed=st.sampled_from([False, True, 3]),
)  # fmt: skip
def test_each_row_belongs_to_one_shard(rows, size, accumulate, fixed):
    x, found = np.arange(rows), []
    for rank in range(size):
        ranks = Ranks(rank, size, fixed)
        start, stop = ranks.part(rows)
        own = Batch(x).part(start, stop)
        assert own.place == Place(start, stop, rows)
        before, world._current = world._current, ranks
        try:
            shards = shards_of(ranks, own, None, accumulate)
        finally:
            world._current = before
        found += [shard.batch.inputs for shard in shards if not shard.empty]
    assert np.concatenate(found).tolist() == x.tolist()


@given(cuts=st.lists(st.integers(0, 20), max_size=6))
@settings(max_examples=30)
def test_sums_do_not_depend_on_how_a_batch_is_cut(cuts):
    x = np.random.default_rng(1).normal(size=(20, 3))
    ids = np.random.default_rng(2).integers(0, 6, 20)
    edges = [0, *sorted(cuts), 20]
    batch = Batch(x)

    class Cut(World):
        def cuts(self, rows, accumulate=1):
            return list(pairwise(edges))

    shards = shards_of(Cut(), batch, None)
    arrays = [[s.batch.inputs.sum(0), np.array(len(s.batch), "float64")] for s in shards]
    total, count = total_of(Cut(), shards, arrays)
    np.testing.assert_allclose(total, x.sum(0))
    assert count == 20
    unique, rows = sum_rows(ids, x)
    expected = np.zeros((6, 3))
    np.add.at(expected, ids, x)
    np.testing.assert_allclose(rows, expected[unique])
    assert (np.diff(unique) > 0).all()


def test_fixed_shards_are_added_in_pairs():
    parts = [[np.array([2.0**-k])] for k in (0, 30, 53, 53)]
    (found,) = World(4).total(parts)
    assert found[0] == (1 + 2.0**-30) + (2.0**-53 + 2.0**-53)

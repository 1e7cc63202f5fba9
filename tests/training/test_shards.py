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
from seqnet.training.shards import shards_of

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
    with pytest.raises(ValueError, match="resident=True takes whole batches"):
        data = np.ones((4, 2)), np.ones((4, 1))
        seqnet.Model([Dense(1)]).fit(*data, accumulate=2, resident=True)


def test_an_error_names_the_rows_with_a_loss_that_is_not_finite():
    model = seqnet.Model([Dense(1)])
    model.compile("sgd", "mse")
    X = np.ones((8, 2), "float32")
    X[5] = 3e38  # its square is infinite
    with np.errstate(all="ignore"), pytest.raises(seqnet.NumericalError, match="rows 4 to 5 of"):
        model.fit(X, X[:, :1], 8, verbose=0, shuffle=False, accumulate=4)


class Ranks(World):
    """A rank of several in one process, which leaves what it sends in a dictionary."""

    def __init__(self, rank, size, deterministic=False, mail=None):
        super().__init__(deterministic)
        self.rank, self.size, self.mail = rank, size, mail

    def _move(self, arrays, like, source, to):
        if self.rank == source:
            self.mail.setdefault((source, to), []).append(arrays)
        return self.mail[source, to].pop(0) if self.rank == to else []


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


class Cut(World):
    """A world of one that cuts batches at given rows."""

    def __init__(self, edges, deterministic=False):
        super().__init__(deterministic)
        self.edges = edges

    def cuts(self, rows, accumulate=1):
        return list(pairwise([0, *self.edges, rows]))

    def cuts_batches(self, accumulate=1):
        return True


@pytest.fixture(scope="module")
def step_of():
    """Return a function of (world, batch) that makes an update; it returns sums and weights."""
    seqnet.set_random_seed(5)
    layers = [Embedding(2000, 3, mask_zero=True), GRU(4, return_sequences=True, dropout=0.3)]
    model = seqnet.Model([*layers, Dense(2, activity_regularizer="l2")])
    model.compile(seqnet.optimizers.SGD(0.1, global_clipnorm=0.5), "mse", ["mae"])
    model.build((None, None))
    state = model.state_dict()

    def step(ranks, batch):
        model.load_state_dict(state)
        before, world._current = world._current, ranks
        try:
            result = model.steps.train(batch)
        finally:
            world._current = before
        return [np.array(result.joint_norm), *map(np.array, result.sums), *model.get_weights()]

    return step


@given(seed=st.integers(0, 99), rows=st.integers(1, 9), data=st.data())
@settings(max_examples=25, deadline=None)
def test_sums_and_updates_do_not_depend_on_how_a_batch_is_cut(step_of, seed, rows, data):
    edges = sorted(data.draw(st.lists(st.integers(0, rows), max_size=5), label="edges"))
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 2000, (rows, 4)) * (rng.random((rows, 4)) < 0.7)  # 0 is padding
    X[:, 0] += 1  # not only padding
    batch = Batch(X, rng.normal(size=(rows, 4, 2)), rng.integers(0, 3, rows).astype("float32"))
    close(step_of(Cut(edges), batch), step_of(World(), batch))


@pytest.mark.parametrize("count", [1, 3, 4, 8])
def test_fixed_shards_are_added_in_the_same_pairs_by_any_number_of_ranks(count):
    values = np.random.default_rng(0).normal(size=count) * 10.0 ** np.arange(count)
    (whole,) = World(count).total(World(count).own_sums([np.array([v])] for v in values))
    for size in (1, 2, 3, 5, 9):
        mail, found = {}, None
        for number in reversed(range(size)):  # a rank sends to lower ones only
            rank = Ranks(number, size, count, mail)
            own = [[np.array([values[k]])] for k in rank.own_shards() or [0]]
            found = rank.total(rank.own_sums(own)) or found
        assert found == [whole]

"""Updates of single rows of a large embedding equal updates of the whole table."""

from __future__ import annotations

import numpy as np
import pytest

import seqnet
from seqnet import optimizers
from seqnet.layers import LSTM, Dense, Embedding
from seqnet.ops import lookup

ROWS = 2000
MAKERS = {
    "sgd": lambda: optimizers.SGD(0.1),
    "sgd clipped": lambda: optimizers.SGD(0.1, global_clipnorm=0.1),
    "adagrad": lambda: optimizers.Adagrad(0.05),
    "adadelta": lambda: optimizers.Adadelta(clipnorm=0.05),
    "rmsprop": lambda: optimizers.RMSprop(0.01),
    "rmsprop centered": lambda: optimizers.RMSprop(0.01, centered=True),
    "rmsprop by a schedule": lambda: optimizers.RMSprop(lambda step: 0.1 / (1 + step)),
}


def batches():
    rng = np.random.default_rng(0)
    for _ in range(12):
        x = rng.integers(0, ROWS, (4, 5))
        yield np.where(rng.random(x.shape) < 0.7, x % 11, x), rng.integers(0, 3, 4)


def make(optimizer):
    seqnet.set_random_seed(0)
    options = {"dtype": "float64"}
    model = seqnet.Model(
        [
            Embedding(ROWS, 3, **options),
            LSTM(4, **options),
            Dense(3, activation="softmax", **options),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def everything(model):
    model.optimizer.settle()
    slots = model.optimizer.state_dict()["slots"]
    return model.get_weights() + [slots[s][n] for s in sorted(slots) for n in sorted(slots[s])]


def train(model):
    for number, (x, y) in enumerate(batches()):
        model.train_on_batch(x, y)
        if number == 6 and hasattr(model.optimizer, "rho"):
            model.optimizer.rho = 0.8
    return model


@pytest.mark.parametrize("make_optimizer", MAKERS.values(), ids=MAKERS)
def test_row_updates_equal_updates_of_the_whole_table(make_optimizer, monkeypatch):
    by_rows = train(make(make_optimizer()))
    monkeypatch.setattr(lookup, "FEW_ROWS", 10**9)
    whole = train(make(make_optimizer()))
    for mine, theirs in zip(everything(by_rows), everything(whole), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-13)


def test_only_the_rows_that_were_looked_up_are_computed():
    model = make(optimizers.Adadelta())
    for x, y in batches():
        model.train_on_batch(x, y)
    (function,) = model.steps.functions.values()
    ops = [getattr(n.op, "op", n.op) for n in function.maker.fgraph.apply_nodes]
    assert any(isinstance(op, lookup.SumRows) for op in ops)
    assert not any(isinstance(op, lookup.ScatterAdd) for op in ops)
    assert all(op.inplace for op in ops if isinstance(op, lookup.SetRows))


def test_optimizers_that_change_idle_rows_update_all_rows():
    model = make(optimizers.Adam())
    x, y = next(batches())
    model.train_on_batch(x, y)
    model.train_on_batch(x[::-1] % 7, y)
    (function,) = model.steps.functions.values()
    assert not any(isinstance(n.op, lookup.SumRows) for n in function.maker.fgraph.apply_nodes)


def test_a_loaded_model_applies_the_missed_decay_of_idle_rows(tmp_path):
    model = train(make(optimizers.Adadelta()))
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    for x, y in batches():
        assert again.train_on_batch(x, y) == model.train_on_batch(x, y)
    for mine, theirs in zip(everything(again), everything(model), strict=True):
        np.testing.assert_array_equal(mine, theirs)

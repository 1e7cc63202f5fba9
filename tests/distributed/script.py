"""A training that runs alone or under ``mpiexec``: script.py FOLDER CASE, as a user would write it.

Rank 0 writes the results to FOLDER as an array file, so that runs of different sizes are compared.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import h5py
import numpy as np

import seqnet
from seqnet.callbacks import BackupAndRestore, Callback, ModelCheckpoint
from seqnet.distributed.world import SHARDS
from seqnet.layers import GRU, LSTM, Dense, Dropout, Embedding

FOLDER, CASES = Path(sys.argv[1]), sys.argv[2].split(",")
FIXED = False
"""Whether sums must not depend on the number of ranks, in cases named ``fixed:CASE``."""


def labels(rng, like):
    return [rng.integers(0, 3, len(x)) for x in like]


def ragged(rng, count=21):
    return [rng.normal(size=(n, 4)) for n in rng.integers(2, 9, count)]


def softmax_model(layers, optimizer):
    model = seqnet.Model([*layers, Dense(3, activation="softmax", activity_regularizer="l2")])
    model.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy"])
    return model


def results(model, history, X, y):
    found = {f"weight {k}": w for k, w in enumerate(model.get_weights())}
    found |= {name: np.array(values) for name, values in history.history.items()}
    scores = model.evaluate(X, y, batch_size=5, return_dict=True)
    found |= {f"evaluate {name}": np.array(value) for name, value in scores.items()}
    outputs = model.predict(X, batch_size=6)
    found["predict"] = np.concatenate([np.ravel(o) for o in outputs])
    return found


def sequences():
    """Ragged lists, dropout of each kind, class weights, clipping, a penalty, a short batch."""
    rng = np.random.default_rng(0)
    X = ragged(rng)
    y = labels(rng, X)
    layers = [LSTM(8, return_sequences=True, dropout=0.3, recurrent_dropout=0.2), Dropout(0.2)]
    model = softmax_model(layers, seqnet.optimizers.Adam(0.01, global_clipnorm=0.05))
    history = model.fit(X, y, 8, 2, verbose=0, class_weight={0: 2.0, 2: 0.3}, validation_split=0.2)
    return results(model, history, X, y)


def words():
    """Tables of which rows are exchanged; a batch of fewer rows than ranks."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 3000, (17, 6)), rng.normal(size=(17, 1))
    found = {}
    optimizers = ("adagrad", "adam") if FIXED else ("sgd", "adagrad", "adadelta", "adam")
    for optimizer in optimizers:
        model = seqnet.Model([Embedding(3000, 4, mask_zero=True), GRU(8), Dense(1)])
        model.compile(optimizer, "mse")
        history = model.fit(X, y, 8, 2, verbose=0)  # the last batch has one row
        found |= {f"{optimizer} {n}": v for n, v in results(model, history, X, y).items()}
    X, y = rng.integers(0, 1100, (32, 40)), rng.normal(size=(32, 1))
    model = seqnet.Model([Embedding(1100, 4), GRU(8), Dense(1)])
    model.compile("rmsprop", "mse")
    model.fit(X, y, 32, 3, verbose=0)  # the ranks look up more rows than the table has
    return found | {f"many rows {k}": w for k, w in enumerate(model.get_weights())}


def outputs():
    """Two outputs, one with a loss that is a sum, and weights of rows of which a batch has none."""
    rng = np.random.default_rng(0)
    x = seqnet.Input((None, 4), name="x")
    h = LSTM(6, return_sequences=True, kernel_regularizer="l2")(x)
    model = seqnet.Model(x, {"a": Dense(2)(h), "b": Dense(1, name="b")(GRU(5)(h))})
    loss = {"a": "mse", "b": seqnet.losses.MeanAbsoluteError(reduction="sum")}
    model.compile("adam", loss, {"a": ["mae"]}, loss_weights={"a": 2.0, "b": 0.5})
    X = ragged(rng)
    y = {"a": [rng.normal(size=(len(x), 2)) for x in X], "b": rng.normal(size=(21, 1))}
    weight = (np.arange(21) < 16).astype(float)
    history = model.fit(X, y, 4, 2, verbose=0, sample_weight=weight, shuffle=False)
    found = {f"weight {k}": w for k, w in enumerate(model.get_weights())}
    return found | {name: np.array(values) for name, values in history.history.items()}


def files():
    """An HDF5 file, and a stream of batches."""
    rng = np.random.default_rng(0)
    path = FOLDER / f"data-{os.getpid()}.h5"
    with h5py.File(path, "w") as file:
        file["X"], file["y"] = rng.normal(size=(21, 5, 4)), rng.integers(0, 3, (21, 5))
    found = {}
    with h5py.File(path, "r") as file:
        model = softmax_model([GRU(8, return_sequences=True)], "rmsprop")
        history = model.fit(file["X"], file["y"], 8, 2, verbose=0)
        found |= results(model, history, file["X"], file["y"])
        X, y = file["X"][:], file["y"][:]
    batches = [(X[k : k + 6], y[k : k + 6]) for k in range(0, 21, 6)]
    history = model.fit(batches, epochs=2, verbose=0)
    return found | {f"stream {k}": w for k, w in enumerate(model.get_weights())}


def states():
    """Windows of steps, of which some are padding on one rank only, and carried states."""
    rng = np.random.default_rng(0)
    X = ragged(rng, 7)
    y = labels(rng, X)
    model = softmax_model([LSTM(8, return_sequences=True, dropout=0.3)], "sgd")
    history = model.fit(X, y, 3, 2, verbose=0, tbptt=3)
    found = {f"tbptt {k}": w for k, w in enumerate(model.get_weights())}
    found["tbptt loss"] = np.array(history.history["loss"])
    X, y = rng.normal(size=(12, 5, 4)), rng.integers(0, 3, (12, 5))
    model = softmax_model([GRU(8, return_sequences=True, stateful=True)], "sgd")
    history = model.fit(X, y, 4, 2, verbose=0, shuffle=False)
    return found | results(model, history, X, y)


class Die(Callback):
    """Kill a rank in the third batch of the second epoch, or wait to be killed from outside."""

    adds = ()

    def on_train_batch_end(self, batch, logs=None):
        rank = seqnet.distributed.current().rank
        if os.environ.get("DIES") == str(rank) and batch == 2 and self.trainer.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(float(os.environ.get("PAUSE", "0")))


def resumed():
    """A run that is killed if the environment says so, and goes on from its file."""
    rank = seqnet.distributed.current().rank
    (FOLDER / f"pid-{rank}").write_text(str(os.getpid()))
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(24, 5, 4)), rng.integers(0, 3, (24, 5))
    layers = [LSTM(8, return_sequences=True, stateful=True, dropout=0.2)]
    model = softmax_model(layers, "adam")
    backup = BackupAndRestore(FOLDER / "run.h5", save_freq=1)
    saved = ModelCheckpoint(FOLDER / "model-{epoch}.h5")
    callbacks, epochs = [Die(), saved, backup], int(os.environ.get("EPOCHS", "3"))
    history = model.fit(X, y, 4, epochs, verbose=0, shuffle=False, callbacks=callbacks)
    found = {f"weight {k}": w for k, w in enumerate(model.get_weights())}
    return found | {name: np.array(values) for name, values in history.history.items()}


def error_in_data():
    """A value that one rank alone cannot use."""
    X = np.random.default_rng(0).normal(size=(8, 3))
    if seqnet.distributed.current().rank == 1:
        X[5] = np.nan
    model = seqnet.Model([Dense(1)])
    model.fit(X, X[:, :1], 4, verbose=0)


def error_in_file():
    """A value in the rows of a file that one rank reads."""
    with h5py.File(FOLDER / f"bad-{os.getpid()}.h5", "w") as file:
        file["X"] = np.where(np.arange(8)[:, None] == 7, np.nan, np.ones((8, 3)))
        seqnet.Model([Dense(1)]).fit(file["X"], np.ones((8, 1)), 4, verbose=0, shuffle=False)


class Fail(Callback):
    adds = ()

    def on_train_batch_end(self, batch, logs=None):
        if seqnet.distributed.current().rank == 1:
            raise KeyError("no such thing")


def error_in_callback():
    """An error of one rank in the middle of an epoch."""
    X = np.random.default_rng(0).normal(size=(8, 3))
    seqnet.Model([Dense(1)]).fit(X, X[:, :1], 4, verbose=0, callbacks=[Fail()])


def error_outside():
    """An error of one rank outside of seqnet, while the other trains."""
    X = np.random.default_rng(0).normal(size=(8, 3))
    if seqnet.distributed.current().rank == 1:
        raise ZeroDivisionError("outside")
    seqnet.Model([Dense(1)]).fit(X, X[:, :1], 4, verbose=0)


def error_everywhere():
    """The same error of all ranks."""
    seqnet.Model([Dense(1)]).fit(np.ones((4, 3)), np.ones((5, 1)), verbose=0)


def hangs():
    """A rank that does nothing any more, as if its machine was gone."""
    X = np.random.default_rng(0).normal(size=(8, 3))
    if seqnet.distributed.current().rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    seqnet.Model([Dense(1)]).fit(X, X[:, :1], 4, verbose=0)


def leaves_early():
    """A rank that ends its program while the other trains."""
    X = np.random.default_rng(0).normal(size=(8, 3))
    if seqnet.distributed.current().rank == 1:
        sys.exit(0)
    seqnet.Model([Dense(1)]).fit(X, X[:, :1], 4, verbose=0)


if __name__ == "__main__":
    world = seqnet.distribute("mpi", timeout=4 if CASES == ["hangs"] else 600)
    found = {}
    for case in CASES:
        seqnet.set_random_seed(3)
        FIXED = case.startswith("fixed:")
        world.shards = SHARDS if FIXED else 0
        more = globals()[case.removeprefix("fixed:")]() or {}
        found |= {f"{case} {name}": value for name, value in more.items()}
    if world.rank == 0:
        np.savez(FOLDER / f"found-{world.size}.npz", **found)

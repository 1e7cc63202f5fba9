"""All callbacks in a resumed training, compared with an uninterrupted one."""

import numpy as np
import pytest
from helpers import Plug

import seqnet
import seqnet.callbacks as cb
from seqnet.callbacks import BackupAndRestore
from seqnet.layers import Dense

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True) ** 2


def train(folder, save_freq, pulled_at=None):
    seqnet.set_random_seed(0)
    model = seqnet.Model([Dense(2, activation="tanh"), Dense(1)])
    model.compile(seqnet.optimizers.SGD(0.2), "mse")
    callbacks = [
        cb.LearningRateScheduler(lambda epoch, rate: rate * 0.97),
        cb.ReduceLROnPlateau("val_loss", factor=0.7, patience=1, min_delta=0.5, cooldown=1),
        cb.EarlyStopping("val_loss", patience=3, min_delta=1.0, restore_best_weights=True),
        cb.ModelCheckpoint(folder / "best-{epoch}.h5", save_best_only=True),
        cb.ModelCheckpoint(folder / "batch-{epoch}-{batch}.h5", save_freq=5),
        cb.CSVLogger(folder / "log.csv"),
        cb.TerminateOnNaN(),
        Plug(pulled_at),
        BackupAndRestore(folder / "run.h5", save_freq),
    ]
    history = model.fit(
        X, Y, batch_size=4, epochs=15, callbacks=callbacks, validation_data=(X, Y), verbose=0
    )
    return {
        "history": history.history,
        "epochs": history.epoch,
        "log": (folder / "log.csv").read_text(),
        "files": sorted(path.name for path in folder.iterdir()),
        "weights": [w.tolist() for w in model.get_weights()],
        "rate": model.optimizer.learning_rate,
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    result = train(tmp_path_factory.mktemp("whole"), "epoch")
    assert 5 < len(result["epochs"]) < 15, result["history"]
    assert len(set(result["history"]["learning_rate"])) > 5
    return result


@pytest.mark.parametrize(("save_freq", "pulled_at"), [("epoch", 7), ("epoch", 12), (2, 11), (1, 4)])
def test_a_resumed_training_equals_an_uninterrupted_one(save_freq, pulled_at, expected, tmp_path):
    with pytest.raises(RuntimeError, match="power failure"):
        train(tmp_path, save_freq, pulled_at)
    assert train(tmp_path, save_freq) == expected

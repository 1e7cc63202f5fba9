"""Write one file of each kind in the current format. The tests keep reading these files.

    python make_files.py

Run it when `seqnet.saving.hdf5.VERSION` is raised, and add the new files. Older files stay;
`test_kept_files.py` tests how they are read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import seqnet
from seqnet.callbacks import BackupAndRestore, Callback, EarlyStopping
from seqnet.layers import LSTM, Dense, Embedding
from seqnet.saving.hdf5 import VERSION

FOLDER = Path(__file__).parent
TOKENS = np.arange(24).reshape(6, 4) % 5
CLASSES = np.arange(6) % 3


class Stopped(Exception):  # noqa: N818
    """The training ends early."""


class StopAt(Callback):
    """Ends a training in an epoch, after its first batch; kept files hold a digest of this code."""

    def __init__(self, epoch: int | None):
        self.epoch = epoch

    def get_config(self):
        return {}

    def on_train_batch_end(self, batch, logs=None):
        if len(self.model.history.epoch) == self.epoch:
            raise Stopped


def make_model() -> seqnet.Model:
    """Return a model whose weights do not depend on random numbers."""
    seqnet.set_random_seed(1)
    layers = [
        Embedding(5, 2, embeddings_initializer="ones", mask_zero=True),
        LSTM(3, kernel_initializer="ones", recurrent_initializer="identity", stateful=True),
        Dense(3, activation="softmax", kernel_initializer="zeros"),
    ]
    model = seqnet.Model(layers)
    model.compile(seqnet.optimizers.Adam(0.125), "sparse_categorical_crossentropy", ["accuracy"])
    model.build((None, 4))
    return model


def numbered(model: seqnet.Model) -> seqnet.Model:
    """Set distinct weights; return the model."""
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([np.arange(np.prod(s)).reshape(s) / 8 - k for k, s in enumerate(shapes)])
    model.metadata["words"] = ["a", "ä", None]
    return model


def train(path, stop_at: int | None = None, epochs: int = 3) -> seqnet.Model:
    """Train a model with `BackupAndRestore`."""
    model = make_model()
    callbacks = [
        EarlyStopping("loss", patience=9, restore_best_weights=True),
        StopAt(stop_at),
        BackupAndRestore(path, save_freq=1),
    ]
    model.fit(TOKENS, CLASSES, 2, epochs, verbose=0, callbacks=callbacks, shuffle=False)
    return model


if __name__ == "__main__":
    numbered(make_model()).save(FOLDER / f"model-{VERSION}.h5")
    numbered(make_model()).save_weights(FOLDER / f"weights-{VERSION}.h5")
    backup = FOLDER / f"backup-{VERSION}.h5"
    backup.unlink(missing_ok=True)
    try:
        train(backup, stop_at=1)
    except Stopped:
        print(*sorted(path.name for path in FOLDER.glob("*.h5")))

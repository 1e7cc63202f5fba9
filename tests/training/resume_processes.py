"""Train in separate processes, and kill them.

    python resume_processes.py train SEED           # prints a digest of the results
    python resume_processes.py kill FOLDER NUMBER   # until NUMBER processes were killed

A killed process is restarted until its training is complete. The results are then compared with
those of an undisturbed process. Each process is a fork of this one, which has compiled the model's
functions but has not trained.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

import seqnet
from seqnet.callbacks import BackupAndRestore
from seqnet.layers import LSTM, Dense, Dropout
from seqnet.saving import hdf5

ENDS = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130, 143}
RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(48, 5, 3)), RNG.normal(size=(48, 2))


def make(seed: int) -> seqnet.Model:
    seqnet.set_random_seed(seed)
    model = seqnet.Model([LSTM(4, recurrent_dropout=0.2), Dropout(0.3), Dense(2)])
    model.compile("adam", "mse")
    return model


def train(model, callbacks=(), epochs: int = 4) -> str:
    """Return a digest of a trained model and its history."""
    history = model.fit(
        X, Y, 4, epochs, verbose=0, callbacks=callbacks, validation_split=0.2, shuffle=True
    )
    digest = hashlib.sha256(json.dumps(history.history).encode())
    slots = model.optimizer.state_dict()["slots"].values()
    for array in [*model.get_weights(), *(a for table in slots for a in table.values())]:
        digest.update(array.tobytes())
    return digest.hexdigest()


def start(model, backup: Path, result: Path, save_freq) -> int:
    """Train in a new process, which writes the digest to a file; return its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        text = train(model, [BackupAndRestore(backup, save_freq, delete_checkpoint=False)])
        result.with_suffix(".part").write_text(text)
        os.replace(result.with_suffix(".part"), result)
        status = 0
    except KeyboardInterrupt:
        status = 130
    except SystemExit as error:
        status = error.code
    finally:
        os._exit(status)


def kill_until(folder: Path, number: int) -> None:
    """Print the number of killed processes and of different results."""
    model = make(3)
    train(model, epochs=0)  # compiles
    begun = time.perf_counter()
    expected_file = folder / "expected"
    os.waitpid(start(model, folder / "undisturbed.h5", expected_file, 1), 0)
    expected, duration = expected_file.read_text(), time.perf_counter() - begun
    kills = runs = differing = 0
    choose = random.Random(0)
    for run in itertools.count():
        if kills >= number:
            break
        backup, result = folder / f"{run}.h5", folder / f"{run}.txt"
        save_freq = choose.choice([1, 3, "epoch"])
        longest = duration / 2
        while not result.exists():
            child = start(model, backup, result, save_freq)
            time.sleep(choose.uniform(0, longest))
            longest *= 1.05  # on a busy machine the time from save to save may be longer
            os.kill(child, choose.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status and status not in ENDS:
                sys.exit(f"A process ended with status {status}.")
            kills += status != 0
            if backup.exists():
                hdf5.read(backup)  # complete at any time
        runs += 1
        differing += result.read_text() != expected
    print(f"{kills} processes killed in {runs} trainings, of which {differing} differ")


if __name__ == "__main__":
    if sys.argv[1] == "train":
        print(train(make(int(sys.argv[2]))))
    else:
        kill_until(Path(sys.argv[2]), int(sys.argv[3]))

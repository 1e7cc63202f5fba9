"""Pass sequences of logs to Keras's callbacks and write the results to keras_callbacks.json.

The stored file was made, in the folder tests, by ::

    python -m pip install keras==3.15.1 jax==0.10.2 numpy==2.4.6
    KERAS_BACKEND=jax python -m reference.make_keras_callbacks

with Python 3.11.7, keras 3.15.1, jax 0.10.2 and NumPy 2.4.6 on a CPU.

The model has one weight, which is the number of the epoch (by batches: of the batch) that has just
ended, so that a restored or saved model identifies its epoch. Keras compares logs in float32;
they are multiples of 1/64 here, so that no comparison depends on the precision.
"""

import csv
import json
import math
import platform
import tempfile
from pathlib import Path

import jax
import keras
import numpy as np

EPOCHS = 12
SCHEDULES = {  # by name, so that the stored file contains no code
    "halve": lambda epoch, rate: rate / 2 if epoch else rate,
    "tenth after three": lambda epoch, rate: rate * 0.1 if epoch == 3 else rate,
    "of the epoch": lambda epoch: 1.0 / (epoch + 1),
}


def make_model():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(1.0), "binary_crossentropy", metrics=["accuracy"])
    model.train_on_batch(np.ones((1, 1)), np.ones((1, 1)))
    model.stop_training = False
    return model


def mark(model, number):
    model.set_weights([np.full((1, 1), number, dtype="float32")])


def run(callback, model, epochs, batches=0):
    """Call the hooks as fit does; return the rates, the logs, and the number of epochs."""
    callback.set_model(model)
    callback.set_params({"epochs": len(epochs), "steps": batches, "verbose": 0})
    rates, entered, number = [], [], 0
    callback.on_train_begin({})
    for epoch, logs in enumerate(epochs):
        callback.on_epoch_begin(epoch, {})
        rates.append(float(model.optimizer.learning_rate))
        for batch in range(batches):
            callback.on_train_batch_begin(batch, {})
            number += 1
            mark(model, number)
            callback.on_train_batch_end(batch, {"loss": logs["loss"]})
        if not batches:
            mark(model, epoch)
        logs = dict(logs)
        callback.on_epoch_end(epoch, logs)
        entered.append(logs.get("learning_rate"))
        if model.stop_training:
            break
    callback.on_train_end({})
    return {"rates": rates, "entered": entered, "epochs": len(rates)}


def weight(model):
    return float(model.get_weights()[0][0, 0])


def figures(rng, wild=0.1):
    """Draw logs of epochs that fall or rise, with noise, in multiples of 1/64."""

    def series(sign, nan):
        trend = np.exp(-np.arange(EPOCHS) / rng.uniform(1, 6))
        values = np.round(64 * (trend + rng.normal(scale=wild, size=EPOCHS))) / 64
        values = (values if sign < 0 else 1 - values).tolist()
        if nan:
            # Not one of the first epochs: see docs/differences.md.
            values[int(rng.integers(4, EPOCHS))] = math.nan
        return values

    names = {"loss": -1, "val_loss": -1, "accuracy": 1, "val_accuracy": 1}
    drawn = {name: series(sign, rng.uniform() < 0.1) for name, sign in names.items()}
    return [{name: column[k] for name, column in drawn.items()} for k in range(EPOCHS)]


def columns(logs, *names):
    """Return logs as they are stored: a list of values by name."""
    return {name: [epoch[name] for epoch in logs] for name in names or logs[0]}


def pick(rng, *values):
    return values[int(rng.integers(len(values)))]


def watched(rng):
    """Draw a log name and a mode; "auto" is correct for both names."""
    name = pick(rng, "loss", "val_loss", "accuracy", "val_accuracy")
    return {"monitor": name, "mode": pick(rng, "auto", "max" if "accuracy" in name else "min")}


def early_stopping(rng):
    options = watched(rng) | {
        "min_delta": pick(rng, 0, 1 / 64, 4 / 64),
        "patience": pick(rng, 0, 1, 2, 3),
        "baseline": pick(rng, None, None, 0.25, 0.5),
        "restore_best_weights": pick(rng, True, False),
        "start_from_epoch": pick(rng, 0, 0, 2, 3),
    }
    logs, model = figures(rng), make_model()
    callback = keras.callbacks.EarlyStopping(**options)
    told = run(callback, model, logs)
    result = {
        "epochs": told["epochs"],
        "stopped_epoch": callback.stopped_epoch,
        "best": callback.best,
        "best_epoch": callback.best_epoch,
        "weight": weight(model),
    }
    return {"options": options, "logs": columns(logs, options["monitor"]), "result": result}


def reduce_lr(rng):
    options = watched(rng) | {
        "factor": pick(rng, 0.5, 0.25, 0.1),
        "patience": pick(rng, 0, 1, 2, 3),
        "min_delta": pick(rng, 0, 1 / 64, 4 / 64),
        "cooldown": pick(rng, 0, 1, 2),
        "min_lr": pick(rng, 0.0, 0.125),
    }
    logs = figures(rng, wild=0.3)
    told = run(keras.callbacks.ReduceLROnPlateau(**options), make_model(), logs)
    return {"options": options, "logs": columns(logs, options["monitor"]), "result": told}


def scheduler(name):
    logs = [{"loss": 1.0}] * EPOCHS
    told = run(keras.callbacks.LearningRateScheduler(SCHEDULES[name]), make_model(), logs)
    return {"options": {"schedule": name}, "logs": columns(logs), "result": told}


def saved(folder):
    """Return the weight in each file of a folder."""
    found = {}
    for path in sorted(Path(folder).iterdir()):
        model = make_model()
        if path.name.endswith(".weights.h5"):
            model.load_weights(path)
        else:
            model = keras.models.load_model(path)
        found[path.name] = weight(model)
    return found


def checkpoint(rng, batches):
    weights_only = pick(rng, True, True, False)
    fields = "-{epoch:02d}-{batch:03d}" if batches else "-{epoch:02d}-{val_loss:.2f}"
    ending = ".weights.h5" if weights_only else ".keras"
    name = "model" + pick(rng, fields, fields, "-{epoch}", "") + ending
    options = watched(rng) | {
        "save_weights_only": weights_only,
        "save_best_only": not batches and pick(rng, True, False),
        "save_freq": pick(rng, 1, 3, 5, 7) if batches else "epoch",
        "initial_value_threshold": pick(rng, None, 0.5),
    }
    logs = [{n: round(v, 2) for n, v in epoch.items()} for epoch in figures(rng, wild=0.3)]
    logs = logs[:3] if batches else logs
    with tempfile.TemporaryDirectory() as folder:
        callback = keras.callbacks.ModelCheckpoint(f"{folder}/{name}", **options)
        run(callback, make_model(), logs, batches)
        result = {"files": saved(folder), "best": callback.best}
    return {
        "options": options | {"filepath": name},
        "logs": columns(logs),
        "batches": batches,
        "result": result,
    }


def csv_log(rng, separator, append):
    logs = figures(rng)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.csv"
        for _ in range(2):
            run(keras.callbacks.CSVLogger(path, separator, append), make_model(), logs)
        with path.open(newline="") as file:
            rows = list(csv.reader(file, delimiter=separator))
    return {
        "options": {"separator": separator, "append": append},
        "logs": columns(logs),
        "result": {"rows": rows},
    }


def plain(value):
    """Return a value that JSON can represent."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def main():
    if keras.config.backend() != "jax":
        raise RuntimeError(f"Set KERAS_BACKEND=jax; Keras runs on {keras.config.backend()}.")
    rng = np.random.default_rng(0)
    found = {
        "versions": f"python {platform.python_version()}, keras {keras.__version__}, "
        f"jax {jax.__version__}, numpy {np.__version__}",
        "EarlyStopping": [early_stopping(rng) for _ in range(40)],
        "ReduceLROnPlateau": [reduce_lr(rng) for _ in range(30)],
        "LearningRateScheduler": [scheduler(name) for name in SCHEDULES],
        "ModelCheckpoint": [checkpoint(rng, b) for b in (0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4)],
        "CSVLogger": [csv_log(rng, ",", False), csv_log(rng, ";", True)],
    }
    path = Path(__file__).with_name("keras_callbacks.json")
    path.write_text(json.dumps(plain(found)) + "\n")
    print(f"Wrote {path.name}, {path.stat().st_size} bytes.")


if __name__ == "__main__":
    main()

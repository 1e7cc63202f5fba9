"""A resumed training equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import seqnet
from seqnet import config
from seqnet.callbacks import BackupAndRestore, Callback
from seqnet.layers import (
    GRU,
    LSTM,
    BatchNormalization,
    Bidirectional,
    Concatenate,
    Dense,
    Dropout,
    Embedding,
    GlobalAveragePooling1D,
    Masking,
    SimpleRNN,
)
from seqnet.layers.states import RUNS, carried_states
from seqnet.saving import hdf5


@pytest.fixture(autouse=True, scope="module")
def ctrl_c_counts():
    """Enable Ctrl-C, which is ignored when the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


RNG = np.random.default_rng(20261122)
SERIES = RNG.normal(size=(14, 6, 3)).astype("float32")
VALUES = RNG.normal(size=(14, 2)).astype("float32")
STEPS = RNG.normal(size=(14, 6, 2)).astype("float32")
TOKENS = RNG.integers(0, 2000, (14, 6))
CLASSES = RNG.integers(0, 3, 14)
RAGGED = [RNG.normal(size=(n, 3)).astype("float32") for n in RNG.integers(1, 9, 14)]
RAGGED_STEPS = [RNG.normal(size=(len(x), 2)).astype("float32") for x in RAGGED]


class EveryBatch(BackupAndRestore):
    """Keeps a copy of each file."""

    def __init__(self, path, copies=False):
        super().__init__(path, save_freq=1, delete_checkpoint=False)
        self.copies = [] if copies else None

    def on_epoch_end(self, epoch, logs=None):
        self.save()

    def save(self):
        super().save()
        if self.copies is not None:
            copy = self.path.with_suffix(f".{len(self.copies)}.h5")
            self.copies.append(shutil.copy(self.path, copy))


class Patience(Callback):
    """Stops when the loss has not fallen for some epochs, as EarlyStopping does."""

    def __init__(self, patience):
        self.patience = patience

    def on_train_begin(self, logs=None):
        self.wait, self.best, self.weights = 0, np.inf, None

    def on_epoch_end(self, epoch, logs=None):
        self.wait += 1
        if logs["val_loss"] < self.best:
            self.wait, self.best, self.weights = 0, logs["val_loss"], self.model.get_weights()[0]
        self.model.stop_training = self.wait == self.patience

    def on_train_end(self, logs=None):
        if self.weights is not None:
            self.model.set_weights([self.weights, self.model.get_weights()[1]])

    def state_dict(self):
        kept = {} if self.weights is None else {"weights": self.weights}
        return {"wait": self.wait, "best": np.float64(self.best), "none": None, **kept}

    def load_state_dict(self, state):
        self.wait, self.best, self.weights = state["wait"], state["best"], state.get("weights")


class Decay(Callback):
    """Changes hyperparameters of the optimizer at the start of epochs and after batches."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.learning_rate *= 0.7

    def on_batch_end(self, batch, logs=None):
        if batch == 1:
            self.model.optimizer.rho = 0.85


class Thaw(Callback):
    """Unfreezes the first layer after the first epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.layers[0].trainable = True


class Stop(Callback):
    """Stops training within the second epoch."""

    def on_batch_end(self, batch, logs=None):
        self.model.stop_training = len(self.model.history.epoch) == 1 and batch == 1


def validated(x=SERIES, y=VALUES):
    return {"validation_data": (x[:5], y[:5])}


KINDS = {
    "dropout": (
        lambda: [SimpleRNN(3), Dropout(0.4), Dense(2)],
        "adam",
        (SERIES, VALUES),
        validated(),
        [],
    ),
    "recurrent dropout": (
        lambda: [LSTM(3, dropout=0.3, recurrent_dropout=0.3), Dense(2)],
        seqnet.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.5),
        (SERIES, VALUES),
        {"sample_weight": np.linspace(0, 1, 14), "validation_split": 0.2, "validation_freq": 2},
        [],
    ),
    "stateful": (
        lambda: [GRU(3, stateful=True, return_sequences=True), Dropout(0.2), Dense(2)],
        "rmsprop",
        (SERIES, STEPS),
        {"shuffle": False, **validated(SERIES, STEPS)},
        [],
    ),
    "both directions, sequences of different lengths": (
        lambda: [Bidirectional(GRU(2, return_sequences=True, dropout=0.2)), Dense(2)],
        "adadelta",
        (RAGGED, RAGGED_STEPS),
        {"validation_data": (RAGGED[:5], RAGGED_STEPS[:5])},
        [],
    ),
    "padded, unrolled": (
        lambda: [SimpleRNN(2, unroll=True, recurrent_dropout=0.2), Dense(2)],
        "adagrad",
        (SERIES, VALUES),
        {"lengths": np.where(np.arange(14) < 7, 3, 6)},
        [],
    ),
    "masked, windows": (
        lambda: [Masking(), LSTM(2, return_sequences=True, dropout=0.2), Dense(2)],
        seqnet.optimizers.Adam(0.01, clipvalue=0.1),
        (np.where(np.arange(6)[None, :, None] < 4, SERIES, 0), STEPS),
        {"tbptt": 4, **validated(SERIES, STEPS)},
        [],
    ),
    "rows of a table, decayed later": (
        lambda: [Embedding(2000, 2), GRU(2), Dense(3, activation="softmax")],
        "rmsprop",
        (TOKENS, CLASSES),
        {},
        [Decay],
    ),
    "rows of a table, two averages": (
        lambda: [Embedding(2000, 2), SimpleRNN(2), Dense(3, activation="softmax")],
        "adadelta",
        (TOKENS, CLASSES),
        {},
        [Decay],
    ),
    "a callback that counts": (
        lambda: [Dense(2, dtype="float64")],
        seqnet.optimizers.SGD(1.2),
        (SERIES[:, 0], VALUES),
        {**validated(SERIES[:, 0]), "epochs": 9},
        [lambda: Patience(2)],
    ),
    "a layer that thaws": (
        lambda: [Dense(2, activation="tanh", trainable=False), Dense(2)],
        "adam",
        (SERIES[:, 0], VALUES),
        {},
        [Thaw],
    ),
    "a training that is stopped": (
        lambda: [Dense(2)],
        "adam",
        (SERIES[:, 0], VALUES),
        validated(SERIES[:, 0]),
        [Stop],
    ),
}


class Training:
    """A training that can be repeated."""

    def __init__(self, layers, optimizer, data, options, callbacks):
        self.layers, self.data = layers, data
        self.options = {"epochs": 3, "batch_size": 4, "verbose": 0} | options
        self.callbacks = callbacks
        self.optimizer = seqnet.optimizers.get(optimizer)
        self.numbers = self.optimizer.get_config()

    def fresh(self):
        """Return a new model initialized with seed 1."""
        seqnet.set_random_seed(1)
        model = seqnet.Model(self.layers())
        optimizer = type(self.optimizer).from_config(self.numbers)
        model.compile(optimizer, None, ["mse"] if self.data[1] is not CLASSES else ["accuracy"])
        return model

    def used(self, model):
        """Change all that training changes, except what identifies the training."""
        config.random_generator().random(99)
        if model.stateful:
            model.predict_on_batch(self.data[0][:2])
        for layer, new in zip(model.layers, self.layers(), strict=True):
            layer.trainable = new.trainable
            for generator in layer.generators:
                generator.set_value(np.random.default_rng(3))
        for name, value in self.numbers.items():
            setattr(model.optimizer, name, value)
        state = model.optimizer.state_dict()
        state["iterations"] += 5
        arrays = [a for table in state["slots"].values() for a in table.values()]
        for array in [*arrays, *state["last_steps"].values()]:
            array += 1
        model.optimizer.load_state_dict(state, model.weights)
        model.set_weights([w + 1 for w in model.get_weights()])
        return model

    def run(self, model, *more):
        callbacks = [make() for make in self.callbacks]
        model.fit(*self.data, callbacks=[*callbacks, *more], **self.options)
        return outcome(model, callbacks)


def all_generators(model):
    return [generator for layer in model.layers for generator in layer.generators]


def outcome(model, callbacks=()):
    """Return the results of training by name."""
    state = model.optimizer.state_dict()
    found = {weight.name: weight.get_value() for weight in model.weights}
    for slot, table in (state["slots"] | {"last step": state["last_steps"]}).items():
        found |= {f"{slot} {name}": value for name, value in table.items()}
    for carried in carried_states(model.layers):
        for run in RUNS:
            for name, value in zip(carried.names, carried.get(run), strict=True):
                found[f"{carried.layer.name} {run} {name}"] = value
    found |= {f"history {name}": values for name, values in model.history.history.items()}
    found |= {
        "epochs": model.history.epoch,
        "iterations": state["iterations"],
        "optimizer": model.optimizer.get_config(),
        "dropout": [g.get_value().bit_generator.state for g in all_generators(model)],
        "random": config.random_generator().bit_generator.state,
        "trainable": [layer.trainable for layer in model.layers],
        "stop": model.stop_training,
    }
    for number, callback in enumerate(callbacks):
        if hasattr(callback, "state_dict"):
            found |= {f"{number} {name}": v for name, v in callback.state_dict().items()}
    return found


def assert_equal(result, expected):
    """Compare bit for bit."""
    assert set(result) == set(expected)
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            assert result[name].dtype == value.dtype, name
            assert result[name].tobytes() == value.tobytes(), name
        else:
            assert result[name] == value, name


WITHOUT_KERNELS = ("recurrent dropout", "masked, windows")


@pytest.mark.parametrize(
    ("kind", "backend"),
    [(k, "auto") for k in KINDS]
    + [pytest.param(k, "numpy", marks=pytest.mark.slow) for k in WITHOUT_KERNELS],
)
def test_training_stopped_after_any_batch_continues_bit_for_bit(kind, backend, tmp_path):
    config.set_backend(backend)
    training = Training(*KINDS[kind])
    model = training.fresh()
    expected = training.run(model)
    backup = EveryBatch(tmp_path / "run.h5", copies=True)
    model = training.fresh()
    assert_equal(training.run(model, backup), expected)
    assert len(backup.copies) >= 8
    assert kind.startswith("rows") == any(name.startswith("last step") for name in expected)
    for number, copy in enumerate(backup.copies):
        model = training.fresh() if number == 5 else training.used(model)
        assert_equal(training.run(model, EveryBatch(copy)), expected)


class GraphTraining(Training):
    """A training of a model with two inputs, sequences of different lengths, and two outputs."""

    def __init__(self):
        x = {"words": [x[:, 0] > 0 for x in RAGGED], "features": SERIES[:, 0]}
        x["words"] = [words.astype("int32") for words in x["words"]]
        y = {"tags": [words * 2 for words in x["words"]], "kind": VALUES[:, :1] > 0}
        options = {
            "validation_split": 0.3,
            "class_weight": {"kind": {0: 1.0, 1: 2.0}},
            "sample_weight": {"tags": np.linspace(0, 1, 14)},
        }
        optimizer = seqnet.optimizers.Adam(0.1, use_ema=True)
        super().__init__(lambda: self.graph().layers, optimizer, (x, y), options, [])

    def graph(self):
        words = seqnet.Input((None,), dtype="int32", name="words")
        features = seqnet.Input((3,), name="features")
        steps = LSTM(2, return_sequences=True, recurrent_dropout=0.2)(Embedding(2, 2)(words))
        joined = Concatenate()([GlobalAveragePooling1D()(steps), Dropout(0.3)(features)])
        kind = Dense(1, activation="sigmoid")(BatchNormalization()(joined))
        tags = Dense(3, activation="softmax")(steps)
        return seqnet.Model([words, features], {"tags": tags, "kind": kind})

    def fresh(self):
        seqnet.set_random_seed(1)
        model = self.graph()
        losses = {"tags": "sparse_categorical_crossentropy", "kind": "binary_crossentropy"}
        optimizer = type(self.optimizer).from_config(self.numbers)
        model.compile(optimizer, losses, {"kind": ["AUC"]}, loss_weights={"kind": 0.3})
        return model


def test_a_model_of_several_inputs_and_outputs_continues_bit_for_bit(tmp_path):
    training = GraphTraining()
    backup = EveryBatch(tmp_path / "run.h5", copies=True)
    model = training.fresh()
    expected = training.run(model, backup)
    assert len(backup.copies) >= 8
    assert "history val_kind_AUC" in expected
    for number in (1, 4, 7):  # within an epoch
        result = training.run(training.used(model), EveryBatch(backup.copies[number]))
        assert_equal(result, expected)


# ------------------------------------------------------------------------------ interruptions


X, Y = SERIES[:, 0], VALUES
SMALL = {"batch_size": 3, "epochs": 3, "verbose": 0, "validation_data": (X, Y)}


@pytest.fixture(scope="module")
def small():
    """A model of one layer, compiled once, and the results of its training."""
    model = seqnet.Model([Dense(2), Dropout(0.3)])
    model.compile("adam", "mse")
    model.build((None, 3))
    seqnet.set_random_seed(1)
    start = model.get_weights()

    def again():
        seqnet.set_random_seed(1)
        model.set_weights(start)
        model.optimizer.load_state_dict(
            {
                "iterations": 0,
                "slots": {
                    slot: {name: 0 * v.get_value() for name, v in table.items()}
                    for slot, table in model.optimizer.state.items()
                },
            },
            model.weights,
        )
        for layer in model.layers:
            for generator in layer.generators:
                generator.set_value(np.random.default_rng(2))
        return model

    again().fit(X, Y, **SMALL)
    return again, outcome(model)


class Signals(Callback):
    """Sends signals to its own process before one batch."""

    def __init__(self, at, *numbers):
        self.at, self.numbers, self.entries = at, numbers, []

    def get_config(self):
        return {}

    def on_batch_begin(self, batch, logs=None):
        if (len(self.model.history.epoch), batch) == self.at:
            for number in self.numbers:
                os.kill(os.getpid(), number)

    def on_batch_end(self, batch, logs=None):
        self.entries.append(batch)

    def on_train_end(self, logs=None):
        self.entries.append("end")


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("at", [(0, 0), (1, 2), (1, 4), (2, 4)])
def test_ctrl_c_finishes_the_batch_saves_and_raises(small, at, tmp_path, capfd):
    again, expected = small
    path, before = tmp_path / "run.h5", handlers()
    signals = Signals(at, signal.SIGINT)
    place = f"after batch {at[1] + 1} of epoch {at[0] + 1} of 3"
    where = f"{place}.*run.h5: run the same program again to resume"
    with pytest.raises(KeyboardInterrupt, match=where):
        again().fit(X, Y, **SMALL, callbacks=[signals, BackupAndRestore(path)])
    assert handlers() == before
    assert signals.entries[-2:] == [at[1], "end"]
    assert signals.entries.count("end") == 1
    assert "Ctrl-C again stops at once" in capfd.readouterr().err
    model = again()
    model.fit(X, Y, **SMALL, callbacks=[Signals(None), BackupAndRestore(path)])
    assert_equal(outcome(model), expected)
    assert not path.exists()


def test_sigterm_saves_and_ends_the_process_with_its_status(small, tmp_path, caplog):
    again, expected = small
    path, before = tmp_path / "run.h5", handlers()
    with pytest.raises(SystemExit) as stopped:
        again().fit(
            X, Y, **SMALL, callbacks=[Signals((0, 3), signal.SIGTERM), BackupAndRestore(path)]
        )
    assert stopped.value.code == 143
    assert "interrupted after batch 4 of epoch 1" in caplog.text
    assert handlers() == before
    model = again()
    model.fit(X, Y, **SMALL, callbacks=[Signals(None), BackupAndRestore(path)])
    assert_equal(outcome(model), expected)


def test_an_interruption_during_the_validation_comes_before_its_end(small, tmp_path, monkeypatch):
    again, expected = small
    path, model, tested = tmp_path / "run.h5", again(), []
    test = model.steps.test

    def interrupt(*given, **options):
        tested.append(given)
        if len(tested) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return test(*given, **options)

    monkeypatch.setattr(model.steps, "test", interrupt)
    with pytest.raises(KeyboardInterrupt, match="after batch 5 of epoch 2"):
        model.fit(X, Y, **SMALL, callbacks=[BackupAndRestore(path)])
    assert len(tested) == 7
    monkeypatch.undo()
    again().fit(X, Y, **SMALL, callbacks=[BackupAndRestore(path)])
    assert_equal(outcome(model), expected)


def test_a_second_ctrl_c_stops_at_once(small):
    signals = Signals((0, 1), signal.SIGINT, signal.SIGINT)
    before = handlers()
    with pytest.raises(KeyboardInterrupt, match="second time"):
        small[0]().fit(X, Y, **SMALL, callbacks=[signals])
    assert signals.entries == [0, "end"]
    assert handlers() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_another_sigterm_does_not_prevent_the_save(small, number, tmp_path, monkeypatch):
    again, expected = small
    path, write = tmp_path / "run.h5", hdf5.write

    def write_slowly(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        write(*given)

    monkeypatch.setattr(hdf5, "write", write_slowly)
    with pytest.raises((SystemExit, KeyboardInterrupt)) as stopped:
        signals = Signals((0, 3), number, signal.SIGTERM, signal.SIGTERM)
        again().fit(X, Y, **SMALL, callbacks=[signals, BackupAndRestore(path)])
    assert (stopped.type is SystemExit) == (number == signal.SIGTERM)
    monkeypatch.undo()
    model = again()
    model.fit(X, Y, **SMALL, callbacks=[Signals(None), BackupAndRestore(path)])
    assert_equal(outcome(model), expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_full_disk_does_not_change_how_an_interruption_ends(
    small, number, tmp_path, monkeypatch, caplog
):
    again, expected = small
    path, write = tmp_path / "run.h5", hdf5.write
    signals = Signals((0, 3), number)

    def full(*given):
        if signals.entries and signals.entries[-1] == 3:
            raise OSError(28, "No space left on device", str(path))
        write(*given)

    monkeypatch.setattr(hdf5, "write", full)
    backup = BackupAndRestore(path)
    monkeypatch.setattr(
        backup, "on_batch_end", lambda batch, logs=None: batch < 3 and backup.save()
    )
    with pytest.raises((SystemExit, KeyboardInterrupt)) as stopped:
        again().fit(X, Y, **SMALL, callbacks=[signals, backup])
    if number == signal.SIGTERM:
        assert stopped.value.code == 143
    told = caplog.text if number == signal.SIGTERM else str(stopped.value)
    assert "could not be saved, and the file of the last save is kept: [Errno 28]" in told
    assert signals.entries[-1] == "end"
    monkeypatch.undo()
    model = again()
    model.fit(X, Y, **SMALL, callbacks=[Signals(None), BackupAndRestore(path)])
    assert_equal(outcome(model), expected)


def test_an_interruption_at_the_very_end_is_not_lost(small):
    class Last(Callback):
        def on_train_end(self, logs=None):
            os.kill(os.getpid(), signal.SIGINT)

    model = small[0]()
    with pytest.raises(KeyboardInterrupt, match="after the last batch"):
        model.fit(X, Y, **SMALL, callbacks=[Last()])
    assert_equal(outcome(model), small[1])


def test_handlers_of_the_user_are_kept(small):
    caught = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: caught.append(number))
    try:
        small[0]().fit(X, Y, **SMALL, callbacks=[Signals((0, 0), signal.SIGTERM)])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught == [signal.SIGTERM]


def test_training_in_another_thread_does_not_handle_signals(small):
    seen, model = [], small[0]()

    class Look(Callback):
        def on_batch_end(self, batch, logs=None):
            seen.append(handlers())

    before = handlers()
    thread = threading.Thread(target=lambda: model.fit(X, Y, **SMALL, callbacks=[Look()]))
    thread.start()
    thread.join()
    assert seen
    assert all(found == before for found in seen)


# ------------------------------------------------------------------------------------ the file


def stopped_run(tmp_path, callbacks=(), loss="mse", **options):
    """Return the path of the backup of an interrupted training."""
    path = tmp_path / "run.h5"
    seqnet.set_random_seed(1)
    model = seqnet.Model([Dense(2)])
    model.compile("adam", loss)
    callbacks = [*callbacks, Signals((0, 1), signal.SIGINT), BackupAndRestore(path)]
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, **(SMALL | options), callbacks=callbacks)
    return path


def go_on(
    path, layers=(), optimizer="adam", loss="mse", x=X, y=Y, callbacks=None, seed=1, **options
):
    seqnet.set_random_seed(seed)
    model = seqnet.Model(layers or [Dense(2)])
    model.compile(optimizer, loss)
    callbacks = [Signals(None)] if callbacks is None else callbacks
    callbacks = [*callbacks, BackupAndRestore(path)]
    return model.fit(x, y, **(SMALL | options), callbacks=callbacks)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 4}, "batch_size was 3 and is 4"),
        ({"x": X[:12], "y": Y[:12]}, r"data.X.checksum was .*data.X.shape\[0\] was 14 and is 12"),
        ({"x": X + 1}, "data.X.checksum was"),
        ({"y": Y + 1}, "data.y.checksum was"),
        ({"sample_weight": np.ones(14)}, "data.sample_weight was None and is"),
        ({"validation_data": (X, Y + 1)}, "validation_data.y.checksum"),
        ({"validation_data": None}, "validation_data was given and is None"),
        ({"validation_freq": 2}, "validation_freq was 1 and is 2"),
        ({"shuffle": False}, "shuffle was True and is False"),
        ({"initial_epoch": 1}, "initial_epoch was 0 and is 1"),
        ({"optimizer": "sgd"}, "optimizer was Adam and is SGD"),
        ({"optimizer": seqnet.optimizers.Adam(0.1)}, "learning_rate was 0.001 and is 0.1"),
        ({"loss": "mae"}, "loss was MeanSquaredError and is MeanAbsoluteError"),
        ({"layers": [Dense(2), Dropout(0.1)]}, r"layers was \[Dense\] and is \[Dense, Dropout\]"),
        ({"layers": [Dense(2, use_bias=False)]}, r"layers\[0\].config.use_bias was True"),
        ({"callbacks": []}, r"callbacks was \[Signals, BackupAndRestore\] and is \[B"),
        ({"callbacks": [Stop()]}, r"callbacks\[0\] was Signals and is Stop"),
    ],
    ids=lambda value: "",
)
def test_a_file_of_another_training_is_refused(changed, message, tmp_path, monkeypatch, request):
    path = stopped_run(tmp_path)
    before = path.read_bytes()
    request.getfixturevalue("no_compile")
    with pytest.raises(ValueError, match=f"run.h5 was saved by another training: .*{message}"):
        go_on(path, **changed)
    assert path.read_bytes() == before


def test_more_epochs_and_another_verbosity_are_accepted(tmp_path, capsys):
    path = stopped_run(tmp_path)
    assert go_on(path, epochs=5, verbose=2).epoch == [0, 1, 2, 3, 4]
    assert "Epoch 1/5" in capsys.readouterr().out


def test_on_epoch_begin_is_called_for_a_resumed_epoch(tmp_path, capsys):
    told = []

    class Told(Callback):
        def on_train_begin(self, logs=None):
            told.append("train")

        def on_epoch_begin(self, epoch, logs=None):
            told.append(f"epoch {epoch}")

        def on_batch_begin(self, batch, logs=None):
            told.append(batch)

    path = stopped_run(tmp_path, [Told()])
    told.clear()
    go_on(path, callbacks=[Told(), Signals(None)], epochs=2, verbose=1)
    assert told == ["train", "epoch 0", 2, 3, 4, "epoch 1", 0, 1, 2, 3, 4]
    assert "Epoch 1/2" in capsys.readouterr().err


def test_a_model_that_was_trained_further_in_the_same_process_is_accepted(tmp_path):
    path = tmp_path / "run.h5"
    training = Training(*KINDS["rows of a table, decayed later"])
    expected = training.run(training.fresh())
    model = training.fresh()
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            *training.data,
            **training.options,
            callbacks=[Decay(), Signals((1, 2), signal.SIGINT), BackupAndRestore(path)],
        )
    callbacks = [Decay(), Signals(None), BackupAndRestore(path)]
    model.fit(*training.data, **training.options, callbacks=callbacks)
    assert_equal(outcome(model), expected)


def test_the_file_is_a_model(tmp_path):
    path = stopped_run(tmp_path)
    model = seqnet.load_model(path)
    assert model.optimizer.state_dict()["iterations"] == 2
    assert np.isfinite(model.predict(X)).all()


def test_a_finished_training_is_restored_if_its_file_is_kept(tmp_path):
    path = tmp_path / "run.h5"
    training = Training(*KINDS["a callback that counts"])
    backup = BackupAndRestore(path, delete_checkpoint=False)
    expected = training.run(training.fresh(), backup)
    before = path.read_bytes()
    assert_equal(training.run(training.fresh(), backup), expected)
    assert path.read_bytes() == before


def test_a_file_without_a_training_is_refused(tmp_path, no_compile):
    model = seqnet.Model([Dense(2, input_shape=(3,))])
    model.save(tmp_path / "model.h5")
    with pytest.raises(ValueError, match=r"model.h5 contains no training to resume"):
        go_on(tmp_path / "model.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(ValueError, match=r"text.h5"):
        go_on(tmp_path / "text.h5")
    with pytest.raises(IsADirectoryError, match="is a directory"):
        go_on(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"The folder .*missing"):
        go_on(tmp_path / "missing" / "run.h5")
    with pytest.raises(ValueError, match="one BackupAndRestore, got 2"):
        go_on(tmp_path / "run.h5", callbacks=[BackupAndRestore(tmp_path / "other.h5")])


@pytest.mark.parametrize("frequency", ["batch", 0, 1.5, None])
def test_save_freq_is_epoch_or_a_number(frequency, tmp_path):
    with pytest.raises((ValueError, TypeError), match="save_freq"):
        BackupAndRestore(tmp_path / "run.h5", frequency)


def test_another_pytensor_is_a_warning(tmp_path, monkeypatch, caplog):
    path = stopped_run(tmp_path)
    header, arrays = hdf5.read(path)
    header["run"]["made_with"]["PyTensor"] = "2.0"
    hdf5.write(path, header, arrays)
    go_on(path)
    assert "results may differ in the last digits: PyTensor was 2.0 and is" in caplog.text


def test_a_failed_save_leaves_the_earlier_file(small, tmp_path, monkeypatch):
    path, write, written = tmp_path / "run.h5", hdf5.write, []

    def full(*given):
        if len(written) == 2:
            raise OSError("No space left on device")
        written.append(write(*given))

    monkeypatch.setattr(hdf5, "write", full)
    with pytest.raises(OSError, match="No space left"):
        small[0]().fit(X, Y, **SMALL, callbacks=[BackupAndRestore(path, 1)])
    monkeypatch.undo()
    model = small[0]()
    model.fit(X, Y, **SMALL, callbacks=[BackupAndRestore(path, 1)])
    assert_equal(outcome(model), small[1])


# ---------------------------------------------------------------------------------- processes

DRIVER = Path(__file__).parent / "resume_processes.py"


def drive(*arguments):
    """Run `resume_processes.py`; return its output."""
    found = subprocess.run(
        [sys.executable, str(DRIVER), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(DRIVER.parents[2])},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_killed_processes_lose_nothing(tmp_path):
    printed = drive("kill", tmp_path, 60)
    found = re.fullmatch(r"(\d+) processes killed in \d+ trainings, of which 0 differ\n", printed)
    assert found, printed
    assert int(found[1]) >= 60, printed


def test_one_seed_gives_one_result_in_all_processes():
    first, second = drive("train", 7), drive("train", 7)
    assert first == second
    assert len(first) == 65

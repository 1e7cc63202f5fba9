"""The loop of `fit`: stopping, validation and interruptions."""

import numpy as np
import pytest

import seqnet
from seqnet.callbacks import Callback
from seqnet.data import Batch, Epoch
from seqnet.data.arrays import ArrayDataset
from seqnet.data.columns import StepColumn
from seqnet.data.ragged import RaggedDataset
from seqnet.layers import Dense

RNG = np.random.default_rng(20261122)
X = RNG.normal(size=(10, 3))
Y = RNG.normal(size=(10, 2))


@pytest.fixture(scope="module")
def model():
    """A float64 model of one matrix, compiled once."""
    made = seqnet.Model([Dense(2, dtype="float64")])
    made.compile("sgd", "mse")
    return made


class Diary(Callback):
    """Records the called hooks and runs an action at one batch."""

    def __init__(self, at=None, action=None):
        self.at, self.action, self.entries = at, action, []

    def on_train_end(self, logs=None):
        self.entries.append("train end")

    def on_epoch_end(self, epoch, logs=None):
        self.entries.append(f"epoch {epoch}: {', '.join(logs)}")

    def on_batch_end(self, batch, logs=None):
        self.entries.append(batch)
        if batch == self.at:
            self.action(self.model)


# ------------------------------------------------------------------------------- validation


@pytest.mark.parametrize(
    ("frequency", "validated"),
    [
        (1, [0, 1, 2, 3, 4]),
        (2, [1, 3]),
        (np.int64(3), [2]),
        (9, []),
        ([1, 4], [0, 3]),
        (range(4, 9), [3, 4]),
    ],
)
def test_validation_freq_selects_epochs_counted_from_one(model, frequency, validated):
    diary = Diary()
    options = {"validation_data": (X, Y), "validation_freq": frequency, "batch_size": 10}
    history = model.fit(X, Y, epochs=5, callbacks=[diary], verbose=0, **options).history
    assert len(history["loss"]) == 5
    assert len(history.get("val_loss", [])) == len(validated)
    reports = [entry for entry in diary.entries if str(entry).startswith("epoch")]
    assert [k for k, report in enumerate(reports) if "val_loss" in report] == validated


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"validation_freq": 0}, ValueError, "validation_freq must be at least 1, got 0"),
        ({"validation_freq": 1.5}, TypeError, "validation_freq must be an integer, got 1.5"),
        ({"validation_freq": [1, 0]}, ValueError, "an epoch in validation_freq .* got 0"),
        ({"initial_epoch": 4, "epochs": 3}, ValueError, "initial_epoch=4 is above epochs=3"),
        ({"initial_epoch": 1.0}, TypeError, "initial_epoch must be an integer"),
    ],
)
def test_invalid_numbers_are_refused(options, error, message, no_compile):
    with pytest.raises(error, match=message):
        seqnet.Model([Dense(2)]).fit(X, Y, **options)


def test_there_is_no_training_if_initial_epoch_equals_epochs(model):
    assert model.fit(X, Y, epochs=3, initial_epoch=3, verbose=0).epoch == []


# --------------------------------------------------------------------------------- stopping


def test_training_stopped_within_an_epoch_ends_it_with_the_batch(model):
    diary = Diary(2, lambda model: setattr(model, "stop_training", True))
    options = {"validation_data": (X, Y), "epochs": 3, "batch_size": 2, "verbose": 0}
    history = model.fit(X, Y, callbacks=[diary], shuffle=False, **options)
    assert diary.entries == [0, 1, 2, "epoch 0: loss, val_loss", "train end"]
    assert history.epoch == [0]
    assert model.fit(X, Y, epochs=2, verbose=0).epoch == [0, 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_on_train_end_is_called_once_and_weights_are_kept(model, error):
    def fail(model):
        raise error

    model.build((None, 3))
    start = model.get_weights()
    options = {"batch_size": 2, "shuffle": False, "verbose": 0}
    model.fit(X[:6], Y[:6], **options)
    expected = model.get_weights()
    model.set_weights(start)
    diary = Diary(2, fail)
    with pytest.raises(error):
        model.fit(X, Y, callbacks=[diary], **options)
    assert diary.entries == [0, 1, 2, "train end"]
    for mine, theirs in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    model.fit(X, Y, **options)


# ---------------------------------------------------------------------------------- batches


class Counted(np.ndarray):
    """An array that counts the rows read."""

    read = 0

    def __getitem__(self, rows):
        found = super().__getitem__(rows)
        Counted.read += len(np.arange(len(self))[rows])
        return found.view(np.ndarray)


def the_same(mine, theirs):
    for a, b in zip(mine.parts(), theirs.parts(), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_batches_from_a_number_on_are_the_last_batches(ragged, shuffled):
    if ragged:
        lengths = RNG.integers(1, 9, 23)
        dataset = RaggedDataset(
            Batch(StepColumn.of([RNG.normal(size=(n, 2)) for n in lengths], "X"))
        )
    else:
        dataset = ArrayDataset(Batch(RNG.normal(size=(23, 4)), RNG.normal(size=23)))

    def batches_from(first):
        rng = np.random.default_rng(5) if shuffled else None
        return list(dataset.batches(Epoch(4, rng, first=first)))

    batches = batches_from(0)
    assert len(batches) == 6
    for first in range(7):
        found = batches_from(first)
        assert len(found) == 6 - first
        for mine, theirs in zip(found, batches[first:], strict=True):
            the_same(mine, theirs)


def test_batches_that_are_skipped_are_not_read():
    dataset = ArrayDataset(Batch(np.zeros((10, 2)).view(Counted)))
    Counted.read = 0
    assert sum(len(batch) for batch in dataset.batches(Epoch(3, first=2))) == 4
    assert Counted.read == 4

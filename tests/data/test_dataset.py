"""Batches of arrays and of trees of arrays, and custom data sets."""

import numpy as np
import pytest

import seqnet
from seqnet.callbacks import BackupAndRestore
from seqnet.data import Batch, Dataset, Epoch, RowDataset
from seqnet.layers import LSTM, Dense, Embedding

RNG = np.random.default_rng(20261124)
TOKENS = RNG.integers(1, 9, (23, 4))
CLASSES = RNG.integers(0, 3, 23)


@pytest.fixture(autouse=True, params=["float32", "float64"])
def floatx(request):
    seqnet.config.set_floatx(request.param)


class Rows(RowDataset):
    """Samples that are computed when they are read."""

    def __init__(self, tokens=TOKENS, classes=CLASSES):
        self.tokens, self.classes, self.read = tokens, classes, []

    def __len__(self):
        return len(self.tokens)

    def load(self, rows):
        self.read.append(rows)
        return Batch(self.tokens[rows], self.classes[rows])


class Drawn(Dataset):
    """Three batches, each drawn from its number."""

    closed = 0

    def batches(self, epoch):
        try:
            for number in epoch.select(range(3)):
                rng = np.random.default_rng([7, number])
                tokens = rng.integers(1, 9, (epoch.batch_size, 4))
                yield Batch(tokens, tokens[:, 0] % 3)
        finally:
            self.closed += 1


def classifier():
    seqnet.set_random_seed(3)
    model = seqnet.Model([Embedding(9, 4), LSTM(4), Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


# ---- batches


def test_a_batch_of_trees_selects_rows_of_each_array():
    inputs = {"words": np.arange(12).reshape(4, 3), "tags": {"kind": np.arange(4)}}
    batch = Batch(inputs, {"out": np.arange(4)}, mask={"words": np.ones((4, 3), bool)})
    assert len(batch) == 4
    part = batch.take(np.array([3, 1]))
    assert part.inputs["words"].tolist() == [[9, 10, 11], [3, 4, 5]]
    assert part.inputs["tags"]["kind"].tolist() == part.targets["out"].tolist() == [3, 1]
    assert part.mask["words"].shape == (2, 3)
    assert part.sample_weight is None


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (Epoch(), [0, 1, 2, 3]),
        (Epoch(first=2), [2, 3]),
        (Epoch(steps=2, before=2), [2, 3]),
        (Epoch(steps=3, before=3, first=1), [0, 1]),
        (Epoch(steps=2, before=2, rng=RNG), [0, 1]),
    ],
)
def test_an_epoch_selects_its_batches(epoch, expected):
    assert list(epoch.select(range(4))) == expected


# ---- custom data sets


def test_custom_rows_train_like_arrays():
    histories = []
    for data in [(TOKENS, CLASSES), (Rows(),)]:
        model = classifier()
        options = {"epochs": 3, "batch_size": 5, "verbose": 0, "class_weight": {1: 2.0}}
        history = model.fit(*data, validation_split=0.3, **options)
        histories.append(history.history)
    assert histories[0] == histories[1]


def test_custom_rows_are_evaluated_and_predicted_like_arrays():
    model = classifier()
    assert model.evaluate(Rows(), batch_size=5) == model.evaluate(TOKENS, CLASSES, batch_size=5)
    np.testing.assert_array_equal(model.predict(Rows()), model.predict(TOKENS))


def test_only_rows_that_are_needed_are_read():
    data, model = Rows(), classifier()
    model.evaluate(data, batch_size=4, steps=2)
    assert data.read == [slice(0, 1), slice(0, 4), slice(4, 8)]


def test_custom_batches_are_closed_after_each_epoch():
    data, model = Drawn(), classifier()
    history = model.fit(data, epochs=2, batch_size=6, verbose=0, validation_data=Drawn())
    assert len(history.history["val_loss"]) == 2
    assert data.closed >= 3
    assert model.predict(data, batch_size=6).shape == (18, 3)


@pytest.mark.parametrize("data", [Rows, Drawn])
def test_training_on_custom_data_is_resumed_exactly(data, tmp_path):
    def train(*callbacks):
        model = classifier()
        model.fit(data(), batch_size=4, epochs=2, verbose=0, callbacks=callbacks)
        return model.get_weights()

    class Stop(seqnet.callbacks.Callback):
        def on_batch_end(self, batch, logs=None):
            if batch == 1 and power["is off"]:
                raise RuntimeError

    expected, power = train(), {"is off": True}
    backup = tmp_path / "run.h5"
    with pytest.raises(RuntimeError):
        train(BackupAndRestore(backup, 1), Stop())
    power["is off"] = False
    for mine, theirs in zip(train(BackupAndRestore(backup, 1), Stop()), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_errors_for_custom_data_name_the_row():
    classes = CLASSES.copy()
    classes[17] = 5
    with pytest.raises(ValueError, match=r"y holds class 5 at \(17,\)"):
        classifier().fit(Rows(classes=classes), batch_size=4, verbose=0)
    with pytest.raises(ValueError, match=r"X holds 9 at \(0, 1\).*input_dim=9"):
        classifier().fit(Rows(np.full((23, 4), 9) - [1, 0, 1, 1]), verbose=0)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((TOKENS, CLASSES), TypeError, "must return objects of seqnet.data.Batch, got tuple of 2"),
        (Batch(TOKENS), ValueError, "a batch of X has no targets"),
        (Batch(TOKENS, CLASSES[:3]), ValueError, "same number of samples, got 23 in X"),
    ],
)
def test_a_load_without_a_batch_is_refused(batch, error, message, no_compile):
    class Wrong(Dataset):
        def batches(self, epoch):
            yield batch

    with pytest.raises(error, match=message):
        classifier().fit(Wrong(), verbose=0)


def test_targets_in_addition_to_a_data_set_are_refused(no_compile):
    with pytest.raises(ValueError, match="so y cannot be passed as well"):
        classifier().fit(Rows(), CLASSES, verbose=0)


def test_a_data_set_without_batches_is_refused(no_compile):
    class Empty(Dataset):
        def batches(self, epoch):
            yield from ()

    with pytest.raises(ValueError, match="X has no batches"):
        classifier().fit(Empty(), verbose=0)


# ---- class weights


def test_class_weights_prepare_the_data_once_and_do_not_change_the_validation():
    weights = {0: 3.0, 2: 0.5}
    model, data = classifier(), Rows()
    given = np.array([3.0, 1.0, 0.5])[CLASSES]
    history = model.fit(
        data, batch_size=5, epochs=2, verbose=0, validation_split=0.3, class_weight=weights
    )
    other = classifier()
    expected = other.fit(
        TOKENS[:16], CLASSES[:16], batch_size=5, epochs=2, verbose=0, sample_weight=given[:16],
        validation_data=(TOKENS[16:], CLASSES[16:]),
    )  # fmt: skip
    assert history.history == expected.history

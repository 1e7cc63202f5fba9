import io

import numpy as np
import pytest

import seqnet
from seqnet.callbacks import Callback, EpochLine, History, ProgressBar
from seqnet.layers import Dense

X = np.linspace(-1, 1, 10).reshape(5, 2)
Y = X[:, :1]


@pytest.fixture
def model():
    made = seqnet.Model([Dense(1)])
    made.compile("sgd", "mse")
    return made


class Diary(Callback):
    """Writes down every call."""

    def __init__(self, name="", entries=None):
        self.name, self.entries = name, [] if entries is None else entries

    def on_train_begin(self, logs=None):
        self.entries.append(f"{self.name}train begin")

    def on_train_end(self, logs=None):
        self.entries.append(f"{self.name}train end")

    def on_epoch_begin(self, epoch, logs=None):
        self.entries.append(f"{self.name}epoch {epoch} begin")

    def on_epoch_end(self, epoch, logs=None):
        self.entries.append(f"{self.name}epoch {epoch} end: {', '.join(logs)}")

    def on_batch_begin(self, batch, logs=None):
        self.entries.append(f"{self.name}batch {batch} begin")

    def on_batch_end(self, batch, logs=None):
        self.entries.append(f"{self.name}batch {batch} end: {', '.join(logs)}")


def test_hooks_are_called_in_order(model):
    diary = Diary()
    model.fit(
        X, Y, batch_size=3, epochs=2, initial_epoch=1, callbacks=[diary], verbose=0,
        validation_data=(X, Y),
    )  # fmt: skip
    assert diary.entries == [
        "train begin",
        "epoch 1 begin",
        "batch 0 begin",
        "batch 0 end: loss",
        "batch 1 begin",
        "batch 1 end: loss",
        "epoch 1 end: loss, val_loss",
        "train end",
    ]
    assert diary.model is model
    assert diary.params == {
        "epochs": 2,
        "batch_size": 3,
        "samples": 5,
        "steps": 2,
        "metrics": ["loss", "val_loss"],
    }


def test_callbacks_are_called_in_the_order_of_the_list(model):
    entries = []
    model.fit(X, Y, callbacks=[Diary("a ", entries), Diary("b ", entries)], verbose=0)
    assert [e[0] for e in entries] == ["a", "b"] * 6


def test_batch_figures_are_those_of_the_epoch_so_far(model):
    class Losses(Callback):
        def __init__(self):
            self.seen = []

        def on_batch_end(self, batch, logs=None):
            self.seen.append(logs["loss"])

    model.optimizer.learning_rate = 0.0
    losses = Losses()
    history = model.fit(X, Y, batch_size=3, shuffle=False, callbacks=[losses], verbose=0)
    assert losses.seen[0] == pytest.approx(model.evaluate(X[:3], Y[:3]), rel=1e-5)
    assert losses.seen[1] == history.history["loss"][0]


def test_a_callback_stops_the_training_after_its_epoch(model):
    class Stop(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    assert model.fit(X, Y, epochs=9, callbacks=[Stop()], verbose=0).epoch == [0, 1]
    assert model.fit(X, Y, epochs=2, verbose=0).epoch == [0, 1]


def test_the_end_is_told_even_if_training_fails(model):
    class Fail(Callback):
        def on_batch_end(self, batch, logs=None):
            raise RuntimeError("no more")

    diary = Diary()
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(X, Y, callbacks=[diary, Fail()], verbose=0)
    assert diary.entries[-1] == "train end"


def test_a_callback_changes_the_learning_rate(model):
    class Halve(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.learning_rate /= 2

    model.fit(X, Y, epochs=3, callbacks=[Halve()], verbose=0)
    assert model.optimizer.learning_rate == pytest.approx(0.01 / 8)


def test_no_callbacks_may_be_none(model):
    assert model.fit(X, Y, callbacks=None, verbose=0).epoch == [0]


def test_the_progress_bar_counts_batches_and_shows_figures(model):
    screen = io.StringIO()
    model.fit(X, Y, batch_size=2, epochs=2, callbacks=[ProgressBar(file=screen)], verbose=0)
    text = screen.getvalue()
    assert "Epoch 1/2" in text
    assert "Epoch 2/2" in text
    assert "3/3" in text
    assert "loss=" in text


def test_the_progress_bar_counts_other_units(model):
    screen = io.StringIO()
    bar = ProgressBar("char", per_batch=100, file=screen)
    model.fit(X, Y, batch_size=2, callbacks=[bar], verbose=0)
    assert "300/300" in screen.getvalue()
    assert "char/s" in screen.getvalue()


def test_an_epoch_without_a_batch_hook_still_has_a_bar_on_the_error_stream(model, capsys):
    model.fit(X, Y, verbose=1)
    captured = capsys.readouterr()
    assert "Epoch 1/1" in captured.err
    assert "Compiling the training function" in captured.err


def test_verbose_two_prints_one_line_an_epoch(model, capsys):
    model.fit(X, Y, epochs=2, verbose=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Epoch")]
    assert [line.split()[:3] for line in lines] == [
        ["Epoch", "1/2", "loss"],
        ["Epoch", "2/2", "loss"],
    ]


def test_history_grows_by_name():
    history = History()
    history.on_epoch_end(0, {"loss": 1.0})
    history.on_epoch_end(1, {"loss": 0.5, "val_loss": 2.0})
    assert history.history == {"loss": [1.0, 0.5], "val_loss": [2.0]}


def test_a_line_has_four_digits(capsys):
    line = EpochLine()
    line.params = {"epochs": 7}
    line.on_epoch_end(2, {"loss": 0.123456, "accuracy": 1.0})
    assert capsys.readouterr().out == "Epoch 3/7  loss 0.1235  accuracy 1\n"

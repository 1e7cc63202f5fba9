import io
import os
import pty
import termios
from contextlib import suppress

import pytest
from helpers import X, Y

from seqnet.callbacks import Callback, EpochLine, ProgressBar, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def epochs(bar, count, batches, steps="the same", first=0):
    """Call a bar's hooks as fit does."""
    bar.set_params({"epochs": count, "steps": batches if steps == "the same" else steps})
    bar.on_train_begin({})
    for epoch in range(count):
        bar.on_epoch_begin(epoch, {})
        for batch in range(first, batches):
            bar.on_train_batch_end(batch, {"loss": 1 / (batch + 1)})
        bar.on_epoch_end(epoch, {"loss": 0.5, "val_loss": 0.25})
    bar.on_train_end({})
    return bar.file.getvalue()


def test_the_progress_bar_counts_batches_and_shows_logs(model):
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


def test_verbose_one_shows_a_bar_on_the_error_stream(model, capsys):
    model.fit(X, Y, verbose=1)
    captured = capsys.readouterr()
    assert "Epoch 1/1" in captured.err
    assert "Compiling the training function" in captured.err


def test_verbose_two_prints_one_line_per_epoch(model, capsys):
    model.fit(X, Y, epochs=2, verbose=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Epoch")]
    assert [line.split()[:3] for line in lines] == [
        ["Epoch", "1/2", "loss"],
        ["Epoch", "2/2", "loss"],
    ]


def test_a_line_has_four_digits(capsys):
    line = EpochLine()
    line.params = {"epochs": 7}
    line.on_epoch_end(2, {"loss": 0.123456, "accuracy": 1.0})
    assert capsys.readouterr().out == "Epoch 3/7  loss 0.1235  accuracy 1\n"


def test_a_log_file_gets_one_line_per_epoch():
    text = epochs(ProgressBar(file=io.StringIO()), 3, 1000)
    assert "\r" not in text
    lines = text.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Epoch 1/3", "Epoch 2/3", "Epoch 3/3"]
    assert all("1000/1000" in line and "loss=0.5, val_loss=0.25" in line for line in lines)


def test_a_log_file_gets_more_lines_in_a_long_epoch():
    now = [1000.0]
    screen = io.StringIO()
    bar = ProgressBar(file=screen)
    bar.set_params({"epochs": 1, "steps": 400})
    bar.on_epoch_begin(0, {})
    bar.bar._time = lambda: now[0]
    bar.bar.start_t = bar.bar.last_print_t = now[0]
    for batch in range(400):
        now[0] += 1.0
        bar.on_train_batch_end(batch, {"loss": 1.0})
    bar.on_epoch_end(0, {"loss": 1.0})
    lines = screen.getvalue().splitlines()
    assert len(lines) == 400 // 60 + 1
    assert "60/400" in lines[0]
    assert "loss=1" in lines[0]
    assert "400/400" in lines[-1]


def test_a_terminal_gets_a_bar_that_is_redrawn():
    text = epochs(ProgressBar(file=Terminal()), 2, 100)
    assert "\rEpoch 1/2: 100%" in text
    assert text.count("\n") == 2
    assert "loss=0.5, val_loss=0.25" in text


@pytest.mark.parametrize(("size", "drawn"), [((24, 80), True), ((24, 0), False), ((0, 80), False)])
def test_a_terminal_without_a_size_is_a_log_file(size, drawn):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, size)
    with open(theirs, "w") as terminal, open(ours, "rb", buffering=0):
        assert progress.is_screen(terminal) == drawn


@pytest.mark.parametrize("screen", [io.StringIO, Terminal])
def test_the_first_epoch_counts_a_stream_of_unknown_length(screen):
    text = epochs(ProgressBar(file=screen()), 2, 7, steps=None)
    assert "Epoch 1/2: 7batch" in text
    assert "7/7" in text


def test_the_bar_of_a_resumed_epoch_continues():
    bar = ProgressBar(file=io.StringIO())
    assert "10/10" in epochs(bar, 1, 10, first=8)
    assert bar.bar.initial == 8


def test_logs_are_formatted_when_they_are_drawn_and_not_for_each_batch(monkeypatch):
    spelled = []
    spell = progress.format_logs
    monkeypatch.setattr(progress, "format_logs", lambda logs: spelled.append(1) or spell(logs))
    epochs(ProgressBar(file=io.StringIO()), 1, 1000)
    assert len(spelled) < 10


def test_a_bar_is_closed_when_training_fails(model):
    class Fail(Callback):
        def on_batch_end(self, batch, logs=None):
            raise RuntimeError("no more")

    bar = ProgressBar(file=Terminal())
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(X, Y, callbacks=[Fail(), bar], verbose=0)
    assert bar.bar.disable  # which is how tqdm marks a bar that is closed


def test_no_metric_is_cut_off_at_the_end_of_an_epoch():
    """A terminal of 50 columns: the bar goes, the figures stay."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 50))
    with open(slave, "w") as file:
        bar = ProgressBar(file=file)
        bar.set_params({"epochs": 1, "steps": 1})
        bar.on_epoch_begin(0)
        bar.on_train_batch_end(0, {"loss": 0.5})
        bar.on_epoch_end(0, {"loss": 0.5, "accuracy": 0.25, "val_loss": 0.125, "val_accuracy": 1})
    found = b""
    with suppress(OSError):  # which is the end of what a closed terminal held
        while piece := os.read(master, 10_000):
            found += piece
    os.close(master)
    last = found.decode().rstrip().rpartition("\r")[2]
    assert "1/1" in last
    assert last.endswith("val_loss=0.125, val_accuracy=1]")


def test_a_bar_among_the_callbacks_replaces_the_default_one(model, capsys):
    screen = io.StringIO()
    model.fit(X, Y, callbacks=[ProgressBar("row", file=screen)], verbose="auto")
    assert "Epoch 1/1" in screen.getvalue()
    assert "Epoch 1/1" not in capsys.readouterr().err

import io
import os
import pty
import re
import sys
import termios
from contextlib import suppress

import pytest
from helpers import Plug, X, Y

import seqnet
from seqnet.callbacks import BackupAndRestore, Callback, EpochLine, ProgressBar, progress


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
    form = r"Epoch {}/2 - \d+s - \d+[mu]?s/step - loss: \S+"
    for number, line in enumerate(lines, 1):
        assert re.fullmatch(form.format(number), line)
    assert len(lines) == 2


def test_a_line_has_the_times_of_the_epoch_and_of_a_training_step(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    line = EpochLine()
    line.set_params({"epochs": 7})
    line.set_trainer(object())  # as in fit
    line.on_epoch_begin(2)
    for batch in range(10):
        line.on_train_batch_begin(batch)
        now[0] += 0.05
    line.on_test_begin()
    line.on_test_batch_begin(0)
    now[0] += 2.5
    line.on_test_end({"loss": 2})
    line.on_epoch_end(2, {"loss": 0.123456, "accuracy": 1.0})
    expected = "Epoch 3/7 - 3s - 50ms/step - loss: 0.1235 - accuracy: 1\n"
    assert capsys.readouterr().out == expected


def test_log_file_output_has_one_line_per_epoch():
    text = epochs(ProgressBar(file=io.StringIO()), 3, 1000)
    assert "\r" not in text
    lines = text.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Epoch 1/3", "Epoch 2/3", "Epoch 3/3"]
    assert all("1000/1000" in line and "loss=0.5, val_loss=0.25" in line for line in lines)


def test_log_file_output_has_more_lines_in_a_long_epoch():
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


def test_terminal_output_is_a_redrawn_bar():
    text = epochs(ProgressBar(file=Terminal()), 2, 100)
    assert "\rEpoch 1/2: 100/100 |####" in text
    assert text.count("\n") == 2
    assert "loss=0.5, val_loss=0.25" in text


@pytest.mark.parametrize(("size", "drawn"), [((24, 80), True), ((24, 0), False), ((0, 80), False)])
def test_a_terminal_without_a_size_is_treated_as_a_log_file(size, drawn):
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
    monkeypatch.setattr(progress, "format_logs", lambda *given: spelled.append(1) or spell(*given))
    epochs(ProgressBar(file=io.StringIO()), 1, 1000)
    assert len(spelled) < 10


def test_a_bar_is_closed_when_training_fails(model):
    class Fail(Callback):
        def on_batch_end(self, batch, logs=None):
            raise RuntimeError("no more")

    bar = ProgressBar(file=Terminal())
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(X, Y, callbacks=[Fail(), bar], verbose=0)
    assert bar.bar.disable  # tqdm marks a closed bar this way


class Pty:
    """A terminal with a number of columns, which records its output."""

    def __init__(self, columns):
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, columns))
        self.file = open(slave, "w")  # noqa: SIM115 -- closed by `drawings`

    def drawings(self):
        """Return the drawings without trailing spaces."""
        self.file.close()
        found = b""
        with suppress(OSError):  # the end of the output of a closed terminal
            while piece := os.read(self.master, 10_000):
                found += piece
        os.close(self.master)
        text = found.decode().replace("\r\n", "\n")
        lines = [re.sub(" +\n", "\n", part).rstrip() for part in text.split("\r")]
        return [line for line in lines if line]


LOGS = {"loss": 0.12345, "accuracy": 0.98765, "mae": 0.34567}
EVERYTHING = LOGS | {f"val_{name}": value for name, value in LOGS.items()}


def in_terminal(columns, logs, last_logs):
    """Return the last drawing within an epoch and the one at its end."""
    terminal = Pty(columns)
    bar = ProgressBar(file=terminal.file)
    bar.set_params({"epochs": 1, "steps": 20})
    bar.on_epoch_begin(0)
    for batch in range(19):
        bar.on_train_batch_end(batch, logs)
    bar.bar.refresh()
    bar.on_train_batch_end(19, logs)
    bar.on_epoch_end(0, last_logs)
    *_, running, done = terminal.drawings()
    return running, done


@pytest.mark.parametrize(("columns", "lines"), [(80, 2), (50, 3), (35, 5)])
def test_no_metric_is_cut_in_a_narrow_terminal(columns, lines):
    running, done = in_terminal(columns, LOGS, EVERYTHING)
    assert len(running) <= columns
    shown = re.findall(r"(\w+)=([\d.]+)", running)
    assert all(f"{LOGS[name]:.{len(text) - 2}f}" == text for name, text in shown)
    assert len(shown) == 3 or running.endswith(" ...")
    assert len(done.splitlines()) == lines
    assert max(map(len, done.splitlines())) <= columns
    found = dict(re.findall(r"(\w+)=([\d.]+)", done))
    assert found == progress.format_logs(EVERYTHING)


def test_the_bar_has_at_least_ten_cells_or_is_left_out():
    for columns in range(40, 130, 5):
        running, _ = in_terminal(columns, LOGS, LOGS)
        assert running.count("|") == 0 or len(running.split("|")[1]) >= 10


def test_two_metrics_and_a_validation_fit_80_columns_at_the_end():
    logs = {name: value for name, value in EVERYTHING.items() if "mae" not in name}
    _, done = in_terminal(80, LOGS, logs)
    assert "\n" not in done
    assert all(f"{name}={value:.3g}" in done for name, value in logs.items())


def test_braces_in_names_are_shown():
    _, done = in_terminal(40, {"a{0}": 1}, {"a{0}": 1, "another{1}": 2, "third{2}": 3})
    assert "another{1}=2" in done


def test_evaluate_and_predict_draw_a_bar(model, capsys):
    model.fit(X, Y, verbose=0)
    model.evaluate(X, Y, batch_size=2, verbose=1)
    model.predict(X, batch_size=2, verbose="auto")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" |")[0] for line in lines if "|" in line] == [
        "Evaluate: 3/3",
        "Predict: 3/3",
    ]
    assert any("loss=" in line for line in lines)


def test_evaluate_and_predict_print_a_line(model, capsys):
    model.fit(X, Y, verbose=0)
    model.evaluate(X, Y, verbose=2)
    model.predict(X, verbose=2)
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"Evaluate - \d+s - \S+/step - loss: \S+", first)
    assert re.fullmatch(r"Predict - \d+s - \S+/step", second)


def test_evaluate_and_predict_are_silent_by_default(model, capsys):
    model.fit(X, Y, verbose=0)
    model.evaluate(X, Y)
    model.predict(X)
    assert capsys.readouterr() == ("", "")


def test_a_bar_is_closed_when_an_evaluation_fails(model):
    class Fail(Callback):
        def on_test_batch_end(self, batch, logs=None):
            raise RuntimeError("no more")

    bar = ProgressBar(file=Terminal())
    with pytest.raises(RuntimeError, match="no more"):
        model.evaluate(X, Y, callbacks=[Fail(), bar])
    assert bar.bar.disable


def test_an_evaluation_within_a_training_has_a_separate_bar(model, capsys):
    class Evaluate(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.evaluate(X, Y, verbose=1)

    model.fit(X, Y, epochs=2, validation_split=0.4, callbacks=[Evaluate()])
    lines = [line.split(":")[0] for line in capsys.readouterr().err.splitlines() if "|" in line]
    assert lines == ["Evaluate", "Epoch 1/2", "Evaluate", "Epoch 2/2"]


def test_compiling_is_announced_before_it_starts(model, capsys, monkeypatch):
    announced = []
    monkeypatch.setattr(
        type(model), "forward", lambda *given: announced.append(capsys.readouterr().err) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        model.fit(X, Y)
    assert announced == ["Compiling the training function ..."]
    assert capsys.readouterr().err == " not finished\n"


def test_compiling_is_silent_without_verbose(model, capsys):
    model.fit(X, Y, verbose=0)
    assert capsys.readouterr() == ("", "")


def test_a_resumed_run_says_where_it_continues(model, capsys, tmp_path):
    path = tmp_path / "run.h5"

    def train(pulled_at=None, epochs=2, verbose=1):
        seqnet.set_random_seed(3)
        again = seqnet.Model([seqnet.layers.Dense(1)])
        again.compile("sgd", "mse")
        callbacks = [Plug(pulled_at), BackupAndRestore(path, 1, delete_checkpoint=False)]
        again.fit(X, Y, batch_size=2, epochs=epochs, callbacks=callbacks, verbose=verbose)
        return [line for line in capsys.readouterr().out.splitlines() if str(path) in line]

    with pytest.raises(RuntimeError):
        train(pulled_at=5)
    with pytest.raises(RuntimeError):
        train(pulled_at=1, verbose=0)
    capsys.readouterr()
    assert train() == [f"Resuming from {path} at epoch 2/2, batch 2/3."]
    assert train() == [f"The training in {path} has ended: its result is restored."]
    assert train(epochs=3) == [f"Resuming from {path} at epoch 3/3."]
    assert train(epochs=3, verbose=0) == []


class Kernel:
    """Replaces the IPython kernel of a notebook and stores its outputs."""

    kernel = None

    def __init__(self):
        self.outputs = []

    def get_ipython(self):
        return self

    def display(self, data, raw, display_id):
        self.outputs.append(data)
        return Handle(self.outputs, len(self.outputs) - 1)


class Handle:
    def __init__(self, outputs, place):
        self.outputs, self.place = outputs, place

    def update(self, data, raw):
        self.outputs[self.place] = data


def test_a_notebook_stores_the_last_drawing(model, monkeypatch, capsys):
    kernel = Kernel()
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", kernel)
    model.fit(X, Y, batch_size=2, epochs=2, verbose=1)
    first, second = [output["text/plain"] for output in kernel.outputs]
    assert first.startswith("Epoch 1/2: 3/3 |")
    assert second.startswith("Epoch 2/2: 3/3 |")
    assert "loss=" in second
    assert "Epoch" not in "".join(capsys.readouterr())


def test_a_bar_among_the_callbacks_replaces_the_default_one(model, capsys):
    screen = io.StringIO()
    model.fit(X, Y, callbacks=[ProgressBar("row", file=screen)], verbose="auto")
    assert "Epoch 1/1" in screen.getvalue()
    assert "Epoch 1/1" not in capsys.readouterr().err

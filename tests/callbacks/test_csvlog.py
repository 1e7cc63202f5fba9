import csv

import numpy as np
import pytest
from helpers import X, Y

from seqnet.callbacks import CSVLogger, LearningRateScheduler


def test_rows_equal_the_history(model, tmp_path):
    path = tmp_path / "log.csv"
    rate = LearningRateScheduler(lambda epoch, rate: rate)
    history = model.fit(X, Y, epochs=3, callbacks=[rate, CSVLogger(path)], verbose=0)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "learning_rate", "loss"]
    for name, values in history.history.items():
        assert [float(row[name]) for row in rows] == values


def test_a_row_is_written_when_its_epoch_ends(tmp_path):
    path = tmp_path / "log.csv"
    log = CSVLogger(path, separator="\t")
    for epoch in range(3):
        log.on_epoch_end(epoch, {"loss": 0.5})
        assert path.read_text() == "epoch\tloss\n" + "".join(
            f"{k}\t0.5\n" for k in range(epoch + 1)
        )


def test_a_resumed_run_removes_the_rows_it_repeats(tmp_path):
    path = tmp_path / "log.csv"
    killed = CSVLogger(path)
    for epoch in range(3):
        killed.on_epoch_end(epoch, {"loss": float(epoch)})
        if epoch == 1:
            state = killed.state_dict()
    resumed = CSVLogger(path)
    resumed.on_train_begin({})
    resumed.load_state_dict(state)
    for epoch in (2, 3):
        resumed.on_epoch_end(epoch, {"loss": 10.0 * epoch})
    assert path.read_text() == "epoch,loss\n0,0.0\n1,1.0\n2,20.0\n3,30.0\n"


def test_a_run_resumed_before_its_first_row_begins_the_file(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("old\n")
    state = CSVLogger(path).state_dict()
    log = CSVLogger(path)
    log.load_state_dict(state)
    log.on_epoch_end(0, {"loss": 1.0})
    assert path.read_text() == "epoch,loss\n0,1.0\n"


@pytest.mark.parametrize("append", [True, False])
def test_a_resumed_run_whose_file_is_missing_begins_a_new_one(tmp_path, append):
    path = tmp_path / "log.csv"
    killed = CSVLogger(path, append=append)
    killed.on_epoch_end(0, {"loss": 1.0})
    state = killed.state_dict()
    path.unlink()
    resumed = CSVLogger(path, append=append)
    resumed.load_state_dict(state)
    resumed.on_epoch_end(1, {"loss": 2.0})
    assert path.read_text() == "epoch,loss\n1,2.0\n"


def test_append_adds_rows_at_the_end(model, tmp_path):
    path = tmp_path / "log.csv"
    for first in (0, 2):
        log = CSVLogger(path, append=True)
        model.fit(X, Y, epochs=first + 2, initial_epoch=first, callbacks=[log], verbose=0)
    assert [line.split(",")[0] for line in path.read_text().splitlines()] == [
        "epoch", "0", "1", "2", "3",
    ]  # fmt: skip


def test_append_refuses_other_columns(model, tmp_path, no_compile):
    path = tmp_path / "log.csv"
    path.write_text("epoch,accuracy\n0,0.5\n")
    with pytest.raises(ValueError, match="epoch, accuracy, but this training has epoch, loss"):
        model.fit(X, Y, callbacks=[CSVLogger(path, append=True)], verbose=0)
    assert path.read_text() == "epoch,accuracy\n0,0.5\n"


def test_a_missing_metric_is_written_as_na(tmp_path):
    path = tmp_path / "log.csv"
    log = CSVLogger(path)
    log.set_params({"metrics": ["loss", "val_loss"]})
    log.on_epoch_end(0, {"loss": 1.0})
    log.on_epoch_end(1, {"loss": 0.5, "val_loss": np.float32(0.25)})
    assert path.read_text() == "epoch,loss,val_loss\n0,1.0,NA\n1,0.5,0.25\n"


def test_folders_are_checked_before_anything_is_compiled(model, tmp_path, no_compile):
    with pytest.raises(FileNotFoundError, match=r"folder .*runs to save .* does not exist"):
        model.fit(X, Y, callbacks=[CSVLogger(tmp_path / "runs" / "log.csv")], verbose=0)


def test_an_invalid_separator_is_refused():
    with pytest.raises(ValueError, match="one character"):
        CSVLogger("log.csv", separator=", ")

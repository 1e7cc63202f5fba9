import numpy as np
import pytest
from helpers import X, Y

import seqnet
from seqnet.callbacks import LearningRateScheduler, ModelCheckpoint


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_save_weights_only_chooses_between_models_and_weights(model, tmp_path):
    whole = ModelCheckpoint(tmp_path / "model.h5")
    weights = ModelCheckpoint(tmp_path / "weights.h5", save_weights_only=True)
    model.fit(X, Y, epochs=2, callbacks=[whole, weights], verbose=0)
    again = seqnet.load_model(tmp_path / "model.h5")
    assert np.array_equal(again.get_weights()[0], model.get_weights()[0])
    assert again.train_on_batch(X, Y) == model.train_on_batch(X, Y)
    with pytest.raises(ValueError, match="load_weights"):
        seqnet.load_model(tmp_path / "weights.h5")
    again.load_weights(tmp_path / "weights.h5")


def test_save_best_only_saves_the_best_epochs(model, tmp_path):
    save = ModelCheckpoint(tmp_path / "{epoch}.h5", "val_loss", save_best_only=True)
    losses = model.fit(X, Y, epochs=4, callbacks=[save], validation_data=(X, Y), verbose=0).history[
        "val_loss"
    ]
    better = [k for k in range(4) if losses[k] < min(losses[:k], default=np.inf)]
    assert files(tmp_path) == [f"{k + 1}.h5" for k in better]
    assert save.best == min(losses)


def test_file_names_contain_logs_and_batch_numbers(model, tmp_path):
    rate = LearningRateScheduler(lambda epoch, rate: rate)
    named = ModelCheckpoint(tmp_path / "{epoch:02d} {learning_rate:.1f}.h5")
    model.fit(X, Y, epochs=1, callbacks=[rate, named], verbose=0)
    counted = ModelCheckpoint(tmp_path / "b{epoch}-{batch:03d}.h5", save_freq=2)
    model.fit(X, Y, batch_size=2, epochs=2, callbacks=[counted], verbose=0)
    assert files(tmp_path) == ["01 0.1.h5", "b1-002.h5", "b2-001.h5", "b2-003.h5"]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("{val_los:.2f}.h5", {}, ["val_los", "epoch, loss, val_loss", "'val_loss'"]),
        ("{batch}.h5", {}, ["'batch'", "epoch, loss, val_loss"]),
        ("{val_loss}.h5", {"save_freq": 3}, ["'val_loss'", "epoch, batch, loss"]),
        ("x.h5", {"monitor": "val_los", "save_best_only": True, "mode": "min"}, ["'val_los'"]),
        ("x.h5", {"save_best_only": True, "save_freq": 3}, ["'val_loss'", "training has loss"]),
    ],
)
def test_unknown_names_are_errors_before_anything_is_compiled(
    name, options, words, model, tmp_path, no_compile
):
    with pytest.raises(ValueError) as error:
        save = ModelCheckpoint(tmp_path / name, **options)
        model.fit(X, Y, callbacks=[save], validation_data=(X, Y), verbose=0)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_an_unknown_field_is_an_error_when_the_file_is_named(tmp_path, model):
    save = ModelCheckpoint(tmp_path / "{bleu}.h5")
    save.set_model(model)
    with pytest.raises(ValueError, match=r"'bleu'.*loss, epoch"):
        save.on_epoch_end(0, {"loss": 1.0})


@pytest.mark.parametrize("name", ["{}.h5", "{0}.h5", "{epoch:.2q}.h5", "{epoch.h5", "{a.b}.h5"])
def test_an_invalid_file_name_is_refused(name):
    with pytest.raises(ValueError, match="is not a valid file name"):
        ModelCheckpoint(name)


def test_file_names_may_contain_escaped_braces(tmp_path, model):
    model.fit(X, Y, callbacks=[ModelCheckpoint(tmp_path / "{{a}}{epoch}.h5")], verbose=0)
    assert files(tmp_path) == ["{a}1.h5"]


def test_folders_are_checked_before_anything_is_compiled(model, tmp_path, no_compile):
    with pytest.raises(FileNotFoundError, match=r"runs.*does not exist"):
        model.fit(X, Y, callbacks=[ModelCheckpoint(tmp_path / "runs" / "x.h5")], verbose=0)
    with pytest.raises(IsADirectoryError, match="is a directory"):
        model.fit(X, Y, callbacks=[ModelCheckpoint(tmp_path)], verbose=0)
    with pytest.raises(ValueError, match="field in the name of its folder"):
        ModelCheckpoint(tmp_path / "{epoch}" / "x.h5")


@pytest.mark.parametrize("save_freq", ["batch", 0, 1.5])
def test_an_invalid_frequency_is_refused(save_freq):
    with pytest.raises((TypeError, ValueError), match="save_freq"):
        ModelCheckpoint("x.h5", save_freq=save_freq)


def test_verbose_messages(model, tmp_path, capsys):
    best = ModelCheckpoint(tmp_path / "best.h5", "loss", mode="max", save_best_only=True, verbose=1)
    model.fit(X, Y, epochs=2, callbacks=[best], verbose=0)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("Epoch 1: loss ")
    assert first.endswith(f"saved as {tmp_path}/best.h5.")
    assert second.startswith("Epoch 2: loss ")
    assert "not better" in second


def test_epochs_without_the_metric_save_no_best_model(tmp_path, model):
    save = ModelCheckpoint(tmp_path / "{epoch}.h5", save_best_only=True)
    model.build((None, 2))
    save.set_model(model)
    save.set_params({"metrics": ["loss", "val_loss"]})
    save.on_epoch_end(0, {"loss": 1.0})
    save.on_epoch_end(1, {"loss": 1.0, "val_loss": 1.0})
    assert files(tmp_path) == ["2.h5"]


def test_a_failed_write_keeps_the_previous_file(tmp_path, model, monkeypatch):
    save = ModelCheckpoint(tmp_path / "model.h5")
    model.fit(X, Y, callbacks=[save], verbose=0)
    before = (tmp_path / "model.h5").read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        model.fit(X, Y, callbacks=[save], verbose=0)
    assert files(tmp_path) == ["model.h5"]
    assert (tmp_path / "model.h5").read_bytes() == before

"""Files: whole or not at all, exact, and clear about what is wrong with them."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

import seqnet
from seqnet import saving
from seqnet.layers import GRU, LSTM, Dense, Dropout, Embedding, Layer, Softmax, TimeDistributed
from seqnet.registry import register

rng = np.random.default_rng(0)
X = rng.integers(1, 7, (12, 5))
Y = rng.integers(0, 4, (12, 5))


def make(optimizer="adadelta", dropout=0.3):
    model = seqnet.Model(
        [
            Embedding(7, 3, mask_zero=True),
            Dropout(dropout),
            LSTM(4, return_sequences=True),
            GRU(3, return_sequences=True),
            TimeDistributed(Dense(4)),
            Softmax(),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy", "perplexity"])
    return model


@pytest.fixture(scope="module")
def trained():
    model = make()
    model.fit(X, Y, epochs=2, verbose=0, batch_size=4)
    return model


OPTIMIZERS = [
    seqnet.optimizers.SGD(0.1, momentum=0.9, nesterov=True, global_clipnorm=1.0),
    seqnet.optimizers.AdaGrad(clipvalue=0.1),
    seqnet.optimizers.AdaDelta(clipnorm=0.5),
    seqnet.optimizers.RMSprop(),
    seqnet.optimizers.Adam(0.01),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_a_loaded_model_makes_the_same_next_updates_bit_for_bit(optimizer, tmp_path):
    model = make(optimizer)
    model.fit(X, Y, epochs=2, verbose=0, batch_size=5)
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    for _ in range(3):
        assert again.train_on_batch(X, Y) == model.train_on_batch(X, Y)
    for mine, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again.optimizer.get_config() == model.optimizer.get_config()
    assert again.evaluate(X, Y, return_dict=True) == model.evaluate(X, Y, return_dict=True)


def test_a_model_comes_back_with_its_layers_and_metadata(trained, tmp_path):
    trained.metadata["vocabulary"] = "äöü\n" * 30000  # more than an HDF5 attribute holds
    trained.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    assert again.metadata == trained.metadata
    trained.metadata.clear()
    mine, theirs = ([layer.get_config() for layer in m.layers] for m in (again, trained))
    assert mine == theirs
    np.testing.assert_array_equal(again.predict(X), trained.predict(X))


def test_weights_are_found_by_name(trained, tmp_path):
    trained.save_weights(tmp_path / "weights.h5")
    with h5py.File(tmp_path / "weights.h5") as file:
        assert file["arrays/weights/lstm/recurrent_kernel"].shape == (4, 16)
    other = make(dropout=0.0)
    other.build((None, None))
    other.load_weights(tmp_path / "weights.h5")
    for mine, theirs in zip(other.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    trained.save(tmp_path / "model.h5")
    other.load_weights(tmp_path / "model.h5")


def test_weights_that_do_not_fit_change_nothing_and_name_layer_and_shapes(trained, tmp_path):
    trained.save_weights(tmp_path / "weights.h5")
    other = seqnet.Model([Embedding(7, 3), LSTM(5)])
    other.build((None, None))
    before = other.get_weights()
    with pytest.raises(ValueError, match=r"layer 'lstm'.*\(3, 20\).*\(3, 16\)"):
        other.load_weights(tmp_path / "weights.h5")
    fewer = seqnet.Model([Embedding(7, 3), LSTM(4)])
    fewer.build((None, None))
    with pytest.raises(ValueError, match="also has .*gru/kernel"):
        fewer.load_weights(tmp_path / "weights.h5")
    more = seqnet.Model([Embedding(7, 3), LSTM(4), Dense(2)])
    more.build((None, None))
    with pytest.raises(ValueError, match="dense/kernel, which the file lacks"):
        more.load_weights(tmp_path / "weights.h5")
    for mine, theirs in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(trained, tmp_path, monkeypatch):
    path = tmp_path / "model.h5"
    trained.save(path)
    before = path.read_bytes()

    def full(*arguments, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left.*nothing was saved.*model.h5"):
        trained.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.h5"]


def test_an_interrupted_write_leaves_the_earlier_file(trained, tmp_path, monkeypatch):
    path = tmp_path / "model.h5"
    trained.save(path)
    before = path.read_bytes()

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.h5"]


def test_a_file_cut_short_anywhere_is_told(trained, tmp_path):
    path = tmp_path / "model.h5"
    trained.save(path)
    whole = path.read_bytes()
    for share in (0, 0.01, 0.3, 0.7, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match="model.h5"):
            seqnet.load_model(path)


def test_other_files_and_folders_are_refused_by_name(trained, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not HDF5")
    with pytest.raises(ValueError, match="notes.txt cannot be read: it is no HDF5 file"):
        seqnet.load_model(text)
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(ValueError, match="foreign.h5 .*not written by seqnet"):
        seqnet.load_model(tmp_path / "foreign.h5")
    trained.save_weights(tmp_path / "weights.h5")
    with pytest.raises(ValueError, match="not a whole model"):
        seqnet.load_model(tmp_path / "weights.h5")
    with pytest.raises(FileNotFoundError, match="nowhere.h5"):
        seqnet.load_model(tmp_path / "nowhere.h5")
    with pytest.raises(IsADirectoryError, match="directory"):
        trained.save(tmp_path)
    with pytest.raises(FileNotFoundError, match="folder .*missing"):
        trained.save(tmp_path / "missing" / "model.h5")


def test_saving_before_there_are_weights_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="no weights to save yet"):
        make().save(tmp_path / "model.h5")


@register("layer")
class Twice(Layer):
    """Its input times two."""

    def call(self, inputs, mask, phase):
        return inputs * 2


class Thrice(Layer):
    """Its input times three; not registered."""

    def call(self, inputs, mask, phase):
        return inputs * 3


def test_names_in_a_file_stand_only_for_what_is_known_or_passed(tmp_path):
    path = tmp_path / "model.h5"
    model = seqnet.Model([Dense(2, input_shape=(3,)), Twice(), Thrice()])
    model.save(path)
    with pytest.raises(ValueError, match="Unknown layer 'Thrice'.*custom_objects"):
        seqnet.load_model(path)
    again = seqnet.load_model(path, custom_objects={"Thrice": Thrice})
    x = np.ones((1, 3), "float32")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_a_file_that_describes_no_model_is_told(trained, tmp_path):
    path = tmp_path / "model.h5"
    trained.save(path)
    header, arrays = saving.read(path)
    for change in (
        {"layers": 3},
        {"layers": [{"name": "LSTM", "config": {"units": "many"}}]},
        {"layers": [{"name": "os.system", "config": {}}]},
        {"input_shape": None},
        {"generators": []},
    ):
        saving.write(path, {**header, **change}, arrays)
        with pytest.raises(ValueError):
            seqnet.load_model(path)


def test_a_file_of_another_version_is_told(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "VERSION", 99)
    trained.save(tmp_path / "model.h5")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="version 99"):
        seqnet.load_model(tmp_path / "model.h5")


def test_a_file_changed_by_another_program_is_told(trained, tmp_path):
    trained.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        file["arrays/weights/lstm/bias"][0] += 1
    with pytest.raises(ValueError, match="model.h5 .*damaged or changed after it was saved"):
        seqnet.load_model(tmp_path / "model.h5")

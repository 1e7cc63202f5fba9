"""Model files: complete, exact, with clear errors for invalid files."""

from __future__ import annotations

import functools
import os

import h5py
import numpy as np
import pytest

import seqnet
from seqnet import losses
from seqnet.layers import GRU, LSTM, Dense, Dropout, Embedding, Layer, Softmax, TimeDistributed
from seqnet.registry import register
from seqnet.saving import hdf5

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
    seqnet.optimizers.Adagrad(clipvalue=0.1),
    seqnet.optimizers.Adadelta(clipnorm=0.5),
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


def test_a_loaded_model_has_its_layers_and_metadata(trained, tmp_path):
    trained.metadata["vocabulary"] = "äöü\n" * 30000  # more than fits in an HDF5 attribute
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
    with pytest.raises(ValueError, match=r"also has .*gru/kernel"):
        fewer.load_weights(tmp_path / "weights.h5")
    more = seqnet.Model([Embedding(7, 3), LSTM(4), Dense(2)])
    more.build((None, None))
    with pytest.raises(ValueError, match="dense/kernel, which the file lacks"):
        more.load_weights(tmp_path / "weights.h5")
    for mine, theirs in zip(other.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("No space left on device"), "No space left.*nothing was saved.*model.h5"),
        (KeyboardInterrupt(), None),
    ],
)
def test_an_interrupted_write_leaves_only_the_earlier_file(
    trained, tmp_path, monkeypatch, error, message
):
    path = tmp_path / "model.h5"
    trained.save(path)
    before = path.read_bytes()

    def break_off(descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", break_off)
    with pytest.raises(type(error), match=message):
        trained.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.h5"]


def test_other_files_and_folders_are_refused_by_name(trained, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not HDF5")
    with pytest.raises(ValueError, match=r"notes.txt cannot be read: it is not an HDF5 file"):
        seqnet.load_model(text)
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"foreign.h5 .*not written by seqnet"):
        seqnet.load_model(tmp_path / "foreign.h5")
    trained.save_weights(tmp_path / "weights.h5")
    with pytest.raises(ValueError, match="not a complete model"):
        seqnet.load_model(tmp_path / "weights.h5")
    with pytest.raises(FileNotFoundError, match=r"nowhere.h5"):
        seqnet.load_model(tmp_path / "nowhere.h5")
    with pytest.raises(IsADirectoryError, match="directory"):
        trained.save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"folder .*missing"):
        trained.save(tmp_path / "missing" / "model.h5")


def test_the_error_for_saving_a_model_without_weights_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="no weights to save yet"):
        make().save(tmp_path / "model.h5")


@register("layer")
class Twice(Layer):
    """Doubles its input."""

    def call(self, inputs, mask, context):
        return inputs * 2


class Thrice(Layer):
    """Triples its input; not registered."""

    def call(self, inputs, mask, context):
        return inputs * 3


def steepness(y_true, y_pred):
    return abs(y_true - y_pred).mean(axis=-1)


def test_losses_used_as_metrics_are_restored(tmp_path):
    smooth = losses.CategoricalCrossentropy(label_smoothing=0.1)
    binary = losses.BinaryCrossentropy(from_logits=True)
    asked = [smooth, losses.MeanSquaredError, "mae", steepness, binary]
    x, y = rng.normal(size=(6, 3)), np.eye(2)[rng.integers(0, 2, 6)]
    model = seqnet.Model([Dense(2, activation="softmax", input_shape=(3,))])
    model.compile("sgd", "categorical_crossentropy", asked)
    for _ in range(2):  # a loaded model can be saved again
        model.save(tmp_path / "model.h5")
        again = seqnet.load_model(tmp_path / "model.h5", {"steepness": steepness})
        assert again.metrics_asked[0].label_smoothing == 0.1
        assert again.test_on_batch(x, y) == model.test_on_batch(x, y)
        model = again


def test_names_in_a_file_refer_only_to_known_or_passed_objects(tmp_path):
    path = tmp_path / "model.h5"
    model = seqnet.Model([Dense(2, input_shape=(3,)), Twice(), Thrice()])
    model.save(path)
    with pytest.raises(ValueError, match=r"Unknown layer 'Thrice'.*custom_objects"):
        seqnet.load_model(path)
    again = seqnet.load_model(path, custom_objects={"Thrice": Thrice})
    x = np.ones((1, 3), "float32")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 3}, "layers of a model must be a list"),
        ({"layers": [{"name": "LSTM", "config": {"units": "many"}}]}, "units of LSTM .* 'many'"),
        ({"layers": [{"name": "os.system", "config": {}}]}, "Unknown layer 'os.system'"),
        ({"input_shape": None}, "input_shape must be a tuple"),
        ({"generators": []}, "random generators"),
    ],
)
def test_a_file_without_a_valid_model_is_refused(trained, tmp_path, change, message):
    path = tmp_path / "model.h5"
    trained.save(path)
    header, arrays = hdf5.read(path)
    hdf5.write(path, {**header, **change}, arrays)
    with pytest.raises(ValueError, match=f"model.h5 does not describe .*{message}"):
        seqnet.load_model(path)


def test_a_file_of_another_version_is_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "VERSION", 99)
    trained.save(tmp_path / "model.h5")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="version 99"):
        seqnet.load_model(tmp_path / "model.h5")


def test_a_file_changed_by_another_program_is_refused(trained, tmp_path):
    trained.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        file["arrays/weights/lstm/bias"][0] += 1
    with pytest.raises(ValueError, match=r"model.h5 .*damaged or changed after it was saved"):
        seqnet.load_model(tmp_path / "model.h5")


def relu(x):
    """A function with the name of one of seqnet's."""
    return 5 * x


class dense(Dense):  # noqa: N801
    """A layer with the name of one of seqnet's."""


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: Dense(2, relu), "'relu' would be read as seqnet's own activation"),
        (lambda: dense(2), "'dense' would be read as seqnet's own layer"),
        (lambda: Dense(2, lambda x: x + 1), "no name to be found by.*custom_objects"),
        (lambda: Dense(2, functools.partial(relu)), "no name to be found by"),
    ],
)
def test_functions_that_cannot_be_found_by_name_are_not_saved(tmp_path, layer, message):
    model = seqnet.Model([layer()])
    model.build((None, 3))
    with pytest.raises(ValueError, match=message):
        model.save(tmp_path / "model.h5")
    model.save_weights(tmp_path / "weights.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["weights.h5"]


def test_two_weights_of_the_same_name_are_not_saved(tmp_path):
    model = seqnet.Model([TimeDistributed(Dense(2, name="b"), name="a"), Dense(2, name="a/b")])
    model.build((None, None, 3))
    for save in (model.save, model.save_weights):
        with pytest.raises(ValueError, match=r"same name .a/b/bias, a/b/kernel"):
            save(tmp_path / "model.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a\0b", "/a", "a//b", "./a", "a/."])
def test_a_name_that_hdf5_cannot_hold_is_refused(tmp_path, name):
    model = seqnet.Model([Dense(2, name=name, input_shape=(3,))])
    with pytest.raises(ValueError, match="cannot hold an array of the name"):
        model.save(tmp_path / "model.h5")
    assert not list(tmp_path.iterdir())


def test_names_of_both_a_group_and_an_array_are_refused(tmp_path):
    model = seqnet.Model([Dense(2, name="a", input_shape=(3,)), Dense(2, name="a/kernel")])
    with pytest.raises(ValueError, match="a/kernel"):
        model.save(tmp_path / "model.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.array(["text"]), np.array([None]), 1j, np.zeros(2, "f4,i4")])
def test_arrays_of_other_dtypes_are_not_saved(tmp_path, value):
    with pytest.raises(TypeError, match=r"The array mine has the dtype .*plain numbers"):
        hdf5.write(tmp_path / "model.h5", {}, {"mine": value})


def test_a_header_that_json_cannot_hold_is_refused_and_nothing_is_written(trained, tmp_path):
    trained.metadata["mine"] = {1, 2}
    with pytest.raises(TypeError, match=r"header .*cannot be written as JSON.*set"):
        trained.save(tmp_path / "model.h5")
    del trained.metadata["mine"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", sorted(hdf5.DTYPES))
def test_arrays_of_every_dtype_and_layout_are_restored_and_readable_with_hdf5(tmp_path, dtype):
    values = rng.integers(0, 2, (3, 4)).astype(dtype)
    arrays = {
        "matrix": values,
        "columns first": np.asfortranarray(values),
        "every/other": values[:, ::2],
        "big end first": values.astype(values.dtype.newbyteorder(">")),
        "one": values[0, 0],
        "none": values[:0],
    }
    hdf5.write(tmp_path / "a.h5", {"ä": [1, None, float("inf")]}, arrays)
    header, again = hdf5.read(tmp_path / "a.h5")
    assert header == {"ä": [1, None, float("inf")]}
    assert list(again) == list(arrays)
    with h5py.File(tmp_path / "a.h5") as file:
        for name, value in arrays.items():
            assert again[name].dtype == dtype
            assert again[name].flags.writeable
            np.testing.assert_array_equal(again[name], value, strict=dtype == value.dtype)
            np.testing.assert_array_equal(file["arrays"][name][()], value)


def test_hundreds_of_layers_are_readable_with_hdf5(tmp_path):
    arrays = {f"weights/layer_{k}/{n}": np.full((k % 7, 3), k) for k in range(900) for n in "ab"}
    hdf5.write(tmp_path / "a.h5", {}, arrays)
    with h5py.File(tmp_path / "a.h5") as file:
        for name, value in arrays.items():
            np.testing.assert_array_equal(file["arrays"][name][()], value)


def test_the_same_model_gives_the_same_bytes(trained, tmp_path):
    for name in ("a.h5", "b.h5"):
        trained.save(tmp_path / name)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_loading_draws_no_initial_weights(trained, tmp_path, monkeypatch):
    trained.save(tmp_path / "model.h5")

    def draw(self, shape, rng):
        pytest.fail("An initial value was drawn.")

    for name in ("GlorotUniform", "Orthogonal", "RandomUniform"):
        monkeypatch.setattr(getattr(seqnet.initializers, name), "draw", draw)
    seqnet.load_model(tmp_path / "model.h5")


def test_the_error_for_weights_that_are_not_numbers_names_the_file(tmp_path):
    model = seqnet.Model([Dense(2, input_shape=(3,))])
    arrays = {"weights/dense/kernel": np.ones((3, 2), bool), "weights/dense/bias": np.ones(2)}
    hdf5.write(tmp_path / "weights.h5", {"kind": "weights"}, arrays)
    with pytest.raises(ValueError, match=r"weights.h5 .*dense/kernel"):
        model.load_weights(tmp_path / "weights.h5")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("weights/lstm/kernel", lambda a: None, "no array for lstm/kernel"),
        ("weights/lstm/kernel", lambda a: a[1:], "lstm/kernel has the shape"),
        ("weights/lstm/kernel", lambda a: a.astype("float64"), "lstm/kernel has the dtype"),
        ("weights/mine/kernel", lambda a: np.ones(3), "mine/kernel, which no layer"),
        ("states/train/lstm/h", lambda a: np.ones((1, 4)), "states that no layer has"),
        ("optimizer/mine/lstm/kernel", lambda a: np.ones(3), "keeps no 'mine'"),
        ("optimizer/mine", lambda a: np.ones(3), "keeps no 'mine'"),
        ("optimizer/last_step/lstm/bias", lambda a: np.ones(3), "fit no weight"),
        ("optimizer/last_step/embedding/embeddings", lambda a: np.full(7, 99), "later than"),
        ("optimizer/last_step/embedding/embeddings", lambda a: np.zeros(6, int), "fit no weight"),
    ],
)
def test_arrays_that_do_not_belong_to_the_model_are_refused(
    trained, tmp_path, name, change, message
):
    trained.save(tmp_path / "model.h5")
    header, arrays = hdf5.read(tmp_path / "model.h5")
    arrays[name] = change(arrays.get(name))
    if arrays[name] is None:
        del arrays[name]
    hdf5.write(tmp_path / "model.h5", header, arrays)
    with pytest.raises(ValueError, match=f"model.h5 does not describe .*{message}"):
        seqnet.load_model(tmp_path / "model.h5")

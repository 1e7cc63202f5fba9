"""PyTensor graphs over layers, with losses of their own, trained by seqnet."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet.callbacks import BackupAndRestore
from seqnet.layers import GRU, Dense, Embedding

RNG = np.random.default_rng(8)


def siamese(dtype="float32", name="margin"):
    """A triplet loss: an anchor is closer to a similar sequence than to another one."""
    seqnet.set_random_seed(2)
    inputs = [seqnet.Input((None,), name=n) for n in ("anchor", "similar", "other")]
    embedding, gru = Embedding(9, 4, dtype=dtype), GRU(5, dtype=dtype)
    a, b, c = (gru(embedding(x)) for x in inputs)
    scale = pytensor.shared(np.ones(5, dtype), name="scale")
    margin = pytensor.shared(np.asarray(0.5, dtype), name=name)
    margin.tag.trainable = False
    near, far = (pt.sum(scale * pt.sqr(a - x), axis=-1) for x in (b, c))
    return seqnet.Model(inputs, pt.softplus(margin + near - far)), scale, margin


def triplets(count=24):
    draw = lambda first: [RNG.integers(first, first + 4, RNG.integers(2, 6)) for _ in range(count)]  # noqa: E731
    return {"anchor": draw(0), "similar": draw(0), "other": draw(4)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_whose_output_is_its_loss_is_trained_without_targets(dtype):
    model, scale, margin = siamese(dtype)
    model.compile("adam", "identity")
    model.optimizer.learning_rate = 0.02
    data = triplets()
    values = model.predict(data)
    assert values.shape == (24,)
    assert model.evaluate(data) == pytest.approx(values.mean(), rel=1e-5)
    history = model.fit(data, epochs=8, batch_size=8, validation_split=0.25, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert not np.allclose(scale.get_value(), 1)  # trained
    assert margin.get_value() == 0.5  # not trained
    before = model.test_on_batch(data)
    assert model.train_on_batch(data) == pytest.approx(before, rel=1e-4)


def test_the_update_is_that_of_the_graph_by_hand():
    """One step of gradient descent, with weights of samples, equals PyTensor's own gradient."""
    seqnet.set_random_seed(3)
    x, y = seqnet.Input((3,), dtype="float64"), seqnet.Input((2,), dtype="float64")
    dense = Dense(2, dtype="float64")
    shift = pytensor.shared(np.zeros(2), name="shift")
    model = seqnet.Model([x, y], pt.abs(dense(x) + shift - y).sum(axis=1))
    model.compile(seqnet.optimizers.SGD(0.1), "identity")
    a, b, w = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2)), np.array([1.0, 0.0, 2.0, 1.0])
    kernel, bias = dense.kernel.get_value(), dense.bias.get_value()
    signs = np.sign(a @ kernel + bias - b) * w[:, None] / w.sum()
    model.train_on_batch([a, b], sample_weight=w)
    np.testing.assert_allclose(shift.get_value(), -0.1 * signs.sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(dense.kernel.get_value(), kernel - 0.1 * a.T @ signs, rtol=1e-9)


def test_shared_variables_are_saved_and_resumed(tmp_path):
    data, path = triplets(), tmp_path / "weights.h5"
    model, scale, margin = siamese()
    model.compile("adam", "identity")
    model.fit(data, epochs=3, verbose=0)
    model.save_weights(path)
    other, other_scale, other_margin = siamese()
    other_margin.set_value(np.float32(9))
    other.load_weights(path)
    np.testing.assert_array_equal(other_scale.get_value(), scale.get_value())
    assert other_margin.get_value() == margin.get_value()

    halves, _, _ = siamese()
    for epochs in (1, 3):
        halves, half_scale, _ = siamese()
        halves.compile("adam", "identity")
        backup = BackupAndRestore(tmp_path / "backup.h5", delete_checkpoint=False)
        seqnet.set_random_seed(5)
        halves.fit(data, epochs=epochs, verbose=0, callbacks=[backup])
    whole, whole_scale, _ = siamese()
    whole.compile("adam", "identity")
    seqnet.set_random_seed(5)
    whole.fit(data, epochs=3, verbose=0)
    np.testing.assert_array_equal(half_scale.get_value(), whole_scale.get_value())


def test_shared_variables_of_a_model_within_a_model_are_trained_and_saved(tmp_path):
    def make():
        inner_x = seqnet.Input((3,))
        gain = pytensor.shared(np.ones(3, "float32"), name="gain")
        inner = seqnet.Model(inner_x, Dense(3)(inner_x) * gain, name="inner")
        x = seqnet.Input((3,))
        return seqnet.Model(x, Dense(1)(inner(x))), gain

    model, gain = make()
    names = [model.name_of(w) for w in model.weights]
    assert names == [
        "inner/dense/kernel",
        "inner/dense/bias",
        "inner/gain",
        "dense/kernel",
        "dense/bias",
    ]
    model.compile("sgd", "mse")
    model.train_on_batch(np.ones((2, 3)), np.ones((2, 1)))
    assert not np.allclose(gain.get_value(), 1)
    model.save_weights(tmp_path / "w.h5")
    other, other_gain = make()
    other.load_weights(tmp_path / "w.h5")
    np.testing.assert_array_equal(other_gain.get_value(), gain.get_value())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "has no name. .*pytensor.shared"),
        ("scale", "is named 'scale', as another weight"),
        ("gru/kernel", "is named 'gru/kernel', as another weight"),
    ],
)
def test_shared_variables_need_names_of_their_own(name, message):
    with pytest.raises(ValueError, match=message):
        siamese(name=name)


def test_targets_are_refused_where_the_output_is_the_loss_and_needed_elsewhere(no_compile):
    model, _, _ = siamese()
    model.compile("adam", "identity")
    with pytest.raises(ValueError, match=r"its own loss.*takes no y"):
        model.fit(triplets(), np.zeros(24), verbose=0)
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match="y is missing"):
        model.fit(triplets(), verbose=0)
    x = seqnet.Input((3,))
    total = seqnet.Model(x, Dense(2)(x).sum())
    total.compile("sgd", "identity")
    with pytest.raises(ValueError, match="one value for each example"):
        total.fit(np.ones((4, 3)), verbose=0)


def test_padding_changes_no_loss_that_a_model_computes_itself():
    x = seqnet.Input((None, 2), name="x", dtype="float64")
    y = seqnet.Input((None, 2), name="y", dtype="float64")
    hidden = GRU(2, return_sequences=True, dtype="float64")(x)
    model = seqnet.Model([x, y], pt.sqr(hidden - y).sum(axis=-1))
    model.compile(seqnet.optimizers.SGD(0.1), "identity")
    lengths = (3, 5, 2)
    rows = {k: [RNG.normal(size=(n, 2)) for n in lengths] for k in ("x", "y")}
    alone = [model.evaluate({k: [v[i]] for k, v in rows.items()}) for i in range(3)]
    expected = np.average(alone, weights=lengths)
    assert model.evaluate(rows) == pytest.approx(expected, rel=1e-10)

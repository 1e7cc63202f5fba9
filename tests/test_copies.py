"""Models, layers and optimizers can be copied and pickled after use."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import seqnet
from seqnet.layers import GRU, LSTM, Bidirectional, Dense, Dropout, Embedding, TimeDistributed

X = np.random.default_rng(0).integers(0, 5, (6, 4))
Y = np.random.default_rng(1).normal(size=(6, 1))
WAYS = pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))],
    ids=["copy", "pickle"],
)


def used():
    seqnet.set_random_seed(0)
    model = seqnet.Model(
        [
            Embedding(5, 3, mask_zero=True),
            Bidirectional(LSTM(2, dropout=0.2, return_sequences=True)),
            TimeDistributed(Dense(3, "tanh", kernel_regularizer="l2")),
            GRU(2, stateful=True, recurrent_dropout=0.1),
            Dropout(0.3),
            Dense(1, kernel_constraint="max_norm"),
        ]
    )
    model.compile(
        seqnet.optimizers.Adam(0.01, clipnorm=1.0, use_ema=True), "mse", ["mean_absolute_error"]
    )
    model.fit(X, Y, verbose=0, shuffle=False)
    model.predict(X)
    return model


@WAYS
def test_a_copy_predicts_the_same_and_trains_separately(copied):
    model = used()
    other = copied(model)
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    before = model.get_weights()
    first = [other.train_on_batch(X, Y) for _ in range(3)]
    for ours, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, expected)
    other.layers[4].rate = 0.9
    other.optimizer.learning_rate = 1.0
    assert (model.layers[4].rate, model.optimizer.learning_rate) == (0.3, 0.01)
    assert [model.train_on_batch(X, Y) for _ in range(3)] == first


@WAYS
def test_layers_and_optimizers_can_be_copied(copied):
    model = used()
    for layer in model.layers:
        other = copied(layer)
        assert other.get_config() == layer.get_config()
        for ours, weight in zip(other.weights, layer.weights, strict=True):
            assert ours is not weight
            np.testing.assert_array_equal(ours.get_value(), weight.get_value())
            assert type(ours.tag.constraint) is type(weight.tag.constraint)
    dense = copied(model.layers[-1])
    assert dense.kernel is dense.weights[0]
    optimizer = copied(model.optimizer)
    assert optimizer.get_config() == model.optimizer.get_config()
    fresh = seqnet.Model([copied(LSTM(2, dropout=0.1)), Dense(1)])
    assert fresh.predict(np.ones((1, 2, 3))).shape == (1, 1)


def test_another_process_continues_with_a_pickled_model(tmp_path):
    model = used()
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps(model))
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    program = """
import pickle, sys, numpy as np
folder = sys.argv[1]
model = pickle.load(open(folder + "/model.pickle", "rb"))
data = np.load(folder + "/data.npz")
loss = model.train_on_batch(data["x"], data["y"])
np.savez(folder + "/found.npz", loss=loss, y=model.predict(data["x"]))
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_array_equal(found["loss"], model.train_on_batch(X, Y))
    np.testing.assert_array_equal(found["y"], model.predict(X))


def test_a_fused_model_chooses_a_loss():
    if seqnet.backend.native() is None:
        pytest.skip("The compiled kernels are not available here.")
    model = seqnet.Model([LSTM(4, fused=True), Dense(1)])
    model.fit(np.ones((2, 3, 1)), np.ones((2, 1)), verbose=0)
    assert model.loss.name == "mean_squared_error"

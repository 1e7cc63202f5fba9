"""Constraints of weights are applied after each update and saved with the model."""

import numpy as np
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import constraints
from seqnet.constraints import MaxNorm, MinMaxNorm, NonNeg, UnitNorm
from seqnet.layers import GRU, LSTM, Bidirectional, Dense, Embedding, TimeDistributed
from seqnet.ops import lookup

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 4, 2)), RNG.normal(size=(6, 4, 1))


def at_most_one(weight):
    """A custom constraint."""
    return pt.clip(weight, -0.1, 0.1)


def norms(value, axis=0):
    return np.sqrt((value**2).sum(axis))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cls", [LSTM, GRU])
def test_constraints_apply_to_their_weights(cls, dtype):
    layer = cls(
        3,
        kernel_constraint=UnitNorm(),
        recurrent_constraint=MaxNorm(0.5),
        bias_constraint=at_most_one,
        return_sequences=True,
        dtype=dtype,
    )
    dense = Dense(1, kernel_constraint="non_neg", bias_constraint=np.abs, dtype=dtype)
    model = seqnet.Model([layer, dense])
    model.compile(seqnet.optimizers.SGD(2.0), "mse")
    model.fit(X, Y, 3, epochs=2, verbose=0)
    kernel, recurrent, bias, last, last_bias = model.get_weights()
    np.testing.assert_allclose(norms(kernel), 1, rtol=1e-5)
    assert 0.49 < norms(recurrent).max() <= 0.5
    assert np.abs(bias).max() <= np.asarray(0.1, dtype)
    assert min(last.min(), last_bias.min()) >= 0
    assert {w.dtype.name for w in model.get_weights()} == {dtype}


def test_wrappers_constrain_the_weights_of_their_layers():
    model = seqnet.Model(
        [
            Bidirectional(LSTM(2, recurrent_constraint="max_norm", return_sequences=True)),
            TimeDistributed(Dense(1, kernel_constraint="non_neg")),
        ]
    )
    model.compile(seqnet.optimizers.SGD(1.0), "mse")
    model.fit(X, Y, 3, verbose=0)
    assert model.get_weights()[-2].min() >= 0
    assert [w.tag.constraint is None for w in model.weights] == [
        *(True, False, True, True, False, True, False, True)
    ]


@pytest.mark.parametrize("make", [lambda: UnitNorm(axis=1), NonNeg])
def test_constraints_apply_to_the_whole_embedding_table(make, monkeypatch):
    def trained():
        seqnet.set_random_seed(0)
        model = seqnet.Model([Embedding(1500, 2, embeddings_constraint=make()), Dense(1)])
        model.compile("sgd", "mse")
        ids = np.array([[1, 2, 1], [3, 1, 0]])
        for _ in range(3):
            model.train_on_batch(ids, np.ones((2, 3, 1)))
        return model.get_weights()

    found = trained()
    monkeypatch.setattr(lookup, "FEW_ROWS", 10**9)
    for mine, theirs in zip(found, trained(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    if isinstance(make(), UnitNorm):
        np.testing.assert_allclose(norms(found[0], 1), 1, rtol=1e-3)


def test_frozen_weights_are_not_constrained():
    layer = Dense(
        1, kernel_constraint="non_neg", trainable=False, kernel_initializer="glorot_normal"
    )
    model = seqnet.Model([layer, Dense(1)])
    model.compile("sgd", "mse")
    model.build((None, 4, 2))
    layer.set_weights([np.array([[-1.0], [2.0]]), np.zeros(1)])
    model.train_on_batch(X, Y)
    np.testing.assert_array_equal(layer.get_weights()[0], [[-1.0], [2.0]])


def test_a_constraint_is_saved_with_the_model(tmp_path):
    model = seqnet.Model(
        [
            LSTM(2, kernel_constraint=MinMaxNorm(0.5, 0.9, 0.5, [0, 1]), return_sequences=True),
            Dense(1, kernel_constraint=at_most_one),
        ]
    )
    model.compile("adam", "mse")
    model.fit(X, Y, 3, verbose=0)
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5", {"at_most_one": at_most_one})
    assert again.layers[0].get_config() == model.layers[0].get_config()
    assert again.layers[0].kernel_constraint.axis == [0, 1]
    for _ in range(2):
        assert again.train_on_batch(X, Y) == model.train_on_batch(X, Y)
    assert np.abs(again.get_weights()[3]).max() <= np.float32(0.1)


def test_constraints_are_applied_in_users_own_updates():
    layer = Dense(2, kernel_constraint=UnitNorm(), dtype="float64")
    x = pt.dmatrix()
    loss = pt.sum(layer(pt.specify_shape(x, (None, 3))) ** 2)
    updates = seqnet.optimizers.SGD(0.1).updates(loss, layer.weights)
    seqnet.backend.compile([x], [loss], updates, name="step")(np.ones((2, 3)))
    np.testing.assert_allclose(norms(layer.kernel.get_value()), 1, rtol=1e-6)


def test_add_weight_accepts_a_constraint_in_custom_layers():
    class Scale(seqnet.layers.Layer):
        def build(self, input_shape):
            self.scale = self.add_weight("scale", (), "ones", constraint=lambda w: w * 0 + 0.25)

        def call(self, inputs):
            return inputs * self.scale

    model = seqnet.Model([Scale(), Dense(1)])
    model.compile("sgd", "mse")
    model.train_on_batch(X, Y)
    assert model.get_weights()[0] == 0.25


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda w: None, TypeError, "of dense/kernel returns None"),
        (lambda w: pt.sum(w), ValueError, "returns 0 axes.*which has 2"),
        (UnitNorm(axis=2), ValueError, "axis=2, but the weight has 2 axes"),
    ],
)
def test_a_constraint_must_return_the_weight(function, error, message, no_compile):
    model = seqnet.Model([Dense(1, kernel_constraint=function)])
    model.compile("sgd", "mse")
    with pytest.raises(error, match=message):
        model.train_on_batch(X, Y)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: MaxNorm(-1), ValueError, "max_value must be at least 0"),
        (lambda: MaxNorm("a"), TypeError, "max_value must be a number"),
        (lambda: UnitNorm(axis=0.5), TypeError, "axis must be an integer"),
        (lambda: UnitNorm(axis=[]), TypeError, "axis must be an integer"),
        (lambda: MinMaxNorm(2.0, 1.0), ValueError, "min_value must not be above"),
        (lambda: MinMaxNorm(rate=2.0), ValueError, "rate must be in"),
        (lambda: Dense(1, kernel_constraint="maxnorm3"), ValueError, "Did you mean 'MaxNorm'"),
        (lambda: constraints.get(3), TypeError, "A constraint is given by name"),
    ],
)
def test_a_wrong_constraint_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()

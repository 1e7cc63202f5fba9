"""Penalties on outputs: `activity_regularizer`, `CallContext.add_loss`, weights of a layer."""

import numpy as np
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet.layers import LSTM, CallContext, Dense, Layer, TimeDistributed
from seqnet.regularizers import L2

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4, 3))
MASK = np.arange(4) < np.array([4, 2, 1, 3, 0])[:, None]


def penalty_of(model, x, y, **options):
    """Return the loss of a model minus its loss without penalties."""
    model.compile(seqnet.optimizers.SGD(0.1), "mse")
    loss = model.evaluate(x, y, verbose=0, **options)
    errors = np.square(model.predict(x, mask=options.get("mask")) - y).mean(axis=-1)
    mask = options.get("mask")
    counted = mask is None or errors.ndim < mask.ndim
    return loss - (errors.mean() if counted else errors[mask].mean())


@pytest.mark.parametrize("batch_size", [2, 5])
def test_the_penalty_is_divided_by_the_number_of_examples(batch_size):
    model = seqnet.Model([Dense(2, activity_regularizer=L2(0.1), dtype="float64")])
    y = np.zeros((5, 4, 2))
    found = penalty_of(model, X, y, batch_size=batch_size)
    assert found == pytest.approx(0.1 * np.square(model.predict(X)).sum() / 5, rel=1e-9)


@pytest.mark.parametrize("wrapped", [False, True])
def test_masked_steps_have_no_penalty(wrapped):
    dense = Dense(2, bias_initializer="ones", activity_regularizer="l2", dtype="float64")
    model = seqnet.Model([TimeDistributed(dense) if wrapped else dense])
    y = np.zeros((5, 4, 2))
    found = penalty_of(model, X, y, batch_size=2, mask=MASK)
    expected = 0.01 * np.square(model.predict(X)[MASK]).sum() / 5
    assert found == pytest.approx(expected, rel=1e-9)
    more = np.pad(X, ((0, 0), (0, 3), (0, 0)), constant_values=7.0)
    y, mask = np.pad(y, ((0, 0), (0, 3), (0, 0))), np.pad(MASK, ((0, 0), (0, 3)))
    assert penalty_of(model, more, y, batch_size=3, mask=mask) == pytest.approx(expected, rel=1e-9)


def test_training_follows_the_gradient_of_the_penalty():
    x, y = X[:, 0], np.zeros((5, 2))
    layer = Dense(2, use_bias=False, activity_regularizer=L2(0.5), dtype="float64")
    model = seqnet.Model([layer])
    model.compile(seqnet.optimizers.SGD(0.1), "mse")
    model.build((None, 3))
    (kernel,) = model.get_weights()
    loss = model.train_on_batch(x, y)
    out = x @ kernel
    assert loss == pytest.approx(np.square(out).mean() + 0.5 * np.square(out).sum() / 5)
    gradient = x.T @ (2 * out / out.size + out / 5)
    np.testing.assert_allclose(model.get_weights()[0], kernel - 0.1 * gradient, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_recurrent_layers_and_custom_functions_have_penalties(dtype, tmp_path):
    def off_zero(output):
        return 0.5 * pt.abs(output).sum()

    seqnet.config.set_floatx(dtype)
    model = seqnet.Model([LSTM(2, activity_regularizer=off_zero), Dense(1)])
    found = penalty_of(model, X, np.zeros((5, 1)), mask=MASK)
    inner = seqnet.Model(model.layers[:1])
    expected = 0.5 * np.abs(inner.predict(X, mask=MASK)).sum() / 5
    assert found == pytest.approx(expected, rel=1e-4)
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5", custom_objects={"off_zero": off_zero})
    assert again.layers[0].activity_regularizer is off_zero


def test_a_penalty_must_be_a_scalar():
    with pytest.raises(ValueError, match="of the output of dense returns 2 axes"):
        Dense(2, activity_regularizer=lambda output: output**2)(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"add_loss takes one number.*it got 1 axes"):
        CallContext().add_loss(np.zeros(3))
    weight = Dense(2)
    weight.ensure_built((None, 3))
    with pytest.raises(ValueError, match=r"weight dense/bias must have its 1 axes, got 0"):
        CallContext().assign(weight.bias, 1.0)
    with pytest.raises(ValueError, match=r"Unknown regularizer 'l3'. Did you mean"):
        Dense(2, activity_regularizer="l3")


class Counter(Layer):
    """Counts the batches that it was trained on."""

    def build(self, input_shape):
        self.factor = self.add_weight("factor", (), "ones")
        self.batches = self.add_weight("batches", (), "zeros", trainable=False)

    def call(self, inputs, context):
        if context.training:
            context.assign(self.batches, self.batches + 1.1 - 0.1)
        return self.factor * inputs


class Outer(Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.counter, self.dense = Counter(), Dense(1)

    def call(self, inputs, context):
        return self.dense(self.counter(inputs, context=context), context=context)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layer_updates_its_non_trainable_weights(dtype):
    seqnet.config.set_floatx(dtype)
    model = seqnet.Model([Outer()])
    model.compile("sgd", "mse")
    model.fit(X[:, 0], X[:, 0, :1], epochs=2, batch_size=2, verbose=0)
    layer = model.layers[0]
    assert layer.counter.batches.get_value() == pytest.approx(6)
    assert layer.counter.factor.get_value() != 1
    assert layer.non_trainable_weights == [layer.counter.batches]
    assert [w.name for w in layer.trainable_weights] == [
        "outer/counter/factor",
        "outer/dense/kernel",
        "outer/dense/bias",
    ]
    layer.trainable = False
    assert layer.trainable_weights == []

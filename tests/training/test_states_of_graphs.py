"""Carried states in functional models and in nested models."""

import numpy as np
import pytest

import seqnet
from seqnet.layers import GRU, LSTM, Dense, Dropout, Layer, TimeDistributed

RNG = np.random.default_rng(3)
X = RNG.normal(size=(4, 6, 3))
Y = RNG.normal(size=(4, 6, 2))


def nested(**options):
    """Return a doubly nested GRU with a skip connection."""
    seqnet.set_random_seed(1)
    inner_in = seqnet.Input((None, 3), dtype="float64")
    hidden = GRU(3, return_sequences=True, dtype="float64", **options)(inner_in)
    inner = seqnet.Model(inner_in, hidden, name="inner")
    x = seqnet.Input((None, 3), dtype="float64")
    hidden = LSTM(4, return_sequences=True, dtype="float64", **options)(inner(x) + x)
    model = seqnet.Model(x, Dense(2, dtype="float64")(hidden))
    model.compile(seqnet.optimizers.SGD(0.0), "mse")
    return model


def test_windows_of_a_nested_model_start_where_the_one_before_ended():
    model = nested()
    whole = model.evaluate(X, Y)
    history = model.fit(X, Y, batch_size=4, epochs=1, tbptt=2, verbose=0)
    assert history.history["loss"][0] == pytest.approx(whole, rel=1e-10)


def test_a_stateful_nested_model_continues_and_is_restored():
    model, stateful = nested(), nested(stateful=True)
    whole = model.predict(X)
    parts = [stateful.predict_on_batch(X[:, :2]), stateful.predict_on_batch(X[:, 2:])]
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-10)
    stateful.reset_states()
    stateful.predict_on_batch(X[:, :2])
    state = stateful.state_dict()
    assert {name.rpartition("/")[0] for name in state["states"]} == {
        "predict/inner/gru",
        "predict/lstm",
    }
    other = nested(stateful=True)
    other.load_state_dict(state)
    np.testing.assert_allclose(other.predict_on_batch(X[:, 2:]), whole[:, 2:], rtol=1e-10)


def test_a_state_that_another_layer_gives_replaces_the_carried_one():
    x = seqnet.Input((None, 3), dtype="float64")
    *_, h, c = LSTM(4, return_state=True, dtype="float64")(x)
    layer = LSTM(4, dtype="float64", stateful=True)
    model = seqnet.Model(x, layer(x, initial_state=[h, c]))
    first, second = model.predict_on_batch(X), model.predict_on_batch(X)
    np.testing.assert_array_equal(first, second)


def test_a_layer_that_is_called_twice_cannot_be_trained_in_windows(no_compile):
    x = seqnet.Input((None, 3))
    lstm = LSTM(3, return_sequences=True, name="twice")
    model = seqnet.Model(x, lstm(lstm(x)))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="'twice' is called twice in one model, but tbptt"):
        model.fit(X, X, tbptt=2, verbose=0)


def test_a_layer_with_a_given_state_cannot_be_trained_in_windows(no_compile):
    x = seqnet.Input((None, 3))
    *_, h, c = LSTM(3, return_state=True)(x)
    model = seqnet.Model(x, LSTM(3, return_sequences=True, name="second")(x, initial_state=[h, c]))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="'second' is called with initial_state="):
        model.fit(X, X, tbptt=2, verbose=0)


class Block(Layer):
    """A layer with an inner LSTM."""

    def __init__(self, pass_on, **options):
        super().__init__(**options)
        self.pass_on = pass_on
        self.lstm = LSTM(3, return_sequences=True, dtype=self.dtype)

    def call(self, inputs, context):
        return inputs + (self.lstm(inputs, context=context) if self.pass_on else self.lstm(inputs))


@pytest.mark.parametrize("pass_on", [True, False])
def test_a_layer_that_holds_a_recurrent_layer_passes_its_context_on(pass_on):
    model = seqnet.Model([Block(pass_on, input_shape=(None, 3), dtype="float64")])
    model.compile(seqnet.optimizers.SGD(0.0), "mse")
    if not pass_on:
        with pytest.raises(ValueError, match="does not pass its context on"):
            model.fit(X, X, tbptt=2, verbose=0)
        return
    history = model.fit(X, X, epochs=1, tbptt=2, verbose=0)
    assert history.history["loss"][0] == pytest.approx(model.evaluate(X, X), rel=1e-10)


def test_a_recurrent_layer_within_each_step_starts_anew():
    data = RNG.normal(size=(2, 4, 3, 2))
    y = RNG.normal(size=(2, 4, 5))
    model = seqnet.Model([TimeDistributed(GRU(5, dtype="float64"), input_shape=(None, 3, 2))])
    model.compile(seqnet.optimizers.SGD(0.0), "mse")
    history = model.fit(data, y, epochs=1, tbptt=2, verbose=0)
    assert history.history["loss"][0] == pytest.approx(model.evaluate(data, y), rel=1e-10)


def test_dropout_of_a_nested_model_is_active_in_training_only():
    inner = seqnet.Model([Dropout(0.5, input_shape=(4,))], name="inner")
    x = seqnet.Input((4,))
    model = seqnet.Model(x, inner(x))
    model.compile("sgd", "mse")
    ones = np.ones((50, 4), "float32")
    np.testing.assert_array_equal(model.predict(ones), ones)
    assert model.train_on_batch(ones, ones) == pytest.approx(1.0, abs=1e-6)

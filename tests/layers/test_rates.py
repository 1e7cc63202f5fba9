"""Dropout rates that change after a model is compiled."""

import numpy as np
import pytest

import seqnet
from seqnet.callbacks import LambdaCallback
from seqnet.layers import GRU, LSTM, Bidirectional, Dense, Dropout, TimeDistributed

X = np.ones((40, 4, 3))


def trained_sum(model):
    """Return the fraction of zeros in the output in training, from the loss of a linear model."""
    return model.train_on_batch(np.ones((500, 10)), np.zeros((500, 10)))


def test_dropout_rates_change_without_recompiling():
    model = seqnet.Model([Dropout(0.5, dtype="float64"), Dense(10, dtype="float64")])
    model.compile(seqnet.optimizers.SGD(0.0), "mse")
    model.build((None, 10))
    model.set_weights([np.eye(10), np.zeros(10)])
    # The mean of the squares of masks is 1 / (1 - rate).
    assert trained_sum(model) == pytest.approx(2, rel=0.05)
    functions = list(model.steps.functions.values())
    model.layers[0].rate = 0.9
    assert trained_sum(model) == pytest.approx(10, rel=0.1)
    model.layers[0].rate = np.float32(0.75)
    assert trained_sum(model) == pytest.approx(4, rel=0.1)
    assert list(model.steps.functions.values()) == functions
    model.layers[0].rate = 0
    assert trained_sum(model) == 1
    model.layers[0].rate = 0.5
    assert trained_sum(model) == pytest.approx(2, rel=0.05)
    assert len(model.steps.functions) == 2


@pytest.mark.parametrize("name", ["dropout", "recurrent_dropout"])
@pytest.mark.parametrize("wrap", [lambda layer: layer, Bidirectional])
def test_rates_of_recurrent_layers_are_switched_on_and_off(name, wrap, tmp_path):
    def losses(start, then):
        seqnet.set_random_seed(3)
        model = seqnet.Model([wrap(LSTM(4, dtype="float64", **{name: start})), Dense(1)])
        model.compile(seqnet.optimizers.SGD(0.0), "mse")
        found = []
        for rate in then:
            for half in model.layers[0].inner_layers or model.layers[:1]:
                setattr(half, name, rate)
            found.append(model.train_on_batch(X, np.ones((40, 1))))
        return found, model

    plain = losses(0.0, [0.0])[0][0]
    (dropped, none, again), model = losses(0.5, [0.5, 0.0, 0.5])
    assert dropped != again != none
    (zero, positive), other = losses(0.0, [0.0, 0.5])
    assert zero == plain != positive
    for each in (model, other):
        each.save(tmp_path / "model.h5")
        loaded = seqnet.load_model(tmp_path / "model.h5")
        assert loaded.train_on_batch(X, np.ones((40, 1))) == each.train_on_batch(
            X, np.ones((40, 1))
        )
    model.layers[0].inner_layers or setattr(model.layers[0], name, 0.0)
    model.save(tmp_path / "model.h5")
    seqnet.load_model(tmp_path / "model.h5")


@pytest.mark.parametrize(
    ("layer", "name"), [(Dropout(0.5), "rate"), (GRU(2), "dropout"), (GRU(2), "recurrent_dropout")]
)
@pytest.mark.parametrize("value", [7, 1, -0.1, np.nan, "half", None, True])
def test_a_rate_is_checked_when_it_is_set(layer, name, value):
    before = getattr(layer, name)
    with pytest.raises((TypeError, ValueError), match=f"^{name} (must be a number|is the share)"):
        setattr(layer, name, value)
    assert getattr(layer, name) == before


def test_a_resumed_run_continues_with_its_rates(tmp_path):
    def train(epochs):
        seqnet.set_random_seed(1)
        model = seqnet.Model([TimeDistributed(Dropout(0.5)), LSTM(2, dropout=0.5), Dense(1)])
        model.compile("sgd", "mse")

        def anneal(epoch, logs):
            model.layers[0].layer.rate *= 0.5
            model.layers[1].dropout = 0.0 if epoch == 0 else 0.1

        callbacks = [
            LambdaCallback(on_epoch_end=anneal),
            seqnet.callbacks.BackupAndRestore(tmp_path / "run.h5", delete_checkpoint=False),
        ]
        history = model.fit(X, X[:, 0, :1], epochs=epochs, callbacks=callbacks, verbose=0)
        return history.history["loss"]

    train(2)
    resumed = train(4)
    (tmp_path / "run.h5").unlink()
    assert resumed == train(4)

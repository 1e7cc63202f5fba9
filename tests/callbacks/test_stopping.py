import math

import numpy as np
import pytest
from helpers import X, Y

from seqnet.callbacks import Callback, EarlyStopping, TerminateOnNaN


def test_the_best_weights_are_restored(model):
    class Worse(Callback):
        """Makes the loss worse from the third epoch on."""

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.model.optimizer.learning_rate = 5.0

    stop = EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    history = model.fit(
        X, Y, epochs=20, callbacks=[Worse(), stop], validation_data=(X, Y), verbose=0
    )
    losses = history.history["val_loss"]
    assert stop.best == min(losses) == losses[stop.best_epoch]
    assert stop.best_epoch < stop.stopped_epoch == len(losses) - 1
    assert model.evaluate(X, Y) == pytest.approx(min(losses), rel=1e-6)


def test_the_best_weights_are_restored_when_training_fails(model):
    class Fail(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise RuntimeError("no more")

    weights = []

    class Remember(Callback):
        def on_epoch_end(self, epoch, logs=None):
            weights.append(self.model.get_weights()[0])

    stop = EarlyStopping("loss", mode="max", patience=9, restore_best_weights=True)
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(X, Y, epochs=9, callbacks=[Remember(), stop, Fail()], verbose=0)
    assert np.array_equal(model.get_weights()[0], weights[0])


def test_a_callback_can_be_used_again(model):
    stop = EarlyStopping("loss", patience=2, min_delta=100)
    assert [len(model.fit(X, Y, epochs=9, callbacks=[stop], verbose=0).epoch) for _ in "ab"] == [
        3, 3,
    ]  # fmt: skip


def test_messages_of_early_stopping(model, capsys):
    stop = EarlyStopping("loss", min_delta=100, verbose=1, restore_best_weights=True)
    model.fit(X, Y, epochs=9, callbacks=[stop], verbose=0)
    said = capsys.readouterr().out
    assert "Epoch 2: stopped" in said
    assert "weights of epoch 1" in said


def test_state_holds_json_and_arrays_only(model):
    stop = EarlyStopping("loss", patience=2, restore_best_weights=True)
    model.fit(X, Y, epochs=2, callbacks=[stop], verbose=0)
    state = stop.state_dict()
    arrays = {k: v for k, v in state.items() if isinstance(v, np.ndarray)}
    assert sorted(arrays) == ["best_weights_0", "best_weights_1"]
    plain = {k: v for k, v in state.items() if k not in arrays}
    assert all(type(v) in (int, float, bool, type(None)) for v in plain.values())


@pytest.mark.parametrize("options", [{"patience": -1}, {"start_from_epoch": 1.5}])
def test_invalid_arguments_are_refused(options):
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        EarlyStopping("loss", **options)


def spoil(model, value):
    model.build((None, 2))
    model.layers[0].bias.set_value(np.array([value], model.dtype))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_training(model, value, capsys):
    spoil(model, value)
    history = model.fit(X, Y, batch_size=5, epochs=9, callbacks=[TerminateOnNaN()], verbose=0)
    assert history.epoch == [0]
    assert "Batch 1 of epoch 1: the loss is" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_can_be_an_error(model):
    spoil(model, math.nan)
    with pytest.raises(RuntimeError, match="Batch 1 of epoch 1: the loss is nan"):
        model.fit(X, Y, callbacks=[TerminateOnNaN(raise_error=True)], verbose=0)


def test_a_finite_loss_does_not_stop_the_training(model):
    assert model.fit(X, Y, epochs=2, callbacks=[TerminateOnNaN()], verbose=0).epoch == [0, 1]

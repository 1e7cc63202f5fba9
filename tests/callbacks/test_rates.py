import numpy as np
import pytest
from helpers import X, Y

from seqnet.callbacks import LearningRateScheduler, ReduceLROnPlateau


@pytest.fixture
def model(model):
    model.optimizer.learning_rate = 1.0
    return model


def test_rates_change_without_recompiling(model, compiled):
    halve = LearningRateScheduler(lambda epoch, rate: rate / 2)
    history = model.fit(X, Y, epochs=3, callbacks=[halve], verbose=0)
    assert history.history["learning_rate"] == [0.5, 0.25, 0.125]
    assert compiled == ["training"]


def test_an_update_uses_the_rate_of_its_epoch(model):
    model.build((None, 2))
    before = model.get_weights()
    model.fit(X, Y, callbacks=[LearningRateScheduler(lambda epoch: 0.0)], verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_schedule_gets_the_epoch_and_the_rate_or_the_epoch_alone(model):
    seen = []
    model.fit(
        X, Y, epochs=2, initial_epoch=1, verbose=0,
        callbacks=[
            LearningRateScheduler(lambda *given: seen.append(given) or 0.5),
            LearningRateScheduler(lambda epoch: seen.append(epoch) or 0.25),
            LearningRateScheduler(lambda epoch, rate=3: seen.append(rate) or 1),
        ],
    )  # fmt: skip
    assert seen == [(1, 1.0), 1, 0.25]
    assert model.optimizer.learning_rate == 1.0


def test_an_error_inside_a_schedule_is_not_hidden(model):
    def schedule(epoch, rate):
        return rate + "0"

    with pytest.raises(TypeError, match="unsupported operand"):
        model.fit(X, Y, callbacks=[LearningRateScheduler(schedule)], verbose=0)


@pytest.mark.parametrize(
    ("rate", "error", "words"),
    [
        (None, TypeError, "epoch 0 must be a number, got None"),
        (-1.0, ValueError, "learning_rate.*-1.0"),
    ],
)
def test_a_schedule_that_returns_no_rate_is_refused(rate, error, words, model):
    with pytest.raises(error, match=words):
        model.fit(X, Y, callbacks=[LearningRateScheduler(lambda epoch, old: rate)], verbose=0)


def test_a_schedule_must_be_a_function():
    with pytest.raises(TypeError, match="schedule is a function"):
        LearningRateScheduler(0.1)


def test_verbose_messages(model, capsys):
    callbacks = [
        LearningRateScheduler(lambda epoch, rate: rate, verbose=1),
        ReduceLROnPlateau("loss", patience=1, min_delta=100, factor=0.5, verbose=1),
    ]
    model.fit(X, Y, epochs=2, callbacks=callbacks, verbose=0)
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "Epoch 1: the learning rate is 1.",
        "Epoch 2: the learning rate is 1.",
        "Epoch 2: the learning rate is lowered to 0.5.",
    ]


@pytest.mark.parametrize(
    "options", [{"factor": 1.0}, {"factor": 0}, {"min_lr": -1}, {"patience": -1}, {"cooldown": 0.5}]
)
def test_invalid_arguments_are_refused(options):
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        ReduceLROnPlateau("loss", **options)

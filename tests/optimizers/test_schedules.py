"""Learning-rate schedules in training: steps, logs, files, resumed runs, callbacks."""

import math

import numpy as np
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import optimizers
from seqnet.callbacks import (
    BackupAndRestore,
    Callback,
    LearningRateScheduler,
    ReduceLROnPlateau,
)
from seqnet.layers import Dense
from seqnet.optimizers.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    LearningRateSchedule,
    PiecewiseConstantDecay,
    PolynomialDecay,
)

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 2)), RNG.normal(size=(12, 1))


class Warmup(LearningRateSchedule):
    """A custom schedule in plain Python."""

    def __init__(self, rate=0.1, steps=4):
        self.rate, self.steps = rate, steps

    def __call__(self, step):
        if step < self.steps:
            return self.rate * (step + 1) / self.steps
        return min(self.rate, self.rate * math.cos((step - self.steps) / 100))


def inverse(step):
    return 0.1 / (1 + step)


def model_with(rate, dtype="float32", optimizer=optimizers.Adam):
    seqnet.set_random_seed(1)
    model = seqnet.Model([Dense(1, dtype=dtype)])
    model.compile(optimizer(rate), "mse")
    return model


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(self.model.optimizer.learning_rate)


@pytest.mark.parametrize("backend", ["auto", "numpy"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("schedule", [Warmup(), inverse, CosineDecay(0.1, 5)])
def test_an_update_uses_the_rate_of_its_step(schedule, dtype, backend, compiled):
    before = seqnet.config.backend()
    seqnet.config.set_backend(backend)
    try:
        model = model_with(schedule, dtype)
        rates = Rates()
        model.fit(X, Y, 4, epochs=2, shuffle=False, verbose=0, callbacks=[rates])
        by_hand = model_with(schedule(0), dtype)
        for k in range(6):
            by_hand.optimizer.learning_rate = float(schedule(k))
            rows = slice(4 * (k % 3), 4 * (k % 3) + 4)
            by_hand.train_on_batch(X[rows], Y[rows])
    finally:
        seqnet.config.set_backend(before)
    assert rates.seen == [float(schedule(k)) for k in range(6)]
    assert compiled == ["training", "training"]
    for found, expected in zip(model.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_restarts_are_exact_where_a_logarithm_is_rounded():
    schedule = CosineDecayRestarts(1.0, 10, t_mul=3.0, m_mul=0.5)
    starts = [10 * (3**k - 1) // 2 for k in range(12)]
    np.testing.assert_allclose([schedule(s) for s in starts], [0.5**k for k in range(12)])
    assert all(schedule(s - 1) < 0.03 for s in starts[1:])


def test_a_model_with_a_schedule_is_saved(tmp_path):
    for rate, custom in (
        (CosineDecay(0.1, 20, warmup_target=0.2, warmup_steps=3), None),
        (Warmup(0.2), {"Warmup": Warmup}),
        (inverse, {"inverse": inverse}),
    ):
        model = model_with(rate)
        model.fit(X, Y, 4, verbose=0)
        model.save(tmp_path / "model.h5")
        again = seqnet.load_model(tmp_path / "model.h5", custom)
        assert type(again.optimizer.schedule) is type(rate)
        assert again.optimizer.learning_rate == float(rate(3)) == model.optimizer.learning_rate
        assert again.optimizer.get_config() == model.optimizer.get_config()
        for _ in range(2):
            assert again.train_on_batch(X, Y) == model.train_on_batch(X, Y)


def test_loading_a_custom_schedule_requires_registration(tmp_path):
    model = model_with(inverse)
    model.train_on_batch(X, Y)
    model.save(tmp_path / "model.h5")
    with pytest.raises(ValueError, match="Unknown schedule 'inverse'"):
        seqnet.load_model(tmp_path / "model.h5")


class Stop(Callback):
    def __init__(self, after):
        self.after = after

    def get_config(self):
        return {}

    def on_train_batch_end(self, batch, logs=None):
        if self.after == len(self.model.history.epoch) * 3 + batch:
            raise RuntimeError("stopped")


@pytest.mark.parametrize("rate", [Warmup(), CosineDecayRestarts(0.1, 4)])
def test_a_resumed_run_is_the_same_bit_for_bit(rate, tmp_path):
    def train(path, after):
        model = model_with(rate, optimizer=lambda r: optimizers.AdamW(r, use_ema=True))
        model.optimizer.exclude_from_weight_decay(var_names=["bias"])
        stop, backup = Stop(after), BackupAndRestore(path, 1, delete_checkpoint=False)
        model.fit(X, Y, 4, epochs=3, verbose=0, callbacks=[stop, backup])
        return model

    expected = train(tmp_path / "whole.h5", -1)
    with pytest.raises(RuntimeError, match="stopped"):
        train(tmp_path / "part.h5", 4)
    for _ in range(2):  # the second call finds the training finished
        found = train(tmp_path / "part.h5", -1)
        for a, b in zip(found.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert found.optimizer.learning_rate == expected.optimizer.learning_rate


def test_another_schedule_is_another_training(tmp_path):
    def train(steps):
        model = model_with(CosineDecay(0.1, steps))
        backup = BackupAndRestore(tmp_path / "run.h5", delete_checkpoint=False)
        model.fit(X, Y, 4, verbose=0, callbacks=[backup])

    train(10)
    with pytest.raises(ValueError, match=r"decay_steps was 10\.0 and is 20\.0"):
        train(20)


@pytest.mark.parametrize(
    "callback", [LearningRateScheduler(lambda epoch: 0.1), ReduceLROnPlateau("loss")]
)
def test_a_callback_that_sets_the_rate_is_refused_before_compiling(callback, no_compile):
    model = model_with(CosineDecay(0.1, 5))
    with pytest.raises(TypeError, match=r"sets the learning rate, but .* Adam is a schedule"):
        model.fit(X, Y, verbose=0, callbacks=[callback])


def test_a_number_cannot_replace_a_schedule_but_another_schedule_can():
    optimizer = optimizers.SGD(inverse)
    with pytest.raises(TypeError, match=r"of this SGD is a schedule .* cannot be set to 0\.5"):
        optimizer.learning_rate = 0.5
    optimizer.learning_rate = CosineDecay(0.25, 4)
    assert optimizer.learning_rate == 0.25
    optimizer = optimizers.SGD(0.1)
    optimizer.learning_rate = inverse
    assert optimizer.schedule is inverse


def test_a_schedule_set_later_takes_effect():
    model = model_with(0.0, optimizer=optimizers.SGD)
    model.train_on_batch(X, Y)
    before = model.get_weights()[0]
    model.optimizer.learning_rate = lambda step: 0.5 if step == 1 else 0.0
    model.train_on_batch(X, Y)
    after = model.get_weights()[0]
    assert not np.array_equal(before, after)
    model.train_on_batch(X, Y)
    np.testing.assert_array_equal(model.get_weights()[0], after)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: optimizers.SGD(lambda step: None), TypeError, "for step 0 must be a number"),
        (lambda: optimizers.SGD(lambda step: -1.0), ValueError, "step 0 must be at least 0"),
        (lambda: optimizers.SGD(lambda step: math.nan), ValueError, "must be at least 0"),
        (lambda: optimizers.SGD(lambda s: pt.minimum(s, 1)), TypeError, "a PyTensor variable"),
        (lambda: optimizers.SGD(CosineDecay), TypeError, r"such as CosineDecay\(\.\.\.\)"),
        (lambda: optimizers.SGD("cosine"), TypeError, "learning_rate must be a number"),
        (lambda: CosineDecay(0.1, 0), ValueError, "decay_steps must be above 0"),
        (lambda: CosineDecay(-0.1, 5), ValueError, "initial_learning_rate must be at least 0"),
        (lambda: CosineDecay(0.1, 5, warmup_steps=3), ValueError, "needs a warmup_target"),
        (lambda: ExponentialDecay(0.1, 5, "x"), TypeError, "decay_rate must be a number"),
        (lambda: PolynomialDecay(0.1, 5, cycle=3), TypeError, "cycle"),
        (lambda: PiecewiseConstantDecay([1], [0.1]), ValueError, "one more of values"),
        (lambda: PiecewiseConstantDecay([2, 1], [1, 2, 3]), ValueError, "must increase"),
        (lambda: CosineDecayRestarts(0.1, 5, t_mul=0.5), ValueError, "t_mul must be at least 1"),
    ],
)
def test_a_wrong_schedule_is_an_error_when_it_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_schedule_that_fails_later_names_the_step():
    model = model_with(lambda step: 0.1 if step < 2 else -1.0)
    with pytest.raises(ValueError, match="for step 2 must be at least 0"):
        for _ in range(3):
            model.train_on_batch(X, Y)

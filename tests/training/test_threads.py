"""One model used by several threads, and by processes forked at the same time."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import sys
import threading
import time

import numpy as np
import pytest

import seqnet
from seqnet.callbacks import Callback, LambdaCallback
from seqnet.common.locking import ForkSafeLock
from seqnet.generation import Stepper
from seqnet.layers import GRU, LSTM, Bidirectional, Dense, Dropout, Embedding, SimpleRNN
from seqnet.saving import hdf5
from seqnet.saving.hdf5 import below

SECONDS = 1.0
RNG = np.random.default_rng(20)
SERIES = [RNG.normal(size=(4, 6, 3)).astype("float32") for _ in range(8)]


@pytest.fixture(autouse=True)
def hurried():
    """Make Python switch threads as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*works, seconds=SECONDS):
    """Run functions without arguments repeatedly, each in a thread; raise their errors.

    Returns the number of runs of each function.
    """
    end, counts, errors = time.monotonic() + seconds, [0] * len(works), []

    def run(number):
        try:
            while time.monotonic() < end or not counts[number]:
                works[number]()
                counts[number] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(k,), daemon=True) for k in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "A thread hangs."
    if errors:
        raise errors[0]
    return counts


KINDS = {
    "kernels": ("auto", lambda: [LSTM(4, return_sequences=True), GRU(3), Dense(2)]),
    "scan": ("auto", lambda: [LSTM(4, recurrent_dropout=0.2), Dense(2)]),
    "unrolled": ("auto", lambda: [SimpleRNN(4, unroll=True), Dense(2, "softmax")]),
    "no kernels": ("numpy", lambda: [Bidirectional(GRU(2)), Dense(2, "softmax")]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_concurrent_predictions_are_correct_from_the_first_call(kind):
    backend, layers = KINDS[kind]
    seqnet.config.set_backend(backend)
    model, alone = seqnet.Model(layers()), seqnet.Model(layers())
    for each in (model, alone):
        each.build((None, None, 3))
    model.set_weights(alone.get_weights())
    expected = [alone.predict_on_batch(x) for x in SERIES]

    def predict(x, result):
        np.testing.assert_array_equal(model.predict_on_batch(x), result)

    together(*[lambda x=x, y=y: predict(x, y) for x, y in zip(SERIES, expected, strict=True)])
    assert len(model.steps.functions) == 1


def test_an_unbuilt_model_can_be_used_by_several_threads():
    for _ in range(5):
        model = seqnet.Model([GRU(3), Dropout(0.5), Dense(2)])
        found = []
        works = [lambda m=model, f=found: f.append(m.predict_on_batch(SERIES[0]))] * 4
        works += [lambda m=model: m.evaluate(SERIES[0], SERIES[0][:, 0, :2])] * 2
        together(*works, seconds=0)
        assert len(model.weights) == 5
        assert len(model.layers[1].generators) == 1
        assert all(np.array_equal(result, found[0]) for result in found)
        assert model.loss.name == "mean_squared_error"


SIZE = 4000
HALVES = np.kron(np.eye(2), np.ones((1, SIZE // 2))).astype("float32")


def falling(y_true, y_pred):
    """A loss with the same gradient for all weights."""
    return -y_pred[:, 0]


@pytest.fixture
def even():
    """A model whose weights are all equal before and after each update."""
    model = seqnet.Model([Dense(1, kernel_initializer="zeros", input_shape=(SIZE,))])
    model.compile(seqnet.optimizers.Adam(0.01), falling)
    return model


def assert_even_outputs(model):
    np.testing.assert_allclose(*model.predict_on_batch(HALVES), rtol=1e-5)


def assert_even(arrays):
    values = np.concatenate([np.ravel(array) for array in arrays])
    assert (values == values[0]).all()


@pytest.mark.parametrize("backend", ["auto", "numpy"])
def test_weights_read_during_training_belong_to_one_update(even, backend, tmp_path):
    seqnet.config.set_backend(backend)
    x, y = np.ones((32, SIZE)), np.ones((32, 1))
    even.fit(x, y, 8, verbose=0)  # slots exist from here on
    assert_even_outputs(even)

    def save():
        even.save(tmp_path / "model.h5")
        _, arrays = hdf5.read(tmp_path / "model.h5")
        assert_even(below("weights", arrays).values())
        for slot in ("momentum", "velocity"):
            assert_even(below(f"optimizer/{slot}", arrays).values())

    together(
        lambda: even.fit(x, y, 8, epochs=2, verbose=0),
        lambda: assert_even_outputs(even),
        lambda: assert_even(even.get_weights()),
        lambda: even.evaluate(x[:2], y[:2]),
        save,
    )


def test_weights_read_while_weights_are_set_belong_to_one_call(even, tmp_path):
    values = [[np.full((SIZE, 1), v, "float32"), np.full(1, v, "float32")] for v in (1, 2)]
    even.set_weights(values[0])
    even.save_weights(tmp_path / "weights.h5")

    together(
        lambda: assert_even_outputs(even),
        lambda: assert_even(even.get_weights()),
        lambda: even.set_weights(values[1]),
        lambda: even.load_weights(tmp_path / "weights.h5"),
        seconds=0.5,
    )


def test_no_update_is_lost_when_threads_train():
    model = seqnet.Model([Dense(1, kernel_initializer="zeros", use_bias=False, input_shape=(2,))])
    model.compile(seqnet.optimizers.SGD(1.0), falling)
    x, y = np.ones((2, 2)), np.ones((2, 1))
    counts = together(*[lambda: model.train_on_batch(x, y)] * 4, seconds=0.5)
    assert model.optimizer.state_dict()["iterations"] == sum(counts)
    np.testing.assert_array_equal(model.get_weights()[0], sum(counts))


def test_concurrent_calls_of_a_stateful_model_do_not_mix_states():
    model = seqnet.Model([LSTM(3, stateful=True, return_sequences=True), Dense(1)])
    x, y = RNG.normal(size=(6, 5, 2)), RNG.normal(size=(6, 5, 1))
    first = model.predict_on_batch(x[:2])
    kept = model.layers[0].get_states("predict")
    predicted = [model.predict(x, batch_size=2), model.predict(x[::-1].copy(), batch_size=2)]
    loss = model.evaluate(x, y, batch_size=2)

    def predict(given, expected):
        np.testing.assert_array_equal(model.predict(given, batch_size=2), expected)

    def evaluate():
        assert model.evaluate(x, y, batch_size=2) == loss

    together(
        lambda: predict(x, predicted[0]),
        lambda: predict(x[::-1].copy(), predicted[1]),
        evaluate,
        evaluate,
    )
    for state, before in zip(model.layers[0].get_states("predict"), kept, strict=True):
        np.testing.assert_array_equal(state, before)
    model.reset_states()
    np.testing.assert_array_equal(model.predict_on_batch(x[:2]), first)


def test_a_stream_may_use_the_model_it_is_evaluated_with():
    model = seqnet.Model([LSTM(3, stateful=True, return_sequences=True), Dense(1)])
    x = RNG.normal(size=(2, 5, 2))
    model.predict_on_batch(x)

    def batches():
        for _ in range(3):
            yield x, model.predict(x)

    found = []
    together(lambda: found.append(model.evaluate(batches())), seconds=0)
    assert np.isfinite(found).all()


def test_threads_generate_and_step():
    layers = [Embedding(5, 3), LSTM(4, return_sequences=True), Dense(5, "softmax")]
    model = seqnet.Model(layers)
    model.build((None, None))
    expected = [model.generate([1, 2], 20, seed=k).tolist() for k in range(4)]

    def write(seed):
        stepper = Stepper(model)
        for _ in range(5):
            assert model.generate([1, 2], 20, seed=seed).tolist() == expected[seed]
            assert list(model.generate([1, 2], 20, seed=seed, stream=True)) == expected[seed]
            assert np.isfinite(stepper(np.array([1]))).all()

    together(*[lambda k=k: write(k) for k in range(4)], seconds=0.5)


def test_separate_models_in_threads_train_like_alone():
    def train(seed):
        rng = np.random.default_rng(seed)
        model = seqnet.Model([LSTM(3, return_sequences=True), GRU(2), Dense(1)])
        model.build((None, None, 3))
        model.set_weights([rng.normal(size=w.shape) / 3 for w in model.get_weights()])
        model.compile(seqnet.optimizers.Adam(0.01), "mse")
        x = np.concatenate(SERIES)
        model.fit(x, x[:, 0, :1], 4, epochs=2, verbose=0, shuffle=False)
        return model.get_weights()

    expected = [train(seed) for seed in range(2)]

    def compare(seed):
        for weight, other in zip(train(seed), expected[seed], strict=True):
            np.testing.assert_array_equal(weight, other)

    together(*[lambda k=k: compare(k) for k in range(2)], seconds=0)


# --------------------------------------------------------------------------- two calls of `fit`


X, Y = np.ones((8, SIZE)), np.ones((8, 1))


def test_a_model_is_trained_by_one_call_of_fit_at_a_time(even):
    entered, go_on = threading.Event(), threading.Event()

    class Wait(Callback):
        def on_batch_end(self, batch, logs=None):
            entered.set()
            assert go_on.wait(30)

    histories = []
    thread = threading.Thread(
        target=lambda: histories.append(even.fit(X, Y, verbose=0, callbacks=[Wait()]))
    )
    thread.start()
    assert entered.wait(30)
    with pytest.raises(RuntimeError, match="Another call of fit is training the model 'model'"):
        even.fit(X, Y, verbose=0)
    even.train_on_batch(X, Y)
    go_on.set()
    thread.join()
    assert histories == [even.history]
    assert even.history.epoch == [0]
    assert even.optimizer.state_dict()["iterations"] == 2
    assert even.fit(X, Y, verbose=0).epoch == [0]


def test_fit_in_a_callback_of_fit_is_refused_and_the_model_can_be_trained_again(even):
    again = LambdaCallback(on_epoch_end=lambda epoch, logs: even.fit(X, Y, verbose=0))
    with pytest.raises(RuntimeError, match="Another call of fit"):
        even.fit(X, Y, verbose=0, callbacks=[again])
    other = copy.deepcopy(seqnet.Model([Dense(1)]))
    nested = LambdaCallback(on_epoch_end=lambda epoch, logs: other.fit(X, Y, verbose=0))
    assert even.fit(X, Y, verbose=0, callbacks=[nested]).epoch == [0]
    assert other.history.epoch == [0]


def test_a_callback_may_predict_evaluate_train_and_save(even, tmp_path):
    def use(epoch, logs):
        even.predict(X)
        even.evaluate(X, Y)
        even.train_on_batch(X, Y)
        even.save(tmp_path / "model.h5")
        even.set_weights(even.get_weights())

    even.fit(X, Y, epochs=2, verbose=0, callbacks=[LambdaCallback(on_epoch_end=use)])
    assert even.optimizer.state_dict()["iterations"] == 4


# ---------------------------------------------------------------------------------------- forks


def in_child(function):
    """Run a function in a forked process; return its exit status."""
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(30)
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="This system has no fork.")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_while_a_model_is_trained_has_a_complete_model(even):
    x, y = np.ones((32, SIZE)), np.ones((32, 1))
    seqnet.config.set_backend("numpy")  # the threads of kernels are not part of this test
    even.fit(x, y, 8, verbose=0)
    even.predict_on_batch(HALVES)

    def use():
        assert_even(even.get_weights())
        assert_even_outputs(even)
        assert even.fit(x[:4], y[:4], verbose=0).epoch == [0]

    def fork():
        assert in_child(use) == 0

    counts = together(lambda: even.fit(x, y, 8, epochs=2, verbose=0), fork)
    assert counts[1] >= 1


def test_copies_of_a_lock_are_separate_locks():
    lock = ForkSafeLock()
    with lock:
        for other in (copy.deepcopy(lock), pickle.loads(pickle.dumps(lock))):
            assert type(other) is ForkSafeLock
            assert other is not lock
            together(lambda other=other: other.acquire() and other.release(), seconds=0)

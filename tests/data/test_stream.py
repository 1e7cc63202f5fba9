"""Streams of batches: accepted types, order of reading, and how reading ends."""

import gc
import threading
import time
import traceback
from types import SimpleNamespace

import numpy as np
import pytest

import seqnet
from seqnet.callbacks import BackupAndRestore
from seqnet.data import Batch, Epoch
from seqnet.data.arrays import ArrayDataset
from seqnet.data.prefetch import prefetch, prefetch_if_slow
from seqnet.data.stream import open_stream
from seqnet.layers import GRU, Dense, Embedding, Softmax

RNG = np.random.default_rng(5)
TOKENS = RNG.integers(0, 6, (22, 4)).astype("int32")
CLASSES = RNG.integers(0, 3, 22).astype("int32")
WEIGHTS = RNG.uniform(0.5, 2, 22).astype("float32")
BATCHES = [(TOKENS[k : k + 5], CLASSES[k : k + 5]) for k in range(0, 22, 5)]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """Check that no test leaves a thread behind."""
    before = threading.active_count()
    yield
    assert threading.active_count() == before, threading.enumerate()


class Numbered:
    """Batches by number, as in Keras's PyDataset."""

    def __init__(self, batches=BATCHES):
        self.items, self.asked, self.epochs = batches, [], 0

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        if not 0 <= number < len(self.items):
            raise IndexError(number)
        self.asked.append(number)
        return self.items[number]

    def on_epoch_end(self):
        self.epochs += 1


class Rows:
    """Rows of an object that supports slices."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, part: slice):
        return self.rows[part.start : part.stop]


class Tensor:
    """An object that can be converted to an array, like tensors of other libraries."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


class Loader:
    """An iterable of lists of tensors that can be iterated repeatedly."""

    def __init__(self, batches=BATCHES):
        self.items = batches

    def __len__(self):
        return len(self.items)

    def __iter__(self):
        return ([Tensor(part) for part in batch] for batch in self.items)


def classifier(**options):
    seqnet.set_random_seed(3)
    model = seqnet.Model([Embedding(6, 4, **options), GRU(4), Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def bits(model):
    return [w.tobytes() for w in model.get_weights()]


def trained(*args, **options):
    model = classifier()
    model.fit(*args, verbose=0, **options)
    return model


def endless(batches=BATCHES, closed=None):
    try:
        while True:
            yield from batches
    finally:
        if closed is not None:
            closed.append(threading.current_thread().name)


class StopError(Exception):
    """Raised to end a training."""


class At(seqnet.callbacks.Callback):
    """Calls a function after a batch."""

    def __init__(self, batch, function):
        self.batch, self.function = batch, function

    def on_batch_end(self, batch, logs=None):
        if batch == self.batch:
            self.function()


def stop():
    raise StopError


# ---- prefetching


@pytest.mark.parametrize("size", [0, 1, 3])
def test_items_are_in_order(size):
    assert list(prefetch((k for k in range(50)), size)) == list(range(50))
    assert list(prefetch((k for k in ()), size)) == []


@pytest.mark.parametrize("size", [1, 2, 4])
def test_at_most_size_items_are_prefetched(size):
    made, reached = [], threading.Event()

    def items():
        for k in range(20):
            made.append(k)
            if k == size:
                reached.set()
            yield k

    reader = prefetch(items(), size)
    assert next(reader) == 0
    assert reached.wait(10)
    time.sleep(0.02)
    assert len(made) == size + 1
    reader.close()
    assert len(made) == size + 1


@pytest.mark.parametrize(
    ("milliseconds", "in_place"),
    [
        ([0.1] * 40, 40),
        ([1000, *[0.1] * 5], 1),
        ([0.1, 0.1, 0.1, 1000, 0.1, 0.1], 4),
        ([0.1, 7, *[0.1] * 4], 6),
        ([0.6] * 20, 14),
        ([10, *[0.1] * 7] * 2, 1),
        (([5, *[0.1] * 7] * 2)[1:], 15),
        (([5, *[0.1] * 7] * 4)[1:], 16),
    ],
)
def test_a_thread_reads_once_items_are_slow(milliseconds, in_place, monkeypatch):
    now, readers, closed = [0.0], [], []
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("seqnet.data.prefetch.time", clock)
    count = len(milliseconds)

    def items():
        try:
            for k, cost in enumerate(milliseconds):
                readers.append(threading.current_thread().name)
                now[0] += cost / 1000
                yield k
        finally:
            closed.append(True)

    assert list(prefetch_if_slow(items(), 2)) == list(range(count))
    assert closed == [True]
    here = threading.current_thread().name
    assert readers == [here] * in_place + ["seqnet-prefetch"] * (count - in_place)
    reader = prefetch_if_slow(items(), 2)
    assert next(reader) == 0
    reader.close()
    assert closed == [True, True]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OSError(5, "disk")])
def test_an_error_is_raised_after_earlier_items_with_its_traceback(error):
    def the_users_own_function():
        raise error

    def items():
        yield 1
        yield 2
        the_users_own_function()

    found, reader = [], prefetch(items(), 3)
    with pytest.raises(type(error)) as caught:
        found += [next(reader), next(reader)]
        next(reader)
    assert found == [1, 2]
    assert caught.value is error
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "the_users_own_function" in names
    assert list(reader) == []


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_close_ends_the_thread_and_closes_the_source_in_it(taken):
    closed = []
    reader = prefetch(endless(range(10), closed), 2)
    for _ in range(taken):
        next(reader)
    reader.close()
    assert closed == (["seqnet-prefetch"] if taken else [])
    assert list(reader) == []


def test_close_waits_a_limited_time_for_a_blocked_source(monkeypatch, caplog):
    monkeypatch.setattr("seqnet.data.prefetch.CLOSE_TIMEOUT_S", 0.01)
    release = threading.Event()

    def items():
        yield 1
        release.wait()
        yield 2

    reader = prefetch(items(), 3)
    next(reader)
    (thread,) = [t for t in threading.enumerate() if t.name == "seqnet-prefetch"]
    reader.close()
    assert "has not returned" in caplog.text
    release.set()
    thread.join(10)
    assert not thread.is_alive()


def test_consumed_arrays_are_released():
    class Item:
        alive = 0

        def __init__(self):
            Item.alive += 1

        def __del__(self):
            Item.alive -= 1

    reader = prefetch((Item() for _ in range(5)), 1)
    for item in reader:
        del item
    gc.collect()
    assert Item.alive == 0


# ---- accepted streams


@pytest.mark.parametrize("batches", [0, 3])
def test_all_kinds_of_streams_train_the_same_bit_for_bit(batches):
    seqnet.config.set_prefetch(batches)
    expected = bits(trained(TOKENS, CLASSES, batch_size=5, epochs=2, shuffle=False))
    steps = {"epochs": 2, "steps_per_epoch": 5}
    assert bits(trained(endless(), **steps)) == expected
    assert bits(trained((b for b in BATCHES * 2), **steps)) == expected
    assert bits(trained(list(BATCHES), epochs=2, shuffle=False)) == expected
    assert bits(trained(Loader(), epochs=2)) == expected
    assert bits(trained(Loader(), **steps)) == expected
    assert bits(trained(Numbered(), epochs=2, shuffle=False)) == expected


def test_sample_weights_are_the_third_item_of_a_batch():
    stream = [(x, y, WEIGHTS[k * 5 : k * 5 + 5]) for k, (x, y) in enumerate(BATCHES)]
    expected = trained(
        TOKENS, CLASSES, batch_size=5, shuffle=False, sample_weight=WEIGHTS, class_weight={0: 2.0}
    )
    assert bits(trained(iter(stream), class_weight={0: 2.0})) == bits(expected)


def test_numbered_batches_are_shuffled_as_whole_batches():
    numbered = Numbered()
    trained(numbered, epochs=3)
    asked = numbered.asked[-15:]
    orders = [tuple(asked[k : k + 5]) for k in (0, 5, 10)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert len(set(orders)) > 1
    assert numbered.epochs == 3
    again = Numbered()
    assert bits(trained(again, epochs=3)) == bits(trained(Numbered(), epochs=3))
    assert again.asked[-15:] == asked


def test_a_stream_continues_in_the_next_epoch():
    long = trained(Loader(BATCHES * 2), shuffle=False)
    assert bits(trained(Loader(), epochs=5, steps_per_epoch=2)) == bits(long)
    assert bits(trained(Numbered(), epochs=5, steps_per_epoch=2, shuffle=False)) == bits(long)


def test_streams_may_have_ragged_batches():
    lengths = [[1, 4, 2], [3], [5, 5]]
    sequences = [[RNG.integers(1, 6, n) for n in batch] for batch in lengths]
    targets = [[RNG.integers(0, 3, n) for n in batch] for batch in lengths]
    layers = [Embedding(6, 3), GRU(4, return_sequences=True), Dense(3), Softmax()]
    model = seqnet.Model(layers)
    stream = list(zip(sequences, targets, strict=True))
    model.fit(stream, epochs=2, verbose=0)
    flat = [sequence for batch in sequences for sequence in batch]
    marks = [target for batch in targets for target in batch]
    assert model.evaluate(stream) == pytest.approx(model.evaluate(flat, marks), rel=1e-5)
    for found, expected in zip(model.predict(iter(sequences)), model.predict(flat), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    last = seqnet.Model([Embedding(6, 3), GRU(4)])
    np.testing.assert_allclose(last.predict(iter(sequences)), last.predict(flat), atol=1e-6)


def test_a_stream_can_be_trained_in_windows():
    marks = np.repeat(CLASSES[:, None], 4, 1)

    def model(*args, **options):
        seqnet.set_random_seed(3)
        layers = [Embedding(6, 3), GRU(4, return_sequences=True), Dense(3), Softmax()]
        result = seqnet.Model(layers)
        result.fit(*args, tbptt=2, verbose=0, shuffle=False, **options)
        return result

    stream = [(x, marks[k * 5 : k * 5 + 5]) for k, (x, _) in enumerate(BATCHES)]
    assert bits(model(stream)) == bits(model(TOKENS, marks, batch_size=5))


def test_streams_can_be_evaluated_and_predicted():
    model = classifier()
    expected = model.evaluate(TOKENS, CLASSES, batch_size=5)
    outputs = model.predict(TOKENS, batch_size=5)
    for stream in (iter(BATCHES), Loader(), Numbered(), list(BATCHES)):
        assert model.evaluate(stream) == expected
    for stream in (iter(BATCHES), Loader(), Numbered(), (x for x, _ in BATCHES)):
        np.testing.assert_array_equal(model.predict(stream), outputs)
    np.testing.assert_array_equal(model.predict(endless(), steps=2), outputs[:10])
    assert model.evaluate(endless(), steps=5) == expected


@pytest.mark.parametrize("kind", [Loader, Numbered, list])
def test_validation_on_a_stream_starts_again_each_time(kind):
    model = classifier()
    model.fit(
        TOKENS, CLASSES, epochs=2, verbose=0, validation_data=kind(BATCHES), validation_steps=2
    )
    expected = model.evaluate(TOKENS[:10], CLASSES[:10])
    assert model.history.history["val_loss"][-1] == pytest.approx(expected, rel=1e-6)


def test_validation_on_an_iterator_continues():
    model = classifier()
    model.fit(BATCHES, epochs=2, verbose=0, validation_data=iter(BATCHES[:4]), validation_steps=2)
    expected = model.evaluate(TOKENS[10:20], CLASSES[10:20])
    assert model.history.history["val_loss"][-1] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", [Loader, Numbered])
def test_an_interrupted_epoch_continues_at_the_same_batch(kind):
    def checked(raw):
        return ArrayDataset(Batch(*map(np.asarray, raw)))

    def found(**options):
        stream = open_stream(kind(), checked, "X", continues="steps" in options)
        rng = np.random.default_rng(1) if kind is Numbered else None
        return [b.inputs.tolist() for b in stream.batches(Epoch(rng=rng, before=0, **options))]

    assert found(first=2) == found()[2:]
    assert len(found()) == 5


def test_finished_epochs_are_skipped_in_a_stream_that_continues():
    stream = open_stream(
        iter(range(20)), lambda raw: ArrayDataset(Batch(np.array([raw]))), "X", continues=True
    )
    found = [int(b.inputs[0]) for b in stream.batches(Epoch(first=1, steps=4, before=8))]
    found += [int(b.inputs[0]) for b in stream.batches(Epoch(steps=4, before=12))]
    assert found == [9, 10, 11, 12, 13, 14, 15]
    stream.close()


# ---- how reading ends


def test_a_generator_is_closed_when_training_ends():
    closed = []
    trained(endless(closed=closed), epochs=2, steps_per_epoch=3)
    assert closed == ["seqnet-prefetch"]


@pytest.mark.parametrize("error", [StopError, KeyboardInterrupt])
def test_a_generator_is_closed_when_training_is_interrupted(error):
    closed, other = [], []

    def fail():
        raise error

    with pytest.raises(error):
        trained(
            endless(closed=closed), steps_per_epoch=5, callbacks=[At(1, fail)],
            validation_data=endless(closed=other), validation_steps=1,
        )  # fmt: skip
    assert closed == other == ["seqnet-prefetch"]


def test_a_generator_is_closed_when_a_callback_stops_the_training():
    closed, model = [], classifier()
    end = At(1, lambda: setattr(model, "stop_training", True))
    model.fit(endless(closed=closed), steps_per_epoch=5, epochs=3, verbose=0, callbacks=[end])
    assert closed
    assert len(model.history.epoch) == 1


def test_a_generator_is_closed_when_something_else_is_refused():
    closed = []
    with pytest.raises(ValueError, match="validation_data"):
        classifier().fit(endless(closed=closed), steps_per_epoch=2, validation_data=3)
    assert closed


def test_rows_outside_memory_leave_no_thread_when_training_is_interrupted(tmp_path):
    x = np.memmap(tmp_path / "x", "int32", "w+", shape=TOKENS.shape)
    with pytest.raises(StopError):
        trained(x, CLASSES, batch_size=2, callbacks=[At(1, stop)])


def test_an_error_of_the_source_ends_the_training_after_the_batches_before_it():
    def broken():
        yield from BATCHES[:3]
        raise OSError("no such disk")

    model, seen = classifier(), []
    with pytest.raises(OSError, match="no such disk"):
        model.fit(broken(), verbose=0, callbacks=[At(2, lambda: seen.append(1))])
    assert seen == [1]
    assert bits(model) == bits(trained(iter(BATCHES[:3])))


def test_an_iterator_that_ends_early_ends_the_training_with_a_warning(caplog):
    model = trained(iter(BATCHES), epochs=3, steps_per_epoch=2)
    assert model.history.epoch == [0, 1, 2]
    assert "after 1 batches of epoch 3 of 3" in caplog.text
    caplog.clear()
    model = trained(iter(BATCHES[:4]), epochs=3, steps_per_epoch=2)
    assert model.history.epoch == [0, 1]
    assert "training ends" in caplog.text


def test_fewer_batches_to_evaluate_than_steps_cause_a_warning(caplog):
    classifier().evaluate(iter(BATCHES), steps=9)
    assert "no 9 batches" in caplog.text


# ---- invalid streams


@pytest.mark.parametrize(
    ("batch", "error", "parts"),
    [
        ((TOKENS[:5] + 6, CLASSES[:5]), ValueError, ["Batch 3 of X: X holds", "input_dim=6"]),
        ((TOKENS[:5], CLASSES[:4]), ValueError, ["Batch 3 of X", "5 in X", "4 in y"]),
        ((TOKENS[:5], CLASSES[:5] + 3), ValueError, ["Batch 3 of X: y holds class"]),
        ((TOKENS[:5] + 0.5, CLASSES[:5]), ValueError, ["Batch 3 of X: X holds", "whole numbers"]),
        ((TOKENS[:5], CLASSES[:5], -np.ones(5)), ValueError, ["Batch 3", "sample_weight"]),
        (TOKENS[:5], TypeError, ["Batch 3 of X: a batch is (x, y)", "array of shape (5,"]),
        ((TOKENS[:5],), TypeError, ["Batch 3 of X: a batch is (x, y)", "tuple of 1"]),
        (None, TypeError, ["Batch 3 of X: a batch is (x, y)", "NoneType"]),
    ],
)
@pytest.mark.parametrize("kind", [iter, Numbered])
def test_a_wrong_batch_is_refused_by_number_before_its_update(kind, batch, error, parts):
    model = classifier()
    with pytest.raises(error) as caught:
        model.fit(kind([*BATCHES[:3], batch]), shuffle=False, verbose=0)
    assert all(p in str(caught.value) for p in parts), str(caught.value)
    assert bits(model) == bits(trained(iter(BATCHES[:3])))


@pytest.mark.parametrize(
    ("x", "options", "parts"),
    [
        (iter(BATCHES), {"y": CLASSES}, ["stream", "y cannot be passed"]),
        (Numbered(), {"y": CLASSES}, ["stream", "y cannot be passed"]),
        (iter(BATCHES), {"sample_weight": WEIGHTS}, ["stream", "sample_weight"]),
        (Loader(), {"mask": TOKENS > 0, "lengths": CLASSES}, ["mask and lengths cannot"]),
        (iter(BATCHES), {"epochs": 2}, ["iterator", "steps_per_epoch", "2 epochs"]),
        (BATCHES, {"epochs": 2, "validation_data": iter(BATCHES)}, ["validation_steps"]),
        (iter(BATCHES), {"validation_split": 0.2}, ["validation_split", "stream"]),
        (iter([]), {}, ["X has no batches"]),
        (Loader([]), {}, ["X has no batches"]),
        (TOKENS, {}, ["y is missing", "array of shape"]),
        (TOKENS.tolist(), {}, ["y is missing", "list"]),
    ],
)
def test_invalid_arguments_are_refused_before_compiling(compiled, x, options, parts):
    with pytest.raises(ValueError) as caught:
        classifier().fit(x, verbose=0, **options)
    assert all(p in str(caught.value) for p in parts), str(caught.value)
    assert not compiled


def test_train_on_batch_refuses_a_stream():
    with pytest.raises(ValueError, match="takes one batch"):
        classifier().predict_on_batch(iter(BATCHES))


# ---- resuming


class Memmap:
    """Rows in a file that is written for each run."""

    def __init__(self, folder):
        self.x = np.lib.format.open_memmap(folder / "x.npy", "w+", "int32", TOKENS.shape)
        self.x[:] = TOKENS

    def __call__(self):
        return self.x, CLASSES


@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize(
    ("data", "options"),
    [
        (Memmap, {}),
        (Memmap, {"shuffle": "batch"}),
        (Memmap, {"shuffle": False, "steps_per_epoch": 3}),
        (lambda _: lambda: (Numbered(),), {}),
        (lambda _: lambda: (Loader(),), {}),
        (lambda _: lambda: (Loader(),), {"steps_per_epoch": 3}),
        (lambda _: lambda: (endless(),), {"steps_per_epoch": 3}),
    ],
)
def test_a_stopped_training_continues_bit_for_bit(tmp_path, data, options, at):
    """`at` is the number of batches before the interruption, in the first or second epoch."""
    given = data(tmp_path)
    options = {"batch_size": 5, "epochs": 3} | options
    expected = trained(*given(), **options)
    done = []

    class Stopper(seqnet.callbacks.Callback):
        def on_batch_end(self, batch, logs=None):
            done.append(batch)
            if len(done) == at + 1:
                raise StopError

    def backup():
        return BackupAndRestore(tmp_path / "run.h5", save_freq=1, delete_checkpoint=False)

    with pytest.raises(StopError):
        trained(*given(), callbacks=[Stopper(), backup()], **options)
    seqnet.set_random_seed(99)
    model = trained(*given(), callbacks=[Stopper(), backup()], **options)
    assert bits(model) == bits(expected)
    assert model.history.history == expected.history.history


def test_a_training_on_other_batches_is_refused(tmp_path):
    backup = BackupAndRestore(tmp_path / "run.h5", delete_checkpoint=False)
    trained(Loader(), callbacks=[backup])
    with pytest.raises(ValueError, match=r"was saved by another training: data.X.checksum"):
        trained(Loader(BATCHES[1:]), callbacks=[backup])
    x = np.memmap(tmp_path / "x", "int32", "w+", shape=TOKENS.shape)
    backup = BackupAndRestore(tmp_path / "rows.h5", delete_checkpoint=False)
    trained(x, CLASSES, callbacks=[backup])
    x[11] += 1
    with pytest.raises(ValueError, match=r"data.X.checksum"):
        trained(x, CLASSES, callbacks=[backup])


@pytest.mark.parametrize("kind", ["rows", "stream"])
def test_a_training_with_other_class_weights_is_refused(tmp_path, kind):
    """No compared batch contains the class."""
    x, y = TOKENS, np.zeros_like(CLASSES)
    data = (Rows(x), y) if kind == "rows" else ([(x, y), (x, y)],)
    path = tmp_path / "run.h5"

    def train(weights):
        trained(*data, class_weight=weights, callbacks=[BackupAndRestore(path, 1, False)])

    train({1: np.float32(2)})
    train({np.int64(1): 2.0})
    with pytest.raises(ValueError, match=r"another training: class_weight.1 was 2.0 and is 3.0"):
        train({1: 3.0})
    with pytest.raises(ValueError, match="another training: class_weight was given and is None"):
        train(None)

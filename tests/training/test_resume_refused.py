"""A backup is resumed only by the same training, used by one run at a time, and validated."""

from __future__ import annotations

import copy
import functools
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import seqnet
import seqnet.callbacks as cb
from seqnet import config
from seqnet.callbacks import BackupAndRestore, Callback
from seqnet.layers import Dense, Dropout, Layer
from seqnet.saving import hdf5
from seqnet.training.code_digest import digest_of

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = X[:, :2]
SCALE = 0.5


class PowerError(Exception):
    """Simulates a power failure."""


def run(path, callbacks=(), cut=None, seed=1, loss="mse", layers=None, save_freq=1, **options):
    """Train a new model; simulate a power failure after some batches."""
    if seed is not None:
        seqnet.set_random_seed(seed)
    model = seqnet.Model([Dense(2), Dropout(0.2)] if layers is None else layers())
    model.compile("adam", loss)
    return fit(model, path, callbacks, cut, save_freq, **options)


def fit(model, path, callbacks=(), cut=None, save_freq=1, **options):
    left = [cut]

    def count(batch, logs):
        if left[0] is not None:
            left[0] -= 1
            if not left[0]:
                raise PowerError

    callbacks = [*callbacks, cb.LambdaCallback(on_train_batch_end=count)]
    callbacks.append(BackupAndRestore(path, save_freq, delete_checkpoint=False))
    options = {"epochs": 2, "batch_size": 3, "verbose": 0, "validation_data": (X, Y)} | options
    model.fit(X, Y, callbacks=callbacks, **options)
    return model


def halve(epoch, rate):
    return rate * SCALE


def scheduled(factor):
    return cb.LearningRateScheduler(lambda epoch, rate: rate * factor)


class Clip(Callback):
    """A custom callback: one argument is stored under another name."""

    def __init__(self, limit, note=""):
        self.limit = limit
        self.remark = note

    def on_train_batch_end(self, batch, logs=None):
        self.model.set_weights(
            [np.clip(w, -self.limit, self.limit) for w in self.model.get_weights()]
        )


class OtherClip(Callback):
    def __init__(self, limit, note=""):
        self.limit = limit
        self.remark = note

    def on_train_batch_end(self, batch, logs=None):
        self.model.set_weights([np.tanh(w) * self.limit for w in self.model.get_weights()])


OtherClip.__name__ = OtherClip.__qualname__ = "Clip"

CALLBACKS = {
    "patience": (
        lambda folder: cb.EarlyStopping(patience=3, verbose=0),
        lambda folder: cb.EarlyStopping(patience=4, verbose=1),
        "patience was 3 and is 4",
    ),
    "factor": (
        lambda folder: cb.ReduceLROnPlateau(factor=0.5),
        lambda folder: cb.ReduceLROnPlateau(factor=0.25),
        "factor was 0.5 and is 0.25",
    ),
    "path": (
        lambda folder: cb.ModelCheckpoint(folder / "one.h5"),
        lambda folder: cb.ModelCheckpoint(folder / "two.h5"),
        "filepath was .*one.h5 and is .*two.h5",
    ),
    "threshold": (
        lambda folder: cb.ModelCheckpoint(folder / "m.h5", save_best_only=True),
        lambda folder: cb.ModelCheckpoint(
            folder / "m.h5", save_best_only=True, initial_value_threshold=0.1
        ),
        "initial_value_threshold was None and is 0.1",
    ),
    "file": (
        lambda folder: cb.CSVLogger(folder / "one.csv"),
        lambda folder: cb.CSVLogger(folder / "two.csv"),
        "filename was .*one.csv and is .*two.csv",
    ),
    "schedule": (
        lambda folder: cb.LearningRateScheduler(halve),
        lambda folder: cb.LearningRateScheduler(lambda epoch, rate: rate / 4),
        "schedule was .*halve and is .*lambda",
    ),
    "a variable of the schedule": (
        lambda folder: scheduled(0.5),
        lambda folder: scheduled(0.25),
        "schedule.code was",
    ),
    "a function": (
        lambda folder: cb.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
        lambda folder: cb.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.clear()),
        "on_epoch_end.code was",
    ),
    "an own callback's argument": (
        lambda folder: Clip(1.0, "a"),
        lambda folder: Clip(2.0, "b"),
        "limit was 1.0 and is 2.0",
    ),
    "an own callback's code": (
        lambda folder: Clip(1.0),
        lambda folder: OtherClip(1.0),
        r"callbacks\[0\].code was",
    ),
}


@pytest.mark.parametrize("kind", CALLBACKS)
def test_other_configurations_of_callbacks_are_another_training(kind, tmp_path, request):
    first, second, message = CALLBACKS[kind]
    path = tmp_path / "run.h5"
    with pytest.raises(PowerError):
        run(path, [first(tmp_path)], cut=3)
    before = path.read_bytes()
    request.getfixturevalue("no_compile")
    with pytest.raises(ValueError, match=f"saved by another training: .*{message}"):
        run(path, [second(tmp_path)])
    assert path.read_bytes() == before


def test_the_same_callbacks_are_the_same_training(tmp_path):
    def callbacks():
        return [first(tmp_path) for first, _, _ in CALLBACKS.values()]

    with pytest.raises(PowerError):
        run(tmp_path / "run.h5", callbacks(), cut=3)
    resumed = run(tmp_path / "run.h5", callbacks())
    expected = run(tmp_path / "other.h5", callbacks())
    for weight, other in zip(resumed.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


def weighted(power):
    def own_loss(y_true, y_pred):
        return ((y_true - y_pred) ** power).sum(axis=-1)

    return own_loss


class Scale(Layer):
    factor = 2.0

    def call(self, x, mask, context):
        return x * self.factor


class OtherScale(Layer):
    factor = 3.0

    def call(self, x, mask, context):
        return x * self.factor


OtherScale.__name__ = OtherScale.__qualname__ = "Scale"


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"loss": weighted(2)}, {"loss": weighted(4)}, "code.own_loss was"),
        (
            {"layers": lambda: [Dense(2), Scale()]},
            {"layers": lambda: [Dense(2), OtherScale()]},
            "code.Scale was",
        ),
        ({}, {"seed": 2}, "start.seed was 1 and is 2"),
        ({}, {"seed": None}, "start.random_state was"),
    ],
)
def test_other_custom_code_and_another_seed_are_another_training(
    first, second, message, tmp_path, request
):
    path = tmp_path / "run.h5"
    with pytest.raises(PowerError):
        run(path, cut=3, **first)
    request.getfixturevalue("no_compile")
    with pytest.raises(ValueError, match=f"saved by another training: .*{message}"):
        run(path, **second)


def test_other_starting_weights_are_another_training(tmp_path):
    def make(value):
        seqnet.set_random_seed(1)
        model = seqnet.Model([Dense(2, input_shape=(3,))])
        model.compile("adam", "mse")
        model.set_weights([np.full((3, 2), value), np.zeros(2)])
        return model

    with pytest.raises(PowerError):
        fit(make(1), tmp_path / "run.h5", cut=3)
    with pytest.raises(ValueError, match=r"start.weights was .*set_random_seed"):
        fit(make(2), tmp_path / "run.h5")
    fit(make(1), tmp_path / "run.h5")


def test_without_a_seed_any_start_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "_seed", None)
    with pytest.raises(PowerError):
        run(tmp_path / "run.h5", cut=6, seed=None)
    history = run(tmp_path / "run.h5", seed=None).history
    assert history.epoch == [0, 1]
    with pytest.raises(ValueError, match=r"start.seed was None and is 3"):
        run(tmp_path / "run.h5", seed=3)


def test_the_model_of_a_failed_run_resumes_it_in_the_same_process(tmp_path):
    expected = run(tmp_path / "other.h5").get_weights()
    seqnet.set_random_seed(1)
    model = seqnet.Model([Dense(2), Dropout(0.2)])
    model.compile("adam", "mse")
    for cut in (3, 4):
        with pytest.raises(PowerError):
            fit(model, tmp_path / "run.h5", cut=cut, save_freq=2)
    fit(model, tmp_path / "run.h5", save_freq=2)
    for weight, other in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(weight, other)


def test_fewer_epochs_than_in_the_file_cause_a_warning(tmp_path, caplog):
    run(tmp_path / "run.h5", epochs=3)
    assert not caplog.records
    assert run(tmp_path / "run.h5", epochs=1).history.epoch == [0, 1, 2]
    assert "after batch 0 of epoch 4, which is beyond epochs=1" in caplog.text


def test_code_of_another_python_is_not_compared(tmp_path, caplog):
    path = tmp_path / "run.h5"
    with pytest.raises(PowerError):
        run(path, cut=3, loss=weighted(2))
    header, arrays = hdf5.read(path)
    header["run"]["made_with"]["Python"] = "3.10"
    header["run"]["description"]["code"]["own_loss"] = "0" * 16
    hdf5.write(path, header, arrays)
    run(path, loss=weighted(2))
    assert "Python was 3.10 and is" in caplog.text


@pytest.mark.parametrize("state", [None, {"a": {1, 2}}, {"a": [object()]}])
def test_a_state_that_cannot_be_saved_names_its_callback(state, tmp_path):
    class Keeper(Callback):
        def state_dict(self):
            return state

    with pytest.raises(TypeError, match=r"Keeper.state_dict must return"):
        run(tmp_path / "run.h5", [Keeper()])


# ------------------------------------------------------------------------------ digests of code


FACTOR = 2.0
TABLE = np.arange(3.0)


def make(body, **variables):
    """Return the function ``f`` defined by source text, in a separate module."""
    space = {"np": np, "__name__": "users_module", **variables}
    exec(textwrap.dedent(body), space)
    return space["f"]


SAME = [
    ("def f(x):\n    return 2 * x", "def f(x):\n    # twice\n\n    return 2 * x"),
    ("def f(x):\n    return 2 * x", 'def f(x):\n    """Twice."""\n    return 2 * x'),
    ("seen = []\ndef f(x): seen.append(x)", "seen = [1, 2]\ndef f(x): seen.append(x)"),
    (
        "n = 0\ndef f():\n    global n\n    n += 1",
        "n = 5\ndef f():\n    global n\n    n += 1",
    ),
    ("def f(x): return f(x - 1) if x else 0",) * 2,
    ("def f(x): return x in {'a', 'b', 'c'}",) * 2,
    ("f = np.tanh", "f = np.tanh"),
    ("class f:\n    def a(self): return 1",) * 2,
]
OTHER = [
    ("def f(x): return 2 * x", "def f(x): return 3 * x"),
    ("def f(x): return x.sum()", "def f(x): return x.max()"),
    ("def f(x, k=1): return k", "def f(x, k=2): return k"),
    ("def f(x, *, k=1): return k", "def f(x, *, k=2): return k"),
    ("a = 1\ndef f(x): return a", "a = 2\ndef f(x): return a"),
    ("a = (1, 2)\ndef f(x): return a", "a = (1, 3)\ndef f(x): return a"),
    ("a = np.ones(3)\ndef f(x): return a", "a = np.zeros(3)\ndef f(x): return a"),
    (
        "def g(x): return 1\ndef f(x): return g(x)",
        "def g(x): return 2\ndef f(x): return g(x)",
    ),
    ("f = lambda x: [i for i in x if i > 1]", "f = lambda x: [i for i in x if i > 2]"),
    ("class f:\n    def a(self): return 1", "class f:\n    def a(self): return 2"),
    ("class f:\n    a = 1", "class f:\n    a = 2"),
    (
        "class f:\n    @property\n    def a(self): return 1",
        "class f:\n    @property\n    def a(self): return 2",
    ),
    (
        "class g:\n    def a(self): return 1\nclass f(g): pass",
        "class g:\n    def a(self): return 2\nclass f(g): pass",
    ),
    (
        "class g:\n    def __init__(self, a): self.a = a\n    def __call__(self): pass\nf = g(1)",
        "class g:\n    def __init__(self, a): self.a = a\n    def __call__(self): pass\nf = g(2)",
    ),
    (
        "class g:\n    def __init__(self, a): self.a = a\n    def h(self): pass\nf = g(1).h",
        "class g:\n    def __init__(self, a): self.a = a\n    def h(self): pass\nf = g(2).h",
    ),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_digests_of_the_same_code_are_equal(first, second):
    assert digest_of(make(first)) == digest_of(make(second))


@pytest.mark.parametrize(("first", "second"), OTHER)
def test_digests_of_other_code_differ(first, second):
    assert digest_of(make(first)) != digest_of(make(second))


def test_digests_of_partial_functions():
    assert digest_of(functools.partial(halve, rate=1)) == digest_of(
        functools.partial(halve, rate=1)
    )
    assert digest_of(functools.partial(halve, rate=1)) != digest_of(
        functools.partial(halve, rate=2)
    )
    assert digest_of(functools.partial(halve, 1)) != digest_of(functools.partial(weighted, 1))


def test_digests_are_the_same_in_all_processes():
    program = textwrap.dedent(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import test_resume_refused as module
        texts = [text for pair in module.SAME + module.OTHER for text in pair]
        print(*[module.digest_of(module.make(text)) for text in texts])
        print(*map(module.digest_of, (module.Clip, module.Scale, module.halve, module.weighted(2))))
        """
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program, str(Path(__file__).parent)],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


# -------------------------------------------------------------------------- one run per file


def test_two_runs_do_not_use_one_file(tmp_path):
    path, refused = tmp_path / "run.h5", []

    class Second(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            with pytest.raises(RuntimeError, match=r"run.h5 is in use by another call of fit"):
                run(path, seed=None)
            refused.append(epoch)

    run(path, [Second()])
    assert refused == [0, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["run.h5"]


def test_a_file_is_free_after_a_run_failed_or_was_killed(tmp_path):
    path = tmp_path / "run.h5"
    program = textwrap.dedent(
        f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_resume_refused as module
        class Kill(module.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if batch == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
            def get_config(self):
                return {{}}
        module.run({str(path)!r}, [Kill()])
        """
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.run([sys.executable, "-c", program], env=environment)
    assert killed.returncode == -9
    assert path.exists()
    assert Path(f"{path}.lock").exists()
    with pytest.raises(ValueError, match="another training"):
        run(path)
    path.unlink()
    with pytest.raises(PowerError):
        run(path, cut=2)
    run(path)
    assert [file.name for file in tmp_path.iterdir()] == ["run.h5"]


def test_a_file_that_is_deleted_meanwhile_is_written_again(tmp_path):
    path = tmp_path / "run.h5"

    class Delete(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            path.unlink(missing_ok=True)
            Path(f"{path}.lock").unlink()

    run(path, [Delete()], epochs=1)
    assert run(path, [Delete()], epochs=1).history.epoch == [0]


# ----------------------------------------------------------------------------- forged headers

STRANGE = (None, True, -1, 3, 10**30, 0.5, float("nan"), "", "a", [], [1], [None], {}, {"a": 1})


def places(value, where=()):
    """Yield the path of every value inside a JSON value."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*where, key)
        if isinstance(item, (dict, list)):
            yield from places(item, (*where, key))


def changed(header, where, *new):
    """Return a header without a value, or with another one in its place."""
    header = copy.deepcopy(header)
    holder = functools.reduce(lambda value, key: value[key], where[:-1], header)
    if new:
        holder[where[-1]] = copy.deepcopy(new[0])
    else:
        del holder[where[-1]]
    return header


def test_made_up_files_are_refused_by_name(tmp_path):
    path, rng = tmp_path / "run.h5", random.Random(0)
    callbacks = [cb.EarlyStopping(patience=9, restore_best_weights=True), cb.CSVLogger(os.devnull)]
    seqnet.set_random_seed(1)
    model = seqnet.Model([Dense(2), Dropout(0.2)])
    model.compile("adam", "mse")
    with pytest.raises(PowerError):
        fit(model, path, callbacks, cut=5)
    header, arrays = hdf5.read(path)
    refused = resumed = 0
    for where in places(header):
        if (where[0] == "layers" or where[:2] == ("run", "description")) and len(where) > 3:
            continue
        for new in ((), (rng.choice(STRANGE),))[: rng.choice([1, 2])]:
            hdf5.write(path, changed(header, where, *new), arrays)
            try:
                fit(model, path, callbacks)
                resumed += 1
            except ValueError as error:
                assert type(error) is ValueError, (where, new)
                assert "run.h5" in str(error), (where, new)
                refused += 1
    assert refused > 100, (refused, resumed)
    assert resumed > 5, (refused, resumed)


def test_a_state_may_have_nested_arrays(tmp_path):
    class Keeper(Callback):
        loaded = None

        def state_dict(self):
            return {"weights": [np.arange(3.0), {"bias": np.ones((2, 2), "int32")}], "name": "a"}

        def load_state_dict(self, state):
            self.loaded = state

    with pytest.raises(PowerError):
        run(tmp_path / "run.h5", [Keeper()], cut=3)
    keeper = Keeper()
    run(tmp_path / "run.h5", [keeper])
    first, second = keeper.loaded["weights"]
    assert first.tolist() == [0, 1, 2]
    assert keeper.loaded["name"] == "a"
    assert second["bias"].dtype == "int32"
    assert second["bias"].shape == (2, 2)

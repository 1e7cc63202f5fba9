import functools

import pytest
from helpers import X, Y

import seqnet
from seqnet.callbacks import Callback, CallbackList, History, LambdaCallback
from seqnet.callbacks.base import HOOKS
from seqnet.layers import Dense


class Diary(Callback):
    """Records every call."""

    def __init__(self, name="", entries=None):
        self.name, self.entries = name, [] if entries is None else entries

    def on_train_begin(self, logs=None):
        self.entries.append(f"{self.name}train begin")

    def on_train_end(self, logs=None):
        self.entries.append(f"{self.name}train end")

    def on_epoch_begin(self, epoch, logs=None):
        self.entries.append(f"{self.name}epoch {epoch} begin")

    def on_epoch_end(self, epoch, logs=None):
        self.entries.append(f"{self.name}epoch {epoch} end: {', '.join(logs)}")

    def on_batch_begin(self, batch, logs=None):
        self.entries.append(f"{self.name}batch {batch} begin")

    def on_batch_end(self, batch, logs=None):
        self.entries.append(f"{self.name}batch {batch} end: {', '.join(logs)}")


def test_hooks_are_called_in_order(model):
    diary = Diary()
    model.fit(
        X, Y, batch_size=3, epochs=2, initial_epoch=1, callbacks=[diary], verbose=0,
        validation_data=(X, Y),
    )  # fmt: skip
    assert diary.entries == [
        "train begin",
        "epoch 1 begin",
        "batch 0 begin",
        "batch 0 end: loss",
        "batch 1 begin",
        "batch 1 end: loss",
        "epoch 1 end: loss, val_loss",
        "train end",
    ]
    assert diary.model is model
    assert diary.params == {
        "epochs": 2,
        "batch_size": 3,
        "samples": 5,
        "steps": 2,
        "metrics": ["loss", "val_loss"],
    }


def test_callbacks_are_called_in_the_order_of_the_list(model):
    entries = []
    model.fit(X, Y, callbacks=[Diary("a ", entries), Diary("b ", entries)], verbose=0)
    assert [e[0] for e in entries] == ["a", "b"] * 6


def test_batch_logs_are_means_of_the_epoch_so_far(model):
    class Losses(Callback):
        def __init__(self):
            self.seen = []

        def on_batch_end(self, batch, logs=None):
            self.seen.append(logs["loss"])

    model.optimizer.learning_rate = 0.0
    losses = Losses()
    history = model.fit(X, Y, batch_size=3, shuffle=False, callbacks=[losses], verbose=0)
    assert losses.seen[0] == pytest.approx(model.evaluate(X[:3], Y[:3]), rel=1e-5)
    assert losses.seen[1] == history.history["loss"][0]


def test_a_callback_stops_the_training_after_its_epoch(model):
    class Stop(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    assert model.fit(X, Y, epochs=9, callbacks=[Stop()], verbose=0).epoch == [0, 1]
    assert model.fit(X, Y, epochs=2, verbose=0).epoch == [0, 1]


def test_on_train_end_is_called_even_if_training_fails(model):
    class Fail(Callback):
        def on_batch_end(self, batch, logs=None):
            raise RuntimeError("no more")

    diary = Diary()
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(X, Y, callbacks=[diary, Fail()], verbose=0)
    assert diary.entries[-1] == "train end"


def test_a_callback_changes_the_learning_rate(model):
    class Halve(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.learning_rate /= 2

    model.fit(X, Y, epochs=3, callbacks=[Halve()], verbose=0)
    assert model.optimizer.learning_rate == pytest.approx(0.1 / 8)


def test_callbacks_may_be_none(model):
    assert model.fit(X, Y, callbacks=None, verbose=0).epoch == [0]


def test_history_grows_by_name():
    history = History()
    history.on_epoch_end(0, {"loss": 1.0})
    history.on_epoch_end(1, {"loss": 0.5, "val_loss": 2.0})
    assert history.history == {"loss": [1.0, 0.5], "val_loss": [2.0]}


def test_batch_hooks_have_aliases(model):
    """`on_batch_end` and `on_train_batch_end` are one hook, as in Keras."""

    class Both(Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_begin(self, batch, logs=None):
            self.seen.append(("begin", batch))
            super().on_train_batch_begin(batch, logs)

        def on_batch_begin(self, batch, logs=None):
            self.seen.append(("also", batch))

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(("end", batch))

    both = Both()
    model.fit(X, Y, batch_size=3, callbacks=[both], verbose=0)
    assert both.seen == [
        ("begin", 0), ("also", 0), ("end", 0), ("begin", 1), ("also", 1), ("end", 1),
    ]  # fmt: skip


def test_batch_hooks_that_are_not_overridden_are_not_called(model):
    calls = CallbackList([History(), Callback(), Diary()])
    assert len(calls.at_batch_begin) == len(calls.at_batch_end) == 1


def test_hooks_get_logs_even_if_the_loop_passes_none(model):
    seen = []

    class Look(Callback):
        def on_train_begin(self, logs=None):
            seen.append(logs)

        def on_epoch_begin(self, epoch, logs=None):
            seen.append((epoch, logs))

    calls = CallbackList([Look()])
    calls.on_train_begin()
    calls.on_epoch_begin(3)
    assert seen == [{}, (3, {})]


def test_a_list_has_the_hooks_of_a_callback_and_no_others(model):
    calls = CallbackList([Callback()])
    for hook in ("on_test_begin", "on_predict_end"):
        getattr(calls, hook)()
    calls.on_test_batch_end(0, {"loss": 1.0})
    with pytest.raises(AttributeError, match="on_epoch_edn"):
        calls.on_epoch_edn(0)


def test_logs_added_by_a_callback_are_in_the_history(model):
    class Add(Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["twice"] = 2 * epoch

    history = model.fit(X, Y, epochs=2, callbacks=[Add()], verbose=0)
    assert history.history["twice"] == [0, 2]


def test_log_names_are_known_if_all_callbacks_define_adds(model):
    class Adds(Callback):
        adds = ("bleu",)

        def on_epoch_end(self, epoch, logs=None):
            logs["bleu"] = 0.0

    def names(callbacks, params):
        calls = CallbackList(callbacks)
        calls.set_up(model, params)
        return calls.log_names()

    params = {"metrics": ["loss"]}
    assert names([Callback(), Adds()], params) == ["loss", "bleu"]
    assert names([Diary()], params) is None
    assert names([Adds()], {}) is None


def test_checks_run_before_anything_is_compiled(no_compile):
    class Refuse(Callback):
        def check(self, logs):
            raise ValueError(f"cannot work with {logs}")

    model = seqnet.Model([Dense(1, activation="sigmoid")])
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    with pytest.raises(ValueError, match="'loss', 'accuracy', 'val_loss', 'val_accuracy'"):
        model.fit(X, Y > 0, callbacks=[Refuse()], validation_data=(X, Y > 0), verbose=0)


def test_on_train_end_of_all_callbacks_is_called_if_one_raises(model):
    told = []

    def fail(logs):
        told.append("first")
        raise RuntimeError("at the end")

    callbacks = [
        LambdaCallback(on_train_end=fail),
        LambdaCallback(on_train_end=lambda logs: told.append("second")),
    ]
    with pytest.raises(RuntimeError, match="at the end"):
        model.fit(X, Y, verbose=0, callbacks=callbacks)
    assert told == ["first", "second"]


def test_lambda_callback_calls_its_functions(model):
    seen = []
    functions = LambdaCallback(
        on_train_begin=lambda logs: seen.append("begin"),
        on_train_batch_end=lambda batch, logs: seen.append((batch, *logs)),
        on_batch_end=None,
        on_epoch_end=lambda epoch, logs: seen.append((epoch, *logs)),
    )
    model.fit(X, Y, callbacks=[functions], verbose=0)
    assert seen == ["begin", (0, "loss"), (0, "loss")]


@pytest.mark.parametrize(
    ("hooks", "words"),
    [
        ({"on_epoch_edn": print}, ["on_epoch_edn", "on_epoch_end"]),
        ({"on_epoch_end": 3}, ["on_epoch_end", "3"]),
    ],
)
def test_functions_for_unknown_hooks_are_refused(hooks, words):
    with pytest.raises(TypeError) as error:
        LambdaCallback(**hooks)
    assert all(word in str(error.value) for word in words)


class Everything(Callback):
    """Records the names of all hooks, with batch numbers and log names."""

    def __init__(self):
        self.entries = []
        for hook in HOOKS:
            if hook not in ("on_batch_begin", "on_batch_end"):
                setattr(self, hook, functools.partial(self.enter, hook))

    def enter(self, hook, *given):
        *number, logs = given
        self.entries.append((hook.removeprefix("on_"), *number, *logs))


def test_all_hooks_in_the_order_of_keras(model):
    diary = Everything()
    model.fit(X, Y, batch_size=4, callbacks=[diary], validation_data=(X, Y), verbose=0)
    assert diary.entries == [
        ("train_begin",),
        ("epoch_begin", 0),
        ("train_batch_begin", 0),
        ("train_batch_end", 0, "loss"),
        ("train_batch_begin", 1),
        ("train_batch_end", 1, "loss"),
        ("test_begin",),
        ("test_batch_begin", 0),
        ("test_batch_end", 0, "loss"),
        ("test_batch_begin", 1),
        ("test_batch_end", 1, "loss"),
        ("test_end", "loss"),
        ("epoch_end", 0, "loss", "val_loss"),
        ("train_end", "loss", "val_loss"),
    ]


def test_evaluation_and_prediction_have_hooks(model):
    diary = Everything()
    model.evaluate(X, Y, batch_size=9, callbacks=[diary])
    model.predict(X, batch_size=9, callbacks=[diary])
    assert diary.entries == [
        ("test_begin",),
        ("test_batch_begin", 0),
        ("test_batch_end", 0, "loss"),
        ("test_end", "loss"),
        ("predict_begin",),
        ("predict_batch_begin", 0),
        ("predict_batch_end", 0, "outputs"),
        ("predict_end",),
    ]
    assert diary.params == {"batch_size": 9, "samples": 5, "steps": 1}


def test_a_callback_that_stops_within_an_epoch_ends_it_there(model):
    stop = LambdaCallback(
        on_train_batch_end=lambda batch, logs: setattr(model, "stop_training", batch == 1)
    )
    diary = Everything()
    model.fit(X, Y, batch_size=1, epochs=9, callbacks=[stop, diary], verbose=0)
    assert [entry[:2] for entry in diary.entries if entry[0] == "train_batch_end"] == [
        ("train_batch_end", 0),
        ("train_batch_end", 1),
    ]
    assert model.history.epoch == [0]

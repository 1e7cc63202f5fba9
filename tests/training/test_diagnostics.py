"""The first NaN or infinity in loss or gradient is located; norms equal those of NumPy."""

from __future__ import annotations

import logging
import math
import re

import numpy as np
import pytensor.tensor as pt
import pytest
from helpers import Plug

import seqnet
from seqnet.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    ModelCheckpoint,
    NormLogger,
    TerminateOnNaN,
)
from seqnet.layers import (
    GRU,
    LSTM,
    Bidirectional,
    Dense,
    Dropout,
    Embedding,
    Lambda,
    Masking,
    SimpleRNN,
    TimeDistributed,
)
from seqnet.optimizers import SGD
from seqnet.training.diagnostics import GradientNorms, LossSpikeDetector

RNG = np.random.default_rng(20260117)
SERIES = RNG.normal(size=(12, 6, 3)).astype("float32")
VALUES = RNG.normal(size=(12, 2)).astype("float32")
STEPS = RNG.normal(size=(12, 6, 2)).astype("float32")
ROW = 7
"""The example, in the second batch of four, that trouble comes with."""
WAYS = {"fused": {}, "scan": {"fused": False}, "unrolled": {"unroll": True}}


def steep(x):
    """A function with finite values whose gradient is NaN above 50."""
    return x - pt.sqrt(pt.maximum(50 - x, 0))


def marked(x=SERIES, value=1000.0):
    """Return inputs with one large sample."""
    x = x.copy()
    x[ROW] = value
    return x


def compiled(layers, optimizer="sgd", loss="mse"):
    model = seqnet.Model(layers)
    model.compile(optimizer, loss)
    return model


def calm(name=None, **options):
    """A recurrent layer whose output is 0 for 0 and always finite."""
    return SimpleRNN(3, return_sequences=True, name=name, **options)


def middle():
    """Layers whose gradient is not finite between `before` and `after`."""
    return [
        Dense(3, name="first"),
        Dense(3, name="before", kernel_initializer="ones"),
        Lambda(steep, name="steep"),
        SimpleRNN(3, name="after"),
        Dense(2, name="last"),
    ]


def first_error(model, *data, **options):
    with np.errstate(all="ignore"), pytest.raises(seqnet.NumericalError) as caught:
        model.fit(*data, batch_size=4, shuffle=False, verbose=0, **options)
    return caught.value


# ---- the first non-finite layer


def positive(layers):
    """Make the outputs of the first layer large for large inputs."""
    model = compiled(layers)
    model.build((None, 6, 3))
    model.layers[0].kernel.set_value(np.full((3, 3), 0.1, model.dtype))
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["auto", "numpy"])
def test_a_non_finite_gradient_in_the_middle_names_the_layer(backend, dtype):
    seqnet.config.set_backend(backend)
    seqnet.config.set_floatx(dtype)
    error = first_error(positive(middle()), marked(), VALUES, epochs=3)
    assert error.layers == ["before", "first"]
    assert math.isfinite(error.loss)
    assert error.headline.startswith(
        "Batch 2 of epoch 1: the gradient of layer 'before' is not finite, though the loss is "
    )
    assert "'before' (kernel, bias), then of 'first'" in str(error)
    assert "in 'steep'" in str(error)
    assert math.isfinite(error.gradient_norms["after/recurrent_kernel"])
    assert math.isnan(error.gradient_norms["before/kernel"])
    assert math.isfinite(error.weight_norms["last/kernel"])
    assert "weights are not finite now: first/kernel" in str(error)


@pytest.mark.parametrize(
    ("cell", "way"),
    [(LSTM, "fused"), (GRU, "fused"), (SimpleRNN, "fused"), (LSTM, "scan"), (GRU, "unrolled")],
)
def test_recurrent_layers_below_a_non_finite_gradient_are_named(cell, way):
    between = Dense(4, name="between", kernel_initializer="zeros")
    layers = [cell(3, name="below", **WAYS[way]), between, Lambda(steep), Dense(2, name="above")]
    model = compiled(layers)
    model.build((None, 6, 3))
    model.get_layer("between").bias.set_value(np.full(4, 60, model.dtype))
    error = first_error(model, SERIES, VALUES)
    assert error.layers == ["between", "below"]
    assert error.headline.startswith("Batch 1 of epoch 1: the gradient of layer 'between'")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("way", WAYS)
def test_an_exploding_recurrence_is_named(dtype, way):
    seqnet.config.set_floatx(dtype)
    x = np.ones((4, 40 if dtype == "float32" else 160, 1))
    model = compiled(
        [
            SimpleRNN(
                2, activation="relu", kernel_initializer="ones", name="wild",
                recurrent_initializer=seqnet.initializers.Constant(60.0), **WAYS[way],
            ),
            Dense(1, name="out"),
        ]
    )  # fmt: skip
    error = first_error(model, x, np.ones((4, 1)))
    assert not math.isfinite(error.loss)
    assert error.headline == f"Batch 1 of epoch 1: the loss is {error.loss}."
    assert "The forward pass was already non-finite" in str(error)
    assert "wild" in error.layers


def test_the_epoch_is_named():
    """Weights set at the end of the first epoch make the second fail."""

    class Spoil(Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.get_layer("between").bias.set_value(np.full(4, 60, "float32"))

    layers = [Dense(4, name="between", kernel_initializer="zeros"), Lambda(steep), Dense(2)]
    error = first_error(compiled(layers), VALUES, VALUES, epochs=3, callbacks=[Spoil()])
    assert error.headline.startswith("Batch 1 of epoch 2: the gradient of layer 'between'")


def test_frozen_layers_have_no_gradient():
    layers = middle()
    layers[1].trainable = False
    error = first_error(positive(layers), marked(), VALUES)
    assert error.layers == ["first"]
    assert "in 'before' and 'steep', where no weights" in str(error)
    assert re.search(r"before/kernel +not trained +\d", str(error))
    assert "before/kernel" not in error.gradient_norms


def test_wrapped_layers_are_named_by_their_wrapper():
    layers = [
        Bidirectional(GRU(2, return_sequences=True), name="both"),
        TimeDistributed(Dense(2, bias_initializer=seqnet.initializers.Constant(70.0)), name="each"),
        Lambda(steep),
        SimpleRNN(2, name="after"),
    ]
    assert first_error(compiled(layers), SERIES, VALUES).layers == ["each", "both"]


@pytest.mark.parametrize("rows", [9, 5000])
@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam"])
def test_embeddings_are_named_with_full_or_sparse_updates(rows, optimizer):
    model = compiled([Embedding(rows, 3, name="table"), Lambda(steep), SimpleRNN(2)], optimizer)
    model.build((None, 6))
    values = model.get_weights()
    values[0][3] = 60
    model.set_weights(values)
    tokens = np.ones((12, 6), "int32")
    tokens[ROW, 2] = 3
    error = first_error(model, tokens, VALUES)
    assert error.layers == ["table"]
    assert error.headline.startswith("Batch 2 of epoch 1: the gradient of layer 'table'")


def test_errors_in_tbptt_windows_name_the_layers():
    layers = [calm("before"), Dense(3, name="middle"), Lambda(steep), calm("after"), Dense(2)]
    model = compiled(layers)
    model.build((None, 6, 3))
    model.get_layer("middle").bias.set_value(np.full(3, 60, "float32"))
    error = first_error(model, SERIES, STEPS, tbptt=2)
    assert error.layers == ["middle", "before"]
    assert error.headline.startswith("Batch 1 of epoch 1, window 1: the gradient of layer 'middle'")


def test_the_window_is_named():
    steps = STEPS.copy()
    steps[ROW, 3] = 1e20
    error = first_error(compiled([calm(), Dense(2)], SGD(0.0)), SERIES, steps, tbptt=2)
    assert error.headline == "Batch 2 of epoch 1, window 2: the loss is inf."


def test_errors_in_streams_name_the_batch():
    def batches():
        for k in range(0, 12, 4):
            yield marked()[k : k + 4], VALUES[k : k + 4]

    with np.errstate(all="ignore"), pytest.raises(seqnet.NumericalError, match="Batch 2 of epoch"):
        positive(middle()).fit(batches(), verbose=0)


def test_errors_of_train_on_batch_name_the_layer():
    model = positive(middle())
    model.train_on_batch(SERIES, VALUES)
    with np.errstate(all="ignore"), pytest.raises(seqnet.NumericalError) as caught:
        model.train_on_batch(marked(), VALUES)
    assert caught.value.headline.startswith("train_on_batch: the gradient of layer 'before'")
    assert isinstance(caught.value, FloatingPointError)


# ---- the loss


def test_an_overflow_only_in_the_loss_names_no_layer():
    model = compiled([Dense(2)])
    error = first_error(model, VALUES, np.full((12, 2), 1e20))
    assert error.loss == math.inf
    assert error.layers == []
    assert "All gradients are finite; only the loss is not" in str(error)


def test_a_custom_loss_that_is_nan_is_named():
    def root(y_true, y_pred):
        return pt.sum(pt.sqrt(y_true), axis=-1) + pt.sum(y_pred, axis=-1)

    y = np.abs(VALUES)
    y[ROW] = -1
    error = first_error(compiled([Dense(2)], loss=root), VALUES, y)
    assert error.headline == "Batch 2 of epoch 1: the loss is nan."


def test_weights_that_were_non_finite_before_are_named():
    model = compiled([Dense(2, name="first"), Dense(2, name="second")])
    model.build((None, 2))
    model.layers[0].bias.set_value(np.array([0, np.nan], "float32"))
    error = first_error(model, VALUES, VALUES)
    assert "When this training began, weights were not finite: first/bias." in str(error)
    assert error.headline == "Batch 1 of epoch 1: the loss is nan."


def test_a_model_without_trainable_weights_has_no_gradient_norms():
    model = compiled([Dense(2, trainable=False)])
    model.fit(VALUES, VALUES, verbose=0)
    assert model.gradient_norms.mean() == 0
    assert model.gradient_norms.means(model.weights) == {}
    assert first_error(model, VALUES, np.full((12, 2), 1e20)).gradient_norms == {}


# ---- no false alarms


@pytest.mark.parametrize(
    ("layers", "x", "y", "options"),
    [
        ([Masking(), LSTM(3, dropout=0.2), Dense(2)], SERIES, VALUES, {}),
        ([GRU(3, return_sequences=True), Dropout(0.3), Dense(2)], SERIES, STEPS, {"tbptt": 4}),
        ([Embedding(9, 3, mask_zero=True), SimpleRNN(3), Dense(2)], np.eye(6, dtype=int), None, {}),
    ],
)
def test_ordinary_training_raises_no_error(layers, x, y, options, caplog):
    x = np.tile(x, (2, 1)) if y is None else x
    compiled(layers, "adam").fit(x, VALUES if y is None else y, 4, 5, verbose=0, **options)
    assert caplog.records == []


def test_masked_values_and_values_without_weight_raise_no_error():
    mask, steps = np.ones((12, 6), bool), STEPS.copy()
    mask[ROW, 3:], steps[ROW, 3:] = False, np.nan
    model = compiled([SimpleRNN(2, return_sequences=True), Dense(2)])
    model.fit(SERIES, steps, 4, mask=mask, verbose=0)
    model.fit(SERIES, STEPS, 4, sample_weight=np.zeros(12), verbose=0)
    assert np.isfinite(model.get_weights()[0]).all()


def test_a_finite_mean_loss_raises_no_error():
    model = compiled([Dense(1, kernel_initializer="zeros")], SGD(0.0))
    model.fit(np.ones((4, 1)), np.full((4, 1), 1e15), verbose=0)


# ---- callbacks that handle the error


def test_terminate_on_nan_stops_the_training_instead(capsys):
    model = positive(middle())
    with np.errstate(all="ignore"):
        history = model.fit(
            marked(), VALUES, 4, 5, callbacks=[TerminateOnNaN()], shuffle=False, verbose=0
        )
    assert history.epoch == [0]
    said = capsys.readouterr().out
    assert said.startswith("Batch 2 of epoch 1: the gradient of layer 'before' is not finite")
    assert said.endswith(" The training ends.\n")
    assert said.count("\n") == 1


def test_terminate_on_nan_stops_windows(capsys):
    layers = [Dense(3, bias_initializer=seqnet.initializers.Constant(60.0)), Lambda(steep), calm()]
    model = compiled([*layers, Dense(2)])
    with np.errstate(all="ignore"):
        model.fit(SERIES, STEPS, 4, 5, callbacks=[TerminateOnNaN()], tbptt=2, verbose=0)
    assert capsys.readouterr().out.count("The training ends.") == 1


def test_a_callback_can_ignore_the_error():
    class GoOn(Callback):
        adds = ()
        seen = 0

        def on_numerical_error(self, error):
            self.seen += 1

    go_on, model = GoOn(), compiled([Dense(2)], SGD(0.0))
    history = model.fit(VALUES, np.full((12, 2), 1e20), 4, 2, callbacks=[go_on], verbose=0)
    assert go_on.seen == 6
    assert history.history["loss"] == [math.inf] * 2


# ---- files


@pytest.mark.parametrize("callbacks", [[], [TerminateOnNaN()]])
def test_a_backup_is_not_overwritten_by_a_non_finite_state(callbacks, tmp_path, caplog):
    path = tmp_path / "run.h5"
    backup = BackupAndRestore(path, save_freq=1)
    options = {"callbacks": [*callbacks, backup], "shuffle": False, "verbose": 0}
    model, expected = positive(middle()), positive(middle())
    expected.set_weights(model.get_weights())
    with np.errstate(all="ignore"):
        if callbacks:
            model.fit(marked(), VALUES, 4, 2, **options)
            (record,) = caplog.records
            assert "run.h5 contains the last saved state" in record.getMessage()
        else:
            with pytest.raises(seqnet.NumericalError, match="contains the last saved state"):
                model.fit(marked(), VALUES, 4, 2, **options)
    expected.train_on_batch(SERIES[:4], VALUES[:4])
    again = seqnet.load_model(path, {"steep": steep})
    for weight, other in zip(again.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


@pytest.mark.parametrize(("save_freq", "last"), [("epoch", 2), (1, 3)])
def test_a_checkpoint_is_not_overwritten_by_non_finite_weights(save_freq, last, tmp_path, caplog):
    path, kept = tmp_path / "model.h5", []

    class Spoil(Callback):
        def on_batch_end(self, batch, logs=None):
            kept.append(self.model.get_weights())
            if len(kept) == 5:  # the second batch of the second epoch
                self.model.layers[0].bias.set_value(np.full(2, math.nan, "float32"))

    model = compiled([Dense(2, name="dense")])
    save = ModelCheckpoint(path, save_freq=save_freq)
    history = model.fit(
        VALUES, VALUES, 4, 5, verbose=0, callbacks=[Spoil(), TerminateOnNaN(), save]
    )
    assert history.epoch == [0, 1]
    assert len(kept) == 6
    for weight, other in zip(seqnet.load_model(path).get_weights(), kept[last], strict=True):
        np.testing.assert_array_equal(weight, other)
    messages = {record.getMessage() for record in caplog.records}
    assert any(
        re.fullmatch(r".*model\.h5 is not written: .*dense/bias not finite\.", m) for m in messages
    )


@pytest.mark.parametrize("delete", [True, False])
@pytest.mark.parametrize("value", [math.nan, 1e20])
def test_a_diverged_training_resumes_before_the_divergence_and_diverges_again(
    value, delete, tmp_path
):
    """Weights restored by a callback do not hide the divergence; 1e20 affects only the loss."""
    path, seen = tmp_path / "run.h5", []
    ask = Callback()
    ask.on_batch_begin = lambda batch, logs: seen.append((len(model.history.epoch), batch))
    best = seqnet.callbacks.EarlyStopping("loss", patience=9, restore_best_weights=True)

    class Spoil(Callback):
        def on_batch_begin(self, batch, logs=None):
            if (len(self.model.history.epoch), batch) == (1, 2):
                self.model.layers[0].bias.set_value(np.full(2, value, "float32"))

    found = []
    for _ in range(2):
        seqnet.set_random_seed(2)
        model = compiled([Dense(2)])
        backup = BackupAndRestore(path, 1, delete_checkpoint=delete)
        callbacks = [ask, best, Spoil(), TerminateOnNaN(), backup]
        history = model.fit(VALUES, VALUES, 4, 5, verbose=0, callbacks=callbacks).history
        found.append([np.float64(history["loss"]).tobytes(), model.get_weights()[0].tobytes()])
        assert np.isfinite(seqnet.load_model(path).get_weights()[1]).all()
    assert found[0] == found[1]
    assert seen == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 2)]
    model = compiled([Dense(2)], SGD(0.001))
    with pytest.raises(ValueError, match=r"learning_rate was 0\.01 and is 0\.001.*delete the file"):
        model.fit(VALUES, VALUES, 4, 5, verbose=0, callbacks=[ask, best, Spoil(), *callbacks[3:]])


# ---- loss spikes


def test_a_rising_loss_causes_one_warning(caplog):
    model = compiled([Dense(1, kernel_initializer="zeros", name="line")], SGD(1.5))
    x, y = np.full((32, 1), 1.0), np.ones((32, 1))
    with caplog.at_level(logging.WARNING, logger="seqnet"):
        history = model.fit(x, y, epochs=12, verbose=0)
    assert history.history["loss"][3] > 3 * history.history["loss"][0]
    (record,) = caplog.records
    assert record.getMessage().startswith("Batch 1 of epoch 2: the loss has risen to 25 ")
    assert record.getMessage().endswith(
        "over three times the first, 1. Is the learning rate of 1.5 too high?"
    )


@pytest.mark.parametrize(
    "losses",
    [
        [1, 2.9] * 50,
        [1] + [2.9] * 100,
        [1, 20] + [1] * 50,
        [0.0] + [5.0] * 50,
        [-1.0] + [5.0] * 50,
        [1e-9] + [9e-4] * 50,
        [5.0, -5.0] * 30,
    ],
)
def test_losses_without_a_spike_cause_no_warning(losses):
    rise = LossSpikeDetector()
    assert not any(rise.update(loss, 32) for loss in losses)


def test_the_first_loss_is_averaged_over_enough_samples():
    rise = LossSpikeDetector()
    found = [rise.update(loss, 1) for loss in [0.1] * 8 + [2.0] * 90]
    assert not any(found)
    assert rise.first == pytest.approx((0.8 + 24 * 2.0) / 32)


# ---- norms


@pytest.mark.parametrize("backend", ["auto", "numpy"])
@pytest.mark.parametrize("clipping", [{}, {"clipnorm": 0.01}, {"clipvalue": 0.01}])
def test_gradient_norms_equal_those_of_the_updates(backend, clipping):
    seqnet.config.set_backend(backend)
    seqnet.config.set_floatx("float64")
    layers = [Embedding(3000, 3), GRU(3), Dense(2)]
    tokens = RNG.integers(0, 3000, (12, 6))
    clipped = compiled(layers, SGD(0.5, **clipping))
    clipped.build((None, 6))
    plain = compiled([Embedding(3000, 3), GRU(3), Dense(2)], SGD(0.5))
    plain.build((None, 6))
    plain.set_weights(clipped.get_weights())
    before = plain.get_weights()
    for model in (plain, clipped):
        model.train_on_batch(tokens, VALUES)
    changes = [(a - b) / 0.5 for a, b in zip(plain.get_weights(), before, strict=True)]
    expected = [np.linalg.norm(change) for change in changes]
    for model in (plain, clipped):
        norms = model.gradient_norms.means(model.weights)
        assert list(norms) == [weight.name for weight in model.weights]
        np.testing.assert_allclose(list(norms.values()), expected, rtol=1e-9)
        assert model.gradient_norms.mean() == pytest.approx(math.hypot(*expected), rel=1e-9)


@pytest.mark.parametrize("tbptt", [None, 2])
def test_norms_are_in_the_logs_of_an_epoch(tbptt, tmp_path):
    model = compiled([SimpleRNN(2, return_sequences=True, name="a"), Dense(2, name="b")], SGD(0.0))
    callbacks = [NormLogger(per_weight=True), CSVLogger(tmp_path / "log.csv")]
    logs = model.fit(SERIES, STEPS, 4, 2, callbacks=callbacks, tbptt=tbptt, verbose=0).history
    kinds = ("a/kernel", "a/recurrent_kernel", "a/bias", "b/kernel", "b/bias")
    assert set(logs) == {
        "loss", "gradient_norm", "weight_norm", *(f"gradient_norm/{name}" for name in kinds),
        *(f"weight_norm/{name}" for name in kinds),
    }  # fmt: skip
    weights = [np.linalg.norm(w) for w in model.get_weights()]
    assert logs["weight_norm"][1] == pytest.approx(math.hypot(*weights), rel=1e-6)
    assert logs["weight_norm/a/kernel"][0] == pytest.approx(weights[0], rel=1e-6)
    if tbptt is None:
        found = []
        for k in range(0, 12, 4):  # a rate of 0 changes nothing
            model.train_on_batch(SERIES[k : k + 4], STEPS[k : k + 4])
            found.append(model.gradient_norms.mean())
        ordered = model.fit(
            SERIES, STEPS, 4, callbacks=[NormLogger()], shuffle=False, verbose=0
        ).history
        assert ordered["gradient_norm"] == [pytest.approx(np.mean(found), rel=1e-12)]
    assert "gradient_norm/a/bias" in (tmp_path / "log.csv").read_text().splitlines()[0]


def test_norms_can_be_monitored(no_compile):
    stop = seqnet.callbacks.EarlyStopping("gradient_nrom", mode="min")
    with pytest.raises(ValueError, match="gradient_norm"):
        compiled([Dense(2)]).fit(VALUES, VALUES, callbacks=[NormLogger(), stop], verbose=0)


def test_norms_are_reset_when_other_layers_are_trained():
    norms = GradientNorms()
    norms.add(5.0, np.array([3.0, 4.0]), (True, True, False, False))
    norms.add(1.0, np.array([1.0, 0.0, 0.0, 0.0]), (True,) * 4)
    again = GradientNorms()
    again.load_state_dict(norms.state_dict())
    again.add(3.0, np.array([3.0, 0.0, 0.0, 0.0]), (True,) * 4)
    layers = [Dense(1, name="a"), Dense(1, name="b")]
    model = seqnet.Model(layers)
    model.build((None, 1))
    assert again.mean() == 3.0
    assert again.means(model.weights) == {"a/kernel": 2.0, "a/bias": 0, "b/kernel": 0, "b/bias": 0}


@pytest.mark.parametrize("pulled_at", [pytest.param(2, marks=pytest.mark.slow), 3, 5])
def test_norms_and_spikes_are_resumed(pulled_at, tmp_path, caplog):
    def train(name, pulled_at=None):
        seqnet.set_random_seed(3)
        caplog.clear()
        model = compiled([SimpleRNN(3, recurrent_dropout=0.2), Dense(2)], SGD(1.5))
        backup = BackupAndRestore(tmp_path / name, 1)
        callbacks = [NormLogger(per_weight=True), Plug(pulled_at), backup]
        logs = model.fit(SERIES, VALUES, 4, 4, callbacks=callbacks, verbose=0).history
        return logs, told()

    def told():
        return [record.getMessage() for record in caplog.records if record.name == "seqnet"]

    expected, warnings = train("whole.h5")
    with pytest.raises(RuntimeError, match="power failure"):
        train("cut.h5", pulled_at)
    before = told()
    logs, after = train("cut.h5")
    assert logs == expected
    assert before + after == warnings

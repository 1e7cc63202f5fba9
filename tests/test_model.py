import logging

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import numpy_training

import seqnet
from seqnet import backend, layers, optimizers
from seqnet.callbacks import Callback
from seqnet.layers import GRU, LSTM, Dense, Dropout, Embedding, Masking, SimpleRNN

RNG = np.random.default_rng(20260730)
X = RNG.normal(size=(10, 3))
Y = RNG.normal(size=(10, 2))
SERIES = RNG.normal(size=(10, 4, 2))
TOKENS = RNG.integers(1, 6, (10, 4))


def linear(optimizer="sgd", metrics=(), **options):
    """Return a float64 model of one matrix, whose outputs are easily computed."""
    model = seqnet.Model([Dense(2, dtype="float64", **options)])
    model.compile(optimizer, "mse", metrics=metrics)
    return model


def squared_errors(model, x=X, y=Y):
    """Return the loss of each example of a `linear` model."""
    kernel, bias = model.get_weights()
    return ((x @ kernel + bias - y) ** 2).mean(axis=1)


@pytest.fixture(scope="module")
def tagger():
    """A float64 model of padded tokens with an output for each step, compiled once."""
    model = seqnet.Model(
        [
            Embedding(6, 3, mask_zero=True, dtype="float64"),
            LSTM(3, return_sequences=True, dtype="float64"),
            Dense(4, activation="softmax", dtype="float64"),
        ]
    )
    model.compile("sgd", metrics=["accuracy", "perplexity"])
    return model


PADDED = np.array([[1, 2, 3, 4, 5], [5, 4, 0, 0, 0], [0, 0, 0, 0, 0], [2, 0, 3, 1, 0]])
TAGS = RNG.integers(0, 4, PADDED.shape)


# ---------------------------------------------------------------------------------- metrics


def test_history_has_every_metric_of_every_epoch():
    model = linear(metrics=["mae"])
    history = model.fit(X, Y, epochs=3, validation_split=0.2, verbose=0)
    assert history is model.history
    assert history.epoch == [0, 1, 2]
    assert list(history.history) == [
        "loss",
        "mae",
        "val_loss",
        "val_mae",
    ]
    assert all(len(values) == 3 for values in history.history.values())
    assert all(isinstance(f, float) for values in history.history.values() for f in values)


def test_epoch_logs_are_exact_with_a_short_last_batch():
    model = linear(optimizers.SGD(0.0), metrics=["mae"])
    history = model.fit(X, Y, batch_size=4, verbose=0).history
    np.testing.assert_allclose(history["loss"], squared_errors(model).mean(), rtol=1e-12)
    kernel, bias = model.get_weights()
    mean = np.abs(X @ kernel + bias - Y).mean()
    np.testing.assert_allclose(history["mae"], mean, rtol=1e-12)
    np.testing.assert_allclose(model.evaluate(X, Y, batch_size=4), [history["loss"][0], mean])
    np.testing.assert_allclose(model.evaluate(X, Y, batch_size=7), [history["loss"][0], mean])


def test_one_epoch_of_gradient_descent_equals_the_reference():
    model = linear(optimizers.SGD(0.1))
    model.build((None, 3))
    kernel, bias = model.get_weights()
    for rows in (slice(0, 4), slice(4, 8), slice(8, 10)):
        _, d = numpy_training.squared_error(Y[rows], X[rows] @ kernel + bias)
        d = numpy_training.weighted_mean_backward(d)
        kernel, bias = kernel - 0.1 * X[rows].T @ d, bias - 0.1 * d.sum(axis=0)
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], kernel, rtol=1e-12)
    np.testing.assert_allclose(model.get_weights()[1], bias, rtol=1e-12)


def test_validation_split_takes_the_last_share_in_order():
    model = linear(optimizers.SGD(0.0))
    history = model.fit(X, Y, validation_split=0.3, verbose=0).history
    errors = squared_errors(model)
    np.testing.assert_allclose(history["loss"], errors[:7].mean(), rtol=1e-12)
    np.testing.assert_allclose(history["val_loss"], errors[7:].mean(), rtol=1e-12)


def test_validation_data_may_have_weights():
    model = linear(optimizers.SGD(0.0))
    weights = np.arange(10.0)
    history = model.fit(X, Y, validation_data=(X, Y, weights), verbose=0).history
    expected = np.average(squared_errors(model), weights=weights)
    np.testing.assert_allclose(history["val_loss"], expected, rtol=1e-12)


def test_validation_comes_after_the_epochs_updates():
    model = linear(optimizers.SGD(0.1))
    history = model.fit(X, Y, validation_data=(X, Y), verbose=0).history
    np.testing.assert_allclose(history["val_loss"], squared_errors(model).mean(), rtol=1e-12)
    assert history["loss"][0] > history["val_loss"][0]


def test_training_continues_from_the_initial_epoch():
    model = linear()
    history = model.fit(X, Y, epochs=5, initial_epoch=3, verbose=0)
    assert history.epoch == [3, 4]
    assert model.optimizer.state_dict()["iterations"] == 2


def test_no_epochs_change_nothing():
    model = linear()
    model.build((None, 3))
    before = model.get_weights()
    history = model.fit(X, Y, epochs=0, verbose=0)
    assert (history.history, history.epoch) == ({}, [])
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def shuffled_losses(seed, shuffle=True):
    seqnet.set_random_seed(seed)
    model = linear(optimizers.SGD(0.1), kernel_initializer="zeros")
    return model.fit(X, Y, batch_size=3, epochs=2, shuffle=shuffle, verbose=0).history["loss"]


def test_the_seed_determines_the_order():
    assert shuffled_losses(1) == shuffled_losses(1)
    assert shuffled_losses(1) != shuffled_losses(2)
    assert shuffled_losses(1, shuffle=False) == shuffled_losses(2, shuffle=False)


class Rows(Callback):
    """Records the first weight after each batch, which identifies the trained samples."""

    def __init__(self):
        self.seen = []

    def on_batch_end(self, batch, logs=None):
        self.seen.append(self.model.get_weights()[0][:, 0])


def test_an_epoch_trains_on_every_sample_once_in_a_new_order():
    # The gradient of sample k is non-zero only in row k, for any weights.
    model = seqnet.Model([Dense(1, use_bias=False, kernel_initializer="zeros", dtype="float64")])
    model.compile(optimizers.SGD(0.1), "mse")
    rows = Rows()
    model.fit(np.eye(10), np.ones((10, 1)), batch_size=1, epochs=2, callbacks=[rows], verbose=0)
    order = [
        int(np.argmax(b - a))
        for a, b in zip([np.zeros(10), *rows.seen[:-1]], rows.seen, strict=True)
    ]
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]
    assert order[:10] != list(range(10))


# ---------------------------------------------------------------------- weights and masks


def test_sample_weights_are_those_of_the_weighted_mean():
    model = linear(optimizers.SGD(0.1), metrics=["mse"])
    model.build((None, 3))
    kernel, bias = model.get_weights()
    weights = np.array([0.0, 1, 2, 3, 0, 0.5, 1, 1, 0, 4])
    expected = np.average(squared_errors(model), weights=weights)
    result = model.train_on_batch(X, Y, sample_weight=weights)
    np.testing.assert_allclose(result, [expected, expected], rtol=1e-12)
    _, d = numpy_training.squared_error(Y, X @ kernel + bias)
    d = numpy_training.weighted_mean_backward(d, weights)
    np.testing.assert_allclose(model.get_weights()[0], kernel - 0.1 * X.T @ d, rtol=1e-12)


def test_samples_of_weight_zero_have_no_effect():
    weights = np.array([1.0] * 6 + [0.0] * 4)
    model, other = linear(optimizers.SGD(0.1)), linear(optimizers.SGD(0.1))
    for one in (model, other):
        one.build((None, 3))
    other.set_weights(model.get_weights())
    model.train_on_batch(X, Y, sample_weight=weights)
    other.train_on_batch(X[:6], Y[:6])
    np.testing.assert_allclose(model.get_weights()[0], other.get_weights()[0], rtol=1e-12)


def test_a_total_weight_of_zero_gives_loss_zero_and_no_update():
    model = linear(optimizers.SGD(0.1), metrics=["mae"])
    model.build((None, 3))
    before = model.get_weights()
    assert model.train_on_batch(X, Y, sample_weight=np.zeros(10)) == [0.0, 0.0]
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


@pytest.mark.parametrize("weights", [None, (4,), (4, 5)], ids=["none", "sample", "step"])
def test_mask_and_weights_reach_the_loss_and_every_metric(tagger, weights):
    weights = None if weights is None else np.random.default_rng(1).uniform(0, 2, weights)
    probabilities = tagger.predict(PADDED)
    losses, _ = numpy_training.sparse_categorical_crossentropy(TAGS, np.log(probabilities))
    right = numpy_training.sparse_categorical_accuracy(TAGS, probabilities)
    mask = PADDED != 0
    expected = {
        "loss": numpy_training.weighted_mean(losses, weights, mask),
        "accuracy": numpy_training.weighted_mean(right, weights, mask),
        "perplexity": numpy_training.perplexity(losses, weights, mask),
    }
    result = tagger.evaluate(PADDED, TAGS, batch_size=3, sample_weight=weights, return_dict=True)
    assert result == pytest.approx(expected, rel=1e-10)
    assert tagger.test_on_batch(PADDED, TAGS, sample_weight=weights, return_dict=True) == (
        pytest.approx(expected, rel=1e-10)
    )


def test_padding_does_not_change_the_loss_or_the_update(tagger):
    short, tags = PADDED[:1, :3], TAGS[:1, :3]
    longer = np.concatenate([short, [[0, 0, 0]]], axis=1)
    more_tags = np.concatenate([tags, [[1, 2, 3]]], axis=1)
    before = tagger.get_weights()
    first = tagger.train_on_batch(short, tags)
    after = tagger.get_weights()
    tagger.set_weights(before)
    second = tagger.train_on_batch(longer, more_tags)
    np.testing.assert_allclose(second, first, rtol=1e-12)
    for one, other in zip(tagger.get_weights(), after, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)


def test_a_batch_of_padding_has_loss_zero_and_not_nan(tagger):
    before = tagger.get_weights()
    result = tagger.train_on_batch(np.zeros((2, 3), int), np.zeros((2, 3), int), return_dict=True)
    assert result == {"loss": 0.0, "accuracy": 0.0, "perplexity": 1.0}
    for one, other in zip(tagger.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_passed_mask_equals_the_mask_of_a_layer():
    x = np.where((mask := PADDED != 0)[:, :, None], RNG.normal(size=(4, 5, 2)), 0.0)
    y = RNG.normal(size=(4, 5, 1))
    tail = [GRU(3, return_sequences=True, dtype="float64"), Dense(1, dtype="float64")]
    model, other = seqnet.Model(tail), seqnet.Model([Masking(dtype="float64"), *tail])
    for one in (model, other):
        one.compile(optimizers.SGD(0.0), "mse")
    result = model.evaluate(x, y, mask=mask, batch_size=3)
    np.testing.assert_allclose(result, other.evaluate(x, y), rtol=1e-12)
    assert abs(result - model.evaluate(x, y)) > 1e-3
    history = model.fit(x, y, mask=mask, batch_size=3, verbose=0).history
    np.testing.assert_allclose(history["loss"], result, rtol=1e-12)
    np.testing.assert_allclose(model.predict(x, mask=mask), other.predict(x), rtol=1e-12)
    np.testing.assert_allclose(model.predict_on_batch(x, mask=mask), other.predict(x), rtol=1e-12)


# -------------------------------------------------------------------------------- dropout


def test_dropout_is_active_in_training_only_and_new_for_each_batch():
    model = seqnet.Model([Dropout(0.5), Dense(1, kernel_initializer="ones", use_bias=False)])
    model.compile(optimizers.SGD(0.0), "mae")
    x, y = np.ones((4, 100)), np.zeros((4, 1))
    np.testing.assert_array_equal(model.predict(x), np.full((4, 1), 100.0))
    assert model.test_on_batch(x, y) == 100.0
    trained = [model.train_on_batch(x, y) for _ in range(5)]
    assert len(set(trained)) > 1
    assert all(60 < loss < 140 for loss in trained)
    assert model.evaluate(x, y) == 100.0


def test_the_seed_determines_the_dropout_masks():
    def losses():
        seqnet.set_random_seed(5)
        model = seqnet.Model([Dropout(0.5), Dense(1, dtype="float64")])
        model.compile(optimizers.SGD(0.0), "mae")
        return model.fit(X, Y[:, :1], epochs=3, verbose=0).history["loss"]

    assert losses() == losses()


def test_two_dropout_layers_draw_different_masks():
    ones = {"kernel_initializer": "identity", "use_bias": False}
    model = seqnet.Model([Dropout(0.5), Dense(50, **ones), Dropout(0.5), Dense(50, **ones)])
    x = np.ones((200, 50), "float32")
    model.build((None, 50))
    seen = backend.compile([], [model(pt.constant(x), training=True)], name="test")()[0]
    assert set(np.unique(seen)) == {0.0, 4.0}
    # One quarter; it would be one half if the masks were the same.
    assert 0.22 < (seen > 0).mean() < 0.28


# --------------------------------------------------------------- predict and on_batch methods


def test_predict_returns_one_array_for_any_batch_size():
    model = linear()
    whole = model.predict(X, batch_size=10)
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(whole, X @ kernel + bias, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(X, batch_size=3), whole)
    np.testing.assert_array_equal(model.predict_on_batch(X), whole)
    assert model.predict(X.tolist()).shape == (10, 2)


def test_evaluation_and_prediction_do_not_change_training():
    def train(look):
        seqnet.set_random_seed(3)
        model = seqnet.Model([SimpleRNN(3, return_sequences=True), Dropout(0.4), Dense(1)])
        model.compile("adam", "mse")
        target = SERIES.sum(axis=2, keepdims=True)
        for _ in range(3):
            model.train_on_batch(SERIES, target)
            if look:
                model.predict(SERIES)
                model.evaluate(SERIES, target)
                model.test_on_batch(SERIES, target)
        return model.get_weights()

    for plain, looked in zip(train(False), train(True), strict=True):
        np.testing.assert_array_equal(plain, looked)


def test_train_on_batch_returns_the_metrics_before_the_update():
    model = linear(optimizers.SGD(0.1))
    expected = model.test_on_batch(X, Y)
    assert model.train_on_batch(X, Y) == pytest.approx(expected, rel=1e-12)
    assert model.test_on_batch(X, Y) < expected


def test_lengths_and_batch_sizes_may_differ_from_call_to_call(compiled):
    model = seqnet.Model([LSTM(2), Dense(1)])
    for batch, time in ((3, 4), (1, 1), (5, 2), (1, 7)):
        assert model.predict(np.ones((batch, time, 2))).shape == (batch, 1)
    assert compiled == ["prediction"]


def test_an_unrolled_model_is_compiled_once_for_each_length(compiled):
    model = seqnet.Model([SimpleRNN(2, unroll=True), Dense(1)])
    for time in (2, 3, 2):
        model.predict(np.ones((3, time, 2)))
    assert compiled == ["prediction", "prediction"]


def test_an_unrolled_model_trains_like_a_scanned_one():
    def train(**options):
        seqnet.set_random_seed(1)
        model = seqnet.Model([LSTM(3, dtype="float64", **options), Dense(1, dtype="float64")])
        model.compile(optimizers.SGD(0.5), "mse")
        model.fit(SERIES, SERIES.sum(axis=(1, 2))[:, None], epochs=3, batch_size=4, verbose=0)
        return model.get_weights()

    scanned = train(fused=False)
    for options in ({"unroll": True}, {"fused": "auto"}):
        for one, other in zip(train(**options), scanned, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_integers_booleans_and_lists_are_accepted_as_data():
    model = linear()
    counts = RNG.integers(-3, 3, (10, 3))
    kernel, bias = (model.build((None, 3)), model.get_weights())[1]
    expected = counts @ kernel + bias
    for x in (counts, counts.astype("int8"), counts.tolist(), counts.astype("float16")):
        np.testing.assert_allclose(model.predict(x), expected, rtol=1e-12)
    np.testing.assert_allclose(model.predict(counts > 0), (counts > 0) @ kernel + bias)


# --------------------------------------------------------------- layers, names and weights


def test_layer_names_are_generated_from_class_and_number():
    model = seqnet.Model([LSTM(2, return_sequences=True), LSTM(2), Dense(2), Dense(2, name="end")])
    assert [layer.name for layer in model.layers] == ["lstm", "lstm_1", "dense", "end"]
    assert model.get_layer("end") is model.layers[3]
    with pytest.raises(ValueError, match=r"No layer is named 'ende'.*'lstm_1'"):
        model.get_layer("ende")
    names = [layers.TimeDistributed(Dense(1)), layers.SimpleRNN(1), GRU(1)]
    model = seqnet.Model(names)
    assert [layer.name for layer in model.layers] == ["time_distributed", "simple_rnn", "gru"]


def test_a_generated_name_avoids_given_names():
    model = seqnet.Model([Dense(1, name="dense_1"), Dense(1), Dense(1)])
    assert len({layer.name for layer in model.layers}) == 3


def test_weights_are_read_and_set_as_arrays():
    model = seqnet.Model([Embedding(5, 3), GRU(2), Dense(1)])
    model.build((None, None))
    weights = model.get_weights()
    assert [w.shape for w in weights] == [(5, 3), (3, 6), (2, 6), (2, 6), (2, 1), (1,)]
    assert model.count_params() == sum(w.size for w in weights) == 60
    new = [np.full(w.shape, k) for k, w in enumerate(weights)]
    model.set_weights(new)
    for one, other in zip(model.get_weights(), new, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.float32


def test_get_weights_returns_copies():
    model = linear()
    model.build((None, 3))
    model.get_weights()[0][:] = 9
    assert not (model.get_weights()[0] == 9).any()


def test_an_input_shape_builds_the_weights_immediately():
    model = seqnet.Model([LSTM(2, input_shape=(None, 3)), Dense(1)])
    assert model.built
    assert model.compute_output_shape((None, 5, 3)) == (None, 1)
    model.add(Dense(4))
    assert [w.shape for w in model.get_weights()[-2:]] == [(1, 4), (4,)]


def test_a_layer_added_later_is_trained():
    model = linear()
    assert model.predict(X).shape == (10, 2)
    model.add(Dense(5))
    assert model.predict(X).shape == (10, 5)


def test_summary_shows_shapes_weights_and_how_recurrent_layers_run():
    model = seqnet.Model(
        [Embedding(1000, 3), LSTM(2, unroll=True), Dense(1, trainable=False, name="end")]
    )
    lines = []
    model.summary(print_fn=lines.append)
    assert "not built" in "\n".join(lines)
    model.build((None, None))
    lines = []
    model.summary(print_fn=lines.append)
    text = "\n".join(lines)
    rows = {line.split()[0]: line for line in text.splitlines() if line}
    assert "(Embedding)" in rows["embedding"]
    assert "(None, None, 3)" in rows["embedding"]
    assert "3,000" in rows["embedding"]
    assert "(None, 2)" in rows["lstm"]
    assert "unroll" in rows["lstm"]
    assert "48" in rows["lstm"]
    assert "Weights: 3,051, of which 3,048 are trained." in text


def test_a_frozen_layer_keeps_its_weights():
    model = seqnet.Model([Dense(3, trainable=False), Dense(2)])
    model.compile(optimizers.SGD(0.1), "mse")
    model.build((None, 3))
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    after = model.get_weights()
    assert [np.array_equal(a, b) for a, b in zip(after, before, strict=True)] == [
        True,
        True,
        False,
        False,
    ]
    model.layers[0].trainable = True  # takes effect at the next call
    model.fit(X, Y, verbose=0)
    assert not np.array_equal(model.get_weights()[0], before[0])


def test_with_all_layers_frozen_training_changes_nothing():
    model = linear(trainable=False)
    model.build((None, 3))
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_regularizers_are_part_of_the_loss_and_of_the_update():
    model = linear(
        optimizers.SGD(0.1),
        kernel_regularizer=seqnet.regularizers.L2(0.5),
        bias_regularizer=seqnet.regularizers.L1(0.25),
        bias_initializer=seqnet.initializers.Constant(-2.0),
    )
    model.build((None, 3))
    kernel, bias = model.get_weights()
    penalty = 0.5 * (kernel**2).sum() + 0.25 * np.abs(bias).sum()
    expected = squared_errors(model).mean() + penalty
    assert model.evaluate(X, Y, batch_size=4) == pytest.approx(expected, rel=1e-12)
    assert model.train_on_batch(X, Y) == pytest.approx(expected, rel=1e-12)
    _, d = numpy_training.squared_error(Y, X @ kernel + bias)
    d = numpy_training.weighted_mean_backward(d)
    new_kernel = kernel - 0.1 * (X.T @ d + 2 * 0.5 * kernel)
    new_bias = bias - 0.1 * (d.sum(axis=0) + 0.25 * np.sign(bias))
    np.testing.assert_allclose(model.get_weights()[0], new_kernel, rtol=1e-12)
    np.testing.assert_allclose(model.get_weights()[1], new_bias, rtol=1e-12)


def test_recurrent_regularizers_apply_to_their_weights():
    model = seqnet.Model(
        [LSTM(2, dtype="float64", recurrent_regularizer="l2", kernel_regularizer="l1")]
    )
    model.compile(optimizers.SGD(0.0), "mse")
    target = model.predict(SERIES)
    kernel, recurrent, _ = model.get_weights()
    expected = 0.01 * np.abs(kernel).sum() + 0.01 * (recurrent**2).sum()
    assert model.evaluate(SERIES, target) == pytest.approx(expected, rel=1e-10)


# ----------------------------------------------------------------------- default choices


@pytest.mark.parametrize(
    ("last", "y", "loss"),
    [
        ({"units": 3, "activation": "softmax"}, np.zeros(10, int), "sparse_categorical"),
        ({"units": 3, "activation": "softmax"}, np.eye(3)[np.zeros(10, int)], "categorical"),
        ({"units": 1, "activation": "sigmoid"}, np.zeros((10, 1)), "binary_crossentropy"),
        ({"units": 1}, np.zeros((10, 1)), "mean_squared_error"),
        ({"units": 1, "activation": "tanh"}, np.zeros((10, 1)), "mean_squared_error"),
    ],
)
def test_the_default_loss_fits_the_last_layer_and_is_logged(last, y, loss, caplog, capsys):
    model = seqnet.Model([Dense(**last)])
    with caplog.at_level(logging.INFO, "seqnet"):
        model.fit(X, y, epochs=0, verbose=2)
    assert model.loss.name.startswith(loss)
    assert f"No loss was given: using {model.loss.name}" in capsys.readouterr().out
    assert model.loss.name in caplog.text


def test_training_without_compile_prints_the_optimizer(capsys):
    model = seqnet.Model([Dense(2)])
    model.fit(X, Y, epochs=0, verbose=2)
    assert "compile was not called: training with Adam(learning_rate=0.001)" in (
        capsys.readouterr().out
    )
    silent = seqnet.Model([Dense(2)])
    silent.fit(X, Y, epochs=1, verbose=0)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_compile_again_starts_a_new_optimizer():
    model = linear(optimizers.SGD(0.1))
    model.train_on_batch(X, Y)
    model.compile(optimizers.SGD(0.0), "mae")
    before = model.get_weights()[0]
    kernel, bias = model.get_weights()
    expected = np.abs(X @ kernel + bias - Y).mean()
    assert model.train_on_batch(X, Y) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(model.get_weights()[0], before)


def test_a_custom_loss_and_a_custom_metric_are_functions_of_targets_and_predictions():
    def cubic(y_true, y_pred):
        return pt.sum(pt.abs(y_true - y_pred) ** 3, axis=-1)

    def bias_of(y_true, y_pred):
        return pt.mean(y_pred - y_true, axis=-1)

    model = linear()
    model.compile(optimizers.SGD(0.0), cubic, metrics=[bias_of])
    result = model.evaluate(X, Y, batch_size=4, return_dict=True)
    kernel, bias = model.get_weights()
    error = X @ kernel + bias - Y
    assert result == pytest.approx(
        {"loss": (np.abs(error) ** 3).sum(axis=1).mean(), "bias_of": error.mean()}, rel=1e-10
    )


def test_a_custom_loss_that_averages_itself_is_refused():
    model = linear()
    model.compile("sgd", lambda y_true, y_pred: pt.mean(pt.sqr(y_true - y_pred)))
    with pytest.raises(ValueError, match="one value for each example or step"):
        model.fit(X, Y, verbose=0)


# ------------------------------------------------------------------------------- floats


def test_a_float64_model_uses_only_float64():
    seqnet.config.set_floatx("float64")
    model = seqnet.Model([Embedding(6, 3), LSTM(2), Dense(2, activation="softmax")])
    model.fit(TOKENS, RNG.integers(0, 2, 10), verbose=0)
    assert {w.dtype for w in model.get_weights()} == {np.dtype("float64")}
    assert model.predict(TOKENS).dtype == np.float64
    np.testing.assert_allclose(model.predict(TOKENS).sum(axis=1), 1.0, rtol=1e-14)


def test_a_float32_model_uses_only_float32():
    model = seqnet.Model([Masking(), GRU(2), Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(SERIES, SERIES[:, 0, :1], sample_weight=np.ones(10), verbose=0)
    assert {w.dtype for w in model.get_weights()} == {np.dtype("float32")}
    assert model.predict(SERIES).dtype == np.float32


# ------------------------------------------------------------------ inside other graphs


def test_a_model_can_be_part_of_a_larger_graph_with_gradients():
    model = seqnet.Model([SimpleRNN(3, dtype="float64"), Dense(1, dtype="float64")])
    x = pt.tensor("x", dtype="float64", shape=(None, None, 2))
    scale = pt.dscalar("scale")
    total = pt.sum((scale * model(2 * x)) ** 2)
    gradients = pytensor.grad(total, [x, scale])
    f = backend.compile([x, scale], [total, *gradients], name="test")
    value, d_x, d_scale = f(SERIES, np.asarray(1.5))
    output = model.predict(2 * SERIES)
    assert value == pytest.approx(((1.5 * output) ** 2).sum(), rel=1e-10)
    assert d_scale == pytest.approx((2 * 1.5 * output**2).sum(), rel=1e-10)
    moved = SERIES.copy()
    moved[3, 1, 0] += 1e-6
    numerical = (f(moved, np.asarray(1.5))[0] - value) / 1e-6
    assert d_x[3, 1, 0] == pytest.approx(numerical, rel=1e-4)


def test_dropout_in_a_custom_graph_changes_if_its_updates_are_stored():
    context = layers.CallContext(training=True)
    model = seqnet.Model([Dropout(0.5)])
    output = model(pt.constant(np.ones((3, 40), "float32")), context=context)
    f = backend.compile([], [output], context.updates, name="test")
    assert not np.array_equal(f()[0], f()[0])


# ------------------------------------------------------------------------------ backends


def train_on(backend_name):
    seqnet.config.set_backend(backend_name)
    seqnet.set_random_seed(2)
    options = {"dtype": "float64"}
    model = seqnet.Model(
        [Embedding(6, 2, **options), SimpleRNN(2, **options), Dense(3, "softmax", **options)]
    )
    model.compile(optimizers.SGD(0.05, clipvalue=0.5), metrics=["accuracy"])
    history = model.fit(TOKENS, TOKENS[:, 0] % 3, batch_size=5, epochs=2, verbose=0)
    return history.history, model.get_weights()


# PyTensor's own modes search for a BLAS library.
@pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS")
@pytest.mark.parametrize("other", ["fast_compile", "numpy"])
def test_the_backends_train_alike(other):
    history, weights = train_on("auto")
    other_history, other_weights = train_on(other)
    for name, values in history.items():
        np.testing.assert_allclose(other_history[name], values, rtol=1e-9, err_msg=name)
    for one, another in zip(other_weights, weights, strict=True):
        np.testing.assert_allclose(one, another, rtol=1e-9, atol=1e-12)


def test_weights_are_stored_in_c_order():
    """Arrays that kernels would copy at every call are copied once."""
    model = seqnet.Model([seqnet.layers.LSTM(4, input_shape=(None, 3))])
    assert all(w.get_value(borrow=True).flags.c_contiguous for w in model.weights)
    model.set_weights([np.asfortranarray(w) for w in model.get_weights()])
    assert all(w.get_value(borrow=True).flags.c_contiguous for w in model.weights)
    layer = model.layers[0]
    layer.set_weights([np.asfortranarray(w) for w in layer.get_weights()])
    assert all(w.get_value(borrow=True).flags.c_contiguous for w in model.weights)

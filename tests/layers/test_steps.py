"""Sequence layers: padding changes nothing; models train, save, load and resume."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from helpers import Plug

import seqnet
from seqnet import backend, layers
from seqnet.callbacks import BackupAndRestore
from seqnet.layers import (
    GRU,
    Activation,
    BatchNormalization,
    CallContext,
    Conv1D,
    Dense,
    Embedding,
    Flatten,
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    LayerNormalization,
    MaxPooling1D,
    Permute,
    Reshape,
    Softmax,
    TimeDistributed,
)

RNG = np.random.default_rng(0)
LENGTHS = np.array([7, 3, 1, 5])
MASK = np.arange(7) < LENGTHS[:, None]
X = RNG.normal(size=(4, 7, 4))

# Sequence layers, and whether they also allow padding at the start.
ANYWHERE = {
    "conv_same": lambda: Conv1D(3, 3, padding="same", activation="tanh"),
    "conv_even": lambda: Conv1D(3, 4, padding="same"),
    "conv_causal": lambda: Conv1D(2, 3, padding="causal", dilation_rate=2),
    "conv_valid": lambda: Conv1D(2, 3, use_bias=False),
    "conv_groups": lambda: Conv1D(4, 2, groups=2),
    "max": lambda: MaxPooling1D(2, strides=1),
    "max_same": lambda: MaxPooling1D(3, strides=1, padding="same"),
    "average": lambda: layers.AveragePooling1D(3, strides=1),
    "average_same": lambda: layers.AveragePooling1D(4, strides=1, padding="same"),
    "global_average": lambda: GlobalAveragePooling1D(),
    "global_max": lambda: GlobalMaxPooling1D(keepdims=True),
    "layer_norm": lambda: LayerNormalization(),
    "batch_norm": lambda: BatchNormalization(),
    "batch_norm_wrapped": lambda: TimeDistributed(BatchNormalization()),
    "group_norm": lambda: layers.GroupNormalization(2),
    "softmax": lambda: Softmax(axis=1),
    "prelu": lambda: layers.PReLU("ones", shared_axes=1),
    "zero_padding": lambda: layers.ZeroPadding1D((2, 1)),
    "cropping": lambda: layers.Cropping1D((1, 1)),
    "up_sampling": lambda: layers.UpSampling1D(2),
    "reshape": lambda: Reshape((-1, 2, 2)),
    "permute": lambda: Permute((1, 2)),
    "regularized": lambda: layers.ActivityRegularization(0.5, 0.25),
}
AT_THE_END = {
    "conv_strides": lambda: Conv1D(3, 3, strides=2),
    "conv_causal_strides": lambda: Conv1D(3, 3, strides=2, padding="causal"),
    "conv_same_strides": lambda: Conv1D(3, 2, strides=2, padding="same"),
    "max_strides": lambda: MaxPooling1D(2),
    "max_same_strides": lambda: MaxPooling1D(2, padding="same"),
    "average_strides": lambda: layers.AveragePooling1D(3, strides=2),
    "average_same_strides": lambda: layers.AveragePooling1D(2, padding="same"),
}


def compiled(layer, dtype, masked):
    """Return a function of x, mask and a random array: the unmasked outputs and the gradients."""
    layer.ensure_built((None, None, 4))
    for k, weight in enumerate(layer.weights):
        shape = weight.get_value().shape
        weight.set_value(np.cos(np.arange(np.prod(shape)) + k).reshape(shape).astype(dtype) + 1.5)
    x = pt.tensor("x", dtype=dtype, shape=(None, None, 4))
    mask = pt.matrix("mask", dtype="bool") if masked else None
    context = CallContext(training=True)
    y, out = layer(x, mask=mask, context=context), layer.compute_mask(x, mask)
    total = pt.sqr(y) + pt.sin(y)
    if out is not None:
        total = pt.switch(out.reshape((*out.shape, *[1] * (y.ndim - out.ndim))), total, 0)
    cost = pt.cast(total.sum(), dtype) + sum(context.losses)
    outputs = [y, *pytensor.grad(cost, [x, *layer.trainable_weights], disconnected_inputs="ignore")]
    outputs += [cost] + ([] if out is None else [out])
    inputs = [x, mask] if masked else [x]
    updates = [context.updates[w] for w in layer.non_trainable_weights if w in context.updates]
    return backend.compile(inputs, [*outputs, *updates], name="test"), out is not None


def check(name, make, front, dtype):
    """Compare a batch with the batch with more padding, and with each sequence alone."""
    seqnet.config.set_floatx(dtype)
    layer = make()
    f, has_mask = compiled(layer, dtype, masked=True)
    tolerance = (
        {"rtol": 1e-9, "atol": 1e-10} if dtype == "float64" else {"rtol": 1e-4, "atol": 1e-4}
    )
    x = X.astype(dtype)
    first = f(np.where(MASK[:, :, None], x, 5), MASK)
    wide = ((0, 0), (front, 4))
    mask = np.pad(MASK, wide)
    padded = np.pad(x, (*wide, (0, 0)), constant_values=-9)
    second = f(np.where(mask[:, :, None], padded, 1e6), mask)
    trained = len(layer.trainable_weights)
    y, d_x, *rest = zip(first, second, strict=True)
    assert all(part.dtype == dtype for part in (*y, *d_x))
    np.testing.assert_allclose(d_x[1][mask], d_x[0][MASK], **tolerance)
    assert not d_x[0][~MASK].any()
    assert not d_x[1][~mask].any()
    for a, b in [*rest[: trained + 1], *rest[trained + 1 + has_mask :]]:
        np.testing.assert_allclose(b, a, **tolerance)
    if has_mask:
        masks = rest[trained + 1]
        for row in range(4):
            a, b = (values[row][m[row]] for values, m in zip(y, masks, strict=True))
            np.testing.assert_allclose(b, a, **tolerance)
    else:
        np.testing.assert_allclose(y[1], y[0], **tolerance)
    if "batch_norm" not in name:  # outputs depend on the other sequences
        alone, _ = compiled(make(), dtype, masked=False)
        for row in (0, 3):
            given = alone(x[row : row + 1, : LENGTHS[row]])[0][0]
            found = y[0][row] if not has_mask else y[0][row][rest[trained + 1][0][row]]
            np.testing.assert_allclose(found, given, **tolerance)


@pytest.mark.parametrize("name", ANYWHERE)
def test_padding_anywhere_changes_nothing(name):
    check(name, ANYWHERE[name], front=2, dtype="float64")


@pytest.mark.parametrize("name", AT_THE_END)
def test_padding_at_the_end_changes_nothing(name):
    check(name, AT_THE_END[name], front=0, dtype="float64")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ANYWHERE, *AT_THE_END])
def test_padding_changes_nothing_in_float32(name):
    make = (ANYWHERE | AT_THE_END)[name]
    check(name, make, front=2 if name in ANYWHERE else 0, dtype="float32")


def test_sequences_without_any_data_give_zeros():
    mask = np.zeros((4, 7), bool)
    for layer in (GlobalAveragePooling1D(), GlobalMaxPooling1D(), Softmax(axis=1), MaxPooling1D(2)):
        f, _ = compiled(layer, layer.dtype, masked=True)
        y, d_x, *_ = f(X.astype(layer.dtype), mask)
        assert not y.any()
        assert not d_x.any()
    layer = BatchNormalization(dtype="float64")
    f, _ = compiled(layer, "float64", masked=True)
    *_, mean, variance = f(X, mask)
    np.testing.assert_array_equal([mean, variance], [w.get_value() for w in layer.weights[2:]])


# ------------------------------------------------------------------------- models


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_a_ragged_batch_equals_its_sequences_one_at_a_time(dtype):
    seqnet.config.set_floatx(dtype)
    seqnet.set_random_seed(1)
    sequences = [row[:n] for row, n in zip(X, LENGTHS, strict=True)]
    model = seqnet.Model(
        [
            Conv1D(4, 3, padding="causal", activation="relu", activity_regularizer="l2"),
            LayerNormalization(),
            MaxPooling1D(2, padding="same"),
            GRU(3, return_sequences=True),
            GlobalMaxPooling1D(),
            Dense(1),
        ]
    )
    model.compile("adam", "mse")
    y = np.arange(4.0)[:, None]
    model.fit(sequences, y, batch_size=4, epochs=2, verbose=0)
    together = model.predict(sequences)
    alone = np.concatenate([model.predict(sequence[None]) for sequence in sequences])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    losses = [model.evaluate(sequences, y, batch_size=n, verbose=0) for n in (1, 3, 4)]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


def test_convolution_outputs_have_their_own_targets_and_mask():
    model = seqnet.Model([Conv1D(2, 3, dtype="float64")])
    model.compile("sgd", "mse")
    targets = RNG.normal(size=(4, 5, 2))
    found = model.evaluate(X, targets, mask=MASK, verbose=0)
    there = np.arange(5) < (LENGTHS - 2)[:, None]
    expected = np.square(model.predict(X, mask=MASK) - targets)[there].mean()
    assert found == pytest.approx(expected, rel=1e-9)


def deep(trainable=True):
    return seqnet.Model(
        [
            Dense(3),
            BatchNormalization(momentum=0.5, center=False, scale=False, trainable=trainable),
            Dense(1),
        ]
    )


def test_batch_normalization_trains_saves_and_loads(tmp_path):
    x, y = X[:, :, :3].reshape(-1, 3), X[:, :, 3:].reshape(-1, 1)
    model = deep()
    model.compile("adam", "mse")
    model.fit(x, y, epochs=3, batch_size=8, verbose=0)
    mean, variance = (w.get_value() for w in model.layers[1].weights)
    assert (mean != 0).all()
    assert (variance != 1).all()
    normal = model.layers[1]
    assert [normal.trainable_weights, len(normal.non_trainable_weights)] == [[], 2]
    outputs = model.predict(x)
    np.testing.assert_array_equal(model.predict(x[:1]), outputs[:1])  # no batch statistics
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(again.predict(x), outputs)
    assert again.fit(x, y, verbose=0).history == model.fit(x, y, verbose=0).history
    normal.trainable = False  # the same trainable weights, but another graph
    kept = [w.get_value() for w in normal.weights]
    model.fit(x, y, epochs=1, batch_size=8, verbose=0)
    np.testing.assert_array_equal([w.get_value() for w in normal.weights], kept)


def test_batch_normalization_resumes_exactly(tmp_path):
    x, y = X[:, :, :3].reshape(-1, 3), X[:, :, 3:].reshape(-1, 1)

    def run(*callbacks):
        seqnet.set_random_seed(3)
        model = deep()
        model.compile("adam", "mse")
        model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=list(callbacks))
        return model.get_weights()

    whole = run()
    backup = BackupAndRestore(tmp_path / "run.h5", save_freq=1)
    with pytest.raises(RuntimeError, match="power failure"):
        run(Plug(pulled_at=6), backup)
    again = run(Plug(), BackupAndRestore(tmp_path / "run.h5", save_freq=1))
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_noise_is_drawn_in_training_only_and_its_size_can_be_set():
    ones = np.ones((400, 50))
    for layer, name, expected in (
        (layers.GaussianNoise(0.5), "stddev", 0.5),
        (layers.GaussianDropout(0.2), "rate", 0.5),
    ):
        x, context = pt.fmatrix("x"), CallContext(training=True)
        y = layer(x, context=context)
        f = backend.compile([x], [y], context.updates, name="test")
        first, second = (f(ones.astype("float32"))[0] for _ in range(2))
        assert first.dtype == np.float32
        assert not np.array_equal(first, second)
        assert abs(first.mean() - 1) < 0.02
        assert abs(first.std() - expected) < 0.02
        setattr(layer, name, 0.0)
        assert layer(x, training=True) is x


def test_spatial_dropout_drops_features_of_all_steps():
    layer = layers.SpatialDropout1D(0.5, dtype="float64")
    context = CallContext(training=True)
    x = pt.dtensor3("x")
    f = backend.compile([x], [layer(x, context=context)], context.updates, name="test")
    (y,) = f(np.ones((5, 6, 20)))
    np.testing.assert_array_equal(y, np.repeat(y[:, :1], 6, axis=1))
    assert set(np.unique(y)) == {0.0, 2.0}
    assert list(layer.sequence_generators) == layer.generators
    again = seqnet.registry.get("layer", seqnet.registry.serialize(layer))
    assert again.noise_shape == (None, 1, None)


@pytest.mark.parametrize("name", [*ANYWHERE, *AT_THE_END])
def test_layers_round_trip_through_their_configuration(name):
    layer = (ANYWHERE | AT_THE_END)[name]()
    again = seqnet.registry.get("layer", seqnet.registry.serialize(layer))
    assert again.get_config() == layer.get_config()


def test_largest_values_that_are_equal_share_the_gradient():
    x = pt.dtensor3("x")
    y = GlobalMaxPooling1D(dtype="float64")(x)
    f = backend.compile([x], [y, pytensor.grad(y.sum(), x)], name="test")
    value, gradient = f(np.array([[[2.0], [1.0], [2.0]]]))
    assert (value.tolist(), gradient.tolist()) == ([[2.0]], [[[0.5], [0.0], [0.5]]])


# ------------------------------------------------------------------------------- invalid input


def test_masks_that_cannot_be_kept_are_errors():
    tokens = np.array([[1, 2, 0], [1, 0, 0]])

    def predict(*others):
        return seqnet.Model([Embedding(3, 4, mask_zero=True), *others]).predict(tokens)

    for layer in (Flatten(), Permute((2, 1)), Reshape((2, -1)), Reshape((12,)), Reshape((2, 6))):
        with pytest.raises(ValueError, match=r"cannot carry the mask .* Put it after a layer that"):
            predict(layer)
    with pytest.raises(ValueError, match=r"'conv1d'.*cannot carry.*\"valid\" or \"causal\""):
        predict(Conv1D(2, 3, strides=2, padding="same"))
    with pytest.raises(ValueError, match=r"cannot carry the mask.*Normalise over the features"):
        model = seqnet.Model([Embedding(3, 4, mask_zero=True), LayerNormalization(axis=(1, 2))])
        model.build((None, 3))
        model.predict(tokens)
    assert predict(Reshape((-1, 2, 2)), Reshape((-1, 4)), GRU(2)).shape == (2, 2)
    assert predict(GRU(2), Flatten(), Reshape((2, 1)), Permute((2, 1))).shape == (2, 1, 2)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Conv1D(2, 3, padding="full"), ValueError, "valid, same, causal; got 'full'"),
        (lambda: MaxPooling1D(2, padding="causal"), ValueError, "one of valid, same; got 'causal'"),
        (lambda: Conv1D(2, 3, strides=2, dilation_rate=2), ValueError, "either strides or a dilat"),
        (lambda: Conv1D(3, 3, groups=2), ValueError, "must divide its filters, got 2 and 3"),
        (lambda: Conv1D(4, 3, groups=4)(np.zeros((1, 3, 2))), ValueError, "not divide the 2 feat"),
        (lambda: Conv1D(0, 3), ValueError, "filters of Conv1D must be at least 1"),
        (lambda: Conv1D(1, (3, 3)), TypeError, "kernel_size must be an integer"),
        (
            lambda: Conv1D(1, 5)(np.zeros((1, 3, 2))),
            ValueError,
            "windows of 5 steps, and its input",
        ),
        (lambda: Conv1D(1, 5)(np.zeros((3, 2))), ValueError, r"rank 3 \(batch, time, features\)"),
        (lambda: Reshape((2, -1, -1)), ValueError, "one -1"),
        (lambda: Reshape(4), TypeError, "tuple of integers, got 4"),
        (lambda: Reshape((4,))(np.zeros((1, 3))), ValueError, r"shape \(4,\) from its input"),
        (lambda: Permute((0, 1)), ValueError, r"axes from 1.*got \(0, 1\)"),
        (lambda: Permute((2, 1))(np.zeros((1, 3))), ValueError, "takes inputs of 3 axes"),
        (lambda: Softmax(axis=0), ValueError, "cannot be 0, the axis of the batch"),
        (lambda: Softmax(axis=2)(np.zeros((1, 3))), ValueError, "has the axis 2, but its input"),
        (lambda: BatchNormalization(momentum=2), ValueError, r"momentum must be in \[0, 1\]"),
        (lambda: BatchNormalization(epsilon=-1), ValueError, "epsilon must be at least 0"),
        (lambda: BatchNormalization(axis=1)(pt.ftensor3()), ValueError, "axis 1 of its input"),
        (lambda: layers.GroupNormalization(3)(np.zeros((1, 4))), ValueError, "3 groups, which do"),
        (lambda: layers.PReLU()(pt.tensor(shape=(None, None, 2))), ValueError, "shared_axes=1"),
        (lambda: layers.ReLU(max_value=-1.0), ValueError, "max_value must be finite and at least"),
        (lambda: layers.GaussianNoise(-1.0), ValueError, "stddev must be at least 0"),
        (lambda: layers.Cropping1D(2)(np.zeros((1, 4, 1))), ValueError, "removes 4 steps"),
        (lambda: layers.ZeroPadding1D((1, 2, 3)), ValueError, r"a number, or two"),
    ],
)
def test_invalid_arguments_raise_clear_errors(make, error, message):
    with pytest.raises(error, match=message):
        layer = make()
        layer.owner  # noqa: B018


def test_sequences_shorter_than_a_window_are_errors_without_a_mask():
    model = seqnet.Model([Conv1D(2, 4), GlobalAveragePooling1D()])
    assert model.predict(X).shape == (4, 2)
    with pytest.raises(ValueError, match=r"'conv1d' \(Conv1D\) reads windows of 4 steps"):
        model.predict(X[:, :3])
    y = model.predict(X[:, :3], mask=MASK[:, :3])
    assert not y.any()


def test_layers_that_need_the_whole_sequence_do_not_run_step_by_step():
    for layer in (Conv1D(2, 2), GlobalMaxPooling1D(), Softmax(axis=1), layers.UpSampling1D()):
        model = seqnet.Model([layer])
        model.build((None, None, 3))
        with pytest.raises(ValueError, match="cannot run step by step"):
            seqnet.generation.Stepper(model)
    model = seqnet.Model([Conv1D(4, 1), BatchNormalization(), LayerNormalization(), GRU(2)])
    model.build((None, None, 4))
    stepper = seqnet.generation.Stepper(model)
    for step in X[0].astype("float32"):
        y = stepper(step[None])
    np.testing.assert_allclose(y, model.predict(X[:1]), rtol=1e-4, atol=1e-6)


def test_activations_with_arguments_keep_float32():
    x = pt.fmatrix("x")
    for layer in (layers.LeakyReLU(), layers.ELU(), layers.ReLU(2.0, 0.1), Activation("celu")):
        y = layer(x)
        assert (y.dtype, pytensor.grad(y.sum(), x).dtype) == ("float32", "float32")

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from helpers import values_and_gradients
from reference import load_arrays

import seqnet
from seqnet import backend, registry
from seqnet.layers import (
    LSTM,
    Activation,
    CallContext,
    Dense,
    Dropout,
    Embedding,
    Lambda,
    Layer,
    Masking,
    RepeatVector,
    Softmax,
    TimeDistributed,
)

STORED = {peer: load_arrays(peer) for peer in ("keras", "pytorch")}


@pytest.mark.parametrize("peer", STORED)
def test_softmax_of_sequences_equals_the_stored_values_for_large_logits(peer):
    arrays = STORED[peer]["softmax_3d"]
    result = values_and_gradients(Softmax(dtype="float64"), arrays)
    np.testing.assert_allclose(result["y"], arrays["y"], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(result["d_x"], arrays["d_x"], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["softmax", "tanh", "relu"])
def test_an_activation_layer_applies_its_function(name):
    x = np.array([[-1.0, 0.5, 2.0]])
    layer, function = Activation(name, dtype="float64"), seqnet.activations.get(name)
    symbolic = pt.dmatrix("x")
    f = backend.compile([symbolic], [layer(symbolic), function(symbolic)], name="test")
    ours, expected = f(x)
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    "layer",
    [
        Softmax(dtype="float64"),
        Activation("gelu", dtype="float64"),
        Masking(dtype="float64"),
        TimeDistributed(Dense(2, "sigmoid", dtype="float64")),
        TimeDistributed(Dense(2, "softmax", dtype="float64")),
    ],
    ids=lambda layer: layer.get_config().get("layer", {}).get("name") or type(layer).__name__,
)
def test_gradients_are_the_numerical_ones(layer):
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    pytensor.gradient.verify_grad(
        lambda x: layer(pt.specify_shape(x, (None, None, 4))),
        [x],
        rng=np.random.default_rng(0),
        mode=backend.mode(),
    )


# ------------------------------------------------------------------------------- dropout


def drop(rate, shape=(100, 60), **options):
    layer = Dropout(rate, dtype="float64", **options)
    context = CallContext(training=True)
    x = pt.tensor("x", dtype="float64", shape=(None,) * len(shape))
    y = layer(x, context=context)
    f = backend.compile([x], [y, pytensor.grad(pt.sum(y), x)], context.updates, name="test")
    return f, np.ones(shape)


def test_dropout_drops_a_fraction_and_scales_the_rest():
    f, x = drop(0.3)
    y, gradient = f(x)
    assert set(np.unique(y)) == {0.0, 1 / 0.7}
    assert 0.27 < (y == 0).mean() < 0.33
    np.testing.assert_array_equal(gradient, y)  # dropped values have no gradient


def test_dropout_draws_new_masks_at_every_call():
    f, x = drop(0.5)
    assert not np.array_equal(f(x)[0], f(x)[0])


def test_a_noise_shape_drops_the_same_along_an_axis():
    f, x = drop(0.5, (4, 6, 50), noise_shape=(None, 1, None))
    y, _ = f(x)
    np.testing.assert_array_equal(y, np.repeat(y[:, :1], 6, axis=1))
    assert not np.array_equal(y[0], y[1])


def test_a_rate_of_zero_and_prediction_change_nothing():
    x = pt.dmatrix("x")
    assert Dropout(0.0)(x, training=True) is x
    assert Dropout(0.5)(x) is x


def test_a_dropout_layer_used_twice_draws_different_masks():
    layer, context = Dropout(0.5, dtype="float64"), CallContext(training=True)
    ones = pt.constant(np.ones((20, 20)))
    outputs = [layer(ones, context=context), layer(ones, context=context)]
    first, second = backend.compile([], outputs, context.updates, name="test")()
    assert not np.array_equal(first, second)


# ------------------------------------------------------------------------------- masking


def test_masking_masks_steps_of_one_value_and_sets_them_to_zero():
    x = np.array([[[1.0, -1.0], [-1.0, -1.0], [0.0, 0.0]]])
    layer = Masking(-1.0, dtype="float64")
    symbolic = pt.dtensor3("x")
    outputs = [layer(symbolic), layer.compute_mask(symbolic, None)]
    y, mask = backend.compile([symbolic], outputs, name="test")(x)
    np.testing.assert_array_equal(mask, [[True, False, True]])
    np.testing.assert_array_equal(y, [[[1.0, -1.0], [0.0, 0.0], [0.0, 0.0]]])


def test_masking_keeps_a_passed_mask():
    x = pt.constant(np.array([[[1.0], [2.0], [0.0]]]))
    given = pt.constant(np.array([[False, True, True]]))
    mask = Masking().compute_mask(x, given)
    result = backend.compile([], [mask], name="test")()[0]
    np.testing.assert_array_equal(result, [[False, True, False]])


def test_masking_of_integers_does_not_round_its_value():
    x = pt.constant(np.array([[[0], [1]]], "int32"))
    masks = [Masking(value).compute_mask(x, None) for value in (0.5, 1.0)]
    found = backend.compile([], masks, name="test")()
    assert [mask.tolist() for mask in found] == [[[True, True]], [[True, False]]]
    assert Masking(0.1).known_mask(np.array([[[0.1], [0.2]]])).tolist() == [[False, True]]


def test_layers_that_keep_the_time_axis_pass_the_mask_on():
    x, mask = pt.ftensor3("x"), pt.bmatrix("mask")
    for layer in (Dense(2), Dropout(0.5), Activation("tanh"), Softmax(), TimeDistributed(Dense(2))):
        assert layer.compute_mask(x, mask) is mask


# ------------------------------------------------------------------------ repeat, function


@pytest.mark.parametrize("n", [1, 3])
def test_repeat_vector_repeats_its_input_at_every_step(n):
    x = np.random.default_rng(0).normal(size=(4, 2))
    layer, symbolic = RepeatVector(n, dtype="float64"), pt.dmatrix("x")
    y = layer(symbolic)
    weights = pt.dtensor3("weights")
    gradient = pytensor.grad((y * weights).sum(), symbolic)
    f = backend.compile([symbolic, weights], [y, gradient], name="test")
    w = np.random.default_rng(1).normal(size=(4, n, 2))
    repeated, of_x = f(x, w)
    np.testing.assert_array_equal(repeated, np.repeat(x[:, None], n, axis=1))
    np.testing.assert_allclose(of_x, w.sum(axis=1), rtol=1e-12)
    assert layer.compute_output_shape((None, 2)) == (None, n, 2)


def test_an_encoder_and_an_unrolled_decoder_train():
    """RepeatVector gives a known number of steps, so the decoder can be unrolled."""
    x = np.random.default_rng(0).normal(size=(16, 3, 2)).astype("float32")
    model = seqnet.Model(
        [LSTM(6), RepeatVector(3), LSTM(6, return_sequences=True, unroll=True), Dense(2)]
    )
    model.compile(seqnet.optimizers.Adam(0.02), "mse")
    losses = model.fit(x, x, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    with pytest.raises(ValueError, match="'repeat_vector' makes all steps from one input"):
        seqnet.generation.Stepper(model)


def test_repeat_vector_refuses_sequences_masks_and_counts_below_one():
    with pytest.raises(ValueError, match=r"rank 2 \(batch, features\)"):
        RepeatVector(2)(pt.ftensor3("x"))
    with pytest.raises(ValueError, match=r"'repeat_vector'.*cannot carry the mask"):
        RepeatVector(2)(pt.fmatrix("x"), mask=pt.matrix("mask", dtype="bool"))
    with pytest.raises(ValueError, match="at least 1"):
        RepeatVector(0)


def double(x):
    return 2 * x


def masked_mean(x, mask):
    present = mask[:, :, None].astype(x.dtype)
    return (x * present).sum(axis=1) / present.sum(axis=1)


def test_a_lambda_layer_has_the_shapes_and_gradients_of_its_function():
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    layer = Lambda(lambda x: pt.tanh(x)[:, :, :2], dtype="float64")
    assert layer.compute_output_shape((None, None, 4)) == (None, None, 2)
    assert layer.compute_output_shape((None, 5, 4)) == (None, 5, 2)
    y = values_and_gradients(layer, {"x": x, "cotangent": np.ones((2, 3, 2))})["y"]
    np.testing.assert_allclose(y, np.tanh(x)[:, :, :2], rtol=1e-12)


def test_a_lambda_with_an_unknown_output_shape_is_refused():
    def needs_four(x):
        return pt.specify_shape(x, (None, 4))

    layer = Lambda(needs_four)
    with pytest.raises(ValueError, match=r"'lambda'.*Pass output_shape="):
        layer.compute_output_shape((None, 3, 3))
    told = Lambda(needs_four, output_shape=(4,))
    assert told.compute_output_shape((None, None)) == (None, 4)
    model = seqnet.Model([told, Dense(2)])
    assert model.predict(np.ones((1, 4), "float32")).shape == (1, 2)


def test_a_lambda_that_cannot_pass_a_mask_is_named_in_the_error():
    tokens = np.array([[1, 2, 0]])

    def stack(*layers):
        return seqnet.Model([Embedding(4, 3, mask_zero=True), *layers])

    with pytest.raises(ValueError, match=r"'late' \(Lambda\) cannot carry the mask.*supports_mask"):
        stack(Lambda(lambda x: x[:, 1:], name="late"), LSTM(2)).predict(tokens)
    kept = stack(Lambda(double, supports_masking=True), LSTM(2, return_sequences=True))
    y = kept.predict(tokens)
    np.testing.assert_array_equal(y[:, 1], y[:, 2])
    used = stack(Lambda(masked_mean), Dense(1))
    y = used.predict(tokens)
    table, kernel, bias = used.get_weights()
    expected = table[[1, 2]].mean(axis=0) @ kernel + bias
    np.testing.assert_allclose(y[0], expected, rtol=1e-5)
    stack(LSTM(2), Lambda(double)).predict(tokens)  # the mask was consumed by an earlier layer


def test_a_lambda_is_saved_by_the_name_of_its_function(tmp_path):
    model = seqnet.Model([Lambda(masked_mean, name="mean"), Dense(1)])
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    mask = np.ones((2, 3), bool)
    expected = model.predict(x, mask=mask)
    model.save(tmp_path / "model.h5")
    with pytest.raises(ValueError, match=r"custom_objects={'masked_mean': masked_mean}"):
        seqnet.load_model(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5", custom_objects={"masked_mean": masked_mean})
    np.testing.assert_array_equal(again.predict(x, mask=mask), expected)
    assert not again.layers[0].passes_mask_on
    nameless = seqnet.Model([Lambda(lambda x: 2 * x), Dense(1)])
    nameless.predict(x)
    with pytest.raises(ValueError, match=r"'lambda'.*cannot be saved.*Write it with def"):
        nameless.save(tmp_path / "other.h5")
    assert not (tmp_path / "other.h5").exists()


def test_a_lambda_accepts_only_functions():
    with pytest.raises(TypeError, match="takes a function of a PyTensor variable, got 3"):
        Lambda(3)


# --------------------------------------------------------------------- custom layers


@registry.register("layer")
class Scale(Layer):
    """Multiplies by a trainable number, as a custom layer."""

    def __init__(self, start=2.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start

    def build(self, input_shape):
        self.factor = self.add_weight("factor", (), seqnet.initializers.Constant(self.start))

    def call(self, inputs, mask, context):
        return inputs * self.factor


def test_a_custom_layer_trains_and_round_trips():
    model = seqnet.Model([Scale(dtype="float64")])
    model.compile(seqnet.optimizers.SGD(0.1), "mse")
    x = np.array([[1.0], [2.0]])
    assert model.evaluate(x, 5 * x) == pytest.approx((3.0**2 + 6.0**2) / 2)
    model.fit(x, 5 * x, epochs=60, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], 5.0, rtol=1e-6)
    again = registry.get("layer", registry.serialize(model.layers[0]))
    assert (type(again), again.start, again.name) == (Scale, 2.0, "scale")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.mean(axis=0),
        lambda x: x[::-1],
        lambda x: x.sum(axis=0),
        lambda x: x[1:],
        lambda x: x.reshape((-1, x.shape[-1])),
        lambda x: pt.exp(x) / pt.exp(x).sum(),
    ],
)
def test_a_lambda_that_mixes_the_rows_of_a_batch_is_refused(function):
    model = seqnet.Model([Lambda(function, output_shape=(3, 4)), Dense(2)])
    with pytest.raises(ValueError, match=r"'lambda' \(Lambda\) mixes the rows of a batch"):
        model.predict(np.ones((2, 3, 4)))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, ::-1],
        lambda x: x / (1 + pt.abs(x).max(axis=1, keepdims=True)),
        lambda x: pt.special.softmax(1000 * x, axis=-1),
        lambda x: x.reshape((x.shape[0], -1, 2)),
        lambda x: pt.concatenate([x, x], axis=-1),
        masked_mean,
    ],
)
def test_a_lambda_that_does_not_mix_rows_is_accepted(function):
    model = seqnet.Model([Lambda(function)])
    mask = np.ones((2, 3), bool) if function is masked_mean else None
    assert len(model.predict(np.ones((2, 3, 4)), mask=mask)) == 2

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
    Dense,
    Dropout,
    Layer,
    Masking,
    Phase,
    Softmax,
    TimeDistributed,
)

STORED = {peer: load_arrays(peer) for peer in ("keras", "pytorch")}


@pytest.mark.parametrize("peer", STORED)
def test_softmax_of_sequences_is_the_peers_even_for_huge_numbers(peer):
    arrays = STORED[peer]["softmax_3d"]
    result = values_and_gradients(Softmax(dtype="float64"), arrays)
    np.testing.assert_allclose(result["y"], arrays["y"], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(result["d_x"], arrays["d_x"], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["softmax", "tanh", "relu"])
def test_an_activation_layer_is_its_function(name):
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
    phase = Phase(training=True)
    x = pt.tensor("x", dtype="float64", shape=(None,) * len(shape))
    y = layer(x, phase=phase)
    f = backend.compile([x], [y, pytensor.grad(pt.sum(y), x)], phase.updates, name="test")
    return f, np.ones(shape)


def test_dropout_drops_its_share_and_scales_the_rest():
    f, x = drop(0.3)
    y, gradient = f(x)
    assert set(np.unique(y)) == {0.0, 1 / 0.7}
    assert 0.27 < (y == 0).mean() < 0.33
    np.testing.assert_array_equal(gradient, y)  # what was dropped has no gradient


def test_dropout_draws_anew_at_every_call():
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


def test_one_dropout_layer_used_twice_drops_different_things():
    layer, phase = Dropout(0.5, dtype="float64"), Phase(training=True)
    ones = pt.constant(np.ones((20, 20)))
    outputs = [layer(ones, phase=phase), layer(ones, phase=phase)]
    first, second = backend.compile([], outputs, phase.updates, name="test")()
    assert not np.array_equal(first, second)


# ------------------------------------------------------------------------------- masking


def test_masking_finds_the_steps_of_one_value_and_makes_them_zero():
    x = np.array([[[1.0, -1.0], [-1.0, -1.0], [0.0, 0.0]]])
    layer = Masking(-1.0, dtype="float64")
    symbolic = pt.dtensor3("x")
    outputs = [layer(symbolic), layer.compute_mask(symbolic, None)]
    y, mask = backend.compile([symbolic], outputs, name="test")(x)
    np.testing.assert_array_equal(mask, [[True, False, True]])
    np.testing.assert_array_equal(y, [[[1.0, -1.0], [0.0, 0.0], [0.0, 0.0]]])


def test_masking_keeps_the_mask_it_is_given():
    x = pt.constant(np.array([[[1.0], [2.0], [0.0]]]))
    given = pt.constant(np.array([[False, True, True]]))
    mask = Masking().compute_mask(x, given)
    result = backend.compile([], [mask], name="test")()[0]
    np.testing.assert_array_equal(result, [[False, True, False]])


def test_layers_that_do_not_touch_time_hand_the_mask_on():
    x, mask = pt.ftensor3("x"), pt.bmatrix("mask")
    for layer in (Dense(2), Dropout(0.5), Activation("tanh"), Softmax(), TimeDistributed(Dense(2))):
        assert layer.compute_mask(x, mask) is mask


# ----------------------------------------------------------------------- time distributed


def test_time_distributed_dense_is_dense():
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    inner = Dense(5, "softmax", dtype="float64")
    layer = TimeDistributed(inner)
    symbolic = pt.tensor("x", dtype="float64", shape=(None, None, 4))
    f = backend.compile([symbolic], [layer(symbolic), inner(symbolic)], name="test")
    ours, expected = f(x)
    assert ours.shape == (2, 3, 5)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    assert layer.compute_output_shape((None, None, 4)) == (None, None, 5)
    assert layer.weights == inner.weights


def test_time_distributed_recurrent_reads_a_sequence_at_every_step():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 2))
    inner = LSTM(5, dtype="float64")
    layer = TimeDistributed(inner)
    symbolic = pt.tensor("x", dtype="float64", shape=(None, None, None, 2))
    steps = pt.tensor("steps", dtype="float64", shape=(None, None, 2))
    f = backend.compile([symbolic, steps], [layer(symbolic), inner(steps)], name="test")
    ours, expected = f(x, x[:, 1])
    np.testing.assert_allclose(ours[:, 1], expected, rtol=1e-12)


def test_time_distributed_names_do_not_grow_when_it_is_made_again():
    layer = TimeDistributed(Dense(2, kernel_regularizer="l2"), name="each")
    layer.ensure_built((None, None, 3))
    names = [w.name for w in layer.weights]
    assert names == ["each/dense/kernel", "each/dense/bias"]
    assert len(layer.penalties) == 1
    for _ in range(2):
        layer = registry.get("layer", registry.serialize(layer))
        layer.ensure_built((None, None, 3))
    assert [w.name for w in layer.weights] == names


# --------------------------------------------------------------------- layers of one's own


@registry.register("layer")
class Scale(Layer):
    """Multiplies by a number that is learned, as a user would write it."""

    def __init__(self, start=2.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start

    def build(self, input_shape):
        self.factor = self.add_weight("factor", (), seqnet.initializers.Constant(self.start))

    def call(self, inputs, mask, phase):
        return inputs * self.factor


def test_a_layer_of_ones_own_trains_and_is_made_again():
    model = seqnet.Model([Scale(dtype="float64")])
    model.compile(seqnet.optimizers.SGD(0.1), "mse")
    x = np.array([[1.0], [2.0]])
    assert model.evaluate(x, 5 * x) == pytest.approx((3.0**2 + 6.0**2) / 2)
    model.fit(x, 5 * x, epochs=60, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], 5.0, rtol=1e-6)
    again = registry.get("layer", registry.serialize(model.layers[0]))
    assert (type(again), again.start, again.name) == (Scale, 2.0, "scale")

import numpy as np
import pytest
from helpers import values_and_gradients
from reference.numpy_layers import sigmoid

import seqnet
from seqnet import registry
from seqnet.layers import LSTM, Embedding, GatedInput

RNG = np.random.default_rng(20140714)


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("shape", [(4,), (4, 5), (1, 1)])
def test_one_gate_per_sample_and_step_scales_all_features(shape, features):
    arrays = {
        "x": RNG.normal(size=(*shape, features)),
        "kernel": RNG.normal(size=(features, 1)),
        "bias": RNG.normal(size=1),
        "cotangent": RNG.normal(size=(*shape, features)),
    }
    x, d_y = arrays["x"], arrays["cotangent"]
    gate = sigmoid(x @ arrays["kernel"] + arrays["bias"])  # theano_lstm: sigmoid(W x + b)
    assert gate.shape == (*shape, 1)
    d_before = (d_y * x).sum(axis=-1, keepdims=True) * gate * (1 - gate)
    expected = {
        "y": gate * x,
        "d_x": d_y * gate + d_before * arrays["kernel"][:, 0],
        "d_kernel": (d_before * x).reshape(-1, features).sum(axis=0)[:, None],
        "d_bias": d_before.reshape(-1, 1).sum(axis=0),
    }
    result = values_and_gradients(GatedInput(dtype="float64"), arrays)
    for name, value in expected.items():
        assert result[name].shape == value.shape
        np.testing.assert_allclose(result[name], value, rtol=1e-10, atol=1e-13, err_msg=name)


def test_the_mask_is_passed_on_and_the_configuration_round_trips():
    model = seqnet.Model([Embedding(5, 3, mask_zero=True), GatedInput(use_bias=False), LSTM(2)])
    padded, short = np.array([[1, 2, 0, 0]]), np.array([[1, 2]])
    np.testing.assert_allclose(model.predict(padded), model.predict(short), rtol=1e-6)
    layer = model.layers[1]
    assert [w.name for w in layer.weights] == ["gated_input/kernel"]
    again = registry.get("layer", registry.serialize(layer))
    assert again.get_config() == layer.get_config()
    assert layer.compute_output_shape((None, None, 3)) == (None, None, 3)


def test_the_gate_learns_to_select_inputs():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 3))
    x[:, 2] = rng.choice([-1.0, 1.0], 256)
    y = np.where(x[:, 2:] > 0, x, 0)
    model = seqnet.Model([GatedInput()])
    model.compile(seqnet.optimizers.Adam(0.05), "mse")
    losses = model.fit(x, y, epochs=40, verbose=0).history["loss"]
    assert losses[-1] < 0.05 * losses[0]


def test_inputs_without_features_are_refused():
    with pytest.raises(ValueError, match=r"takes \(batch, ..., features\)"):
        GatedInput().ensure_built((None,))

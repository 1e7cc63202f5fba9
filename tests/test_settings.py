"""Activations, initializers, regularizers, the configuration and the registry."""

import importlib.util
import json

import numpy as np
import pytensor.tensor as pt
import pytest
from reference import load_arrays
from scipy import special

import seqnet
from seqnet import activations, backend, config, initializers, registry, regularizers
from seqnet.layers import LSTM, Dense

FORMULAS = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "softplus": lambda x: np.logaddexp(x, 0),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exponential": np.exp,
    "silu": lambda x: x * special.expit(x),
    "gelu": lambda x: x * special.ndtr(x),
    "softmax": lambda x: special.softmax(x, axis=-1),
    "log_softmax": lambda x: special.log_softmax(x, axis=-1),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_activations_equal_their_formulas_in_both_float_types(name):
    x = np.array([[-8.0, -1.0, 0.0], [0.5, 2.0, 30.0]])
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        symbolic = pt.tensor("x", dtype=dtype, shape=(None, None))
        y = activations.get(name)(symbolic)
        assert y.dtype == dtype
        f = backend.compile([symbolic], [y], name="test")
        np.testing.assert_allclose(f(x.astype(dtype))[0], FORMULAS[name](x), tolerance, tolerance)


@pytest.mark.parametrize("name", ["hard_sigmoid", "leaky_relu", "gelu", "silu"])
def test_activations_convert_integers_to_floats(name):
    x = np.array([-3, 0, 2], "int32")
    value = backend.compile([], [activations.get(name)(pt.constant(x))], name="test")()[0]
    np.testing.assert_allclose(value, FORMULAS[name](x.astype(float)), rtol=1e-6)


def test_every_activation_is_tested():
    arrays = load_arrays("keras_layers").values()  # see layers/test_against_keras.py
    stored = {str(a["activation"]) for a in arrays if "activation" in a}
    assert set(registry.names("activation")) == set(FORMULAS) | stored | {"swish", "hard_swish"}


def test_none_is_the_linear_activation_and_functions_are_kept():
    assert activations.get(None) is activations.linear
    assert activations.get(np.tanh) is np.tanh
    with pytest.raises(TypeError, match=r"activation .* got 3"):
        activations.get(3)


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("glorot_uniform", 2 / 500),
        ("glorot_normal", 2 / 500),
        ("he_uniform", 2 / 200),
        ("he_normal", 2 / 200),
        ("lecun_uniform", 1 / 200),
        ("lecun_normal", 1 / 200),
        ("uniform", 0.1**2 / 12),
        ("normal", 0.05**2),
    ],
)
def test_initializers_have_their_mean_and_variance(name, variance):
    values = initializers.get(name)((200, 300))
    assert values.dtype == np.float32
    assert abs(values.mean()) < 4 * np.sqrt(variance / values.size)
    assert values.var() == pytest.approx(variance, rel=0.03)
    if "uniform" in name:
        assert np.abs(values).max() <= np.sqrt(3 * variance) * (1 + 1e-6)


@pytest.mark.parametrize("shape", [(4, 4), (3, 8), (8, 3)])
def test_an_orthogonal_matrix_has_orthonormal_rows_or_columns(shape):
    matrix = initializers.Orthogonal(gain=2.0)(shape, dtype="float64")
    product = matrix @ matrix.T if shape[0] <= shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, 4 * np.eye(min(shape)), atol=1e-12)


def test_constant_initializers_have_the_expected_values():
    np.testing.assert_array_equal(initializers.get("ones")((2, 2)), np.ones((2, 2)))
    np.testing.assert_array_equal(initializers.Constant(3.5)((2,)), [3.5, 3.5])
    np.testing.assert_array_equal(initializers.Identity(2.0)((2, 2)), 2 * np.eye(2))
    with pytest.raises(ValueError, match=r"needs a matrix, got the shape \(3,\)"):
        initializers.Orthogonal()((3,))
    with pytest.raises(ValueError, match=r"needs a matrix, got the shape \(3,\)"):
        initializers.Identity()((3,))


def test_the_seed_determines_the_initial_weights():
    def weights():
        seqnet.set_random_seed(11)
        layer = LSTM(3)
        layer.ensure_built((None, None, 2))
        return layer.get_weights()

    for one, other in zip(weights(), weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("regularizer", "expected"),
    [
        (regularizers.L1(0.5), 0.5 * 4.5),
        (regularizers.L2(0.5), 0.5 * (1 + 4 + 2.25)),
        (regularizers.L1L2(0.1, 0.2), 0.1 * 4.5 + 0.2 * 7.25),
        (regularizers.get("l2"), 0.01 * 7.25),
        (regularizers.L1L2(), 0.0),
    ],
)
def test_penalties_equal_their_formulas(regularizer, expected):
    weight = pt.constant(np.array([1.0, -2.0, 1.5]))
    assert backend.compile([], [regularizer(weight)], name="test")()[0] == pytest.approx(expected)


def test_a_missing_regularizer_is_none():
    assert regularizers.get(None) is None


def test_settings_are_checked_and_stored():
    config.set_floatx("float64")
    assert Dense(1).dtype == config.floatx() == "float64"
    config.set_epsilon(1e-3)
    assert config.epsilon() == 1e-3
    with pytest.raises(ValueError, match="epsilon must be above zero and below one, got 0"):
        config.set_epsilon(0)
    config.set_backend("numpy")
    assert config.backend() == "numpy"


def test_a_backend_that_is_not_installed_is_refused_immediately(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"backend 'jax' needs .* pip install jax"):
        config.set_backend("jax")
    assert config.backend() == "auto"


def test_layers_round_trip_through_json():
    layer = LSTM(
        3,
        activation="relu",
        kernel_initializer=initializers.Constant(0.5),
        recurrent_regularizer=regularizers.L2(0.125),
        return_sequences=True,
        name="memory",
        dtype="float64",
        trainable=False,
    )
    written = json.loads(json.dumps(registry.serialize(layer)))
    again = registry.get("layer", written)
    assert registry.serialize(again) == written
    assert again.activation is activations.relu
    assert again.kernel_initializer.value == 0.5
    assert again.recurrent_regularizer.l2 == 0.125
    assert (again.name, again.dtype, again.trainable) == ("memory", "float64", False)


def test_files_refer_only_to_registered_objects():
    with pytest.raises(ValueError, match=r"Unknown layer 'os.system'"):
        registry.get("layer", {"name": "os.system", "config": {}})
    with pytest.raises(ValueError, match="Dense takes no argument 'unit'; it takes units"):
        registry.get("layer", {"name": "Dense", "config": {"unit": 3}})
    with pytest.raises(ValueError, match="configuration of layer 'Dense' is no mapping"):
        registry.get("layer", {"name": "Dense", "config": [3]})


def test_custom_objects_are_found_where_names_are_nested():
    def doubled(x):
        return 2 * x

    written = registry.serialize(Dense(2, activation=doubled))
    again = registry.get("layer", written, {"doubled": doubled})
    assert again.activation is doubled
    with pytest.raises(ValueError, match="Unknown activation 'doubled'"):
        registry.get("layer", written)

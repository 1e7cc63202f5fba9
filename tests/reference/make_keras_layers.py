"""Compute layers and activations with Keras 3 on JAX, in float64, and write keras_layers.npz.

The stored file was made, in the folder tests, by ::

    python -m pip install keras==3.15.1 jax==0.10.2 numpy==2.4.6
    KERAS_BACKEND=jax python -m reference.make_keras_layers

with Python 3.11.7, keras 3.15.1, jax 0.10.2 and NumPy 2.4.6 on a CPU.

A layer's case has ``layer`` (the name of the class), ``config`` (its arguments, JSON), ``x``,
``mask`` if used, its weights by name, ``training`` where it is True, the output ``y``,
``cotangent``, the gradients ``d_...`` of ``sum(y * cotangent)`` for x and the trained weights,
weights that the call changed as ``after_...``, and the sum of its losses as ``loss``. The case of
an activation has ``activation``, ``config``, ``x``, ``y``, and ``d_x`` of ``sum(y * [1, 2, ...])``.
"""

import json
import platform
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras.src.backend.common import dtypes

from . import cases

if keras.config.backend() != "jax":
    raise RuntimeError(f"Set KERAS_BACKEND=jax; Keras runs on {keras.config.backend()}.")
jax.config.update("jax_enable_x64", True)
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"  # see make_keras.py

X = (3, 6, 4)
LAYERS = {
    "conv1d_valid": ("Conv1D", {"filters": 3, "kernel_size": 3, "activation": "tanh"}),
    "conv1d_same": ("Conv1D", {"filters": 3, "kernel_size": 4, "padding": "same"}),
    "conv1d_causal_dilated": (
        "Conv1D",
        {"filters": 2, "kernel_size": 3, "padding": "causal", "dilation_rate": 2},
    ),
    "conv1d_valid_dilated": ("Conv1D", {"filters": 2, "kernel_size": 2, "dilation_rate": 3}),
    "conv1d_valid_strides": ("Conv1D", {"filters": 2, "kernel_size": 2, "strides": 3}),
    "conv1d_same_strides": (
        "Conv1D",
        {"filters": 2, "kernel_size": 3, "strides": 2, "padding": "same"},
    ),
    "conv1d_causal_strides": (
        "Conv1D",
        {"filters": 2, "kernel_size": 3, "strides": 2, "padding": "causal"},
    ),
    "conv1d_groups": (
        "Conv1D",
        {"filters": 6, "kernel_size": 2, "groups": 2, "use_bias": False},
    ),
    "max_pooling1d": ("MaxPooling1D", {}),
    "max_pooling1d_same": ("MaxPooling1D", {"pool_size": 3, "strides": 2, "padding": "same"}),
    "average_pooling1d": ("AveragePooling1D", {"pool_size": 4, "strides": 1}),
    "average_pooling1d_same": (
        "AveragePooling1D",
        {"pool_size": 4, "strides": 3, "padding": "same"},
    ),
    "global_average_pooling1d": ("GlobalAveragePooling1D", {}),
    "global_average_pooling1d_masked": ("GlobalAveragePooling1D", {"keepdims": True}),
    "global_max_pooling1d": ("GlobalMaxPooling1D", {}),
    "layer_normalization": ("LayerNormalization", {}),
    "layer_normalization_axes": ("LayerNormalization", {"axis": [1, 2], "epsilon": 0.1}),
    "batch_normalization": ("BatchNormalization", {}),
    "batch_normalization_training": ("BatchNormalization", {"momentum": 0.9, "epsilon": 0.01}),
    "batch_normalization_masked_training": ("BatchNormalization", {"momentum": 0.5}),
    "batch_normalization_axis_training": ("BatchNormalization", {"axis": 1, "scale": False}),
    "batch_normalization_frozen_training": ("BatchNormalization", {"trainable": False}),
    "group_normalization": ("GroupNormalization", {"groups": 2}),
    "group_normalization_each": ("GroupNormalization", {"groups": -1, "center": False}),
    "relu": ("ReLU", {"max_value": 1.5, "negative_slope": 0.25, "threshold": 0.5}),
    "leaky_relu": ("LeakyReLU", {}),
    "elu": ("ELU", {"alpha": 0.5}),
    "prelu": ("PReLU", {}),
    "prelu_shared": ("PReLU", {"shared_axes": [1]}),
    "softmax_axis": ("Softmax", {"axis": 1}),
    "reshape": ("Reshape", {"target_shape": [2, -1]}),
    "flatten": ("Flatten", {}),
    "permute": ("Permute", {"dims": [2, 1]}),
    "zero_padding1d": ("ZeroPadding1D", {"padding": [1, 2]}),
    "cropping1d": ("Cropping1D", {"cropping": [2, 1]}),
    "up_sampling1d": ("UpSampling1D", {"size": 3}),
    "activity_regularization": ("ActivityRegularization", {"l1": 0.5, "l2": 0.25}),
    "dense_activity_regularizer": ("Dense", {"units": 2, "activity_regularizer": "l2"}),
    "identity": ("Identity", {}),
}
ACTIVATIONS = {
    **{
        name: (name, {})
        for name in (
            *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu"),
            *("hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu"),
            *("relu6", "selu", "sigmoid", "silu", "soft_shrink", "softmax", "softplus"),
            *("softsign", "squareplus", "tanh", "tanh_shrink"),
        )
    },
    "gelu_approximate": ("gelu", {"approximate": True}),
    "relu_arguments": ("relu", {"negative_slope": 0.5, "max_value": 2.0, "threshold": 1.0}),
    "leaky_relu_slope": ("leaky_relu", {"negative_slope": 0.1}),
    "celu_alpha": ("celu", {"alpha": 0.5}),
    "elu_alpha": ("elu", {"alpha": 2.0}),
    "squareplus_b": ("squareplus", {"b": 1.0}),
    "soft_shrink_threshold": ("soft_shrink", {"threshold": 1.0}),
    "softmax_axis": ("softmax", {"axis": 0}),
}


def layer(name):
    kind, config = LAYERS[name]
    rng = cases.random_generator(name)
    arrays = {"x": cases.normal(rng, X)}
    training = name.endswith("training")
    options = {"training": True} if training else {}
    if "masked" in name:
        arrays["mask"] = np.arange(X[1]) < np.array([6, 1, 4])[:, None]
        options["mask"] = jnp.asarray(arrays["mask"])
    built = getattr(keras.layers, kind)(**config)
    built.build(X)
    for weight in built.weights:
        value = cases.normal(rng, weight.shape)
        weight.assign(np.square(value) + 0.5 if weight.name == "moving_variance" else value)
        arrays[weight.name] = np.asarray(weight.value)
    trained = [weight.name for weight in built.trainable_variables]
    fixed = [weight.name for weight in built.non_trainable_variables]

    def run(values):
        y, after = built.stateless_call(
            [values[weight] for weight in trained],
            [jnp.asarray(arrays[weight]) for weight in fixed],
            values["x"],
            **options,
        )
        return (y * cotangent).sum(), (y, after)

    cotangent = 0.0
    by = {key: jnp.asarray(arrays[key]) for key in ("x", *trained)}
    cotangent = cases.normal(rng, run(by)[1][0].shape)
    (_, (y, after)), gradients = jax.value_and_grad(run, has_aux=True)(by)
    result = {"y": y, "cotangent": cotangent} | {f"d_{key}": gradients[key] for key in by}
    result |= {f"after_{key}": value for key, value in zip(fixed, after, strict=True)}
    if "activity" in name:
        built(arrays["x"])
        result["loss"] = sum(built.losses)
    told = {"layer": np.array(kind), "config": np.array(json.dumps(config))}
    return told | arrays | result | ({"training": np.array(True)} if training else {})


def activation(name):
    kind, config = ACTIVATIONS[name]
    x = cases.normal(cases.random_generator(name), (4, 5), 2.0)
    function = getattr(keras.activations, kind)

    def run(x):
        y = function(x, **config)
        return (y * jnp.arange(1.0, 21.0).reshape(4, 5)).sum(), y

    (_, y), d_x = jax.value_and_grad(run, has_aux=True)(jnp.asarray(x))
    told = {"activation": np.array(kind), "config": np.array(json.dumps(config))}
    return told | {"x": x, "y": y, "d_x": d_x}


def main():
    stored = {}
    made = {name: layer(name) for name in LAYERS}
    made |= {f"activation_{name}": activation(name) for name in ACTIVATIONS}
    for case, arrays in made.items():
        for key, value in arrays.items():
            array = np.asarray(value)
            if array.dtype.kind == "f" and array.dtype != np.float64:
                raise TypeError(f"{case}/{key} was computed as {array.dtype}, not float64.")
            stored[f"{case}/{key}"] = array
    versions = f"python {platform.python_version()}, keras {keras.__version__}, "
    versions += f"jax {jax.__version__}, numpy {np.__version__}"
    path = Path(__file__).with_name("keras_layers.npz")
    np.savez_compressed(path, versions=np.array(versions), **stored)
    print(versions)
    print(f"{path.name}: {len(made)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()

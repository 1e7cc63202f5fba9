"""Compute the stored cases with Keras 3 on JAX, in float64, and write keras.npz.

The stored file was made, in the folder tests, by ::

    python -m pip install keras==3.15.1 jax==0.10.2 numpy==2.4.6
    KERAS_BACKEND=jax python -m reference.make_keras

with Python 3.11.7, keras 3.15.1, jax 0.10.2 and NumPy 2.4.6 on a CPU.

The stored results are those of ``unroll=False``. Every recurrent case is also run with
``unroll=True`` and must agree, except for one known difference (`check_unrolled`).
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
# Keras 3.15's promotion rules narrow float64 to float32 on JAX for any floatx: keras.ops.tanh,
# for example, would return float32.
dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
keras.utils.set_random_seed(0)


def make_layer(case, unroll):
    options = {
        "activation": case.activation,
        "return_sequences": True,
        "return_state": True,
        "go_backwards": case.go_backwards,
        "unroll": unroll,
    }
    if case.cell == "simple_rnn":
        return keras.layers.SimpleRNN(case.units, **options)
    if case.cell == "lstm":
        return keras.layers.LSTM(case.units, **options)
    return keras.layers.GRU(case.units, reset_after=case.reset_after, **options)


def recurrent(case, arrays, unroll=False):
    layer = make_layer(case, unroll)
    layer.build(arrays["x"].shape)
    names = [weight.name for weight in layer.trainable_variables]
    if sorted(names) != ["bias", "kernel", "recurrent_kernel"]:
        raise ValueError(f"Keras names the weights {names}.")
    start = [f"{state}0" for state in case.state_names]

    def run(values):
        options = {}
        if case.initial_states:
            options["initial_state"] = [values[name] for name in start]
        if case.mask:
            options["mask"] = jnp.asarray(arrays["mask"])
        outputs, _ = layer.stateless_call(
            [values[name] for name in names], layer.non_trainable_variables, values["x"], **options
        )
        y, *last = outputs
        return (y * arrays["cotangent"]).sum(), (y, last)

    by = ["x", *names] + (start if case.initial_states else [])
    (_, (y, last)), gradients = jax.value_and_grad(run, has_aux=True)(
        {name: jnp.asarray(arrays[name]) for name in by}
    )
    result = {"y": y}
    for state, value in zip(case.state_names, last, strict=True):
        result[f"{state}_last"] = value
    return result | {f"d_{name}": gradients[name] for name in by}


def check_unrolled(case, arrays, result):
    """Check that unroll=True agrees, except for one known difference.

    It outputs zeros where unroll=False outputs the initial state: before the first step that is
    not masked. So d_h0 lacks the cotangents of those steps. Return whether it occurs.
    """
    unrolled = recurrent(case, arrays, unroll=True)
    mask = arrays.get("mask", np.ones(result["y"].shape[:2], dtype=bool))
    mask = mask[:, ::-1] if case.go_backwards else mask
    started = np.maximum.accumulate(mask, axis=1)[:, :, None]
    expected = dict(result)
    if case.initial_states:
        expected["y"] = np.where(started, result["y"], 0.0)
        lacking = np.where(started, 0.0, arrays["cotangent"]).sum(axis=1)
        expected["d_h0"] = result["d_h0"] - lacking
    for name, value in expected.items():
        np.testing.assert_allclose(
            unrolled[name], value, atol=1e-12, err_msg=f"{case.name}/{name} with unroll=True"
        )
    return case.initial_states and not started.all()


def layer(name, arrays):
    if name.startswith("dense"):
        built, key = keras.layers.Dense(2), "x"
    elif name == "embedding":
        built, key = keras.layers.Embedding(*arrays["embeddings"].shape), "ids"
    else:
        built, key = keras.layers.Softmax(axis=-1), "x"
    built.build(arrays[key].shape)
    names = [weight.name for weight in built.trainable_variables]

    def run(values):
        inputs = values.get(key, jnp.asarray(arrays[key]))
        y, _ = built.stateless_call(
            [values[weight] for weight in names], built.non_trainable_variables, inputs
        )
        return (y * arrays["cotangent"]).sum(), y

    by = names + (["x"] if key == "x" else [])
    (_, y), gradients = jax.value_and_grad(run, has_aux=True)(
        {weight: jnp.asarray(arrays[weight]) for weight in by}
    )
    return {"y": y} | {f"d_{weight}": gradients[weight] for weight in by}


LOSS_CLASSES = {
    "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "squared_error": keras.losses.MeanSquaredError,
    "absolute_error": keras.losses.MeanAbsoluteError,
}


def loss(name, arrays):
    options = {"from_logits": True} if "crossentropy" in name else {}
    loss_class = LOSS_CLASSES[name.removesuffix("_extreme")]
    weights = jnp.asarray(arrays["weights"] * arrays["mask"])

    def value(logits, reduction, sample_weight=None):
        made = loss_class(reduction=reduction, **options)
        return made(jnp.asarray(arrays["targets"]), logits, sample_weight=sample_weight)

    logits = jnp.asarray(arrays["logits"])
    mean, d_logits = jax.value_and_grad(value)(logits, "mean_with_sample_weight", weights)
    return {
        "losses": value(logits, None),
        "weighted_mean": mean,
        "weighted_sum_over_batch_size": value(logits, "sum_over_batch_size", weights),
        "d_logits": d_logits,
    }


def trajectory(name, arrays):
    function, hyper = cases.OPTIMIZERS[name]
    class_name = {"sgd": "SGD", "rmsprop": "RMSprop"}.get(function, function.capitalize())
    optimizer = getattr(keras.optimizers, class_name)(**hyper)
    parameter = keras.Variable(arrays["parameter"], dtype="float64")
    visited = []
    for gradient in arrays["gradients"]:
        optimizer.apply([jnp.asarray(gradient)], [parameter])
        visited.append(np.array(parameter.value))
    return np.stack(visited)


def clip(name, arrays):
    """Return the gradients after clipping: one step of SGD with rate 1 from zeros, negated."""
    argument = {
        "clip_by_value": "clipvalue",
        "clip_by_norm": "clipnorm",
        "clip_by_global_norm": "global_clipnorm",
    }[name]
    optimizer = keras.optimizers.SGD(learning_rate=1.0, **{argument: cases.CLIPPING[name]})
    gradients = [jnp.asarray(arrays[key]) for key in ("gradient_0", "gradient_1")]
    parameters = [keras.Variable(np.zeros(g.shape), dtype="float64") for g in gradients]
    optimizer.apply(gradients, parameters)
    return {f"clipped_{k}": -np.array(p.value) for k, p in enumerate(parameters)}


def main():
    collector = cases.Collector()
    differing = []
    for case in cases.RECURRENT.values():
        if "keras" in case.peers:
            arrays = case.inputs()
            result = recurrent(case, arrays)
            collector.add(case.name, arrays, result, case.numpy_result(arrays))
            if check_unrolled(case, arrays, result):
                differing.append(case.name)
    print("unroll=True differs before the first step of data:", ", ".join(differing))
    for name, arrays in cases.layer_inputs().items():
        collector.add(name, arrays, layer(name, arrays), cases.layer_numpy_result(name, arrays))
    for name, arrays in cases.loss_inputs().items():
        collector.add(name, arrays, loss(name, arrays), cases.loss_numpy_result(name, arrays))
    for name, (_, hyper) in cases.OPTIMIZERS.items():
        arrays = cases.optimizer_inputs()
        expected = cases.optimizer_numpy_result(name, arrays, "keras")
        arrays["hyperparameters"] = np.array(json.dumps(hyper))
        result = {"trajectory": trajectory(name, arrays)}
        collector.add(f"optimizer_{name}", arrays, result, {"trajectory": expected})
    for name in cases.CLIPPING:
        arrays = cases.clipping_inputs() | {"limit": np.array(cases.CLIPPING[name])}
        expected = cases.clipping_numpy_result(name, arrays)
        collector.add(name, arrays, clip(name, arrays), expected)
    versions = f"python {platform.python_version()}, keras {keras.__version__}, "
    versions += f"jax {jax.__version__}, numpy {np.__version__}"
    collector.write(Path(__file__).with_name("keras.npz"), versions)


if __name__ == "__main__":
    main()

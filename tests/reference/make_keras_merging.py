"""Compute merge and attention layers with Keras 3 on JAX, in float64; write keras_merging.npz.

The stored file was made, in the folder tests, by ::

    python -m pip install keras==3.15.1 jax==0.10.2
    KERAS_BACKEND=jax python -m reference.make_keras_merging

with Python 3.11 on a CPU. A key is ``"{case}/{name}"``. Each case has ``layer``, ``config`` and
``options`` (of the call) as text, the inputs ``input_0`` ..., their masks ``mask_0`` ... if
used, the weights ``weight_0`` ... in Keras's order, the output ``y``, the attention's
weights ``scores``, ``cotangent`` and, of ``sum(y * cotangent)``, the derivatives ``d_input_0`` ...,
``d_weight_0`` .... Every query of a case may attend to some step: for others Keras spreads the
weights over masked steps, and seqnet gives zeros.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras.src.backend.common import dtypes

if keras.config.backend() != "jax":
    raise RuntimeError(f"Set KERAS_BACKEND=jax; Keras runs on {keras.config.backend()}.")
jax.config.update("jax_enable_x64", True)
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
# See make_keras.py: Keras's promotion rules narrow float64 to float32 on JAX.
dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"

QUERY, VALUE, KEY = (2, 3, 4), (2, 5, 6), (2, 5, 4)
HOLES = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1]], bool)
QUERIES = np.array([[1, 1, 0], [1, 0, 1]], bool)
BETWEEN = np.array([[[1, 1, 0, 1, 0], [0, 0, 1, 1, 1], [1, 0, 1, 1, 1]]] * 2, bool)
SELF = (2, 4, 6)
STEPS = np.array([[1, 1, 0, 1], [1, 0, 1, 1]], bool)
NAMES = ("query", "value", "key")
FIRST = {"return_attention_scores": True}

# name: (layer, config, shapes of inputs, masks, options)
CASES = {
    "add": ("Add", {}, [(2, 3, 4), (2, 1, 4), (2, 4)], [], {}),
    "subtract": ("Subtract", {}, [(2, 3, 4), (2, 3, 4)], [], {}),
    "multiply": ("Multiply", {}, [(2, 3, 4), (2, 3, 1), (2, 3, 4)], [], {}),
    "average": ("Average", {}, [(2, 3), (2, 3), (2, 3)], [], {}),
    "maximum": ("Maximum", {}, [(2, 3, 4), (2, 3, 4)], [], {}),
    "minimum": ("Minimum", {}, [(2, 3, 4), (2, 4), (2, 3, 4)], [], {}),
    "concatenate": ("Concatenate", {}, [(2, 3, 4), (2, 3, 2)], [], {}),
    "concatenate_time": ("Concatenate", {"axis": 1}, [(2, 3, 4), (2, 1, 4)], [], {}),
    "dot_vectors": ("Dot", {"axes": 1}, [(2, 5), (2, 5)], [], {}),
    "dot_cosine": ("Dot", {"axes": -1, "normalize": True}, [(2, 5), (2, 5)], [], {}),
    "dot_sequences": ("Dot", {"axes": [2, 2]}, [(2, 3, 4), (2, 5, 4)], [], {}),
    "dot_time": ("Dot", {"axes": [1, 1], "normalize": True}, [(2, 5, 3), (2, 5, 4)], [], {}),
    "dot_mixed": ("Dot", {"axes": [1, 2]}, [(2, 4), (2, 5, 4)], [], {}),
    "attention": ("Attention", {}, [QUERY, KEY], [], FIRST),
    "attention_key": ("Attention", {"use_scale": True}, [QUERY, VALUE, KEY], [], FIRST),
    "attention_masked": ("Attention", {}, [QUERY, VALUE, KEY], [QUERIES, HOLES, None], FIRST),
    "attention_causal": ("Attention", {}, [SELF, SELF], [], FIRST | {"use_causal_mask": True}),
    "attention_concat": (
        "Attention",
        {"use_scale": True, "score_mode": "concat"},
        [QUERY, VALUE, KEY],
        [None, HOLES, None],
        FIRST,
    ),
    "additive": ("AdditiveAttention", {}, [QUERY, VALUE, KEY], [QUERIES, HOLES, None], FIRST),
    "additive_no_scale": ("AdditiveAttention", {"use_scale": False}, [QUERY, KEY], [], FIRST),
    "heads": ("MultiHeadAttention", {"num_heads": 2, "key_dim": 3}, [QUERY, VALUE], [], FIRST),
    "heads_masked": (
        "MultiHeadAttention",
        {"num_heads": 2, "key_dim": 3, "value_dim": 4, "output_shape": 5},
        [QUERY, VALUE, KEY],
        [None, HOLES, None],
        FIRST,
    ),
    "heads_attention_mask": (
        "MultiHeadAttention",
        {"num_heads": 3, "key_dim": 2, "use_bias": False},
        [QUERY, VALUE],
        [],
        FIRST | {"attention_mask": BETWEEN},
    ),
    "heads_self_causal": (
        "MultiHeadAttention",
        {"num_heads": 2, "key_dim": 3, "attention_axes": 1},
        [SELF, SELF],
        [None, STEPS],
        FIRST | {"use_causal_mask": True},
    ),
}


def run(case, rng):
    name, config, shapes, masks, options = case
    layer = getattr(keras.layers, name)(**config)
    inputs = [rng.normal(size=shape).astype("float32").astype("float64") for shape in shapes]
    masks = masks or [None] * len(inputs)
    heads = name == "MultiHeadAttention"

    def call(values):
        values = [jnp.asarray(v) for v in values]
        given = {k: jnp.asarray(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        if heads:
            named = {f"{n}_mask": m for n, m in zip(NAMES, masks, strict=False) if m is not None}
            return layer(*values, **named, **given)
        if any(m is not None for m in masks):
            given["mask"] = [None if m is None else jnp.asarray(m) for m in masks]
        return layer(values, **given)

    call(inputs)
    weights = [rng.normal(size=w.shape).astype("float32").astype("float64") for w in layer.weights]

    def outputs(weights, inputs):
        pairs = zip(layer.trainable_variables, weights, strict=True)
        with keras.StatelessScope(state_mapping=list(pairs)):
            found = call(inputs)
        return found if isinstance(found, (tuple, list)) else (found, None)

    y, scores = outputs([jnp.asarray(w) for w in weights], inputs)
    cotangent = rng.normal(size=y.shape)
    if y.dtype != jnp.float64:
        raise ValueError(f"{name} answers in {y.dtype}.")
    of_weights, of_inputs = jax.grad(
        lambda w, x: (outputs(w, x)[0] * cotangent).sum(), argnums=(0, 1)
    )([jnp.asarray(w) for w in weights], [jnp.asarray(x) for x in inputs])
    arrays = {"y": y, "cotangent": cotangent}
    if scores is not None:
        arrays["scores"] = scores
    if "attention_mask" in options:
        arrays["attention_mask"] = options["attention_mask"]
    for kind, values in (
        ("input", inputs),
        ("mask", masks),
        ("weight", weights),
        ("d_input", of_inputs),
        ("d_weight", of_weights),
    ):
        arrays |= {f"{kind}_{k}": v for k, v in enumerate(values) if v is not None}
    plain = {k: v for k, v in options.items() if not isinstance(v, np.ndarray)}
    arrays |= {"layer": name, "config": json.dumps(config), "options": json.dumps(plain)}
    return {key: np.asarray(value) for key, value in arrays.items()}


def main():
    stored = {"versions": np.asarray(f"keras {keras.__version__}, jax {jax.__version__}")}
    for k, (name, case) in enumerate(CASES.items()):
        found = run(case, np.random.default_rng(k))
        stored |= {f"{name}/{key}": value for key, value in found.items()}
    np.savez_compressed(Path(__file__).with_name("keras_merging.npz"), **stored)


if __name__ == "__main__":
    main()

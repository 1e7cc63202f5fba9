"""Compute cells and RNN with Keras 3 on JAX, in float64, and write keras_cells.npz.

The stored file was made, in the folder tests, by ::

    python -m pip install keras==3.15.1 jax==0.10.2
    KERAS_BACKEND=jax python -m reference.make_keras_cells

with Python 3.11 on a CPU. A key is ``"{case}/{name}"``. Each case has ``cells`` (names and
arguments) and ``options`` (of RNN) as text, an input ``x``, perhaps a ``mask``, the first states
``state_0`` ..., the weights ``weight_0`` ... in Keras's order, the output ``y``, the last states
``last_0`` ..., ``cotangent`` and, of ``sum(y * cotangent)``, the derivatives ``d_x``,
``d_state_0`` ..., ``d_weight_0`` .... The case of a cell without RNN has the options ``null``. The
states of a stack are those of its cells, in order.
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
# As in make_keras.py: Keras's promotion rules narrow float64 to float32 on JAX.
dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"

MASK = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [1, 0, 0, 0, 0]], dtype=bool)
SIMPLE = ("SimpleRNNCell", {"units": 3})
LSTM = ("LSTMCell", {"units": 4})
GRU = ("GRUCell", {"units": 3})
BEFORE = ("GRUCell", {"units": 3, "reset_after": False, "use_bias": False})
OTHER = ("LSTMCell", {"units": 3, "activation": "relu", "recurrent_activation": "tanh"})
EVERY = {"return_sequences": True, "return_state": True}

# name: (cells, options of RNN or None, mask)
CASES = {
    "call_simple_rnn": ([SIMPLE], None, None),
    "call_lstm": ([LSTM], None, None),
    "call_lstm_activations": ([OTHER], None, None),
    "call_gru": ([GRU], None, None),
    "call_gru_reset_before": ([BEFORE], None, None),
    "call_stack": ([LSTM, GRU], None, None),
    "rnn_lstm": ([LSTM], EVERY, None),
    "rnn_gru_masked": ([GRU], EVERY, MASK),
    "rnn_zero_output": ([LSTM], EVERY | {"zero_output_for_mask": True}, MASK),
    "rnn_backwards": ([SIMPLE], EVERY | {"go_backwards": True}, MASK),
    "stack": ([LSTM, GRU, SIMPLE], EVERY, None),
    "stack_masked": ([LSTM, BEFORE], EVERY, MASK),
    "stack_last": ([SIMPLE, LSTM], {"return_state": True, "go_backwards": True}, MASK),
}


def run(case, rng):
    cells, options, mask = case

    def normal(*shape):
        return rng.normal(size=shape).astype("float32").astype("float64")

    made = [getattr(keras.layers, name)(**config) for name, config in cells]
    cell = made[0] if len(made) == 1 else keras.layers.StackedRNNCells(made)
    layer = cell if options is None else keras.layers.RNN(cell, **options)
    x = normal(3, 5, 4) if options is not None else normal(3, 4)
    sizes = [c.state_size if isinstance(c.state_size, list) else [c.state_size] for c in made]
    states = [normal(3, size) for of_cell in sizes for size in of_cell]

    def nested(flat):
        rest = iter(flat)
        groups = [[next(rest) for _ in of_cell] for of_cell in sizes]
        return groups if len(groups) > 1 else groups[0]

    def call(x, states):
        if options is None:
            y, last = layer(x, nested(states))
        else:
            given = {} if mask is None else {"mask": jnp.asarray(mask)}
            y, *last = layer(x, initial_state=nested(states), **given)
        return y, jax.tree.leaves(last)

    call(jnp.asarray(x), [jnp.asarray(s) for s in states])
    weights = [normal(*w.shape) for w in layer.weights]

    def outputs(weights, x, states):
        pairs = zip(layer.trainable_variables, weights, strict=True)
        with keras.StatelessScope(state_mapping=list(pairs)):
            return call(x, states)

    given = [jnp.asarray(w) for w in weights], jnp.asarray(x), [jnp.asarray(s) for s in states]
    y, last = outputs(*given)
    if y.dtype != jnp.float64:
        raise ValueError(f"Keras answers in {y.dtype}.")
    cotangent = normal(*y.shape)
    of_weights, of_x, of_states = jax.grad(
        lambda *values: (outputs(*values)[0] * cotangent).sum(), argnums=(0, 1, 2)
    )(*given)
    arrays = {"x": x, "y": y, "cotangent": cotangent, "d_x": of_x}
    if mask is not None:
        arrays["mask"] = mask
    for kind, values in (
        ("state", states),
        ("weight", weights),
        ("last", last),
        ("d_state", of_states),
        ("d_weight", of_weights),
    ):
        arrays |= {f"{kind}_{k}": v for k, v in enumerate(values)}
    arrays |= {"cells": json.dumps(cells), "options": json.dumps(options)}
    return {key: np.asarray(value) for key, value in arrays.items()}


def main():
    stored = {"versions": np.asarray(f"keras {keras.__version__}, jax {jax.__version__}")}
    for k, (name, case) in enumerate(CASES.items()):
        found = run(case, np.random.default_rng(k))
        stored |= {f"{name}/{key}": value for key, value in found.items()}
    np.savez_compressed(Path(__file__).with_name("keras_cells.npz"), **stored)


if __name__ == "__main__":
    main()

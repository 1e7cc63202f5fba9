"""Compute the losses of `loss_cases` with Keras 3 on JAX, in float64; write keras_losses.npz.

The stored file was made, in the folder tests, by ::

    python -m pip install keras==3.15.1 jax==0.10.2 numpy==2.4.6
    KERAS_BACKEND=jax python -m reference.make_keras_losses

with Python 3.11.7, keras 3.15.1, jax 0.10.2 and NumPy 2.4.6 on a CPU.
"""

import platform
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras.src.backend.common import dtypes

from . import loss_cases

if keras.config.backend() != "jax":
    raise RuntimeError(f"Set KERAS_BACKEND=jax; Keras runs on {keras.config.backend()}.")
jax.config.update("jax_enable_x64", True)
keras.config.set_floatx("float64")
dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"  # see make_keras.py


def results(case):
    """Return the inputs of a case, its losses for every reduction, and gradients of two of them."""
    name, options, _ = loss_cases.CASES[case]
    arrays = loss_cases.inputs(case)
    weights = jnp.asarray(arrays["weights"])

    def value(predictions, reduction, sample_weight=None):
        loss = getattr(keras.losses, name)(reduction=reduction, **options)
        return loss(jnp.asarray(arrays["targets"]), predictions, sample_weight=sample_weight)

    predictions = jnp.asarray(arrays["predictions"])
    found = {"losses": value(predictions, None)}
    for reduction in ("sum_over_batch_size", "mean_with_sample_weight", "sum"):
        found[reduction] = value(predictions, reduction, weights)
        found[f"{reduction}_unweighted"] = value(predictions, reduction)
    for reduction in ("mean_with_sample_weight", "sum"):
        found[f"d_{reduction}"] = jax.grad(value)(predictions, reduction, weights)
    for key, array in found.items():
        if array.dtype != np.float64 or not np.isfinite(array).all():
            raise ValueError(f"{case}/{key} is {array.dtype}: {array}")
    return arrays | found


def main():
    versions = f"python {platform.python_version()}, keras {keras.__version__}, "
    versions += f"jax {jax.__version__}, numpy {np.__version__}"
    stored = {"versions": np.array(versions)}
    for case in loss_cases.CASES:
        for key, array in results(case).items():
            stored[f"{case}/{key}"] = np.asarray(array)
    np.savez_compressed(Path(__file__).with_name("keras_losses.npz"), **stored)


if __name__ == "__main__":
    main()

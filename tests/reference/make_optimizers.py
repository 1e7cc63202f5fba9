"""Compute updates of optimizers, schedules and constraints with Keras 3 on JAX, and with PyTorch.

The stored file optimizers.npz was made, in the folder tests, by ::

    python -m pip install keras==3.15.1 jax torch==2.13.0
    KERAS_BACKEND=jax python -m reference.make_optimizers

in float64 on a CPU. Each case holds the arguments as JSON, and the weights after each of 6 updates
with the gradients in "inputs". The key "versions" names the versions.
"""

import json
import platform
from pathlib import Path

import jax
import jax.numpy as jnp
import keras
import numpy as np
import torch
from keras.src.backend.common import dtypes

jax.config.update("jax_enable_x64", True)
keras.config.set_floatx("float64")
dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"  # Keras 3.15 would narrow float64 on JAX

EXPONENTIAL = {"initial_learning_rate": 0.1, "decay_steps": 2, "decay_rate": 0.5}
COSINE = {"initial_learning_rate": 0.0, "decay_steps": 4, "warmup_target": 0.1, "warmup_steps": 2}
EMA = {"use_ema": True, "ema_momentum": 0.8}

# name: (class, arguments, options of the case)
KERAS = {
    "adam_amsgrad": ("Adam", {"learning_rate": 0.05, "beta_2": 0.5, "amsgrad": True}, {}),
    "adam_decay": ("Adam", {"learning_rate": 0.05, "weight_decay": 0.1}, {}),
    "adamw": ("AdamW", {"learning_rate": 0.05}, {}),
    "adamw_all": (
        "AdamW",
        {"learning_rate": ["ExponentialDecay", EXPONENTIAL], "weight_decay": 0.2, "clipnorm": 0.5}
        | EMA,
        {"exclude": ["bias"]},
    ),
    "adamax": ("Adamax", {"learning_rate": 0.05, "beta_2": 0.9}, {}),
    "adamax_all": (
        "Adamax",
        {"learning_rate": 0.05, "weight_decay": 0.1, "global_clipnorm": 0.5, **EMA},
        {},
    ),
    "nadam": ("Nadam", {"learning_rate": 0.05}, {}),
    "nadam_all": (
        "Nadam",
        {"learning_rate": ["CosineDecay", COSINE], "weight_decay": 0.1, "clipvalue": 0.5},
        {},
    ),
    "lion": ("Lion", {"learning_rate": 0.05}, {}),
    "lion_decay": ("Lion", {"learning_rate": 0.05, "weight_decay": 0.3}, {}),
    "rmsprop_centered": ("RMSprop", {"learning_rate": 0.05, "centered": True}, {}),
    "rmsprop_all": (
        "RMSprop",
        {"learning_rate": 0.05, "momentum": 0.9, "centered": True, "weight_decay": 0.1},
        {},
    ),
    "rmsprop_momentum": ("RMSprop", {"learning_rate": 0.05, "momentum": 0.9}, {}),
    "sgd_decay": (
        "SGD",
        {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {},
    ),
    "sgd_overwrite": ("SGD", {"learning_rate": 0.1, "ema_overwrite_frequency": 2, **EMA}, {}),
    "adagrad_decay": (
        "Adagrad",
        {
            "learning_rate": 0.1,
            "initial_accumulator_value": 0.1,
            "epsilon": 1e-7,
            "weight_decay": 0.1,
        },
        {},
    ),
    "adadelta_decay": (
        "Adadelta",
        {"learning_rate": 1.0, "rho": 0.95, "epsilon": 1e-7, "weight_decay": 0.01},
        {},
    ),
    "sgd_max_norm": (
        "SGD",
        {"learning_rate": 0.5},
        {"constraint": ["MaxNorm", {"max_value": 0.8}]},
    ),
    "sgd_non_neg": ("SGD", {"learning_rate": 0.5}, {"constraint": ["NonNeg", {}]}),
    "adam_unit_norm": ("Adam", {"learning_rate": 0.1}, {"constraint": ["UnitNorm", {"axis": -1}]}),
    "sgd_min_max_norm": (
        "SGD",
        {"learning_rate": 0.5, "ema_overwrite_frequency": 3, **EMA},
        {"constraint": ["MinMaxNorm", {"min_value": 0.5, "max_value": 0.9, "rate": 0.7}]},
    ),
}

# name: (class of seqnet, its arguments, class of PyTorch, its arguments)
PYTORCH = {
    "adamw": (
        "AdamW",
        {"learning_rate": 0.05, "weight_decay": 0.1, "epsilon": 1e-14},
        "AdamW",
        {"lr": 0.05, "weight_decay": 0.1, "eps": 1e-14},
    ),
    "adamax": (
        "Adamax",
        {"learning_rate": 0.05, "beta_2": 0.9, "epsilon": 1e-14},
        "Adamax",
        {"lr": 0.05, "betas": (0.9, 0.9), "eps": 1e-14},
    ),
    "nadam": (
        "Nadam",
        {"learning_rate": 0.05, "weight_decay": 0.1, "epsilon": 1e-14},
        "NAdam",
        {
            "lr": 0.05,
            "weight_decay": 0.1,
            "decoupled_weight_decay": True,
            "eps": 1e-14,
            "momentum_decay": 1.0,
        },
    ),
    "rmsprop": (
        "RMSprop",
        {"learning_rate": 0.05, "momentum": 0.9, "centered": True, "epsilon": 1e-14},
        "RMSprop",
        {"lr": 0.05, "alpha": 0.9, "momentum": 0.9, "centered": True, "eps": 1e-14},
    ),
}

SCHEDULES = [
    ("ExponentialDecay", EXPONENTIAL),
    ("ExponentialDecay", {**EXPONENTIAL, "staircase": True}),
    ("InverseTimeDecay", EXPONENTIAL),
    ("InverseTimeDecay", {**EXPONENTIAL, "decay_steps": 7, "staircase": True}),
    ("PiecewiseConstantDecay", {"boundaries": [3, 10], "values": [0.5, 0.2, 0.1]}),
    ("PolynomialDecay", {"initial_learning_rate": 0.1, "decay_steps": 9}),
    (
        "PolynomialDecay",
        {
            "initial_learning_rate": 0.1,
            "decay_steps": 9,
            "end_learning_rate": 0.01,
            "power": 0.5,
            "cycle": True,
        },
    ),
    ("CosineDecay", {"initial_learning_rate": 0.1, "decay_steps": 20, "alpha": 0.1}),
    ("CosineDecay", COSINE),
    ("CosineDecayRestarts", {"initial_learning_rate": 0.1, "first_decay_steps": 4}),
    (
        "CosineDecayRestarts",
        {
            "initial_learning_rate": 0.1,
            "first_decay_steps": 6,
            "t_mul": 1.0,
            "m_mul": 0.8,
            "alpha": 0.05,
        },
    ),
    (
        "CosineDecayRestarts",
        {"initial_learning_rate": 0.1, "first_decay_steps": 5, "t_mul": 1.5, "m_mul": 0.5},
    ),
]


def inputs():
    """Return two weights and 6 gradients of each; some elements have no gradient."""
    rng = np.random.default_rng(13)
    found = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    for name in ("kernel", "bias"):
        found[f"{name}_gradients"] = rng.normal(size=(6, *found[name].shape))
    found["kernel_gradients"][:, 0, 0] = 0.0
    found["kernel_gradients"][:2, 1, 1] = 0.0
    return found


def keras_case(name, given):
    class_name, arguments, options = KERAS[name]
    arguments = dict(arguments)
    if isinstance(arguments["learning_rate"], list):
        schedule, config = arguments["learning_rate"]
        arguments["learning_rate"] = getattr(keras.optimizers.schedules, schedule)(**config)
    optimizer = getattr(keras.optimizers, class_name)(**arguments)
    if "exclude" in options:
        optimizer.exclude_from_weight_decay(var_names=options["exclude"])
    weights = [keras.Variable(given[n], dtype="float64", name=n) for n in ("kernel", "bias")]
    if "constraint" in options:
        constraint, config = options["constraint"]
        weights[0].constraint = getattr(keras.constraints, constraint)(**config)
    visited = []
    for pair in zip(given["kernel_gradients"], given["bias_gradients"], strict=True):
        optimizer.apply([jnp.asarray(gradient) for gradient in pair], weights)
        visited.append([np.array(w.value) for w in weights])
    optimizer.finalize_variable_values(weights)
    visited.append([np.array(w.value) for w in weights])
    about = json.dumps([class_name, KERAS[name][1], options])
    return about, visited


def pytorch_case(name, given):
    ours, arguments, class_name, options = PYTORCH[name]
    weights = [torch.tensor(given[n], requires_grad=True) for n in ("kernel", "bias")]
    optimizer = getattr(torch.optim, class_name)(weights, **options)
    visited = []
    for pair in zip(given["kernel_gradients"], given["bias_gradients"], strict=True):
        for weight, gradient in zip(weights, pair, strict=True):
            weight.grad = torch.tensor(gradient)
        optimizer.step()
        visited.append([w.detach().numpy().copy() for w in weights])
    return json.dumps([ours, arguments, {}]), visited


def main():
    given = inputs()
    arrays = {f"inputs/{name}": value for name, value in given.items()}
    found = {f"keras_{name}": keras_case(name, given) for name in KERAS}
    found |= {f"pytorch_{name}": pytorch_case(name, given) for name in PYTORCH}
    for name, (about, visited) in found.items():
        arrays[f"{name}/about"] = np.array(about)
        arrays[f"{name}/kernel"] = np.stack([kernel for kernel, _ in visited])
        arrays[f"{name}/bias"] = np.stack([bias for _, bias in visited])
    for number, (name, config) in enumerate(SCHEDULES):
        schedule = getattr(keras.optimizers.schedules, name)(**config)
        arrays[f"schedule_{number}/about"] = np.array(json.dumps([name, config]))
        arrays[f"schedule_{number}/rates"] = np.array([float(schedule(k)) for k in range(40)])
    versions = f"python {platform.python_version()}, keras {keras.__version__}, "
    versions += f"jax {jax.__version__}, torch {torch.__version__}, numpy {np.__version__}"
    arrays["versions"] = np.array(versions)
    np.savez_compressed(Path(__file__).with_name("optimizers.npz"), **arrays)


if __name__ == "__main__":
    main()

"""Updates of optimizers with all options, against stored values of Keras 3 and PyTorch."""

import json

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from reference import load_arrays

from seqnet import backend, constraints, optimizers
from seqnet.optimizers import schedules

STORED = load_arrays("optimizers")
CASES = [name for name in STORED if name.startswith(("keras_", "pytorch_"))]
SCHEDULES = [name for name in STORED if name.startswith("schedule_")]


def make(name, arguments, options):
    arguments = dict(arguments)
    if isinstance(arguments["learning_rate"], list):
        schedule, config = arguments["learning_rate"]
        arguments["learning_rate"] = getattr(schedules, schedule)(**config)
    optimizer = getattr(optimizers, name)(**arguments)
    optimizer.exclude_from_weight_decay(var_names=options.get("exclude"))
    return optimizer


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_updates_equal_the_stored_values(name, dtype):
    stored, given = STORED[name], STORED["inputs"]
    class_name, arguments, options = json.loads(str(stored["about"]))
    optimizer = make(class_name, arguments, options)
    weights = [
        pytensor.shared(given[n].astype(dtype), name=f"layer/{n}") for n in ("kernel", "bias")
    ]
    if "constraint" in options:
        constraint, config = options["constraint"]
        weights[0].tag.constraint = getattr(constraints, constraint)(**config)
    gradients = [pt.matrix(dtype=dtype), pt.vector(dtype=dtype)]
    loss = sum(pt.sum(w * g) for w, g in zip(weights, gradients, strict=True))
    step = backend.compile(gradients, [], optimizer.updates(loss, weights), name="step")
    visited = []
    for pair in zip(given["kernel_gradients"], given["bias_gradients"], strict=True):
        step(*[gradient.astype(dtype) for gradient in pair])
        visited.append([w.get_value() for w in weights])
    optimizer.finalize_variable_values(weights)
    if name.startswith("keras_"):
        visited.append([w.get_value() for w in weights])
    # PyTorch adds epsilon elsewhere; it is 1e-14 in these cases.
    tolerance = 1e-5 if dtype == "float32" else 1e-6 if name.startswith("pytorch_") else 1e-11
    for found, key in zip(zip(*visited, strict=True), ("kernel", "bias"), strict=True):
        assert found[0].dtype == dtype
        np.testing.assert_allclose(np.stack(found), stored[key], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_equal_the_stored_values(name):
    stored = STORED[name]
    class_name, config = json.loads(str(stored["about"]))
    schedule = getattr(schedules, class_name)(**config)
    found = [schedule(step) for step in range(len(stored["rates"]))]
    np.testing.assert_allclose(found, stored["rates"], rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(schedule(np.arange(len(found))), found, rtol=1e-15, atol=1e-18)


def test_later_factors_of_nadam_are_one():
    from seqnet.optimizers import nadam

    later = 1 - 0.5 * nadam.DECAY ** np.arange(len(nadam.FACTORS) + 1, 5000.0)
    np.testing.assert_allclose(nadam.FACTORS[-1] * np.prod(later), nadam.FACTORS[-1], rtol=1e-14)

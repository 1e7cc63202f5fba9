"""Softmax as a compiled kernel agrees with PyTensor."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from seqnet import activations, backend
from seqnet.backend.kernel_ops import RowSoftmax

RANDOM = np.random.default_rng(0)
FUNCTIONS = {"softmax": activations.softmax, "log_softmax": activations.log_softmax}


def rows_run(function) -> int:
    return sum(isinstance(n.op, RowSoftmax) for n in function.maker.fgraph.apply_nodes)


def reference(name, x):
    shifted = x.astype("float64") - x.max(axis=-1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log if name == "log_softmax" else np.exp(log)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(7,), (5, 19), (3, 4, 65)])
def test_arrays_of_any_layout_agree(name, dtype, shape):
    x = pt.tensor("x", dtype=dtype, shape=(None,) * len(shape))
    backwards = x.transpose(
        *range(x.ndim - 2, -1, -1), x.ndim - 1
    )  # the classes stay in the last axis
    run = backend.compile([x], [FUNCTIONS[name](x), FUNCTIONS[name](backwards)], name=name)
    assert rows_run(run) == (1 if len(shape) < 3 else 2)
    value = (8 * RANDOM.standard_normal(shape)).astype(dtype)
    expected = reference(name, value)
    tolerance = 2e-6 if dtype == "float32" else 1e-13
    for found in run(value):
        if found.shape != value.shape:
            found = found.transpose(1, 0, 2)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_that_are_not_finite_agree_with_pytensor(name):
    x = pt.fmatrix("x")
    output = FUNCTIONS[name](x)
    value = np.array(
        [[0, 1, -np.inf], [0, np.nan, 1], [0, np.inf, 1], [-np.inf] * 3, [3e38, -3e38, 0]],
        "float32",
    )
    with_kernels = backend.compile([x], [output], name=name)
    assert rows_run(with_kernels) == 1
    without = pytensor.function([x], [output], mode=backend.vm_mode(with_kernels=False))
    np.testing.assert_allclose(with_kernels(value)[0], without(value)[0], rtol=1e-6)


def test_other_axes_are_computed_by_pytensor():
    x = pt.fmatrix("x")
    run = backend.compile([x], [pt.special.softmax(x, axis=0)], name="columns")
    assert rows_run(run) == 0
    value = RANDOM.standard_normal((3, 4)).astype("float32")
    np.testing.assert_allclose(run(value)[0].T, reference("softmax", value.T), rtol=1e-6)


def test_gradients_are_taken_before_the_replacement():
    x = pt.fmatrix("x")
    weights = RANDOM.standard_normal((3, 5)).astype("float32")
    gradient = pt.grad((activations.softmax(x) * weights).sum(), x)
    run = backend.compile([x], [gradient], name="gradient")
    assert rows_run(run) == 1
    value = RANDOM.standard_normal((3, 5)).astype("float32")
    p = reference("softmax", value)
    expected = p * (weights - (p * weights).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(run(value)[0], expected, rtol=1e-5, atol=1e-7)

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from helpers import values_and_gradients
from reference import load_arrays

from seqnet import backend
from seqnet.layers import Dense

STORED = {peer: load_arrays(peer) for peer in ("keras", "pytorch")}


@pytest.mark.parametrize("case", ["dense_2d", "dense_3d"])
@pytest.mark.parametrize("peer", STORED)
def test_values_and_gradients_equal_the_stored_ones(peer, case):
    arrays = STORED[peer][case]
    result = values_and_gradients(Dense(2, dtype="float64"), arrays)
    for name in ("y", "d_x", "d_kernel", "d_bias"):
        np.testing.assert_allclose(result[name], arrays[name], rtol=1e-10, err_msg=name)


def test_gradients_are_the_numerical_ones():
    layer = Dense(2, activation="tanh", dtype="float64")
    layer.ensure_built((None, 3))
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    pytensor.gradient.verify_grad(
        lambda x: layer(pt.specify_shape(x, (None, None, 3))),
        [x],
        rng=np.random.default_rng(0),
        mode=backend.mode(),
    )


def test_without_a_bias_there_is_one_weight():
    layer = Dense(2, use_bias=False, dtype="float64")
    x = np.random.default_rng(0).normal(size=(4, 3))
    y = layer(pt.specify_shape(pt.constant(x), (None, 3)))
    (kernel,) = layer.get_weights()
    np.testing.assert_allclose(backend.compile([], [y], name="test")()[0], x @ kernel, rtol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (3, 1, 1), (1, 4, 1)])
def test_axes_of_size_one_are_kept(shape):
    layer = Dense(1, dtype="float64")
    x = pt.tensor("x", dtype="float64", shape=(None,) * (len(shape) - 1) + (1,))
    y = layer(x)
    f = backend.compile([x], [y, *pytensor.grad(pt.sum(y), layer.weights)], name="test")
    value, d_kernel, d_bias = f(np.full(shape, 2.0))
    np.testing.assert_allclose(value, np.full(shape, 2.0 * layer.get_weights()[0][0, 0]))
    assert d_kernel.shape == (1, 1)
    assert d_kernel[0, 0] == 2.0 * np.prod(shape)
    assert d_bias == [np.prod(shape)]

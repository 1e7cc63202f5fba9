"""Norms of gradients whose squares overflow or underflow in float32."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend
from seqnet.optimizers import SGD


@pytest.mark.parametrize("backend_name", ["auto", "numpy"])
@pytest.mark.parametrize("value", [1e-30, 1e30])
def test_clipping_of_gradients_whose_squares_are_out_of_range(backend_name, value):
    seqnet.config.set_backend(backend_name)
    weight = pytensor.shared(np.zeros(400, "float32"), name="w")
    gradient = pt.fvector("gradient")
    optimizer = SGD(1.0, clipnorm=10 * value)
    found = optimizer.gradients(pt.sum(weight * gradient), [weight])
    step = backend.compile([gradient], [found.norms], optimizer.descend(found), name="step")
    (norms,) = step(np.full(400, value, "float32"))
    np.testing.assert_allclose(norms, [20 * value], rtol=1e-6)
    np.testing.assert_allclose(weight.get_value(), np.full(400, -value / 2), rtol=1e-6)

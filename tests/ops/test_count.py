"""The size of an array, as a node of its own and as PyTensor's."""

import numpy as np
import pytensor.tensor as pt
import pytest

from seqnet import backend
from seqnet.ops.count import Count, count


@pytest.mark.parametrize("kernels", [None, backend.kernels()])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_is_the_size_in_the_arrays_dtype_and_has_no_gradient(kernels, dtype):
    x = pt.tensor3("x", dtype=dtype)
    size = count(x, kernels)
    gradient = pt.grad(pt.sum(x) * size, x)
    run = backend.compile([x], [size, gradient], name="count")
    assert any(isinstance(n.op, Count) for n in run.maker.fgraph.apply_nodes) == bool(kernels)
    found, of_x = run(np.zeros((2, 3, 4), dtype))
    assert found == 24 and found.dtype == dtype and found.shape == ()
    np.testing.assert_array_equal(of_x, np.full((2, 3, 4), 24, dtype))

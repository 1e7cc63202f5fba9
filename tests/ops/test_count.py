"""The size of an array as a single node."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from helpers import numpy_mode

from seqnet import backend
from seqnet.backend.kernel_ops import KernelOp
from seqnet.ops.count import Count, count


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_count_is_the_size_in_the_dtype_of_the_array_and_has_no_gradient(kernels, dtype):
    x = pt.tensor3("x", dtype=dtype)
    size = count(x)
    gradient = pt.grad(pt.sum(x) * size, x)
    mode = backend.mode() if kernels else numpy_mode()
    run = pytensor.function([x], [size, gradient], mode=mode)
    found = [n.op.op for n in run.maker.fgraph.apply_nodes if isinstance(n.op, KernelOp)]
    assert any(isinstance(op, Count) for op in found) == (kernels and backend.native() is not None)
    found, of_x = run(np.zeros((2, 3, 4), dtype))
    assert found == 24
    assert found.dtype == dtype
    assert found.shape == ()
    np.testing.assert_array_equal(of_x, np.full((2, 3, 4), 24, dtype))

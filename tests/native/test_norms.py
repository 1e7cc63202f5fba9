"""Squared norms: sizes near the vector width, and values whose squares are out of range."""

import numpy as np
import pytest

from seqnet import native


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
def test_squared_norms_agree_with_numpy(dtype, tolerance):
    random = np.random.default_rng(0)
    shapes = [(), (0,), *((n,) for n in range(1, 140)), (4095,), (4097,), (100, 200)]
    arrays = [np.asarray(random.normal(size=s)).astype(dtype) for s in shapes]
    expected = [float(np.sum(np.square(a, dtype="float64"))) for a in arrays]
    np.testing.assert_allclose(native.squared_norms(arrays), expected, rtol=tolerance)
    transposed = [a.T for a in arrays]
    np.testing.assert_allclose(native.squared_norms(transposed), expected, rtol=tolerance)


def test_large_numbers_infinity_and_nan():
    huge = np.full(300, 1e30, "float32")
    np.testing.assert_allclose(native.squared_norms([huge]), [3e62], rtol=1e-6)
    broken, infinite = np.ones(100, "float32"), np.ones(100, "float32")
    broken[37], infinite[99] = np.nan, np.inf
    found = native.squared_norms([broken, infinite, np.ones(3, "float32")])
    assert np.isnan(found[0])
    assert found[1] == np.inf
    assert found[2] == 3


def test_arrays_of_several_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"float32.*float64"):
        native.squared_norms([np.ones(2, "float32"), np.ones(2)])
    assert native.squared_norms([]).shape == (0,)


@pytest.mark.parametrize("value", [1e-30, -1e-22, 1e-16, 1.5e-45])
@pytest.mark.parametrize("size", [1, 300, 5000])
def test_squares_of_tiny_numbers_do_not_underflow(value, size):
    tiny = np.full(size, value, "float32")
    expected = float(np.sum(np.square(tiny, dtype="float64")))
    np.testing.assert_allclose(native.squared_norms([tiny]), [expected], rtol=1e-5)
    mixed = np.zeros(size, "float32")
    mixed[0] = 3e-38
    np.testing.assert_allclose(native.squared_norms([mixed]), [9e-76], rtol=1e-5)

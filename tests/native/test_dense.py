"""Matrix products against NumPy: odd shapes, any strides."""

import itertools

import numpy as np
import pytest

from seqnet import native

TOLERANCE = {"float32": 1e-5, "float64": 1e-13}
ODD = [
    (1, 1, 1),
    (5, 7, 3),
    (6, 64, 40),
    (13, 130, 700),
    (600, 33, 1100),
    (1, 1000, 256),
    (128, 65, 513),
    (500, 20, 9),
]


def close(got, wanted, dtype, depth):
    return np.abs(got - wanted).max(initial=0) <= TOLERANCE[dtype] * (depth + 1)


def matrix(random, rows, columns, dtype, layout):
    """Return a matrix with different memory layouts."""
    if layout == "rows":
        return random.normal(size=(rows, columns)).astype(dtype)
    if layout == "columns":
        return random.normal(size=(columns, rows)).astype(dtype).T
    return random.normal(size=(2 * rows, 3 * columns)).astype(dtype)[::-2, ::3]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", ODD)
def test_products_of_odd_shapes_and_layouts_agree_with_numpy(shape, dtype):
    m, n, k = shape
    random = np.random.default_rng(0)
    for n_th, layouts in enumerate(itertools.product(("rows", "columns", "strided"), repeat=2)):
        native.set_num_threads(1 + n_th % 4)
        a, b = matrix(random, m, k, dtype, layouts[0]), matrix(random, k, n, dtype, layouts[1])
        bias = random.normal(size=n).astype(dtype)
        wanted = a.astype("float64") @ b.astype("float64")
        assert close(native.gemm(a, b), wanted, dtype, k)
        out, sums = native.gemm(a, b, bias=bias, column_sums=True)
        assert close(out, wanted + bias, dtype, k)
        assert close(sums, b.sum(0, dtype="float64"), dtype, k)
        assert native.gemm(a, b, bias=bias, out=out, accumulate=True) is out
        assert close(out, 2 * (wanted + bias), dtype, 2 * k)
    native.set_num_threads(2)


@pytest.mark.parametrize(("m", "n"), [(0, 5), (5, 0), (0, 0), (4, 3)])
def test_empty_sums_are_the_bias_or_zero(m, n):
    a, b, bias = np.zeros((m, 0)), np.zeros((0, n)), np.arange(float(n))
    np.testing.assert_array_equal(native.gemm(a, b), np.zeros((m, n)))
    out, sums = native.gemm(a, b, bias=bias, column_sums=True)
    np.testing.assert_array_equal(out, np.broadcast_to(bias, (m, n)))
    if m:
        np.testing.assert_array_equal(sums, np.zeros(n))


def test_only_the_rows_of_out_within_a_larger_array_are_written():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(20, 30)), random.normal(size=(30, 37))
    whole = np.full((20, 50), 7.0)
    native.gemm(a, b, out=whole[:, 5:42])
    assert close(whole[:, 5:42], a @ b, "float64", 30)
    assert (whole[:, :5] == 7).all()
    assert (whole[:, 42:] == 7).all()


@pytest.mark.parametrize("shape", [(40, 300, 600), (700, 30, 50), (12, 999, 70), (1, 500, 400)])
def test_products_do_not_depend_on_the_number_of_threads(shape):
    m, n, k = shape
    random = np.random.default_rng(0)
    a, b = (
        random.normal(size=(k, m)).astype("float32"),
        random.normal(size=(k, n)).astype("float32"),
    )
    results = []
    for threads in (1, 2, 3, 7):
        native.set_num_threads(threads)
        results.append(native.gemm(a.T, b, column_sums=True))
    native.set_num_threads(2)
    for out, sums in results[1:]:
        np.testing.assert_array_equal(out, results[0][0])
        np.testing.assert_array_equal(sums, results[0][1])


def test_rounding_grows_slowly_with_the_length_of_sums_and_not_with_other_rows():
    random = np.random.default_rng(0)
    for k, n in [(20_000, 130), (600, 25_000)]:  # few rows of many columns are a case of their own
        a = random.standard_normal((14, k), "float32")
        b = random.standard_normal((k, n), "float32")
        native.set_num_threads(1)
        out, sums = native.gemm(a, b, column_sums=True)
        few = [native.gemm(a[:rows], b) for rows in (1, 3)]
        native.set_num_threads(2)
        for part in few:
            np.testing.assert_array_equal(part, out[: len(part)])
        if n < k:
            exact = a.astype("float64") @ b
            assert np.abs(out - exact).max() < 1e-6 * np.abs(exact).max()  # 4e-6 with one sum
            assert np.abs(sums - b.sum(0, dtype="float64")).max() < 1e-6 * np.abs(sums).max()


def test_wrong_arguments_are_named():
    a = np.zeros((3, 4))
    with pytest.raises(ValueError, match=r"cannot multiply float64\(3, 4\) by float64\(3, 4\)"):
        native.gemm(a, a)
    with pytest.raises(ValueError, match="out"):
        native.gemm(a, a.T, out=np.zeros((3, 4)))
    with pytest.raises(ValueError, match="accumulate"):
        native.gemm(a, a.T, accumulate=True)
    with pytest.raises(ValueError, match="bias"):
        native.gemm(a, a.T, bias=np.zeros(4))
    with pytest.raises(native.KernelUnavailable, match="int64"):
        native.gemm(a.astype("int64"), a.T.astype("int64"))

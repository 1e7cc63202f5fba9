"""Softmax, cross-entropy, lookup of rows and its gradient."""

import numpy as np
import pytest

from seqnet import native

TOLERANCE = {"float32": 1e-6, "float64": 1e-14}


def softmax_by_numpy(x):
    x = x.astype("float64")
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (33, 65), (1600, 65), (7, 1000), (4, 3, 21)])
def test_softmax_agrees_with_numpy(shape, dtype):
    x = (np.random.default_rng(0).normal(size=shape) * 10).astype(dtype)
    log = softmax_by_numpy(x)
    np.testing.assert_allclose(native.log_softmax(x), log, rtol=1e-6, atol=TOLERANCE[dtype] * 20)
    np.testing.assert_allclose(native.softmax(x), np.exp(log), rtol=0, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(
        native.softmax(x[..., ::-1]), np.exp(log)[..., ::-1], rtol=0, atol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (6, 16), (33, 65), (400, 130)])
def test_cross_entropy_and_its_gradient_agree_with_numpy(shape, weighted, dtype):
    random = np.random.default_rng(0)
    x = (random.normal(size=shape) * 5).astype(dtype)
    targets = random.integers(0, shape[1], shape[0]).astype("int32")
    weights = random.random(shape[0]).astype(dtype) if weighted else None
    factor = np.ones(shape[0]) if weights is None else weights.astype("float64")
    log, rows = softmax_by_numpy(x), np.arange(shape[0])
    slope = np.exp(log)
    slope[rows, targets] -= 1
    loss, d_logits = native.softmax_cross_entropy(x, targets, weights)
    np.testing.assert_allclose(
        loss, -log[rows, targets] * factor, rtol=1e-6, atol=TOLERANCE[dtype] * 20
    )
    np.testing.assert_allclose(d_logits, slope * factor[:, None], rtol=0, atol=TOLERANCE[dtype])
    alone, nothing = native.softmax_cross_entropy(x, targets, weights, gradient=False)
    assert nothing is None
    np.testing.assert_array_equal(alone, loss)
    copy = x.copy()
    assert native.softmax_cross_entropy(copy, targets, weights, out=copy)[1] is copy
    np.testing.assert_array_equal(copy, d_logits)


def test_large_logits_do_not_overflow_and_nan_stays_in_its_row():
    x = np.array([[1e30, 0, -1e30], [0, -np.inf, 0], [0, np.nan, 0], [1, 2, 3]], "float32")
    got = native.softmax(x)
    np.testing.assert_array_equal(got[:2], [[1, 0, 0], [0.5, 0, 0.5]])
    assert np.isnan(got[2]).all()
    assert abs(got[3].sum() - 1) < 1e-6
    loss, _ = native.softmax_cross_entropy(x, np.array([0, 0, 0, 2]))
    assert loss[0] == 0
    assert np.isnan(loss[2])
    assert np.isfinite(loss[3])


def test_the_error_of_an_invalid_target_has_its_position():
    x = np.zeros((3, 4), "float32")
    with pytest.raises(IndexError, match=r"target 4 at position \(1,\) is not in \[0, 4\)"):
        native.softmax_cross_entropy(x, np.array([0, 4, 1]))
    with pytest.raises(ValueError, match="do not fit"):
        native.softmax_cross_entropy(x, np.array([0, 1]))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("rows", "width", "shape"),
    [(65, 64, (50, 32)), (3, 1, (2,)), (9, 5, (4, 3, 2)), (7, 100, (999,))],
)
def test_rows_are_gathered_and_their_gradients_added(rows, width, shape, dtype):
    random = np.random.default_rng(0)
    ids, table = random.integers(0, rows, shape), random.normal(size=(rows, width)).astype(dtype)
    got = native.gather(table, ids.astype("int32"))
    np.testing.assert_array_equal(got, table[ids])
    wanted = np.zeros((rows, width), dtype)
    for i, row in zip(ids.ravel(), got.reshape(-1, width), strict=True):
        wanted[i] += row
    for threads in (1, 2, 3):
        native.set_num_threads(threads)
        np.testing.assert_array_equal(native.scatter_add(got, ids, rows), wanted)
    native.set_num_threads(2)


def test_empty_ids_return_no_rows_and_a_zero_gradient():
    rows = native.gather(np.ones((3, 2)), np.zeros((0, 4), int))
    assert rows.shape == (0, 4, 2)
    np.testing.assert_array_equal(
        native.scatter_add(rows, np.zeros((0, 4), int), 3), np.zeros((3, 2))
    )


@pytest.mark.parametrize("wrong", [-1, 3, 2**40])
def test_the_error_of_an_invalid_id_has_its_position(wrong):
    ids = np.array([[0, 1], [2, wrong]])
    for call in (
        lambda: native.gather(np.ones((3, 2)), ids),
        lambda: native.scatter_add(np.ones((2, 2, 5)), ids, 3),
    ):
        with pytest.raises(
            IndexError, match=rf"id {wrong} at position \(1, 1\) is not in \[0, 3\)"
        ):
            call()
    with pytest.raises(TypeError, match="float64"):
        native.gather(np.ones((3, 2)), np.zeros(2))

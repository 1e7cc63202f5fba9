"""Numbers drawn by the compiled kernel, and calls that are noted and repeated."""

import itertools

import numpy as np
import pytest

from seqnet import native

RNG = np.random.default_rng(5)


def drawn_by_numpy(p, uniform, temperature, top_k, top_p):
    p = p.astype("float64")
    if temperature == 0:
        return int(p.argmax())
    p = (p / p.max()) ** (1 / temperature) if temperature != 1 else p
    if top_k is not None or top_p is not None:
        order = np.argsort(-p, kind="stable")
        keep = len(p) if top_k is None else top_k
        if top_p is not None:
            keep = min(keep, int(np.searchsorted(p[order].cumsum() / p.sum(), top_p)) + 1)
        p = np.where(np.isin(np.arange(len(p)), order[:keep]), p, 0)
    return int(p.cumsum().searchsorted(uniform * p.sum(), side="right"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_are_drawn_as_by_numpy(dtype):
    temperatures, most, totals = (0, 1, 0.5, 2), (None, 1, 3, 50), (None, 0.3, 0.9)
    for how in itertools.product(temperatures, most, totals):
        p = RNG.dirichlet(np.ones(23), 64).astype(dtype)
        p[0] = 1 / 23  # all equal: the first ones are kept
        uniform = RNG.random((1, 64))
        found = native.Steps(None, None, p).draw(uniform, *how)
        expected = [drawn_by_numpy(row, u, *how) for row, u in zip(p, uniform[0], strict=True)]
        assert found.failed is None
        np.testing.assert_array_equal(found.numbers[0], expected, err_msg=str(how))
        np.testing.assert_allclose(found.log_p[0], np.log(p[np.arange(64), expected]), rtol=1e-6)


def test_the_last_possible_number_is_drawn_if_rounding_leaves_none():
    p = np.array([[0.1, 0.2, 0.7, 0.0]])
    found = native.Steps(None, None, p).draw(np.array([[1 - 2.0**-53]]), 1.7)
    assert found.numbers.tolist() == [[2]]


@pytest.mark.parametrize("wrong", [[0.5, 0.4], [-0.5, 1.5], [np.nan, 1.0], [np.inf, 0.0]])
def test_values_that_are_no_probabilities_are_noticed(wrong):
    p = np.array([[0.5, 0.5], wrong])
    for temperature in (0, 1):
        assert native.Steps(None, None, p).draw(np.zeros((1, 2)), temperature).failed == 1


def test_noted_calls_compute_the_same_of_other_values():
    x, w = np.zeros((3, 20), "float32"), RNG.normal(size=(20, 7)).astype("float32")
    ids = np.zeros(3, "int64")
    table = RNG.normal(size=(7, 20)).astype("float32")
    with native.recording() as noted:
        native.gather(table, ids, out=x)
        p = native.softmax(native.gemm(x, w))
    steps = native.Steps(noted, ids, p)
    steps.read(np.array([[1, 2, 3], [4, 5, 6]]))
    np.testing.assert_array_equal(p, native.softmax(native.gemm(table[[4, 5, 6]], w)))
    found = steps.draw(np.full((2, 3), 0.5))
    np.testing.assert_array_equal(x, table[found.numbers[0]])  # the second step has read them
    native.gemm(x, w)
    assert len(noted.calls) == 3  # calls after the block are not noted


def test_a_recurrence_that_is_repeated_keeps_its_packed_weights_for_any_number_of_threads():
    import pytensor.tensor as pt

    kernel = native.RecurrenceKernel.of(lambda x, r, s: (pt.tanh(x[0] + r[0]),), 1, 1)
    before = native.get_num_threads()
    try:
        for units, batch in ((300, 1), (40, 17)):
            native.set_num_threads(3)
            x = RNG.normal(size=(1, batch, units)).astype("float32")
            u = (RNG.normal(size=(units, units)) / 20).astype("float32")
            state = np.zeros((batch, units), "float32")
            with native.recording() as noted:
                (history,), _ = kernel.forward(x, u, None, [state], save=False)
            p, ids = np.ones((batch, 1), "float32"), np.zeros(batch, "int64")
            for threads in (3, 3, 1, 2):
                noted.calls[0] = (*noted.calls[0][:2], threads)
                x[...], state[...] = RNG.normal(size=x.shape), RNG.normal(size=state.shape)
                native.Steps(noted, ids, p).read(np.zeros((1, batch)))
                (expected,), _ = kernel.forward(x, u, None, [state], save=False)
                np.testing.assert_array_equal(history, expected)
    finally:
        native.set_num_threads(before)

"""Updates of all weights by the same equation run in one call, with the same results."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend
from seqnet.backend.updates import SharedUpdates

SHAPES = [(40, 7), (3,), (1, 5), (64, 64)]


def weights_of(dtype="float32"):
    random = np.random.default_rng(0)
    return [pytensor.shared(random.normal(size=s).astype(dtype), shape=s) for s in SHAPES]


def nodes_of(function):
    return [n for n in function.maker.fgraph.toposort() if isinstance(n.op, SharedUpdates)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sgd", "adagrad", "adadelta", "rmsprop", "adam"])
def test_all_weights_are_updated_in_one_call(name, dtype):
    results = []
    for backend_name in ("auto", "numpy"):
        seqnet.config.set_backend(backend_name)
        weights, optimizer = weights_of(dtype), seqnet.optimizers.get(name)
        for number, weight in enumerate(weights):
            weight.name = f"w{number}"
        loss = sum(pt.sum(pt.sqr(w) * w) for w in weights)
        step = backend.compile([], [], optimizer.updates(loss, weights), name="step")
        for _ in range(3):
            step()
        results.append([w.get_value() for w in weights])
        if backend_name == "auto":
            (node,) = nodes_of(step)
            assert node.op.inplace
    tolerance = {"float32": 1e-6, "float64": 1e-13}[dtype]
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def test_weights_of_any_layout_are_updated():
    """The initial value may be in column-major order or read-only."""
    weight = pytensor.shared(np.asfortranarray(np.ones((3, 4))), shape=(3, 4), borrow=True)
    other = pytensor.shared(np.ones((2, 2)), shape=(2, 2))
    pairs = [(w, w * 2 + 1) for w in (weight, other)]
    step = backend.compile([], [], dict(pairs), name="step")
    assert len(nodes_of(step)) == 1
    step()
    step()
    np.testing.assert_array_equal(weight.get_value(), np.full((3, 4), 7.0))
    np.testing.assert_array_equal(other.get_value(), np.full((2, 2), 7.0))


def test_values_that_are_read_later_are_not_overwritten():
    one, other = (pytensor.shared(np.arange(4.0), shape=(4,)) for _ in range(2))
    step = backend.compile([], [one + 0.5], {one: one * 2 + 1, other: other * 2 + 1}, name="step")
    np.testing.assert_array_equal(step()[0], np.arange(4.0) + 0.5)
    np.testing.assert_array_equal(one.get_value(), np.arange(4.0) * 2 + 1)
    swapped = backend.compile([], [], {one: one + 2 * other, other: other + 2 * one}, name="step")
    before = one.get_value(), other.get_value()
    swapped()
    np.testing.assert_array_equal(one.get_value(), before[0] + 2 * before[1])
    np.testing.assert_array_equal(other.get_value(), before[1] + 2 * before[0])

"""Affine maps of table rows that are looked up, in both orders of computation."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend
from seqnet.backend.kernel_ops import KernelOp
from seqnet.ops.affine import Affine
from seqnet.ops.lookup import Gather
from seqnet.ops.lookup_affine import LookupAffine, LookupAffineGradient, match_small_lookup

RANDOM = np.random.default_rng(0)
ROWS, FEATURES, UNITS = 6, 5, 7


def values_and_gradients(product, with_bias, ids):
    """Return the output of an affine map, the gradients of its weights, and the graph."""
    random = np.random.default_rng(1)
    table = pytensor.shared(random.normal(size=(ROWS, FEATURES)), shape=(ROWS, FEATURES))
    weights = [pytensor.shared(random.normal(size=(FEATURES, UNITS)))]
    if with_bias:
        weights.append(pytensor.shared(random.normal(size=UNITS)))
    numbers = pt.tensor(dtype="int32", shape=(None,) * ids.ndim)
    output = product(table, numbers, weights)
    scale = random.normal(size=(*ids.shape, UNITS))
    gradients = pytensor.grad(pt.sum(output * scale), [table, *weights])
    function = backend.compile([numbers], [output, *gradients], name="test")
    return function(ids), function.maker.fgraph.toposort()


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (4,), (6,), (40,), (2, 2), (4, 9), (2, 3, 5), (0, 4)])
def test_lookup_affine_equals_an_affine_map_of_a_lookup(shape, with_bias):
    ids = RANDOM.integers(0, ROWS, shape).astype("int32")
    found, nodes = values_and_gradients(
        lambda table, numbers, weights: LookupAffine()(table, numbers, *weights),
        with_bias,
        ids,
    )
    expected, _ = values_and_gradients(
        lambda table, numbers, weights: Affine()(Gather()(table, numbers), *weights),
        with_bias,
        ids,
    )
    computed = [type(n.op.op) for n in nodes if isinstance(n.op, KernelOp)]
    assert LookupAffine in computed
    assert LookupAffineGradient in computed
    assert Affine not in computed
    assert Gather not in computed
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_only_small_tables_are_multiplied_before_the_lookup():
    ids = pt.imatrix()
    small = pytensor.shared(np.zeros((10, 3)), shape=(10, 3))
    large = pytensor.shared(np.zeros((5000, 3)), shape=(5000, 3))
    assert match_small_lookup(Gather()(small, ids)) is not None
    assert match_small_lookup(Gather()(large, ids)) is None
    assert match_small_lookup(Gather()(small, ids) * 2) is None


@pytest.mark.parametrize("layer", ["lstm", "dense"])
def test_models_use_lookup_affine(layer):
    layers = {
        "lstm": seqnet.layers.LSTM(3, return_sequences=True),
        "dense": seqnet.layers.Dense(3),
    }
    model = seqnet.Model([seqnet.layers.Embedding(9, 4), layers[layer]])
    model.compile("sgd", "mse")
    model.train_on_batch(RANDOM.integers(0, 9, (2, 5)), RANDOM.normal(size=(2, 5, 3)))
    (function,) = model.steps.functions.values()
    nodes = function.maker.fgraph.toposort()
    assert any(isinstance(n.op, KernelOp) and isinstance(n.op.op, LookupAffine) for n in nodes)

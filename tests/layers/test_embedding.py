import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from helpers import values_and_gradients
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import dfs_rewriter
from pytensor.raise_op import CheckAndRaise
from reference import load_arrays

import seqnet
from seqnet import backend
from seqnet.layers import Dense, Embedding
from seqnet.ops.lookup import Gather

STORED = {peer: load_arrays(peer) for peer in ("keras", "pytorch")}


@pytest.mark.parametrize("peer", STORED)
def test_rows_and_gradients_equal_the_stored_ones(peer):
    arrays = STORED[peer]["embedding"]
    result = values_and_gradients(Embedding(5, 3, dtype="float64"), arrays, x_name="ids")
    np.testing.assert_array_equal(result["y"], arrays["y"])
    np.testing.assert_allclose(result["d_embeddings"], arrays["d_embeddings"], rtol=1e-12)


def test_indices_of_any_rank_are_looked_up():
    layer = Embedding(5, 2)
    layer.ensure_built((None,))
    (table,) = layer.get_weights()
    for ids in (np.array([4, 0]), np.array([[[1]], [[2]]])):
        y = layer(pt.constant(ids))
        value = backend.compile([], [y], name="test")()[0]
        np.testing.assert_array_equal(value, table[ids])


@pytest.mark.parametrize("chosen", ["auto", "numpy"])
@pytest.mark.parametrize("number", [-1, 5])
def test_an_index_outside_the_table_is_an_error_with_and_without_kernels(chosen, number):
    seqnet.config.set_backend(chosen)
    layer, x = Embedding(5, 3), pt.imatrix("x")
    y = layer(x)
    gradient = pytensor.grad(pt.sum(y), layer.weights[0])
    for outputs in ([y], [gradient]):
        f = backend.compile([x], outputs, name="test")
        with pytest.raises(IndexError, match=r"not (all )?in \[0, (5|the number of rows)\)"):
            f(np.array([[0, number]], "int32"))


def test_jax_functions_have_no_index_checks():
    x = pt.imatrix("x")
    (y,) = Gather().define(pt.matrix(), x)
    graph = FunctionGraph(outputs=[y], clone=True)
    assert any(isinstance(node.op, CheckAndRaise) for node in graph.apply_nodes)
    dfs_rewriter(backend.without_check).rewrite(graph)
    assert not any(isinstance(node.op, CheckAndRaise) for node in graph.apply_nodes)


def test_zero_is_masked_only_with_mask_zero():
    ids, given = pt.constant(np.array([[3, 0, 1]])), pt.constant(np.array([[False, True, True]]))
    layer = Embedding(5, 2, mask_zero=True)
    masks = [layer.compute_mask(ids, None), layer.compute_mask(ids, given)]
    own, both = backend.compile([], masks, name="test")()
    np.testing.assert_array_equal(own, [[True, False, True]])
    np.testing.assert_array_equal(both, [[False, False, True]])
    assert Embedding(5, 2).compute_mask(ids, given) is given


def test_unused_rows_are_not_trained():
    model = seqnet.Model([Embedding(5, 2), Dense(1)])
    model.compile(seqnet.optimizers.SGD(0.5), "mse")
    model.build((None, None))
    before = model.get_weights()[0]
    model.train_on_batch(np.array([[1, 3]]), np.full((1, 2, 1), 9.0))
    changed = (model.get_weights()[0] != before).any(axis=1)
    np.testing.assert_array_equal(changed, [False, True, False, True, False])

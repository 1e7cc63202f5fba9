"""What compiling leaves behind: the thresholds of the garbage collector and no old graphs."""

import gc
import weakref

import numpy as np
import pytest

import seqnet
from seqnet.common.locking import compiling
from seqnet.layers import GRU, Dense


def test_garbage_is_collected_less_often_only_while_compiling():
    before = gc.get_threshold()
    with compiling():
        assert gc.get_threshold()[0] > before[0]
    assert gc.get_threshold() == before
    with pytest.raises(TypeError), compiling():
        raise TypeError
    assert gc.get_threshold() == before
    try:
        gc.set_threshold(0)
        with compiling():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)


def test_an_unrolled_model_leaves_no_graph_behind():
    """PyTensor keeps the Ops that its rewriters have seen; equal models have equal Ops."""

    def objects_after_training():
        model = seqnet.Model([GRU(2, unroll=True, name="gru"), Dense(1, name="dense")])
        model.compile("sgd", "mse")
        model.fit(np.zeros((2, 3, 1), "float32"), np.zeros((2, 1), "float32"), verbose=0)
        reference = weakref.ref(model)
        del model
        gc.collect()
        assert reference() is None
        return len(gc.get_objects())

    _, second, third = (objects_after_training() for _ in range(3))
    assert third - second < 500

"""Compiled steps: which arrays they take, and what they return."""

import numpy as np
import pytest

import seqnet
from seqnet.data import Batch
from seqnet.layers import GRU, Dense, Embedding
from seqnet.training.step import arguments, first_states, symbolic_batch

RNG = np.random.default_rng(20261124)
BATCH = Batch(RNG.integers(0, 5, (3, 4)), RNG.normal(size=(3, 4, 2)))


def tagger():
    model = seqnet.Model([Embedding(5, 3), GRU(4, return_sequences=True), Dense(2)])
    model.compile("sgd", "mse", ["mae"])
    model.build((None, None))
    return model


def test_arrays_of_a_tree_have_the_types_of_their_part():
    batch = Batch(
        {"words": np.zeros((2, 3), "int64"), "size": np.zeros((2, 1))},
        {"tag": np.ones((2, 3, 4), "float64")},
        sample_weight=np.ones(2, int),
        mask={"words": np.ones((2, 3), bool)},
    )
    arrays, types = arguments(batch, "float32", fixed_length=True, fixed_sizes=False)
    assert [t.name for t in types] == ["X/words", "X/size", "y/tag", "sample_weight", "mask/words"]
    assert [a.dtype.name for a in arrays] == [t.dtype for t in types]
    assert [t.dtype for t in types] == ["int32", "float32", "float32", "float32", "bool"]
    assert [t.shape for t in types[:3]] == [(None, 3), (None, 1), (None, None, None)]
    variables = symbolic_batch(batch, types)
    assert variables.inputs["size"].name == "X/size"
    assert variables.inputs["size"].ndim == 2
    assert variables.sample_weight.dtype == "float32"
    assert [v.name for v in variables.leaves()] == [t.name for t in types]


def test_a_train_step_returns_sums_norms_and_what_it_trained():
    model = tagger()
    tested = model.steps.test(BATCH)
    result = model.steps.train(BATCH)
    assert result.sums == pytest.approx(tested.sums, rel=1e-5)
    assert result.loss == pytest.approx(result.sums[0] / result.sums[1])
    assert result.finite
    assert len(result.gradient_norms) == len(model.weights) == sum(result.trained)
    assert result.joint_norm == pytest.approx(np.linalg.norm(result.gradient_norms))
    assert result.states == []
    assert model.steps.test(BATCH).sums[0] < tested.sums[0]


def test_a_step_with_initial_states_returns_the_final_states():
    model = tagger()
    start = first_states(model.layers, 3)
    result = model.steps.train(BATCH, start)
    assert [state.shape for state in result.states] == [(3, 4)]
    assert (result.states[0] != start[0]).any()
    assert len(model.steps.functions) == 1


def test_one_function_is_kept_for_each_kind_of_batch(compiled):
    model = tagger()
    model.steps.predict(BATCH)
    model.steps.predict(Batch(BATCH.inputs[:2, :3]))
    assert compiled == ["prediction"]
    model.steps.predict(Batch(BATCH.inputs, mask=np.ones((3, 4), bool)))
    assert compiled == ["prediction"] * 2
    model.compile("sgd", "mse")
    assert not model.steps.functions

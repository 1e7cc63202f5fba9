"""Compiled steps: accepted arrays and results."""

import copy
import re
import threading

import numpy as np
import pytensor
import pytest

import seqnet
from seqnet.data import Batch
from seqnet.layers import GRU, LSTM, Bidirectional, Dense, Dropout, Embedding, Layer
from seqnet.training.step import Structure, arguments, first_states, symbolic_batch

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
    penalty, examples, loss_sum, weight_sum, *_ = result.sums
    assert (penalty, examples) == (0, 3)
    assert result.loss == pytest.approx(loss_sum / weight_sum)
    assert result.finite
    assert len(result.gradient_norms) == len(model.weights) == sum(result.trained)
    assert result.joint_norm == pytest.approx(np.linalg.norm(result.gradient_norms))
    assert result.states == []
    assert model.steps.test(BATCH).sums[2] < tested.sums[2]


def test_a_step_with_initial_states_returns_the_final_states():
    model = tagger()
    start = first_states(model.layers, 3)
    result = model.steps.train(BATCH, start)
    assert [state.shape for state in result.states] == [(3, 4)]
    assert (result.states[0] != start[0]).any()
    assert len(model.steps.functions) == 1


def test_one_function_is_compiled_for_each_kind_of_batch(compiled):
    model = tagger()
    model.steps.predict(BATCH)
    model.steps.predict(Batch(BATCH.inputs[:2, :3]))
    assert compiled == ["prediction"]
    model.steps.predict(Batch(BATCH.inputs, mask=np.ones((3, 4), bool)))
    assert compiled == ["prediction"] * 2
    model.compile("sgd", "mse")
    assert not model.steps.functions


class Counted(Dense):
    """Counts the collections of its structure."""

    calls = 0

    def structure(self):
        Counted.calls += 1
        return super().structure()


def test_the_structure_is_collected_again_only_after_a_setting_changed(monkeypatch):
    monkeypatch.setattr(Counted, "calls", 0)
    model = seqnet.Model([Counted(2)])
    model.compile("sgd", "mse")
    X, y = np.ones((4, 3)), np.ones((4, 2))
    model.train_on_batch(X, y)
    calls = Counted.calls
    model.fit(X, y, 2, epochs=3, verbose=0)
    model.evaluate(X, y)
    assert Counted.calls == calls
    model.optimizer.learning_rate = 0.5
    model.train_on_batch(X, y)
    assert Counted.calls == calls + 1
    assert len(model.steps.functions) == 2  # one for training, one for testing


def test_a_step_uses_settings_changed_between_batches():
    first, rnn, last = Dropout(0.5), Bidirectional(GRU(2)), Dense(1)
    model = seqnet.Model([first, rnn, last])
    model.compile(seqnet.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.build((None, None, 2))

    def structure():
        return model.steps.structure()

    def changed(function):
        before = structure()
        function()
        after = structure()
        assert after == Structure(
            tuple(layer.structure() for layer in model.layers),
            model.trained,
            model.optimizer.structure(),
        )
        return after != before

    assert not changed(lambda: setattr(first, "rate", 0.25))
    assert changed(lambda: setattr(first, "rate", 0.0))
    assert changed(lambda: setattr(rnn.backward_layer, "recurrent_dropout", 0.5))
    assert changed(lambda: setattr(rnn.layer, "trainable", False))
    assert changed(lambda: setattr(rnn, "trainable", False))
    assert changed(lambda: setattr(model.optimizer, "momentum", 0.0))
    assert changed(lambda: setattr(model.optimizer, "nesterov", True))
    assert changed(lambda: setattr(model.optimizer, "clipnorm", 1.0))
    assert changed(lambda: setattr(model.optimizer, "clipnorm", None))
    adam = seqnet.optimizers.Adam()
    structure()
    assert changed(lambda: setattr(model, "optimizer", adam))
    assert changed(lambda: model.layers.pop())
    again = copy.deepcopy(model)
    again.layers[0].rate = 0.5
    assert again.steps.structure() != structure()


def test_layers_in_two_models_and_other_threads_change_the_steps_of_both():
    shared = Dense(2)
    models = [seqnet.Model([shared]), seqnet.Model([shared, Dense(2)])]
    for model in models:
        model.compile("sgd", "mse")
        model.train_on_batch(np.ones((2, 3)), np.ones((2, 2)))
    thread = threading.Thread(target=lambda: setattr(shared, "trainable", False))
    thread.start()
    thread.join()
    before = shared.get_weights()
    for model in models:
        result = model.steps.train(Batch(np.ones((2, 3)), np.ones((2, 2))))
        assert result.trained[:2] == (False, False)
    np.testing.assert_array_equal(before[0], shared.get_weights()[0])


def test_a_setting_changed_during_collection_is_not_missed():
    class Slow(Layer):
        """Sets an attribute of another layer, as another thread could."""

        def call(self, inputs):
            return inputs

        def structure(self):
            before = last.rate
            if before:
                last.rate = 0.0
            return (bool(before),)

    last = Dropout(0.5)
    model = seqnet.Model([Slow(), last])
    assert model.steps.structure().layers[0] == (True,)
    assert model.steps.structure().layers[0] == (False,)


def test_the_compiled_functions_are_public_with_clean_names():
    model = seqnet.Model([Embedding(9, 3), LSTM(4), Dense(2, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    with pytest.raises(ValueError, match="compiled for 'train' yet: call fit, evaluate or predict"):
        model.function()
    X, y = np.array([[1, 2, 3], [4, 5, 6]]), np.array([0, 1])
    with pytensor.config.change_flags(profile=True):
        model.fit(X, y, verbose=0)
    model.evaluate(X, y)
    model.predict(X)
    function = model.function("train")
    for run in ("train", "test", "predict"):
        text = pytensor.dprint(model.function(run), file="str")
        assert "lstm/recurrent_kernel" in text
        assert not re.search("0x|seqnet\\.|/site-packages", text)
    assert function.profile.fct_callcount == 1
    with pytest.raises(ValueError, match="one of 'train', 'test', 'predict', got 'fit'"):
        model.function("fit")

"""Arrays in shared variables: the same training, bit for bit."""

import numpy as np
import pytest

import seqnet
from seqnet.callbacks import LambdaCallback
from seqnet.layers import GRU, Dense, Dropout, Embedding, SimpleRNN


def tagger():
    seqnet.set_random_seed(3)
    model = seqnet.Model(
        [
            Embedding(9, 4, mask_zero=True),
            Dropout(0.2),
            SimpleRNN(5, return_sequences=True),
            Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def words(count=22, length=6):
    rng = np.random.default_rng(0)
    X = rng.integers(1, 9, (count, length))
    X[::3, 4:] = 0
    return X, X % 3


def same(first, second):
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_with_resident_data_is_the_same_bit_for_bit():
    X, y = words()
    weights = np.linspace(0.5, 2, len(X))
    settings = [
        {"batch_size": 5, "epochs": 2, "validation_split": 0.2, "class_weight": {1: 3.0}},
        {"batch_size": 5, "shuffle": "batch", "steps_per_epoch": 4, "epochs": 2},
        {"batch_size": len(X), "epochs": 2},
    ]
    models, found = [], []
    for resident in (False, True):
        model = tagger()
        logs = [
            model.fit(X, y, sample_weight=weights, verbose=0, resident=resident, **setting).history
            for setting in settings
        ]
        models.append(model)
        found.append(logs)
    assert found[0] == found[1]
    same(*models)


def test_arrays_of_the_same_kind_use_the_same_functions_and_are_released():
    X, y = np.ones((6, 2), "float32"), np.ones((6, 1), "float32")
    model = seqnet.Model([Dense(1)])
    model.compile("sgd", "mse")
    seen = []

    def held(*_):
        (variables,) = model.steps.residents.values()
        seen.append([len(v.get_value(borrow=True)) for v in variables])

    options = {"verbose": 0, "resident": True, "callbacks": [LambdaCallback(on_epoch_end=held)]}
    model.fit(X, y, **options)
    functions = list(model.steps.functions)
    model.fit(np.tile(X, (3, 1)), np.tile(y, (3, 1)), batch_size=18, **options)
    assert list(model.steps.functions) == functions
    assert seen == [[6, 6], [18, 18]]
    (variables,) = model.steps.residents.values()
    assert [v.container.storage[0] for v in variables] == [None, None]
    assert model.steps.__getstate__()["residents"] == {}


def test_several_inputs_and_outputs_are_selected_together():
    def network():
        seqnet.set_random_seed(1)
        a, b = seqnet.Input((2,), name="a"), seqnet.Input((4, 3), name="b")
        both = seqnet.layers.Concatenate()([a, GRU(3)(b)])
        return seqnet.Model([a, b], [Dense(1, name="one")(both), Dense(2, name="two")(a)])

    rng = np.random.default_rng(0)
    X = {"a": rng.normal(size=(8, 2)), "b": rng.normal(size=(8, 4, 3))}
    y = {"one": rng.normal(size=(8, 1)), "two": rng.normal(size=(8, 2))}
    models = [network(), network()]
    for model, resident in zip(models, (False, True), strict=True):
        model.compile("sgd", "mse")
        seqnet.set_random_seed(2)
        weights = {"two": np.arange(8.0)}
        model.fit(X, y, 3, 2, verbose=0, sample_weight=weights, resident=resident)
    same(*models)


def test_data_that_is_not_arrays_is_refused_before_anything_is_compiled():
    model = seqnet.Model([GRU(2, return_sequences=True)])
    model.compile("sgd", "mse")
    series = [np.ones((n, 2)) for n in (2, 3)]
    stream = [(np.ones((1, 2, 2)), np.ones((1, 2, 2)))]
    for given in ((series, series), (stream,)):
        with pytest.raises(ValueError, match="keeps arrays in shared variables, but X is a list"):
            model.fit(*given, resident=True, verbose=0)
    with pytest.raises(ValueError, match="but validation_data is"):
        model.fit(
            *[np.ones((2, 3, 2))] * 2, validation_data=(series, series), resident=True, verbose=0
        )
    with pytest.raises(ValueError, match="windows of tbptt"):
        model.fit(*[np.ones((2, 3, 2))] * 2, tbptt=2, resident=True, verbose=0)
    with pytest.raises(TypeError, match="resident must be True or False, got 'yes'"):
        model.fit(*[np.ones((2, 3, 2))] * 2, resident="yes", verbose=0)
    assert not model.steps.functions

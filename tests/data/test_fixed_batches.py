"""An Input of one batch size, and batches of streams that hold several inputs."""

import numpy as np
import pytest

import seqnet
from seqnet.layers import GRU, Concatenate, Dense

X, Y = np.ones((8, 3)), np.ones((8, 1))


def fixed():
    x = seqnet.Input((3,), batch_size=4)
    model = seqnet.Model(x, Dense(1)(x))
    model.compile("sgd", "mse")
    return model


def test_batches_have_the_size_of_the_input():
    sizes = []
    watch = seqnet.callbacks.LambdaCallback(on_predict_batch_end=lambda b, logs: sizes.append(logs))
    model = fixed()
    model.predict(X, callbacks=[watch])
    model.fit(X, Y, verbose=0, validation_split=0.5)
    assert [len(logs["outputs"]) for logs in sizes] == [4, 4]
    again = seqnet.Model.from_config(model.get_config())
    stack = seqnet.Sequential([GRU(2, batch_input_shape=(4, None, 3))])
    for same in (again, stack, seqnet.Model.from_config(stack.get_config())):
        assert same.fixed_batch_size == 4
    stack = seqnet.Sequential([Dense(2)])
    stack.build((4, 3))  # only makes the weights
    assert stack.predict(X).shape == (8, 2)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m: m.predict(X[:5]), "5 samples cannot be divided into batches of 4"),
        (lambda m: m.fit(X, Y, validation_split=0.25), "2 samples cannot be divided"),
        (lambda m: m.fit(X, Y, batch_size=2), "batch_size=2 does not fit: the model was made for"),
        (lambda m: m.fit(X, Y, validation_batch_size=2), "batch_size=2 does not fit"),
        (lambda m: m.evaluate(X[:3], Y[:3]), "3 samples"),
        (lambda m: m.train_on_batch(X, Y), "the batch has 8 samples: the model was made for"),
        (lambda m: m.predict_on_batch(X), "the batch has 8 samples"),
        (lambda m: m(X), "the batch has 8 samples"),
        (lambda m: m.fit(iter([(X, Y)])), "Batch 0 of X: the batch has 8 samples"),
    ],
)
def test_other_batch_sizes_are_refused_before_compiling(monkeypatch, call, text):
    model = fixed()
    monkeypatch.setattr(seqnet.backend, "compile", None)
    with pytest.raises(ValueError, match=text):
        call(model)


def test_a_tuple_of_a_stream_is_all_inputs_or_begins_with_them():
    a, b = seqnet.Input((2,), name="a"), seqnet.Input((3,), name="b")
    model = seqnet.Model([a, b], Concatenate()([a, b]))
    first, second = np.ones((4, 2)), np.zeros((4, 3))
    named = {"a": first, "b": second}
    expected = model.predict([first, second])
    for batch in (
        (first, second),
        [first, second],
        named,
        ([first, second],),
        ((first, second), first),
        (named, first),
        ([first, second], first, second),
    ):
        np.testing.assert_array_equal(model.predict(iter([batch])), expected)

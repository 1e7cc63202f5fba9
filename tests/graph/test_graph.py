"""Models of inputs and outputs: recorded calls, shared layers, masks, and clear errors."""

import copy
import pickle
import re

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet.layers import (
    GRU,
    LSTM,
    Add,
    Concatenate,
    Dense,
    Dropout,
    Embedding,
    Lambda,
    Masking,
    Softmax,
)

RNG = np.random.default_rng(5)
X = RNG.normal(size=(4, 6, 3)).astype("float32")
MASK = np.arange(6) < np.array([6, 2, 4, 1])[:, None]


def says(error, *parts):
    return pytest.raises(error, match="(?s)" + "".join(f"(?=.*{re.escape(p)})" for p in parts))


def test_the_same_layers_as_a_stack_and_as_a_graph_give_the_same_model():
    x = seqnet.Input((None, 3))
    output = Dense(2)(GRU(4)(x))
    graph, stack = seqnet.Model(x, output), seqnet.Model([GRU(4), Dense(2)])
    stack.build((None, None, 3))
    stack.set_weights(graph.get_weights())
    assert [w.name for w in graph.weights] == [w.name for w in stack.weights]
    y = RNG.normal(size=(4, 2))
    for model in (graph, stack):
        model.compile(seqnet.optimizers.Adam(0.1), "mse", ["mae"])
        model.logs = model.fit(X, y, epochs=3, batch_size=3, shuffle=False, verbose=0).history
    assert graph.logs == stack.logs
    for mine, theirs in zip(graph.get_weights(), stack.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_shared_layer_has_one_set_of_weights_and_the_gradient_of_both_calls():
    a, b = seqnet.Input((3,), name="a"), seqnet.Input((3,), name="b")
    shared = Dense(2, use_bias=False)
    model = seqnet.Model([a, b], shared(a) - shared(b))
    assert model.layers == [shared]
    assert len(model.weights) == 1
    model.compile(seqnet.optimizers.SGD(1.0), "mse")
    p, q, y = RNG.normal(size=(3, 5, 3))[..., :3]
    y = y[:, :2]
    w = shared.get_weights()[0].astype("float64")
    model.train_on_batch([p, q], y)
    d = p - q
    np.testing.assert_allclose(
        shared.get_weights()[0], w - d.T @ (d @ w - y) / 5, rtol=1e-4, atol=1e-5
    )


def test_a_shared_embedding_trains_like_a_dense_table():
    results = []
    for size in (9, 5000):  # tables of the second size are updated by rows
        seqnet.set_random_seed(3)
        a, b = seqnet.Input((4,), name="a"), seqnet.Input((2,), name="b")
        table = Embedding(size, 3, embeddings_initializer="ones")
        gru = GRU(2, kernel_initializer="ones", recurrent_initializer="ones")
        model = seqnet.Model(
            {"a": a, "b": b},
            Dense(1, kernel_initializer="ones")(Add()([gru(table(a)), gru(table(b))])),
        )
        model.compile(seqnet.optimizers.Adagrad(0.1), "mse")
        data = {"a": np.array([[1, 2, 3, 1], [4, 4, 0, 8]]), "b": np.array([[1, 5], [4, 2]])}
        for _ in range(3):
            model.train_on_batch(data, np.array([[1.0], [-1.0]]))
        results.append(table.get_weights()[0][:9])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


def test_a_model_can_be_a_layer_of_another_model():
    words = seqnet.Input((None,), name="words")
    encoder = seqnet.Model([Embedding(7, 3, mask_zero=True), LSTM(4)], name="encoder")
    other = seqnet.Model([Embedding(7, 3), LSTM(4)], name="other")
    both = Concatenate()([encoder(words), other(words)])
    model = seqnet.Model(words, Dense(1)(both))
    names = [w.name for w in model.weights]
    assert "encoder/lstm/kernel" in names
    assert "other/lstm/kernel" in names
    assert len(set(names)) == len(names) == 10
    ids = np.array([[1, 2, 0], [3, 4, 5]])
    model.compile("sgd", "mse")
    before = encoder.get_weights()
    model.train_on_batch(ids, np.ones((2, 1)))
    assert any((a != b).any() for a, b in zip(before, encoder.get_weights(), strict=True))
    np.testing.assert_allclose(  # padding after the words does not change the encoder
        encoder.predict(ids[:1]), encoder.predict(ids[:1, :2]), rtol=1e-6
    )
    stack = seqnet.Model([other, Dense(2)])
    assert [layer.name for layer in stack.layers] == ["other", "dense"]
    assert stack.predict(ids).shape == (2, 2)


def test_pytensor_operations_can_be_mixed_with_layers():
    x = seqnet.Input((None, 3))
    h = GRU(4, return_sequences=True)(x)
    gate = pt.sigmoid(Dense(4)(x))
    model = seqnet.Model(x, (h * gate)[:, :, :2] + 1)
    expected = model.layers[0](pt.as_tensor(X))
    gated = expected * pt.sigmoid(model.layers[1](pt.as_tensor(X)))
    expected = (gated[:, :, :2] + 1).eval(mode=seqnet.backend.mode())
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-5)


def test_elementwise_operations_keep_masks_and_others_raise():
    x = seqnet.Input((None, 3))
    h = GRU(4, return_sequences=True)(x)
    kept = seqnet.Model(x, LSTM(2)(pt.tanh(h) * 2))
    rows = [row[: mask.sum()] for row, mask in zip(X, MASK, strict=True)]
    alone = np.concatenate([kept.predict(row[None]) for row in rows])
    np.testing.assert_allclose(kept.predict(rows), alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(kept.predict(X, mask=MASK), alone, rtol=1e-5, atol=1e-6)
    mean = seqnet.Model(x, h.mean(axis=1))
    assert mean.predict(X).shape == (4, 4)
    with says(ValueError, "a mask (batch, time)", "GlobalAveragePooling1D"):
        mean.predict(X, mask=MASK)
    with says(ValueError, "a mask (batch, time)"):
        seqnet.Model(x, h[:, -1]).predict(rows)


def test_a_lambda_may_use_the_mask():
    x = seqnet.Input((None, 3))

    def mean(values, mask):
        weight = pt.ones_like(values[:, :, 0]) if mask is None else mask
        return (values * weight[:, :, None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)

    model = seqnet.Model(x, Lambda(mean)(x))
    rows = [row[: mask.sum()] for row, mask in zip(X, MASK, strict=True)]
    expected = np.stack([row.mean(axis=0) for row in rows])
    np.testing.assert_allclose(model.predict(rows), expected, rtol=1e-5)


def test_the_training_argument_of_a_call_is_kept():
    x = seqnet.Input((50,))
    dropout = Dropout(0.5)
    always = seqnet.Model(x, dropout(x, training=True))
    ones = np.ones((2, 50), "float32")
    assert (always.predict(ones) == 0).any()
    assert (seqnet.Model(x, dropout(x)).predict(ones) == 1).all()


def test_states_pass_from_layer_to_layer():
    source, target = seqnet.Input((None, 3), name="source"), seqnet.Input((None, 2), name="target")
    _, h, c = LSTM(4, return_state=True)(source)
    decoder = LSTM(4, return_sequences=True)
    model = seqnet.Model([source, target], decoder(target, initial_state=[h, c]))
    y = RNG.normal(size=(4, 5, 2)).astype("float32")
    encoder = model.layers[0]
    _, h, c = encoder(pt.as_tensor(X))
    expected = decoder(pt.as_tensor(y), initial_state=[h, c]).eval(mode=seqnet.backend.mode())
    np.testing.assert_allclose(model.predict([X, y]), expected, rtol=1e-5, atol=1e-6)


def test_losses_weights_and_metrics_are_set_per_output():
    x = seqnet.Input((3,), name="x")
    model = seqnet.Model(x, {"a": Dense(2)(x), "b": Dense(1)(x)})
    model.compile("sgd", {"a": "mse", "b": "mae"}, {"b": ["mse"]}, loss_weights={"a": 2.0})
    data, a, b = RNG.normal(size=(7, 3)), RNG.normal(size=(7, 2)), RNG.normal(size=(7, 1))
    weight = np.arange(7.0)
    logs = model.evaluate(
        data, {"a": a, "b": b}, batch_size=3, sample_weight={"b": weight}, return_dict=True
    )
    out = model.predict(data)
    a_loss = ((out["a"] - a) ** 2).mean()
    b_loss = (np.abs(out["b"] - b)[:, 0] * weight).sum() / weight.sum()
    b_mse = ((out["b"] - b)[:, 0] ** 2 * weight).sum() / weight.sum()
    assert list(logs) == ["loss", "a_loss", "b_loss", "b_mse"]
    np.testing.assert_allclose(
        list(logs.values()), [2 * a_loss + b_loss, a_loss, b_loss, b_mse], rtol=1e-5
    )


def test_an_output_without_a_loss_is_not_trained():
    x = seqnet.Input((3,), name="x")
    used, unused = Dense(1, name="used"), Dense(1, name="unused")
    model = seqnet.Model(x, [used(x), unused(x)])
    model.compile("sgd", {"used": "mse", "unused": None})
    before = unused.get_weights()
    model.fit(np.ones((4, 3)), {"used": np.ones((4, 1))}, verbose=0)
    for mine, theirs in zip(before, unused.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_graphs_can_be_copied_and_pickled():
    x = seqnet.Input((None, 3), name="x")
    model = seqnet.Model(x, Dense(2)(GRU(3)(x)) * 2)
    model.compile("sgd", "mse")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
        other.train_on_batch(X, np.ones((4, 2)))
        assert (other.get_weights()[0] != model.get_weights()[0]).any()


def test_a_dictionary_of_one_input_and_of_one_output():
    x = seqnet.Input((3,), name="x")
    model = seqnet.Model({"x": x}, {"y": Dense(2)(x)})
    model.compile("sgd", {"y": "mse"}, {"y": ["mae"]})
    data, targets = {"x": X[:, 0]}, {"y": X[:, 0, :2]}
    model.fit(data, targets, validation_split=0.5, verbose=0)
    assert list(model.predict(data)) == ["y"]
    assert model.predict_on_batch(data)["y"].shape == (4, 2)


@pytest.mark.parametrize(
    ("dtype", "function", "data", "expected"),
    [
        ("bool", lambda x: pt.cast(~x, "float32"), [[True, False]], [[0, 1]]),
        ("int32", lambda x: x // 2, [[3.0, 4.0]], [[1, 2]]),
        ("float32", lambda x: x / 2, [[3, 4]], [[1.5, 2]]),
        (None, lambda x: x / 2, [[3, 4]], [[1.5, 2]]),
        (None, lambda x: x - 0.5, [[True, False]], [[0.5, -0.5]]),
    ],
)
def test_operations_get_values_of_the_dtype_of_the_input(dtype, function, data, expected):
    x = seqnet.Input((2,), dtype=dtype)
    output = function(x)
    found = seqnet.Model(x, output).predict(np.array(data))  # a model without layers
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == output.dtype


def test_a_nested_model_takes_integers_and_floats_in_any_order():
    words, other = seqnet.Input((None,), name="words"), seqnet.Input((2,), name="other")
    joined = Concatenate()([Dense(2)(other), GRU(2)(Embedding(5, 3)(words))])
    inner = seqnet.Model([other, words], joined, name="inner")
    data = [np.array([[0.3, 0.7]]), np.array([[1, 2]])]
    expected = inner.predict(data)
    first, second = seqnet.Input((None,), name="first"), seqnet.Input((2,), name="second")
    for given in ([second, first], {"words": first, "other": second}):
        model = seqnet.Model([first, second], inner(given))
        assert [spec.dtype for spec in model.input_specs.values()] == ["int32", "float32"]
        np.testing.assert_allclose(model.predict(data[::-1]), expected)
    with says(ValueError, "X['first']", "holds 7"):
        model.predict([np.array([[1, 7]]), data[0]])


def test_a_penalty_on_a_shared_layer_counts_once():
    shared = Dense(2, kernel_regularizer="l2", kernel_initializer="ones", use_bias=False)
    i, x = seqnet.Input((2,)), seqnet.Input((2,))
    inner = seqnet.Model(i, shared(i), name="inner")
    model = seqnet.Model(x, Add()([inner(x), shared(x)]))
    model.compile("sgd", "mse")
    assert model.evaluate(np.zeros((3, 2)), np.zeros((3, 2))) == pytest.approx(4 * 0.01)


def test_setting_trainable_of_a_model_sets_its_layers():
    i, x = seqnet.Input((2,)), seqnet.Input((2,))
    inner = seqnet.Model(i, Dense(2)(Dense(3)(i)), name="inner")
    model = seqnet.Model(x, Dense(1)(inner(x)))
    inner.trainable = False
    assert model.trained == (False, False, False, False, True, True)
    assert (inner.trainable, model.trainable) == (False, True)
    with says(TypeError, "trainable must be True or False"):
        inner.trainable = "no"


def test_output_scores_may_share_the_table_of_an_embedding():
    words = seqnet.Input((None,))
    table = Embedding(5, 3)
    hidden = GRU(3, return_sequences=True)(table(words))
    model = seqnet.Model(words, Softmax()(pt.dot(hidden, table.weights[0].T)))
    assert model.compute_output_shape((None, None)) == (None, None, 5)
    model.compile("sgd", "sparse_categorical_crossentropy")
    with says(ValueError, "holds class 5", "5 classes"):
        model.fit([[1, 2]], [[3, 5]], verbose=0)
    model.fit([[1, 2]], [[3, 4]], verbose=0)
    assert len(model.weights) == 4


# ----------------------------------------------------------------------------- invalid input


def test_an_input_that_is_missing_is_named():
    a, b = seqnet.Input((3,), name="first"), seqnet.Input((3,), name="second")
    with says(ValueError, "the Input 'second' of shape (None, 3)", "'first'"):
        seqnet.Model(a, Add()([a, b]))
    with says(ValueError, "symbolic variable", "not among its inputs"):
        seqnet.Model(a, Dense(2)(a) + pt.matrix("free"))


def test_outputs_must_depend_on_the_inputs():
    a = seqnet.Input((3,), name="first")
    with says(ValueError, "does not depend on a seqnet.Input"):
        seqnet.Model(a, pt.matrix())
    with says(TypeError, "The output 'y' is not a symbolic variable"):
        seqnet.Model(a, {"y": 3})
    with says(TypeError, "made with seqnet.Input"):
        seqnet.Model(pt.matrix(), Dense(2)(a))
    with says(ValueError, "given twice"):
        seqnet.Model([a, a], Dense(2)(a))


def test_a_model_needs_inputs_and_outputs():
    a, b = seqnet.Input((3,), name="a"), seqnet.Input((3,), name="b")
    for inputs in (a, [a, b], {"a": a}, Dense(2)(a)):
        with says(TypeError, "no outputs", "Model(inputs, outputs)"):
            seqnet.Model(inputs)
    with says(TypeError, "list of layers", "got 3"):
        seqnet.Model(3)
    with says(TypeError, "not a symbolic variable", "Call it on an input"):
        seqnet.Model(a, Dense(2))
    with says(TypeError, "a model begins at an Input"):
        seqnet.Model(Dense(2)(a), a)


def test_a_layer_is_not_called_on_a_layer():
    with says(TypeError, "Dense 'outer' is called on", "Call the GRU first"):
        Dense(2, name="outer")(GRU(3))
    with says(TypeError, "'outer' (Dense) is called on", "Call the GRU first"):
        Dense(2, name="outer")([seqnet.Input((3,)), GRU(3)])


def test_names_must_be_unique():
    a, b = seqnet.Input((3,), name="same"), seqnet.Input((3,), name="same")
    with says(ValueError, "inputs of the model are named 'same'"):
        seqnet.Model([a, b], Add()([a, b]))
    with says(ValueError, "already has a layer named 'd'", "pass name="):
        seqnet.Model(a, Dense(2, name="d")(Dense(2, name="d")(a)))


def test_a_recorded_variable_cannot_be_computed():
    x = seqnet.Input((3,))
    y = Dense(2)(x)
    function = pytensor.function([x], y, mode="FAST_COMPILE")
    with says(TypeError, "depends on seqnet.Input", "seqnet.Model(inputs, outputs)"):
        function(np.ones((1, 3), "float32"))
    with says(TypeError, "depends on seqnet.Input"):
        pt.grad(y.sum(), x)


def test_layers_are_not_added_to_a_graph():
    x = seqnet.Input((3,))
    model = seqnet.Model(x, Dense(2)(x))
    with says(ValueError, "made from inputs and outputs"):
        model.add(Dense(2))


def test_wrong_arguments_of_input_are_refused():
    assert seqnet.Input((2,), batch_size=3).batch_shape == (3, 2)
    assert seqnet.Input(batch_shape=(None, None, 2)).batch_shape == (None, None, 2)
    for error, part, options in (
        (TypeError, "shape of one sample", {}),
        (ValueError, "not both", {"shape": (2,), "batch_shape": (None, 2)}),
        (ValueError, "dtype of an input", {"shape": (2,), "dtype": "text"}),
        (TypeError, "name of an input is text", {"shape": (2,), "name": 3}),
    ):
        with says(error, part):
            seqnet.Input(**options)


@pytest.mark.parametrize(
    ("loss", "part"),
    [
        ({"a": "mse"}, "The output 'b' has no loss"),
        ({"a": "mse", "aa": "mse"}, "Did you mean 'a'?"),
        (["mse"], "The model has 2 outputs, a, b"),
        ({"a": None, "b": None}, "No output has a loss"),
    ],
)
def test_losses_must_fit_the_outputs(loss, part):
    x = seqnet.Input((3,))
    model = seqnet.Model(x, {"a": Dense(2)(x), "b": Dense(1)(x)})
    with pytest.raises(ValueError, match=re.escape(part)):
        model.compile("sgd", loss)


def test_a_mask_of_one_input_does_not_mask_another():
    a, b = seqnet.Input((None, 3), name="a"), seqnet.Input((None, 3), name="b")
    first, second = GRU(2)(Masking()(a)), GRU(2)(b)
    model = seqnet.Model([a, b], [first, second])
    zeros = X * 0
    out = model.predict({"a": zeros, "b": zeros})
    alone = model.layers[-1](pt.as_tensor(zeros)).eval(mode=seqnet.backend.mode())
    assert (out[0] == 0).all()
    np.testing.assert_allclose(out[1], alone, rtol=1e-6)

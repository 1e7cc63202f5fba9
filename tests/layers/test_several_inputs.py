"""Layers of several inputs, as newcomers write them, in both float types."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend, layers
from seqnet.layers import (
    GRU,
    LSTM,
    Attention,
    Bidirectional,
    Dense,
    Lambda,
    Layer,
    MultiHeadAttention,
    Softmax,
)

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 4, 3)), RNG.normal(size=(2, 4, 3))
MASK = np.array([[1, 1, 0, 1], [1, 0, 0, 0]], bool)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


class WeightedSum(Layer):
    """Takes a list; its weights depend on the shapes."""

    def build(self, input_shape):
        self.share = self.add_weight("share", (len(input_shape), input_shape[0][-1]), "ones")

    def call(self, inputs, mask=None):
        self.seen = mask
        return sum(0.5 * x * self.share[k] for k, x in enumerate(inputs))


class Named(Layer):
    """Takes a dictionary."""

    def call(self, inputs):
        return inputs["left"] - 2 * inputs["right"]


class Attend(Layer):
    """Takes several arguments, as Keras's attentions do."""

    def __init__(self, units, **kwargs):
        self.units = units
        self.query_dense = Dense(units, dtype=kwargs.get("dtype"))
        super().__init__(**kwargs)

    def build(self, query_shape, value_shape):
        self.w = self.add_weight("w", (value_shape[-1], self.units), "ones")

    def call(self, query, value, key=None, query_mask=None, value_mask=None, training=None):
        self.seen = query_mask, value_mask
        key = value if key is None else key
        if value_mask is not None:
            key = key * value_mask[:, :, None]
        return self.query_dense(query) + pt.dot(key, self.w).sum(axis=1, keepdims=True)


class Gated(Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.gate = Dense(3, "sigmoid", dtype=self.dtype)

    def call(self, inputs):
        a, b = inputs
        return a * self.gate(b)


@DTYPES
@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_inputs_reaches_call_and_build(dtype, kind):
    layer = WeightedSum(dtype=dtype)
    a, b = A.astype(dtype), B.astype(dtype)
    y = layer(kind([pt.as_tensor_variable(a), b]))
    assert y.dtype == dtype
    assert layer.seen is None
    np.testing.assert_allclose(y.eval(), (a + b) / 2, rtol=1e-6)
    assert layer.get_weights()[0].shape == (2, 3)
    layer([a, b], mask=[MASK, None])
    assert layer.seen[0].type.dtype == "bool"
    assert layer.seen[1] is None
    layer([a, b], mask=[None, None])
    assert layer.seen is None
    assert layer.compute_output_shape([(None, 4, 3), (None, 4, 3)]) == (None, 4, 3)
    assert layer.compute_mask([a, b], [MASK, None]) is MASK


@DTYPES
def test_a_dictionary_of_inputs_reaches_call(dtype):
    y = Named(dtype=dtype)({"right": B.astype(dtype), "left": A.astype(dtype)})
    assert y.dtype == dtype
    np.testing.assert_allclose(y, A - 2 * B, rtol=1e-5, atol=1e-6)


def test_nested_numbers_are_one_array():
    np.testing.assert_allclose(Softmax()([[1.0, 1.0], [2.0, 2.0]]), np.full((2, 2), 0.5))


@DTYPES
def test_further_arguments_come_by_position_or_name_with_their_masks(dtype):
    layer = Attend(2, dtype=dtype)
    a, b = A[:, :1].astype(dtype), B.astype(dtype)
    expected = layer(a, b)
    assert expected.dtype == dtype
    assert layer.seen == (None, None)
    for again in (layer(a, value=b), layer(query=a, value=b), layer(value=b, query=a, key=None)):
        np.testing.assert_array_equal(again, expected)
    masked = layer(a, b, mask=MASK[:, :1], value_mask=MASK)
    assert [m.type.dtype for m in layer.seen] == ["bool", "bool"]
    np.testing.assert_allclose(masked, layer(a, b * MASK[:, :, None]), rtol=1e-5)
    layer(a, b, query_mask=MASK[:, :1])
    assert layer.seen[0] is not None
    assert [w.name for w in layer.weights] == [
        "attend/w",
        "attend/query_dense/kernel",
        "attend/query_dense/bias",
    ]


@DTYPES
def test_layers_within_a_layer_of_several_inputs_are_built(dtype):
    layer = Gated(dtype=dtype)
    assert layer([A.astype(dtype), B.astype(dtype)]).dtype == dtype
    assert len(layer.weights) == 2


X = pt.tensor("x", shape=(None, 4, 3), dtype="float32")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Dense(2)([X, X]), ValueError, r"'dense' \(Dense\) takes one input, but got 2, of"),
        (lambda: Dense(2)([X, "b"]), TypeError, r"'dense'.*not on 'b' of type str"),
        (lambda: Dense(2)(X, mask=[MASK, MASK]), TypeError, "one input, but got the masks"),
        (lambda: WeightedSum()([X, X], mask=[MASK]), ValueError, "a list of 2 masks, None for"),
        (lambda: WeightedSum()([X, X], mask=MASK), ValueError, "a list of 2 masks"),
        (lambda: WeightedSum()([X, X], mask=[None, A]), TypeError, "must be bool"),
        (lambda: Attend(2)(X), TypeError, "needs value"),
        (lambda: Attend(2)(X, X, value=X), TypeError, "the argument value twice"),
        (
            lambda: Attend(2)(X, X, value_mask=MASK[:, :3]),
            ValueError,
            "and the argument value",
        ),
        (lambda: Attend(2)(X, X, mask=MASK, query_mask=MASK), TypeError, "inputs twice"),
        (lambda: Softmax()(X, MASK, None, None, 3), TypeError, "at most 3 arguments without a"),
    ],
)
def test_calls_that_do_not_fit_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_several_outputs_have_a_mask_each():
    mask = pt.matrix("mask", dtype="bool")
    assert LSTM(2, return_state=True).compute_mask(X, mask) == [None, None, None]
    sequences = LSTM(2, return_state=True, return_sequences=True)
    assert sequences.compute_mask(X, mask) == [mask, None, None]
    assert sequences.compute_output_shape((None, 4, 3)) == [(None, 4, 2), (None, 2), (None, 2)]
    both = Bidirectional(GRU(2, return_sequences=True), merge_mode=None)
    assert both.compute_mask(X, mask) == [mask, mask]
    assert both.compute_output_shape((None, 4, 3)) == [(None, 4, 2)] * 2
    states = Bidirectional(LSTM(2, return_sequences=True, return_state=True))
    assert states.compute_mask(X, mask) == [mask, None, None, None, None]
    assert states.compute_output_shape((5, 4, 3)) == [(5, 4, 4), *[(5, 2)] * 4]
    for layer in (sequences, both, states):
        shapes = [tuple(y.type.shape) for y in layer(X)]
        assert len(shapes) == len(layer.compute_mask(X, mask))
        assert [len(s) for s in shapes] == [
            len(s) for s in layer.compute_output_shape((None, 4, 3))
        ]


@DTYPES
def test_a_lambda_takes_a_list(dtype):
    def first_where_there(both, mask=None):
        first, second = both
        return first - second if mask is None else first - second * mask[1][:, :, None]

    layer = Lambda(first_where_there, supports_masking=True, dtype=dtype)
    a, b = A.astype(dtype), B.astype(dtype)
    np.testing.assert_allclose(layer([a, b]), a - b, rtol=1e-6)
    masked = layer([a, b], mask=[None, MASK])
    np.testing.assert_allclose(masked, a - b * MASK[:, :, None], rtol=1e-6)
    assert masked.dtype == dtype
    assert layer.compute_mask([a, b], [MASK, None]) is MASK
    assert layer.compute_output_shape([(None, 4, 3), (None, 4, 3)]) == (None, 4, 3)
    mixes = Lambda(lambda both: both[0] - both[1].mean(axis=0))
    with pytest.raises(ValueError, match="mixes the rows of a batch"):
        mixes([X, X])


def test_states_that_are_variables_start_a_decoder():
    encoder = LSTM(3, return_state=True, dtype="float64")
    decoder = Bidirectional(LSTM(3, return_state=True, dtype="float64"))
    x, weights = pt.tensor("x", shape=(None, 4, 3), dtype="float64"), RNG.normal(size=(2, 6))
    _, h, c = encoder(x)
    y, *last = decoder(x, initial_state=[h, c, h, c])
    again, *_ = decoder(x, initial_state=(h, c, h, c))
    from_zero, *_ = decoder(x)
    assert len(last) == 4
    gradient = pytensor.grad((y * weights).sum(), encoder.kernel)
    f = backend.compile([x], [y, again, from_zero, gradient], name="test")
    y, again, from_zero, gradient = f(A)
    np.testing.assert_array_equal(y, again)
    assert not np.allclose(y, from_zero)
    assert gradient.any()


@pytest.mark.parametrize("name", layers.__all__)
def test_every_layer_says_whether_it_takes_several_inputs(name):
    cls = getattr(layers, name)
    if not isinstance(cls, type) or not issubclass(cls, Layer) or cls in (Layer, Lambda):
        return
    assert cls.takes_several_inputs is not None or cls.input_axes


def test_the_weights_of_an_attention_are_outputs_of_a_model():
    query, value = seqnet.Input((None, 4), name="query"), seqnet.Input((None, 4), name="value")
    attention, heads = Attention(), MultiHeadAttention(2, 3)
    outputs = {}
    outputs["one"], outputs["weights"] = attention([query, value], return_attention_scores=True)
    outputs["two"], outputs["by head"] = heads(query, value, return_attention_scores=True)
    model = seqnet.Model([query, value], outputs)
    data = [np.ones((2, 3, 4), "float32"), np.ones((2, 5, 4), "float32")]
    shapes = model.compute_output_shape([x.shape for x in data])
    assert shapes["weights"] == (2, 3, 5)
    assert shapes["by head"] == (2, 2, 3, 5)
    found = model.predict(data)
    assert {name: x.shape for name, x in found.items()} == shapes
    np.testing.assert_allclose(found["by head"].sum(axis=-1), 1, rtol=1e-5)

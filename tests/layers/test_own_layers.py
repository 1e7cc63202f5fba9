"""Short custom layers with plain numbers and arrays, in both float types."""

import numpy as np
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet.layers import LSTM, Bidirectional, Dense, Embedding, Layer, TimeDistributed
from seqnet.registry import register

X = np.random.default_rng(0).normal(size=(6, 4, 3))
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


class Half(Layer):
    def call(self, x):
        return 0.5 * x


class Noise(Layer):
    """Has a training flag, as in Keras."""

    def call(self, inputs, training=None):
        return inputs + 100.0 if training else inputs


class Mean(Layer):
    """The mean over unmasked steps, with a mask argument as in Keras."""

    def call(self, x, mask=None):
        if mask is None:
            return x.mean(axis=1)
        kept = mask[:, :, None]
        return (x * kept).sum(axis=1) / kept.sum(axis=1)

    def compute_mask(self, inputs, mask=None):
        return None


class Affine(Layer):
    """Has weights, a float64 array and NumPy scalars."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.w = self.add_weight("w", (input_shape[-1], self.units), lambda shape: np.ones(shape))

    def call(self, x):
        offset = np.linspace(0, 1, self.units)
        return np.float64(2) * pt.dot(x, self.w) + offset


@register("layer")
class Block(Layer):
    """A layer with inner layers."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = Dense(units, "tanh", kernel_regularizer="l2", dtype=self.dtype)
        self.others = [Dense(units, dtype=self.dtype), Dense(units, dtype=self.dtype)]

    def call(self, x, training=False):
        x = self.first(x)
        for layer in self.others:
            x = x + layer(x)
        return x


@DTYPES
@pytest.mark.parametrize("cls", [Half, Noise, Mean, lambda **o: Affine(2, **o)])
def test_short_signatures_and_plain_numbers_train_in_both_float_types(cls, dtype):
    layer = cls(dtype=dtype)
    model = seqnet.Model([layer, Dense(1, dtype=dtype)])
    model.compile("sgd", "mse")
    y = model.predict(X)
    assert y.dtype == dtype
    assert np.isfinite(model.fit(X, np.zeros_like(y), verbose=0).history["loss"]).all()


def test_call_receives_only_the_arguments_it_declares():
    half, noise, affine = Half(dtype="float64"), Noise(dtype="float64"), Affine(2, dtype="float64")
    np.testing.assert_array_equal(half(X), X / 2)
    np.testing.assert_array_equal(noise(X), X)
    np.testing.assert_array_equal(noise(X, training=True), X + 100)
    expected = 2 * X.sum(axis=-1, keepdims=True) + [0, 1]
    np.testing.assert_allclose(affine(X), expected, rtol=1e-12)
    mask = np.array([[1, 1, 0, 0]] * 6, bool)
    ours = seqnet.Model([Mean(dtype="float64")]).predict(X, mask=mask)
    np.testing.assert_allclose(ours, X[:, :2].mean(axis=1), rtol=1e-12)


@DTYPES
def test_a_float64_softmax_passes_its_logits_to_the_loss(dtype):
    class Classes(Layer):
        def call(self, x):
            return pt.special.softmax(1000.0 * x, axis=-1)

    model = seqnet.Model([Classes(dtype=dtype)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    x = np.array([[1.0, 0.0]])
    np.testing.assert_allclose(model.evaluate(x, np.array([1])), 1000.0, rtol=1e-5)


def test_an_invalid_signature_is_refused_by_name():
    class Odd(Layer):
        def call(self, x, m, other, n=3):
            return x

    class Nothing(Layer):
        def call(self):
            return 0

    with pytest.raises(
        TypeError, match=r"'odd' \(Odd\) needs m, other.*mask, context and training"
    ):
        seqnet.Model([Odd()]).predict(X)
    with pytest.raises(TypeError, match=r"Nothing.call must take the inputs"):
        seqnet.Model([Nothing()]).predict(X)
    with pytest.raises(TypeError, match=r"'dense'.*takes no initial_state"):
        Dense(2)(X, initial_state=[X])


def test_output_shapes_are_inferred():
    class Wider(Layer):
        def call(self, x):
            return pt.concatenate([x, x], axis=-1)

    model = seqnet.Model([Wider(), Mean(), Affine(5), Dense(2)])
    assert model.predict(X).shape == (6, 2)
    shapes = [tuple(w.get_value().shape) for w in model.weights]
    assert shapes == [(6, 5), (5, 2), (2,)]
    assert model.layers[0].compute_output_shape((None, 4, 3)) == (None, 4, 6)


def test_a_missing_attribute_of_a_layer_is_named():
    class Silent(Layer):
        def call(self, x):
            pt.tanh(x)

    class Headless(Layer):
        def __init__(self, units):
            self.units = units

        def call(self, x):
            return x

    with pytest.raises(TypeError, match=r"'silent'.*returns None"):
        seqnet.Model([Silent()]).predict(X)
    with pytest.raises(AttributeError, match=r"Headless.__init__ must call super\(\).__init__"):
        seqnet.Model([Headless(3)])


# ------------------------------------------------------------------- inner layers


def test_layers_within_a_layer_are_trained_frozen_and_saved(tmp_path):
    seqnet.set_random_seed(0)
    model = seqnet.Model([Block(2, name="block", dtype="float64"), Dense(1, dtype="float64")])
    model.compile(seqnet.optimizers.SGD(0.1), "mse")
    y = np.ones((6, 4, 1))
    expected = model.predict(X)
    names = [w.name for w in model.weights]
    assert names[:4] == [f"block/{n}" for n in ("first/kernel", "first/bias")] + [
        f"block/others_0/{n}" for n in ("kernel", "bias")
    ]
    assert len(names) == len(set(names)) == 8
    assert len(model.layers[0].penalties) == 1
    model.save(tmp_path / "model.h5")
    before = model.get_weights()
    model.layers[0].first.trainable = False
    model.fit(X, y, verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [False] * 2 + [True] * 6
    model.layers[0].trainable = False
    before = model.get_weights()
    model.fit(X, y, verbose=0)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [False] * 6 + [True] * 2
    again = seqnet.load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(again.predict(X), expected)


def test_an_unused_inner_layer_is_named():
    class Unused(Layer):
        def __init__(self):
            super().__init__()
            self.left = Dense(2)

        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"'unused'.*holds the layer left, but its call"):
        seqnet.Model([Unused()]).predict(X)


# ------------------------------------------------------------------------------- wrappers


def changes(model, x, y):
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    pairs = zip(before, model.get_weights(), strict=True)
    return [not np.array_equal(a, b) for a, b in pairs]


def test_a_wrapped_layer_can_be_frozen_after_wrapping():
    model = seqnet.Model([TimeDistributed(Dense(2)), Bidirectional(LSTM(2)), Dense(1)])
    model.compile("sgd", "mse")
    y = np.ones((6, 1))
    model.predict(X)
    assert changes(model, X, y) == [True] * 10
    each, both, _ = model.layers
    each.layer.trainable = False
    assert not each.trainable
    assert changes(model, X, y) == [False] * 2 + [True] * 8
    both.backward_layer.trainable = False
    assert both.trainable
    assert changes(model, X, y) == [False] * 2 + [True] * 3 + [False] * 3 + [True] * 2
    lines = []
    model.summary(print_fn=lines.append)
    assert "of which 45 are trained" in lines[-1]
    each.trainable = both.trainable = True
    assert changes(model, X, y) == [True] * 10


def test_directions_frozen_separately_round_trip():
    both = Bidirectional(LSTM(2))
    both.layer.trainable = False
    again = seqnet.registry.get("layer", seqnet.registry.serialize(both))
    assert [half.trainable for half in again.inner_layers] == [False, True]
    frozen = Bidirectional(LSTM(2), backward_layer=LSTM(2, go_backwards=True), trainable=False)
    assert [half.trainable for half in frozen.inner_layers] == [False, False]
    with pytest.raises(TypeError, match="trainable must be True or False"):
        frozen.trainable = "no"


def test_integers_reach_a_wrapped_embedding():
    tokens = np.array([[[1, 2], [3, 0]], [[1, 1], [2, 2]]])
    model = seqnet.Model([TimeDistributed(Embedding(4, 2)), TimeDistributed(LSTM(2)), LSTM(1)])
    assert model.input_dtype == "int32"
    assert model.predict(tokens).shape == (2, 1)
    lists = model.predict([tokens[0], tokens[1, :1]])
    np.testing.assert_allclose(lists[0], model.predict(tokens)[0], rtol=1e-5)
    np.testing.assert_array_equal(model.predict(tokens.astype(float)), model.predict(tokens))
    with pytest.raises(ValueError, match=r"X holds 1.5 at \(0, 0, 0\).*takes whole numbers"):
        model.predict(tokens + 0.5)
    tokens[1, 0, 1] = 4
    with pytest.raises(ValueError, match=r"X holds 4 at \(1, 0, 1\).*0 to 3"):
        model.predict(tokens)


def test_unbuilt_layers_raise_clear_errors():
    with pytest.raises(AttributeError, match=r"'dense'.*has no 'kernel'. It is not built"):
        Dense(2).kernel  # noqa: B018
    with pytest.raises(ValueError, match="'dense' has no weights to set yet: it is not built"):
        Dense(2).set_weights([np.zeros((3, 2)), np.zeros(2)])
    assert not hasattr(Dense(2), "bias")


class Peephole(LSTM):
    """A cell with an additional weight."""

    def build(self, input_shape):
        super().build(input_shape)
        self.peep = self.add_weight("peep", (self.units,), "ones")

    def step(self, x, states, recur):
        h, c = super().step(x, states, recur)
        return h + self.peep * c, c


def test_the_summary_of_a_cell_that_is_not_built_says_so():
    lines = []
    seqnet.Model([Peephole(2), Bidirectional(Peephole(2))]).summary(print_fn=lines.append)
    assert "not built" in lines[0]


class Encoder(Layer):
    """Applies a model or a layer that it is given."""

    def __init__(self, part, **kwargs):
        super().__init__(**kwargs)
        self.part = part

    def call(self, inputs, context):
        return self.part(inputs, context=context)


@pytest.mark.parametrize("shape", [None, (3,)])
def test_a_model_within_a_layer_is_trained_and_frozen(shape):
    inner = seqnet.Model([Dense(2, input_shape=shape)], name="inner")
    own = Encoder(inner, name="own")
    model = seqnet.Model([own, Dense(1)])
    model.compile("sgd", "mse")
    model.build((None, 3))
    before = inner.get_weights()
    model.fit(np.ones((2, 3)), np.ones((2, 1)), verbose=0)
    assert len(model.weights) == 4
    assert (inner.get_weights()[0] != before[0]).any()
    own.trainable = False
    assert model.trained == (False, False, True, True)


def test_a_layer_that_is_built_already_is_trained_within_another():
    shared = Dense(2, name="shared")
    shared.ensure_built((None, 3))
    model = seqnet.Model([Encoder(shared), Dense(1)])
    model.build((None, 3))
    assert [w.name for w in model.weights[:2]] == ["shared/kernel", "shared/bias"]


def test_a_model_is_applied_to_each_step(tmp_path):
    words = seqnet.Input((None,), dtype="int32")
    encoder = seqnet.Model(words, LSTM(3)(Embedding(9, 2, mask_zero=True)(words)), name="encoder")
    text = seqnet.Input((None, None), dtype="int32")
    model = seqnet.Model(text, LSTM(2)(TimeDistributed(encoder)(text)))
    x = np.array([[[1, 2, 0], [3, 0, 0]]])
    np.testing.assert_allclose(model.predict(x), model.predict(x[:, :, :2]), rtol=1e-6)
    assert model.weights[0].name == "time_distributed/encoder/embedding/embeddings"
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(model.predict(x), again.predict(x))


def test_a_model_called_on_arrays_follows_its_rates():
    dropout = seqnet.layers.Dropout(0.0)
    model = seqnet.Model([dropout])
    x = np.ones((2, 50))
    assert (model(x, training=True) == 1).all()
    dropout.rate = 0.5
    assert (model(x, training=True) == 0).any()


class DoubledDense(Dense):
    """Calls the layer it is made from as in Keras, without mask and context."""

    def call(self, inputs):
        return 2 * super().call(inputs)


class DoubledLSTM(LSTM):
    def call(self, inputs, training=None):
        return super().call(2 * inputs)


@DTYPES
def test_super_call_without_mask_and_context(dtype):
    dense, plain = DoubledDense(2, dtype=dtype), Dense(2, dtype=dtype)
    found = dense(X)
    plain(X)
    plain.set_weights(dense.get_weights())
    assert found.dtype == dtype
    np.testing.assert_allclose(found, 2 * plain(X), rtol=1e-5)
    np.testing.assert_allclose(plain.call(pt.as_tensor_variable(X)).eval(), plain(X), rtol=1e-5)
    layer, padded = DoubledLSTM(3, dropout=0.5, dtype=dtype), X.copy()
    padded[:, 2:] = 9
    mask = np.arange(4)[None] < np.full((6, 1), 2)
    np.testing.assert_array_equal(layer(X, mask=mask), layer(padded, mask=mask))
    assert not np.array_equal(layer(X, mask=mask), layer(X))
    assert not np.array_equal(layer(X, training=True), layer(X, training=True))


class TwoWeights(Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],))
        self.shift = self.add_weight(initializer="zeros")

    def call(self, x):
        return x * self.scale + self.shift


def test_weights_without_a_name_or_an_initializer():
    model = seqnet.Model([TwoWeights(), Dense(1)])
    model.build((None, 3))
    assert [w.name for w in model.weights[:2]] == ["two_weights/weight", "two_weights/weight_1"]
    assert len(np.unique(model.layers[0].scale.get_value())) == 3
    assert model.layers[0].shift.get_value() == 0
    with pytest.raises(TypeError, match="takes the name of a weight first"):
        Dense(1).add_weight((3,), "ones")


def test_lambda_with_arguments_a_function_of_shapes_and_several_outputs(tmp_path):
    def powers(x, n):
        return [x, x**n]

    def shapes(shape):
        return [shape, shape]

    x = seqnet.Input((3,))
    first, second = seqnet.layers.Lambda(powers, shapes, arguments={"n": 2})(x)
    model = seqnet.Model(x, [first, second])
    given = X[:, 0].astype("float32")
    np.testing.assert_allclose(model.predict(given), [given, given**2], rtol=1e-6)
    model.save(tmp_path / "model.h5")
    known = {"powers": powers, "shapes": shapes}
    again = seqnet.load_model(tmp_path / "model.h5", known)
    np.testing.assert_array_equal(again.predict(given), model.predict(given))
    wrong = seqnet.layers.Lambda(powers, lambda shape: [shape, (*shape, 2)], arguments={"n": 2})
    with pytest.raises(ValueError, match="not of the output_shape"):
        wrong(given)
    with pytest.raises(TypeError, match="arguments of Lambda are a dictionary"):
        seqnet.layers.Lambda(powers, arguments=[2])

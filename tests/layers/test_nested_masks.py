"""Masks with several axes: padded paragraphs of padded sentences of words."""

import numpy as np
import pytensor.tensor as pt
import pytest
from reference import numpy_layers

import seqnet
from seqnet.layers import (
    GRU,
    LSTM,
    Bidirectional,
    Dense,
    Embedding,
    Lambda,
    Masking,
    TimeDistributed,
)

# Paragraphs of sentences of words: 0 is padding, and a sentence without words is also padding.
TOKENS = np.array(
    [
        [[1, 2, 3, 4], [5, 0, 0, 0], [6, 1, 0, 0]],
        [[3, 0, 0, 0], [2, 2, 0, 0], [0, 0, 0, 0]],
        [[4, 5, 6, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    ]
)
KINDS = {"lstm": (LSTM, numpy_layers.LSTMCell()), "gru": (GRU, numpy_layers.GRUCell())}
PATHS = {"scan": {"fused": False}, "unroll": {"unroll": True}, "fused": {}}


def hierarchy(inner, outer, dtype="float64", **options):
    seqnet.set_random_seed(0)
    layers = [Embedding(7, 3, mask_zero=True, dtype=dtype), TimeDistributed(inner), outer]
    model = seqnet.Model([*layers, Dense(2, dtype=dtype)])
    model.compile(seqnet.optimizers.SGD(0.1), "mse", **options)
    return model


def run(cell, layer, x):
    """Compute all outputs of a layer in NumPy for one unpadded sequence (time, features)."""
    weights = {w.name.rpartition("/")[2]: w.get_value() for w in layer.weights}
    return numpy_layers.recurrent(KINDS[cell][1], x[None], weights)[0][0]


def by_hand(cell, model, paragraph):
    """Compute the outer layer's output at each sentence; each sentence has its padding removed."""
    embedding, words, sentences, _ = model.layers
    table = embedding.get_weights()[0]
    kept = [sentence[sentence != 0] for sentence in paragraph if (sentence != 0).any()]
    vectors = np.stack([run(cell, words.layer, table[sentence])[-1] for sentence in kept])
    return run(cell, sentences, vectors)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cell", KINDS)
def test_padding_of_words_and_sentences_has_no_effect(cell, path):
    cls, options = KINDS[cell][0], {"dtype": "float64"} | PATHS[path]
    model = hierarchy(cls(2, **options), cls(3, **options))
    y = model.predict(TOKENS)
    kernel, bias = model.layers[-1].get_weights()
    for row, paragraph in enumerate(TOKENS):
        expected = by_hand(cell, model, paragraph)[-1] @ kernel + bias
        np.testing.assert_allclose(y[row], expected, rtol=1e-9)


def test_loss_and_metrics_count_only_sentences_with_words():
    model = hierarchy(
        LSTM(2, dtype="float64"),
        LSTM(3, return_sequences=True, dtype="float64"),
        metrics=["mean_absolute_error"],
    )
    y = np.random.default_rng(0).normal(size=(3, 3, 2))
    there = (TOKENS != 0).any(axis=-1)
    y[~there] = np.nan  # padding may have any value
    model.predict(TOKENS)
    kernel, bias = model.layers[-1].get_weights()
    rows = [by_hand("lstm", model, paragraph) @ kernel + bias for paragraph in TOKENS]
    errors = np.concatenate([row - y[k, there[k]] for k, row in enumerate(rows)])
    expected = [(errors**2).mean(), np.abs(errors).mean()]
    np.testing.assert_allclose(model.evaluate(TOKENS, y), expected, rtol=1e-9)
    np.testing.assert_allclose(model.train_on_batch(TOKENS, y), expected, rtol=1e-9)


def test_padding_changes_neither_loss_nor_update():
    y = np.random.default_rng(0).normal(size=(3, 3, 2))
    wider = np.pad(TOKENS, ((0, 0), (0, 2), (0, 3)))
    inputs = [TOKENS, wider, list(TOKENS)]
    targets = [y, np.pad(y, ((0, 0), (0, 2), (0, 0)), constant_values=9.0), list(y)]
    results = []
    for x, t in zip(inputs, targets, strict=True):
        model = hierarchy(LSTM(2, dtype="float64"), GRU(3, return_sequences=True, dtype="float64"))
        history = model.fit(x, t, epochs=2, batch_size=3, shuffle=False, verbose=0).history
        results.append([np.array(history["loss"]), *model.get_weights()])
    for found in results[1:]:
        for ours, expected in zip(found, results[0], strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


def test_gradients_are_the_numerical_ones():
    model = hierarchy(LSTM(2, dtype="float64"), LSTM(2, return_sequences=True, dtype="float64"))
    y = np.random.default_rng(0).normal(size=(3, 3, 2))
    loss = model.evaluate(TOKENS, y)
    before = model.get_weights()
    model.train_on_batch(TOKENS, y)
    gradients = [(a - b) / 0.1 for a, b in zip(before, model.get_weights(), strict=True)]
    for number, gradient in enumerate(gradients):
        direction = np.sign(np.random.default_rng(number).normal(size=gradient.shape))
        ends = []
        for sign in (1, -1):
            moved = [w.copy() for w in before]
            moved[number] += sign * 1e-5 * direction
            model.set_weights(moved)
            ends.append(model.evaluate(TOKENS, y))
        assert np.isfinite(loss)
        expected = (gradient * direction).sum()
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-5, expected, rtol=1e-5, atol=1e-9)


def test_ragged_lists_of_paragraphs_equal_padded_paragraphs():
    model = hierarchy(LSTM(2, dtype="float64"), LSTM(3, return_sequences=True, dtype="float64"))
    whole = model.predict(TOKENS)
    lists = model.predict([TOKENS[0], TOKENS[1, :2], TOKENS[2, :1]])
    for row, output in enumerate(lists):
        np.testing.assert_allclose(output, whole[row, : len(output)], rtol=1e-9)
    y = [np.full((len(row), 2), 0.5) for row in lists]
    padded = np.full((3, 3, 2), 0.5)
    expected = model.evaluate(TOKENS, padded)
    cut = [TOKENS[0], TOKENS[1, :2], TOKENS[2, :1]]
    np.testing.assert_allclose(model.evaluate(cut, y), expected, rtol=1e-9)


def test_masks_of_sentences_and_of_words_are_combined():
    """The mask passed with the data selects sentences, that of the Embedding selects words."""
    model = hierarchy(LSTM(2, dtype="float64"), LSTM(3, return_sequences=True, dtype="float64"))
    tokens = np.where(TOKENS == 0, 1, TOKENS)
    tokens[..., -1] = 0
    y, mask = np.ones((3, 3, 2)), np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], bool)
    hidden = np.where(mask[..., None], tokens, 0)
    expected = model.evaluate(hidden, y)
    np.testing.assert_allclose(model.evaluate(tokens, y, mask=mask), expected, rtol=1e-9)


def test_a_loss_for_each_word_counts_only_unmasked_words():
    seqnet.set_random_seed(0)
    model = seqnet.Model(
        [
            Embedding(7, 3, mask_zero=True),
            TimeDistributed(LSTM(2, return_sequences=True)),
            Dense(4, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    y = np.random.default_rng(0).integers(0, 4, TOKENS.shape)
    y[TOKENS == 0] = 99
    there = TOKENS != 0
    p = model.predict(TOKENS)[there]
    expected = [-np.log(p[np.arange(len(p)), y[there]]).mean(), (p.argmax(-1) == y[there]).mean()]
    np.testing.assert_allclose(model.evaluate(TOKENS, y), expected, rtol=1e-5)


def test_a_wrapped_layer_can_create_a_mask():
    """`TimeDistributed(Embedding)` and `TimeDistributed(Masking)` mask words."""
    inner = LSTM(2, dtype="float64")
    plain = hierarchy(inner, LSTM(3, dtype="float64"))
    expected = plain.predict(TOKENS)
    embedding = Embedding(7, 3, mask_zero=True, dtype="float64")
    wrapped = seqnet.Model(
        [
            TimeDistributed(embedding),
            TimeDistributed(LSTM(2, dtype="float64")),
            LSTM(3, dtype="float64"),
            Dense(2, dtype="float64"),
        ]
    )
    wrapped.build((None, None, None))
    wrapped.set_weights(plain.get_weights())
    np.testing.assert_allclose(wrapped.predict(TOKENS), expected, rtol=1e-12)
    x = np.where(TOKENS[..., None] == 0, 0.0, plain.get_weights()[0][TOKENS])
    masking = seqnet.Model([TimeDistributed(Masking(dtype="float64")), *wrapped.layers[1:]])
    np.testing.assert_allclose(masking.predict(x), expected, rtol=1e-12)


def test_both_directions_of_bidirectional_get_the_mask_of_words():
    model = hierarchy(
        Bidirectional(LSTM(2, dtype="float64")), Bidirectional(LSTM(2, dtype="float64"))
    )
    expected = model.predict(TOKENS)
    wider = np.pad(TOKENS, ((0, 0), (1, 2), (2, 1)))
    np.testing.assert_allclose(model.predict(wider), expected, rtol=1e-9)


def test_time_distributed_can_be_nested():
    deep = np.stack([TOKENS, TOKENS[::-1]])
    seqnet.set_random_seed(0)
    model = seqnet.Model(
        [
            Embedding(7, 3, mask_zero=True, dtype="float64"),
            TimeDistributed(TimeDistributed(LSTM(2, dtype="float64"))),
            TimeDistributed(LSTM(2, dtype="float64")),
            LSTM(2, dtype="float64"),
        ]
    )
    wider = np.pad(deep, ((0, 0), (0, 1), (0, 2), (0, 3)))
    np.testing.assert_allclose(model.predict(wider), model.predict(deep), rtol=1e-9)


def test_a_loss_that_has_no_value_for_each_masked_step_is_refused():
    def one_for_each_sentence(y_true, y_pred):
        return pt.sqr(y_true - y_pred).mean(axis=(-1, -2))

    model = seqnet.Model([Embedding(7, 3, mask_zero=True), Dense(2)])
    model.compile("sgd", one_for_each_sentence)
    with pytest.raises(ValueError, match="gives 2 axes, and the mask has 3"):
        model.evaluate(TOKENS, np.zeros((3, 3, 4, 2)))


def test_a_mask_that_a_layer_cannot_use_is_refused():
    x = np.zeros((3, 3, 2), "float32")

    def first_word(x):
        return x[:, :, 0]

    model = seqnet.Model(
        [Embedding(7, 3, mask_zero=True), Lambda(first_word, supports_masking=True), LSTM(2)]
    )
    with pytest.raises(ValueError, match=r"mask of layer 'lstm' \(LSTM\) has the shape"):
        model.predict(TOKENS)
    with pytest.raises(TypeError, match=r"must be bool.*float32"):
        LSTM(2)(x, mask=np.full((3, 3), 0.5))
    with pytest.raises(ValueError, match=r"\(None, 4\), and its input \(None, 3, 2\)"):
        LSTM(2)(x, mask=np.ones((3, 4), bool))
    with pytest.raises(ValueError, match=r"\(None,\), and its input \(None, 3, 2\)"):
        LSTM(2)(x, mask=np.ones(3, bool))


def test_a_mask_may_be_an_array():
    x = np.random.default_rng(0).normal(size=(2, 3, 2))
    layer = LSTM(2, dtype="float64")
    outputs = [
        layer(x, mask=np.array([[1, 1, 0], [1, 1, 1]], bool)),
        layer(x, mask=[[True, True, False], [True, True, True]]),
        layer(x[:1, :2]),
    ]
    array, nested, cut = outputs
    np.testing.assert_array_equal(array, nested)
    np.testing.assert_allclose(array[:1], cut, rtol=1e-12)


def test_masking_of_several_axes_of_steps():
    x = np.ones((1, 2, 3, 2))
    x[0, 1, 1:] = 0
    inputs = seqnet.Input((None, None, 2))
    masked = seqnet.layers.Masking()(inputs)
    model = seqnet.Model(inputs, seqnet.layers.TimeDistributed(seqnet.layers.LSTM(2))(masked))
    found = model.predict(x)
    np.testing.assert_allclose(model.predict(x[:, 1:, :1]), found[:, 1:], rtol=1e-6)
    with pytest.raises(ValueError, match="rank 3"):
        seqnet.layers.Masking()(np.ones((2, 3)))

"""Results of decoding agree with predictions of whole sequences."""

import itertools

import numpy as np
import pytest

import seqnet
from seqnet.generation import Decoder, Stepper
from seqnet.layers import (
    GRU,
    LSTM,
    Attention,
    Bidirectional,
    Concatenate,
    Dense,
    Dot,
    Embedding,
    GlobalAveragePooling1D,
    Lambda,
    MultiHeadAttention,
    RepeatVector,
    SimpleRNN,
    Softmax,
)

RNG = np.random.default_rng(11)
START, STOP, CLASSES = 0, 1, 4
SOURCES = [RNG.integers(1, 9, n) for n in (5, 2, 7, 3, 3)]
F64 = {"dtype": "float64"}


def sharpened(model, factor=3.0):
    """Return a model whose outputs are far from uniform."""
    model.set_weights([w * factor if w.ndim > 1 else w for w in model.get_weights()])
    return model


def inputs():
    return seqnet.Input((None,), name="source"), seqnet.Input((None,), name="target")


def with_attention(mask_zero=False):
    """An encoder-decoder whose decoder starts from the encoder's states and attends to it."""
    seqnet.set_random_seed(5)
    source, target = inputs()
    embedded = Embedding(9, 3, mask_zero=mask_zero, **F64)(source)
    encoded, h, c = LSTM(4, return_sequences=True, return_state=True, **F64)(embedded)
    steps = Embedding(CLASSES, 3, **F64)(target)
    steps = LSTM(4, return_sequences=True, **F64)(steps, initial_state=[h, c])
    context, _ = Attention(**F64)([steps, encoded], return_attention_scores=True)
    joined = Concatenate(**F64)([steps, context])
    output = Dense(CLASSES, activation="softmax", **F64)(joined)
    return sharpened(seqnet.Model([source, target], output))


def nested():
    """A bidirectional encoder, and a decoder of two layers in a separate model."""
    seqnet.set_random_seed(6)
    source, target = inputs()
    encoded = Bidirectional(GRU(2, return_sequences=True, **F64))(Embedding(9, 3, **F64)(source))
    summary = Dense(4, **F64)(GlobalAveragePooling1D(**F64)(encoded))
    tokens, state = seqnet.Input((None,), name="tokens"), seqnet.Input((4,), dtype="float64")
    steps = Embedding(CLASSES, 3, **F64)(tokens)
    steps = GRU(4, return_sequences=True, **F64)(steps, initial_state=state)
    steps = SimpleRNN(3, return_sequences=True, learn_initial_state=True, **F64)(steps)
    inner = seqnet.Model([tokens, state], steps, name="decoder")
    attend = MultiHeadAttention(2, 2, **F64)
    attended, _ = attend(inner([target, summary]), encoded, return_attention_scores=True)
    output = Dense(CLASSES, activation="softmax", **F64)(attended + summary[:, None, :3])
    return sharpened(seqnet.Model({"source": source, "target": target}, output))


def prefix():
    """A model of one-hot tokens whose output is the logits of the last step."""
    seqnet.set_random_seed(7)
    source = seqnet.Input((None,), name="source")
    target = seqnet.Input((None, CLASSES), name="target", dtype="float64")
    encoded = GRU(4, **F64)(Embedding(9, 3, **F64)(source))
    output = Dense(CLASSES, **F64)(GRU(4, **F64)(target, initial_state=encoded))
    return sharpened(seqnet.Model([source, target], output))


MODELS = {"attention": with_attention, "nested": nested, "prefix": prefix}


def decoder_of(kind, model=None, **options):
    chosen = {"start": START, "stop": STOP, "from_logits": kind == "prefix"}
    return Decoder(model or MODELS[kind](), **{**chosen, **options})


@pytest.fixture(scope="module")
def decoders():
    return {kind: decoder_of(kind) for kind in MODELS}


def teacher_forced(decoder, source, tokens):
    """Return the log probabilities of tokens from predictions of whole sequences."""
    model, targets = decoder.model, np.array([[START, *tokens[:-1]]])
    if decoder.one_hot:
        targets = np.eye(CLASSES)[targets]
    data = {"source": [source]}
    if len(model.compute_output_shape([(1, 5), (1, 3, CLASSES)[: targets.ndim]])) == 2:
        lengths = range(1, len(tokens) + 1)
        outputs = [model.predict({**data, "target": targets[:, :n]})[0] for n in lengths]
        p = np.array([np.exp(o - o.max()) / np.exp(o - o.max()).sum() for o in outputs])
    else:
        p = model.predict({**data, "target": targets})[0]
    return np.log(p[np.arange(len(tokens)), tokens])


def with_stop(hypothesis):
    return [*hypothesis.tokens.tolist(), *[STOP] * hypothesis.finished]


@pytest.mark.parametrize("kind", MODELS)
def test_log_probabilities_are_those_of_the_whole_sequence(kind, decoders):
    decoder = decoders[kind]
    for source, found in zip(SOURCES[:3], decoder.beam_search(SOURCES[:3], 2, 5), strict=True):
        for hypothesis in found:
            expected = teacher_forced(decoder, source, with_stop(hypothesis))
            np.testing.assert_allclose(hypothesis.log_probabilities, expected, rtol=1e-9)
            assert hypothesis.log_probability == pytest.approx(expected.sum())
    (one,) = decoder.sample([SOURCES[0]], 5, seed=2)
    expected = teacher_forced(decoder, SOURCES[0], with_stop(one))
    np.testing.assert_allclose(one.log_probabilities, expected, rtol=1e-9)


def test_attention_made_of_products_is_stepped():
    source, target = inputs()
    encoded = GRU(4, return_sequences=True, **F64)(Embedding(9, 3, **F64)(source))
    steps = GRU(4, return_sequences=True, **F64)(Embedding(CLASSES, 3, **F64)(target))
    weights = Softmax(**F64)(Dot((2, 2), **F64)([steps, encoded]))
    seen = Dot((2, 1), **F64)([weights, encoded]) + steps @ encoded.mT @ encoded
    model = seqnet.Model([source, target], Dense(CLASSES, activation="softmax", **F64)(seen))
    decoder = decoder_of("products", sharpened(model))
    (found,) = decoder.greedy([SOURCES[0]], 5)
    expected = teacher_forced(decoder, SOURCES[0], with_stop(found))
    np.testing.assert_allclose(found.log_probabilities, expected, rtol=1e-9)


def all_sequences(limit):
    others = [token for token in range(CLASSES) if token != STOP]
    for steps in range(limit):
        for tokens in itertools.product(others, repeat=steps):
            yield [*tokens, STOP]
    yield from map(list, itertools.product(others, repeat=limit))


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_a_wide_beam_finds_what_trying_all_sequences_finds(power, decoders):
    decoder, limit = decoders["attention"], 3
    everything = list(all_sequences(limit))
    scored = []
    for tokens in everything:
        total = teacher_forced(decoder, SOURCES[0], tokens).sum()
        scored.append((total / ((5 + len(tokens)) / 6) ** power, tokens))
    scored.sort(reverse=True)
    (found,) = decoder.beam_search(SOURCES[:1], 200, limit, length_penalty=power)
    assert [with_stop(h) for h in found] == [tokens for _, tokens in scored]
    np.testing.assert_allclose([h.score for h in found], [s for s, _ in scored], rtol=1e-9)


@pytest.mark.parametrize("kind", MODELS)
def test_a_beam_of_one_and_greedy_take_the_most_probable_token(kind, decoders):
    decoder = decoders[kind]
    for source, found in zip(SOURCES[:2], decoder.greedy(SOURCES[:2], 6), strict=True):
        tokens = with_stop(found)
        for k in range(len(tokens)):
            tried = [teacher_forced(decoder, source, [*tokens[:k], t])[-1] for t in range(CLASSES)]
            assert int(np.argmax(tried)) == tokens[k]
        assert found.finished == (tokens[-1] == STOP)
        assert len(tokens) <= 6


@pytest.mark.parametrize("kind", ["attention", "nested"])
@pytest.mark.parametrize("width", [1, 3])
def test_a_batch_equals_one_source_at_a_time(kind, width, decoders):
    decoder = decoders[kind]
    together = decoder.beam_search(SOURCES, width, 6, batch_size=3, length_penalty=0.5)
    for source, found in zip(SOURCES, together, strict=True):
        (alone,) = decoder.beam_search([source], width, 6, length_penalty=0.5)
        assert [with_stop(h) for h in found] == [with_stop(h) for h in alone]
        np.testing.assert_allclose([h.score for h in found], [h.score for h in alone], rtol=1e-9)


@pytest.mark.parametrize("kind", ["attention", "nested"])
def test_padding_of_the_source_changes_nothing(kind, decoders):
    decoder = decoders[kind]
    lengths = np.array([len(s) for s in SOURCES])
    padded = seqnet.data.pad_sequences(SOURCES, padding="post", value=8, maxlen=11)
    expected = decoder.greedy(SOURCES, 6)
    for found in (
        decoder.greedy(padded, 6, lengths=lengths),
        decoder.greedy({"source": padded}, 6, mask={"source": np.arange(11) < lengths[:, None]}),
    ):
        for a, b in zip(found, expected, strict=True):
            assert with_stop(a) == with_stop(b)
            np.testing.assert_allclose(a.log_probabilities, b.log_probabilities, rtol=1e-9)


def test_a_mask_that_a_layer_finds_in_the_source_is_used():
    decoder = decoder_of("attention", with_attention(mask_zero=True))
    padded = seqnet.data.pad_sequences(SOURCES, padding="post")
    found, expected = decoder.greedy(padded, 6), decoder.greedy(SOURCES, 6)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.log_probabilities, b.log_probabilities, rtol=1e-9)


def test_samples_depend_on_the_seed_and_not_on_the_batch(decoders):
    decoder = decoders["attention"]
    first = decoder.sample(SOURCES, 8, seed=3)
    for a, b in zip(first, decoder.sample(SOURCES, 8, seed=3, batch_size=2), strict=True):
        assert with_stop(a) == with_stop(b)
    others = [decoder.sample(SOURCES, 8, seed=s) for s in (4, 5)]
    assert any(with_stop(a) != with_stop(b) for a, b in zip(first, others[0], strict=True))
    cold = decoder.sample(SOURCES, 6, temperature=0)
    greedy = decoder.greedy(SOURCES, 6)
    assert [with_stop(h) for h in cold] == [with_stop(h) for h in greedy]


def test_the_frequencies_of_samples_are_the_probabilities(decoders):
    decoder = decoders["attention"]
    found = decoder.sample([SOURCES[0]] * 2000, 1, seed=0, batch_size=2000)
    counts = np.bincount([with_stop(h)[0] for h in found], minlength=CLASSES) / 2000
    expected = [np.exp(teacher_forced(decoder, SOURCES[0], [t])[0]) for t in range(CLASSES)]
    np.testing.assert_allclose(counts, expected, atol=0.04)


def test_the_decoder_follows_the_weights_and_compiles_once(decoders, no_compile):
    decoder = decoders["attention"]
    kept = decoder.model.get_weights()
    decoder.model.set_weights([0 * w for w in kept])
    (found,) = decoder.greedy([SOURCES[0]], 3)
    np.testing.assert_allclose(found.log_probabilities, -np.log(CLASSES))
    decoder.model.set_weights(kept)


def test_without_a_stop_token_all_have_the_maximum_length(decoders):
    decoder = decoder_of("attention", decoders["attention"].model, stop=None)
    for found in decoder.beam_search(SOURCES, 3, 4):
        assert [len(h.tokens) for h in found] == [4, 4, 4]
        assert not any(h.finished for h in found)
    assert {len(h.tokens) for h in decoder.sample(SOURCES, 4, seed=0)} == {4}


def test_float32_models_decode_like_float64_ones(decoders):
    source, target = inputs()
    _, h, c = LSTM(4, return_state=True)(Embedding(9, 3)(source))
    steps = LSTM(4, return_sequences=True)(Embedding(CLASSES, 3)(target), initial_state=[h, c])
    model = seqnet.Model([source, target], Dense(CLASSES, activation="softmax")(steps))
    decoder = Decoder(sharpened(model), start=START, stop=STOP)
    (found,) = decoder.greedy([SOURCES[0]], 5)
    expected = teacher_forced(decoder, SOURCES[0], with_stop(found))
    np.testing.assert_allclose(found.log_probabilities, expected, rtol=1e-4, atol=1e-6)


# --------------------------------------------------------------------------------- stepping


def test_a_stepper_computes_the_encoder_once_and_then_steps_the_decoder(decoders):
    model = decoders["attention"].model
    stepper = Stepper(model, inputs=["target"])
    targets = RNG.integers(0, CLASSES, (2, 4))
    sources = np.array([[3, 4, 5], [6, 7, 8]])
    with pytest.raises(ValueError, match="Call reset first, with the inputs source"):
        stepper(targets[:, 0])
    whole = model.predict({"source": sources, "target": targets})
    stepper.reset(sources)
    for t in range(4):
        np.testing.assert_allclose(stepper(targets[:, t]), whole[:, t], rtol=1e-9)
    with pytest.raises(ValueError, match="those of 2 sequences, but this step has 3"):
        stepper(np.array([1, 1, 1]))


def test_several_inputs_and_outputs_are_stepped():
    a = seqnet.Input((None, 2), name="a", dtype="float64")
    b = seqnet.Input((None, 2), name="b", dtype="float64")
    fixed = seqnet.Input((3,), name="fixed", dtype="float64")
    hidden = GRU(3, return_sequences=True, **F64)(a - b)
    outputs = {"x": Dense(2, **F64)(hidden + fixed[:, None, :]), "y": LSTM(2, **F64)(hidden)}
    model = seqnet.Model([a, b, fixed], outputs)
    data = {
        "a": RNG.normal(size=(4, 3, 2)),
        "b": RNG.normal(size=(4, 3, 2)),
        "fixed": RNG.normal(size=(4, 3)),
    }
    whole = model.predict(data)
    stepper = Stepper(model)
    stepper.reset(data["fixed"])
    for t in range(3):
        found = stepper({"a": data["a"][:, t], "b": data["b"][:, t]})
        np.testing.assert_allclose(found["x"], whole["x"][:, t], rtol=1e-9)
    np.testing.assert_allclose(found["y"], whole["y"], rtol=1e-9)


def test_numbers_are_generated_by_a_model_of_inputs_and_outputs():
    x = seqnet.Input((None,), name="x")
    hidden = GRU(4, return_sequences=True, **F64)(Embedding(7, 3, **F64)(x))
    model = sharpened(seqnet.Model(x, Dense(7, activation="softmax", **F64)(hidden)))
    text = [1, *model.generate([1], 4, temperature=0)]
    for k in range(1, 5):
        assert text[k] == model.predict(np.array([text[:k]]))[0, -1].argmax()
    with pytest.raises(ValueError, match="prime holds 9"):
        model.generate([9], 4)
    with pytest.raises(ValueError, match=r"the inputs source, target.*Decoder"):
        decoder_of("attention").model.generate([1], 4)


# ----------------------------------------------------------------------------- invalid models


def decode(change):
    """Return a decoder of a model that applies a function to the target steps."""
    source, target = inputs()
    encoded = GRU(4, return_sequences=True)(Embedding(9, 4)(source))
    steps = change(Embedding(CLASSES, 4)(target), encoded)
    model = seqnet.Model([source, target], Dense(CLASSES, activation="softmax")(steps))
    return Decoder(model, start=START, stop=STOP)


TWICE = GRU(4, return_sequences=True, name="twice")
WHOLE = {
    "both ends": (
        lambda x, _: Bidirectional(GRU(2, return_sequences=True), name="both")(x),
        "'both' reads from both ends",
    ),
    "backwards": (
        lambda x, _: GRU(2, return_sequences=True, go_backwards=True, name="back")(x),
        "'back' runs backwards",
    ),
    "pooling": (lambda x, _: GlobalAveragePooling1D(name="mean")(x), "'mean' pools over all steps"),
    "self-attention": (
        lambda x, _: Attention(name="self")([x, x]),
        "'self' attends to all steps",
    ),
    "heads": (lambda x, _: MultiHeadAttention(1, 2, name="mha")(x, x), "'mha' attends to all"),
    "queries of the source": (
        lambda x, e: Attention(name="wrong")([e, x]),
        "'wrong' attends to all steps",
    ),
    "causal": (
        lambda x, e: Attention(name="causal")([x, e], use_causal_mask=True),
        "'causal' gives each query other steps",
    ),
    "sum over time": (lambda x, _: x.sum(axis=1), "operation Sum.* may mix the steps"),
    "reversed": (lambda x, _: x[:, ::-1], "operation Subtensor.* may mix the steps"),
    "other steps": (lambda x, e: x + e, "merges steps that are given one at a time"),
    "other steps joined": (
        lambda x, e: Concatenate(name="join")([x, e]),
        "'join' merges steps that are given one at a time",
    ),
    "along time": (lambda x, _: Concatenate(axis=1, name="long")([x, x]), "'long' gives an output"),
    "the number of steps": (lambda x, _: x / x.shape[1].astype("float32"), "number of steps"),
    "the last step": (lambda x, _: x + GRU(4)(x)[:, None, :], "takes the last step as well"),
    "the last step repeated": (lambda x, _: RepeatVector(3, name="rep")(GRU(4)(x)), "'rep' makes"),
    "the last state": (
        lambda x, _: GRU(4, return_sequences=True, name="late")(x, initial_state=GRU(4)(x)),
        "'late' (takes the last|gets an initial state)",
    ),
    "a function": (
        lambda x, _: Lambda(lambda v: v.mean(axis=1), name="mean")(x),
        "'mean' gives an output without the steps",
    ),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_what_needs_the_whole_target_is_refused_by_name(kind, no_compile):
    change, message = WHOLE[kind]
    with pytest.raises(ValueError, match=f"{message}.*cannot run step by step|{message}"):
        decode(change)


def test_a_layer_that_is_called_twice_has_no_single_state(no_compile):
    with pytest.raises(ValueError, match="'twice' is called twice"):
        decode(lambda x, e: TWICE(TWICE(Attention()([x, e]))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 4}, "start is one of the tokens 0 to 3, got 4"),
        ({"stop": -1}, "stop must be at least 0"),
        ({"decoder_input": "targets"}, "no input 'targets'; it has source, target"),
        ({"output": "words"}, "no output 'words'"),
        ({"decoder_input": "source"}, "bidirectional' reads from both ends"),
    ],
)
def test_wrong_options_are_refused(options, message, no_compile):
    with pytest.raises(ValueError, match=message):
        decoder_of("nested", nested(), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.greedy([[1, 2]], 0), "max_length must be at least 1"),
        (lambda d: d.beam_search([[1]], 0), "beam_width must be at least 1"),
        (lambda d: d.sample([[1]], temperature=-1), "temperature must be"),
        (lambda d: d.greedy([[1, 9]]), "holds 9"),
        (lambda d: d.greedy({"sources": [[1]]}), "sources"),
    ],
)
def test_wrong_arguments_are_refused(call, message, decoders, no_compile):
    with pytest.raises(ValueError, match=message):
        call(decoders["attention"])


def test_outputs_that_are_no_probabilities_are_refused(decoders):
    model = decoders["prefix"].model
    with pytest.raises(ValueError, match=r"does not hold probabilities.*from_logits=True"):
        Decoder(model, start=START, stop=STOP).greedy([SOURCES[0]], 3)
    x = seqnet.Input((None,), name="x")
    alone = seqnet.Model(x, Dense(3)(GRU(2)(Embedding(3, 2)(x))))
    with pytest.raises(ValueError, match=r"use Model\.generate"):
        Decoder(alone, start=0)

import os

import numpy as np
import pytest

import seqnet
from seqnet.generation import Stepper, sample, writing
from seqnet.layers import (
    GRU,
    LSTM,
    SLSTM,
    Dense,
    Dropout,
    Embedding,
    SimpleRNN,
    TimeDistributed,
)
from seqnet.text import CharacterVocabulary, WordVocabulary

RNG = np.random.default_rng(20260730)
TOKENS = RNG.integers(0, 7, (3, 6))
SERIES = RNG.normal(size=(3, 6, 2))


def built(*layers, shape=(None, None)):
    model = seqnet.Model(layers)
    model.build(shape)
    return model


def language_model():
    seqnet.set_random_seed(4)
    model = built(
        Embedding(7, 3, dtype="float64", embeddings_initializer="normal"),
        GRU(5, return_sequences=True, dtype="float64"),
        Dense(7, activation="softmax", dtype="float64"),
    )
    model.layers[2].set_weights([4 * w for w in model.layers[2].get_weights()])
    return model


@pytest.fixture(scope="module")
def writer():
    """A model and its stepper, compiled once."""
    model = language_model()
    return model, Stepper(model)


STACKS = {
    "rnn": [lambda: SimpleRNN(4, return_sequences=True, dtype="float64")],
    "lstm": [lambda: LSTM(4, return_sequences=True, dtype="float64")],
    "gru": [lambda: GRU(4, return_sequences=True, dtype="float64")],
    "gru reset before": [lambda: GRU(4, reset_after=False, return_sequences=True, dtype="float64")],
    "unrolled": [lambda: LSTM(4, unroll=True, return_sequences=True, dtype="float64")],
    "one unit": [lambda: LSTM(1, return_sequences=True, dtype="float64")],
    "all three": [
        lambda: SimpleRNN(2, return_sequences=True, dtype="float64"),
        lambda: LSTM(3, return_sequences=True, dtype="float64"),
        lambda: Dropout(0.5),
        lambda: GRU(2, return_sequences=True, dtype="float64"),
        lambda: TimeDistributed(Dense(2, dtype="float64")),
    ],
}


@pytest.mark.parametrize("stack", STACKS)
def test_every_step_equals_that_of_the_whole_sequence(stack):
    model = built(*[make() for make in STACKS[stack]], shape=(None, None, 2))
    whole = model.predict(SERIES)
    stepper = Stepper(model)
    for t in range(6):
        np.testing.assert_allclose(stepper(SERIES[:, t]), whole[:, t], rtol=1e-10, atol=1e-13)


def test_a_model_of_the_last_step_predicts_from_the_steps_so_far():
    model = built(
        Embedding(7, 3, dtype="float64"),
        LSTM(4, return_sequences=True, dtype="float64"),
        GRU(2, dtype="float64"),
        Dense(3, activation="softmax", dtype="float64"),
    )
    stepper = Stepper(model)
    for t in range(6):
        output = stepper(TOKENS[:, t])
        assert output.shape == (3, 3)
        np.testing.assert_allclose(output, model.predict(TOKENS[:, : t + 1]), rtol=1e-10)


def test_masked_tokens_change_no_state():
    model = built(Embedding(7, 3, mask_zero=True, dtype="float64"), LSTM(4, dtype="float64"))
    stepper = Stepper(model)
    stepper(np.array([3, 4]))
    before = [state.copy() for state in stepper.states]
    stepper(np.array([0, 5]))
    for now, then in zip(stepper.states, before, strict=True):
        np.testing.assert_array_equal(now[0], then[0])
        assert not np.array_equal(now[1], then[1])


def test_reset_clears_the_states_and_allows_another_batch_size(writer):
    _, stepper = writer
    stepper.reset()
    first = stepper(np.array([1, 2]))
    assert not np.allclose(stepper(np.array([1, 2])), first)
    stepper.reset()
    np.testing.assert_array_equal(stepper(np.array([1, 2])), first)
    stepper.reset()
    np.testing.assert_allclose(stepper(np.array([2])), first[1:], rtol=1e-12)


def test_stepping_uses_weights_that_change_later(writer):
    model, stepper = writer
    kept = model.get_weights()
    stepper.reset()
    before = stepper(np.array([1]))
    model.set_weights([0 * w for w in kept])
    stepper.reset()
    np.testing.assert_allclose(stepper(np.array([1])), np.full((1, 7), 1 / 7))
    model.set_weights(kept)
    stepper.reset()
    np.testing.assert_array_equal(stepper(np.array([1])), before)


def test_dropout_is_not_active_while_stepping():
    model = built(Dropout(0.9), SimpleRNN(2), shape=(None, None, 2))
    stepper = Stepper(model)
    np.testing.assert_allclose(
        stepper(SERIES[:, 0]), model.predict(SERIES[:, :1]), rtol=1e-5, atol=1e-7
    )


def test_layers_that_cannot_run_step_by_step_are_refused(no_compile):
    model = built(LSTM(2, go_backwards=True, name="back"), shape=(None, None, 2))
    with pytest.raises(ValueError, match="'back' runs backwards"):
        Stepper(model)
    with pytest.raises(ValueError, match="no weights yet"):
        Stepper(seqnet.Model([LSTM(2)]))


def test_a_step_outside_the_vocabulary_is_refused(writer):
    _, stepper = writer
    stepper.reset()
    with pytest.raises(ValueError, match="holds 7 at"):
        stepper(np.array([7]))
    with pytest.raises(ValueError, match="holds -1 at"):
        stepper(np.array([-1]))
    with pytest.raises(TypeError, match="integers"):
        stepper(np.array([1.5]))


def test_another_batch_size_without_reset_is_refused(writer):
    _, stepper = writer
    stepper.reset()
    stepper(np.array([1, 2]))
    with pytest.raises(ValueError, match=r"those of 2 sequences, but this step has 3.*reset"):
        stepper(np.array([1, 2, 3]))


# -------------------------------------------------------------------------------- sampling

P = np.array([0.1, 0.5, 0.15, 0.25])


def shares(**options):
    """Return how often each class is drawn in 4000 draws."""
    rng = np.random.default_rng(0)
    return np.bincount([sample(P, rng, **options) for _ in range(4000)], minlength=4) / 4000


def test_a_temperature_of_zero_selects_the_most_probable_class():
    assert {sample(P, np.random.default_rng(seed), temperature=0) for seed in range(9)} == {1}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, P),
        ({"temperature": 0.5}, P**2 / (P**2).sum()),
        ({"temperature": 2.0}, P**0.5 / (P**0.5).sum()),
        ({"top_k": 2}, [0, 2 / 3, 0, 1 / 3]),
        ({"top_k": 1}, [0, 1, 0, 0]),
        ({"top_k": 9}, P),
        ({"top_p": 0.7}, [0, 2 / 3, 0, 1 / 3]),
        ({"top_p": 0.8}, [0, 5 / 9, 1.5 / 9, 2.5 / 9]),
        ({"top_p": 0.4}, [0, 1, 0, 0]),
        ({"top_p": 1.0}, P),
        ({"top_k": 3, "top_p": 0.6}, [0, 2 / 3, 0, 1 / 3]),
    ],
)
def test_the_frequencies_of_samples_match_the_distribution(options, expected):
    result = shares(**options)
    np.testing.assert_allclose(result, expected, atol=0.03)
    np.testing.assert_array_equal(result[np.asarray(expected) == 0], 0)


def test_impossible_classes_are_never_drawn():
    p, rng = np.array([0.0, 1.0, 0.0]), np.random.default_rng(0)
    assert {sample(p, rng, temperature=5.0) for _ in range(50)} == {1}
    assert sample(np.array([0.0, 0.0, 1.0]), rng, temperature=1e-4) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "temperature must be a number of at least 0, got -1"),
        ({"temperature": float("nan")}, "temperature must be .* got nan"),
        ({"temperature": "hot"}, "temperature must be .* got 'hot'"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, "top_p .* 0.0"),
        ({"top_p": 1.5}, "top_p .* 1.5"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sample(P, np.random.default_rng(0), **options)


@pytest.mark.parametrize("values", [[-1.0, 2.0], [0.5, 2.0], [np.nan, 0.5]])
def test_values_that_are_not_probabilities_are_refused(values):
    with pytest.raises(ValueError, match="must end with a softmax"):
        sample(np.array(values), np.random.default_rng(0))
    assert sample(np.array([-1.0, 2.0]), np.random.default_rng(0), temperature=0) == 1


# ------------------------------------------------------------------------------- generating


def test_the_greedy_text_equals_that_of_predictions_of_whole_sequences(writer):
    model, _ = writer
    text = [1, 2]
    for _ in range(5):
        text.append(int(model.predict(np.array([text]))[0, -1].argmax()))
    assert model.generate([1, 2], 5, temperature=0).tolist() == text[2:]


def test_the_seed_determines_the_generated_numbers(writer):
    model, _ = writer
    texts = [model.generate([1], 30, seed=s).tolist() for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 30
    assert all(0 <= token < 7 for token in texts[0])
    assert len({tuple(model.generate([1], 30)) for _ in range(2)}) == 2


def test_generation_stops_at_the_stop_token(writer):
    model, _ = writer
    free = model.generate([1], 30, seed=1).tolist()
    stop = free[4]
    stopped = model.generate([1], 30, seed=1, stop=stop).tolist()
    assert stopped == free[: free.index(stop) + 1]


def test_generation_stops_at_a_sequence_of_numbers(writer):
    model, _ = writer
    free = model.generate([1], 30, seed=1).tolist()
    for stop in (free[4:7], tuple(free[4:6]), np.array(free[8:11])):
        pairs = [free[k : k + len(stop)] for k in range(30)]
        end = pairs.index(list(stop)) + len(stop)
        assert model.generate([1], 30, seed=1, stop=stop).tolist() == free[:end]
        assert list(model.generate([1], 30, seed=1, stop=stop, stream=True)) == free[:end]
    # The prime is not part of the generated numbers.
    assert len(model.generate([1, free[0]], 1, seed=1, stop=[free[0], 0])) == 1


def test_nothing_is_compiled_for_a_second_text(writer, no_compile):
    model, _ = writer
    assert len(model.generate([1], 3)) == 3
    assert len(model.generate([[1], [2, 3]], 3)) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prime": []}, "prime needs at least one number"),
        ({"prime": [[1], []]}, r"prime\[1\] needs at least one number"),
        ({"prime": [9]}, "prime holds 9"),
        ({"prime": [[1], [1, 9]]}, r"prime\[1\] holds 9"),
        ({"length": -1}, "length must be at least 0, got -1"),
        ({"temperature": -1}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"prime": [[[1, 2]]]}, r"prime\[0\] must be one sequence .* the shape \(1, 2\)"),
        ({"stop": 7}, "stop holds 7, which the model never generates: .* 0 to 6"),
        ({"stop": -1}, "stop must be at least 0, got -1"),
        ({"stop": [1, 9]}, "stop holds 9, which the model never generates"),
        ({"stop": []}, "stop needs at least one number"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": [1, 2]}, "seed has 2 numbers, but there are 1 sequences"),
        ({"top_p": 2}, "top_p must be a probability"),
    ],
)
def test_wrong_arguments_are_refused_before_compiling(writer, no_compile, wrong, message):
    model, _ = writer
    for stream in (False, True):
        with pytest.raises(ValueError, match=message):
            model.generate(**{"prime": [1], "length": 3, "stream": stream, **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stop": "\n\n"}, "stop is the text .* but the model has no vocabulary"),
        ({"stop": 1.0}, "stop must be an integer"),
        ({"stop": True}, "stop must be an integer"),
        ({"stop": [1.5]}, "A number in stop must be an integer"),
        ({"prime": "abc"}, "prime is the text 'abc', but the model has no vocabulary"),
        ({"prime": ["abc"]}, r"prime\[0\] is the text 'abc'"),
        ({"prime": 3}, "prime must be text, or a sequence of numbers, got 3"),
        ({"prime": [1.5]}, "prime must be integers"),
        ({"prime": [None]}, "prime must be an array of numbers.*holds None"),
        ({"top_p": "0.5"}, "top_p must be a number"),
        ({"seed": "a"}, r"seed\[0\] must be an integer"),
        ({"allowed": 3}, "allowed must be a function"),
        ({"stream": 1}, "stream"),
    ],
)
def test_arguments_of_other_types_are_refused_before_compiling(writer, no_compile, wrong, message):
    model, _ = writer
    with pytest.raises(TypeError, match=message):
        model.generate(**{"prime": [1], "length": 3, **wrong})


def test_models_that_cannot_generate_are_refused(no_compile):
    with pytest.raises(ValueError, match="no weights yet"):
        seqnet.Model([Embedding(7, 3)]).generate([1], 3, stop=2)
    with pytest.raises(ValueError, match="9 numbers, but its input does not take the number 8"):
        built(Embedding(7, 3), Dense(9, "softmax")).generate([1], 3)
    with pytest.raises(ValueError, match="a model of whole numbers"):
        built(LSTM(3), shape=(None, None, 2)).generate([1], 3)


def test_outputs_that_are_no_probabilities_are_refused():
    model = built(Embedding(7, 3), LSTM(4), Dense(7))
    with pytest.raises(ValueError, match="must end with a softmax"):
        model.generate([1], 3)


MODELS = {
    "two layers, of sizes that fill vectors": [
        lambda: Embedding(7, 5),
        lambda: LSTM(32, return_sequences=True),
        lambda: GRU(16, return_sequences=True, reset_after=False),
        lambda: Dense(7, activation="softmax"),
    ],
    "last step": [lambda: Embedding(7, 5), lambda: GRU(9), lambda: Dense(7, "softmax")],
    "float64": [
        lambda: Embedding(7, 3, dtype="float64"),
        lambda: SimpleRNN(5, return_sequences=True, dtype="float64"),
        lambda: Dense(7, activation="softmax", dtype="float64"),
    ],
    "a program": [
        lambda: Embedding(7, 5),
        lambda: SLSTM(8, return_sequences=True),
        lambda: Dense(7, activation="softmax"),
    ],
    "with tanh": [
        lambda: Embedding(7, 5),
        lambda: LSTM(6, return_sequences=True),
        lambda: Dense(4, activation="tanh"),
        lambda: Dense(7, activation="softmax"),
    ],
    "no states": [lambda: Embedding(7, 5), lambda: Dense(7, activation="softmax")],
}
IN_PYTHON = {"with tanh"}  # tanh of a layer is computed by NumPy


@pytest.mark.parametrize("name", MODELS)
def test_calls_of_many_steps_give_what_single_steps_give(name, monkeypatch):
    seqnet.set_random_seed(3)
    model = built(*[make() for make in MODELS[name]])
    primes, seeds = [[1], [2, 3, 4], [5, 6]], [4, 5, 6]
    options = {"log_probabilities": True, "temperature": 1.3, "top_k": 6, "top_p": 0.95}
    texts, log_p = model.generate(primes, 40, seed=seeds, **options)
    found = writing.Writer.of(model)
    assert (found.reason is not None) == (name in IN_PYTHON), found.reason
    # Where the vectors are not those of the processor, the compiler rounds rows differently.
    rounding = 1e-5 if "SEQNET_VECTOR_BYTES" in os.environ else 0
    for k in range(3):  # a sequence does not depend on the others
        text, of_text = model.generate(primes[k], 40, seed=[seeds[k]], **options)
        np.testing.assert_array_equal(text, texts[k])
        np.testing.assert_allclose(of_text, log_p[k], rtol=rounding)
    p = model.predict(np.array([[*primes[1], *texts[1]]]))[0]
    if p.ndim == 2:
        expected = np.log(p[2:-1][np.arange(40), texts[1]])
        np.testing.assert_allclose(log_p[1], expected, rtol=1e-4, atol=1e-5)

    def not_captured(*_):
        raise writing.NotCapturedError("in Python")

    monkeypatch.setattr(writing, "CapturedEngine", not_captured)
    again, of_again = model.generate(primes, 40, seed=seeds, **options)
    for k in range(3):
        np.testing.assert_array_equal(again[k], texts[k])
        np.testing.assert_array_equal(of_again[k], log_p[k])


def test_why_a_step_runs_in_python_is_said_once(caplog):
    model = built(*[make() for make in MODELS["with tanh"]])
    with caplog.at_level("INFO", "seqnet"):
        for _ in range(2):
            model.generate([1], 2)
    (message,) = [m for m in caplog.messages if "each step" in m]
    assert "tanh" in message


def test_weights_that_change_between_two_texts_are_used(writer):
    model, _ = writer
    kept = model.get_weights()
    model.set_weights([0 * w for w in kept])
    _, log_p = model.generate([1], 9, log_probabilities=True)
    model.set_weights(kept)
    np.testing.assert_allclose(log_p, np.full(9, -np.log(7)), rtol=1e-12)


def test_a_stream_gives_the_same_as_the_whole(writer):
    model, _ = writer
    primes = [[1, 2], [3]]
    stop = model.generate([1, 2], 30, seed=2).tolist()[10]
    texts, log_p = model.generate(primes, 30, seed=2, stop=stop, log_probabilities=True)
    pairs = list(model.generate(primes, 30, seed=2, stop=stop, log_probabilities=True, stream=True))
    assert len(pairs) == max(map(len, texts))
    for k in range(2):
        assert [n[k] for n, _ in pairs if n[k] is not None] == texts[k].tolist()
        assert [p[k] for _, p in pairs if p[k] is not None] == log_p[k].tolist()


def test_constraints_allow_some_numbers_only(writer):
    model, _ = writer
    seen = []

    def no_repetition(numbers):
        seen.append(numbers.tolist())
        mask = np.ones(7, bool)
        mask[numbers[-1]] = False
        return mask

    text = model.generate([1, 2], 30, seed=0, allowed=no_repetition).tolist()
    assert all(a != b for a, b in zip([2, *text], text, strict=False))
    assert seen[0] == [1, 2]
    assert seen[-1] == [1, 2, *text[:-1]]
    everything = model.generate([1, 2], 30, seed=0, allowed=lambda numbers: np.ones(7, bool))
    np.testing.assert_array_equal(everything, model.generate([1, 2], 30, seed=0))
    with pytest.raises(ValueError, match=r"allowed must return a bool array \(7,\)"):
        model.generate([1], 3, allowed=lambda numbers: [True])
    with pytest.raises(ValueError, match="permits no number that is possible after 0 numbers"):
        model.generate([1], 3, allowed=lambda numbers: np.zeros(7, bool))


def test_texts_are_generated_with_the_vocabulary_of_the_model(tmp_path):
    vocabulary = CharacterVocabulary.of("abcdefg")
    model = language_model()
    numbers = model.generate([0, 1], 12, seed=1)
    model.vocabulary = vocabulary
    text = model.generate("ab", 12, seed=1)
    assert text == vocabulary.decode(numbers)
    assert "".join(model.generate("ab", 12, seed=1, stream=True)) == text
    assert model.generate("ab", 12, seed=1, stop=text[3:5]) == text[: text.index(text[3:5]) + 2]
    assert model.generate(["ab", "c"], 12, seed=[1, 2])[0] == model.generate("ab", 12, seed=[1])
    assert model.generate([0, 1], 12, seed=1).tolist() == numbers.tolist()
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    assert again.vocabulary.characters == "abcdefg"
    assert again.generate("ab", 12, seed=1) == text
    with pytest.raises(ValueError, match="prime: The character 'x' at position 1 is not in"):
        model.generate("axb", 3)
    with pytest.raises(ValueError, match=r"prime\[1\]: The character 'x' at position 0"):
        model.generate(["a", "x"], 3)
    model.vocabulary = WordVocabulary(["w1", "w2", "w3", "w4", "w5", "w6"])
    words = model.generate(["w1", "w2"], 5, seed=1)
    assert list(model.generate(["w1", "w2"], 5, seed=1, stream=True)) == words
    assert model.generate([["w1", "w2"], ["w3"]], 5, seed=1)[0] == words
    with pytest.raises(TypeError, match="A vocabulary is one of"):
        model.vocabulary = "abc"
    model.vocabulary = None
    assert model.vocabulary is None


@pytest.mark.parametrize("temperature", [0, 1])
def test_probabilities_that_are_not_numbers_are_refused(temperature):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="Probabilities must be at least 0"):
        sample(np.array([np.nan, 1.0]), rng, temperature)
    with pytest.raises(ValueError, match=r"one step, got the shape \(1, 2\)"):
        sample(np.array([[0.0, 1.0]]), rng, temperature)


def test_generation_does_not_change_training():
    def losses(look):
        model = language_model()
        model.compile("adam")
        seqnet.set_random_seed(0)
        result = []
        for _ in range(2):
            result.append(model.train_on_batch(TOKENS, TOKENS))
            if look:
                model.generate([1], 3, seed=0)
        return result

    assert losses(False) == losses(True)

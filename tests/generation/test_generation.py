import numpy as np
import pytest

import seqnet
from seqnet import generation
from seqnet.generation import Stepper, generate, sample
from seqnet.layers import GRU, LSTM, Dense, Dropout, Embedding, SimpleRNN, TimeDistributed

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
    model, stepper = writer
    written = list(generate(model, [1, 2], 5, temperature=0, stepper=stepper))
    text = [1, 2]
    for _ in range(5):
        text.append(int(model.predict(np.array([text]))[0, -1].argmax()))
    assert written == text[2:]


def test_the_seed_determines_the_generated_numbers(writer):
    model, stepper = writer
    texts = [list(generate(model, [1], 30, seed=s, stepper=stepper)) for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[0]) == 30
    assert all(0 <= token < 7 for token in texts[0])


def test_generation_stops_at_the_stop_token(writer):
    model, stepper = writer
    free = list(generate(model, [1], 30, seed=1, stepper=stepper))
    stop = free[4]
    stopped = list(generate(model, [1], 30, seed=1, stop=stop, stepper=stepper))
    assert stopped == free[: free.index(stop) + 1]


def test_generation_stops_at_a_sequence_of_numbers(writer):
    model, stepper = writer
    free = list(generate(model, [1], 30, seed=1, stepper=stepper))
    for stop in (free[4:7], tuple(free[4:6]), np.array(free[8:11])):
        pairs = [free[k : k + len(stop)] for k in range(30)]
        end = pairs.index(list(stop)) + len(stop)
        stopped = list(generate(model, [1], 30, seed=1, stop=stop, stepper=stepper))
        assert stopped == free[:end]
    # The prime is not part of the generated numbers.
    prime = [1, free[0]]
    again = list(generate(model, prime, 1, seed=1, stop=[free[0], 0], stepper=stepper))
    assert len(again) == 1


def test_nothing_is_compiled_with_an_existing_stepper(writer, no_compile):
    model, stepper = writer
    assert len(list(generate(model, [1], 3, stepper=stepper))) == 3


def test_the_prime_is_checked(writer):
    model, stepper = writer
    with pytest.raises(ValueError, match="at least one number"):
        list(generate(model, [], 3, stepper=stepper))
    with pytest.raises(ValueError, match="prime holds 9"):
        list(generate(model, [1, 9], 3, stepper=stepper))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prime": []}, "at least one number"),
        ({"prime": [9]}, "prime holds 9"),
        ({"length": -1}, "length must be at least 0, got -1"),
        ({"temperature": -1}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"prime": [[1, 2]]}, r"prime must be one sequence of numbers, got the shape \(1, 2\)"),
        ({"stop": 7}, "stop holds 7, which the model never generates: .* 0 to 6"),
        ({"stop": -1}, "stop must be at least 0, got -1"),
        ({"stop": [1, 9]}, "stop holds 9, which the model never generates"),
        ({"stop": []}, "stop needs at least one number"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"top_p": 2}, "top_p must be a probability"),
    ],
)
def test_wrong_arguments_are_refused_before_compiling(writer, no_compile, wrong, message):
    model, _ = writer
    with pytest.raises(ValueError, match=message):
        generate(model, **{"prime": [1], "length": 3, **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stop": "\n\n"}, r"stop must hold numbers, got the text .*vocabulary.encode\(stop\)"),
        ({"stop": 1.0}, "stop must be an integer"),
        ({"stop": True}, "stop must be an integer"),
        ({"stop": [1.5]}, "A number in stop must be an integer"),
        ({"prime": "abc"}, r"prime must hold numbers, got the text 'abc'.*encode\(prime\)"),
        ({"prime": 3}, "prime must be a sequence of numbers, got 3"),
        ({"prime": [1.5]}, "prime must be integers"),
        ({"prime": [None]}, "prime must be an array of numbers.*holds None"),
        ({"top_p": "0.5"}, "top_p must be a number"),
        ({"seed": "a"}, "seed must be an integer"),
    ],
)
def test_arguments_of_other_types_are_refused_before_compiling(writer, no_compile, wrong, message):
    model, _ = writer
    with pytest.raises(TypeError, match=message):
        generate(model, **{"prime": [1], "length": 3, **wrong})


def test_a_model_without_weights_is_refused(no_compile):
    with pytest.raises(ValueError, match="no weights yet"):
        generate(seqnet.Model([Embedding(7, 3)]), [1], 3, stop=2)


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
                list(generation.generate(model, [1], 3, seed=0))
        return result

    assert losses(False) == losses(True)

"""Vocabularies of words, and parallel rows of a text."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import seqnet
from seqnet import generation
from seqnet.layers import LSTM, Dense, Embedding
from seqnet.text import BytePairVocabulary, CharacterVocabulary, WordVocabulary, streams


def test_a_word_vocabulary_keeps_the_most_frequent_words():
    words = ["b", "a", "a", "c", "a", "b", "c", "d"]
    vocabulary = WordVocabulary.of(words, size=3)
    assert vocabulary.words == ("<unk>", "a", "b")
    assert vocabulary.encode(words).tolist() == [2, 1, 1, 0, 1, 2, 0, 0]
    assert vocabulary.encode([]).dtype == "int32"
    assert WordVocabulary.of(words).words == ("<unk>", "a", "b", "c", "d")
    again = WordVocabulary(vocabulary.words)  # as it is saved with a model
    assert again.words == vocabulary.words


def test_the_unknown_word_of_a_text_has_the_number_of_unknown_words():
    vocabulary = WordVocabulary.of(["the", "N", "cat", "N"], unknown="N")
    assert vocabulary.words == ("N", "the", "cat")
    assert WordVocabulary(["a", "?"], unknown="?").encode(["x", "a"]).tolist() == [1, 0]


def test_invalid_words_are_refused():
    with pytest.raises(ValueError, match="'a' is there twice"):
        WordVocabulary(["a", "b", "a"])
    with pytest.raises(TypeError, match=r"pass text.split\(\)"):
        WordVocabulary.of("the cat")
    with pytest.raises(TypeError, match=r"pass text.split\(\)"):
        WordVocabulary(["a"]).encode("the cat")
    with pytest.raises(TypeError, match="holds words, got 3"):
        WordVocabulary([3])
    with pytest.raises(ValueError, match="not from 0 to 1"):
        WordVocabulary(["a"]).decode([2])
    with pytest.raises(ValueError, match="size"):
        WordVocabulary.of(["a"], size=0)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("steps", [1, 4])
def test_windows_of_streams_continue_each_other(rows, steps):
    numbers = np.random.default_rng(0).integers(0, 99, 50)
    X, y = streams(numbers, rows, steps)
    whole, after = streams(numbers, rows)
    batches = X.reshape(-1, rows, steps)
    joined = np.concatenate(list(batches), axis=1)
    length = joined.shape[1]
    assert length % steps == 0
    np.testing.assert_array_equal(joined.ravel(), numbers[: rows * length])
    np.testing.assert_array_equal(whole.ravel()[1:], after.ravel()[:-1])
    follows = {(k, t): numbers[k * length + t + 1] for k in range(rows) for t in range(length)}
    targets = np.concatenate(list(y.reshape(-1, rows, steps)), axis=1)
    assert all(targets[k, t] == value for (k, t), value in follows.items())


def test_a_text_that_is_too_short_for_its_rows_is_an_error():
    with pytest.raises(ValueError, match="6 numbers is too short for 2 rows of 3 steps"):
        streams(np.arange(6), 2, 3)
    assert streams(np.arange(7), 2, 3)[1].tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(ValueError, match="one sequence"):
        streams(np.ones((2, 2)), 1)


def test_byte_pairs_need_a_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install seqnet\[tokenizers\]"):
        BytePairVocabulary.of("text", 300)
    with pytest.raises(ValueError, match="size must be at least 256, got 4"):
        BytePairVocabulary.of("text", 4)


@pytest.mark.optional("tokenizers")
def test_a_vocabulary_of_byte_pairs_travels_with_its_model(tmp_path):
    text = "ein Hörnchen für den König, ein Brötchen für die Königin. " * 20
    vocabulary = BytePairVocabulary.of(text, 280)
    assert len(vocabulary) == 280
    numbers = vocabulary.encode("die König\U0001f451in")
    assert len(numbers) < 16
    assert vocabulary.decode(numbers) == "die König\U0001f451in"
    with pytest.raises(TypeError, match="encodes text"):
        vocabulary.encode([1])
    with pytest.raises(ValueError, match="not from 0 to 279"):
        vocabulary.decode([280])
    model = seqnet.Model([Embedding(280, 4), LSTM(4, return_sequences=True), Dense(280, "softmax")])
    model.build((None, None))
    model.vocabulary = vocabulary
    model.save(tmp_path / "model.h5")
    model = seqnet.load_model(tmp_path / "model.h5")
    written = model.generate("die ", 60, seed=0)
    # Numbers drawn at random are bytes that are no characters, which are spelled in another way.
    pieces = "".join(model.generate("die ", 60, seed=0, stream=True))
    assert pieces.replace("\ufffd", "") == written.replace("\ufffd", "")
    bits = generation.bits_per_character(model, "die Königin")
    first = vocabulary.decode(vocabulary.encode("die Königin")[:1])
    total = -generation.log_probabilities(model, "die Königin").sum() / np.log(2)
    assert bits == pytest.approx(total / (len("die Königin") - len(first)))


def test_the_perplexity_of_a_text(monkeypatch):
    model = seqnet.Model([Embedding(5, 3), LSTM(4, return_sequences=True), Dense(5, "softmax")])
    model.build((None, None))
    model.vocabulary = CharacterVocabulary("abcde")
    text = "abcdeabcedadde"
    numbers = model.vocabulary.encode(text)
    p = model.predict(numbers[None, :-1])[0][np.arange(len(text) - 1), numbers[1:]]
    np.testing.assert_allclose(generation.log_probabilities(model, text), np.log(p), rtol=1e-5)
    assert generation.perplexity(model, text) == pytest.approx(np.exp(-np.log(p).mean()))
    assert generation.bits_per_character(model, text) == pytest.approx(-np.log2(p).mean())
    monkeypatch.setattr(generation.scoring, "WINDOW", 5)  # states are carried
    np.testing.assert_allclose(generation.log_probabilities(model, numbers), np.log(p), rtol=1e-5)
    for wrong, message in (
        ("a", "at least two"),
        ("abx", "'x' at position 2"),
        ([1, 9], "holds 9"),
    ):
        with pytest.raises(ValueError, match=message):
            generation.perplexity(model, wrong)

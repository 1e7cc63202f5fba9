"""Vocabularies of words, and parallel rows of a text."""

from __future__ import annotations

import numpy as np
import pytest

from seqnet.text import WordVocabulary, streams


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

"""Vocabularies of characters, words and pieces of text, and training examples from long texts."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from seqnet.common.checks import check_count, first_place
from seqnet.data.validation import as_array

__all__ = [
    "BytePairVocabulary",
    "CharacterVocabulary",
    "WordVocabulary",
    "bigram_cross_entropy",
    "forbidden_transitions",
    "next_step_examples",
    "streams",
]


class CharacterVocabulary:
    """A mapping between characters and integers.

    Parameters
    ----------
    characters : str or list of str
        Each character once; its index is its number.

    Examples
    --------
    >>> from seqnet.text import CharacterVocabulary
    >>> vocabulary = CharacterVocabulary.of("hello")
    >>> vocabulary.characters
    'ehlo'
    >>> vocabulary.encode("hole").tolist()
    [1, 3, 2, 0]
    >>> vocabulary.decode([1, 3, 2, 0])
    'hole'
    """

    def __init__(self, characters: Iterable[str]):
        if not isinstance(characters, Iterable):
            raise TypeError(f"A vocabulary is made of characters, got {characters!r}.")
        characters = list(characters)
        for c in characters:
            if not isinstance(c, str):
                raise TypeError(f"A vocabulary holds characters, got {c!r}.")
        if any(len(c) != 1 for c in characters) or len(set(characters)) != len(characters):
            raise ValueError("A vocabulary holds single characters, each once.")
        if not characters:
            raise ValueError("A vocabulary needs at least one character.")
        self.characters = "".join(characters)
        self._numbers = {c: k for k, c in enumerate(characters)}

    @classmethod
    def of(cls, text: str) -> CharacterVocabulary:
        """Return the vocabulary of all characters of a text, in the order of their code points."""
        return cls(sorted(set(text)))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Return the numbers of a text's characters, int32 (length,).

        Raises
        ------
        ValueError
            If a character is not in the vocabulary; the message says which and where.
        """
        if not isinstance(text, (str, list, tuple)):
            raise TypeError(f"A vocabulary encodes text, got {text!r}.")
        try:
            return np.fromiter((self._numbers[c] for c in text), "int32", len(text))
        except KeyError as error:
            unknown = error.args[0]
            raise ValueError(
                f"The character {unknown!r} at position {text.index(unknown)} is not in the "
                f"vocabulary of {len(self)} characters."
            ) from None

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the text of some numbers.

        Raises
        ------
        ValueError, TypeError
            If they are not a sequence of numbers of characters.
        """
        numbers = list(numbers)
        check_numbers(numbers, len(self), "numbers")
        return "".join(self.characters[n] for n in numbers)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, as values that JSON can hold."""
        return {"characters": self.characters}


class WordVocabulary:
    """A mapping between words and integers, with a number for all unknown words.

    Parameters
    ----------
    words : list of str
        Each word once; its index is its number.
    unknown : str
        The word that stands for all others; put before the others if `words` does not hold it.

    Examples
    --------
    >>> from seqnet.text import WordVocabulary
    >>> vocabulary = WordVocabulary.of("the cat sat on the mat".split(), size=4)
    >>> vocabulary.words
    ('<unk>', 'the', 'cat', 'sat')
    >>> vocabulary.encode(["the", "dog", "sat"]).tolist()
    [1, 0, 3]
    >>> vocabulary.decode([1, 0, 3])
    ['the', '<unk>', 'sat']
    """

    def __init__(self, words: Iterable[str], unknown: str = "<unk>"):
        words = [words] if isinstance(words, str) else list(words)
        if not isinstance(unknown, str):
            raise TypeError(f"unknown is a word, got {unknown!r}.")
        for word in words:
            if not isinstance(word, str):
                raise TypeError(f"A vocabulary holds words, got {word!r}.")
        if unknown not in words:
            words.insert(0, unknown)
        if len(set(words)) != len(words):
            raise ValueError(
                f"A vocabulary holds each word once; {Counter(words).most_common(1)[0][0]!r} is "
                "there twice."
            )
        self.words, self.unknown = tuple(words), unknown
        self._numbers = {word: number for number, word in enumerate(words)}

    @classmethod
    def of(
        cls, words: Iterable[str], size: int | None = None, unknown: str = "<unk>"
    ) -> WordVocabulary:
        """Return the vocabulary of a text, given as its words in order.

        Parameters
        ----------
        words : list of str
            The text. ``text.split()`` cuts a string at blanks.
        size : int, optional
            Keep only the most frequent words, so many that the vocabulary has this size; of two
            equally frequent words the first one in the text is kept.
        unknown : str
            The word that stands for all others.
        """
        if isinstance(words, str):
            raise TypeError("WordVocabulary.of takes a list of words: pass text.split().")
        counts = Counter(words)
        counts.pop(unknown, None)
        kept = None if size is None else check_count(size, "size") - 1
        return cls([unknown, *(word for word, _ in counts.most_common(kept))], unknown)

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Iterable[str]) -> np.ndarray:
        """Return the numbers of words, int32 (length,); that of `unknown` for unknown ones."""
        if isinstance(words, str):
            raise TypeError("A vocabulary of words encodes a list of words: pass text.split().")
        other = self._numbers[self.unknown]
        return np.array([self._numbers.get(word, other) for word in words], "int32")

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """Return the words of some numbers.

        Raises
        ------
        ValueError, TypeError
            If they are not a sequence of numbers of words.
        """
        numbers = list(numbers)
        check_numbers(numbers, len(self), "numbers")
        return [self.words[n] for n in numbers]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, as values that JSON can hold."""
        return {"words": list(self.words), "unknown": self.unknown}


class BytePairVocabulary:
    """A mapping between text and the numbers of frequent pieces of it.

    Pieces are made by byte-pair encoding (Sennrich et al., 2016): at first each byte is a piece;
    then the most frequent pair of neighbours becomes a piece, again and again. All text can be
    encoded, and is decoded without a change. It needs the package ``tokenizers``:
    ``pip install seqnet[tokenizers]``.

    Parameters
    ----------
    state : str
        The pieces and their order as `of` makes them, in the format of ``tokenizers``.

    Raises
    ------
    ImportError
        If the package ``tokenizers`` is not installed.

    Examples
    --------
    >>> from seqnet.text import BytePairVocabulary
    >>> vocabulary = BytePairVocabulary.of("low lower lowest " * 9, size=270)   # doctest: +SKIP
    >>> vocabulary.decode(vocabulary.encode("slow"))                            # doctest: +SKIP
    'slow'
    """

    def __init__(self, state: str):
        self._tokenizer = tokenizers_package().Tokenizer.from_str(state)

    @classmethod
    def of(cls, text: str | Iterable[str], size: int) -> BytePairVocabulary:
        """Return the vocabulary of a text, or of several texts.

        Parameters
        ----------
        text : str or list of str
        size : int
            The number of pieces: at least 256, one for each byte. A short text has fewer.
        """
        check_count(size, "size", 256)
        package = tokenizers_package()
        tokenizer = package.Tokenizer(package.models.BPE())
        tokenizer.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = package.decoders.ByteLevel()
        trainer = package.trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=package.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator([text] if isinstance(text, str) else text, trainer)
        return cls(tokenizer.to_str())

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> np.ndarray:
        """Return the numbers of a text's pieces, int32 (length,)."""
        if not isinstance(text, str):
            raise TypeError(f"A vocabulary encodes text, got {text!r}.")
        return np.array(self._tokenizer.encode(text).ids, "int32")

    def decode(self, numbers: Iterable[int]) -> str:
        """Return the text of some numbers.

        Raises
        ------
        ValueError, TypeError
            If they are not a sequence of numbers of pieces.
        """
        numbers = [int(n) for n in numbers]
        check_numbers(numbers, len(self), "numbers")
        return str(self._tokenizer.decode(numbers))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, as values that JSON can hold."""
        return {"state": self._tokenizer.to_str()}


Vocabulary: TypeAlias = CharacterVocabulary | WordVocabulary | BytePairVocabulary
VOCABULARIES = {c.__name__: c for c in (CharacterVocabulary, WordVocabulary, BytePairVocabulary)}


def tokenizers_package() -> Any:
    """Return the package ``tokenizers``, or raise an error that says how to install it."""
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise ImportError(
            "BytePairVocabulary needs the package tokenizers: pip install seqnet[tokenizers]"
        ) from error


def check_numbers(numbers: Sequence[int] | np.ndarray, count: int, name: str) -> None:
    """Raise if numbers are not one sequence of integers in ``[0, count)``."""
    if len(numbers) == 0:
        return
    array = as_array(numbers, name)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise TypeError(
            f"{name} must be one sequence of integers, got the shape {array.shape} and the "
            f"dtype {array.dtype}."
        )
    wrong = (array < 0) | (array >= count)
    if wrong.any():
        (place,) = first_place(wrong)
        raise ValueError(f"{name}[{place}] is {array[place]}, which is not from 0 to {count - 1}.")


def next_step_examples(numbers: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut one long sequence into examples for predicting the next number at each step.

    Parameters
    ----------
    numbers : array (total,)
    length : int
        Steps of each example. The remainder at the end is dropped.

    Returns
    -------
    (X, y), each (examples, length)
        ``y`` is ``X`` shifted by one: ``y[n, t]`` follows ``X[n, t]``.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.text import next_step_examples
    >>> X, y = next_step_examples(np.arange(7), 3)
    >>> X.tolist(), y.tolist()
    ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    """
    numbers = as_array(numbers, "numbers")
    length = check_count(length, "length")
    if numbers.ndim != 1:
        raise ValueError(f"numbers must be one sequence, got the shape {numbers.shape}.")
    count = (len(numbers) - 1) // length
    if count < 1:
        raise ValueError(
            f"A sequence of {len(numbers)} numbers is too short for one example of {length} steps "
            "and the number after each."
        )
    x = numbers[: count * length].reshape(count, length)
    y = numbers[1 : count * length + 1].reshape(count, length)
    return x, y


def streams(
    numbers: np.ndarray, rows: int, steps: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Cut one long sequence into parallel rows, each a contiguous part of it.

    A model that carries its states reads all rows side by side, and so a long text in few steps.
    There are two ways: ``fit(X, y, batch_size=rows, tbptt=steps)`` with whole rows, and layers
    with ``stateful=True`` on rows that are already cut, with ``batch_size=rows`` and
    ``shuffle=False``.

    Parameters
    ----------
    numbers : array (total,)
        The remainder at the end that does not fill the rows is dropped.
    rows : int
        The size of a batch.
    steps : int, optional
        Cut the rows into windows of this many steps, in the order of time: first the first window
        of all rows, and so on. Row k of each batch of `rows` samples continues row k of the one
        before.

    Returns
    -------
    (X, y), each (rows, time), or with `steps` (windows * rows, steps)
        ``y[n, t]`` follows ``X[n, t]`` in the sequence.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.text import streams
    >>> X, y = streams(np.arange(9), 2)
    >>> X.tolist(), y.tolist()
    ([[0, 1, 2, 3], [4, 5, 6, 7]], [[1, 2, 3, 4], [5, 6, 7, 8]])
    >>> X, y = streams(np.arange(9), 2, steps=2)
    >>> X.tolist()
    [[0, 1], [4, 5], [2, 3], [6, 7]]
    """
    numbers = as_array(numbers, "numbers")
    rows = check_count(rows, "rows")
    size = 1 if steps is None else check_count(steps, "steps")
    if numbers.ndim != 1:
        raise ValueError(f"numbers must be one sequence, got the shape {numbers.shape}.")
    length = (len(numbers) - 1) // rows // size * size
    if length < 1:
        raise ValueError(
            f"A sequence of {len(numbers)} numbers is too short for {rows} rows of {size} steps "
            "and the number after each."
        )
    x, y = (numbers[k : k + rows * length].reshape(rows, length) for k in (0, 1))
    if steps is None:
        return x, y

    def windows(array: np.ndarray) -> np.ndarray:
        return array.reshape(rows, -1, size).swapaxes(0, 1).reshape(-1, size)

    return windows(x), windows(y)


def bigram_cross_entropy(train: np.ndarray, test: np.ndarray, classes: int) -> float:
    """Return the cross-entropy of a bigram model in nats per step, a baseline for sequence models.

    The probabilities for `test` are the counts of pairs in `train`, with one added to each
    (Laplace).

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.text import bigram_cross_entropy
    >>> always = np.array([0, 1] * 500)
    >>> bigram_cross_entropy(always, always, 2) < 0.01
    True
    """
    train, test = as_array(train, "train"), as_array(test, "test")
    for name, numbers in (("train", train), ("test", test)):
        check_numbers(numbers, classes, name)
        if len(numbers) < 2:
            raise ValueError(f"{name} has {len(numbers)} numbers; a pair needs two.")
    counts = np.ones((classes, classes))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    log_p = np.log(counts / counts.sum(axis=1, keepdims=True))
    return float(-log_p[test[:-1], test[1:]].mean())


SCHEMES = {"BIO": "BIO", "BIOES": "BIOES", "BILOU": "BIOLU"}
"""The prefixes of tags by scheme: of a begin, a step inside, none, an end, and a single step."""


def forbidden_transitions(
    tags: Sequence[str], scheme: str = "BIO"
) -> list[tuple[int | str, int | str]]:
    """Return the transitions that a scheme of tags excludes, for `seqnet.layers.CRF`.

    A tag is ``"O"``, outside of all segments, or a prefix and the kind of a segment such as
    ``"B-PER"``. In the scheme BIO a segment begins with B and goes on with I of the same kind
    (Ramshaw and Marcus, 1995; Tjong Kim Sang and Veenstra, 1999: IOB2). In BIOES it ends with E,
    and a segment of one step is S; BILOU has L and U instead.

    Parameters
    ----------
    tags : list of str
        The tag of each class number.
    scheme : "BIO", "BIOES" or "BILOU"

    Returns
    -------
    list of pairs
        ``(from, to)`` of class numbers, also ``("start", to)`` and ``(from, "end")``.

    Raises
    ------
    ValueError
        If a scheme is unknown, or a tag does not belong to it.

    Examples
    --------
    >>> from seqnet.text import forbidden_transitions
    >>> forbidden_transitions(["O", "B-PER", "I-PER"])
    [('start', 2), (0, 2)]
    """
    if scheme not in SCHEMES:
        known = ", ".join(map(repr, SCHEMES))
        raise ValueError(f"scheme is one of {known}, got {scheme!r}.")
    prefixes = SCHEMES[scheme]
    begin, inside, outside = prefixes[0], prefixes[1], prefixes[2]
    final = prefixes[3] if len(prefixes) > 3 else ""
    parts = []
    for number, tag in enumerate(tags):
        prefix, _, kind = str(tag).partition("-")
        if tag != outside and (not kind or prefix not in prefixes or prefix == outside):
            allowed = ", ".join(f"'{p}-...'" for p in prefixes if p != outside)
            raise ValueError(
                f"tags[{number}] is {tag!r}; in the scheme {scheme} a tag is 'O', or {allowed}."
            )
        parts.append((prefix, kind))
    unfinished = begin + inside if final else ""  # a segment must go on after these

    def goes_on(before: tuple[str, str], after: tuple[str, str]) -> bool:
        return before[0] in (begin, inside) and after[0] in (inside, final)

    found: list[tuple[int | str, int | str]] = []
    for number, (prefix, _) in enumerate(parts):
        if prefix in (inside, final):
            found.append(("start", number))
        if unfinished and prefix in unfinished:
            found.append((number, "end"))
    for k, before in enumerate(parts):
        for j, after in enumerate(parts):
            same = goes_on(before, after) and before[1] == after[1]
            needed = after[0] in (inside, final) or (unfinished and before[0] in unfinished)
            if needed and not same:
                found.append((k, j))
    return found

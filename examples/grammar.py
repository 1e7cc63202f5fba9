"""Learn sentences of a toy grammar, and decode greedily.

    python examples/grammar.py

The sentences have different lengths and are passed as a list: the steps that pad a minibatch count
neither in states nor in the loss. After training, the most probable next word is taken again and
again until the full stop. This is the tutorial of theano_lstm (Raiman, 2014), with 100 sentences
and AdaDelta as there.
"""

from __future__ import annotations

import argparse

import numpy as np

import seqnet
from seqnet.layers import Dense, Embedding, SimpleRNN
from seqnet.text import WordVocabulary

NOUNS = {"cat": "mouse", "dog": "cat", "girl": "book", "boy": "ball", "mouse": "cheese"}
VERBS = {"cat": "chases", "dog": "sees", "girl": "reads", "boy": "throws", "mouse": "eats"}
PLACES = ("in the garden", "at home")


def sentence(rng: np.random.Generator) -> list[str]:
    """Draw a sentence: the <noun> <verb> the <noun> (in a place | and <verb> the <noun>)* ."""
    noun = str(rng.choice(list(NOUNS)))
    words = ["the", noun, VERBS[noun], "the", NOUNS[noun]]
    while rng.random() < 0.3:
        words += ["and", VERBS[noun], "the", NOUNS[noun]]
    if rng.random() < 0.5:
        words += str(rng.choice(PLACES)).split()
    return [*words, "."]


def is_grammatical(words: list[str]) -> bool:
    """Return whether the grammar has a sentence."""
    if len(words) < 6 or words[0] != "the" or words[1] not in NOUNS or words[-1] != ".":
        return False
    noun = words[1]
    clause = [VERBS[noun], "the", NOUNS[noun]]
    rest = words[2:-1]
    if rest[:3] != clause:
        return False
    rest = rest[3:]
    while rest[:4] == ["and", *clause]:
        rest = rest[4:]
    return not rest or " ".join(rest) in PLACES


def parse(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Learn sentences of a toy grammar, and decode greedily.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--sentences", type=int, default=100)
    add("--units", type=int, default=10, help="units of the recurrent layer, size of word vectors")
    add("--epochs", type=int, default=150)
    add("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main(arguments=None) -> list[list[str]]:
    options = parse(arguments)
    seqnet.set_random_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    sentences = [sentence(rng) for _ in range(options.sentences)]
    vocabulary = WordVocabulary.of([word for words in sentences for word in words])
    numbers = [vocabulary.encode(words) for words in sentences]
    X, y = [n[:-1] for n in numbers], [n[1:] for n in numbers]  # each word predicts the next one
    lengths = sorted({len(n) for n in numbers})
    print(f"{len(sentences)} sentences of {lengths[0]} to {lengths[-1]} words, such as:")
    print("  " + " ".join(sentences[0]))

    model = seqnet.Model(
        [
            Embedding(len(vocabulary), options.units),
            SimpleRNN(options.units, return_sequences=True),
            Dense(len(vocabulary), activation="softmax"),
        ]
    )
    optimizer = seqnet.optimizers.AdaDelta(clipnorm=5.0)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["perplexity"])
    history = model.fit(X, y, batch_size=10, epochs=options.epochs, verbose=0).history
    first, last = history["perplexity"][0], history["perplexity"][-1]
    print(f"Perplexity of a word: {first:.2f} in the first epoch, {last:.2f} in the last.")

    model.vocabulary = vocabulary
    starts = [["the", noun] for noun in NOUNS]
    written = []
    for start, found in zip(
        starts, model.generate(starts, 200, temperature=0, stop=["."]), strict=True
    ):
        written.append(start + found)
        mark = "" if is_grammatical(written[-1]) else "   (not in the grammar)"
        print("  " + " ".join(written[-1]) + mark)
    return written


if __name__ == "__main__":
    main()

"""Train a word-level language model with the recipe of Zaremba et al. (2014).

Without arguments it uses the documentation topics that are included in CPython, so nothing is
downloaded. Examples:

    python examples/word_language_model.py                       # the small model
    python examples/word_language_model.py --size medium
    python examples/word_language_model.py --corpus FILE         # any text
    python examples/word_language_model.py --train ptb.train.txt --valid ptb.valid.txt \
        --test ptb.test.txt

Source: Zaremba, Sutskever and Vinyals, "Recurrent neural network regularization" (2014), as in
TensorFlow's ptb_word_lm. The text is cut into 20 rows that are read side by side. States are
carried along a row, gradients end after 20 or 35 words. All weights are drawn from one uniform
distribution, the loss is summed over the steps of a window, the norm of all gradients is clipped,
and plain gradient descent has a learning rate of 1 that decays after some epochs.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from pathlib import Path
from typing import NamedTuple

import seqnet
from seqnet.callbacks import Callback, LearningRateScheduler
from seqnet.initializers import RandomUniform
from seqnet.layers import LSTM, Dense, Dropout, Embedding
from seqnet.text import WordVocabulary, streams


class Recipe(NamedTuple):
    """The settings of a model; see table 1 and section 4.1 of the paper."""

    units: int
    scale: float  # weights are drawn from -scale to scale
    dropout: float
    steps: int  # of a window
    clip: float
    constant_epochs: int  # before the learning rate decays
    decay: float
    epochs: int


RECIPES = {
    "small": Recipe(200, 0.1, 0.0, 20, 5.0, 4, 1 / 2, 13),
    "medium": Recipe(650, 0.05, 0.5, 35, 5.0, 6, 1 / 1.2, 39),
    "large": Recipe(1500, 0.04, 0.65, 35, 10.0, 14, 1 / 1.15, 55),
}
ROWS = 20
LAYERS = 2


def parse(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a word-level language model with the recipe of Zaremba et al. (2014).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--corpus", type=Path, help="UTF-8 text; by default Python's documentation topics")
    add("--train", type=Path, help="training text with words between blanks, as in Penn Treebank")
    add("--valid", type=Path, help="validation text in the same form")
    add("--test", type=Path, help="test text in the same form")
    add("--words", type=int, help="use only this many words of the text")
    add("--vocabulary", type=int, default=10000, help="size of the vocabulary")
    add("--size", choices=RECIPES, default="small")
    for name in ("units", "steps", "epochs"):
        add(f"--{name}", type=int, help="by default that of --size")
    for name in ("dropout", "scale", "clip", "decay"):
        add(f"--{name}", type=float, help="by default that of --size")
    add("--learning-rate", type=float, default=1.0)
    add("--sample", type=int, default=40, help="number of words to generate at the end")
    add("--seed", type=int, default=1)
    add("--checkpoint", type=Path, default=Path("words.h5"), help="file to save the model to")
    return parser.parse_args(arguments)


def words_of(text: str) -> list[str]:
    """Return the words and marks of a text in lower case; a line ends with the word <eos>."""
    lines = text.lower().splitlines()
    return [w for line in lines for w in [*re.findall(r"<\w+>|\w+|[^\w\s]", line), "<eos>"]]


def read(options) -> tuple[list[str], list[str], list[str]]:
    """Return the words of the training, validation and test text."""
    if options.train:
        if not (options.valid and options.test):
            sys.exit("Pass --valid and --test with --train, or a single --corpus.")
        files = [options.train, options.valid, options.test]
        texts = [file.read_text(encoding="utf-8").replace("\n", " <eos> ") for file in files]
        train, valid, test = [text.split()[: options.words] for text in texts]
        return train, valid, test
    if options.corpus:
        text = options.corpus.read_text(encoding="utf-8")
    else:
        from pydoc_data import topics

        text = "\n".join(topics.topics[name] for name in sorted(topics.topics))
    words = words_of(text)[: options.words]
    held_out = len(words) // 20
    return words[: -2 * held_out], words[-2 * held_out : -held_out], words[-held_out:]


def build(recipe: Recipe, classes: int) -> seqnet.Model:
    uniform = RandomUniform(-recipe.scale, recipe.scale)
    every = {"kernel_initializer": uniform, "bias_initializer": uniform}
    model = seqnet.Model([Embedding(classes, recipe.units, embeddings_initializer=uniform)])
    model.add(Dropout(recipe.dropout))
    for _ in range(LAYERS):
        lstm = {"recurrent_initializer": uniform, "unit_forget_bias": False, **every}
        model.add(LSTM(recipe.units, return_sequences=True, **lstm))
        model.add(Dropout(recipe.dropout))  # between layers only: states are not dropped
    model.add(Dense(classes, activation="softmax", **every))
    return model


class Report(Callback):
    """Print a line after each epoch."""

    def __init__(self, words: int):
        self.words = words
        self.start = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self.start
        print(
            f"Epoch {epoch + 1}: learning rate {self.model.optimizer.learning_rate:.3f}, "
            f"perplexity {logs['perplexity']:.1f} in training, {logs['val_perplexity']:.1f} in "
            f"validation, {self.words / seconds:,.0f} words per second",
            flush=True,
        )


def rows_of(numbers, rows: int, steps: int) -> tuple:
    """Return the rows of a text and their targets, a whole number of windows long."""
    X, y = streams(numbers, rows)
    length = X.shape[1] // steps * steps
    if length < 1:
        sys.exit(f"{len(numbers):,} words are too few for {rows} rows of {steps} steps.")
    return X[:, :length], y[:, :length]


def main(arguments=None) -> float:
    options = parse(arguments)
    seqnet.set_random_seed(options.seed)
    given = {name: getattr(options, name, None) for name in Recipe._fields}
    recipe = RECIPES[options.size]._replace(**{k: v for k, v in given.items() if v is not None})
    train, valid, test = read(options)
    vocabulary = WordVocabulary.of(train, options.vocabulary)
    numbers = [vocabulary.encode(words) for words in (train, valid, test)]
    print(
        f"{len(train):,}, {len(valid):,} and {len(test):,} words, {len(vocabulary):,} different, "
        f"{100 * (numbers[0] == 0).mean():.1f} % unknown."
    )
    (X, y), (X_valid, y_valid) = [rows_of(n, ROWS, recipe.steps) for n in numbers[:2]]

    model = build(recipe, len(vocabulary))
    model.metadata["vocabulary"] = vocabulary.words
    # The loss is a mean over all steps, so this factor makes it a sum over the steps of a window
    # and a mean over the rows, whose gradients are clipped.
    optimizer = seqnet.optimizers.SGD(options.learning_rate, global_clipnorm=recipe.clip)
    loss = "sparse_categorical_crossentropy"
    model.compile(optimizer, loss, metrics=["perplexity"], loss_weights=float(recipe.steps))

    def rate(epoch):
        return options.learning_rate * recipe.decay ** max(epoch + 1 - recipe.constant_epochs, 0)

    model.fit(
        X,
        y,
        batch_size=ROWS,
        epochs=recipe.epochs,
        tbptt=recipe.steps,
        shuffle=False,
        validation_data=(X_valid, y_valid),
        validation_batch_size=ROWS,
        callbacks=[LearningRateScheduler(rate), Report(X.size)],
        verbose=0,
    )
    model.save(options.checkpoint)
    # All words of the test text, in one row, with states that are carried along it.
    X_test, y_test = streams(numbers[2], 1)
    found = model.evaluate(X_test, y_test, return_dict=True, tbptt=recipe.steps)
    perplexity = found["perplexity"]
    bits = math.log2(perplexity)
    print(f"Perplexity {perplexity:.1f} ({bits:.2f} bits per word) on the test text. It writes:\n")
    model.vocabulary = vocabulary
    written = model.generate(["<eos>"], options.sample, temperature=0.8, seed=options.seed)
    print(" ".join(written).replace("<eos>", "\n"))
    return perplexity


if __name__ == "__main__":
    main()

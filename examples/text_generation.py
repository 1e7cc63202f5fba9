"""Train a character-level LSTM on a text, then generate text.

Without arguments it uses the documentation topics that are included in CPython, so nothing is
downloaded. Examples:

    python examples/text_generation.py                       # trains and samples after each epoch
    python examples/text_generation.py --corpus FILE         # any UTF-8 text
    python examples/text_generation.py --load text.h5 --prime "The "   # generates without training
    python examples/text_generation.py --load text.h5 --samples 5      # five texts side by side
    python examples/text_generation.py --char-rnn            # the recipe of Karpathy's char-rnn
    python examples/text_generation.py --init-from text.h5   # trains a saved model further

With --char-rnn the text is cut into rows that are read side by side with carried states, two layers
of 128 units start from small uniform weights, the elements of gradients are clipped to 5, and
RMSprop averages with 0.95; after 10 epochs the learning rate decays by 3 % an epoch.

After each epoch it prints the cross-entropy on held-out text, in nats and bits per character, and
that of a bigram table on the same text. After Ctrl-C, run the same command again to continue.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from pathlib import Path

import numpy as np

import seqnet
from seqnet.callbacks import BackupAndRestore, Callback, LearningRateScheduler, ProgressBar
from seqnet.layers import LSTM, Dense, Dropout, Embedding, Softmax
from seqnet.text import CharacterVocabulary, bigram_cross_entropy, next_step_examples, streams

CHAR_RNN = {
    "layers": 2,
    "units": 128,
    "length": 50,
    "batch_size": 50,
    "epochs": 50,
    "optimizer": "rmsprop",
    "rho": 0.95,
    "learning_rate": 0.002,
    "decay": 0.97,
    "decay_after": 10,
    "clip": None,
    "clip_value": 5.0,
    "uniform": 0.08,
    "carry": True,
}


def parse(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a character-level LSTM on a text, then generate text.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--char-rnn", action="store_true", help="other defaults, those of char-rnn")
    add("--corpus", type=Path, help="UTF-8 text file; by default Python's documentation topics")
    add("--characters", type=int, help="use only this many characters of the corpus")
    add("--layers", type=int, default=1, help="number of LSTM layers")
    add("--units", type=int, default=256, help="units of each LSTM layer")
    add("--embedding", type=int, default=64, help="length of the character vectors")
    add("--dropout", type=float, default=0.0, help="dropout rate after each LSTM layer")
    add("--length", type=int, default=100, help="characters per training sample")
    add("--batch-size", type=int, default=32, help="samples per update")
    add("--epochs", type=int, default=8)
    add("--optimizer", default="adam", help="sgd, adagrad, adadelta, rmsprop or adam")
    add(
        "--learning-rate",
        type=float,
        help="by default 0.003 for adam, else the optimizer's default",
    )
    add("--rho", type=float, default=0.9, help="the average of rmsprop")
    add("--decay", type=float, default=1.0, help="factor of the learning rate for each epoch")
    add("--decay-after", type=int, default=0, help="epochs before the learning rate decays")
    add("--clip", type=float, default=5.0, help="maximum global norm of the gradients")
    add("--clip-value", type=float, help="maximum of each element of the gradients")
    add("--uniform", type=float, help="draw all initial weights from -UNIFORM to UNIFORM")
    add("--carry", action="store_true", help="carry states from batch to batch along the text")
    add(
        "--unroll",
        action="store_true",
        help="build the steps one by one, without a kernel",
    )
    add(
        "--temperature",
        type=float,
        default=0.7,
        help="0 always selects the most probable character",
    )
    add("--sample", type=int, default=300, help="number of characters to generate")
    add("--samples", type=int, default=1, help="number of texts to generate side by side")
    add(
        "--prime",
        help="the start of the generated text, by default the first word of the corpus; if it is "
        "empty, any character is the first with the same probability",
    )
    add("--seed", type=int, default=1)
    add("--checkpoint", type=Path, default=Path("text.h5"), help="file to save the model to")
    add("--load", type=Path, help="generate with a saved model instead of training")
    add("--init-from", type=Path, help="start from the weights of a model that this script saved")
    if parser.parse_args(arguments).char_rnn:
        parser.set_defaults(**CHAR_RNN)
    return parser.parse_args(arguments)


def read_corpus(path: Path | None) -> str:
    if path is not None:
        return path.read_text(encoding="utf-8")
    from pydoc_data import topics

    return "\n".join(topics.topics[name] for name in sorted(topics.topics))


def build(options, classes: int) -> seqnet.Model:
    of_layer, of_loop = {}, {}
    if options.uniform:
        uniform = seqnet.initializers.RandomUniform(-options.uniform, options.uniform)
        of_layer, of_loop = {"kernel_initializer": uniform}, {"recurrent_initializer": uniform}
    loop = {"return_sequences": True, "unroll": options.unroll, "stateful": options.carry}
    model = seqnet.Model([Embedding(classes, options.embedding)])
    for _ in range(options.layers):
        model.add(LSTM(options.units, **loop, **of_layer, **of_loop))
        if options.dropout:
            model.add(Dropout(options.dropout))
    model.add(Dense(classes, **of_layer))
    model.add(Softmax())
    return model


def compile_for(options, model: seqnet.Model) -> None:
    optimizer = seqnet.optimizers.get(options.optimizer)
    optimizer.global_clipnorm, optimizer.clipvalue = options.clip, options.clip_value
    if options.optimizer == "rmsprop":
        optimizer.rho = options.rho
    rate = options.learning_rate
    if rate is None and options.optimizer == "adam":
        rate = 0.003
    if rate is not None:
        optimizer.learning_rate = rate
    model.compile(optimizer, "sparse_categorical_crossentropy")


def load(path: Path) -> seqnet.Model:
    """Return a saved model, with its vocabulary."""
    model = seqnet.load_model(path)
    if model.vocabulary is None:
        sys.exit(f"{path} holds no vocabulary; was it saved by this script?")
    return model


def write(model, options) -> None:
    """Print a text that the model generates, character by character, or several texts."""
    prime = model.metadata["first word"] if options.prime is None else options.prime
    if not prime:  # nothing to start from: all characters are equally probable
        prime = np.random.default_rng(options.seed).choice(list(model.vocabulary.characters))
    how = {"temperature": options.temperature, "seed": options.seed}
    if options.samples > 1:
        primes = [str(prime)] * options.samples
        for text in model.generate(primes, options.sample, **how):
            print(f"{prime}{text}\n{'-' * 40}", flush=True)
        return
    print(prime, end="", flush=True)
    for character in model.generate(str(prime), options.sample, stream=True, **how):
        print(character, end="", flush=True)
    print("\n", flush=True)


class AfterEachEpoch(Callback):
    """Evaluate the model on held-out text, save it, and generate a sample."""

    def __init__(self, options, baseline: float):
        self.options, self.baseline = options, baseline

    def on_epoch_end(self, epoch, logs=None):
        self.model.save(self.options.checkpoint)
        loss = logs["val_loss"]
        print(
            f"\nEpoch {epoch + 1}: {loss:.3f} nats ({loss / math.log(2):.2f} bits) per held-out "
            f"character; a bigram table needs {self.baseline:.3f}. It writes:\n",
            flush=True,
        )
        write(self.model, self.options)


def train(options) -> seqnet.Model:
    text = read_corpus(options.corpus)[: options.characters]
    vocabulary = CharacterVocabulary.of(text)
    model = None
    if options.init_from:
        model = load(options.init_from)
        vocabulary = model.vocabulary
        options.carry = model.stateful
        if unknown := sorted(set(text) - set(vocabulary.characters)):
            sys.exit(
                f"The text has {len(unknown)} characters that the vocabulary of "
                f"{options.init_from} lacks: {''.join(unknown[:20])!r}."
            )
    print(f"{len(text):,} characters, {len(vocabulary)} different ones.")
    if len(text) <= 2 * (options.length + 1):
        sys.exit(
            f"That is too short: {options.length + 1} characters are held out, and as many are "
            "needed to train on. A smaller --length needs fewer."
        )
    vocabulary.encode(options.prime or "")  # unknown characters are an error before training
    numbers = vocabulary.encode(text)
    held_out = max(len(numbers) // 20, options.length + 1)
    known, unseen = numbers[:-held_out], numbers[-held_out:]
    if options.carry:
        rows = min(options.batch_size, (held_out - 1) // options.length)
        X, y = streams(known, options.batch_size, options.length)
        validation = streams(unseen, rows, options.length)
    else:
        X, y = next_step_examples(known, options.length)
        validation, rows = next_step_examples(unseen, options.length), options.batch_size
    baseline = bigram_cross_entropy(known, unseen, len(vocabulary))

    model = model or build(options, len(vocabulary))
    compile_for(options, model)
    model.vocabulary = vocabulary
    model.metadata["first word"] = re.match(r"\s*\S*\s?", text).group()
    model.build((None, options.length))
    model.summary()
    first_rate = model.optimizer.learning_rate

    def rate(epoch):
        return first_rate * options.decay ** max(epoch + 1 - options.decay_after, 0)

    start = time.perf_counter()
    model.fit(
        X,
        y,
        batch_size=options.batch_size,
        epochs=options.epochs,
        shuffle=not options.carry,
        validation_data=validation,
        validation_batch_size=rows,
        callbacks=[
            ProgressBar(unit="char", per_batch=options.batch_size * options.length),
            LearningRateScheduler(rate),
            AfterEachEpoch(options, baseline),
            BackupAndRestore(options.checkpoint.with_suffix(".backup.h5")),
        ],
    )
    print(
        f"Trained in {time.perf_counter() - start:.0f} s; saved as {options.checkpoint}. "
        f'Let it write more: --load {options.checkpoint} --prime "..."'
    )
    return model


def main(arguments=None) -> None:
    options = parse(arguments)
    seqnet.set_random_seed(options.seed)
    if options.load is None:
        train(options)
    else:
        write(load(options.load), options)


if __name__ == "__main__":
    main()

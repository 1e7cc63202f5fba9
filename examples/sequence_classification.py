"""Classify nine speakers by recordings of the vowel "ae": sequences of different lengths.

The data set is Japanese Vowels (Kudo, Toyama and Shimbo, 1999): 12 linear prediction coefficients
at each of 7 to 29 steps, 270 utterances for training and 370 for testing. Its text files are in the
wheel of `aeon` (BSD licence); the package is not imported, so its dependencies are not needed:

    pip install --no-deps aeon
    python examples/sequence_classification.py

Seeds 1 to 11 reach an accuracy of 95.1 to 98.9 % on the test set, half of them 98.1 % or more; the
learning curve of the first is in sequence_classification.png. It is compared with the results of
the authors of the data set, who did not use an LSTM. For a bidirectional LSTM of 100 units,
MathWorks's example "Sequence Classification Using Deep Learning", 95.4 % was reported
(HelloWorld-1017, "Sequence Classification Using LSTM and 1-D Convolutions in MATLAB", 2022). A
project with an ensemble of eleven LSTMs, on utterances resampled to one length, reports 98.86 %
(hiyokai.com/postnubilaphoebus/Jap_Speak_Recog).

Utterances are passed to `fit` as a list of (time, 12) arrays, without padding or masks. Use --train
and --test for other files of this format (``.ts``, of any lengths).
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import numpy as np

import seqnet
from seqnet.layers import GRU, LSTM, Dense, Dropout, SimpleRNN

# Kudo, Toyama and Shimbo, "Multidimensional curve classification using passing-through regions",
# Pattern Recognition Letters 20 (1999) 1103-1111, and the data set's page in the UCI repository.
# The hidden Markov model is continuous and has five states.
LITERATURE = {"their own classifier": 94.1, "a hidden Markov model": 96.2}
CELLS = {"lstm": LSTM, "gru": GRU, "simple_rnn": SimpleRNN}


def parse(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Classify sequences of different lengths.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--train", type=Path, help=".ts file to train on; by default Japanese Vowels")
    add("--test", type=Path, help=".ts file to test on")
    add("--cell", choices=CELLS, default="lstm")
    add("--units", type=int, default=100, help="units of the recurrent layer")
    add("--input-dropout", type=float, default=0.2, help="share of the coefficients dropped")
    add("--dropout", type=float, default=0.5, help="share dropped before the last layer")
    add("--epochs", type=int, default=60)
    add("--batch-size", type=int, default=27)
    add("--learning-rate", type=float, default=0.003)
    add("--seed", type=int, default=1)
    add("--curve", type=Path, default=Path("speakers.png"), help="picture of the learning curve")
    return parser.parse_args(arguments)


def file_of_aeon(name: str) -> Path:
    """Return the path of a data file of the installed package, without importing it."""
    found = importlib.util.find_spec("aeon")
    if found is None:
        sys.exit("The data set is in the package aeon: pip install --no-deps aeon")
    return Path(found.submodule_search_locations[0], "datasets", "data", *name.split("/"))


def read_ts(path: Path) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """Read a .ts file: sequences (time, features), class numbers, and the names of the classes.

    Each line is one sequence. Colons separate the features and the class, which comes last; commas
    separate the values of a feature at each step.
    """
    sequences, labels, names = [], [], []
    with path.open() as file:
        for line in file:
            if line.lower().startswith("@classlabel"):
                names = line.split()[2:]
            elif line[0] not in "#@\n":
                *features, label = line.strip().split(":")
                rows = [np.array(feature.split(","), dtype="float32") for feature in features]
                sequences.append(np.stack(rows, axis=1))
                labels.append(names.index(label))
    return sequences, np.array(labels), names


def draw(history: dict, path: Path, title: str, others: dict[str, float]) -> bool:
    """Plot the learning curve and the results of others, if matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    epochs = np.arange(1, len(history["accuracy"]) + 1)
    axes.plot(epochs, 100 * np.array(history["accuracy"]), label="training, with dropout")
    axes.plot(epochs, 100 * np.array(history["val_accuracy"]), label="test")
    for (name, value), style in zip(others.items(), (":", "--"), strict=False):
        label = f"Kudo et al., {name}: {value}"
        axes.axhline(value, color="0.4", linestyle=style, linewidth=1, label=label)
    axes.set(xlabel="epoch", ylabel="right, %", title=title, ylim=(50, 100.5))
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=120)
    return True


def main(arguments=None) -> float:
    options = parse(arguments)
    folder = "JapaneseVowels/JapaneseVowels"
    X, y, names = read_ts(options.train or file_of_aeon(f"{folder}_TRAIN.ts"))
    X_test, y_test, _ = read_ts(options.test or file_of_aeon(f"{folder}_TEST.ts"))
    lengths = [len(x) for x in X]
    print(
        f"{len(X)} sequences of {min(lengths)} to {max(lengths)} steps of {X[0].shape[1]} features "
        f"to train on, {len(X_test)} to test on, {len(names)} classes."
    )
    steps = np.concatenate(X)
    mean, scale = steps.mean(axis=0), steps.std(axis=0) + 1e-6
    X, X_test = ([(x - mean) / scale for x in rows] for rows in (X, X_test))

    seqnet.set_random_seed(options.seed)
    model = seqnet.Model(
        [
            CELLS[options.cell](options.units, dropout=options.input_dropout),
            Dropout(options.dropout),
            Dense(len(names), activation="softmax"),
        ]
    )
    model.compile(
        seqnet.optimizers.Adam(options.learning_rate, global_clipnorm=1.0),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    began = time.perf_counter()
    history = model.fit(
        X,
        y,
        batch_size=options.batch_size,
        epochs=options.epochs,
        validation_data=(X_test, y_test),  # only reported, not used for selection
        verbose=0,
    ).history
    took = time.perf_counter() - began
    accuracy = 100 * float((model.predict(X_test).argmax(axis=1) == y_test).mean())
    print(f"{options.epochs} epochs took {took:.1f} s. Right of the test set: {accuracy:.1f} %.")
    others = LITERATURE if options.train is None else {}
    if others:
        found = ", ".join(f"{name} {value} %" for name, value in others.items())
        print(f"Kudo, Toyama and Shimbo (1999): {found}.")
    if draw(history, options.curve, f"{options.cell}, {options.units} units", others):
        print(f"The learning curve is in {options.curve}.")
    else:
        print(
            "There is no picture of the learning curve without matplotlib: pip install matplotlib"
        )
    return accuracy


if __name__ == "__main__":
    main()

"""Compare the losses after training with the policies mixed_bfloat16 and float32.

    python benchmarks/mixed_precision.py

A model of characters and one of words are trained on the text of seqnet's documentation, with Adam,
from several seeds. Each seed has the same first weights and batches with both policies. What is
compared are losses on a tenth of the text that is not trained on: the difference between the
policies, and the spread of the seeds.
"""

from __future__ import annotations

import re
import sys

from harness import HERE, Report, parser, table

sys.path.insert(0, str(HERE.parent))

import numpy as np

import seqnet
from seqnet.layers import LSTM, Dense, Embedding

LENGTH, BATCH = 32, 32
UNITS = {"characters": (32, 128), "words": (64, 128)}  # of the embedding and of the LSTM
RARE = 2  # a word is one of the vocabulary if there are more of it
POLICIES = ("float32", "mixed_bfloat16")


def numbers(kind: str) -> tuple[np.ndarray, int]:
    """Return the text as numbers, and how many there are; 0 is a rare word."""
    text = "\n".join(path.read_text() for path in sorted(HERE.parent.glob("docs/*.md")))
    parts = list(text) if kind == "characters" else re.findall(r"\w+|[^\w\s]", text.lower())
    found, counts = np.unique(parts, return_counts=True)
    known = {word: k for k, word in enumerate(found[counts > RARE], 1)}
    return np.array([known.get(part, 0) for part in parts], "int32"), len(known) + 1


def loss_after(kind: str, policy: str, seed: int, steps: int) -> float:
    """Return the loss on the rest of the text after training."""
    seqnet.config.set_dtype_policy(policy)
    seqnet.set_random_seed(seed)
    text, count = numbers(kind)
    embedding, units = UNITS[kind]
    model = seqnet.Model(
        [
            Embedding(count, embedding),
            LSTM(units, return_sequences=True),
            LSTM(units, return_sequences=True),
            Dense(count, "softmax"),
        ]
    )
    model.compile(seqnet.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    end, random = len(text) * 9 // 10, np.random.default_rng(seed)
    for _ in range(steps):
        starts = random.integers(0, end - LENGTH - 1, BATCH)
        places = starts[:, None] + np.arange(LENGTH)
        model.train_on_batch(text[places], text[places + 1])
    rows = (len(text) - end - 1) // LENGTH
    x, y = (text[end + shift :][: rows * LENGTH].reshape(rows, LENGTH) for shift in (0, 1))
    return float(model.evaluate(x, y, batch_size=64, verbose=0))


def main(arguments=None) -> None:
    result = parser(__doc__)
    result.add_argument("--kinds", default="characters,words")
    result.add_argument("--seeds", type=int, default=5)
    result.add_argument("--steps", type=int, default=600)
    options = result.parse_args(arguments)
    report = Report("mixed_precision", options)
    rows = [["model", "policy", "mean loss", "least", "most", "largest difference of a seed"]]
    for kind in options.kinds.split(","):
        losses = {
            policy: [loss_after(kind, policy, seed, options.steps) for seed in range(options.seeds)]
            for policy in POLICIES
        }
        pairs = zip(*losses.values(), strict=True)
        difference = max(abs(one - other) for one, other in pairs)
        report.add(size=kind, steps=options.steps, losses=losses, difference=difference)
        for policy, found in losses.items():
            own = f"{difference:.4f}" if policy != "float32" else ""
            spread = [f"{value:.4f}" for value in (np.mean(found), min(found), max(found))]
            rows.append([kind, policy, *spread, own])
    table(rows)


if __name__ == "__main__":
    main()

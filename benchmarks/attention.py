"""Measure a training step of an encoder-decoder with attention, against PyTorch.

    python benchmarks/attention.py

Both systems start from the same weights, train on the same batch, and must agree on the losses. See
`workers/attention_worker.py` for the model.
"""

from __future__ import annotations

from harness import compare_cases, parser

# embedding, units, vocabulary, batch, length
CASES = {
    "small": (32, 64, 65, 32, 20),
    "medium": (64, 128, 65, 32, 20),
    "words": (128, 256, 5000, 32, 30),
}
FIELDS = ("embedding", "units", "vocabulary", "batch", "length")


def main(arguments=None) -> None:
    result = parser(__doc__)
    add = result.add_argument
    add("--cases", default=",".join(CASES))
    add("--sides", default="seqnet:attention,pytorch:attention")
    add("--masks", action="store_true", help="sources of half to all of the steps")
    add("--rounds", type=int, default=10)
    add("--steps", type=int, default=20, help="in a turn")
    options = result.parse_args(arguments)
    compare_cases("attention", CASES, FIELDS, options, tolerance=1e-4)


if __name__ == "__main__":
    main()

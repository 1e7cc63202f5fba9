"""Measure the losses of whole sequences, CRF and CTC, with their gradients, against PyTorch.

    python benchmarks/sequence_losses.py

The two systems get the same arrays and must agree on the loss. PyTorch has no CRF, so its side is
written step by step; its CTC is `torch.nn.functional.ctc_loss`. See `workers/losses_worker.py`.
"""

from __future__ import annotations

from harness import compare_cases, parser

# loss, batch, length, classes, labels
CASES = {
    "crf-tags": ("crf", 32, 40, 9, 0),
    "crf-many-classes": ("crf", 32, 40, 50, 0),
    "crf-long": ("crf", 8, 1000, 9, 0),
    "ctc-characters": ("ctc", 32, 200, 30, 40),
    "ctc-pieces": ("ctc", 16, 200, 1000, 40),
}
FIELDS = ("loss", "batch", "length", "classes", "labels")


def main(arguments=None) -> None:
    result = parser(__doc__)
    add = result.add_argument
    add("--cases", default=",".join(CASES))
    add("--sides", default="seqnet:losses,pytorch:losses")
    add("--masks", action="store_true", help="sequences of half to all of the steps")
    add("--rounds", type=int, default=8)
    add("--steps", type=int, default=20, help="in a turn")
    options = result.parse_args(arguments)
    compare_cases("sequence_losses", CASES, FIELDS, options, tolerance=1e-3)


if __name__ == "__main__":
    main()

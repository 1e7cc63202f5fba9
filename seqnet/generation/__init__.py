"""Generation and decoding of sequences, one time step at a time, and labels from CTC models."""

from seqnet.generation.ctc import ctc_beam_search_decode, ctc_greedy_decode
from seqnet.generation.decoding import Decoder, Hypothesis
from seqnet.generation.sampling import sample
from seqnet.generation.stepping import Stepper

__all__ = [
    "Decoder",
    "Hypothesis",
    "Stepper",
    "ctc_beam_search_decode",
    "ctc_greedy_decode",
    "sample",
]


def __dir__() -> list[str]:
    return sorted(__all__)

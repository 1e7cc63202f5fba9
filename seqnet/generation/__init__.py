"""Generation and decoding of sequences, one time step at a time, and labels from CTC models."""

from seqnet.generation.ctc import ctc_beam_search_decode, ctc_greedy_decode
from seqnet.generation.decoding import Decoder, Hypothesis
from seqnet.generation.sampling import sample
from seqnet.generation.scoring import bits_per_character, log_probabilities, perplexity
from seqnet.generation.stepping import Stepper

__all__ = [
    "Decoder",
    "Hypothesis",
    "Stepper",
    "bits_per_character",
    "ctc_beam_search_decode",
    "ctc_greedy_decode",
    "log_probabilities",
    "perplexity",
    "sample",
]


def __dir__() -> list[str]:
    return sorted(__all__)

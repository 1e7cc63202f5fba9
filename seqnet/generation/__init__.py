"""Generation of sequences, one time step at a time, and labels from the outputs of CTC models."""

from seqnet.generation.ctc import ctc_beam_search_decode, ctc_greedy_decode
from seqnet.generation.sampling import generate, sample
from seqnet.generation.stepping import Stepper

__all__ = ["Stepper", "ctc_beam_search_decode", "ctc_greedy_decode", "generate", "sample"]


def __dir__() -> list[str]:
    return sorted(__all__)

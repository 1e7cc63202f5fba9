"""Generation and decoding of sequences, one time step at a time."""

from seqnet.generation.decoding import Decoder, Hypothesis
from seqnet.generation.sampling import generate, sample
from seqnet.generation.stepping import Stepper

__all__ = ["Decoder", "Hypothesis", "Stepper", "generate", "sample"]


def __dir__() -> list[str]:
    return sorted(__all__)

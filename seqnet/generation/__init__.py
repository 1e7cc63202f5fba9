"""Generation: a model run step by step, and what it generates."""

from seqnet.generation.sampling import generate, sample
from seqnet.generation.stepping import Stepper

__all__ = ["Stepper", "generate", "sample"]

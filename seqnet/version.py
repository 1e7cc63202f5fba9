"""The version of seqnet."""

__version__ = "0.1.0"

"""Layers, each in a file of its own or with its kin."""

from seqnet.layers.core import Activation, Dropout, Lambda, Masking, RepeatVector, Softmax
from seqnet.layers.dense import Dense
from seqnet.layers.embedding import Embedding
from seqnet.layers.gated_input import GatedInput
from seqnet.layers.gru import GRU
from seqnet.layers.layer import Layer, CallContext
from seqnet.layers.lstm import LSTM
from seqnet.layers.recurrent import Recurrent
from seqnet.layers.simple_rnn import SimpleRNN
from seqnet.layers.wrappers import Bidirectional, TimeDistributed

__all__ = [
    "GRU",
    "LSTM",
    "Activation",
    "Bidirectional",
    "Dense",
    "Dropout",
    "Embedding",
    "GatedInput",
    "Lambda",
    "Layer",
    "Masking",
    "CallContext",
    "Recurrent",
    "RepeatVector",
    "SimpleRNN",
    "Softmax",
    "TimeDistributed",
]

"""Layers, each in a file of its own or with its kin."""

from seqnet.layers.core import Activation, Dropout, Masking, Softmax, TimeDistributed
from seqnet.layers.dense import Dense
from seqnet.layers.embedding import Embedding
from seqnet.layers.gru import GRU
from seqnet.layers.layer import Layer, Phase
from seqnet.layers.lstm import LSTM
from seqnet.layers.recurrent import Recurrent
from seqnet.layers.simple_rnn import SimpleRNN

__all__ = [
    "GRU",
    "LSTM",
    "Activation",
    "Dense",
    "Dropout",
    "Embedding",
    "Layer",
    "Masking",
    "Phase",
    "Recurrent",
    "SimpleRNN",
    "Softmax",
    "TimeDistributed",
]

"""Layers, one file for each kind."""

from seqnet.layers.activation import Activation, Softmax
from seqnet.layers.attention import AdditiveAttention, Attention, MultiHeadAttention
from seqnet.layers.bidirectional import Bidirectional
from seqnet.layers.context import CallContext
from seqnet.layers.dense import Dense
from seqnet.layers.dropout import Dropout
from seqnet.layers.embedding import Embedding
from seqnet.layers.gated_input import GatedInput
from seqnet.layers.gru import GRU
from seqnet.layers.lambda_layer import Lambda
from seqnet.layers.layer import Layer
from seqnet.layers.lstm import LSTM
from seqnet.layers.masking import Masking
from seqnet.layers.merge import (
    Add,
    Average,
    Concatenate,
    Dot,
    Maximum,
    Merge,
    Minimum,
    Multiply,
    Subtract,
    add,
    average,
    concatenate,
    dot,
    maximum,
    minimum,
    multiply,
    subtract,
)
from seqnet.layers.recurrent import Recurrent
from seqnet.layers.repeat_vector import RepeatVector
from seqnet.layers.simple_rnn import SimpleRNN
from seqnet.layers.time_distributed import TimeDistributed

__all__ = [
    "GRU",
    "LSTM",
    "Activation",
    "Add",
    "AdditiveAttention",
    "Attention",
    "Average",
    "Bidirectional",
    "CallContext",
    "Concatenate",
    "Dense",
    "Dot",
    "Dropout",
    "Embedding",
    "GatedInput",
    "Lambda",
    "Layer",
    "Masking",
    "Maximum",
    "Merge",
    "Minimum",
    "MultiHeadAttention",
    "Multiply",
    "Recurrent",
    "RepeatVector",
    "SimpleRNN",
    "Softmax",
    "Subtract",
    "TimeDistributed",
    "add",
    "average",
    "concatenate",
    "dot",
    "maximum",
    "minimum",
    "multiply",
    "subtract",
]

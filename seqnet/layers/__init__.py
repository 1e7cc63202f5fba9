"""Layers: functions of sequences and arrays, with weights, that know masks."""

from seqnet.layers.activation import Activation, Identity, Softmax
from seqnet.layers.activity_regularization import ActivityRegularization
from seqnet.layers.attention import AdditiveAttention, Attention, MultiHeadAttention
from seqnet.layers.batch_normalization import BatchNormalization
from seqnet.layers.bidirectional import Bidirectional
from seqnet.layers.cell import Cell
from seqnet.layers.closed_loop import ClosedLoop, ScheduledSampling
from seqnet.layers.context import CallContext
from seqnet.layers.conv1d import Conv1D
from seqnet.layers.crf import CRF
from seqnet.layers.dense import Dense
from seqnet.layers.dropout import Dropout, SpatialDropout1D
from seqnet.layers.embedding import Embedding
from seqnet.layers.gated_input import GatedInput
from seqnet.layers.group_normalization import GroupNormalization
from seqnet.layers.gru import GRU, GRUCell
from seqnet.layers.ind_rnn import IndRNN, IndRNNCell
from seqnet.layers.lambda_layer import Lambda
from seqnet.layers.layer import Layer
from seqnet.layers.layer_normalization import LayerNormalization
from seqnet.layers.lstm import LSTM, LSTMCell
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
from seqnet.layers.min_gru import MinGRU, MinGRUCell
from seqnet.layers.min_lstm import MinLSTM, MinLSTMCell
from seqnet.layers.noise import GaussianDropout, GaussianNoise
from seqnet.layers.pooling import (
    AveragePooling1D,
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    MaxPooling1D,
)
from seqnet.layers.recurrent import Recurrent
from seqnet.layers.relu import ELU, LeakyReLU, PReLU, ReLU
from seqnet.layers.repeat_vector import RepeatVector
from seqnet.layers.reshape import Flatten, Permute, Reshape
from seqnet.layers.resized import Cropping1D, UpSampling1D, ZeroPadding1D
from seqnet.layers.rg_lru import RGLRU, RGLRUCell
from seqnet.layers.rnn import RNN
from seqnet.layers.sampled_softmax import SampledSoftmax
from seqnet.layers.simple_rnn import SimpleRNN, SimpleRNNCell
from seqnet.layers.slstm import SLSTM, SLSTMCell
from seqnet.layers.sru import SRU, SRUCell
from seqnet.layers.stacked_cells import StackedRNNCells
from seqnet.layers.time_distributed import TimeDistributed
from seqnet.layers.ugrnn import UGRNN, UGRNNCell

__all__ = [
    "CRF",
    "ELU",
    "GRU",
    "LSTM",
    "RGLRU",
    "RNN",
    "SLSTM",
    "SRU",
    "UGRNN",
    "Activation",
    "ActivityRegularization",
    "Add",
    "AdditiveAttention",
    "Attention",
    "Average",
    "AveragePooling1D",
    "BatchNormalization",
    "Bidirectional",
    "CallContext",
    "Cell",
    "ClosedLoop",
    "Concatenate",
    "Conv1D",
    "Cropping1D",
    "Dense",
    "Dot",
    "Dropout",
    "Embedding",
    "Flatten",
    "GRUCell",
    "GatedInput",
    "GaussianDropout",
    "GaussianNoise",
    "GlobalAveragePooling1D",
    "GlobalMaxPooling1D",
    "GroupNormalization",
    "Identity",
    "IndRNN",
    "IndRNNCell",
    "LSTMCell",
    "Lambda",
    "Layer",
    "LayerNormalization",
    "LeakyReLU",
    "Masking",
    "MaxPooling1D",
    "Maximum",
    "Merge",
    "MinGRU",
    "MinGRUCell",
    "MinLSTM",
    "MinLSTMCell",
    "Minimum",
    "MultiHeadAttention",
    "Multiply",
    "PReLU",
    "Permute",
    "RGLRUCell",
    "ReLU",
    "Recurrent",
    "RepeatVector",
    "Reshape",
    "SLSTMCell",
    "SRUCell",
    "SampledSoftmax",
    "ScheduledSampling",
    "SimpleRNN",
    "SimpleRNNCell",
    "Softmax",
    "SpatialDropout1D",
    "StackedRNNCells",
    "Subtract",
    "TimeDistributed",
    "UGRNNCell",
    "UpSampling1D",
    "ZeroPadding1D",
    "add",
    "average",
    "concatenate",
    "dot",
    "maximum",
    "minimum",
    "multiply",
    "subtract",
]


def __dir__() -> list[str]:
    return sorted(__all__)

"""Callbacks: logs, progress, checkpoints, early stopping and learning rates."""

from seqnet.callbacks.backup import BackupAndRestore
from seqnet.callbacks.base import Callback, CallbackList
from seqnet.callbacks.checkpoint import ModelCheckpoint
from seqnet.callbacks.csvlog import CSVLogger
from seqnet.callbacks.functions import LambdaCallback
from seqnet.callbacks.history import History
from seqnet.callbacks.norms import NormLogger
from seqnet.callbacks.progress import EpochLine, ProgressBar
from seqnet.callbacks.rates import LearningRateScheduler, ReduceLROnPlateau
from seqnet.callbacks.stopping import EarlyStopping, TerminateOnNaN
from seqnet.callbacks.tensorboard import TensorBoard

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "EpochLine",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "NormLogger",
    "ProgressBar",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
]


def __dir__() -> list[str]:
    return sorted(__all__)

"""A stack of layers with what it is trained by, and its compiled functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from seqnet import config, losses, optimizers
from seqnet import metrics as metrics_module
from seqnet.data import Examples
from seqnet.layers.layer import Layer
from seqnet.locking import COMPILING
from seqnet.stack import Stack
from seqnet.training import Program, arguments, signature_of


class CompiledStack(Stack):
    """A stack that keeps a compiled function for each kind of run and of batch.

    Attributes
    ----------
    optimizer, loss, metrics
        What `compile` chose.
    metrics_asked : list
        The metrics as they were asked for, before the loss was known.
    padded_lengths : tuple of int
        Lengths that sequences are padded to, where functions are for one length only.
    """

    def __init__(self, layers: Iterable[Layer] = (), name: str = "model"):
        self._functions: dict = {}
        self.padded_lengths: tuple[int, ...] = ()
        self.optimizer = None
        self.loss: Callable | None = None
        self.metrics: list = []
        self.metrics_asked: list = []
        super().__init__(layers, name)

    def __getstate__(self) -> dict:
        """Return what is copied and pickled: all but compiled functions, which are made anew."""
        return vars(self) | {"_functions": {}}

    def add(self, layer: Layer) -> None:
        super().add(layer)
        with COMPILING:
            self._functions.clear()

    def compile(self, optimizer="adam", loss=None, metrics: Sequence = ()) -> None:
        """Choose how to train; nothing is compiled until data comes.

        Parameters
        ----------
        optimizer : str or Optimizer
        loss : str, Loss or function of (y_true, y_pred), optional
            None chooses by the last layer: a softmax gives a categorical cross-entropy (sparse
            for integer targets), a sigmoid the binary cross-entropy, anything else the mean
            squared error.
        metrics : list of str, Metric or functions
            ``"accuracy"`` is the one that fits the loss.

        Raises
        ------
        ValueError
            If a name is not known; the message has the nearest one.
        """
        if isinstance(metrics, str):
            raise TypeError(f"metrics takes a list, such as [{metrics!r}].")
        optimizer = optimizers.get(optimizer)
        loss = None if loss is None else losses.get(loss)
        with COMPILING:  # no other thread stores a function of the earlier loss afterwards
            self.optimizer, self.loss = optimizer, loss
            self.metrics_asked, self.metrics = list(metrics), []
            self._functions.clear()
        if self.loss is not None:
            self.set_metrics()
        else:  # unknown names are told now; "accuracy" is chosen when the loss is known
            for name in self.metrics_asked:
                if not isinstance(name, str) or name not in ("accuracy", "acc"):
                    metrics_module.get(name)

    def set_metrics(self) -> None:
        """Make the metrics that were asked for, now that the loss is known."""
        self.metrics = [metrics_module.get(m, self.loss) for m in self.metrics_asked]
        names = ["loss", *(metric.name for metric in self.metrics)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"Two figures would be called {name!r}: {', '.join(names)}. Figures are "
                    "reported by name, so ask for each metric once."
                )

    def function_for(self, kind: str, batch: Examples, announce: bool = False) -> Callable:
        """Return the compiled function for a batch, compiled now if it is the first of its kind."""
        signature = signature_of(kind, batch, self.dtype, self.needs_length)
        key = (signature, config.backend(), *(layer.structure() for layer in self.layers))
        if kind in ("train", "train_window"):
            key = (*key, self.optimizer.structure(), self.trained)
        function = self._functions.get(key)
        if function is not None:
            return function
        with COMPILING:
            if key not in self._functions:  # another thread may have compiled it meanwhile
                program = Program(self.layers, self.dtype, self.loss, self.metrics, self.optimizer)
                self._functions[key] = getattr(program, kind)(signature, announce)
            return self._functions[key]

    def compute(self, kind: str, batch: Examples, *states, announce: bool = False) -> list:
        """Run the compiled function for a batch; return its outputs.

        One thread at a time does, because a compiled function keeps its inputs and intermediate
        results in storage of its own, and an update overwrites weights.
        """
        function = self.function_for(kind, batch, announce)
        given = arguments(batch, self.dtype)
        with self.lock:
            return function(*given, *states)

    def forget_functions(self, lengths: set) -> None:
        """Drop the compiled functions for some numbers of steps."""
        with COMPILING:
            for key in [k for k in self._functions if lengths & set(k[0].x_shape[1:2])]:
                del self._functions[key]

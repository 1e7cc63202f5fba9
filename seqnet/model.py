"""A stack of layers that learns: compile, fit, evaluate, predict."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from seqnet import config, losses, optimizers, saving
from seqnet import metrics as metrics_module
from seqnet.callbacks import (
    Callback,
    CallbackList,
    EpochLine,
    History,
    ProgressBar,
    check_callbacks,
)
from seqnet.checks import check_count
from seqnet.data import Examples
from seqnet.feeding import mask_for, prepare, validation_arguments
from seqnet.fitting import Fit, check_first_epoch, check_frequency, measure, sizes
from seqnet.layers.layer import Layer
from seqnet.layers.states import fresh_states
from seqnet.packing import pack, unpack
from seqnet.stack import Stack
from seqnet.training import Figures, Program, arguments, signature_of
from seqnet.windows import check_windows

log = logging.getLogger("seqnet")


class Model(Stack):
    """A stack of layers, trained with one compiled call for each batch.

    Parameters
    ----------
    layers : list of Layer
    name : str

    Attributes
    ----------
    optimizer, loss, metrics
        What `compile` chose.
    history : History
        The record of the last `fit`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.layers import Embedding, LSTM, Dense
    >>> model = seqnet.Model([Embedding(10, 4), LSTM(8), Dense(2, activation="softmax")])
    >>> X, y = np.array([[1, 2, 3], [4, 5, 6]]), np.array([0, 1])
    >>> history = model.fit(X, y, epochs=2, verbose=0)
    >>> len(history.history["loss"])
    2
    >>> model.predict(X).shape
    (2, 2)
    """

    def __init__(self, layers: Iterable[Layer] = (), name: str = "model"):
        self._functions: dict = {}
        self.padded_lengths: tuple[int, ...] = ()
        self.optimizer = None
        self.loss: Callable | None = None
        self.metrics: list = []
        self.metrics_asked: list = []
        self.history: History | None = None
        self.stop_training = False
        super().__init__(layers, name)

    def add(self, layer: Layer) -> None:
        super().add(layer)
        self._functions.clear()

    # ---- compiling

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
        self.optimizer = optimizers.get(optimizer)
        self.loss = None if loss is None else losses.get(loss)
        self.metrics_asked = list(metrics)
        self.metrics = []
        self._functions.clear()
        if self.loss is not None:
            self.set_metrics()
        else:  # unknown names are told now; "accuracy" is chosen when the loss is known
            for name in self.metrics_asked:
                if name not in ("accuracy", "acc"):
                    metrics_module.get(name)

    def set_metrics(self) -> None:
        """Make the metrics that were asked for, now that the loss is known."""
        self.metrics = [metrics_module.get(m, self.loss) for m in self.metrics_asked]

    def function_for(self, kind: str, batch: Examples, announce: bool = False) -> Callable:
        """Return the compiled function for a batch, compiled now if it is the first of its kind."""
        signature = signature_of(kind, batch, self.dtype, self.needs_length)
        key = (signature, config.backend())
        if kind in ("train", "train_window"):
            trained = tuple(layer.trainable for layer in self.layers)
            key = (*key, self.optimizer.structure(), trained)
        if key not in self._functions:
            program = Program(self.layers, self.dtype, self.loss, self.metrics, self.optimizer)
            self._functions[key] = getattr(program, kind)(signature, announce)
        return self._functions[key]

    def compute(self, kind: str, batch: Examples, *states, announce: bool = False) -> list:
        """Run the compiled function for a batch; return its outputs."""
        function = self.function_for(kind, batch, announce)
        return function(*arguments(batch, self.dtype), *states)

    def forget_functions(self, lengths: set) -> None:
        """Drop the compiled functions for some numbers of steps."""
        for key in [k for k in self._functions if lengths & set(k[0].x_shape[1:2])]:
            del self._functions[key]

    # ---- checking

    def _prepare(
        self, x, y=None, weight=None, mask=None, lengths=None, *, prefix="", announce=False
    ) -> Examples:
        """Check everything about a data set, build the weights, and return it as `Examples`."""
        return prepare(self, x, y, weight, mask, lengths, prefix=prefix, announce=announce)

    # ---- training

    def fit(
        self,
        X,
        y,
        batch_size: int = 32,
        epochs: int = 1,
        verbose: int = 1,
        callbacks: Sequence[Callback] = (),
        validation_split: float = 0.0,
        validation_data=None,
        shuffle: bool = True,
        sample_weight=None,
        initial_epoch: int = 0,
        mask=None,
        lengths=None,
        tbptt: int | None = None,
        validation_freq: int | Sequence[int] = 1,
    ) -> History:
        """Train on arrays.

        Parameters
        ----------
        X : array (samples, time) of integers or (samples, time, features) or what the model takes
            Or a list of sequences of any lengths, (time,) or (time, features): batches are then
            made of sequences of similar length, padded to the longest of them, with a mask.
        y : array
            Targets as the loss wants them: class numbers ``(samples,)`` or ``(samples, time)`` for
            the sparse cross-entropy, else the output's shape. With a list of sequences, targets
            for each step are a list of the same lengths.
        batch_size, epochs : int
        verbose : 0, 1 or 2
            Silent, a progress bar for each epoch, or one line for each.
        callbacks : list of `seqnet.callbacks.Callback`
        validation_split : float
            Share at the end of the data that is not trained on but evaluated after each epoch.
        validation_data : (X, y) or (X, y, sample_weight), or a dictionary
            With mask or lengths: a dictionary of what `evaluate` takes, such as
            ``{"X": X, "y": y, "lengths": lengths}``.
        shuffle : bool
            Draw a new order for each epoch. With a stateful layer row k of a batch goes on where
            row k of the batch before ended, so it wants ``shuffle=False`` and samples in that
            order; see `reset_states`.
        sample_weight : array (samples,) or (samples, time), or a list of (time,)
        initial_epoch : int
            Number of the first epoch, when training goes on; `epochs` is where it ends.
        mask : bool array (samples, time), optional
            True where there is data.
        lengths : int array (samples,), optional
            How many steps of each row of X are data, where padding comes after them; batches are
            then made as for a list.
        tbptt : int, optional
            Truncated backpropagation: cut each batch into windows of so many steps and make an
            update for each. States go on from window to window, and so do the masks of `dropout`
            and `recurrent_dropout`; gradients do not. Windows of padding alone are left out.
        validation_freq : int or list of int
            Validate after every so many epochs, or after those of a list, counted from 1.

        Returns
        -------
        History
            ``history.history`` has a list of figures by name.

        Raises
        ------
        ValueError, TypeError
            If the arrays do not fit the model or each other; before anything is compiled.
        KeyboardInterrupt, SystemExit
            After Ctrl-C or SIGTERM, when the batch that was under way is finished; at once if they
            come a second time.
        """
        batch_size = check_count(batch_size, "batch_size")
        epochs = check_count(epochs, "epochs", 0)
        initial_epoch = check_first_epoch(initial_epoch, epochs)
        validation_freq = check_frequency(validation_freq)
        announce = verbose > 0
        if shuffle and self.stateful:
            log.warning("shuffle=True mixes what stateful layers carry on: use shuffle=False.")
        examples = self._prepare(X, y, sample_weight, mask, lengths, announce=announce)
        if tbptt is not None:
            tbptt = check_count(tbptt, "tbptt")
            check_windows(self, examples)
        validation = None
        if validation_data is not None:
            validation = self._prepare(*validation_arguments(validation_data), prefix="validation ")
        elif validation_split:
            examples, validation = examples.split(validation_split)

        self.history = History()
        bars: list[Callback] = {1: [ProgressBar()], 2: [EpochLine()]}.get(int(verbose), [])
        fit = Fit(
            self,
            examples,
            validation,
            check_callbacks(callbacks),
            [self.history, *bars],
            batch_size=batch_size,
            epochs=epochs,
            initial_epoch=initial_epoch,
            shuffle=shuffle,
            tbptt=tbptt,
            validation_freq=validation_freq,
        )
        fit.run(announce)
        return self.history

    def evaluate(
        self,
        X,
        y,
        batch_size: int = 32,
        verbose: int = 0,
        sample_weight=None,
        return_dict: bool = False,
        mask=None,
        lengths=None,
        callbacks: Sequence[Callback] = (),
    ):
        """Return the loss, or [loss, metrics...] if there are metrics, over all of the data.

        Nothing about the model changes. With `return_dict` the figures come by name. The hooks of
        `callbacks` that begin with ``on_test`` are called.
        """
        batch_size = check_count(batch_size, "batch_size")
        examples = self._prepare(X, y, sample_weight, mask, lengths, announce=bool(verbose))
        calls = CallbackList(check_callbacks(callbacks), self, sizes(examples, batch_size))
        return self._report(measure(self, examples, batch_size, bool(verbose), calls), return_dict)

    def predict(
        self,
        X,
        batch_size: int = 32,
        verbose: int = 0,
        mask=None,
        lengths=None,
        callbacks: Sequence[Callback] = (),
    ):
        """Return the outputs for inputs, (samples, ...).

        For a list of sequences of different lengths and an output at every step, that is a list of
        arrays (time, ...), in the order of the sequences. The hooks of `callbacks` that begin with
        ``on_predict`` are called; a batch's ``logs["outputs"]`` are its outputs.
        """
        batch_size = check_count(batch_size, "batch_size")
        examples = self._prepare(X, mask=mask_for(X, mask, lengths), announce=bool(verbose))
        examples = examples if self.stateful else examples.by_length()
        calls = CallbackList(check_callbacks(callbacks), self, sizes(examples, batch_size))
        outputs = []
        calls.on_predict_begin()
        with fresh_states(self.layers, "predict"):
            for number, batch in enumerate(examples.batches(batch_size)):
                calls.on_predict_batch_begin(number)
                outputs.append(self.compute("predict", batch, announce=bool(verbose))[0])
                calls.on_predict_batch_end(number, {"outputs": outputs[-1]})
        calls.on_predict_end()
        return examples.join(outputs)

    def train_on_batch(
        self, X, y, sample_weight=None, return_dict: bool = False, mask=None, lengths=None
    ):
        """Make one update; return the figures before it, as `evaluate` does."""
        batch = self._prepare(X, y, sample_weight, mask, lengths).whole()
        return self._one(batch, "train", return_dict)

    def test_on_batch(
        self, X, y, sample_weight=None, return_dict: bool = False, mask=None, lengths=None
    ):
        """Return the figures of one batch, as `evaluate` does."""
        batch = self._prepare(X, y, sample_weight, mask, lengths).whole()
        return self._one(batch, "test", return_dict)

    def predict_on_batch(self, X, mask=None, lengths=None):
        """Return the outputs for one batch, as `predict` does."""
        examples = self._prepare(X, mask=mask_for(X, mask, lengths))
        batch = examples.whole()
        return examples.join(self.compute("predict", batch))

    def _one(self, batch: Examples, kind: str, return_dict: bool):
        figures = Figures(self.metrics)
        figures.add(self.compute(kind, batch))
        return self._report(figures, return_dict)

    def _report(self, figures: Figures, return_dict: bool):
        result = figures.result()
        if return_dict:
            return result
        values = list(result.values())
        return values if len(values) > 1 else values[0]

    # ---- files

    def save(self, path) -> None:
        """Write everything to an HDF5 file: layers, weights, metadata, and the state of training.

        The file is written beside `path` and renamed, so that a failure leaves an earlier file as
        it was. A model loaded from it goes on with exactly the update this one would make next.

        Raises
        ------
        ValueError, TypeError
            If something about the model cannot be written down so that it is found again, such as
            a function without a name; nothing is written.
        OSError
            If the file cannot be written: the disk is full, the folder missing, the file
            read-only.
        """
        self._built_weights("save")
        saving.write(path, *pack(self))


def load_model(path, custom_objects: dict | None = None) -> Model:
    """Return the model of a file that `Model.save` wrote, ready to predict or to train on.

    Parameters
    ----------
    path : path
    custom_objects : dict, optional
        Your own layers, losses and so on by name. Nothing is ever run from a file: what a name
        stands for must be known to seqnet or be passed here.

    Raises
    ------
    ValueError
        If the file is not a model's, was damaged, cut short or changed by another program since it
        was saved, or names something unknown. The message names the file.

    Examples
    --------
    >>> import os, tempfile, seqnet
    >>> model = seqnet.Model([seqnet.layers.Dense(2, input_shape=(3,))])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.h5")
    ...     model.save(path)
    ...     again = seqnet.load_model(path)
    >>> [w.shape for w in again.get_weights()]
    [(3, 2), (2,)]
    """
    header, arrays = saving.read(path)
    return unpack(Model(), header, arrays, path, custom_objects)

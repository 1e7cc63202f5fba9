"""A stack of layers that learns: compile, fit, evaluate, predict."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing

from seqnet import saving
from seqnet.callbacks import Callback, EpochLine, History, ProgressBar
from seqnet.callbacks.base import check_callbacks
from seqnet.checks import check_count
from seqnet.compiled import CompiledStack
from seqnet.evaluation import calls_of, measure, outputs_of, report
from seqnet.feeding import mask_for, prepare
from seqnet.fitting import Fit
from seqnet.layers.layer import Layer
from seqnet.locking import alone
from seqnet.options import (
    check_first_epoch,
    check_frequency,
    check_shuffle,
    check_steps,
    check_verbose,
    validation_arguments,
)
from seqnet.packing import pack, unpack
from seqnet.streams import Stream
from seqnet.training import Figures, Update
from seqnet.trouble import Norms
from seqnet.windows import check_windows

log = logging.getLogger("seqnet")


class Model(CompiledStack):
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
    stop_training : bool
        A callback sets it to True to end `fit` after the batch.
    last_run : str, optional
        Identifies the last run of `fit`; a resumed run is the same one.
    norms : Norms
        Those of the gradients of the epoch, or of the last `train_on_batch`.

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
        self.history: History | None = None
        self.stop_training = False
        self.last_run: str | None = None
        self.norms = Norms()
        super().__init__(layers, name)

    def fit(
        self,
        X,
        y=None,
        batch_size: int = 32,
        epochs: int = 1,
        verbose: int | str = 1,
        callbacks: Sequence[Callback] = (),
        validation_split: float = 0.0,
        validation_data=None,
        shuffle: bool | str = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight=None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
        mask=None,
        lengths=None,
        tbptt: int | None = None,
    ) -> History:
        """Train on arrays, on what is too big to be one, or on a stream of batches.

        Parameters
        ----------
        X : array (samples, time) of integers or (samples, time, features) or what the model takes
            Or a list of sequences of any lengths, (time,) or (time, features): batches are then
            made of sequences of similar length, padded to the longest of them, with a mask.
            Or rows beyond memory: a `numpy.memmap`, a `h5py.Dataset`, any object with a length and
            slices; a batch is read, and its values checked, when its turn comes.
            Or, without y, a stream: a generator or iterable of batches (x, y) or
            (x, y, sample_weight), or an object that gives batches by number. A generator is closed
            when `fit` ends.
        y : array
            Targets as the loss wants them: class numbers ``(samples,)`` or ``(samples, time)`` for
            the sparse cross-entropy, else the output's shape. With a list of sequences, targets
            for each step are a list of the same lengths.
        batch_size, epochs : int
        verbose : 0, 1 or 2
            Silent, a progress bar for each epoch (a `ProgressBar` among the callbacks takes its
            place), or one line for each. ``"auto"`` is 1.
        callbacks : list of `seqnet.callbacks.Callback`
        validation_split : float
            Share at the end of the data that is not trained on but evaluated after each epoch.
        validation_data : (X, y) or (X, y, sample_weight), or a stream, or a dictionary
            With mask or lengths: a dictionary of what `evaluate` takes, such as
            ``{"X": X, "y": y, "lengths": lengths}``.
        shuffle : bool or "batch"
            Draw a new order for each epoch; with ``"batch"`` the order of batches only, each of
            neighbouring rows, as is quick to read from a disk. Iterables keep their order. With a
            stateful layer row k of a batch goes on where row k of the batch before ended, so it
            wants ``shuffle=False`` and samples in that order; see `reset_states`.
        class_weight : dict of int to float
            Weights for the classes of targets, 1 for a class without one; multiplies
            `sample_weight`. Not for validation.
        sample_weight : array (samples,) or (samples, time), or a list of (time,)
        initial_epoch : int
            Number of the first epoch, when training goes on; `epochs` is where it ends.
        steps_per_epoch : int, optional
            Batches in an epoch; for a stream without end it is needed. The next epoch goes on
            where it ended, or, where rows are shuffled, draws anew.
        validation_steps : int, optional
            How many batches to validate on, the first ones each time.
        validation_batch_size : int, optional
            `batch_size` by default.
        validation_freq : int or list of int
            Validate after every so many epochs, or after those of a list, counted from 1.
        mask : bool array (samples, time), optional
            True where there is data.
        lengths : int array (samples,), optional
            How many steps of each row of X are data, where padding comes after them; batches are
            then made as for a list.
        tbptt : int, optional
            Truncated backpropagation: cut each batch into windows of so many steps and make an
            update for each. States go on from window to window, and so do the masks of `dropout`
            and `recurrent_dropout`; gradients do not. Windows of padding alone are left out.

        Returns
        -------
        History
            ``history.history`` has a list of figures by name.

        Raises
        ------
        ValueError, TypeError
            If the arrays do not fit the model or each other; before anything is compiled. Values
            beyond memory and in streams are refused before the update that would use them.
        RuntimeError
            If another call of `fit` is training the model.
        """
        batch_size = check_count(batch_size, "batch_size")
        validation_batch_size = check_count(
            batch_size if validation_batch_size is None else validation_batch_size,
            "validation_batch_size",
        )
        epochs = check_count(epochs, "epochs", 0)
        initial_epoch = check_first_epoch(initial_epoch, epochs)
        validation_freq = check_frequency(validation_freq)
        shuffle = check_shuffle(shuffle)
        verbose = check_verbose(verbose)
        announce, ahead = verbose > 0, epochs - initial_epoch
        if shuffle and self.stateful:
            log.warning("shuffle=True mixes what stateful layers carry on: use shuffle=False.")
        with ExitStack() as opened:
            opened.enter_context(alone(self))
            examples = prepare(
                self, X, y, sample_weight, mask, lengths, announce=announce,
                class_weight=class_weight, goes_on=steps_per_epoch is not None,
            )  # fmt: skip
            opened.callback(examples.close)
            steps = check_steps(examples, steps_per_epoch, "steps_per_epoch", ahead)
            if tbptt is not None:
                tbptt = check_count(tbptt, "tbptt")
                is_stream = isinstance(examples, Stream)
                check_windows(self, examples.first_batch() if is_stream else examples)
            validation = None
            if validation_data is not None:
                given = validation_arguments(validation_data)
                validation = prepare(self, *given, prefix="validation ")
                opened.callback(validation.close)
            elif validation_split:
                examples, validation = examples.split(validation_split)
                if class_weight is not None:
                    whole = prepare(self, X, y, sample_weight, mask, lengths)
                    validation = whole.split(validation_split)[1]
            if validation is not None:
                check_steps(validation, validation_steps, "validation_steps", ahead)

            history = self.history = History()
            callbacks = check_callbacks(callbacks)
            reports: list[Callback] = [history]
            if verbose == 1 and not any(isinstance(c, ProgressBar) for c in callbacks):
                reports.append(ProgressBar())
            if verbose == 2:
                reports.append(EpochLine())
            fit = Fit(
                self, examples, validation, callbacks, reports,
                batch_size=batch_size, validation_batch_size=validation_batch_size,
                epochs=epochs, initial_epoch=initial_epoch, shuffle=shuffle, tbptt=tbptt,
                validation_freq=validation_freq, steps_per_epoch=steps,
                validation_steps=validation_steps, class_weight=class_weight,
            )  # fmt: skip
            fit.run(announce)
        return history

    def evaluate(
        self,
        X,
        y=None,
        batch_size: int = 32,
        verbose: int | str = 0,
        sample_weight=None,
        steps: int | None = None,
        return_dict: bool = False,
        mask=None,
        lengths=None,
        callbacks: Sequence[Callback] = (),
    ):
        """Return the loss, or [loss, metrics...] if there are metrics, over all of the data.

        X and y are what `fit` takes; `steps` is a number of batches after which to end. Nothing
        about the model changes. With `return_dict` the figures come by name. The hooks of
        `callbacks` that begin with ``on_test`` are called.
        """
        batch_size = check_count(batch_size, "batch_size")
        announce = check_verbose(verbose) > 0
        examples = prepare(self, X, y, sample_weight, mask, lengths, announce=announce)
        with closing(examples):
            steps = check_steps(examples, steps, "steps")
            calls = calls_of(self, callbacks, examples, batch_size, steps)
            figures = measure(self, examples, batch_size, calls, steps, announce)
        return report(figures, return_dict)

    def predict(
        self,
        X,
        batch_size: int = 32,
        verbose: int | str = 0,
        steps: int | None = None,
        mask=None,
        lengths=None,
        callbacks: Sequence[Callback] = (),
    ):
        """Return the outputs for inputs, (samples, ...).

        X is what `fit` takes; a batch of a stream is x, or a tuple that begins with x. `steps` is a
        number of batches after which to end. For sequences of different lengths and an output at
        every step, the result is a list of arrays (time, ...), in the order of the sequences. The
        hooks of `callbacks` that begin with ``on_predict`` are called; a batch's
        ``logs["outputs"]`` are its outputs.
        """
        batch_size = check_count(batch_size, "batch_size")
        announce, mask = check_verbose(verbose) > 0, mask_for(X, mask, lengths)
        examples = prepare(self, X, mask=mask, announce=announce, targets=False)
        with closing(examples):
            steps = check_steps(examples, steps, "steps")
            calls = calls_of(self, callbacks, examples, batch_size, steps)
            return outputs_of(self, examples, batch_size, calls, steps, announce)

    def train_on_batch(
        self, X, y, sample_weight=None, return_dict: bool = False, mask=None, lengths=None
    ):
        """Make one update; return the figures before it, as `evaluate` does."""
        batch = prepare(self, X, y, sample_weight, mask, lengths).whole()
        update, norms = Update(self, "train", batch), Norms()
        update.add_to(norms)
        self.norms = norms
        if not update.finite:
            raise update.error(self, "train_on_batch")
        return report(Figures(self.metrics, update.sums), return_dict)

    def test_on_batch(
        self, X, y, sample_weight=None, return_dict: bool = False, mask=None, lengths=None
    ):
        """Return the figures of one batch, as `evaluate` does."""
        batch = prepare(self, X, y, sample_weight, mask, lengths).whole()
        return report(Figures(self.metrics, self.compute("test", batch)), return_dict)

    def predict_on_batch(self, X, mask=None, lengths=None):
        """Return the outputs for one batch, as `predict` does."""
        examples = prepare(self, X, mask=mask_for(X, mask, lengths), targets=False)
        batch = examples.whole()
        return examples.join(self.compute("predict", batch))

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
        with self.lock:  # while the file is written, so that no copy of the weights is needed
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

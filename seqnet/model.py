"""Models: layers with a loss and an optimizer.

`Model.fit`, `evaluate` and `predict` validate their arguments, build data sets, and pass them to
`seqnet.training`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any, cast

import numpy as np
import pytensor.tensor as pt

from seqnet import backend, config, losses, optimizers
from seqnet import metrics as metrics_module
from seqnet.callbacks import Callback, CallbackList, EpochLine, History, ProgressBar
from seqnet.callbacks.base import check_callbacks
from seqnet.checks import check_count, check_shape
from seqnet.data.adapters import Adapter, mask_for
from seqnet.data.class_weight import ClassWeight
from seqnet.data.dataset import Batch, Data, Dataset
from seqnet.data.ragged import choose_lengths
from seqnet.hyperparameters import names_of
from seqnet.layers.context import CallContext
from seqnet.layers.layer import Layer, Shape, snake_case
from seqnet.layers.states import RUNS, all_layers, carried_states
from seqnet.layers.weights import set_values
from seqnet.locking import COMPILING, ForkSafeLock, alone
from seqnet.optimizers import Optimizer
from seqnet.saving import hdf5
from seqnet.saving.model_format import pack, unpack
from seqnet.training import trainer as training
from seqnet.training.arguments import (
    FitArguments,
    check_optional_count,
    check_repeatable,
    check_verbose,
    validation_arguments,
)
from seqnet.training.diagnostics import GradientNorms
from seqnet.training.step import CompiledSteps, Totals
from seqnet.training.tbptt import check_windows
from seqnet.types import ArrayLike, Tensor

log = logging.getLogger("seqnet")


class Model:
    """A linear stack of layers, trained with one compiled call for each batch.

    Parameters
    ----------
    layers : list of Layer
    name : str

    Attributes
    ----------
    layers : list of Layer
    metadata : dict
        Values that JSON can hold and that are saved with the model, such as a vocabulary.
    optimizer, loss, metrics
        Set by `compile`.
    steps : CompiledSteps
        The compiled train, test and predict steps.
    history : History
        The logs of the last `fit`; empty before the first one.
    stop_training : bool
        A callback sets it to True to stop `fit` after the batch.
    last_run : str, optional
        Identifies the last run of `fit`; a resumed run keeps its id.
    lock : ForkSafeLock
        Held by the thread that runs a compiled function, or that reads or changes all weights. Hold
        it yourself (``with model.lock:``) to make several such calls without another thread in
        between.
    gradient_norms : GradientNorms
        The gradient norms of the epoch, or of the last `train_on_batch`.

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
        self.name = name
        self.layers: list[Layer] = []
        self.metadata: dict[str, Any] = {}
        self.input_shape: Shape | None = None
        self.optimizer: Any = None
        self.loss: Callable | None = None
        self.metrics: list = []
        self.metrics_asked: list = []
        self.padded_lengths: tuple[int, ...] = ()
        self.lock = ForkSafeLock()
        self.steps = CompiledSteps(self)
        self.history = History()
        self.stop_training = False
        self.last_run: str | None = None
        self.gradient_norms = GradientNorms()
        if not isinstance(layers, Iterable):
            raise TypeError(f"A model takes a list of layers, got {layers!r}.")
        if not isinstance(name, str):
            raise TypeError(
                f"A model takes its layers in one list; its name must be text, not {name!r}."
            )
        for layer in layers:
            self.add(layer)

    # ---- layers

    def add(self, layer: Layer) -> None:
        """Add a layer after the existing ones."""
        if not isinstance(layer, Layer):
            raise TypeError(
                f"A model takes layers (objects of seqnet.layers.Layer), got {layer!r}."
            )
        if layer.has_multiple_outputs:
            raise ValueError(
                f"Layer {layer.display_name!r} ({type(layer).__name__}) has several outputs "
                "(return_state=True, or a Bidirectional without a merge), but a model passes one "
                "output from layer to layer. Call such a layer on a variable, outside a model."
            )
        there = {id(other) for other in all_layers(self.layers)}
        for part in all_layers([layer]):
            if id(part) in there:
                raise ValueError(f"Layer {part.display_name!r} is already in this model.")
        taken = {other.name for other in self.layers}
        if layer.name is None:
            base = snake_case(type(layer).__name__)
            number = sum(type(other) is type(layer) for other in self.layers)
            name = base if not number else f"{base}_{number}"
            while name in taken:
                number += 1
                name = f"{base}_{number}"
            layer.name = name
        elif layer.name in taken:
            raise ValueError(f"This model already has a layer named {layer.name!r}.")
        self.layers.append(layer)
        self.steps = CompiledSteps(self)
        if self.input_shape is not None or layer.input_shape is not None:
            self._build_from(self.input_shape or (None, *(layer.input_shape or ())))

    def get_layer(self, name: str) -> Layer:
        """Return the layer with this name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = ", ".join(repr(layer.name) for layer in self.layers)
        raise ValueError(f"No layer is named {name!r}; there are {known or 'none'}.")

    @property
    def built(self) -> bool:
        """Whether all layers have their weights."""
        return bool(self.layers) and all(layer.built for layer in self.layers)

    def build(self, input_shape: Shape) -> None:
        """Create the weights for inputs of shape ``(batch, ...)``; None for sizes that vary."""
        if not self.layers:
            raise ValueError("The model has no layers; add some first.")
        self._build_from(check_shape(input_shape, "input_shape"))

    def _build_from(self, input_shape: Shape) -> None:
        shape = input_shape
        with self.lock:
            for layer in self.layers:
                layer.ensure_built(shape)
                shape = layer.compute_output_shape(shape)
            if self.input_shape is None:
                self.input_shape = input_shape

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the output shape for an input shape."""
        shape = tuple(input_shape)
        for layer in self.layers:
            shape = layer.compute_output_shape(shape)
        return shape

    @property
    def output_features(self) -> Any:
        """The size of the last axis of the output."""
        return self.compute_output_shape(self.input_shape or ())[-1]

    @property
    def dtype(self) -> str:
        """The float type of the model: that of its last layer with weights."""
        for layer in reversed(self.layers):
            if layer.weights:
                return layer.dtype
        return self.layers[-1].dtype if self.layers else config.floatx()

    @property
    def input_dtype(self) -> str:
        """The dtype of the inputs of the first layer: int32 or the float type."""
        return "int32" if self.layers and self.layers[0].integer_input else self.dtype

    def __call__(
        self,
        inputs: Tensor,
        mask: Tensor | None = None,
        context: CallContext | None = None,
        training: bool = False,
    ) -> Tensor:
        """Apply the model to a PyTensor variable and return a PyTensor variable.

        Pass a `context` to collect the updates of a compiled function (`CallContext.updates`).
        """
        context = CallContext(training=training) if context is None else context
        return self.forward(pt.as_tensor_variable(inputs), mask, context)[0]

    def forward(
        self, x: Tensor, mask: Tensor | None, context: CallContext
    ) -> tuple[Tensor, Tensor | None]:
        """Pass a symbolic input through the layers; return the output and its mask."""
        for layer in self.layers:
            output = cast(Tensor, layer(x, mask=mask, context=context))  # one, as was checked
            mask = layer.compute_mask(x, mask)
            x = output
        return x, mask

    @property
    def weights(self) -> list:
        """The shared variables of all layers, in order."""
        return [w for layer in self.layers for w in layer.weights]

    @property
    def trained(self) -> tuple[bool, ...]:
        """Whether each weight is trained."""
        return tuple([on for layer in self.layers for on in layer.trained()])

    def get_weights(self) -> list[np.ndarray]:
        """Return copies of all weights, layer by layer."""
        with self.lock:
            return [w.get_value() for w in self._built_weights("get")]

    def set_weights(self, values: Sequence[np.ndarray]) -> None:
        """Set all weights from arrays in the order of `get_weights`."""
        weights = self._built_weights("set")
        if len(values) != len(weights):
            raise ValueError(f"The model has {len(weights)} weights, but got {len(values)} arrays.")
        with self.lock:
            set_values(weights, values)

    def _built_weights(self, verb: str) -> list:
        if not self.built:
            raise ValueError(
                f"The model has no weights to {verb} yet: its input shape is unknown. Pass "
                "input_shape= to the first layer, call build, or call fit or predict with data."
            )
        return self.weights

    def count_params(self) -> int:
        """Return the total number of parameters in the weights."""
        return sum(layer.count_params() for layer in self.layers)

    def summary(self, print_fn: Callable[[str], None] = print) -> None:
        """Print the layers, their output shapes and weights, and how recurrent layers run."""
        rows = [("Layer", "Output shape", "Weights", "Runs as")]
        shape = self.input_shape
        for layer in self.layers:
            shape = None if shape is None else layer.compute_output_shape(shape)
            rows.append(
                (
                    f"{layer.name} ({type(layer).__name__})",
                    "?" if shape is None else str(shape),
                    f"{layer.count_params():,}" if layer.built else "not built",
                    layer.runs_as(backend.way_of) if layer.built else "",
                )
            )
        widths = [max(len(row[k]) for row in rows) for k in range(4)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
        lines.insert(1, "-" * (sum(widths) + 6))
        print_fn("\n".join(line.rstrip() for line in lines))
        sizes = [int(w.get_value(borrow=True).size) for w in self.weights]
        trained = sum(size for size, on in zip(sizes, self.trained, strict=True) if on)
        print_fn(f"Weights: {sum(sizes):,}, of which {trained:,} are trained.")

    @property
    def stateful(self) -> bool:
        """Whether a layer carries its states from batch to batch."""
        return any(layer.stateful for layer in all_layers(self.layers))

    def reset_states(self) -> None:
        """Reset the states of stateful layers to zeros, for training, testing and prediction.

        `fit` and `train_on_batch` start from the training states, in each epoch and call;
        `test_on_batch` and `predict_on_batch` start from the states of testing and prediction.
        `evaluate`, `predict` and the validation in `fit` start from zeros at each call, carry
        states from batch to batch within the call, and do not change the stored states.

        Examples
        --------
        >>> import numpy as np, seqnet
        >>> model = seqnet.Model([seqnet.layers.SimpleRNN(2, stateful=True)])
        >>> x = np.ones((1, 3, 1), "float32")
        >>> first, second = model.predict_on_batch(x), model.predict_on_batch(x)
        >>> model.reset_states()
        >>> bool((model.predict_on_batch(x) == first).all()), bool((second == first).all())
        (True, False)
        """
        with self.lock:
            for carried in carried_states(self.layers):
                carried.reset()

    @property
    def needs_length(self) -> bool:
        """Whether compiled functions only work for one number of steps."""
        return backend.needs_sizes() or any(layer.needs_length for layer in self.layers)

    @property
    def runs_backwards(self) -> bool:
        """Whether the outputs of steps are in reversed order."""
        return sum(layer.reverses_time for layer in self.layers) % 2 == 1

    # ---- training

    def compile(
        self,
        optimizer: str | Optimizer = "adam",
        loss: str | Callable | None = None,
        metrics: Sequence[str | Callable] = (),
        weighted_metrics: Sequence[str | Callable] = (),
    ) -> None:
        """Set the optimizer, the loss and the metrics; functions are compiled when data is known.

        Parameters
        ----------
        optimizer : str or Optimizer
        loss : str, Loss or function of (y_true, y_pred), optional
            None chooses a loss for the last layer: a categorical cross-entropy for a softmax
            (sparse for integer targets), the binary cross-entropy for a sigmoid, and the mean
            squared error otherwise.
        metrics : list of str, Metric or functions
            They are weighted and masked like the loss. ``"accuracy"`` selects the accuracy that
            fits the loss or the shapes, and ``"crossentropy"`` the cross-entropy.
        weighted_metrics : list of str, Metric or functions
            More metrics. In Keras only these are weighted; here there is no difference.

        Raises
        ------
        ValueError
            If a name is unknown; the message suggests the closest one.
        """
        for name, given in (("metrics", metrics), ("weighted_metrics", weighted_metrics)):
            if isinstance(given, str):
                raise TypeError(f"{name} takes a list, such as [{given!r}].")
        optimizer = optimizers.get(optimizer)
        loss = None if loss is None else losses.get(loss)
        with COMPILING:  # no other thread compiles while only some attributes are set
            self.optimizer, self.loss = optimizer, loss
            self.metrics_asked, self.metrics = [*(metrics or ()), *(weighted_metrics or ())], []
            self.steps = CompiledSteps(self)
        if self.loss is not None:
            self.set_metrics()
        else:  # unknown names are errors now; "accuracy" is chosen when the loss is known
            for name in self.metrics_asked:
                metrics_module.check_scalar(metrics_module.get(name))

    def set_metrics(self) -> None:
        """Create the requested metrics, once the loss is known."""
        self.metrics = [metrics_module.get(m, self.loss) for m in self.metrics_asked]
        for metric in self.metrics:
            metrics_module.check_scalar(metric)
        names = ["loss", *(metric.name for metric in self.metrics)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"Two metrics would have the name {name!r}: {', '.join(names)}. They are "
                    "reported by name, so pass each one once."
                )

    def complete_compile(self, dataset: Dataset, announce: bool = False) -> None:
        """Choose an optimizer and a loss if `compile` did not, and log the choice.

        Parameters
        ----------
        dataset : Dataset
        announce : bool
            Print the choice, too.
        """
        with self.lock:
            if self.optimizer is None:
                self.compile()
                if announce:
                    optimizer: Any = self.optimizer
                    name = type(optimizer).__name__
                    name = f"{name}(learning_rate={optimizer.learning_rate:g})"
                    print(f"compile was not called: training with {name}.")
            if self.loss is None:
                sample = dataset.first_batch(1)
                x = self.steps.variables(Batch(sample.inputs)).inputs
                self.loss = losses.guess(self(x), sample.targets)
                self.set_metrics()
                name = self.loss.name
                inform(f"No loss was given: using {name}, which fits the last layer.", announce)

    def choose_padded_lengths(self, lengths: np.ndarray, announce: bool = False) -> tuple[int, ...]:
        """Return the lengths that sequences are padded to, and keep them for later calls.

        For unrolled models, and backends that need sizes, one function is compiled for each length.
        """
        with self.lock:
            before = self.padded_lengths
            chosen = self.padded_lengths = choose_lengths(lengths, before)
            if chosen != before:
                inform(
                    f"Sequences are padded to one of the lengths {', '.join(map(str, chosen))}; a "
                    "function is compiled for each length when it is first used.",
                    announce,
                )
                self.steps.forget_lengths(set(before) - set(chosen))
        return chosen

    def fit(
        self,
        X: Data,
        y: Data | None = None,
        batch_size: int = 32,
        epochs: int = 1,
        verbose: int | str = 1,
        callbacks: Sequence[Callback] = (),
        validation_split: float = 0.0,
        validation_data: Data | None = None,
        shuffle: bool | str = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Data | None = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
        mask: Data | None = None,
        lengths: ArrayLike | None = None,
        tbptt: int | None = None,
    ) -> History:
        """Train on arrays, rows outside memory, or a stream of batches.

        Parameters
        ----------
        X : array (samples, time) of integers, (samples, time, features), or another input shape
            Or a list of sequences of any lengths, (time,) or (time, features): batches then consist
            of sequences of similar length, padded to the longest of them, with a mask.
            Or rows outside memory: a `numpy.memmap`, a `h5py.Dataset`, any object with a length and
            slices; each batch is read and checked when it is needed.
            Or, without y, a stream: a generator or iterable of batches (x, y) or
            (x, y, sample_weight), or an object that returns batches by number. A generator is
            closed when `fit` ends.
        y : array
            Targets: class numbers ``(samples,)`` or ``(samples, time)`` for the sparse
            cross-entropy, otherwise an array of the shape of the output. For a list of sequences,
            targets for each step are a list of the same lengths.
        batch_size, epochs : int
        verbose : 0, 1 or 2
            Silent, a progress bar for each epoch (replaced by a `ProgressBar` among the callbacks),
            or one line for each epoch. ``"auto"`` means 1.
        callbacks : list of `seqnet.callbacks.Callback`
        validation_split : float
            The fraction at the end of the data that is used for validation instead of training.
        validation_data : (X, y) or (X, y, sample_weight), or a stream, or a dictionary
            With mask or lengths, a dictionary of arguments of `evaluate`, such as
            ``{"X": X, "y": y, "lengths": lengths}``.
        shuffle : bool or "batch"
            Draw a new order for each epoch. ``"batch"`` shuffles only the order of the batches,
            each of neighbouring rows, which are quick to read from a disk. Iterables keep their
            order. With a stateful layer, row k of a batch continues row k of the previous batch;
            this needs ``shuffle=False`` and samples in that order; see `reset_states`.
        class_weight : dict of int to float
            Weights of target classes; other classes have the weight 1. They multiply
            `sample_weight`, and are not used for validation.
        sample_weight : array (samples,) or (samples, time), or a list of (time,)
        initial_epoch : int
            The number of the first epoch, to continue a training; `epochs` is where it ends.
        steps_per_epoch : int, optional
            The number of batches in an epoch; required for an infinite stream. The next epoch
            begins where the previous one ended; shuffled rows are drawn again.
        validation_steps : int, optional
            The number of batches to validate on, always the first ones.
        validation_batch_size : int, optional
            `batch_size` by default.
        validation_freq : int or list of int
            Validate every `validation_freq` epochs, or after the listed epochs, counted from 1.
        mask : bool array (samples, time), optional
            True where there is data.
        lengths : int array (samples,), optional
            The number of steps of each row of X that are data, if padding comes after them; batches
            are then formed as for a list.
        tbptt : int, optional
            Truncated backpropagation: divide each batch into windows of this many steps and make
            an update for each. States and the masks of `dropout` and `recurrent_dropout` are passed
            from window to window; gradients are not. Windows that consist only of padding are
            skipped.

        Returns
        -------
        History
            ``history.history`` has a list of values for each name in the logs.

        Raises
        ------
        ValueError, TypeError
            If the arrays do not fit the model or each other, before anything is compiled. Rows
            outside memory and batches of streams are checked before the update that uses them.
        RuntimeError
            If another call of `fit` is training the model.
        """
        arguments = FitArguments.check(
            batch_size, validation_batch_size, epochs, initial_epoch, shuffle, tbptt, verbose,
            validation_freq, steps_per_epoch, validation_steps, class_weight,
        )  # fmt: skip
        callbacks, verbose = check_callbacks(callbacks), arguments.verbose
        remaining = arguments.epochs - arguments.initial_epoch
        if arguments.shuffle and self.stateful:
            log.warning("shuffle=True mixes the sequences of stateful layers: use shuffle=False.")
        with ExitStack() as opened:
            opened.enter_context(alone(self))
            adapter = Adapter(self, announce=verbose > 0, continues=steps_per_epoch is not None)
            dataset = adapter.dataset(X, y, sample_weight, mask, lengths)
            opened.callback(dataset.close)
            check_repeatable(dataset, steps_per_epoch, "steps_per_epoch", remaining)
            validation: Dataset | None = None
            if validation_data is not None:
                given = validation_arguments(validation_data)
                validation = Adapter(self, prefix="validation ").dataset(*given)
                opened.callback(validation.close)
            elif validation_split:
                dataset, validation = dataset.split(validation_split)
            if validation is not None:
                check_repeatable(validation, validation_steps, "validation_steps", remaining)
            if class_weight is not None:
                weigh = ClassWeight(class_weight, self.loss, self.output_features, self.dtype)
                dataset = dataset.map(weigh)
            if tbptt is not None:
                check_windows(self, dataset.first_batch(arguments.batch_size))
            history = self.history = History()
            reports: list[Callback] = [history]
            if verbose == 1 and not any(isinstance(c, ProgressBar) for c in callbacks):
                reports.append(ProgressBar())
            if verbose == 2:
                reports.append(EpochLine())
            called = CallbackList(callbacks, reports)
            opened.callback(called.close)
            training.Trainer(self, dataset, validation, arguments, called).fit()
        return history

    def evaluate(
        self,
        X: Data,
        y: Data | None = None,
        batch_size: int = 32,
        verbose: int | str = 0,
        sample_weight: Data | None = None,
        steps: int | None = None,
        return_dict: bool = False,
        mask: Data | None = None,
        lengths: ArrayLike | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> float | list[float] | dict[str, float]:
        """Return the loss, or [loss, metrics...] if there are metrics, over all of the data.

        X and y are the same as for `fit`; `steps` is the number of batches to evaluate. The model
        is not changed. With `return_dict`, a dictionary of results by name is returned. The hooks
        of `callbacks` whose names begin with ``on_test`` are called.
        """
        batch_size = check_count(batch_size, "batch_size")
        steps = check_optional_count(steps, "steps")
        announce = check_verbose(verbose) > 0
        called = CallbackList(check_callbacks(callbacks))
        dataset = Adapter(self, announce=announce).dataset(X, y, sample_weight, mask, lengths)
        with closing(dataset):
            called.set_up(self, training.data_params(dataset, batch_size, steps))
            totals = training.evaluate(self, dataset, batch_size, called, steps, announce)
        return report(totals, return_dict)

    def predict(
        self,
        X: Data,
        batch_size: int = 32,
        verbose: int | str = 0,
        steps: int | None = None,
        mask: Data | None = None,
        lengths: ArrayLike | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> np.ndarray | list[np.ndarray]:
        """Return the outputs for inputs, (samples, ...).

        X is the same as for `fit`; a batch of a stream is x, or a tuple whose first item is x.
        `steps` is the number of batches. For sequences of different lengths and an output at every
        step, the result is a list of arrays (time, ...), in the order of the sequences. The hooks
        of `callbacks` whose names begin with ``on_predict`` are called; ``logs["outputs"]`` are the
        outputs of a batch.
        """
        batch_size = check_count(batch_size, "batch_size")
        steps = check_optional_count(steps, "steps")
        announce = check_verbose(verbose) > 0
        called = CallbackList(check_callbacks(callbacks))
        adapter = Adapter(self, announce=announce, targets=False)
        dataset = adapter.dataset(X, mask=mask_for(X, mask, lengths))
        with closing(dataset):
            called.set_up(self, training.data_params(dataset, batch_size, steps))
            return training.predict(self, dataset, batch_size, called, steps, announce)

    def train_on_batch(
        self,
        X: Data,
        y: Data,
        sample_weight: Data | None = None,
        return_dict: bool = False,
        mask: Data | None = None,
        lengths: ArrayLike | None = None,
    ) -> float | list[float] | dict[str, float]:
        """Make one update; return the loss and metrics before the update, as `evaluate` does."""
        batch = Adapter(self).dataset(X, y, sample_weight, mask, lengths).as_batch()
        result, norms = self.steps.train(batch), GradientNorms()
        norms.add(result.joint_norm, result.gradient_norms, result.trained)
        self.gradient_norms = norms
        if not result.finite:
            raise training.numerical_error(self, result, "train_on_batch")
        return report(Totals(self.metrics, result.sums), return_dict)

    def test_on_batch(
        self,
        X: Data,
        y: Data,
        sample_weight: Data | None = None,
        return_dict: bool = False,
        mask: Data | None = None,
        lengths: ArrayLike | None = None,
    ) -> float | list[float] | dict[str, float]:
        """Return the loss and metrics of one batch, as `evaluate` does."""
        batch = Adapter(self).dataset(X, y, sample_weight, mask, lengths).as_batch()
        return report(Totals(self.metrics, self.steps.test(batch).sums), return_dict)

    def predict_on_batch(
        self, X: Data, mask: Data | None = None, lengths: ArrayLike | None = None
    ) -> np.ndarray | list[np.ndarray]:
        """Return the outputs for one batch, as `predict` does."""
        dataset = Adapter(self, targets=False).dataset(X, mask=mask_for(X, mask, lengths))
        return dataset.join([self.steps.predict(dataset.as_batch()).output])

    # ---- files

    def save(self, path: str | os.PathLike) -> None:
        """Save the model to an HDF5 file: layers, weights, metadata, and the state of training.

        A temporary file is written and renamed, so that a failure does not change an existing file.
        The next update of a model that is loaded from the file equals the next update of this
        model.

        Raises
        ------
        ValueError, TypeError
            If a part of the model cannot be saved, such as a function without a name; nothing is
            written.
        OSError
            If the file cannot be written: the disk is full, the folder is missing, or the file is
            read-only.
        """
        self._built_weights("save")
        with self.lock:  # held while the file is written, so that no copy of the weights is needed
            hdf5.write(path, *pack(self))

    def save_weights(self, path: str | os.PathLike) -> None:
        """Save the weights to an HDF5 file atomically, each under the name ``layer/weight``."""
        self._built_weights("save")
        with self.lock:
            arrays = {f"weights/{name}": value for name, value in self._weights_by_name().items()}
            hdf5.write(path, {"kind": "weights"}, arrays)

    def load_weights(self, path: str | os.PathLike) -> None:
        """Set the weights from a file of `save_weights` or `Model.save`, by name.

        Raises
        ------
        ValueError
            If the file cannot be read, or does not have exactly the weights of this model: the
            message names the layer and the shapes. No weight is changed then.
        """
        self._built_weights("load")
        _, arrays = hdf5.read(path)
        with self.lock:
            self._load_weights(hdf5.below("weights", arrays), path)

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """Return everything that determines how training of the model continues.

        Returns
        -------
        dict
            ``weights`` by name, ``states`` that layers carry, by ``run/layer/state``, the states of
            the random ``generators``, which layers are ``trainable``, their ``hyperparameters``,
            and the state of the ``optimizer``. The weights are not copied.
        """
        states = {
            f"{run}/{carried.layer.name}/{name}": value
            for carried in carried_states(self.layers)
            for run in RUNS
            for name, value in zip(carried.names, carried.get(run), strict=True)
            if len(value)
        }
        return {
            "weights": self._weights_by_name(),
            "states": states,
            "generators": [g.get_value().bit_generator.state for g in self._generators()],
            "trainable": [layer.trainable for layer in all_layers(self.layers)],
            "hyperparameters": [
                {name: getattr(layer, name) for name in names_of(layer)}
                for layer in all_layers(self.layers)
            ],
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], source: str = "The state") -> None:
        """Restore what `state_dict` returned, for a model of the same layers and optimizer.

        Parameters
        ----------
        state : mapping
            Missing entries are not changed.
        source : str
            The name of the state in messages.

        Raises
        ------
        ValueError
            If the state does not fit the model.
        """
        if "weights" in state:
            self._load_weights(state["weights"], source)
        if "trainable" in state:
            for layer, trainable in zip(all_layers(self.layers), state["trainable"], strict=True):
                layer.trainable = trainable
        if "hyperparameters" in state:
            pairs = zip(all_layers(self.layers), state["hyperparameters"], strict=True)
            for layer, numbers in pairs:
                for name, value in numbers.items():
                    setattr(layer, name, value)
        if "generators" in state:
            self._load_generators(state["generators"])
        if "states" in state:
            self._load_states(state["states"])
        if state.get("optimizer") is not None:
            self.optimizer.load_state_dict(state["optimizer"], self.weights)

    def _weights_by_name(self) -> dict[str, np.ndarray]:
        arrays = {weight.name: weight.get_value(borrow=True) for weight in self.weights}
        if len(arrays) < len(self.weights):
            names = [weight.name for weight in self.weights]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(
                f"Two weights of the model have the same name ({', '.join(twice)}), and a file "
                "holds one of each name. Give the layers other names."
            )
        return arrays

    def _load_weights(self, arrays: Mapping[str, np.ndarray], source: str | os.PathLike) -> None:
        left = dict(arrays)
        for layer in self.layers:
            for weight in layer.weights:
                value = left.pop(str(weight.name), None)
                where = (
                    f"{source} does not fit the model: layer {layer.name!r} "
                    f"({type(layer).__name__})"
                )
                if value is None:
                    raise ValueError(f"{where} has the weight {weight.name}, which the file lacks.")
                expected = weight.get_value(borrow=True).shape
                if value.shape != expected:
                    raise ValueError(
                        f"{where} has the weight {weight.name} of shape {expected}, but the file's "
                        f"has shape {value.shape}."
                    )
                if value.dtype.kind not in "fiu":
                    raise ValueError(
                        f"{where}, but {weight.name} in the file has bools, not numbers."
                    )
        if left:
            raise ValueError(
                f"{source} does not fit the model: it also has {', '.join(sorted(left))}, which no "
                "layer of the model has."
            )
        for weight in self.weights:
            weight.set_value(np.asarray(arrays[weight.name], dtype=weight.dtype))

    def _generators(self) -> list:
        return [g for layer in self.layers for g in layer.generators]

    def _load_generators(self, states: Sequence[dict]) -> None:
        generators = self._generators()
        if len(states) != len(generators):
            raise ValueError(
                f"The layers have {len(generators)} random generators, but there are states of "
                f"{len(states)}."
            )
        for generator, state in zip(generators, states, strict=True):
            value = generator.get_value()
            value.bit_generator.state = state
            if value.bit_generator.state != state:
                raise ValueError("The state of a random generator is invalid.")
            generator.set_value(value)

    def _load_states(self, arrays: Mapping[str, np.ndarray]) -> None:
        left = dict(arrays)
        for carried in carried_states(self.layers):
            carried.reset()
            for run in RUNS:
                names = [f"{run}/{carried.layer.name}/{name}" for name in carried.names]
                if any(name in left for name in names):
                    carried.set([left.pop(name) for name in names], run)
        if left:
            raise ValueError(f"There are states that no layer has: {', '.join(sorted(left))}.")


def report(totals: Totals, return_dict: bool) -> float | list[float] | dict[str, float]:
    """Return the loss, [loss, metrics...], or a dictionary of all results by name."""
    logs = totals.logs()
    if return_dict:
        return logs
    values = list(logs.values())
    return values if len(values) > 1 else values[0]


def inform(message: str, announce: bool) -> None:
    """Log a message, and print it if `announce` is True."""
    log.info(message)
    if announce:
        print(message)


def load_model(path: str | os.PathLike, custom_objects: dict | None = None) -> Model:
    """Load a model that was saved with `Model.save`, ready for prediction and training.

    Parameters
    ----------
    path : path
    custom_objects : dict, optional
        Custom layers, losses and so on by name. Code is never loaded from a file: all names must be
        known to seqnet or be passed here.

    Raises
    ------
    ValueError
        If the file does not contain a model, was damaged, truncated or changed by another program
        after it was saved, or has an unknown name. The message names the file.

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
    header, arrays = hdf5.read(path)
    return unpack(Model(), header, arrays, path, custom_objects)

"""The loop of `Model.fit`: a run that knows where it is."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from signal import SIGTERM

import numpy as np

from seqnet import config, resuming
from seqnet.callbacks import BackupAndRestore, CallbackList
from seqnet.data import Examples
from seqnet.evaluation import measure, sizes
from seqnet.interruption import Interrupted, Interruption
from seqnet.masks import is_padding
from seqnet.streams import Data
from seqnet.training import Figures, Update, figure_names
from seqnet.trouble import Norms, Rise, broken_weights
from seqnet.windows import first_states, windows

log = logging.getLogger("seqnet")


class Fit:
    """One run of training, from batch to batch and from epoch to epoch.

    Between two batches, everything that decides how it goes on is in the model, in seqnet's random
    source, in the callbacks, and in the attributes here.

    Parameters
    ----------
    model : Model
    examples, validation : Examples or Stream
        Checked; None for no validation.
    callbacks : list of Callback
        The user's, whose states belong to that of the run.
    reports : list of Callback
        Those that only tell, such as the history.
    batch_size, validation_batch_size, epochs, initial_epoch : int
    shuffle : bool or "batch"
    tbptt : int, optional
    validation_freq : int or list of int
    steps_per_epoch, validation_steps : int, optional
    class_weight : dict of int to float, optional
        Only to tell runs apart: the weights of `examples` have it already.

    Attributes
    ----------
    epoch : int
        The epoch that is under way, or comes next.
    batch : int
        How many of its batches are done.
    window : int
        The window of the batch that is under way, with `tbptt`.
    order : int, optional
        What the order of the epoch's examples is drawn from.
    figures : Figures
        The epoch's so far.
    norms : Norms
        Of the epoch's gradients so far.
    rise : Rise
        Whether the loss has risen much.
    logs : dict
        The figures that the epoch before was reported with.
    ended_well : bool
        Whether all epochs are done, or a callback stopped the training.
    in_trouble : bool
        Whether it did so because of numbers that are not finite, which is no good end.
    """

    arguments = (
        "batch_size",
        "shuffle",
        "tbptt",
        "validation_freq",
        "initial_epoch",
        "steps_per_epoch",
        "validation_steps",
        "validation_batch_size",
        "class_weight",
    )
    """What must not change when a run is gone on with."""

    def __init__(
        self,
        model,
        examples: Data,
        validation: Data | None,
        callbacks: Sequence,
        reports: Sequence = (),
        *,
        batch_size: int,
        validation_batch_size: int,
        epochs: int,
        initial_epoch: int = 0,
        shuffle: bool | str = True,
        tbptt: int | None = None,
        validation_freq=1,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        class_weight: Mapping[int, float] | None = None,
    ):
        self.model, self.examples, self.validation = model, examples, validation
        self.batch_size, self.validation_batch_size = batch_size, validation_batch_size
        self.epochs, self.initial_epoch = epochs, initial_epoch
        self.shuffle, self.tbptt = shuffle, tbptt
        self.validation_freq = validation_freq
        self.steps_per_epoch, self.validation_steps = steps_per_epoch, validation_steps
        self.class_weight = None
        if class_weight is not None:
            self.class_weight = {int(n): float(weight) for n, weight in class_weight.items()}
        self.epoch, self.batch, self.window = initial_epoch, 0, 0
        self.order: int | None = None
        self.figures = Figures(model.metrics)
        self.norms, self.rise = Norms(), Rise()
        self.broken: list[str] = []
        self.logs: dict = {}
        self.ended_well = self.in_trouble = False
        self.interruption = Interruption()
        self.callbacks = list(callbacks)
        self.backup = only_backup(callbacks)
        self.asked: dict = {}
        params = {
            "epochs": epochs,
            **sizes(examples, batch_size, steps_per_epoch),
            "metrics": figure_names(model.metrics, validation is not None),
        }
        # Reports come after what writes into the figures; a backup comes last, so that what it
        # saves has all that the others did.
        called = [c for c in [*callbacks, *reports] if c is not self.backup]
        called += [] if self.backup is None else [self.backup]
        self.calls = CallbackList(called, model, params)
        self.at_numerical_error = self.calls.overriding("on_numerical_error")

    # ---- from the first batch to the last

    def run(self, announce: bool = False) -> None:
        """Train to the end, or until a callback stops the training."""
        saved = None
        if self.backup is not None:  # a file that does not fit is told before anything is compiled
            self.backup.run, self.asked = self, resuming.describe(self)
            saved = resuming.load(self, self.backup.path)
        self.compile(announce)
        self.model.stop_training = False
        self.broken = broken_weights(self.model)
        with self.interruption:
            self.calls.on_train_begin()
            try:
                if saved is not None:
                    self.go_on_from(*saved)
                self.finish()
                self.ended_well = not self.in_trouble
            except Interrupted:
                raise self.interruption.error(self.stopped()) from None
            finally:
                self.calls.on_train_end(self.logs)

    def finish(self) -> None:
        """Do all epochs that are not done yet."""
        while not self.over:
            if self.batch == 0:
                if not self.examples.more():
                    self.run_out()
                    break
                self.begin_epoch()
            self.train()
            self.end_epoch()

    @property
    def over(self) -> bool:
        """Whether no epoch is under way and none comes next."""
        return self.batch == 0 and (self.epoch >= self.epochs or self.model.stop_training)

    def compile(self, announce: bool) -> None:
        """Compile what the first batches need, so that its time is not theirs."""
        first = self.examples.first_batch(self.batch_size)
        if self.tbptt is None:
            self.model.function_for("train", first, announce)
        else:
            self.model.function_for("train_window", next(windows(first, self.tbptt)), announce)
        if self.validation is not None:
            first = self.validation.first_batch(self.validation_batch_size)
            self.model.function_for("test", first, announce)

    def begin_epoch(self) -> None:
        """Draw the order of the epoch."""
        self.calls.on_epoch_begin(self.epoch)
        self.order = int(config.random_generator().integers(2**63)) if self.shuffle else None
        self.figures = Figures(self.model.metrics)
        self.norms = self.model.norms = Norms()

    def train(self) -> None:
        """Train on the batches of the epoch that are not done yet, or until a callback stops."""
        with closing(self.batches()) as batches:
            for batch in batches:
                if self.batch and self.model.stop_training:
                    return
                number = self.batch
                for hook in self.calls.at_batch_begin:
                    hook(number, {})
                self.update(batch)
                self.batch += 1
                if self.calls.at_batch_end:
                    logs = self.figures.result()
                    for hook in self.calls.at_batch_end:
                        hook(number, logs)
                self.interruption.check()
        if self.steps_per_epoch is not None and self.batch < self.steps_per_epoch:
            self.run_out()

    def batches(self) -> Generator:
        """Return those batches of the epoch that are not done yet."""
        return self.examples.batches(
            self.batch_size,
            None if self.order is None else np.random.default_rng(self.order),
            first=self.batch,
            steps=self.steps_per_epoch,
            before=(self.steps_per_epoch or 0) * (self.epoch - self.initial_epoch),
            contiguous=self.shuffle == "batch",
        )

    def run_out(self) -> None:
        """Say that an iterator ended before the training did, and let that end too."""
        done = f"{self.batch} batches" if self.batch else "the end"
        log.warning(
            "X ended after %s of epoch %d of %d, and training ends with it.",
            done,
            self.epoch + (self.batch > 0),
            self.epochs,
        )
        self.model.stop_training = True

    def update(self, batch: Examples) -> None:
        """Train on one batch, whole or window by window."""
        if self.tbptt is None:
            self.note(Update(self.model, "train", batch), len(batch))
            return
        states = first_states(self.model.layers, len(batch))
        for number, window in enumerate(windows(batch, self.tbptt, self.model.layers)):
            if is_padding(self.model, window):
                continue  # an update of nothing would still move the optimizer
            self.window = number
            update = Update(self.model, "train_window", window, states)
            self.note(update, len(batch))
            if not update.finite and self.model.stop_training:
                return
            states = update.states

    def note(self, update: Update, examples: int) -> None:
        """Add up what an update gave, and tell if there is trouble."""
        self.figures.add(update.sums)
        update.add_to(self.norms)
        if not update.finite:
            self.tell(update)
        elif update.sums[1] and self.rise.notices(update.loss, examples):
            log.warning(
                "%s: the loss has risen to %.4g (smoothed %.4g), over three times the first, %.4g. "
                "Is the learning rate of %g too high?",
                self.place,
                update.loss,
                self.rise.smooth,
                self.rise.first,
                self.model.optimizer.learning_rate,
            )

    @property
    def place(self) -> str:
        """Where the run is, counted from 1 as progress bars do."""
        batch = f"Batch {self.batch + 1} of epoch {self.epoch + 1}"
        return batch if self.tbptt is None else f"{batch}, window {self.window + 1}"

    def tell(self, update: Update) -> None:
        """Hand an error to the callbacks that take it, or raise it."""
        note = ""
        if self.backup is not None and self.backup.path.exists():
            note = (
                f"{self.backup.path} holds the training as it was when it was saved last: "
                "seqnet.load_model reads it."
            )
        if self.broken:
            names = ", ".join(self.broken)
            note = f"{note} When this training began, weights were not finite: {names}.".strip()
        error = update.error(self.model, self.place, note)
        if not self.at_numerical_error:
            raise error
        for hook in self.at_numerical_error:
            hook(error)
        self.in_trouble = self.model.stop_training

    def end_epoch(self) -> None:
        """Validate, if it is time to, and report the epoch."""
        self.logs = self.figures.result()
        if self.validation is not None and is_due(self.epoch, self.validation_freq):
            figures = measure(
                self.model,
                self.validation,
                self.validation_batch_size,
                self.calls,
                self.validation_steps,
                after_batch=self.interruption.check,
            )
            self.logs |= figures.result("val_")
        done = self.epoch
        self.epoch, self.batch = done + 1, 0
        self.calls.on_epoch_end(done, self.logs)
        self.interruption.check()

    # ---- stopping and going on

    def position(self) -> dict:
        """Return where the run is, as JSON can hold it."""
        figures = {"sums": self.figures.sums, "batches": self.figures.batches}
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "order": self.order,
            "figures": figures,
            "norms": self.norms.get_state(),
            "rise": vars(self.rise),
        }

    def save(self, path) -> None:
        """Write all that decides how the run goes on to a file, between two batches."""
        resuming.save(self, path)

    def go_on_from(self, header: dict, arrays: dict) -> None:
        """Put everything where it was when a file was saved."""
        position = header[resuming.RUN]["position"]
        self.epoch, self.batch = position["epoch"], position["batch"]
        if self.batch:  # what this changes was saved, and is put back next
            self.calls.on_epoch_begin(self.epoch)
        self.order = position["order"]
        vars(self.figures).update(position["figures"])
        vars(self.rise).update(position["rise"])
        self.norms.set_state(position["norms"])
        self.model.norms = self.norms
        resuming.restore(self, header, arrays, self.backup.path)

    def stopped(self) -> str:
        """Save the run, which was interrupted between two batches; say where it is."""
        where = f"after batch {self.batch} of epoch {self.epoch + 1}"
        if self.batch == 0:
            where = f"after epoch {self.epoch}"
        message = f"Training was interrupted {where} of {self.epochs}."
        if self.backup is not None and self.backup.save():
            message += f" Its state is in {self.backup.path}: the same program goes on from there."
        if self.interruption.caught == SIGTERM:
            log.warning(message)
        return message


def only_backup(callbacks: Sequence) -> BackupAndRestore | None:
    """Return the callback that saves the state of the training, if there is one."""
    found = [callback for callback in callbacks if isinstance(callback, BackupAndRestore)]
    if len(found) > 1:
        raise ValueError(f"fit takes one BackupAndRestore, got {len(found)}.")
    return found[0] if found else None


def is_due(epoch: int, frequency: int | list[int]) -> bool:
    """Tell whether an epoch, counted from 0, is one of those to validate after.

    Examples
    --------
    >>> from seqnet.fitting import is_due
    >>> [is_due(epoch, 2) for epoch in range(4)]
    [False, True, False, True]
    >>> [is_due(epoch, [1, 4]) for epoch in range(4)]
    [True, False, False, True]
    """
    return (epoch + 1) % frequency == 0 if isinstance(frequency, int) else epoch + 1 in frequency

"""The training loop, and evaluation and prediction over a data set.

`Trainer.fit` is the loop: epochs, batches, step, totals, callbacks. The functions `evaluate` and
`predict` iterate over a data set once.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from signal import SIGTERM
from typing import TYPE_CHECKING

import numpy as np

from seqnet import config
from seqnet.data.dataset import Batch, Dataset, Epoch, Tree
from seqnet.data.masking import is_padding
from seqnet.distributed import World, current
from seqnet.layers.states import carried_states
from seqnet.training.arguments import FitArguments
from seqnet.training.diagnostics import (
    GradientNorms,
    LossSpikeDetector,
    NumericalError,
    diagnose,
    name_norms,
    nonfinite_weights,
)
from seqnet.training.objectives import Sum
from seqnet.training.results import Totals, TrainResult
from seqnet.training.shards import own_part
from seqnet.training.signals import Interrupted, StopSignals
from seqnet.training.step import compile_test, first_states
from seqnet.training.tbptt import windows

if TYPE_CHECKING:
    from seqnet.callbacks.base import CallbackList
    from seqnet.model import Model


log = logging.getLogger("seqnet")


class Trainer:
    """A training run.

    Between two batches, everything that determines how the run continues is in the model, in
    seqnet's random generator, in the callbacks, and in the attributes below; `state_dict` returns
    all of it.

    Parameters
    ----------
    model : Model
    dataset : Dataset
    validation : Dataset, optional
    arguments : FitArguments
    callbacks : CallbackList

    Attributes
    ----------
    epoch : int
        The current or next epoch, counted from 0.
    batch : int
        The number of finished batches of the epoch.
    window : int
        The current window of the batch, with `tbptt`.
    order : int, optional
        The seed of the order of the samples in the epoch.
    totals : Totals
        The totals of the epoch so far.
    gradient_norms : GradientNorms
        The gradient norms of the epoch so far.
    logs : dict
        The logs of the last epoch.
    finished : bool
        Whether all epochs are done, or a callback stopped the training.
    diverged : bool
        Whether the training was stopped because of values that are not finite.
    id : str
        Identifies the run; a resumed run has the id in its file.
    """

    def __init__(
        self,
        model: Model,
        dataset: Dataset,
        validation: Dataset | None,
        arguments: FitArguments,
        callbacks: CallbackList,
    ):
        self.model, self.dataset, self.validation = model, dataset, validation
        self.arguments: FitArguments = arguments
        self.epoch, self.batch, self.window = arguments.initial_epoch, 0, 0
        self.order: int | None = None
        self.totals, self.gradient_norms = Totals(model.objectives), GradientNorms()
        self.spikes = LossSpikeDetector()
        self.nonfinite_at_start: list[str] = []
        self.logs: dict = {}
        self.finished = self.diverged = False
        self.id = secrets.token_hex(8)
        self.signals = StopSignals()
        self.world = current()
        self.shuffled_batches = dataset.order_matters(arguments.batch_size)
        self.callbacks = callbacks
        callbacks.set_up(
            model,
            {
                "epochs": arguments.epochs,
                **data_params(dataset, arguments.batch_size, arguments.steps_per_epoch),
                "metrics": model.objectives.log_names(validation is not None),
            },
            self,
        )

    # ---- the loop

    def fit(self) -> None:
        """Train to the end, or until a callback or a signal stops the training."""
        model, callbacks, signals = self.model, self.callbacks, self.signals
        model.last_run = self.id
        model.stop_training = False  # before compiling: another thread may set it meanwhile
        self.begin_together()
        self.compile_steps()
        self.nonfinite_at_start = nonfinite_weights(model)
        with signals, self.world.watching(signals):
            callbacks.on_train_begin()
            try:
                while not self.done:
                    if self.batch == 0 and not self.begin_epoch():
                        break
                    with closing(self.dataset.batches(self.epoch_plan())) as batches:
                        for batch in batches:
                            if self.batch and model.stop_training:
                                break
                            number = self.batch
                            for hook in callbacks.at_batch_begin:
                                hook(number, {})
                            self.train_batch(batch)
                            self.batch += 1
                            if callbacks.at_batch_end:
                                logs = self.totals.logs()
                                for hook in callbacks.at_batch_end:
                                    hook(number, logs)
                            if callbacks.decide_by_batch:
                                model.stop_training = self.world.any(model.stop_training)
                            if self.world.stopping(self.signals) is not None:
                                raise Interrupted
                        else:
                            if self.batch < (self.arguments.steps_per_epoch or 0):
                                self.out_of_batches()
                    self.end_epoch()
                self.finished = not self.diverged
                if self.finished:
                    with model.lock:
                        model.optimizer.finalize_variable_values(model.weights)
            except Interrupted:
                raise signals.error(self.interrupted()) from None
            finally:
                callbacks.on_train_end(self.logs)

    @property
    def done(self) -> bool:
        """Whether no epoch has begun and none follows."""
        ended = self.epoch >= self.arguments.epochs or self.model.stop_training
        return self.batch == 0 and ended

    def begin_together(self) -> None:
        """Start all ranks from the state of rank 0, with the same data."""
        model, world = self.model, self.world
        if world.size == 1:
            return
        datasets = [d for d in (self.dataset, self.validation) if d is not None]
        world.same(json.dumps([d.fingerprint() for d in datasets]), "data")
        state = model.state_dict()
        del state["states"]  # of rows, which belong to ranks
        state["random"] = config.random_generator().bit_generator.state
        state = world.broadcast(state if world.rank == 0 else None)
        config.random_generator().bit_generator.state = state["random"]
        model.load_state_dict(state)

    def compile_steps(self) -> None:
        """Compile the functions for the first batches before the training starts."""
        model, arguments, steps = self.model, self.arguments, self.model.steps
        announce = arguments.verbose > 0
        first = self.dataset.first_batch(arguments.batch_size)
        if arguments.tbptt is not None:
            first = next(windows(model, first, arguments.tbptt))
        steps.prepare(first, arguments.tbptt is not None, arguments.accumulate, announce)
        if self.validation is not None:
            first = self.validation.first_batch(arguments.validation_batch_size)
            if arguments.tbptt is not None:
                first = next(windows(model, first, arguments.tbptt))
            steps.function(compile_test, first, arguments.tbptt is not None, announce)

    def begin_epoch(self) -> bool:
        """Draw the order of the next epoch; return whether there is a batch for it."""
        if not self.dataset.has_more():
            self.out_of_batches()
            return False
        self.callbacks.on_epoch_begin(self.epoch)
        shuffled = self.arguments.shuffle
        self.order = int(config.random_generator().integers(2**63)) if shuffled else None
        self.totals = Totals(self.model.objectives)
        self.gradient_norms = self.model.gradient_norms = GradientNorms()
        return True

    def epoch_plan(self) -> Epoch:
        """Return the remaining batches of the epoch."""
        arguments = self.arguments
        steps, order = arguments.steps_per_epoch, self.order
        if not self.shuffled_batches:
            order = None
        return Epoch(
            arguments.batch_size,
            None if order is None else np.random.default_rng(order),
            first=self.batch,
            steps=steps,
            before=(steps or 0) * (self.epoch - arguments.initial_epoch),
            contiguous=arguments.shuffle == "batch",
            part=part_of(self.world),
        )

    def out_of_batches(self) -> None:
        """Stop the training with a warning, because an iterator ended early."""
        log.warning(
            "X ended after %s of epoch %d of %d, so training ends.",
            f"{self.batch} batches" if self.batch else "the end",
            self.epoch + (self.batch > 0),
            self.arguments.epochs,
        )
        self.model.stop_training = True

    def train_batch(self, batch: Batch) -> None:
        """Make an update for a batch, or for each of its windows."""
        model, steps, tbptt = self.model, self.model.steps, self.arguments.tbptt
        accumulate = self.arguments.accumulate
        if tbptt is None:
            self.record(steps.train(batch, accumulate=accumulate))
            return
        batch = own_part(batch) if self.world.size > 1 else batch
        states: Sequence[np.ndarray] = first_states(model.layers, len(batch))
        for number, window in enumerate(windows(model, batch, tbptt, model.layers)):
            if not self.world.any(not is_padding(model, window)):
                continue  # an update without data would still move the optimizer
            self.window = number
            result = steps.train(window, states, accumulate)
            self.record(result)
            if not result.finite and model.stop_training:
                return
            states = result.states

    def record(self, result: TrainResult) -> None:
        """Add the result of a step, and check for values that are not finite and for spikes."""
        self.totals.add(result.sums)
        self.gradient_norms.add(result.joint_norm, result.gradient_norms, result.trained)
        if not result.finite:
            self.handle_nonfinite(result)
        elif not result.empty and self.spikes.update(result.loss, result.examples):
            log.warning(
                "%s: the loss has risen to %.4g (smoothed %.4g), over three times the first, %.4g. "
                "Is the learning rate of %g too high?",
                self.place,
                result.loss,
                self.spikes.smooth,
                self.spikes.first,
                self.model.optimizer.learning_rate,
            )

    def end_epoch(self) -> None:
        """Validate if required, and call the callbacks."""
        arguments, epoch = self.arguments, self.epoch
        self.logs = self.totals.logs()
        if self.validation is not None and arguments.validates_after(epoch):
            totals = evaluate(
                self.model,
                self.validation,
                arguments.validation_batch_size,
                self.callbacks,
                arguments.validation_steps,
                arguments.tbptt,
                check=self.check_signals,
            )
            self.logs |= totals.logs("val_")
        self.epoch, self.batch = epoch + 1, 0
        self.callbacks.on_epoch_end(epoch, self.logs)
        self.model.stop_training = self.world.any(self.model.stop_training)
        self.check_signals()

    # ---- errors and interruptions

    def check_signals(self) -> None:
        """Raise `Interrupted` if a signal asked to stop."""
        if self.world.stopping(self.signals) is not None:
            raise Interrupted

    @property
    def place(self) -> str:
        """The current batch and epoch for messages, counted from 1."""
        batch = f"Batch {self.batch + 1} of epoch {self.epoch + 1}"
        return batch if self.arguments.tbptt is None else f"{batch}, window {self.window + 1}"

    def handle_nonfinite(self, result: TrainResult) -> None:
        """Pass the error to the callbacks with a hook for it, or raise it."""
        hints = [text for text in self.callbacks.collect("recovery_hint") if text]
        if self.nonfinite_at_start:
            names = ", ".join(self.nonfinite_at_start)
            hints.append(f"When this training began, weights were not finite: {names}.")
        error = numerical_error(self.model, result, self.place, " ".join(hints))
        callbacks = self.callbacks.with_hooks("on_numerical_error")
        if not callbacks:
            raise error
        for callback in callbacks:
            callback.on_numerical_error(error)
        self.diverged = self.model.stop_training

    def interrupted(self) -> str:
        """Call the callbacks after a signal, between two batches; return the message."""
        where = f"after batch {self.batch} of epoch {self.epoch + 1}"
        if self.batch == 0:
            where = f"after epoch {self.epoch}"
        message = f"Training was interrupted {where} of {self.arguments.epochs}."
        texts = [text for text in self.callbacks.collect("on_interruption") if text]
        message = " ".join([message, *texts])
        self.signals.received = self.world.stopping(self.signals)
        if self.signals.received == SIGTERM:
            log.warning(message)
        return message

    # ---- state

    def state_dict(self) -> dict:
        """Return everything that determines how the run continues."""
        return {
            "id": self.id,
            "model": self.all_rows(self.model.state_dict()),
            "epoch": self.epoch,
            "batch": self.batch,
            "order": self.order,
            "totals": self.totals.state_dict(),
            "gradient_norms": self.gradient_norms.state_dict(),
            "loss_spikes": self.spikes.state_dict(),
            "stop_training": bool(self.model.stop_training),
            "history": self.model.history.state_dict(),
            "callbacks": self.callbacks.state_dict(),
            "random": config.random_generator().bit_generator.state,
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore the state that `state_dict` returned.

        In the middle of an epoch, `on_epoch_begin` of the callbacks is called first, and then the
        state is restored.
        """
        self.id = self.model.last_run = state["id"]
        self.epoch, self.batch, self.order = state["epoch"], state["batch"], state["order"]
        if self.batch:
            self.callbacks.on_epoch_begin(self.epoch)
        self.model.load_state_dict(self.own_rows(state["model"]))
        self.totals.load_state_dict(state["totals"])
        self.gradient_norms.load_state_dict(state["gradient_norms"])
        self.model.gradient_norms = self.gradient_norms
        self.spikes.load_state_dict(state["loss_spikes"])
        self.model.history.load_state_dict(state["history"])
        self.callbacks.load_state_dict(state["callbacks"])
        config.random_generator().bit_generator.state = state["random"]
        self.model.stop_training = state["stop_training"]

    def all_rows(self, state: dict) -> dict:
        """Return the state of a model with the carried states of the rows of all ranks."""
        if self.world.size == 1 or not state["states"]:
            return state
        self.world.synchronize("the file of a run")
        joined = {}
        for name, rows in state["states"].items():
            total = self.model.steps.last_rows.get(name.partition("/")[0], 0)
            start, stop = self.world.part(total)
            joined[name] = self.world.joined(rows[: stop - start])
        return state | {"states": joined}

    def own_rows(self, state: dict) -> dict:
        """Return the state of a model with the carried states of this rank's rows."""
        if self.world.size == 1:
            return state
        states = state.get("states", {})
        for name, rows in states.items():
            self.model.steps.last_rows[name.partition("/")[0]] = len(rows)
        own = {name: rows[slice(*self.world.part(len(rows)))] for name, rows in states.items()}
        return state | {"states": own}


def numerical_error(
    model: Model, result: TrainResult, place: str, note: str = ""
) -> NumericalError:
    """Return the error for a step whose loss or gradients are not finite."""
    norms = name_norms(model.weights, result.trained, result.gradient_norms)
    note = " ".join(text for text in (result.where, note) if text)
    return diagnose(model, place, result.loss, norms, note)


def data_params(dataset: Dataset, batch_size: int, steps: int | None = None) -> dict:
    """Return the parameters of the data for callbacks: batch size, samples and steps.

    Unknown values of a stream are None.
    """
    steps = steps or dataset.batch_count(batch_size)
    return {"batch_size": batch_size, "samples": dataset.sample_count(), "steps": steps}


def part_of(world: World) -> Callable[[int], tuple[int, int]] | None:
    """Return what gives the rows of a batch that this rank computes; None for all."""
    return world.part if world.size > 1 else None


class PassStates:
    """The carried states of one pass over data, which starts from zeros.

    The model has these states only while it computes a batch; its own states are not changed.
    Several threads can therefore each make a pass at the same time.
    """

    def __init__(self, model: Model, run: str):
        self.model, self.run = model, run
        self.carried = carried_states(model.layers)
        self.states: list | None = None

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Set the states of the pass in the model inside the block, and store the new ones."""
        with self.model.lock:
            own = [carried.get(self.run) for carried in self.carried]
            self.set(self.states)
            try:
                yield
                self.states = [carried.get(self.run) for carried in self.carried]
            finally:
                self.set(own)

    def set(self, states: list | None) -> None:
        """Set the model's carried states, None for zeros."""
        for number, carried in enumerate(self.carried):
            if states is None:
                carried.reset(self.run)
            else:
                carried.set(states[number], self.run)


def evaluate(
    model: Model,
    dataset: Dataset,
    batch_size: int,
    callbacks: CallbackList,
    steps: int | None = None,
    tbptt: int | None = None,
    announce: bool = False,
    check: Callable | None = None,
) -> Totals:
    """Return the totals of a model over data; states are carried from batch to batch.

    `check` is called after each batch.
    """
    at_batch_end = [c.on_test_batch_end for c in callbacks.with_hooks("on_test_batch_end")]
    totals = Totals(model.objectives)
    dataset = in_fastest_order(model, dataset, steps)
    callbacks.on_test_begin()
    states = PassStates(model, "test")
    epoch = Epoch(batch_size, steps=steps, part=part_of(current()))
    with closing(dataset.batches(epoch)) as batches:
        for number, batch in enumerate(batches):
            callbacks.on_test_batch_begin(number)
            with states.in_model():
                for sums in sums_of_batch(model, batch, tbptt, announce):
                    totals.add(sums)
            for hook in at_batch_end:
                hook(number, totals.logs())
            if check is not None:
                check()
    if totals.batches < (steps or 1):
        message = f"There are no {steps or 'more'} batches to evaluate, only {totals.batches}."
        if totals.batches == 0:
            raise ValueError(f"{message} An iterator can be read only once.")
        log.warning(message)
    callbacks.on_test_end(totals.logs())
    return totals


def sums_of_batch(
    model: Model, batch: Batch, tbptt: int | None, announce: bool
) -> Iterator[Sequence[Sum]]:
    """Yield the sums of a batch, or of each of its windows, which need less memory."""
    if tbptt is None:
        yield model.steps.test(batch, announce=announce).sums
        return
    batch = own_part(batch) if current().size > 1 else batch
    states: Sequence[np.ndarray] = first_states(model.layers, len(batch))
    for window in windows(model, batch, tbptt):
        result = model.steps.test(window, states, announce)
        states = result.states
        yield result.sums


def predict(
    model: Model,
    dataset: Dataset,
    batch_size: int,
    callbacks: CallbackList,
    steps: int | None = None,
    announce: bool = False,
) -> Tree:
    """Return a model's outputs for data, in the order of the samples; several of them by name."""
    dataset = in_fastest_order(model, dataset, steps)
    outputs = []
    callbacks.on_predict_begin()
    states = PassStates(model, "predict")
    epoch = Epoch(batch_size, steps=steps, part=part_of(current()))
    with closing(dataset.batches(epoch)) as batches:
        for number, batch in enumerate(batches):
            callbacks.on_predict_batch_begin(number)
            with states.in_model():
                outputs.append(model.steps.predict(batch, announce).output)
            callbacks.on_predict_batch_end(number, {"outputs": outputs[-1]})
    callbacks.on_predict_end()
    return dataset.join(outputs)


def in_fastest_order(model: Model, dataset: Dataset, steps: int | None) -> Dataset:
    """Return data sorted by length, unless the result depends on its order."""
    return dataset if model.stateful or steps is not None else dataset.sorted_by_length()

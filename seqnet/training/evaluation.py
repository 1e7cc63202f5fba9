"""A model's figures and outputs over a whole data set."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing

from seqnet.callbacks.base import CallbackList, check_callbacks
from seqnet.layers.states import fresh_states
from seqnet.streams import Data
from seqnet.training import Figures

log = logging.getLogger("seqnet")


def sizes(examples: Data, batch_size: int, steps: int | None = None) -> dict:
    """Return what callbacks are told about data: the sizes of a batch, of all, and of an epoch.

    None is what is not known of a stream.
    """
    steps = steps or examples.count(batch_size)
    return {"batch_size": batch_size, "samples": examples.samples(), "steps": steps}


def measure(
    model,
    examples: Data,
    batch_size: int,
    calls: CallbackList,
    steps: int | None = None,
    announce: bool = False,
    after_batch: Callable[[], None] = lambda: None,
) -> Figures:
    """Return a model's figures over examples; states are carried within them and then put back."""
    at_end = calls.overriding("on_test_batch_end")
    figures = Figures(model.metrics)
    examples = in_cheapest_order(model, examples, steps)
    calls.on_test_begin()
    with (
        fresh_states(model.layers, "test"),
        closing(examples.batches(batch_size, steps=steps)) as batches,
    ):
        for number, batch in enumerate(batches):
            calls.on_test_batch_begin(number)
            figures.add(model.compute("test", batch, announce=announce))
            for hook in at_end:
                hook(number, figures.result())
            after_batch()
    if figures.batches < (steps or 1):
        message = f"There are no {steps or 'more'} batches to evaluate: {figures.batches} came."
        if figures.batches == 0:
            raise ValueError(f"{message} An iterator can be gone through only once.")
        log.warning(message)
    calls.on_test_end(figures.result())
    return figures


def outputs_of(
    model,
    examples: Data,
    batch_size: int,
    calls: CallbackList,
    steps: int | None = None,
    announce: bool = False,
):
    """Return a model's outputs for examples, in the caller's order."""
    examples = in_cheapest_order(model, examples, steps)
    outputs = []
    calls.on_predict_begin()
    with (
        fresh_states(model.layers, "predict"),
        closing(examples.batches(batch_size, steps=steps)) as batches,
    ):
        for number, batch in enumerate(batches):
            calls.on_predict_batch_begin(number)
            outputs += model.compute("predict", batch, announce=announce)
            calls.on_predict_batch_end(number, {"outputs": outputs[-1]})
    calls.on_predict_end()
    return examples.join(outputs)


def report(figures: Figures, return_dict: bool):
    """Return the loss, or [loss, metrics...], or all by name."""
    result = figures.result()
    if return_dict:
        return result
    values = list(result.values())
    return values if len(values) > 1 else values[0]


def calls_of(model, callbacks, examples: Data, batch_size: int, steps: int | None):
    """Return a user's callbacks as `measure` and `outputs_of` call them."""
    return CallbackList(check_callbacks(callbacks), model, sizes(examples, batch_size, steps))


def in_cheapest_order(model, examples: Data, steps: int | None) -> Data:
    """Return examples sorted by length, unless their order decides what comes out."""
    return examples if model.stateful or steps is not None else examples.by_length()

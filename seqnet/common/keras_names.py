"""Names of Keras 1, 2 and 3 that have another name in seqnet, or that seqnet does not need.

One rule holds everywhere. An argument under an older name is taken as the argument of today. A
setting that only decides how Keras computes is ignored at those values that change no result, and
is an unknown argument at others. A method that is gone raises an error that names what to call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable)

RENAMED: dict[str, tuple[str, ...]] = {
    "x": ("X",),
    "lr": ("learning_rate",),
    "nb_epoch": ("epochs",),
    "samples_per_epoch": ("steps_per_epoch",),
    "nb_val_samples": ("validation_steps",),
    "nb_classes": ("num_classes",),
    "input": ("inputs",),
    "output": ("outputs",),
    "output_dim": ("units",),
    "init": ("kernel_initializer", "embeddings_initializer"),
    "inner_init": ("recurrent_initializer",),
    "inner_activation": ("recurrent_activation",),
    "W_regularizer": ("kernel_regularizer", "embeddings_regularizer"),
    "U_regularizer": ("recurrent_regularizer",),
    "b_regularizer": ("bias_regularizer",),
    "W_constraint": ("kernel_constraint", "embeddings_constraint"),
    "U_constraint": ("recurrent_constraint",),
    "b_constraint": ("bias_constraint",),
    "bias": ("use_bias",),
    "dropout_W": ("dropout",),
    "dropout_U": ("recurrent_dropout",),
    "p": ("rate",),
    "sigma": ("stddev",),
    "alpha": ("negative_slope",),
    "nb_filter": ("filters",),
    "filter_length": ("kernel_size",),
    "subsample_length": ("strides",),
    "pool_length": ("pool_size",),
    "border_mode": ("padding",),
    "epsilon": ("min_delta",),
}
"""The names of today for each older one; a function takes the first that is its argument."""

ANY = object()
IGNORED: dict[str, tuple[Any, ...]] = {
    "autocast": (ANY,),
    "consume_less": (ANY,),
    "data_format": (None, "channels_last"),
    "decay": (0, 0.0),
    "embeddings_freq": (0,),
    "flash_attention": (ANY,),
    "implementation": (ANY,),
    "input_length": (ANY,),
    "jit_compile": (ANY,),
    "max_queue_size": (ANY,),
    "optional": (False,),
    "ragged": (False,),
    "renorm": (False,),
    "run_eagerly": (ANY,),
    "sample_weight_mode": (None, "temporal"),
    "sliding_window": (None,),
    "sparse": (None, False),
    "steps_per_execution": (None, 1),
    "synchronized": (False,),
    "time_major": (False,),
    "use_cudnn": (ANY,),
    "use_gate": (False,),
    "use_multiprocessing": (ANY,),
    "workers": (ANY,),
    "write_grads": (False,),
    "write_graph": (ANY,),
    "write_images": (False,),
    "zero_output_for_mask": (False,),
}
"""Settings that are ignored, and the values at which they are."""

GONE = {
    "evaluate_generator": "evaluate",
    "fit_generator": "fit",
    "predict_classes": "predict(X).argmax(axis=-1), or predict(X) > 0.5 for a sigmoid",
    "predict_generator": "predict",
    "predict_proba": "predict",
    "reset_state": "reset_states",
    "to_yaml": "to_json",
}
"""Methods of models that are gone, and what to call."""

GONE_OF_LAYERS = {
    "get_losses_for": "losses",
    "reset_state": "reset_states",
    "states": "get_states(run) and set_states(values, run)",
}
"""Methods and attributes of layers that are gone, and what to call."""


INSTEAD = {
    "attention_axes": "Attend along the time axis, and move others with Permute and Reshape",
    "constants": "Join them to the inputs of each step: RepeatVector and Concatenate",
    "data_format": "The features are the last axis; Permute moves them there",
    "renorm": "Write a layer of your own for batch renormalization",
    "sliding_window": "Pass attention_mask=, True where a query attends to a step",
    "use_gate": "Multiply the output by a Dense layer with a sigmoid",
}
"""What to do instead of an argument of Keras that seqnet does not have."""


def accepted(options: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return arguments by the names of today, without those that are ignored.

    Parameters
    ----------
    options : dict
        The arguments by name.
    known : collection of str
        The names that the function takes.

    Raises
    ------
    TypeError
        If an argument is given under two names.

    Examples
    --------
    >>> from seqnet.common.keras_names import accepted
    >>> accepted({"lr": 0.1, "implementation": 2}, ["learning_rate"])
    {'learning_rate': 0.1}
    """
    found = {}
    for name, value in options.items():
        if name not in known:
            if is_ignored(name, value):
                continue
            new = next((new for new in RENAMED.get(name, ()) if new in known), name)
            if new != name and new in options:
                raise TypeError(f"{name} is an older name of {new}: pass one of them.")
            name = new
        found[name] = value
    return found


def without_name(options: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return arguments without ``name``, which optimizers and schedules have in Keras only."""
    return {name: v for name, v in options.items() if name != "name" or name in known}


def is_ignored(name: str, value: Any) -> bool:
    """Return whether a setting of Keras changes no result at a value."""
    return any(
        allowed is ANY or (type(allowed) is type(value) and allowed == value)
        for allowed in IGNORED.get(name, ())
    )


def takes_keras_names(function: Function) -> Function:
    """Decorator: a function takes arguments under the names of Keras, too."""
    known = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.kind is not p.VAR_KEYWORD
    ]

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **accepted(options, known))

    return called  # type: ignore[return-value]

"""Callbacks that are defined by functions."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from seqnet.callbacks.base import HOOKS, Callback


class LambdaCallback(Callback):
    """A callback that is defined by functions, one for each hook.

    Parameters
    ----------
    **hooks : functions
        ``on_epoch_begin(epoch, logs)``, ``on_epoch_end(epoch, logs)``, ``on_train_begin(logs)``,
        ``on_train_end(logs)``, ``on_train_batch_begin(batch, logs)``,
        ``on_train_batch_end(batch, logs)``, or any other hook of `Callback`.

    Raises
    ------
    TypeError
        If there is no hook of that name, or its value is not callable.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.callbacks import LambdaCallback
    >>> model = seqnet.Model([seqnet.layers.Dense(1)])
    >>> show = LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, list(logs)))
    >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[show])
    0 ['loss']
    """

    def __init__(self, **hooks: Callable | None) -> None:
        for name, function in hooks.items():
            if name not in HOOKS:
                near = difflib.get_close_matches(name, HOOKS, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise TypeError(f"LambdaCallback has no hook {name}.{hint}")
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"LambdaCallback takes a function as {name}, got {function!r}.")
            setattr(self, name, function)

    def get_config(self) -> dict[str, Any]:
        return {name: hook for name, hook in vars(self).items() if name in HOOKS}

"""The compiled kernel of a recurrent layer's step: made once for each kind of cell."""

from __future__ import annotations

from collections.abc import Hashable

_kernels: dict = {}
# Arguments of a recurrent layer that its step does not depend on.
NOT_IN_A_STEP = {
    *("units", "name", "trainable", "dtype", "input_shape", "stateful", "learn_initial_state"),
    *("return_sequences", "return_state", "go_backwards", "unroll", "fused"),
    *("dropout", "recurrent_dropout"),
}


def kernel_of(layer, kernels):
    """Return the kernel compiled from a recurrent layer's step, or the reason why there is none.

    `kernels` is the `Phase`'s, or None.
    """
    if kernels is None:
        return "there are no kernels here"
    key = (kernels, type(layer), layer.dtype, step_settings(layer))
    if key not in _kernels:

        def step(x, r, states):
            def recur(h, *gates):
                if h is not states[0] or (gates and gates != layer.gates):
                    raise kernels.KernelUnavailable(
                        "the step multiplies more than the state by the recurrent kernel"
                    )
                return r

            return layer.step(x, states, recur)

        try:
            _kernels[key] = kernels.RecurrenceKernel(
                step, len(layer.gates), len(layer.state_names), layer.dtype
            )
        except kernels.KernelUnavailable as unavailable:
            _kernels[key] = str(unavailable)
    return _kernels[key]


def step_settings(layer) -> tuple:
    """Return the constructor arguments a step can depend on: functions, flags, numbers."""
    weights = ("_initializer", "_regularizer")
    names = [n for n in layer.parameters() if n not in NOT_IN_A_STEP and not n.endswith(weights)]
    values = ((n, getattr(layer, n)) for n in names)
    return tuple((n, v if isinstance(v, Hashable) else id(v)) for n, v in values)

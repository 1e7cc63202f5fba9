"""Every activation within the kernel of a cell, forwards and backwards, against the scan."""

import pytest
from cells import ALL
from helpers import assert_same, example_layer, random_arrays, run_cell

from seqnet import activations, backend
from seqnet.layers import GRU, LSTM, Recurrent

NAMES = [n for n in activations.__all__ if n not in ("get", "softmax", "log_softmax")]
NATIVE = pytest.mark.skipif(backend.native() is None, reason="needs compiled kernels")


def cell_of(names):
    """Return a cell with a gate for each activation."""

    class Several(Recurrent):
        gates = tuple(names)

        def step(self, x, states, recur):
            pairs = zip(self.gates, x, recur(states[0]), strict=True)
            parts = [activations.get(name)(x_g + r_g) for name, x_g, r_g in pairs]
            return (activations.tanh(sum(parts[1:], parts[0]) / 3),)

    return Several


@NATIVE
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float64", 1e-11), pytest.param("float32", 1e-4, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("part", range(3))
def test_every_activation_within_the_kernel_is_that_of_the_scan(part, dtype, tolerance):
    ALL["several"] = (cell_of(NAMES[part::3]), {})
    try:
        arrays = random_arrays("several", 3, 4, 5)
        arrays["recurrent_kernel"] *= 0.3
        scanned = run_cell("several", arrays, "scan", dtype)
        assert example_layer(ALL["several"][0], 2, 3, {}).runs_as(backend.execution_mode) == "fused"
        assert_same(run_cell("several", arrays, "fused", dtype), scanned, tolerance)
    finally:
        del ALL["several"]


@NATIVE
@pytest.mark.parametrize("name", [n for n in activations.__all__ if n != "get"])
@pytest.mark.parametrize("cls", [LSTM, pytest.param(GRU, marks=pytest.mark.slow)])
def test_built_in_cells_with_any_activation_run_as_a_kernel(cls, name):
    own = {"output_activation": "relu"} if cls is LSTM else {}
    layer = cls(3, activation=name, recurrent_activation=name, **own)
    layer.ensure_built((None, None, 2))
    assert layer.runs_as(backend.execution_mode) == "fused"

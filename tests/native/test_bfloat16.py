"""Products with operands that are rounded to bfloat16: values, emulation, threads."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import numpy_cells
from test_dense import matrix

from seqnet import native
from seqnet.native import core
from seqnet.ops.bfloat16 import round_to_bfloat16

SHAPES = [(1, 1, 1), (5, 7, 3), (13, 130, 700), (600, 33, 1100), (20, 65, 2049)]


@pytest.fixture
def emulated(monkeypatch):
    """Load the library that does not use the processor's instruction."""

    def load():
        monkeypatch.setenv("SEQNET_BFLOAT16", "emulate")
        monkeypatch.setattr(core, "_cores", {})
        assert native.bfloat16_products() == "emulated"

    return load


def products(shapes):
    """Return products, and sums of columns, for all layouts of both operands."""
    found = []
    for m, n, k in shapes:
        random = np.random.default_rng(0)
        for layouts in itertools.product(("rows", "columns", "strided"), repeat=2):
            a = matrix(random, m, k, "float32", layouts[0])
            b = matrix(random, k, n, "float32", layouts[1])
            bias = random.normal(size=n).astype("float32")
            given = {"bias": bias, "column_sums": True, "bfloat16": True}
            found.append((a, b, bias, *native.gemm(a, b, **given)))
    return found


def test_operands_are_rounded_and_sums_are_not():
    for a, b, bias, out, sums in products(SHAPES):
        rounded = [round_to_bfloat16(x).astype("float64") for x in (a, b)]
        limit = 1e-6 * (len(b) + 1)
        assert np.abs(out - (rounded[0] @ rounded[1] + bias)).max() <= limit
        assert np.abs(sums - b.sum(axis=0, dtype="float64")).max() <= limit


def test_threads_do_not_change_products():
    results = []
    for threads in (1, 2, 3):
        native.set_num_threads(threads)
        results.append(products([(40, 300, 600), (700, 30, 51)]))
    native.set_num_threads(2)
    for one, *others in zip(*results, strict=True):
        for other in others:
            np.testing.assert_array_equal(other[3], one[3])
            np.testing.assert_array_equal(other[4], one[4])


def test_values_at_the_limits_of_bfloat16():
    big, tiny = np.float32(3.4e38), np.float32(1e-39)
    values = np.float32([[1.00390625, 1.01171875, big, -big, tiny, -0.0, np.inf, np.nan]])
    wanted = np.float32([[1, 1.015625, np.inf, -np.inf, 0, 0, np.inf, np.nan]])  # ties to even
    np.testing.assert_array_equal(round_to_bfloat16(values), wanted)
    one = np.ones((1, 1), "float32")
    np.testing.assert_array_equal(native.gemm(one, values, bfloat16=True), wanted)
    np.testing.assert_array_equal(native.gemm(values.T, one, bfloat16=True), wanted.T)


def test_float64_is_refused():
    with pytest.raises(ValueError, match="takes float32 arrays, got float64"):
        native.gemm(np.ones((2, 2)), np.ones((2, 2)), bfloat16=True)
    step, gates, states, _, _ = numpy_cells.CELLS["lstm"]
    with pytest.raises(ValueError, match="takes a float32 recurrence, got float64"):
        native.RecurrenceKernel(step, gates, states, "float64", bfloat16=True)


def recurrences(name, sizes, threads=2):
    """Return states and gradients of a cell, with masks, for several numbers of units."""
    step, gates, states, _, _ = numpy_cells.CELLS[name]
    kernel = native.RecurrenceKernel(step, gates, states, bfloat16=True)
    native.set_num_threads(threads)
    found = []
    for units in sizes:
        random = np.random.default_rng(units)
        time, batch = 4, 9

        def normal(*shape, random=random):
            return random.normal(size=shape).astype("float32")

        weights = normal(units, gates * units) / np.float32(np.sqrt(units))
        given = {
            "recurrent_bias": normal(gates * units),
            "initial_states": [normal(batch, units) for _ in range(states)],
            "mask": random.random((time, batch)) > 0.4,
        }
        projected = normal(time, batch, gates * units)
        outputs, saved = kernel.forward(projected, weights, **given)
        gradients = [normal(time, batch, units) for _ in range(states)]
        back = kernel.backward(weights, outputs, saved, gradients, projected=projected, **given)
        found += [*outputs, *back[:3], *back.initial_states]
    return found


@pytest.mark.parametrize("name", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_emulation_gives_the_same_bits(name, emulated):
    sizes = (1, 15, 16, 17, 33, 70)
    recurrent, others = recurrences(name, sizes), products(SHAPES[:3])
    for array in recurrences(name, sizes, threads=1):
        np.testing.assert_array_equal(array, recurrent.pop(0))
    if native.bfloat16_products() != "instruction":
        pytest.skip("this processor has no instruction to compare with")
    recurrent = recurrences(name, sizes)
    emulated()
    for array, wanted in zip(recurrences(name, sizes), recurrent, strict=True):
        np.testing.assert_array_equal(array, wanted)
    for given, wanted in zip(products(SHAPES[:3]), others, strict=True):
        np.testing.assert_array_equal(given[3], wanted[3])

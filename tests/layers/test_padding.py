"""For any lengths, masks and paths, a batch equals its samples and padding changes nothing.

The functions are compiled once for each cell, path and float type. An unrolled function has `TIME`
steps, so sequences are padded to that length; the other two also run other numbers of steps.
"""

import numpy as np
import pytest
from cells import CELLS
from helpers import random_arrays, run_cell
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_array

TIME = 6
WAYS = pytest.mark.parametrize("path", ["scan", "unroll", "fused"])
KINDS = pytest.mark.parametrize(
    ("cell", "dtype"),
    [
        ("lstm", "float64"),
        ("lstm", "float32"),
        ("gru", "float64"),
        ("gru", "float32"),
        ("zhou_unit", "float64"),
    ],
)
TOLERANCE = {"float64": 1e-10, "float32": 2e-4}
BY_EXAMPLE = ("x", "mask", "cotangent", "h0", "c0")
WEIGHTS = ("kernel", "recurrent_kernel", "bias")
FEW = settings(max_examples=6, deadline=None)


def make(cell, dtype, mask, seed):
    arrays = random_arrays(cell, *mask.shape, units=2, mask=mask, seed=seed)
    return {k: v if k == "mask" else v.astype(dtype) for k, v in arrays.items()}


def run(cell, arrays, path, dtype):
    arrays = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
    return run_cell(cell, arrays, path, dtype=dtype)


def close(result, expected, dtype, what=""):
    assert result.dtype == dtype
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance, err_msg=what)


def states_of(cell):
    return CELLS[cell][0].state_names


@WAYS
@KINDS
@FEW
@given(
    mask=st.integers(1, 4).flatmap(lambda batch: any_array(bool, (batch, TIME))),
    seed=st.integers(0, 999),
)
def test_a_batch_equals_its_samples_one_at_a_time(cell, dtype, path, mask, seed):
    arrays = make(cell, dtype, mask, seed)
    whole = run(cell, arrays, path, dtype)
    sums = {f"d_{name}": 0.0 for name in WEIGHTS}
    for row in range(len(mask)):
        member = {k: v[row : row + 1] if k in BY_EXAMPLE else v for k, v in arrays.items()}
        alone = run(cell, member, path, dtype)
        for name in ("y", "d_x", *(f"{n}_last" for n in states_of(cell))):
            close(whole[name][row : row + 1], alone[name], dtype, name)
        for name in states_of(cell):
            close(whole[f"d_{name}0"][row : row + 1], alone[f"d_{name}0"], dtype, name)
        for name in sums:
            sums[name] = sums[name] + alone[name]
    for name, value in sums.items():
        close(whole[name], value, dtype, name)


@WAYS
@KINDS
@FEW
@given(mask=any_array(bool, (3, TIME)), other=any_array(bool, (3, TIME)), seed=st.integers(0, 999))
def test_padding_before_after_and_between_changes_nothing(cell, dtype, path, mask, other, seed):
    """The same steps in the same order, at the positions of two different masks."""
    counts = np.minimum(mask.sum(axis=1), other.sum(axis=1))
    masks = [m & (np.cumsum(m, axis=1) <= counts[:, None]) for m in (mask, other)]
    assert (masks[0].sum(axis=1) == masks[1].sum(axis=1)).all()
    first = make(cell, dtype, masks[0], seed)
    second = make(cell, dtype, masks[1], seed + 1) | {
        k: first[k] for k in (*WEIGHTS, *(f"{n}0" for n in states_of(cell)))
    }
    for name in ("x", "cotangent"):
        second[name][masks[1]] = first[name][masks[0]]
        if name == "cotangent":  # the cotangents of padding are zero
            first[name][~masks[0]] = 0
            second[name][~masks[1]] = 0
    a, b = run(cell, first, path, dtype), run(cell, second, path, dtype)
    for name in a:
        if name in ("y", "d_x"):
            close(b[name][masks[1]], a[name][masks[0]], dtype, name)
        else:
            close(b[name], a[name], dtype, name)
    assert not a["d_x"][~masks[0]].any()
    assert not b["d_x"][~masks[1]].any()


@pytest.mark.parametrize("path", ["scan", "fused"])
@KINDS
@FEW
@given(
    length=st.integers(1, 5),
    holes=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    seed=st.integers(0, 999),
)
def test_any_amount_of_padding_changes_nothing(cell, dtype, path, length, holes, seed):
    before, between, _after = holes
    middle = length // 2
    places = np.arange(length) + before
    places[middle:] += between
    mask = np.zeros((2, length + sum(holes)), bool)
    mask[:, places] = True
    short = make(cell, dtype, np.ones((2, length), bool), seed)
    padded = make(cell, dtype, mask, seed + 1)
    padded |= {k: v for k, v in short.items() if k not in ("x", "mask", "cotangent")}
    padded["x"][:, places] = short["x"]
    padded["cotangent"][:] = 0
    padded["cotangent"][:, places] = short["cotangent"]
    a, b = run(cell, short, path, dtype), run(cell, padded, path, dtype)
    for name in a:
        close(b[name][:, places] if name in ("y", "d_x") else b[name], a[name], dtype, name)


@WAYS
@KINDS
@FEW
@given(mask=any_array(bool, (3, 2 * TIME)), seed=st.integers(0, 999))
def test_two_halves_with_carried_states_equal_the_whole(cell, dtype, path, mask, seed):
    """Compare outputs, states and gradients; state gradients of the second half go to the first."""
    arrays = make(cell, dtype, mask, seed)
    arrays["cotangent"][:, :TIME] = 0
    halves = [
        {k: v[:, part] if k in ("x", "mask", "cotangent") else v for k, v in arrays.items()}
        for part in (slice(0, TIME), slice(TIME, None))
    ]
    first = run(cell, halves[0], path, dtype)
    carried = {f"{n}0": first[f"{n}_last"] for n in states_of(cell)}
    second = run(cell, halves[1] | carried, path, dtype)
    whole = run(cell, arrays, "scan", dtype)
    close(np.concatenate([first["y"], second["y"]], axis=1), whole["y"], dtype)
    close(second["d_x"], whole["d_x"][:, TIME:], dtype)
    for n in states_of(cell):
        close(second[f"{n}_last"], whole[f"{n}_last"], dtype)
    if states_of(cell) == ("h",):  # then d_y of the last step is d_h
        halves[0]["cotangent"][:, -1] = second["d_h0"]
        back = run(cell, halves[0], path, dtype)
        close(back["d_x"], whole["d_x"][:, :TIME], dtype)
        close(back["d_h0"], whole["d_h0"], dtype)
        for name in WEIGHTS:
            close(back[f"d_{name}"] + second[f"d_{name}"], whole[f"d_{name}"], dtype, name)

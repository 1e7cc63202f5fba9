"""`gradient_steps=`: gradients of the last computed steps of each row only."""

import numpy as np
import pytest
from cells import ALL, over_cells
from helpers import random_arrays, run_cell, skip_without_kernel

import seqnet
from seqnet.layers import GRU, LSTM, Dense

COUNT = 2
MASK = np.array([[1] * 5, [0, 1, 0, 1, 1], [1, 0, 1, 1, 0], [0, 0, 1, 0, 0], [0] * 5], dtype=bool)
EVERY_PATH = pytest.mark.parametrize("path", ["scan", "unroll", "fused"])


def expected_of(cell, arrays, mask, backwards):
    """Compute the earlier steps first, and then the last ones from their states, as numbers."""
    order = slice(None, None, -1 if backwards else 1)
    later = np.cumsum(mask[:, order][:, ::-1], axis=1)[:, ::-1][:, order]
    kept = mask & (later <= COUNT)
    options = {"go_backwards": backwards}
    first = run_cell(cell, arrays | {"mask": mask & ~kept}, **options)
    states = {f"{n[:-5]}0": v for n, v in first.items() if n.endswith("_last")}
    found = run_cell(cell, arrays | states | {"mask": kept}, **options)
    whole = mask.sum(axis=1)[:, None] <= COUNT  # the others do not reach the initial states
    return found | {f"d_{n}": found[f"d_{n}"] * whole for n in states}


@EVERY_PATH
@pytest.mark.parametrize("masked", [True, pytest.param(False, marks=pytest.mark.slow)])
@over_cells(ALL, ("lstm", "minimal_gated_unit"))
def test_gradients_are_those_of_the_last_computed_steps(cell, masked, path):
    check(cell, path, masked, backwards=False)


@EVERY_PATH
def test_the_last_steps_of_a_backwards_layer_are_those_it_computes_last(path):
    check("gru", path, True, backwards=True)


def check(cell, path, masked, backwards):
    cls, own = ALL[cell]
    if path == "fused":
        skip_without_kernel(cls, own)
    mask = MASK if masked else np.ones_like(MASK)
    arrays = random_arrays(cell, *mask.shape, 3, mask=mask)
    arrays["cotangent"] *= (mask[:, ::-1] if backwards else mask)[..., None]
    expected = expected_of(cell, arrays, mask, backwards)
    options = {"gradient_steps": COUNT, "go_backwards": backwards}
    found = run_cell(cell, arrays, path, **options)
    plain = run_cell(cell, arrays, go_backwards=backwards)
    np.testing.assert_allclose(found["y"], plain["y"], rtol=1e-12, atol=1e-13)
    for name in [n for n in expected if n.startswith("d_")]:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-11, err_msg=name)
    assert np.abs(found["d_x"] - plain["d_x"]).max() > 1e-3


def trained(layer, mask=None, **options):
    seqnet.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = seqnet.Model([layer, Dense(1)])
    model.compile("sgd", "mse")
    x, y = rng.normal(size=(4, 6, 2)), rng.normal(size=(4, 6, 1))
    model.fit(x, y, mask=mask, verbose=0, **options)
    return model.get_weights()


def test_it_counts_in_each_window_of_tbptt():
    def recurrent(**options):
        return GRU(3, return_sequences=True, **options)

    every = trained(recurrent(), tbptt=3)
    for steps, same in ((3, True), (2, False)):
        found = trained(recurrent(gradient_steps=steps), tbptt=3)
        assert np.allclose(found[1], every[1], rtol=1e-6, atol=1e-8) is same


def test_it_is_an_argument_in_files_and_is_checked():
    layer = LSTM(2, gradient_steps=3)
    assert LSTM(**layer.get_config()).gradient_steps == 3
    for wrong, error in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="gradient_steps must be"):
            LSTM(2, gradient_steps=wrong)

"""A short form of `fuzz_kernels.py`, which also runs for long and under sanitizers."""

import os

import fuzz_kernels
import numpy as np
import pytest


def test_random_calls_agree_with_numpy():
    random = np.random.default_rng(0)
    for _ in range(200):
        fuzz_kernels.random_call(random)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_threads_that_change_settings_and_fork_get_right_results():
    fuzz_kernels.prepare()
    fuzz = fuzz_kernels.Fuzz(seed=0, threads=4)
    fuzz.run(lambda fuzz: fuzz.calls < 400)
    assert fuzz.calls >= 400

"""A short run of `fuzz_native.py`, which can also run longer and under sanitizers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "fuzz_native.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_random_calls_of_threads_that_change_settings_and_fork_agree_with_numpy():
    """It runs in a new process, because settings are needed before NumPy is imported."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--calls", "250", "--seconds", "300", "--seed", "0"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    calls, children = re.search(r"(\d+) calls and (\d+) forked", done.stdout).groups()
    assert int(calls) >= 250
    assert int(children) > 0

"""Runs under ``mpiexec`` give the results of one process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.optional("mpi4py")

SCRIPT = Path(__file__).parent / "script.py"
ALL = "sequences,words,outputs,files,states"
TIMEOUT_S = 120


def run(folder, case, ranks, *options, env=None):
    """Run the script; return the finished process."""
    here = Path(sys.executable).parent / "mpiexec"
    mpiexec = str(here) if here.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        pytest.fail("mpi4py is installed, but mpiexec is not: pip install mpich.")
    start = [] if ranks == 1 else [mpiexec, "-n", str(ranks)]
    return subprocess.run(
        [*start, sys.executable, str(SCRIPT), str(folder), case, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def results(folder, case, ranks, *options):
    done = run(folder, case, ranks, *options)
    assert done.returncode == 0, done.stderr
    with np.load(folder / f"{case.split(',')[0]}-{ranks}.npz") as found:
        return dict(found)


@pytest.mark.parametrize("ranks", [2, 3])
def test_results_are_those_of_one_process(tmp_path, ranks, one_process):
    found = results(tmp_path, ALL, ranks)
    assert found.keys() == one_process.keys()
    for name, expected in one_process.items():
        np.testing.assert_allclose(found[name], expected, rtol=2e-4, atol=2e-6, err_msg=name)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    return results(tmp_path_factory.mktemp("one"), ALL, 1)


def test_deterministic_sums_are_the_same_bit_for_bit(tmp_path):
    case = "sequences,words,states"
    one, *more = [results(tmp_path, case, n, "deterministic") for n in (1, 2, 4)]
    for found in more:
        for name, expected in one.items():
            np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_a_killed_run_goes_on_with_another_number_of_processes(tmp_path):
    expected, other = tmp_path / "expected", tmp_path / "killed"
    expected.mkdir()
    other.mkdir()
    one = results(expected, "resumed", 1)
    killed = run(other, "resumed", 2, env={"DIES": "1"})
    assert killed.returncode != 0
    assert "signal 9" in killed.stdout + killed.stderr
    found = results(other, "resumed", 3)
    for name, value in one.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=2e-6, err_msg=name)
    assert not (other / "run.h5").exists()
    assert len(list(other.glob("model-*.h5"))) == 3


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("error_in_data", "Rank 1 of 2 failed"),
        ("error_in_callback", "Rank 1 of 2 failed"),
        ("error_outside", "Rank 1 of 2 failed"),
        ("error_everywhere", "Rank 0 of 2 failed"),
    ],
)
def test_an_error_is_told_once_and_ends_all_ranks(tmp_path, case, told):
    done = run(tmp_path, case, 2)
    assert done.returncode != 0
    assert done.stderr.count(" failed:") == 1, done.stderr
    assert told in done.stderr


def test_a_rank_that_leaves_early_ends_the_others(tmp_path):
    done = run(tmp_path, "leaves_early", 2)
    assert done.returncode != 0
    assert "the end of the program" in done.stderr

"""Runs under ``mpiexec`` give the results of one process."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.optional("mpi4py")

SCRIPT = Path(__file__).parent / "script.py"
FIXED = "fixed:sequences,fixed:words,fixed:states"
ALL = f"sequences,words,outputs,files,states,{FIXED}"
TIMEOUT_S = 180


def command(folder, case, ranks):
    """Return what starts the script."""
    here = Path(sys.executable).parent / "mpiexec"
    mpiexec = str(here) if here.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        pytest.fail("mpi4py is installed, but mpiexec is not: pip install mpich.")
    start = [] if ranks == 1 else [mpiexec, "-n", str(ranks)]
    return [*start, sys.executable, str(SCRIPT), str(folder), case]


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def run(folder, case, ranks, **more):
    """Run the script; return the finished process."""
    return subprocess.run(
        command(folder, case, ranks),
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def results(folder, case, ranks, **more):
    done = run(folder, case, ranks, **more)
    assert done.returncode == 0, done.stderr
    with np.load(folder / f"found-{ranks}.npz") as found:
        return dict(found)


def assert_same(found, expected):
    """Check that results are the same bit for bit if they were fixed, and to rounding if not."""
    for name, value in found.items():
        if name.startswith("fixed:"):
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
        else:
            np.testing.assert_allclose(value, expected[name], rtol=2e-4, atol=2e-6, err_msg=name)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    return results(tmp_path_factory.mktemp("one"), ALL, 1)


@pytest.mark.parametrize(("ranks", "cases"), [(2, ALL), (4, "fixed:sequences,fixed:words")])
def test_results_are_those_of_one_process(tmp_path, ranks, cases, one_process):
    found = results(tmp_path, cases, ranks)
    assert found.keys() == {n for n in one_process if n.partition(" ")[0] in cases.split(",")}
    assert_same(found, one_process)


def test_a_killed_run_goes_on_with_another_number_of_processes(tmp_path):
    (tmp_path / "expected").mkdir()
    expected = results(tmp_path / "expected", "fixed:resumed", 1)
    killed = run(tmp_path, "fixed:resumed", 2, DIES="1")
    assert killed.returncode != 0
    (process,) = re.findall(r"rank 1 is process (\d+)", killed.stderr)
    assert re.search(rf"PID {process} RUNNING AT", killed.stdout + killed.stderr)
    assert_same(results(tmp_path, "fixed:resumed", 3), expected)
    assert not (tmp_path / "run.h5").exists()
    assert len(list(tmp_path.glob("model-*.h5"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("case", "sizes"), [("resumed", [2]), ("fixed:resumed", [2, 3, 4])])
def test_runs_that_are_killed_at_random_moments_end_as_if_they_were_not(tmp_path, case, sizes):
    long = {"EPOCHS": "12", "PAUSE": "0.05"}
    (tmp_path / "expected").mkdir()
    expected = results(tmp_path / "expected", case, sizes[0], EPOCHS="12")
    rng = random.Random(0)
    for _ in range(10):
        size = rng.choice(sizes)
        for path in tmp_path.glob("pid-*"):
            path.unlink()
        process = subprocess.Popen(
            command(tmp_path, case, size),
            env=environment(**long),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        victim = tmp_path / f"pid-{rng.randrange(size)}"
        while not victim.exists() or not victim.read_text():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 5))
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(victim.read_text()), signal.SIGKILL)
        assert process.wait(60) != 0 or not (tmp_path / "run.h5").exists()
    found = results(tmp_path, case, sizes[-1], EPOCHS="12")
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("error_in_data", "Rank 1 of 2 failed"),
        ("error_in_file", "at (7, 0)"),
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
    assert case == "error_everywhere" or "Rank 1 of 2 failed" in done.stderr


def test_a_rank_that_leaves_early_ends_the_others(tmp_path):
    done = run(tmp_path, "leaves_early", 2)
    assert done.returncode != 0
    assert "the end of the program" in done.stderr


def test_a_rank_that_hangs_ends_the_others_in_bounded_time(tmp_path):
    done = run(tmp_path, "hangs", 2)
    assert done.returncode != 0
    assert "Nothing was heard of rank 1." in done.stderr

"""Errors of `import seqnet` where PyTensor cannot write its compiled code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def import_seqnet(**environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    environment = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run(
        [sys.executable, "-c", "import seqnet"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("home", ["missing/home", "home"])
def test_the_error_names_the_variable_to_set(tmp_path, home):
    (tmp_path / "missing").write_text("")  # a file, so that it cannot contain a folder
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".pytensor").write_text("")
    done = import_seqnet(HOME=str(tmp_path / home), PYTENSOR_FLAGS=None)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: PyTensor cannot keep its compiled code")
    assert "PYTENSOR_FLAGS=base_compiledir=" in last
    assert ".pytensor" in last


def test_setting_the_named_variable_helps(tmp_path):
    (tmp_path / "missing").write_text("")
    folder = tmp_path / "compiled"
    done = import_seqnet(
        HOME=str(tmp_path / "missing" / "home"), PYTENSOR_FLAGS=f"base_compiledir={folder}"
    )
    assert done.returncode == 0, done.stderr

"""The wheel contains all files of seqnet, and the source distribution all files of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from seqnet import backend

ROOT = Path(__file__).parent.parent
TRAIN = """
import sys

import numpy as np
import seqnet
from seqnet import backend
from seqnet.layers import LSTM, Dense

assert seqnet.__file__.startswith(sys.prefix), seqnet.__file__
assert (backend.native() is not None) is {kernels}
model = seqnet.Model([LSTM(4), Dense(1)])
model.compile("adam", "mse")
x = np.random.default_rng(0).normal(size=(16, 5, 2))
losses = model.fit(x, x.sum(axis=(1, 2))[:, None], 4, 5, verbose=0).history["loss"]
assert losses[-1] < losses[0]
model.save("model.h5")
assert (seqnet.load_model("model.h5").predict(x) == model.predict(x)).all()
print("trained")
"""
BUILD = "import setuptools.build_meta as b, sys; print(b.build_sdist(sys.argv[1]))"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]


def tracked() -> list[str]:
    """Return the files that git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("The tree is not a git repository.")
    return [name for name in found.stdout.splitlines() if (ROOT / name).exists()]


def run(command: list, **options) -> str:
    """Run a command that must succeed; return its output."""
    found = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the repository, so that building does not change it."""
    copy = tmp_path_factory.mktemp("tree")
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


@pytest.fixture(scope="module")
def built(tree, tmp_path_factory):
    """The folder with the source distribution and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-W", "ignore", "-c", BUILD, folder], cwd=tree)
    (source,) = folder.glob("*.tar.gz")
    run([*PIP, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, source])
    return folder


def test_the_source_distribution_contains_every_tracked_file(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    left_out = {".gitignore"}
    assert set(tracked()) - names == left_out


def test_the_wheel_contains_every_file_of_the_package(built):
    (path,) = built.glob("*.whl")
    names = {n for n in zipfile.ZipFile(path).namelist() if ".dist-info/" not in n}
    assert names == {name for name in tracked() if name.startswith("seqnet/")}
    assert "seqnet/py.typed" in names


def test_an_installed_wheel_trains_outside_the_repository(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = tmp_path / "venv" / Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    run([*PIP, "install", "--no-deps", "--no-index", "--target", site, wheel])
    # The dependencies are imported from this environment, after the packages of the new one.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    training = TRAIN.format(kernels=backend.native() is not None)
    assert run([python, "-c", training], cwd=tmp_path, env=environment) == "trained\n"

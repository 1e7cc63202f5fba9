"""Create a virtual environment for each peer in ``benchmarks/.envs``.

    python benchmarks/environments.py                        # all of them
    python benchmarks/environments.py --only pytorch,theano
    python benchmarks/environments.py --use pytorch=FOLDER   # use an existing one

Existing environments that work are reused. seqnet itself needs none of them.
"""

from __future__ import annotations

import argparse
import glob
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / ".envs"


@dataclass(frozen=True)
class Environment:
    """The needs of a peer: Python versions by preference, packages, and a test program."""

    pythons: tuple[str, ...]
    packages: tuple[str, ...]
    trial: str


MODERN = ("3.11", "3.12", "3.13")
THEANO_TRIAL = """
import os, sys
os.environ["THEANO_FLAGS"] = "floatX=float32,blas.ldflags=-lopenblas"
import theano, theano.tensor as T
a = T.fmatrix()
theano.function([a], T.dot(a, a))([[1.0]])
sys.exit(0 if theano.config.cxx else "no C++ compiler was found")
"""
ENVIRONMENTS = {
    "pytorch": Environment(MODERN, ("torch==2.13.0", "numpy"), "import torch, numpy"),
    "keras": Environment(
        MODERN,
        ("keras==3.15.1", "jax==0.10.2", "jaxlib==0.10.2"),
        "import os; os.environ['KERAS_BACKEND'] = 'jax'; import keras",
    ),
    "theano": Environment(("3.7",), ("numpy<1.20", "scipy", "theano==1.0.5"), THEANO_TRIAL),
    "pytensor_ml": Environment(
        ("3.13", "3.12"), ("pytensor-ml==0.3.0",), "import pytensor_ml.layers, pytensor_ml.optim"
    ),
}
HELP = {
    "theano": (
        "Theano needs a C++ compiler and OpenBLAS with its headers; on Debian: "
        "apt-get install g++ libopenblas-dev"
    ),
    "pytorch": (
        "For a CPU build on Linux pass --index https://download.pytorch.org/whl/cpu "
        "(the default build works too, but is large)"
    ),
}


def python_in(folder: Path) -> Path:
    return folder / "bin" / "python"


def python_of(name: str) -> Path | None:
    """Return the Python of a peer's environment, or None if it is missing."""
    python = python_in(FOLDER / name)
    return python if python.exists() else None


def run(command: list, folder: Path | None = None) -> str | None:
    """Run a command; return None if it succeeded, else the end of its output."""
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=folder)
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return None
    return "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])


def find_python(versions: tuple[str, ...], given: dict[str, str]) -> str | None:
    """Return a Python of one of the versions: the given one, this one, on PATH, or pyenv's."""
    for version in versions:
        if given.get(version):
            return given[version]
        if sys.version_info[:2] == tuple(int(part) for part in version.split(".")):
            return sys.executable
        pattern = str(Path("~/.pyenv/versions").expanduser() / f"{version}.*" / "bin" / "python")
        candidates = [shutil.which(f"python{version}"), *sorted(glob.glob(pattern), reverse=True)]
        for python in filter(None, candidates):
            # pyenv puts commands on PATH that fail, so run them.
            check = f"import sys, venv; assert '%d.%d' % sys.version_info[:2] == '{version}'"
            if run([python, "-c", check]) is None:
                return python
    return None


def trial(name: str) -> str | None:
    """Return None if an environment works, else its error output."""
    with tempfile.TemporaryDirectory() as folder:  # in a folder where no file shadows a module
        return run([python_of(name), "-c", ENVIRONMENTS[name].trial], Path(folder))


def make(name: str, given: dict[str, str], index: str | None) -> bool:
    """Create an environment unless it exists, print the result, and return whether it works."""
    environment, folder = ENVIRONMENTS[name], FOLDER / name
    if python_of(name) and trial(name) is None:
        print(f"{name}: there already ({folder})")
        return True
    python = find_python(environment.pythons, given)
    if python is None:
        versions = " or ".join(environment.pythons)
        option = "--python" + environment.pythons[0].replace(".", "")
        print(f"{name}: needs Python {versions}, and there is none; pass {option} PATH.")
        return False
    print(f"{name}: installing {' '.join(environment.packages)} for {python} ...", flush=True)
    install = [python_in(folder), "-m", "pip", "install", "--quiet", *environment.packages]
    if index and name == "pytorch":
        install += ["--extra-index-url", index]
    problem = run([python, "-m", "venv", folder]) or run(install) or trial(name)
    if problem is None:
        print(f"{name}: ready ({folder})")
        return True
    print(f"{name}: did not work.\n{problem}")
    if name in HELP:
        print(HELP[name])
    return False


def link(text: str) -> None:
    """Use an existing environment: ``NAME=FOLDER``."""
    name, _, target = text.partition("=")
    folder = Path(target).expanduser()
    if name not in ENVIRONMENTS or not python_in(folder).exists():
        sys.exit(f"--use takes NAME=FOLDER, a name of {', '.join(ENVIRONMENTS)}, got {text!r}.")
    place = FOLDER / name
    if place.is_symlink():
        place.unlink()
    if place.exists():
        sys.exit(f"{place} exists; remove it first.")
    place.symlink_to(folder.resolve())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(ENVIRONMENTS), help="names, with commas between")
    parser.add_argument("--use", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--index", help="one more package index to take PyTorch from")
    versions = sorted(
        {v for e in ENVIRONMENTS.values() for v in e.pythons}, key=lambda v: int(v[2:])
    )
    for version in versions:
        parser.add_argument(f"--python{version.replace('.', '')}", metavar="PATH", dest=version)
    options = parser.parse_args()
    names = options.only.split(",")
    unknown = [n for n in names if n not in ENVIRONMENTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(ENVIRONMENTS)}")
    FOLDER.mkdir(exist_ok=True)
    for text in options.use:
        link(text)
    given = {version: getattr(options, version) for version in versions}
    worked = [make(name, given, options.index) for name in names]
    sys.exit(0 if all(worked) else 1)


if __name__ == "__main__":
    main()

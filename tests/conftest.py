"""What every test gets: a fixed seed, seqnet's own settings again afterwards, and no compiling."""

import importlib.util

import pytest

import seqnet
from seqnet import backend


def pytest_runtest_setup(item):
    """Skip a test of an optional package that is missing, unless ``-m optional`` asks for it."""
    for mark in item.iter_markers("optional"):
        for package in mark.args:
            if importlib.util.find_spec(package) is None:
                asked = item.config.option.markexpr == "optional"
                (pytest.fail if asked else pytest.skip)(f"The package {package} is not installed.")


@pytest.fixture(autouse=True)
def fresh_settings():
    """Start from seed 0 and the default settings, and leave neither changed."""
    seqnet.set_random_seed(0)
    yield
    seqnet.config.set_floatx("float32")
    seqnet.config.set_epsilon(1e-7)
    seqnet.config.set_backend("auto")


@pytest.fixture
def compiled(monkeypatch):
    """A list that gets the name of every function that is compiled."""
    names = []
    compile_it = backend.compile

    def count(*args, name, **options):
        names.append(name)
        return compile_it(*args, name=name, **options)

    monkeypatch.setattr(backend, "compile", count)
    return names


@pytest.fixture
def no_compile(monkeypatch):
    """Fail as soon as anything is compiled."""

    def refuse(*args, name, **options):
        pytest.fail(f"The {name} function was compiled before the input was checked.")

    monkeypatch.setattr(backend, "compile", refuse)

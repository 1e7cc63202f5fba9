"""Fixtures for all tests: a fixed seed, default settings, and checks of compilation."""

import gc
import importlib.util

import pytest

import seqnet
from seqnet import backend


def pytest_runtest_setup(item):
    """Skip a test whose optional package is missing; if these tests are asked for, it fails."""
    for mark in item.iter_markers("optional"):
        for package in mark.args:
            if importlib.util.find_spec(package) is None:
                asked = item.config.option.markexpr.startswith("optional")
                (pytest.fail if asked else pytest.skip)(f"The package {package} is not installed.")


@pytest.fixture(autouse=True)
def fresh_settings():
    """Set seed 0 before each test and restore the default settings after it."""
    seqnet.set_random_seed(0)
    yield
    seqnet.config.set_dtype_policy("float32")
    seqnet.config.set_epsilon(1e-7)
    seqnet.config.set_backend("auto")


@pytest.fixture(autouse=True, scope="module")
def frozen_objects():
    """Search objects that outlive a file of tests no more: they are many, in caches of PyTensor."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def compiled(monkeypatch):
    """A list of the names of all functions that are compiled."""
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

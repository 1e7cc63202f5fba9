"""What seqnet runs on: `info`, for reports of errors and of measurements."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from typing import Any

import numpy as np
import pytensor

from seqnet import backend, config, distributed
from seqnet.version import __version__

PACKAGES = ("numpy", "pytensor", "h5py", "mpi4py", "jax")
"""Packages whose versions are reported if they are installed."""


def info() -> dict[str, Any]:
    """Return what seqnet runs on, as numbers and text.

    Returns
    -------
    dict
        ``versions`` of seqnet, Python and packages; ``backend``, ``device``, ``floatx``; ``blas``,
        that of NumPy; ``kernels``: the ``compiler``, ``vector_bytes``, ``threads`` and ``cache`` of
        the compiled kernels, None if they are not used; ``pytensor_cache``: the folder of
        PyTensor's compiled code; ``mpi``: the library, this ``rank``, and ``size``, the number of
        processes.

    Examples
    --------
    >>> import seqnet
    >>> found = seqnet.info()
    >>> found["floatx"], found["mpi"]["size"]
    ('float32', 1)
    """
    world, kernels = distributed.current(), backend.native()
    return {
        "versions": {"seqnet": __version__, "python": platform.python_version()} | versions(),
        "platform": platform.platform(),
        "backend": config.backend(),
        "device": device(),
        "floatx": config.floatx(),
        "blas": blas(),
        "kernels": None if kernels is None else kernels.info(config.floatx()),
        "pytensor_cache": str(pytensor.config.compiledir),
        "mpi": {"library": world.library, "rank": world.rank, "size": world.size},
    }


def device() -> str:
    """Return the kind of device that the backend computes on, such as ``"cpu"``."""
    if config.backend() != "jax":
        return "cpu"
    return importlib.import_module("jax").default_backend()


def versions() -> dict[str, str]:
    """Return the versions of those `PACKAGES` that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def blas() -> str:
    """Return the name and the version of the BLAS library of NumPy."""
    build: Any = np.show_config(mode="dicts")
    found = build.get("Build Dependencies", {}).get("blas", {})
    return f"{found.get('name', 'unknown')} {found.get('version', '')}".strip()

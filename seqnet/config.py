"""Settings of seqnet itself: the float type, the small constant, the backend and the random source.

PyTensor's configuration is never changed: these settings are passed explicitly.
"""

from __future__ import annotations

import difflib
import importlib.util
from typing import Any

import numpy as np

from seqnet.common.checks import check_count, check_number

__all__ = [
    "backend",
    "dtype_policy",
    "epsilon",
    "floatx",
    "prefetch",
    "random_generator",
    "random_seed",
    "set_backend",
    "set_dtype_policy",
    "set_epsilon",
    "set_floatx",
    "set_prefetch",
    "set_random_seed",
]

FLOAT_DTYPES = ("float32", "float64")
MIXED = "mixed_bfloat16"
DTYPE_POLICIES = (*FLOAT_DTYPES, MIXED)
BACKENDS = {
    "auto": "PyTensor's Python virtual machine over seqnet's kernels: compiles in about a second",
    "numpy": "the same virtual machine without the kernels: needs no C compiler",
    "numba": "PyTensor's Numba linker: one machine-code function, tens of seconds to compile",
    "c": "PyTensor's C linker: needs a C++ compiler, tens of seconds to compile",
    "jax": "PyTensor's JAX linker: needs the package jax",
    "fast_compile": "PyTensor's FAST_COMPILE mode: hardly any rewriting, for debugging",
}

_settings: dict[str, Any] = {
    "floatx": "float32",
    "mixed": False,
    "epsilon": 1e-7,
    "backend": "auto",
    "prefetch": 3,
}
_random = np.random.default_rng()
_seed: int | None = None


def floatx() -> str:
    """Return the name of the float type of new layers, ``"float32"`` unless changed.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.config.floatx()
    'float32'
    """
    return _settings["floatx"]


def set_floatx(dtype: str) -> None:
    """Set the float type of layers created after the call: ``"float32"`` or ``"float64"``.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.config.set_floatx("float64")
    >>> seqnet.layers.Dense(2).dtype
    'float64'
    >>> seqnet.config.set_floatx("float32")
    """
    name = check_float_dtype(dtype)
    if _settings["mixed"] and name == "float64":
        raise ValueError(
            f"The dtype policy is {MIXED!r}, whose weights are float32, so the float type cannot "
            "be float64. Call seqnet.config.set_dtype_policy('float64') instead."
        )
    _settings["floatx"] = name


def dtype_policy() -> str:
    """Return the dtype policy of new layers: `floatx`, or ``"mixed_bfloat16"`` if that was set.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.config.dtype_policy()
    'float32'
    """
    return MIXED if _settings["mixed"] else floatx()


def set_dtype_policy(policy: str) -> None:
    """Set the dtype policy of layers created after the call.

    Parameters
    ----------
    policy : str
        ``"float32"`` or ``"float64"``, which is also the new `floatx`, or ``"mixed_bfloat16"``:
        weights, states, sums, losses and optimizers are float32, and the operands of matrix
        products are rounded to bfloat16. Layers have the argument ``dtype`` for a policy of their
        own.

    Raises
    ------
    ValueError
        If there is no such policy, or it is ``"mixed_bfloat16"`` and `floatx` is float64.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.config.set_dtype_policy("mixed_bfloat16")
    >>> layer = seqnet.layers.Dense(2)
    >>> layer.dtype_policy, layer.dtype, layer.compute_dtype
    ('mixed_bfloat16', 'float32', 'bfloat16')
    >>> seqnet.config.set_dtype_policy("float32")
    """
    name = check_dtype_policy(policy)
    if name == MIXED and floatx() == "float64":
        raise ValueError(
            f"The float type is float64, but {MIXED!r} has weights of float32. Call "
            "seqnet.config.set_floatx('float32') first."
        )
    _settings["mixed"] = name == MIXED
    if name != MIXED:
        _settings["floatx"] = name


def check_dtype_policy(policy: str) -> str:
    """Return the name of a dtype policy, or raise ``ValueError``."""
    if isinstance(policy, str) and policy == MIXED:
        return MIXED
    try:
        return check_float_dtype(policy)
    except ValueError as error:
        if not isinstance(policy, str):
            raise
        near = [name for name in DTYPE_POLICIES if policy and policy.lower() in name]
        near = near or difflib.get_close_matches(policy, DTYPE_POLICIES, n=1, cutoff=0.5)
        likely = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"There is no dtype policy {policy!r}; choose one of {', '.join(DTYPE_POLICIES)}."
            f"{likely}"
        ) from error


def check_float_dtype(dtype: str) -> str:
    """Return the name of a supported float type, or raise ``ValueError``."""
    try:
        name = None if dtype is None else np.dtype(dtype).name
    except TypeError:
        name = None
    if name not in FLOAT_DTYPES:
        raise ValueError(f"seqnet computes in {' or '.join(FLOAT_DTYPES)}, not in {dtype!r}.")
    return name


def epsilon() -> float:
    """Return the small constant that keeps logarithms and divisions finite (1e-7).

    Examples
    --------
    >>> import seqnet
    >>> seqnet.config.epsilon()
    1e-07
    """
    return _settings["epsilon"]


def set_epsilon(value: float) -> None:
    """Set the small constant, a number above 0 and below 1.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.config.set_epsilon(1e-8)
    >>> seqnet.config.epsilon()
    1e-08
    >>> seqnet.config.set_epsilon(1e-7)
    """
    if not 0 < check_number(value, "epsilon") < 1:
        raise ValueError(f"epsilon must be above zero and below one, got {value!r}.")
    _settings["epsilon"] = float(value)


def backend() -> str:
    """Return the name of the backend that compiles functions (see `BACKENDS`).

    Examples
    --------
    >>> import seqnet
    >>> seqnet.config.backend()
    'auto'
    """
    return _settings["backend"]


def set_backend(name: str) -> None:
    """Set the backend of models compiled after the call.

    Parameters
    ----------
    name : str
        A key of ``seqnet.config.BACKENDS``: ``"auto"``, ``"numpy"``, ``"numba"``, ``"c"``,
        ``"jax"`` or ``"fast_compile"``.

    Raises
    ------
    ValueError
        If the name is not known.
    ModuleNotFoundError
        If it is ``"jax"`` and jax is not installed.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.config.set_backend("numpy")  # no compiled kernels
    >>> seqnet.config.backend()
    'numpy'
    >>> seqnet.config.set_backend("auto")
    """
    if not isinstance(name, str) or name not in BACKENDS:
        raise ValueError(f"Unknown backend {name!r}; choose one of {', '.join(BACKENDS)}.")
    if name == "jax" and importlib.util.find_spec("jax") is None:
        raise ModuleNotFoundError("The backend 'jax' needs the package jax: pip install jax.")
    _settings["backend"] = name


def prefetch() -> int:
    """Return how many batches are read ahead of the training, where data is not in memory.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.config.prefetch()
    3
    """
    return _settings["prefetch"]


def set_prefetch(batches: int) -> None:
    """Set how many batches a thread reads ahead; 0 reads where the training runs, in no thread.

    Parameters
    ----------
    batches : int
        3 by default: the number of batches in memory in addition to the one in use.

    Raises
    ------
    ValueError, TypeError
        If it is not an integer, or negative.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.config.set_prefetch(0)  # read in the thread of the training
    >>> seqnet.config.set_prefetch(3)
    """
    _settings["prefetch"] = check_count(batches, "prefetch", 0)


def set_random_seed(seed: int) -> None:
    """Set the seed of all random numbers of seqnet: initial weights, dropout, shuffling.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.set_random_seed(7)
    >>> first = seqnet.initializers.get("glorot_uniform")((2, 3))
    >>> seqnet.set_random_seed(7)
    >>> bool((first == seqnet.initializers.get("glorot_uniform")((2, 3))).all())
    True
    """
    global _random, _seed
    _seed = check_count(seed, "seed", 0)
    _random = np.random.default_rng(_seed)


def random_seed() -> int | None:
    """Return the last argument of `set_random_seed`, None if it was not called.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.set_random_seed(7)
    >>> seqnet.config.random_seed()
    7
    """
    return _seed


def random_generator() -> np.random.Generator:
    """Return the NumPy generator of all random numbers of seqnet.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.set_random_seed(7)
    >>> first = seqnet.config.random_generator().integers(100)
    >>> seqnet.set_random_seed(7)
    >>> bool(seqnet.config.random_generator().integers(100) == first)
    True
    """
    return _random

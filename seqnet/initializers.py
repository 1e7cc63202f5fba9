"""Initializers: objects that return an array for a shape and a NumPy generator.

Fans follow Keras 3: for a kernel of shape ``(inputs, outputs)`` fan-in is the first, fan-out the
second dimension; for a convolution's ``(steps, inputs, outputs)`` both are times the steps.

A layer takes the name or the object; an object can also be called on a shape:

>>> from seqnet import initializers
>>> from seqnet.layers import Dense
>>> layer = Dense(8, kernel_initializer="he_normal", bias_initializer=initializers.Ones())
>>> initializers.Constant(0.5)((2,), dtype="float32")
array([0.5, 0.5], dtype=float32)
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from seqnet import config
from seqnet.common.checks import check_count, check_number
from seqnet.common.types import Array, ArrayLike
from seqnet.registry import Configurable, Identifier, refuse_arguments, register
from seqnet.registry import get as _get

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomInitializer",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "draw",
    "get",
]


class Initializer(Configurable):
    """The base class of initializers: ``initializer(shape, rng, dtype)`` returns an array.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> class Alternating(seqnet.initializers.Initializer):
    ...     def draw(self, shape, rng):
    ...         return np.resize([1.0, -1.0], shape)
    ...
    >>> Alternating()((2, 3)).tolist()
    [[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]]
    >>> layer = seqnet.layers.Dense(2, kernel_initializer=Alternating())
    """

    def __init__(self, **unknown: Any):
        refuse_arguments(type(self), unknown)

    def __call__(
        self,
        shape: Sequence[int],
        rng: np.random.Generator | None = None,
        dtype: str | None = None,
    ) -> np.ndarray:
        """Return an array of `shape`, drawn from `rng` (seqnet's own if ``None``)."""
        rng = config.random_generator() if rng is None else rng
        return np.asarray(self.draw(tuple(shape), rng), dtype=dtype or config.floatx())

    @abstractmethod
    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Return float64 values of the given shape."""


class RandomInitializer(Initializer):
    """The base class of initializers that draw random numbers.

    Parameters
    ----------
    seed : int, optional
        Where the random numbers start: the same shape then gives the same values in each call. By
        default they follow from `seqnet.set_random_seed`, and differ from weight to weight.

    Examples
    --------
    >>> import seqnet
    >>> draw = seqnet.initializers.GlorotUniform(seed=1)
    >>> bool((draw((2, 3)) == draw((2, 3))).all())
    True
    """

    def __init__(self, seed: int | None = None, **unknown: Any):
        super().__init__(**unknown)
        self.seed = None if seed is None else check_count(seed, "seed", minimum=0)

    def __call__(
        self,
        shape: Sequence[int],
        rng: np.random.Generator | None = None,
        dtype: str | None = None,
    ) -> np.ndarray:
        """Return an array of `shape`, drawn from the `seed`, or else from `rng`."""
        rng = rng if self.seed is None else np.random.default_rng(self.seed)
        return super().__call__(shape, rng, dtype)


@register("initializer", "zeros")
class Zeros(Initializer):
    """All zeros.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.initializers.Zeros()((2, 2)).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return np.zeros(shape)


@register("initializer", "ones")
class Ones(Initializer):
    """All ones.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.initializers.Ones()((2, 2)).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return np.ones(shape)


@register("initializer", "constant")
class Constant(Initializer):
    """One number everywhere, or the numbers of an array, such as a table of word vectors.

    The configuration in a saved model contains the array. For a very large one, set the weights of
    the layer after `build` instead.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> vectors = np.eye(3, 2)
    >>> start = seqnet.initializers.Constant(vectors)
    >>> layer = seqnet.layers.Embedding(3, 2, embeddings_initializer=start, trainable=False)
    """

    def __init__(self, value: float | ArrayLike = 0.0, **unknown: Any):
        super().__init__(**unknown)
        self.value: float | Array
        if np.ndim(value):
            self.value = np.asarray(value)
            if self.value.dtype.kind not in "fiub":
                raise TypeError(f"The value of Constant holds numbers, got {self.value.dtype}.")
        else:
            self.value = check_number(value, "The value of Constant")

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if isinstance(self.value, np.ndarray) and self.value.shape != shape:
            raise ValueError(
                f"The array of Constant has the shape {self.value.shape}, and the weight {shape}."
            )
        return np.full(shape, self.value)

    def get_config(self) -> dict[str, Any]:
        return {"value": np.asarray(self.value).tolist()}


@register("initializer", "uniform", "random_uniform")
class RandomUniform(RandomInitializer):
    """Uniform between two bounds (Keras's default: -0.05 to 0.05).

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> values = seqnet.initializers.RandomUniform()((200, 100), np.random.default_rng(0))
    >>> values.shape, round(float(values.std()), 3), round(float(abs(values).max()), 3)
    ((200, 100), 0.029, 0.05)
    """

    def __init__(
        self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None, **unknown: Any
    ):
        super().__init__(seed, **unknown)
        self.minval = check_number(minval, "minval")
        self.maxval = check_number(maxval, "maxval")
        if not self.minval <= self.maxval < np.inf:
            raise ValueError(f"minval is at most maxval, got {minval} and {maxval}.")

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return rng.uniform(self.minval, self.maxval, shape)


@register("initializer", "normal", "random_normal")
class RandomNormal(RandomInitializer):
    """Normal with a mean and a standard deviation (Keras's default: 0 and 0.05).

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> values = seqnet.initializers.RandomNormal()((200, 100), np.random.default_rng(0))
    >>> values.shape, round(float(values.std()), 3), round(float(abs(values).max()), 3)
    ((200, 100), 0.05, 0.201)
    """

    def __init__(
        self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None, **unknown: Any
    ):
        super().__init__(seed, **unknown)
        self.mean = check_number(mean, "mean")
        self.stddev = check_number(stddev, "stddev")
        if not 0 <= self.stddev < np.inf:
            raise ValueError(f"stddev must be at least 0 and finite, got {stddev}.")

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return rng.normal(self.mean, self.stddev, shape)


@register("initializer", "truncated_normal")
class TruncatedNormal(RandomNormal):
    """Normal with a mean and a deviation; values beyond two deviations are drawn again.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> values = seqnet.initializers.TruncatedNormal()((200, 100), np.random.default_rng(0))
    >>> values.shape, round(float(values.std()), 3), round(float(abs(values).max()), 3)
    ((200, 100), 0.044, 0.1)
    """

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        return self.mean + self.stddev * truncated(shape, rng)


def truncated(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return values of the standard normal distribution between -2 and 2."""
    values = np.asarray(rng.normal(0.0, 1.0, shape))
    while (far := np.abs(values) > 2).any():
        values[far] = rng.normal(0.0, 1.0, int(far.sum()))
    return values


class VarianceScaling(RandomInitializer):
    """Zero-mean values with variance ``scale / n``, `n` being a fan of the weight's shape.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.initializers import VarianceScaling
    >>> class Wide(VarianceScaling):
    ...     scale, mode, distribution = 3.0, "fan_in", "normal"
    >>> Wide().draw((50, 3), np.random.default_rng(0)).shape
    (50, 3)
    """

    scale: float
    mode: str
    distribution: str

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        fan_in = int(np.prod(shape[:-1])) if len(shape) > 1 else (shape[0] if shape else 1)
        fan_out = int(np.prod(shape[:-2])) * shape[-1] if shape else 1
        fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
        variance = self.scale / max(1.0, fans[self.mode])
        if self.distribution == "uniform":
            limit = np.sqrt(3 * variance)
            return rng.uniform(-limit, limit, shape)
        # The factor is the deviation of the truncated distribution.
        return truncated(shape, rng) * np.sqrt(variance) / 0.87962566103423978


@register("initializer", "glorot_uniform")
class GlorotUniform(VarianceScaling):
    """Uniform, variance 2 / (fan_in + fan_out) (Glorot and Bengio, 2010).

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> values = seqnet.initializers.GlorotUniform()((200, 100), np.random.default_rng(0))
    >>> values.shape, round(float(values.std()), 3), round(float(abs(values).max()), 3)
    ((200, 100), 0.081, 0.141)
    """

    scale, mode, distribution = 1.0, "fan_avg", "uniform"


@register("initializer", "glorot_normal")
class GlorotNormal(VarianceScaling):
    """Truncated normal, variance 2 / (fan_in + fan_out) (Glorot and Bengio, 2010).

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> values = seqnet.initializers.GlorotNormal()((200, 100), np.random.default_rng(0))
    >>> values.shape, round(float(values.std()), 3), round(float(abs(values).max()), 3)
    ((200, 100), 0.081, 0.186)
    """

    scale, mode, distribution = 1.0, "fan_avg", "normal"


@register("initializer", "he_uniform")
class HeUniform(VarianceScaling):
    """Uniform, variance 2 / fan_in (He et al., 2015).

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> values = seqnet.initializers.HeUniform()((200, 100), np.random.default_rng(0))
    >>> values.shape, round(float(values.std()), 3), round(float(abs(values).max()), 3)
    ((200, 100), 0.1, 0.173)
    """

    scale, mode, distribution = 2.0, "fan_in", "uniform"


@register("initializer", "he_normal")
class HeNormal(VarianceScaling):
    """Truncated normal, variance 2 / fan_in (He et al., 2015).

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> values = seqnet.initializers.HeNormal()((200, 100), np.random.default_rng(0))
    >>> values.shape, round(float(values.std()), 3), round(float(abs(values).max()), 3)
    ((200, 100), 0.1, 0.227)
    """

    scale, mode, distribution = 2.0, "fan_in", "normal"


@register("initializer", "lecun_uniform")
class LecunUniform(VarianceScaling):
    """Uniform, variance 1 / fan_in (LeCun et al., 1998).

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> values = seqnet.initializers.LecunUniform()((200, 100), np.random.default_rng(0))
    >>> values.shape, round(float(values.std()), 3), round(float(abs(values).max()), 3)
    ((200, 100), 0.07, 0.122)
    """

    scale, mode, distribution = 1.0, "fan_in", "uniform"


@register("initializer", "lecun_normal")
class LecunNormal(VarianceScaling):
    """Truncated normal, variance 1 / fan_in (LeCun et al., 1998).

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> values = seqnet.initializers.LecunNormal()((200, 100), np.random.default_rng(0))
    >>> values.shape, round(float(values.std()), 3), round(float(abs(values).max()), 3)
    ((200, 100), 0.07, 0.161)
    """

    scale, mode, distribution = 1.0, "fan_in", "normal"


@register("initializer", "orthogonal")
class Orthogonal(RandomInitializer):
    """A matrix with orthonormal rows or columns times `gain` (Saxe et al., 2013).

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> values = seqnet.initializers.Orthogonal()((3, 3), np.random.default_rng(0))
    >>> (values @ values.T).round(3).tolist() == np.eye(3).tolist()
    True
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None, **unknown: Any):
        super().__init__(seed, **unknown)
        self.gain = check_number(gain, "gain")

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal needs a matrix, got the shape {shape}.")
        rows, columns = int(np.prod(shape[:-1])), shape[-1]
        q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
        q *= np.sign(np.diag(r))  # makes the draw uniform over the orthogonal matrices
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


@register("initializer", "identity")
class Identity(Initializer):
    """The identity matrix times `gain`.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.initializers.Identity()((2, 2)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, gain: float = 1.0, **unknown: Any):
        super().__init__(**unknown)
        self.gain = check_number(gain, "gain")

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        if len(shape) != 2:
            raise ValueError(f"Identity needs a matrix, got the shape {shape}.")
        return self.gain * np.eye(*shape)


def draw(initializer: Callable, shape: Sequence[int], dtype: str) -> np.ndarray:
    """Return the initial value of a weight, from an initializer or any function of a shape.

    Parameters
    ----------
    initializer : Initializer or function
        A function gets the shape, and `dtype` and `rng` if it has arguments of these names.
    shape : tuple of int
    dtype : str

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet import initializers
    >>> initializers.draw(lambda shape: np.full(shape, 0.5), (2,), "float32").dtype.name
    'float32'
    """
    given = {"dtype": dtype, "rng": config.random_generator()}
    try:
        arguments = list(inspect.signature(initializer).parameters.values())
    except (TypeError, ValueError):  # some functions written in C have no signature
        arguments = []
    if not any(a.kind is a.VAR_KEYWORD for a in arguments):
        names = {a.name for a in arguments[1:]}
        given = {name: value for name, value in given.items() if name in names}
    # In C order; otherwise kernels would copy it at every call.
    return np.asarray(initializer(tuple(shape), **given), dtype=dtype, order="C")


def get(identifier: Identifier) -> Callable:
    """Return the initializer of a name, a saved configuration or an object.

    Examples
    --------
    >>> from seqnet import initializers
    >>> initializers.get("zeros")((2,)).tolist()
    [0.0, 0.0]
    """
    return _get("initializer", identifier)

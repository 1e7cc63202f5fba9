"""Hyperparameters of optimizers and layers, which change without compiling, and their version."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor

from seqnet.common.checks import check_number, check_rate

_version = object()


def version() -> object:
    """Return an object that is replaced whenever an attribute of a layer or an optimizer is set.

    What depends on such attributes needs to be computed again only for another version. Ask for
    the version first: a change during the computation then makes another one.
    """
    return _version


class Versioned:
    """The base of layers and optimizers: setting an attribute makes a new `version` of them all."""

    def __setattr__(self, name: str, value: Any) -> None:
        global _version
        super().__setattr__(name, value)
        # An object instead of a number, because two threads could set the same number.
        _version = object()


class Hyperparameter:
    """A number of an optimizer or layer: a float for users, a shared variable in graphs.

    It is at least 0 and below `below`, which is checked whenever it is set. A positive one is not
    0. An optional one may be ``None``, which removes it from the graph. One that `decays` is used
    by `Optimizer.idle`.

    Parameters
    ----------
    below : float
    optional, decays, positive : bool

    Examples
    --------
    >>> from seqnet.optimizers import SGD
    >>> optimizer = SGD(momentum=0.9)  # SGD.momentum is a Hyperparameter
    >>> optimizer.momentum = 0.5
    >>> optimizer.momentum
    0.5
    """

    def __init__(
        self,
        below: float = np.inf,
        optional: bool = False,
        decays: bool = False,
        positive: bool = False,
    ):
        self.below, self.optional, self.decays, self.positive = below, optional, decays, positive

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        if owner is None:
            return self
        variable = numbers_of(owner).get(self.name)
        return None if variable is None else float(variable.get_value(borrow=True))

    def __set__(self, owner: Any, value: float | None) -> None:
        numbers = vars(owner).setdefault("_numbers", {})
        unused = vars(owner).setdefault("_unused", set())
        if value is None and self.optional:
            unused.add(self.name)
            return
        self.check(value)
        unused.discard(self.name)
        if self.name in numbers:
            if self.decays:
                owner.settle()  # idle rows missed updates with the old value
            numbers[self.name].set_value(np.float64(value))
        else:
            numbers[self.name] = pytensor.shared(np.float64(value), name=self.name)

    def check(self, value: Any) -> None:
        """Raise if a value is not allowed."""
        check_number(value, self.name)
        if not 0 <= value < self.below or (self.positive and value == 0):
            lower = "above 0" if self.positive else "at least 0"
            lower += " or None" if self.optional else ""
            upper = "finite" if self.below == np.inf else f"below {self.below}"
            raise ValueError(f"{self.name} must be {lower} and {upper}, got {value!r}.")


class Rate(Hyperparameter):
    """The fraction that a layer drops, in [0, 1).

    Examples
    --------
    >>> import seqnet
    >>> layer = seqnet.layers.Dropout(0.5)
    >>> layer.rate = 0.25            # recompiles only if it becomes 0 or was 0
    >>> layer.rate
    0.25
    """

    def check(self, value: Any) -> None:
        check_rate(value, self.name)


def numbers_of(owner: Any) -> dict[str, Any]:
    """Return the shared variables of an object's hyperparameters that are not None, by name."""
    own = vars(owner)
    return {n: v for n, v in own.get("_numbers", {}).items() if n not in own["_unused"]}


def names_of(owner: Any) -> list[str]:
    """Return the names of an object's hyperparameters."""
    return [n for kind in type(owner).__mro__ for n, v in vars(kind).items() if is_number(v)]


def is_number(value: Any) -> bool:
    """Return whether an attribute of a class is a hyperparameter."""
    return isinstance(value, Hyperparameter)

"""Digests of custom functions and classes, equal in all processes of one Python version.

Two trainings with the same names may use different code for a custom loss, layer or callback. A
digest covers the bytecode and what it uses: constants, default values, variables of enclosing
functions and of the module, and functions and classes of the same package that it calls. Variables
are included only if they are immutable (numbers, text, tuples of these) or arrays, and if the
function does not assign to them. Counters and lists of results are therefore ignored.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

from seqnet.data.dataset import fingerprint
from seqnet.registry import Configurable

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))
NOT_FOLLOWED = {"seqnet", "pytensor", "numpy", "builtins"}
"""Packages whose functions are identified by name; a resumed run compares their versions."""

HAS_DOCUMENTATION = 0x4000000
"""A flag of code objects, since Python 3.13."""

BOOKKEEPING = {
    *("__module__", "__doc__", "__dict__", "__weakref__", "__qualname__", "__annotations__"),
    *("__annotate__", "__firstlineno__", "__static_attributes__", "__parameters__", "__hash__"),
    *("__abstractmethods__", "_abc_impl", "_registered_kind"),
}


def digest_of(thing: Any) -> str:
    """Return a digest of a function, a class or a callable object.

    Examples
    --------
    >>> from seqnet.training.code_digest import digest_of
    >>> double, triple, twice = (lambda x: 2 * x), (lambda x: 3 * x), (lambda x: 2 * x)
    >>> digest_of(double) == digest_of(twice), digest_of(double) == digest_of(triple)
    (True, False)
    """
    facts = Reader(package_of(thing)).facts(thing)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def describe(value: Any) -> Any:
    """Return a value as JSON can hold it; functions and objects as a name and a digest.

    Examples
    --------
    >>> from seqnet.training.code_digest import describe
    >>> describe({"patience": 3, "schedule": len})
    {'patience': 3, 'schedule': {'name': 'builtins.len'}}
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if isinstance(value, np.ndarray):
        return array_facts(value)
    if isinstance(value, Configurable):
        parameters = {name: getattr(value, name, None) for name in value.parameters()}
        return named(type(value)) | {"config": describe(parameters)}
    name = named(value if is_named(value) else type(value))
    return name | {"code": digest_of(value)} if callable(value) and is_own(value) else name


def named(thing: Any) -> dict[str, str]:
    """Return the name of a function or class, and the digest of a custom one."""
    name = {"name": full_name(thing)}
    return name | {"code": digest_of(thing)} if is_own(thing) else name


def own_code(*values: Any) -> dict[str, str]:
    """Return digests of custom classes and functions in layers, losses and so on, by name.

    Examples
    --------
    >>> import seqnet
    >>> from seqnet.training.code_digest import own_code
    >>> own_code([seqnet.layers.Dense(2)], "adam")
    {}
    """
    found: dict[str, set[str]] = {}
    for thing in own_things(values):
        found.setdefault(thing.__name__, set()).add(digest_of(thing))
    return {name: " ".join(sorted(digests)) for name, digests in found.items()}


def own_things(value: Any) -> Iterator[Any]:
    """Yield the custom classes and functions in a value and in the arguments of its objects."""
    if isinstance(value, Configurable):
        yield from own_things(type(value))
        yield from own_things([getattr(value, name, None) for name in value.parameters()])
    elif isinstance(value, Mapping):
        yield from own_things(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from own_things(item)
    elif callable(value):
        thing = value if is_named(value) else type(value)
        if is_own(thing):
            yield thing


def is_named(value: Any) -> bool:
    """Return whether a value is a function, a class or similar, and not another object."""
    return callable(value) and hasattr(value, "__name__") and hasattr(value, "__qualname__")


def full_name(thing: Any) -> str:
    """Return the module and the name of a function or a class."""
    return f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', thing)}"


def package_of(thing: Any) -> str:
    """Return the name of the package that defines a function, a class or an object's class."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return module.partition(".")[0]


def is_own(thing: Any) -> bool:
    """Return whether a function or class is custom: not from one of the packages NOT_FOLLOWED."""
    return package_of(thing) not in NOT_FOLLOWED


def array_facts(array: np.ndarray) -> dict:
    """Return a description that identifies an array."""
    if array.dtype.hasobject:
        return {"shape": list(array.shape), "dtype": array.dtype.name}
    return fingerprint(np.atleast_1d(array))


class Reader:
    """Describe the code of functions and classes of one package, as JSON can hold it."""

    def __init__(self, package: str):
        self.package = package
        self.seen: set[int] = set()

    def facts(self, value: Any) -> Any:
        """Return a description of a value that can be compared between processes."""
        if isinstance(value, PLAIN):
            return repr(value)
        if isinstance(value, (np.ndarray, np.generic)):
            return array_facts(np.asarray(value))
        if isinstance(value, tuple):
            return [self.facts(item) for item in value]
        if isinstance(value, frozenset):
            return sorted(json.dumps(self.facts(item)) for item in value)
        if isinstance(value, CodeType):
            return self.code(value)
        if isinstance(value, functools.partial):
            keywords = sorted(value.keywords.items())
            return ["partial", *map(self.facts, (value.func, value.args, tuple(keywords)))]
        if isinstance(value, MethodType):
            return ["method", self.facts(value.__func__), self.of_object(value.__self__)]
        if isinstance(value, (staticmethod, classmethod)):
            return [type(value).__name__, self.facts(value.__func__)]
        if isinstance(value, property):
            return ["property", *map(self.facts, (value.fget, value.fset))]
        if isinstance(value, functools.cached_property):
            return ["property", self.facts(value.func)]
        if not callable(value) or package_of(value) != self.package:
            return full_name(value if is_named(value) else type(value))
        if id(value) in self.seen:
            return "again"
        self.seen.add(id(value))
        if isinstance(value, FunctionType):
            return self.function(value)
        if isinstance(value, type):
            return self.klass(value)
        return full_name(value) if is_named(value) else self.of_object(value)

    def of_object(self, value: Any) -> list:
        """Return the class of an object and, if all its bases are custom, its constants."""
        kind = value if isinstance(value, type) else type(value)
        packages = {package_of(klass) for klass in kind.__mro__ if klass is not object}
        kept = vars(value) if packages == {self.package} and hasattr(value, "__dict__") else {}
        return [self.facts(kind), [] if kind is value else self.variables(kept)]

    def variables(self, values: Mapping[str, Any], names: Iterable[str] | None = None) -> list:
        """Describe the variables that are constants, functions or classes."""
        kinds = (*PLAIN, tuple, frozenset, np.ndarray, np.generic, functools.partial)
        wanted = sorted(values if names is None else set(names) & set(values))
        return [
            [name, self.facts(values[name])]
            for name in wanted
            if isinstance(values[name], kinds) or callable(values[name])
        ]

    def function(self, function: FunctionType) -> list:
        """Describe the code of a function and what it uses."""
        loaded, stored = names_used(function.__code__)
        cells = {}
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            if name not in stored:
                try:
                    cells[name] = cell.cell_contents
                except ValueError:  # not assigned yet
                    continue
        return [
            self.code(function.__code__),
            self.facts(function.__defaults__),
            self.variables(function.__kwdefaults__ or {}),
            self.variables(cells),
            self.variables(function.__globals__, loaded - stored),
        ]

    def code(self, code: CodeType) -> list:
        """Return the instructions of code, without line numbers and docstrings."""
        return [
            [[i.opname, self.facts(i.argval)] for i in dis.get_instructions(code)],
            [code.co_exceptiontable.hex(), code.co_flags & ~HAS_DOCUMENTATION],
            [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_varnames],
        ]

    def klass(self, klass: type) -> list:
        """Describe the methods, the constants and the base classes of a class."""
        members = {}
        for name, value in vars(klass).items():
            descriptor = isinstance(
                value, (staticmethod, classmethod, property, functools.cached_property)
            )
            if name not in BOOKKEEPING and (descriptor or callable(value)):
                members[name] = self.facts(value)
        constants = {n: v for n, v in vars(klass).items() if n not in {*BOOKKEEPING, *members}}
        bases = [self.facts(base) for base in klass.__bases__]
        return [sorted(members.items()), self.variables(constants), bases]


def names_used(code: CodeType) -> tuple[set[str], set[str]]:
    """Return the global names that code reads, and the outer variables that it assigns."""
    loaded, stored = set(), set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            loaded.add(instruction.argval)
        elif instruction.opname in ("STORE_GLOBAL", "STORE_DEREF", "DELETE_GLOBAL", "DELETE_DEREF"):
            stored.add(instruction.argval)
    for constant in code.co_consts:
        if inspect.iscode(constant):
            inner_loaded, inner_stored = names_used(constant)
            loaded |= inner_loaded
            stored |= inner_stored
    return loaded, stored

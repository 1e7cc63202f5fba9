"""Names of objects, and configurations from which files create objects.

A subclass of `Configurable` needs no code for this: its configuration is the arguments of its
constructor, read from attributes of the same names. Loading uses only the names registered here,
so that a file cannot name code to run.
"""

from __future__ import annotations

import difflib
import inspect
from abc import ABCMeta
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Self, TypeAlias, TypeVar, cast

from seqnet.common.keras_names import INSTEAD, accepted

Identifier: TypeAlias = str | dict[str, Any] | Callable
"""A name, a saved configuration, or an object or class itself."""

Thing = TypeVar("Thing", bound=Any)

_registered: dict[str, dict[str, Any]] = {}
ALSO_TAKEN = {"metric": ("metric", "loss")}  # a loss is a metric, too
# The types that a file may hold for the plain types of a constructor's signature.
NUMBER, TEXT = (bool, int, float, type(None)), (str, type(None))
PLAIN_TYPES = {"bool": NUMBER, "int": NUMBER, "float": NUMBER, "str": TEXT, "None": ()}


def register(kind: str, *names: str) -> Callable:
    """Decorator: register a class or function under `kind`, by its own name and by `names`."""

    def enter(thing: Thing) -> Thing:
        table = _registered.setdefault(kind, {})
        for name in (thing.__name__, *names):
            table[name] = thing
        thing._registered_kind = kind
        return thing

    return enter


def names(kind: str) -> list[str]:
    """Return the known names of a kind, for messages and documentation."""
    return sorted(_registered.get(kind, {}))


def is_name(kind: str, name: str) -> bool:
    """Return whether a name of a kind is known."""
    return name in _registered.get(kind, {})


_scope: ContextVar[dict[str, Any]] = ContextVar("custom_objects", default={})  # noqa: B039


@contextmanager
def custom_object_scope(custom_objects: Mapping[str, Any]) -> Iterator[None]:
    """Within this scope, own classes and functions are found by name, as with ``custom_objects=``.

    Parameters
    ----------
    custom_objects : dict
        Classes and functions by name.

    Examples
    --------
    >>> import seqnet
    >>> def doubled(x):
    ...     return 2 * x
    ...
    >>> with seqnet.utils.custom_object_scope({"doubled": doubled}):
    ...     layer = seqnet.layers.Dense(1, activation="doubled")
    """
    token = _scope.set({**_scope.get(), **custom_objects})
    try:
        yield
    finally:
        _scope.reset(token)


def in_scope(custom_objects: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return own objects by name: those passed, and those of `custom_object_scope`."""
    return {**_scope.get(), **(custom_objects or {})}


def lookup(kind: str, name: str, custom_objects: dict[str, Any] | None = None) -> Any:
    """Return the object registered as `name`, or raise ``ValueError`` with the nearest match."""
    own = in_scope(custom_objects)
    if name in own:
        return own[name]
    table = _registered.get(kind, {})
    if name in table:
        return table[name]
    lowered = {known.lower(): known for known in table}
    if name.lower() in lowered:
        return table[lowered[name.lower()]]
    raise unknown_name(kind, name)


def unknown_name(kind: str, name: str) -> ValueError:
    """Return the error for an unknown name, with the nearest name and all known ones.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.regularizers.get("l3")
    Traceback (most recent call last):
        ...
    ValueError: Unknown regularizer 'l3'. Did you mean 'l2'? Known: L1, L1L2, L2. ...
    """
    kinds = ALSO_TAKEN.get(kind, (kind,))
    tables = {each: _registered.get(each, {}) for each in kinds}
    lowered = {known.lower(): known for table in tables.values() for known in table}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    hint = f" Did you mean {lowered[near[0]]!r}?" if near else ""
    known = "; the losses ".join(", ".join(known_names(table)) for table in tables.values())
    return ValueError(
        f"Unknown {kind} {name!r}.{hint} Known: {known}. One of your own is passed as an object, "
        "or by name in custom_objects= when it comes from a file."
    )


def known_names(table: dict[str, Any]) -> list[str]:
    """Return the names of a table, with other names than those of classes in brackets.

    Examples
    --------
    >>> import seqnet
    >>> from seqnet.registry import known_names
    >>> known_names({"ReLU": seqnet.activations.relu, "relu": seqnet.activations.relu})
    ['relu']
    """
    found: dict[str, list[str]] = {}
    for name, thing in table.items():
        others = found.setdefault(thing.__name__, [])
        if squashed(name) not in map(squashed, [thing.__name__, *others]):
            others.append(name)
    return [
        name + (f" ({', '.join(found[name])})" if found[name] else "") for name in sorted(found)
    ]


def squashed(name: str) -> str:
    """Return a name without the differences between ``GlorotUniform`` and ``glorot_uniform``."""
    return name.lower().replace("_", "")


def get(kind: str, identifier: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """Return an object of `kind` from a name, a saved configuration, a class or an object.

    The name of a class returns an instance with default arguments, that of a function the function.
    """
    if isinstance(identifier, dict):
        if set(identifier) - {"config"} != {"name"} or not isinstance(identifier["name"], str):
            raise ValueError(
                f"{a(kind)} is written down as a name and perhaps a config, not as "
                f"{str(identifier)[:100]}."
            )
        thing = lookup(kind, identifier["name"], custom_objects)
        config = identifier.get("config", {})
        if not isinstance(config, dict):
            raise ValueError(f"The configuration of {kind} {identifier['name']!r} is no mapping.")
        return from_configuration(thing, config, custom_objects)
    if isinstance(identifier, str):
        thing = lookup(kind, identifier, custom_objects)
        return thing() if inspect.isclass(thing) else thing
    if inspect.isclass(identifier):
        return identifier()
    if callable(identifier) or isinstance(identifier, Configurable):
        return identifier
    raise TypeError(
        f"{a(kind)} is given by name, as a callable or as an object; got {identifier!r} "
        f"of type {type(identifier).__name__}."
    )


def from_configuration(thing: Any, config: dict[str, Any], custom_objects: Any) -> Any:
    """Return an object of a class from its configuration; a function as it is."""
    if not inspect.isclass(thing):
        return thing
    cls: Any = thing
    return cls.from_config(config, custom_objects)


def a(kind: str) -> str:
    """Return a kind with the article that begins a sentence: "An optimizer", "A layer"."""
    return f"{'An' if kind[0] in 'aeiou' else 'A'} {kind}"


def refuse_arguments(
    owner: type[Configurable],
    unknown: Iterable[str],
    error: type[Exception] = TypeError,
) -> None:
    """Raise if a class got arguments that it does not take."""
    known = owner.parameters()
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        likely = f" Did you mean {near[0]!r}?" if near else ""
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        if name in INSTEAD:
            raise error(
                f"{owner.__name__} takes no argument {name!r}, which Keras has. {INSTEAD[name]}."
            )
        raise error(f"{owner.__name__} takes no argument {name!r}; {takes}.{likely}")


def serialize(value: Any) -> Any:
    """Return a constructor argument as types that JSON supports."""
    if isinstance(value, Configurable):
        return {"name": name_in_files(type(value)), "config": value.get_config()}
    if isinstance(value, (list, tuple)):
        return [serialize(item) for item in value]
    if isinstance(value, dict):
        return {str(key): serialize(item) for key, item in value.items()}
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a NumPy scalar
        return value.item()
    if callable(value):
        return {"name": name_in_files(value)}
    return value


def name_in_files(thing: Any) -> str:
    """Return the name of a function or class in files, if it is not the name of another."""
    name = getattr(thing, "__name__", "<none>")
    if not name.isidentifier():
        raise ValueError(
            f"{thing!r} cannot be written to a file, because it has no name to be found by. Write "
            "it with def, and pass it in custom_objects= when you load the file."
        )
    if any(table.get(name) is thing for table in _registered.values()):
        return name
    for kind, table in _registered.items():
        for known, other in table.items():
            ours = getattr(other, "__module__", "").startswith("seqnet.")
            if known.lower() == name.lower() and ours:
                raise ValueError(
                    f"{thing!r} cannot be written to a file: {name!r} would be read as seqnet's "
                    f"own {kind} of this name. Give yours another name."
                )
    return name


def check_type(value: Any, annotation: Any, what: str) -> None:
    """Raise ``TypeError`` if a value does not have one of the plain types of a signature."""
    names = str(annotation).split(" | ")
    if not all(name in PLAIN_TYPES for name in names):
        return
    if not isinstance(value, tuple(t for name in names for t in PLAIN_TYPES[name])):
        raise TypeError(f"{what} is {annotation}, not {str(value)[:100]!r}.")


def constructor_arguments(cls: type) -> dict[str, Any]:
    """Return the annotations of a constructor's arguments by name.

    ``**kwargs`` stand for the arguments of the base class.
    """
    found: dict[str, Any] = {}
    for klass in cls.__mro__:
        if "__init__" not in vars(klass) or klass is object:
            continue
        arguments = list(inspect.signature(vars(klass)["__init__"]).parameters.values())[1:]
        for a in arguments:
            if a.kind not in (a.VAR_KEYWORD, a.VAR_POSITIONAL):
                found.setdefault(a.name, a.annotation)
        if not any(a.kind is a.VAR_KEYWORD for a in arguments):
            break
    return found


class ConfigurableType(ABCMeta):
    """The type of `Configurable` classes: constructors take the names of Keras, too."""

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        accept = cast("type[Configurable]", cls).accepted_arguments
        return super().__call__(*arguments, **(accept(options) if options else {}))

    @property
    def __signature__(cls) -> inspect.Signature:
        """The arguments of the constructor, for `help`, editors and the documentation."""
        found = inspect.signature(cls.__init__)  # type: ignore[misc]
        return found.replace(parameters=list(found.parameters.values())[1:])


class Configurable(metaclass=ConfigurableType):
    """An object whose configuration is the arguments of its constructor."""

    def __repr__(self) -> str:
        values = {name: getattr(self, name, None) for name in self.parameters()}
        given = [f"{name}={value!r}" for name, value in values.items() if value is not None]
        return f"{type(self).__name__}({', '.join(given)})"

    @classmethod
    def parameters(cls) -> list[str]:
        """Return the constructor's argument names; ``**kwargs`` stand for the base class's."""
        return list(cls.signature())

    @classmethod
    def accepted_arguments(cls, options: dict[str, Any]) -> dict[str, Any]:
        """Return arguments of the constructor by the names of today; see `keras_names`."""
        return accepted(options, cls.signature())

    @classmethod
    def signature(cls) -> dict[str, Any]:
        """Return the annotations of the constructor's arguments, and the base class's, by name."""
        return constructor_arguments(cls)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments to create the object again, as types that JSON supports."""
        return {name: serialize(value) for name, value in self.current_arguments().items()}

    def current_arguments(self) -> dict[str, Any]:
        """Return the arguments to create the object again, as objects."""
        return {name: getattr(self, name) for name in self.parameters()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Self:
        """Create an object from the result of `get_config`."""
        known, config = cls.parameters(), cls.accepted_arguments(config)
        annotations = cls.signature() if cls.__module__.startswith("seqnet.") else {}
        refuse_arguments(cls, [name for name in config if name not in known], ValueError)
        for name, value in config.items():
            check_type(value, annotations.get(name, ""), f"The {name} of {cls.__name__}")
        return cls(**{name: cls._revive(v, custom_objects) for name, v in config.items()})

    @classmethod
    def _revive(cls, value: Any, custom_objects: dict | None) -> Any:
        """Hook for classes whose arguments hold other objects (a wrapped layer)."""
        own = in_scope(custom_objects)
        if isinstance(value, dict) and value.get("name") in own:
            thing = own[value["name"]]
            config = value.get("config", {})
            return from_configuration(thing, config, custom_objects)
        return value

"""The public API equals the snapshot tests/public_api.txt; run this file to rewrite it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import seqnet

SNAPSHOT = Path(__file__).with_name("public_api.txt")
COMMAND = "python tests/test_public_api.py"


def public_modules(module: ModuleType = seqnet) -> Iterator[ModuleType]:
    """Yield seqnet and, recursively, the modules listed in ``__all__``."""
    yield module
    for name in public_names(module):
        if isinstance(value := getattr(module, name), ModuleType):
            yield from public_modules(value)


def public_names(module: ModuleType) -> list[str]:
    """Return ``__all__``, or else the names defined in the module without a leading underscore."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    )


def signature(value: object) -> str:
    """Return a signature with defaults and without annotations, which mypy checks."""
    found = inspect.signature(value)
    parameters = [p.replace(annotation=p.empty) for p in found.parameters.values()]
    text = str(found.replace(parameters=parameters, return_annotation=found.empty))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def members(cls: type) -> dict[str, str]:
    """Return the public methods and properties of a class that seqnet defines, as text by name."""
    found = {}
    for name, value in inspect.getmembers_static(cls):
        owner = next((c for c in cls.__mro__ if name in vars(c)), object)
        if name.startswith("_") or not owner.__module__.startswith("seqnet"):
            continue
        if isinstance(value, staticmethod | classmethod):
            value = getattr(cls, name)
        is_method = callable(value) and not isinstance(value, type)
        found[name] = name + (signature(value) if is_method else "")
    return found


def public_api() -> str:
    """Return a line for each public name and for each member that a public class adds."""
    lines = []
    public = {getattr(m, name) for m in public_modules() for name in public_names(m)}
    for module in public_modules():
        for name in public_names(module):
            value = getattr(module, name)
            if isinstance(value, ModuleType):
                lines.append(f"{value.__name__}")
                continue
            full = f"{module.__name__}.{name}"
            lines.append(full + (signature(value) if callable(value) else ""))
            if isinstance(value, type):
                inherited = {}
                for base in reversed([c for c in value.__mro__[1:] if c in public]):
                    inherited |= members(base)
                added = members(value).items() - inherited.items()
                lines += [f"{full}.{member}" for _, member in sorted(added)]
    return "\n".join(lines) + "\n"


def test_the_public_api_equals_the_snapshot():
    message = f"The public API changed. If that was intended, run: {COMMAND}"
    assert public_api().splitlines() == SNAPSHOT.read_text().splitlines(), message


def test_every_public_name_has_an_example():
    """In its docstring, or in that of the class whose values a function returns."""
    without = []
    for module in public_modules():
        for name in public_names(module):
            value = getattr(module, name)
            if not callable(value) or not (value.__module__ or "").startswith("seqnet"):
                continue
            text = vars(value).get("__doc__") or ""
            if not isinstance(value, type):
                text = value.__doc__ or ""
                if found := re.match(r"Return the values of `(\w+)`", text):
                    text = getattr(module, found[1]).__doc__
            if ">>>" not in text:
                without.append(f"{module.__name__}.{name}")
    assert not without, f"Add an example to the docstring of {', '.join(without)}."


if __name__ == "__main__":
    SNAPSHOT.write_text(public_api())

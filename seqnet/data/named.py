"""Data of several inputs or outputs, by name."""

from __future__ import annotations

import difflib
from collections.abc import Container, Mapping, Sequence
from typing import Any

from seqnet.data.validation import described, size_of

Named = dict[str, Any]
"""One value for each name of an input or an output."""


def with_names(tree: Any, names: Sequence[str]) -> Named:
    """Return a part of a batch by name; a model with one name has no dictionaries in batches.

    A list is in the order of the names.
    """
    if tree is None:
        return {}
    if len(names) > 1:
        return tree if isinstance(tree, dict) else dict(zip(names, tree, strict=True))
    return {names[0]: tree}


def without_names(values: Named, names: Sequence[str]) -> Any:
    """Return values by name as a part of a batch; the opposite of `with_names`."""
    if not values:
        return None
    return values if len(names) > 1 else values[names[0]]


def label(part: str, name: str, names: Sequence[str]) -> str:
    """Return what a part of the data is called in messages.

    Examples
    --------
    >>> from seqnet.data.named import label
    >>> label("X", "words", ["words", "tags"]), label("X", "words", ["words"])
    ("X['words']", 'X')
    """
    return part if len(names) == 1 else f"{part}[{name!r}]"


def by_name(
    values: Any, names: Sequence[str], part: str, kind: str, *, optional: Container[str] = ()
) -> Named:
    """Return what a user passed for several inputs or outputs by name, in the order of the names.

    Parameters
    ----------
    values
        A dictionary by name, or a list or tuple in the order of the names. For one name, everything
        except a dictionary is the value itself.
    names : list of str
        The names of the model's inputs or outputs.
    part : str
        What `values` is called in messages, such as ``"X"``.
    kind : str
        ``"input"`` or ``"output"``.
    optional : container of str
        The names whose values may be missing.

    Raises
    ------
    ValueError, TypeError
        If a name is unknown or missing, or a list has another length.

    Examples
    --------
    >>> from seqnet.data.named import by_name
    >>> by_name({"tags": 2, "words": 1}, ["words", "tags"], "X", "input")
    {'words': 1, 'tags': 2}
    >>> by_name([1, 2], ["words", "tags"], "X", "input")
    {'words': 1, 'tags': 2}
    >>> by_name({"words": 1, "tag": 2}, ["words", "tags"], "X", "input")
    Traceback (most recent call last):
        ...
    ValueError: X has the key 'tag', which is not an input of the model. Did you mean 'tags'? \
The model has the inputs 'words', 'tags'.
    """
    if values is None:
        return {}
    if isinstance(values, Mapping):
        return from_mapping(values, names, part, kind, optional)
    if len(names) == 1:
        return {names[0]: values}
    has = f"the model has {len(names)} {kind}s: {listed(names)}"
    if not isinstance(values, (list, tuple)):
        raise TypeError(
            f"{part} is {described(values)}, but {has}. Pass a dictionary with these names, or a "
            "list in this order."
        )
    if len(values) != len(names):
        raise ValueError(f"{part} is a {type(values).__name__} of {len(values)}, but {has}.")
    for name, value in zip(names, values, strict=True):
        if value is None and name not in optional:
            raise ValueError(f"{part} has None for the {kind} {name!r}.")
    return {name: v for name, v in zip(names, values, strict=True) if v is not None}


def from_mapping(
    values: Mapping, names: Sequence[str], part: str, kind: str, optional: Container[str]
) -> Named:
    """Return the values of a dictionary in the order of the names, after checking its keys."""
    known = f"The model has the {kind}{'s' if len(names) > 1 else ''} {listed(names)}."
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{part} has the key {key!r}, which is not an {kind} of the model.{hint} {known}"
            )
    found = {name: values[name] for name in names if name in values and values[name] is not None}
    missing = [name for name in names if name not in found and name not in optional]
    if missing:
        raise ValueError(f"{part} lacks the {kind} {listed(missing)}. {known}")
    return found


def weights_by_name(values: Any, names: Sequence[str], part: str) -> Named:
    """Return sample weights by output name; one array or list holds for all outputs."""
    several = (
        isinstance(values, (list, tuple))
        and len(values) == len(names)
        and all(v is None or size_of(v) is not None for v in values)
    )
    if values is None or len(names) == 1 or several or isinstance(values, Mapping):
        return by_name(values, names, part, "output", optional=names)
    return dict.fromkeys(names, values)


def listed(names: Sequence[str]) -> str:
    """Return names for messages."""
    return ", ".join(map(repr, names))

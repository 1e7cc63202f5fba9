"""The inputs and outputs of a model: their names, and the structure in which users pass them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytensor.graph.basic import Variable

from seqnet.layers.layer import Layer
from seqnet.layers.symbolic import InputVariable, LayerCall, depends_on_input


@dataclass(frozen=True)
class Structure:
    """Names of inputs or outputs, and whether users pass one, a list or a dictionary.

    Attributes
    ----------
    names : tuple of str
    kind : "one", "list" or "dict"

    Examples
    --------
    >>> from seqnet.graph.signature import Structure
    >>> structure = Structure(("words", "tags"), "dict")
    >>> structure.leaves({"tags": 2, "words": 1}), structure.pack([1, 2])
    ([1, 2], {'words': 1, 'tags': 2})
    """

    names: tuple[str, ...]
    kind: str = "one"

    def leaves(self, tree: Any, what: str = "The inputs") -> list:
        """Return the user's values as a list in the order of the names; None for missing values.

        Raises
        ------
        ValueError
            If the number or the names do not fit.
        """
        names = self.names
        if tree is None:
            return [None] * len(names)
        if isinstance(tree, Mapping):
            return self.from_mapping(tree, what)
        if len(names) == 1:
            return [tree]
        if isinstance(tree, (list, tuple)) and len(tree) == len(names):
            return list(tree)
        got = f"{len(tree)}" if isinstance(tree, (list, tuple)) else f"one {type(tree).__name__}"
        raise ValueError(
            f"{what} are {len(names)}, {', '.join(names)}: pass a list in this order or a "
            f"dictionary by name, got {got}."
        )

    def from_mapping(self, tree: Mapping[str, Any], what: str) -> list:
        """Return the items of a dictionary in the order of the names."""
        for key in tree:
            if key not in self.names:
                near = difflib.get_close_matches(str(key), self.names, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{what} are {', '.join(self.names)}; got {key!r}.{hint}")
        missing = [name for name in self.names if name not in tree]
        if missing:
            raise ValueError(
                f"{what} are {', '.join(self.names)}; {', '.join(missing)} is missing."
            )
        return [tree[name] for name in self.names]

    def pack(self, leaves: Sequence) -> Any:
        """Return a list in the order of the names in the structure that users pass."""
        if self.kind == "dict":
            return dict(zip(self.names, leaves, strict=True))
        return leaves[0] if self.kind == "one" else list(leaves)

    def as_declared(self, part: Any) -> Any:
        """Return what batches hold, one value or a dictionary, in the structure for users."""
        return self.pack(self.from_batch(part))

    def from_batch(self, part: Any) -> list:
        """Return a part of a batch as a list: one array, or some of a dictionary by name."""
        if isinstance(part, dict):
            return [part.get(name) for name in self.names]
        return [part, *[None] * (len(self.names) - 1)]

    def to_batch(self, leaves: Sequence) -> Any:
        """Return a list as a part of a batch: one value, or a dictionary by name of several."""
        return leaves[0] if len(self.names) == 1 else dict(zip(self.names, leaves, strict=True))


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model.

    Attributes
    ----------
    inputs, outputs : Structure
    input_variables, output_variables : tuple of variables
        The variables that the model was made from; none for a stack of layers.
    stack_dtype : str, optional
        The dtype of the `Input` that a stack of layers begins with, if one was asked for.
    """

    inputs: Structure = field(default_factory=lambda: Structure(("input_layer",)))
    outputs: Structure = field(default_factory=lambda: Structure(("output",)))
    input_variables: tuple[InputVariable, ...] = ()
    output_variables: tuple[Variable, ...] = ()
    stack_dtype: str | None = None

    @property
    def is_functional(self) -> bool:
        """Whether the model was made from inputs and outputs."""
        return bool(self.input_variables)

    @property
    def input_dtypes(self) -> list[str | None]:
        """The dtypes that were asked for, by input; None where the layers decide."""
        return [v.chosen_dtype for v in self.input_variables] or [self.stack_dtype]

    @classmethod
    def of_stack(cls, first: InputVariable) -> Signature:
        """Return the signature of a stack of layers that begins with an `Input`."""
        return cls(Structure((first.name or "input_layer",)), stack_dtype=first.chosen_dtype)

    @classmethod
    def between(cls, inputs: Any, outputs: Any) -> Signature:
        """Return the signature of a model between symbolic inputs and outputs, after checks."""
        ins, outs = flat(inputs, "inputs"), flat(outputs, "outputs")
        layers = [item for _, item in [*ins, *outs] if isinstance(item, Layer)]
        if any(isinstance(item, Layer) for _, item in ins):
            names_of_layers = ", ".join(map(repr, layers))
            raise TypeError(
                f"A model takes its layers in one list, seqnet.Model([{names_of_layers}])."
            )
        for name, variable in ins:
            if not isinstance(variable, InputVariable):
                hint = ""
                if depends_on_input(variable):
                    hint = " It depends on one: a model begins at an Input."
                raise TypeError(
                    f"The inputs of a model are made with seqnet.Input; got {variable!r}"
                    f"{f' for {name!r}' if name else ''}.{hint}"
                )
        variables = tuple([variable for _, variable in ins])
        if len(set(variables)) < len(variables):
            raise ValueError("An Input is given twice among the inputs of the model.")
        for name, variable in outs:
            label = f"The output {name!r}" if name else "An output of the model"
            if not isinstance(variable, Variable):
                hint = " Call it on an input or on the output of a layer." * callable(variable)
                raise TypeError(f"{label} is not a symbolic variable: {variable!r}.{hint}")
            if not depends_on_input(variable):
                raise ValueError(
                    f"{label} does not depend on a seqnet.Input: call the layers on one."
                )
        names = [name or variable.name for name, variable in ins]
        return cls(
            Structure(unique(names, "input_layer", "inputs"), kind_of(inputs)),
            Structure(tuple([name or "" for name, _ in outs]), kind_of(outputs)),
            variables,
            tuple([variable for _, variable in outs]),
        )

    def with_names(self) -> Signature:
        """Return the signature with names for all outputs: those of the layers they come from."""
        names: list[str] = []
        for given, variable in zip(self.outputs.names, self.output_variables, strict=True):
            node = variable.owner
            of_layer = node is not None and isinstance(node.op, LayerCall)
            name = given or (node.op.layer.display_name if of_layer else variable.name or "output")
            base, number = name, 0
            while name in names:
                number += 1
                name = f"{base}_{number}"
            names.append(name)
        outputs = Structure(tuple(names), self.outputs.kind)
        return Signature(self.inputs, outputs, self.input_variables, self.output_variables)


def flat(tree: Any, what: str) -> list[tuple[str, Any]]:
    """Return inputs or outputs, each with the name that a dictionary gives it."""
    if isinstance(tree, Mapping):
        found = [(str(name), item) for name, item in tree.items()]
    elif isinstance(tree, (list, tuple)):
        found = [("", item) for item in tree]
    else:
        found = [("", tree)]
    if not found:
        raise ValueError(f"A model needs at least one of its {what}.")
    return found


def kind_of(tree: Any) -> str:
    """Return the kind of a structure; see `Structure`."""
    if isinstance(tree, Mapping):
        return "dict"
    return "list" if isinstance(tree, (list, tuple)) and len(tree) > 1 else "one"


def unique(names: Iterable[str | None], base: str, what: str) -> tuple[str, ...]:
    """Return names, with new ones for None; raise if two are the same."""
    found: list[str] = []
    given = list(names)
    number = 0
    for name in given:
        if name is None:
            name = base if not number else f"{base}_{number}"
            while name in given:
                number += 1
                name = f"{base}_{number}"
            number += 1
        if name in found:
            raise ValueError(f"Two of the {what} of the model are named {name!r}.")
        found.append(name)
    return tuple(found)

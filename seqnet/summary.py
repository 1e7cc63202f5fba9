"""What `Model.summary`, a model's representations and `seqnet.utils.plot_model` show.

Everything is made from the calls of a model (`Call`): which layer is called, on what, and which
shape its output has.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from seqnet import backend
from seqnet.common.checks import check_count
from seqnet.common.types import Shape
from seqnet.graph.graph import Graph
from seqnet.layers.layer import Layer
from seqnet.layers.symbolic import LayerCall

if TYPE_CHECKING:
    from seqnet.model import Model

NARROWEST = 8  # characters of a column that is broken to fit


class Call(NamedTuple):
    """One use of a layer in a model, or an input of the model.

    Attributes
    ----------
    name : str
        Unique in the model.
    layer : Layer or None
        None for an input, and for an operation of PyTensor.
    inputs : tuple of str
        The names of the calls and inputs that the layer is called on.
    output_shape : tuple or None
        None if it is not known yet.
    kind : str
        The class of the layer, ``"Input"`` or ``"Operation"``.
    """

    name: str
    layer: Layer | None
    inputs: tuple[str, ...]
    output_shape: Shape | None
    kind: str = "Input"


def calls_of(
    graph: Graph, input_names: Sequence[str], input_shapes: Sequence[Shape | None]
) -> Iterator[Call]:
    """Yield the inputs of a graph, and its calls of layers and operations, in order.

    Examples
    --------
    >>> from seqnet.graph.graph import Graph
    >>> from seqnet.layers import Dense
    >>> from seqnet.summary import calls_of
    >>> graph = Graph.of_stack([Dense(2, name="a"), Dense(1, name="b")])
    >>> for call in calls_of(graph, ["x"], [(None, 3)]):
    ...     print(call.name, call.inputs, call.output_shape)
    x () (None, 3)
    a ('x',) (None, 2)
    b ('a',) (None, 1)
    """
    known = not any(shape is None for shape in input_shapes)
    shapes = graph.shapes([shape or () for shape in input_shapes]) if known else {}
    taken = {layer.display_name for layer in graph.layers}
    names: dict[int, str] = {}

    def unique(name: str) -> str:
        base, number = name, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        return name

    for k, name, shape in zip(graph.inputs, input_names, input_shapes, strict=True):
        names[k] = unique(name)
        yield Call(names[k], None, (), shape)
    called: set[str] = set()
    for node in graph.nodes:
        layer = node.op.layer if isinstance(node.op, LayerCall) else None
        if layer is None or layer.display_name in called:  # an operation, or a layer used again
            name = unique(str(node.op) if layer is None else layer.display_name)
        else:
            name = layer.display_name
        called.add(name)
        names.update((k, name) for k in node.outputs)
        inputs = tuple([names[k] for k in node.inputs if k in names])
        kind = "Operation" if layer is None else type(layer).__name__
        yield Call(name, layer, inputs, shapes.get(node.outputs[0]), kind)


def is_stack(calls: Sequence[Call]) -> bool:
    """Return whether there is one input, and each call takes what the previous one returns."""
    return all(tuple(call.inputs) == (before.name,) for before, call in pairwise(calls))


def weights_of(layer: Layer) -> str:
    """Return the number of parameters of a layer as text."""
    return f"{layer.count_params():,}" if layer.built else "not built"


def how_it_runs(layer: Layer) -> str:
    """Return how a recurrent layer runs, and the dtype policy of a layer with weights if mixed."""
    parts = [layer.runs_as(backend.execution_mode)]
    if layer.compute_dtype != layer.dtype and layer.weights:
        computed = "" if backend.rounds_to_bfloat16() else " (in float32)"
        parts.append(f"{layer.dtype_policy}{computed}")
    return ", ".join(filter(None, parts))


def table(calls: Sequence[Call]) -> list[tuple[str, ...]]:
    """Return the rows of a summary; the first one has the titles.

    The inputs, and what each layer is called on, are listed unless the model is a stack.
    """
    stack = is_stack(calls)
    rows: list[tuple[str, ...]] = [("Layer", "Output shape", "Weights", "Runs as", "Connected to")]
    for call in calls:
        layer, shape = call.layer, "?" if call.output_shape is None else str(call.output_shape)
        if stack and call.kind == "Input":
            continue
        weights = runs_as = ""
        if layer is not None:
            weights = weights_of(layer)
            runs_as = how_it_runs(layer) if layer.built else ""
        name = f"{call.name} ({call.kind})"
        rows.append((name, shape, weights, runs_as, ", ".join(call.inputs)))
    return [row[:-1] for row in rows] if stack else rows


def lines_of(rows: Sequence[Sequence[str]], line_length: int) -> list[str]:
    r"""Return a table as lines; long cells continue on further lines.

    Examples
    --------
    >>> from seqnet.summary import lines_of
    >>> print("\n".join(lines_of([("Layer", "Runs as"), ("lstm", "one fused kernel")], 18)))
    Layer  Runs as
    ------------------
    lstm   one fused
           kernel
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    gaps = 2 * (len(widths) - 1)
    while sum(widths) + gaps > line_length and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in rows:
        cells = [textwrap.wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
        for k in range(max(1, *map(len, cells))):
            parts = [cell[k] if k < len(cell) else "" for cell in cells]
            padded = [part.ljust(width) for part, width in zip(parts, widths, strict=True)]
            lines.append("  ".join(padded).rstrip())
        if row is rows[0]:
            lines.append("-" * (sum(widths) + gaps))
    return lines


def totals(model: Model) -> str:
    """Return how many weights a model has, and how many are trained."""
    sizes = [int(w.get_value(borrow=True).size) for w in model.weights]
    trained = sum(size for size, on in zip(sizes, model.trained, strict=True) if on)
    return f"Weights: {sum(sizes):,}, of which {trained:,} are trained."


def text_of(model: Model, line_length: int | None = None) -> str:
    """Return the table of a model as text.

    Parameters
    ----------
    model : Model
    line_length : int, optional
        By default the width of the terminal, or 80.
    """
    width = shutil.get_terminal_size().columns
    if line_length is not None:
        width = check_count(line_length, "line_length")
    return "\n".join(lines_of(table(list(model.calls())), width))


def html_of(model: Model) -> str:
    """Return the table of a model for notebooks."""
    return html_table(describe(model), table(list(model.calls())), totals(model))


def html_table(title: str, rows: Sequence[Sequence[str]], footer: str = "") -> str:
    """Return a table with a title and a footer; the first row has the titles of the columns."""

    def cells(row: Sequence[str], tag: str) -> str:
        style = ' style="text-align: left"'
        return "".join(f"<{tag}{style}>{escape(cell)}</{tag}>" for cell in row)

    head, *body = rows
    lines = [
        f"<p>{escape(title)}</p>",
        f"<table><thead><tr>{cells(head, 'th')}</tr></thead><tbody>",
    ]
    lines += [f"<tr>{cells(row, 'td')}</tr>" for row in body]
    return "\n".join([*lines, "</tbody></table>", f"<p>{escape(footer)}</p>" if footer else ""])


def describe(model: Model) -> str:
    """Return a line about a model: its name, layers, parameters, and shapes."""
    calls = list(model.calls())
    count = len({id(call.layer) for call in calls if call.layer is not None})
    parts = [f"{count} layer" + "s" * (count != 1)]
    if model.built:
        parts.append(f"{model.count_params():,} parameters")
    elif count:
        parts.append("not built")
    used = {name for call in calls for name in call.inputs}
    inputs = [call.output_shape for call in calls if call.kind == "Input"]
    outputs = [call.output_shape for call in calls if call.name not in used]
    if count and None not in [*inputs, *outputs]:
        parts.append(f"{shapes_text(inputs)} -> {shapes_text(outputs)}")
    return f"{type(model).__name__} {model.name!r}: {', '.join(parts)}"


def shapes_text(shapes: Sequence) -> str:
    """Return one shape, or several in brackets."""
    return str(shapes[0]) if len(shapes) == 1 else str(list(shapes))

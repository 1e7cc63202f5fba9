"""Pictures of models, classes as rows of zeros and a one, and own objects by name."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqnet import config
from seqnet.common.checks import check_bool, check_count
from seqnet.common.types import ArrayLike
from seqnet.registry import custom_object_scope
from seqnet.summary import Call

if TYPE_CHECKING:
    from seqnet.model import Model

__all__ = ["custom_object_scope", "model_to_dot", "plot_model", "to_categorical"]

DIRECTIONS = ("TB", "LR", "BT", "RL")


def __dir__() -> list[str]:
    return sorted(__all__)


def to_categorical(x: ArrayLike, num_classes: int | None = None) -> np.ndarray:
    """Return class numbers as rows of zeros with a one at the class.

    Parameters
    ----------
    x : int array, any shape
    num_classes : int, optional
        By default the largest class number plus one.

    Returns
    -------
    array, shape of x and an axis of num_classes, float32 or `seqnet.config.floatx`

    Raises
    ------
    ValueError
        If a number is negative, no whole number, or not below `num_classes`.

    Examples
    --------
    >>> import seqnet
    >>> seqnet.utils.to_categorical([0, 2]).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    numbers = np.asarray(x)
    classes = numbers.astype(np.int64)
    if classes.ndim > 1 and classes.shape[-1] == 1:
        numbers, classes = numbers[..., 0], classes[..., 0]
    size = int(classes.max(initial=-1)) + 1 if num_classes is None else num_classes
    size = check_count(size, "num_classes")
    if (classes != numbers).any() or (classes < 0).any() or (classes >= size).any():
        raise ValueError(f"x holds class numbers from 0 to {size - 1}, got {str(x)[:100]}.")
    return np.eye(size, dtype=config.floatx())[classes]


def model_to_dot(
    model: Model,
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    dpi: int = 200,
    show_layer_activations: bool = False,
) -> Any:
    """Return the graph of a model as a ``pydot.Dot``; the arguments are those of `plot_model`.

    Examples
    --------
    >>> import seqnet
    >>> model = seqnet.Model([seqnet.layers.Dense(2, input_shape=(3,))])
    >>> dot = seqnet.utils.model_to_dot(model, show_shapes=True)  # doctest: +SKIP
    """
    pydot = load_pydot()
    if rankdir not in DIRECTIONS:
        raise ValueError(f"rankdir is one of {', '.join(DIRECTIONS)}, got {rankdir!r}.")
    flags = {
        "show_shapes": show_shapes,
        "show_dtype": show_dtype,
        "show_layer_names": show_layer_names,
        "show_layer_activations": show_layer_activations,
    }
    for name, value in flags.items():
        check_bool(value, name)
    dot = pydot.Dot(graph_type="digraph", rankdir=rankdir, dpi=dpi)
    dot.set_node_defaults(shape="box", fontname="Helvetica", style="rounded")
    calls = list(model.calls())
    shapes = {call.name: call.output_shape for call in calls}
    for call in calls:
        label = "\n".join(label_lines(call, shapes, **flags))
        dot.add_node(pydot.Node(quoted(call.name), label=quoted(label)))
        for name in call.inputs:
            dot.add_edge(pydot.Edge(quoted(name), quoted(call.name)))
    return dot


def plot_model(
    model: Model,
    to_file: str | os.PathLike = "model.png",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    dpi: int = 200,
    show_layer_activations: bool = False,
) -> Any:
    """Draw the graph of a model into a file.

    Requires pydot (``pip install "seqnet[plot]"``) and the program ``dot`` of Graphviz
    (https://graphviz.org/download), which draws; a file that ends in ``.dot`` needs only pydot.

    Parameters
    ----------
    model : Model
    to_file : path
        The ending decides the format: ``.png``, ``.svg``, ``.pdf``, ``.dot`` or another one of
        Graphviz.
    show_shapes : bool
        Show the shape of each output, None for sizes that vary.
    show_dtype : bool
        Show the float type of each layer.
    show_layer_names : bool
        Show the names of layers next to their classes.
    rankdir : "TB", "LR", "BT" or "RL"
        The direction of the graph: from top to bottom, from left to right, and so on.
    dpi : int
        Dots per inch.
    show_layer_activations : bool
        Show the activations of layers that have one.

    Returns
    -------
    IPython.display.Image or SVG, or None
        The picture, in a notebook.

    Raises
    ------
    ImportError
        If pydot is not installed.
    RuntimeError
        If Graphviz is not installed.

    Examples
    --------
    >>> import seqnet
    >>> from seqnet.layers import LSTM, Dense
    >>> model = seqnet.Model([LSTM(8, input_shape=(None, 3)), Dense(2)])
    >>> seqnet.utils.plot_model(model, "model.svg", show_shapes=True)  # doctest: +SKIP
    """
    dot = model_to_dot(
        model, show_shapes, show_dtype, show_layer_names, rankdir, dpi, show_layer_activations
    )
    path = Path(os.fspath(to_file))
    kind = path.suffix.removeprefix(".") or "png"
    if kind == "dot":
        path.write_text(dot.to_string(), encoding="utf-8")
        return None
    try:
        picture = dot.create(format=kind)
    except FileNotFoundError:
        raise RuntimeError(
            "plot_model draws with Graphviz, whose program dot was not found: install it from "
            "https://graphviz.org/download, or write a file that ends in .dot."
        ) from None
    path.write_bytes(picture)
    return shown(path, kind)


def load_pydot() -> Any:
    """Return the module pydot, or raise ``ImportError`` with advice."""
    try:
        return importlib.import_module("pydot")
    except ImportError:
        raise ImportError(
            "The graph of a model is written with pydot, which is not installed: "
            'pip install "seqnet[plot]", or pip install pydot.'
        ) from None


def label_lines(
    call: Call,
    shapes: dict,
    show_shapes: bool,
    show_dtype: bool,
    show_layer_names: bool,
    show_layer_activations: bool,
) -> list[str]:
    """Return the lines in the box of a call."""
    layer, kind = call.layer, call.kind
    lines = [f"{call.name} ({kind})" if show_layer_names else kind]
    activation = getattr(layer, "activation", None) if show_layer_activations else None
    if activation is not None:
        lines.append(f"activation: {getattr(activation, '__name__', activation)}")
    if show_shapes and kind == "Input":
        lines.append(f"shape: {known(call.output_shape)}")
    elif show_shapes:
        lines.append(f"input: {', '.join(known(shapes.get(name)) for name in call.inputs)}")
        lines.append(f"output: {known(call.output_shape)}")
    if show_dtype and layer is not None:
        lines.append(f"dtype: {layer.dtype}")
    return lines


def known(shape: Any) -> str:
    """Return a shape as text, a question mark if it is unknown."""
    return "?" if shape is None else str(shape)


def quoted(text: str) -> str:
    """Return a string of the dot language."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def shown(path: Path, kind: str) -> Any:
    """Return a picture for a notebook; None elsewhere, and for formats that it does not show."""
    try:
        display = importlib.import_module("IPython.display")
    except ImportError:
        return None
    if kind == "svg":
        return display.SVG(filename=str(path))
    return display.Image(filename=str(path)) if kind in ("png", "jpg", "jpeg") else None

"""Generate C for elementwise expressions: a sequence of vector operations without branches.

The functions have the calling convention of ``src/block.h``. They load a vector of every input
first and store the outputs last, so that an output may overwrite an input.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .expression import COMPARISONS, FUNCTIONS, Expressions

SOURCES = Path(__file__).with_name("src")

BINARY = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^"}
TEMPLATES = {
    **{name: f"v_{name}({{0}})" for name in (*FUNCTIONS.values(), "sqrt", "abs", "sign", "isnan")},
    **{name: f"v_{name}({{0}})" for name in ("floor", "ceil", "trunc", "rint", "round")},
    **{name: f"v_{name}({{0}}, {{1}})" for name in ("maximum", "minimum", "pow", "atan2")},
    **{name: f"{{0}} {sign} {{1}}" for name, sign in BINARY.items()},
    **{name: f"(vmask)({{0}} {sign} {{1}})" for name, sign in COMPARISONS.items()},
    "log": "v_log_of_any({0})",
    "bfloat16": "v_bfloat16({0})",
    "neg": "-{0}",
    "not": "~{0}",
    "number": "v_from_mask({0})",
    "switch": "v_select({0}, {1}, {2})",
    "clip": "v_select((vmask)({0} < {1}), {1}, v_select((vmask)({0} > {2}), {2}, {0}))",
}

# Reductions over the columns: where they start, how a vector is added, and how a vector is reduced.
START = {"sum": "0", "largest": "-(real)INFINITY"}
TOTAL = {"sum": "{0} + {1}", "largest": "v_maximum({0}, {1})"}
REDUCED = {"sum": "v_sum", "largest": "v_largest"}


def read_source(name: str) -> str:
    """Return a C file in which each included file of this folder is inserted once."""
    return _expand(name, set())


def _expand(name: str, seen: set[str]) -> str:
    lines = []
    for line in SOURCES.joinpath(name).read_text().splitlines():
        if line.startswith('#include "'):
            part = line.split('"')[1]
            if part not in seen:
                seen.add(part)
                lines.append(_expand(part, seen))
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def header(dtype: np.typing.DTypeLike) -> str:
    """Return the beginning of every numeric source, which sets the precision."""
    return f"#define REAL_BITS {np.dtype(dtype).itemsize * 8}\n"


def block_function(
    name: str,
    expressions: Expressions,
    inputs: Sequence[int | None],
    outputs: Sequence[int],
    single: Sequence[int] = (),
    totals: Sequence[int] = (),
) -> str:
    """Return the C source of a block function.

    Parameters
    ----------
    name
        Name of the exported function.
    expressions
        The expressions that the values belong to.
    inputs
        The input values, in the order of the block arguments. Those that the outputs do not need
        are not read; None is an argument that is never read.
    outputs
        The output values, in order.
    single
        Positions of inputs that are one number for each row instead of an array.
    totals
        Sums and largest values over the columns. They are further outputs, one number for each row.
    """
    terms = [(expressions.nodes[v][0], expressions.arguments(v)[0]) for v in totals]
    given = [(i, value) for i, value in enumerate(inputs) if value is not None]
    place = {value: i for i, value in reversed(given)}
    needed = expressions.needed([*outputs, *(term for _, term in terms)], list(place))
    used = [place[v] for v in needed if v in place]
    arrays = [i for i in used if i not in single]
    lines = []
    for value in needed:
        kind = "vmask" if expressions.is_mask(value) else "vreal"
        lines.append(f"    {kind} v{value} = {_formula(expressions, value, place, single)};")
    for i, v in enumerate(outputs):
        lines.append(f"    store(to[{i}] + at, {_as_number(expressions, v)});")
    tables = [
        f"static const int {name}_reads[] = {{{', '.join(map(str, [*arrays, -1]))}}};",
        f"static const int {name}_singles[] = {{{', '.join(map(str, [*single, -1]))}}};",
    ]
    arguments, macro = "const real *const *from, real *const *to, long at", "BLOCK_FUNCTION"
    sizes, around = [len(inputs), len(outputs)], []
    if terms:
        arguments, macro = f"{arguments}, vreal *total, vmask on", "REDUCING_FUNCTION"
        sizes.append(len(terms))
        for i, (kind, term) in enumerate(terms):
            kept = f"v_select(on, {_as_number(expressions, term)}, splat({START[kind]}))"
            lines.append(f"    total[{i}] = {TOTAL[kind].format(f'total[{i}]', kept)};")
        start = [f"total[{i}] = splat({START[kind]});" for i, (kind, _) in enumerate(terms)]
        end = [f"*to[{i}] = {REDUCED[kind]}(total[{i}]);" for i, (kind, _) in enumerate(terms)]
        around = [
            f"INLINE void {name}_start(vreal *total) {{ {' '.join(start)} }}",
            f"INLINE void {name}_end(const vreal *total, real *const *to) {{ {' '.join(end)} }}",
        ]
    return "\n".join(
        [
            f"INLINE void {name}_vector({arguments}) {{",
            *lines,
            "}",
            *around,
            *tables,
            f"{macro}({name}, {', '.join(map(str, sizes))})",
            "",
        ]
    )


def unit(dtype: np.typing.DTypeLike, functions: Sequence[str]) -> str:
    """Return a complete C source with some block functions."""
    return header(dtype) + read_source("generated.h") + "".join(functions)


def _as_number(expressions: Expressions, value: int) -> str:
    return f"v_from_mask(v{value})" if expressions.is_mask(value) else f"v{value}"


def _formula(
    expressions: Expressions, value: int, place: dict[int, int], single: Sequence[int]
) -> str:
    if value in place:
        i = place[value]
        number = f"splat(*from[{i}])" if i in single else f"load(from[{i}] + at)"
        return f"(vmask)({number} != splat(0))" if expressions.is_mask(value) else number
    operation, *arguments = expressions.nodes[value]
    if operation == "constant":
        constant = float.fromhex(arguments[0])
        if np.isfinite(constant):
            return f"splat(REAL({constant!r}))"
        return (
            "splat((real)NAN)"
            if np.isnan(constant)
            else f"splat((real){'-' if constant < 0 else ''}INFINITY)"
        )
    return TEMPLATES[operation].format(*(f"v{a}" for a in arguments))

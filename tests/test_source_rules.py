"""Rules about the source of seqnet that no linter checks."""

from __future__ import annotations

import ast
from pathlib import Path

import seqnet

ROOT = Path(seqnet.__file__).parent
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in ROOT.rglob("*.py")}
TREES = {name: ast.parse(source) for name, source in SOURCES.items()}


def dotted(node: ast.AST) -> str:
    """Return ``a.b.c`` for the expression a.b.c, or an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def users_of(module: str, function: str) -> set[str]:
    """Return the files that use ``module.function``, under any imported name."""

    def uses(node: ast.AST) -> bool:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(module):
            return any(alias.name == function for alias in node.names)
        return isinstance(node, ast.Attribute) and dotted(node) == f"{module}.{function}"

    return {name for name, tree in TREES.items() if any(map(uses, ast.walk(tree)))}


def test_only_the_backend_compiles():
    assert users_of("pytensor", "function") == {"backend/modes.py"}


def test_only_the_recurrence_uses_scan():
    assert users_of("pytensor", "scan") == {"ops/recurrence.py"}


def test_nothing_sets_pytensors_configuration():
    def sets(node: ast.AST) -> bool:
        if isinstance(node, ast.Assign):
            return any(dotted(target).startswith("pytensor.config") for target in node.targets)
        if isinstance(node, ast.AugAssign | ast.AnnAssign):
            return dotted(node.target).startswith("pytensor.config")
        if isinstance(node, ast.Call) and dotted(node.func) in ("setattr", "object.__setattr__"):
            return bool(node.args) and dotted(node.args[0]) == "pytensor.config"
        return isinstance(node, ast.Attribute) and dotted(node) == "pytensor.config.change_flags"

    places = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if sets(node)
    ]
    assert not places

"""The architecture as a test: what may import what, and where a few calls are allowed."""

import ast
from pathlib import Path

import pytest

import seqnet

ROOT = Path(seqnet.__file__).parent
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob("*.py")
    if "__pycache__" not in path.parts
)
TREES = {name: ast.parse((ROOT / name).read_text()) for name in FILES}

# A file imports from lower levels, and from its own folder.
LEVELS = (
    (
        "checks.py",
        "config.py",
        "hyperparameters.py",
        "readahead.py",
        "registry.py",
        "interruption.py",
        "locking.py",
        "replacing.py",
        "trouble.py",
        "version.py",
    ),
    ("ops/", "arrays.py", "targets.py"),
    (
        "activations.py",
        "initializers.py",
        "regularizers.py",
        "logits.py",
        "losses.py",
        "metrics.py",
    ),
    ("layers/", "optimizers/"),
    ("kernels/", "data.py", "ragged.py", "sequences.py", "callbacks/", "saving.py", "lowering.py"),
    ("text.py", "backend.py", "sources.py", "streams.py", "weighting.py", "masks.py"),
    ("stack.py", "windows.py", "matching.py"),
    (
        "training.py",
        "compiled.py",
        "packing.py",
        "own_code.py",
        "feeding.py",
        "resuming.py",
        "fitting.py",
        "options.py",
        "evaluation.py",
    ),
    ("generation.py", "model.py"),
    ("__init__.py",),
)
# Files that use another of their own level, which is then the lower one.
WITHIN_A_LEVEL = {
    ("config.py", "checks.py"),
    ("hyperparameters.py", "checks.py"),
    ("metrics.py", "losses.py"),
    ("losses.py", "logits.py"),
    ("ragged.py", "data.py"),
    ("sequences.py", "ragged.py"),
    ("compiled.py", "training.py"),
    ("streams.py", "sources.py"),
    ("feeding.py", "training.py"),
    ("fitting.py", "training.py"),
    ("fitting.py", "evaluation.py"),
    ("evaluation.py", "training.py"),
    ("fitting.py", "resuming.py"),
    ("resuming.py", "packing.py"),
    ("resuming.py", "own_code.py"),
}
# What works without the package, and says so.
OPTIONAL = {"seqnet.kernels", "jax", "tensorboardX"}


def level(name):
    """Return the number of the level a file or folder is on."""
    for number, entries in enumerate(LEVELS):
        if any(name == e or (e.endswith("/") and name.startswith(e)) for e in entries):
            return number
    raise AssertionError(f"seqnet/{name} is on no level: enter it in LEVELS.")


def file_of(module):
    """Return the file a module of seqnet stands for, or None."""
    path = "/".join(module.split(".")[1:])
    for name in (f"{path}.py", f"{path}/__init__.py" if path else "__init__.py"):
        if name in TREES:
            return name
    return None


def imported_files(name, tree):
    """Yield (file, node) for everything of seqnet that a tree imports, at any depth."""
    package = ["seqnet", *name.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            modules = [f"{base}.{alias.name}" for alias in node.names]
            modules = [m if file_of(m) else base for m in modules]
        else:
            continue
        for module in modules:
            if module.split(".")[0] == "seqnet":
                yield file_of(module), node


IMPORTS = {name: {file for file, _ in imported_files(name, TREES[name])} for name in FILES}


def folder(name):
    return name.rpartition("/")[0]


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_from_lower_levels_or_its_own_folder(name):
    for imported in IMPORTS[name]:
        same_folder = folder(name) and folder(name) == folder(imported)
        allowed = same_folder or level(imported) < level(name)
        allowed = allowed or (name, imported) in WITHIN_A_LEVEL
        assert allowed, f"seqnet/{name} must not import seqnet/{imported}"


def test_every_exception_within_a_level_is_one():
    for name, imported in WITHIN_A_LEVEL:
        assert imported in IMPORTS[name] and level(imported) == level(name), (name, imported)
    listed = [entry for entries in LEVELS for entry in entries]
    assert all(any(name.startswith(entry) for name in FILES) for entry in listed)


def test_no_files_import_each_other_in_a_circle():
    done, path = set(), []

    def visit(name):
        assert name not in path, f"A circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name in done:
            return
        path.append(name)
        for imported in IMPORTS[name]:
            # `from seqnet.layers.layer import ...` in a folder's own file is no circle: Python
            # runs the folder's __init__ first, and that imports the files one by one.
            if imported != name and not (imported.endswith("__init__.py") and folder(name)):
                visit(imported)
        path.pop()
        done.add(name)

    for name in FILES:
        visit(name)


@pytest.mark.parametrize("name", FILES)
def test_imports_are_at_the_top_of_the_file(name):
    for function in ast.walk(TREES[name]):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        for node in ast.walk(function):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                module = getattr(node, "module", None) or node.names[0].name
                if name.startswith("kernels/") and module.startswith("pytensor"):
                    continue  # needed only where a step is turned into a kernel
                assert module in OPTIONAL, f"seqnet/{name}:{node.lineno} imports {module} inside"


def test_layers_and_optimizers_do_not_know_each_other():
    for name in FILES:
        if name.startswith("layers/"):
            assert not any(i.startswith("optimizers/") for i in IMPORTS[name]), name
        if name.startswith("optimizers/"):
            assert not any(i.startswith("layers/") for i in IMPORTS[name]), name


def test_the_kernels_import_nothing_of_the_rest():
    for name in FILES:
        if name.startswith("kernels/"):
            assert all(i.startswith("kernels/") for i in IMPORTS[name]), name


def dotted(node):
    """Return ``a.b.c`` for the expression a.b.c, or an empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def users_of(module, function):
    """Return the files that use ``module.function``, under whatever name they import it."""
    found = set()
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and dotted(node) == f"{module}.{function}":
                found.add(name)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(module):
                if any(alias.name == function for alias in node.names):
                    found.add(name)
    return found


def test_only_the_backend_compiles():
    assert users_of("pytensor", "function") == {"backend.py"}


def test_only_the_recurrence_scans():
    assert users_of("pytensor", "scan") == {"ops/recurrence.py"}


@pytest.mark.parametrize("name", FILES)
def test_nothing_sets_pytensors_configuration(name):
    for node in ast.walk(TREES[name]):
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                assert not dotted(target).startswith("pytensor.config"), f"{name}:{node.lineno}"
        if isinstance(node, ast.Call):
            called = dotted(node.func)
            assert called != "pytensor.config.change_flags", f"{name}:{node.lineno}"
            if called in ("setattr", "object.__setattr__") and node.args:
                assert dotted(node.args[0]) != "pytensor.config", f"{name}:{node.lineno}"


@pytest.mark.parametrize("name", FILES)
def test_a_module_has_at_most_400_lines(name):
    assert len((ROOT / name).read_text().splitlines()) <= 400


def test_every_level_has_files():
    for entries in LEVELS:
        for entry in entries:
            if entry not in ("kernels/", "text.py"):
                assert any(f == entry or f.startswith(entry) for f in FILES), entry

"""The commands of the README and all Python code in the documentation work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOME = "https://github.com/seqnet/seqnet/blob/main/"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def python_of(page: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL))


# test_contributing.py runs the code of CONTRIBUTING.md.
@pytest.mark.parametrize(
    "page", [p for p in PAGES if python_of(p) and p.stem != "CONTRIBUTING"], ids=lambda p: p.name
)
def test_python_in_the_documentation_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(python_of(page), page.name, "exec"), {"__name__": "documentation"})


def test_the_readme_begins_with_the_relation_of_theano_and_pytensor():
    first = (ROOT / "README.md").read_text()[:400]
    assert "PyTensor" in first
    assert "Theano" in first


def command(name: str, page: str) -> str:
    """Return the command after the comment ``<!-- command: name -->`` of a page."""
    pattern = rf"<!-- command: {name} -->\n```sh\n(.*)\n```"
    return re.search(pattern, (ROOT / page).read_text()).group(1)


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("tests", "README.md"),
        ("checks", "CONTRIBUTING.md"),
        ("optional", "CONTRIBUTING.md"),
        ("docs", "CONTRIBUTING.md"),
        ("release", "RELEASING.md"),
    ],
)
def test_continuous_integration_runs_the_documented_commands(name, page):
    assert command(name, page).startswith("python3 -m venv ")
    assert f"run {name} {page}" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("name", ["example", "tests"])
def test_the_site_begins_with_the_commands_of_the_readme(name):
    assert command(name, "README.md") in (ROOT / "docs" / "index.md").read_text()


def test_every_page_of_the_site_is_in_the_navigation():
    folder = ROOT / "docs"
    listed = {"index"}
    for page in (folder / "index.md", folder / "tutorials" / "index.md"):
        for tree in re.findall(r"```{toctree}\n(.*?)```", page.read_text(), flags=re.DOTALL):
            names = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {(page.parent / n).relative_to(folder).as_posix() for n in names}
    pages = {p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.md")}
    assert pages == listed


def test_tutorials_are_short():
    for page in (ROOT / "docs" / "tutorials").glob("*.md"):
        assert len(page.read_text().splitlines()) < 120, page.name


def test_tools_have_the_same_version_everywhere():
    lint = (ROOT / "setup.cfg").read_text().partition("lint =\n")[2]
    pinned = re.search(r"ruff==[\d.]+", lint).group()
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"ruff[=<>~][^\"]*", hooks)) == {pinned}


def test_links_between_pages_are_valid():
    for page in PAGES:
        inline = re.findall(r"\]\(([^)#]+)", page.read_text())
        defined = re.findall(r"^\[[^]]+\]: ([^\s#]+)", page.read_text(), flags=re.MULTILINE)
        for target in inline + defined:
            if target.startswith(HOME):  # package indexes show the README without the repository
                assert (ROOT / target.removeprefix(HOME)).exists(), f"{page.name}: {target}"
            elif not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_links_of_the_readme_work_outside_the_repository():
    readme = (ROOT / "README.md").read_text()
    assert not re.findall(r"\]\((?!http)[^)]+\)", readme)
    used = set(re.findall(r"\]\[([^]]+)\]", readme))
    assert used == set(re.findall(r"^\[([^]]+)\]: http", readme, flags=re.MULTILINE))

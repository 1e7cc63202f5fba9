"""The documentation site: pages in Markdown, and a reference made from docstrings."""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

import seqnet

project = "seqnet"
author = "The seqnet developers"
copyright = author
version = release = seqnet.__version__
repository = "https://github.com/seqnet/seqnet"

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
highlight_language = "none"
default_role = "py:obj"  # `name` in a docstring is a link if there is such an object

myst_heading_anchors = 4
myst_url_schemes = ("http", "https")

autosummary_imported_members = True
autosummary_ignore_module_all = False  # a page for each name in `__all__`
# `Add` and `add` are two pages on a file system that ignores case, too.
autosummary_filename_map = {
    f"seqnet.layers.{name}": f"seqnet.layers.{name}_function"
    for name in seqnet.layers.__all__
    if name.islower()
}
autodoc_inherit_docstrings = False  # the base class describes the methods it defines
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 80
numpydoc_show_class_members = False
numpydoc_attributes_as_param_list = True

html_theme = "furo"
html_title = "seqnet"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "source_repository": repository,
    "source_branch": "main",
    "source_directory": "docs/",
}
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

WHOLE_FILES = {"contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}
LINK = re.compile(r"(?<!!)(\[[^]]*\])\(([\w./-]+)(#[\w-]+)?\)")


def read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Make a page of a file at the root, and change links that leave ``docs/``.

    On GitHub such links lead to files. Here they lead to the page of the file, or to the
    repository.
    """
    folder = Path(app.srcdir, docname).parent
    if docname in WHOLE_FILES:
        folder = Path(app.srcdir).parent
        source[0] = (folder / WHOLE_FILES[docname]).read_text(encoding="utf-8")
        app.env.note_dependency(folder / WHOLE_FILES[docname])

    def changed(link: re.Match[str]) -> str:
        text, target, anchor = link.groups(default="")
        path = (folder / target).resolve()
        pages = {Path(app.srcdir).parent / name: f"{page}.md" for page, name in WHOLE_FILES.items()}
        if path in pages:
            target = f"/{pages[path]}"
        elif path.is_relative_to(app.srcdir):
            target = f"/{path.relative_to(app.srcdir)}"
        elif path.exists():
            target = f"{repository}/blob/main/{path.relative_to(Path(app.srcdir).parent)}"
        return f"{text}({target}{anchor})"

    source[0] = LINK.sub(changed, source[0])


def shorten_sidebar(app: Sphinx, name: str, template: str, context: dict, tree: object) -> None:
    """List pages and modules in the sidebar, and not the hundreds of names in modules.

    Pages that are made from docstrings have no link to a source on GitHub.
    """
    if name.startswith("api/"):
        context["page_source_suffix"] = ""
    toctree = context["toctree"]
    context["toctree"] = lambda **options: toctree(**{**options, "maxdepth": 2})


def highlight_examples(app: Sphinx, tree: nodes.document) -> None:
    """Mark examples as Python; other blocks of docstrings are formulas."""
    for node in tree.findall(nodes.doctest_block):
        node["language"] = "pycon"


def setup(app: Sphinx) -> None:
    """Register what is above with Sphinx."""
    app.connect("source-read", read_page)
    app.connect("doctree-read", highlight_examples)
    app.connect("html-page-context", shorten_sidebar, priority=400)  # before the theme

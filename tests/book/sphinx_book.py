"""A book of a few pages, built by Sphinx with the extensions of this one."""

from __future__ import annotations

import io
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

EXTENSIONS = Path(__file__).resolve().parents[2] / "book/_ext"


def build_pages(source: Path, pages: dict[str, list[nbformat.NotebookNode]], *extensions: str) -> str:
    """Build notebooks, by name, into ``source/_build``.

    Returns:
        What Sphinx warned of.
    """
    from sphinx.application import Sphinx

    for name, cells in pages.items():
        nbformat.write(new_notebook(cells=cells), source / f"{name}.ipynb")
    (source / "index.md").write_text("# Root\n\n```{toctree}\n:glob:\n*page*\n```\n")
    said = io.StringIO()
    options = {
        "extensions": ["myst_nb", *extensions],
        "nb_execution_mode": "off",
        "numfig": True,
        "myst_enable_extensions": ["colon_fence", "fieldlist"],
    }
    folders = (source, None, source / "_build", source / "_build/doctrees")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXTENSIONS)
        Sphinx(*folders, "html", confoverrides=options, status=None, warning=said).build()
    return said.getvalue()


def prose(text: str) -> nbformat.NotebookNode:
    return new_markdown_cell(text)


def shown(data: dict[str, str], **metadata: object) -> nbformat.NotebookNode:
    """A cell that showed something."""
    return new_code_cell(
        "pass", execution_count=1, outputs=[new_output("display_data", data, metadata=metadata)]
    )

"""Ways out of the book: repository, licence, how to cite, a PDF, and chapters opened at Binder or Colab.

``CITATION.cff`` says what the project is called and under which licence. The address of the repository is
that of the variable TAYLORIR_REPOSITORY, of GitHub Actions, or ``repository-code`` in ``CITATION.cff``; where
none of them says it, nothing is linked.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from taylorir.pipeline.book import PDF_VARIABLE

CITATION = Path(__file__).resolve().parents[2] / "CITATION.cff"
CHAPTERS = "_executed/"
PDF = "taylorir.pdf"
"""Of all pages, in the book; ``taylorir.pipeline.book --pdf`` says where it was made."""


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("doors", Doors)
    app.connect("html-page-context", _add_buttons, priority=502)  # after the theme's own
    app.connect("html-page-context", _add_footer)
    app.connect("build-finished", _copy_pdf)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def repository(citation: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    """Address of the repository, without a slash at the end; None where nothing says it."""
    actions = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}"
    named = environ.get("TAYLORIR_REPOSITORY") or (
        actions.format_map(environ) if "GITHUB_REPOSITORY" in environ else citation.get("repository-code")
    )
    return named.rstrip("/").removesuffix(".git") if named else None


def launch_links(address: str, notebook: str, branch: str = "main") -> dict[str, str]:
    """Where a chapter opens, by the name of the service; both know repositories at GitHub only.

    Args:
        address: of the repository.
        notebook: path in the repository.
        branch: of the repository.
    """
    host, _, name = address.removeprefix("https://").partition("/")
    if host != "github.com":
        return {}
    return {
        "Binder": f"https://mybinder.org/v2/gh/{name}/{branch}?labpath={notebook}",
        "Colab": f"https://colab.research.google.com/github/{name}/blob/{branch}/{notebook}",
    }


def citation_entry(citation: Mapping[str, Any], address: str | None) -> list[str]:
    """The project as an entry of BibTeX, line by line."""
    authors = " and ".join(f"{{{author['name']}}}" for author in citation["authors"])
    fields = {
        "author": authors,
        "title": f"{{{citation['title']}}}",
        "version": f"{{{citation['version']}}}",
        **({"url": f"{{{address}}}"} if address else {}),
    }
    return ["@software{taylorir,", *(f"  {name} = {value}," for name, value in fields.items()), "}"]


class Doors(SphinxDirective):
    """A list: repository, licence, PDF; and below it how to cite."""

    option_spec: ClassVar = {}

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(CITATION))
        citation = yaml.safe_load(CITATION.read_text(encoding="utf-8"))
        address = repository(citation, os.environ)
        source = (
            f"<{address}>" if address else "the folder that this book was built in; its address is not set"
        )
        pdf = f"[{PDF}](#pdf)" if _pdf() else "`make pdf` builds it"
        lines = [
            f"* **Repository**: {source}",
            f"* **Licence**: [{citation['license']}](https://spdx.org/licenses/{citation['license']}.html)",
            f"* **All pages as one PDF**: {pdf}",
            "* **To cite** the project, as below; the papers that it is about are in {doc}`/bibliography`",
            "",
            "```bibtex",
            *citation_entry(citation, address),
            "```",
        ]
        node = nodes.container()
        self.state.nested_parse(StringList(lines, source="doors"), 0, node)
        for link in [*node.findall(nodes.reference)]:
            if link.get("refuri") == "#pdf":  # a node of our own: MyST looks its own up among the headings
                link.replace_self(nodes.reference("", PDF, refuri=PDF))
        return node.children


def _add_buttons(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    address = repository(yaml.safe_load(CITATION.read_text(encoding="utf-8")), os.environ)
    if not (page.startswith(CHAPTERS) and address and "header_buttons" in context):
        return
    links = launch_links(address, f"notebooks/{page.removeprefix(CHAPTERS)}.ipynb")
    buttons = [
        {"type": "link", "text": name, "tooltip": f"Open at {name}", "icon": "fas fa-play", "url": url}
        for name, url in links.items()
    ]
    if buttons:
        group = {"type": "group", "tooltip": "Run this chapter", "icon": "fas fa-rocket", "buttons": buttons}
        context["header_buttons"].insert(0, group | {"label": "launch-buttons"})


def _add_footer(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    licence = yaml.safe_load(CITATION.read_text(encoding="utf-8"))["license"]
    if "build_on" in app.env.found_docs:
        target = "" if page == "build_on" else context["pathto"]("build_on")
        text = f"{licence} · repository, how to cite, PDF, and recipes to build on this"
        context["theme_extra_footer"] = f'<a href="{target}#open-download-cite">{text}</a>'


def _pdf() -> Path | None:
    return Path(os.environ[PDF_VARIABLE]) if os.environ.get(PDF_VARIABLE) else None


def _copy_pdf(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.name == "html" and (pdf := _pdf()):
        shutil.copyfile(pdf, Path(app.outdir, PDF))

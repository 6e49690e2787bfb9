"""Build the book out of its pages and the executed notebooks; it replaces the one before when it is whole.

``python -m taylorir.pipeline.book _build/smoke/source _build/smoke``
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from taylorir.pipeline.build import end_with_parent

PAGES = Path("book")
EXECUTED = "_executed"
PDF_VARIABLE = "TAYLORIR_PDF"
"""By which the extension ``doors`` knows the PDF."""


def build_book(source: Path, build: Path, pdf: Path | None = None) -> Path:
    """Build ``source`` strictly (every warning is an error), and move it to ``build/html`` when it is whole.

    Args:
        source: ``book`` itself, or a folder of executed notebooks that the pages of ``book`` are copied to.
        build: where the book goes.
        pdf: all pages as one, which the book then holds and links.

    Returns:
        The first page.

    Raises:
        RuntimeError: the book has an error or a warning, which stands above.
    """
    from jupyter_book.cli.main import main as jupyter_book

    part = build / ".part"
    shutil.rmtree(part, ignore_errors=True)
    copy_pages(source)
    os.environ[PDF_VARIABLE] = str(pdf.resolve()) if pdf else ""
    options = ["--config", "_config.yml", "--path-output", str(part), "--all", "-W", "-n", "--keep-going"]
    jupyter_book(["build", str(source), *options], standalone_mode=False)
    shutil.rmtree(build / "html", ignore_errors=True)
    os.replace(part / "_build" / "html", build / "html")
    shutil.rmtree(part)
    return build / "html" / "index.html"


def copy_pages(source: Path) -> None:
    """Make a folder hold the pages as they are now, and nothing else but what is executed; ``book`` does."""
    if source.resolve() == PAGES.resolve():
        return
    for path in source.iterdir():
        if path.name != EXECUTED:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(PAGES, source, ignore=shutil.ignore_patterns(EXECUTED, "__pycache__"), dirs_exist_ok=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m taylorir.pipeline.book", description=__doc__.split("\n")[0]
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("build", type=Path)
    parser.add_argument("--parent", type=int, help="end with the process of this number, which started this")
    parser.add_argument("--pdf", type=Path, help="all pages as one PDF, to be linked")
    options = parser.parse_args(arguments)
    if options.parent is not None:
        end_with_parent(options.parent, lambda: os._exit(1))
    print(f"The book: {build_book(options.source, options.build, options.pdf)}")


if __name__ == "__main__":
    sys.exit(main())

"""All pages of the book as one PDF: the single-page build, printed by a headless Chromium.

``python -m taylorir.pipeline.pdf book _build/taylorir.pdf``; ``taylorir.pipeline.book --pdf`` then links it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from taylorir.pipeline.book import copy_pages
from taylorir.pipeline.build import end_with_parent
from taylorir.rows import write_atomic

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PRINT_SECONDS = 600
"""What the printing of a long book may take before it counts as hung."""


def build_pdf(source: Path, target: Path) -> Path:
    """Build ``source`` as a single page, and print it; the PDF appears when it is whole.

    Args:
        source: ``book`` itself, or a folder of executed notebooks that the pages of ``book`` are copied to.
        target: the file to write.

    Returns:
        The file.

    Raises:
        RuntimeError: there is no Chromium, the page cannot be built, or printing fails.
    """
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise RuntimeError(f"no browser to print with; looked for {', '.join(BROWSERS)}")
    from jupyter_book.cli.main import main as jupyter_book

    copy_pages(source)
    with tempfile.TemporaryDirectory(prefix="taylorir-pdf-", ignore_cleanup_errors=True) as name:
        options = ["--config", "_config.yml", "--path-output", name, "--builder", "singlehtml", "--all"]
        jupyter_book(["build", str(source), *options], standalone_mode=False)
        root = yaml.safe_load((source / "_toc.yml").read_text(encoding="utf-8"))["root"]
        page = Path(name, "_build", "singlehtml", f"{root}.html")
        printed = Path(name, "printed.pdf")
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        flags += [f"--user-data-dir={name}/profile", "--virtual-time-budget=300000", "--no-pdf-header-footer"]
        command = [browser, *flags, f"--print-to-pdf={printed}", page.as_uri()]
        subprocess.run(command, check=False, timeout=PRINT_SECONDS, stderr=subprocess.DEVNULL)
        if not printed.is_file():
            raise RuntimeError(f"{browser} printed nothing")
        write_atomic(target, lambda file: file.write(printed.read_bytes()))
    return target


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m taylorir.pipeline.pdf", description=__doc__.split("\n")[0]
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--parent", type=int, help="end with the process of this number, which started this")
    options = parser.parse_args(arguments)
    if options.parent is not None:
        end_with_parent(options.parent, lambda: os._exit(1))
    print(f"The PDF: {build_pdf(options.source, options.target)}")


if __name__ == "__main__":
    sys.exit(main())

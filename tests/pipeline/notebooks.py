"""Small notebooks for the tests of the pipeline."""

from __future__ import annotations

from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from taylorir.pipeline.reads import TABLE


def write_notebook(path: Path, *sources: str, parameters: str = "") -> Path:
    """A notebook with the parameters preset and seed, and more; it reads no data."""
    cells = [
        new_markdown_cell("# A question"),
        new_code_cell(f'preset = "cpu"\nseed = 0\n{parameters}', metadata={"tags": ["parameters"]}),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=[*cells, *map(new_code_cell, sources)], metadata={"kernelspec": kernel})
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    table = path.with_name(TABLE)
    known = yaml.safe_load(table.read_text()) if table.exists() else {}
    table.write_text(yaml.safe_dump({path.stem: []} | known))
    return path


def write_project(folder: Path, **notebooks: str) -> None:
    """Notebooks of one cell each, and a book of one page around them."""
    (folder / "book").mkdir()
    (folder / "book" / "intro.md").write_text("# The book\n")
    (folder / "book" / "_toc.yml").write_text("format: jb-book\nroot: intro\n")
    (folder / "_config.yml").write_text("only_build_toc_files: true\nexecute: {execute_notebooks: 'off'}\n")
    (folder / "requirements.txt").touch()
    for name, source in notebooks.items():
        write_notebook(folder / "notebooks" / f"{name}.ipynb", source)

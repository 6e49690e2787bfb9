"""``{provenance-table}``: how each notebook of this very book was run, from what its runner wrote into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

FOLDER = "_executed"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("provenance-table", ProvenanceTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class ProvenanceTable(SphinxDirective):
    """Two tables: how each notebook was run, and on what. Not to know is an error of the build."""

    def run(self) -> list[nodes.Node]:
        runs = []
        toc = Path(self.env.srcdir, "_toc.yml").read_text(encoding="utf-8")
        for path in sorted(Path(self.env.srcdir, FOLDER).glob("*.ipynb")):
            if f"{FOLDER}/{path.stem}" not in toc:
                continue
            self.env.note_dependency(str(path))
            metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("taylorir")
            if metadata is None:
                raise self.error(
                    f"{path.name} does not say how it was run; run it with taylorir.pipeline.run_notebook"
                )
            runs.append((path.stem, metadata))
        node = nodes.container()
        lines = [*self._notebooks(runs), *self._machines(runs)]
        self.state.nested_parse(StringList(lines, source="provenance-table"), 0, node)
        return node.children

    def _notebooks(self, runs: list[tuple[str, dict[str, Any]]]) -> list[str]:
        row = "* - {}\n  - {}\n  - {}\n  - {}\n  - {}"
        rows = [row.format("notebook", "parameters", "took", "on", "finished")]
        for name, run in runs:
            parameters = ", ".join(f"`{key} = {value!r}`" for key, value in run["parameters"].items())
            when = run["date"].removesuffix("+00:00").replace("T", " ") + " UTC"
            threads = f"{run['threads']} thread{'s' if run['threads'] > 1 else ''}"
            page = f"{{doc}}`/{FOLDER}/{name}`"
            rows.append(row.format(page, parameters, f"{run['seconds']} s", threads, when))
        total = sum(run["seconds"] for _, run in runs)
        rows.append(row.format("all", "", f"{total:.0f} s", "", ""))
        return self._list_table("The notebooks of this build", "18 46 10 8 18", rows)

    def _machines(self, runs: list[tuple[str, dict[str, Any]]]) -> list[str]:
        facts: dict[str, list[str]] = {}
        for _, run in runs:
            for key, value in {"device": run["device"], "commit": run["commit"], **run["versions"]}.items():
                if str(value) not in facts.setdefault(key, []):
                    facts[key].append(str(value))
        rows = ["* - what\n  - value"]
        rows += [f"* - {key}\n  - {', '.join(values)}" for key, values in facts.items()]
        return self._list_table("What they ran on", "20 80", rows)

    def _list_table(self, title: str, widths: str, rows: list[str]) -> list[str]:
        head = [f":::{{list-table}} {title}", ":header-rows: 1", f":widths: {widths}", ":class: stacked", ""]
        return [*head, *"\n".join(rows).split("\n"), ":::", ""]

"""``{room} networks``: the API page of one room: its modules, what each is for, and the names in its stub."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any, TypeVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

from taylorir.pipeline.notebook_inputs import public_names

PACKAGE = Path(__file__).resolve().parents[2] / "taylorir"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("room", RoomPage)
    app.connect("missing-reference", _show_type_variable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class RoomPage(SphinxDirective):
    """The room's question, then a section a module: its docstring and its public names."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        folder = PACKAGE / self.arguments[0]
        room = f"{PACKAGE.name}.{folder.name}"
        homes = public_names(folder / "__init__.pyi")
        self.env.note_dependency(str(folder / "__init__.pyi"))
        page = nodes.container()
        self._parse([f".. automodule:: {room}"], page)
        for part in sorted({*(path.stem for path in folder.glob("[!_]*.py")), *homes.values()}):
            self.env.note_dependency(str(folder.joinpath(*part.split(".")).with_suffix(".py")))
            module = f"{room}.{part}"
            names = sorted(name for name, home in homes.items() if home == part)
            lines = [f".. automodule:: {module}"]
            if part in names:  # the module itself is public, and with it the names in it
                lines += ["   :members:"]
            else:
                lines += ["", f".. py:currentmodule:: {room}", ""]
                lines += [line for name in names for line in _described(room, module, name)]
            title = nodes.title("", "", nodes.literal("", part))
            section = nodes.section("", title, ids=[nodes.make_id(part)], names=[part])
            self._parse(lines, section)
            page += section
        return page.children

    def _parse(self, lines: list[str], node: nodes.Element) -> None:
        lines = ["```{eval-rst}", *lines, "```"]
        self.state.nested_parse(StringList(lines, source=self.arguments[0]), 0, node)


def _show_type_variable(app: Sphinx, env: Any, node: nodes.Element, content: nodes.Node) -> nodes.Node | None:
    """A type variable of a signature has no entry of its own: show its name."""
    module, _, name = node.get("reftarget", "").rpartition(".")
    return content if isinstance(getattr(sys.modules.get(module), name, None), TypeVar) else None


def _described(room: str, module: str, name: str) -> list[str]:
    """The directive that documents one name under the path that people import it from."""
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value):
        return [f".. autoclass:: {room}.{name}", "   :members:", ""]
    if inspect.isroutine(value):
        return [f".. autofunction:: {room}.{name}", ""]
    comment = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name), [])
    return [f".. py:data:: {room}.{name}", "", *(f"   {line}" for line in comment), ""]

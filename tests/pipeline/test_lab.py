"""JupyterLab in a real browser: what a reader of the notebooks sees there, and what git sees afterwards."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

from tests.book.browser import Page, browse, find_browser

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = "09_numerics.ipynb"
SECONDS = 90
RAW_ROLE = re.compile(r"\{[a-z][\w:]*\}|:::")

pytestmark = [
    pytest.mark.skipif(find_browser() is None, reason="no Chromium"),
    pytest.mark.skipif(shutil.which("make") is None or shutil.which("git") is None, reason="no make or git"),
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """This checkout as it stands, committed to a repository of its own."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    me = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    for command in (["init", "-q"], ["add", "."], [*me, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


@contextmanager
def make_lab(folder: Path) -> Iterator[str]:
    """``make lab``, as it is typed but for the window that it would open; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = f"--no-browser --port={port} --IdentityProvider.token= --LabApp.expose_app_in_browser=True"
    command = ["make", "--old-file", ".venv/.installed", "lab", f"LAB={flags}"]
    own = {"JUPYTER_CONFIG_DIR": str(folder.parent / "CONFIG"), "PYTHONPATH": str(folder)}
    own |= {f"JUPYTERLAB_{name}_DIR": str(folder.parent / name) for name in ("SETTINGS", "WORKSPACES")}
    with open(folder.parent / "lab.log", "w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=os.environ | own, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{address}/api").close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, "JupyterLab did not start"
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)


def wait_for(page: Page, expression: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not page.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < deadline, f"never came true: {expression}"
        time.sleep(0.2)


def set_preset(page: Page, before: str, after: str) -> None:
    """Edit the cell of parameters."""
    page.evaluate(f"""(() => {{
        const cells = panel.content.widgets.map(cell => cell.model);
        const source = cells.find(cell => cell.getMetadata("tags")?.includes("parameters")).sharedModel;
        source.setSource(source.source.replace({json.dumps(before)}, {json.dumps(after)}));
    }})()""")


def execute(page: Page, command: str) -> None:
    """A command of JupyterLab, to its end."""
    page.evaluate("window.done = false")
    page.evaluate(f"jupyterapp.commands.execute('{command}').then(() => {{ window.done = true; }}) && 1")
    wait_for(page, "window.done")


def git(folder: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True, text=True).stdout


def shown_prose(page: Page) -> tuple[str, dict[str, str]]:
    """The text of all prose, and what stands in place of each glued value.

    A cell is drawn when it scrolls by.
    """
    texts, glued = [], {}
    for number in range(page.evaluate("panel.content.widgets.length")):
        if page.evaluate(f"panel.content.widgets[{number}].model.type") != "markdown":
            continue
        page.evaluate(f"panel.content.scrollToItem({number}).then(() => 1)")
        cell = f"panel.content.widgets[{number}].node.querySelector('.jp-RenderedMarkdown')"
        wait_for(page, f"{cell}?.innerText.trim()")
        spans = f"[...{cell}.querySelectorAll('.taylorir-glued')]"
        wait_for(page, f"{spans}.every(span => span.innerText !== '…')")
        texts.append(page.evaluate(f"{cell}.innerText"))
        glued |= page.evaluate(f"Object.fromEntries({spans}.map(span => [span.title, span.innerText]))")
    return "\n".join(texts), glued


def test_a_notebook_in_jupyterlab_reads_as_in_the_book_and_leaves_git_clean(clone, tmp_path):
    with make_lab(clone) as address, browse(find_browser(), tmp_path / "profile") as page:
        page.call("Emulation.setFocusEmulationEnabled", enabled=True)
        page.open(f"{address}/lab/tree/{NOTEBOOK}")
        wait_for(page, "window.panel = [...(window.jupyterapp?.shell.widgets('main') ?? [])][0]")
        wait_for(page, "panel.sessionContext?.session?.kernel && panel.content.widgets.length")
        page.evaluate("jupyterapp.shell.activateById(panel.id)")
        wait_for(page, "jupyterapp.shell.currentWidget === panel")
        set_preset(page, '"cpu"', '"smoke"')
        execute(page, "notebook:run-all-cells")
        execute(page, "docmanager:save")
        prose, shown = shown_prose(page)
        errors = [error for error in page.errors if "prose.js" in error]

        saved = nbformat.read(clone / "notebooks" / NOTEBOOK, as_version=4)
        changed = git(clone, "diff", "-U0", "--", "notebooks").splitlines()
        set_preset(page, '"smoke"', '"cpu"')
        execute(page, "docmanager:save")
        status = git(clone, "status", "--porcelain")

    outputs = [output for cell in saved.cells if cell.cell_type == "code" for output in cell.outputs]
    records = [output for output in outputs if "scrapbook" in output.get("metadata", {})]
    values = {
        output.metadata.scrapbook.name.removeprefix(output.metadata.scrapbook.mime_prefix): output.data[
            f"{output.metadata.scrapbook.mime_prefix}text/plain"
        ]
        for output in records
        if len(output.data) == 1  # a figure has an image too
    }
    assert errors == [] and RAW_ROLE.findall(prose) == []
    assert len(shown) >= 8
    for role, text in shown.items():
        name, _, specification = role.partition(":")
        assert text == format(ast.literal_eval(values[name]), specification)
    shown_lines = "\n".join(
        output.data["text/plain"] for output in outputs if "taylorir_by_hand" in output.get("metadata", {})
    )
    assert {line.partition(" = ")[0] for line in shown_lines.splitlines()} == set(values)

    edits = [line for line in changed if re.match(r"[+-][^+-]", line)]
    assert [("cpu" in edits[0], "smoke" in edits[1]), len(edits)] == [(True, True), 2]
    assert status == ""

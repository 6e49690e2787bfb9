"""What README and the pages tell people to type is there: names, modules, commands, files."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex

import pytest
import typer

from taylorir.cli.main import app
from tests.structure.rooms import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "book").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)


def blocks(language: str) -> list[str]:
    return [code for page in PAGES for name, code in BLOCK.findall(page.read_text()) if name == language]


def commands() -> list[list[str]]:
    """The lines of shell blocks, and the commands that prose names."""
    prose = [
        text for page in PAGES for text in re.findall(r"`((?:taylorir|python -m) [^`\n]+)`", page.read_text())
    ]
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in [*lines, *prose]]


def test_python_blocks_name_what_exists():
    assert blocks("python")
    for block in blocks("python"):
        tree = ast.parse(block)
        names = {"taylorir": importlib.import_module("taylorir")}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                names |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in names
            ):
                assert hasattr(names[node.value.id], node.attr), ast.unparse(node)


def test_commands_name_subcommands_and_options_that_exist():
    root = typer.main.get_command(app)
    seen = 0
    for words in commands():
        if "taylorir" not in words[:1]:
            continue
        command, rest = root, words[1:]
        while rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]
        alone = (["--help"], ["--version"], ["--install-completion"])
        assert command is not root or rest[:1] in alone, words
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in rest if word.startswith("--")} <= known, words
        seen += 1
    assert seen >= 5


def test_modules_that_are_run_exist():
    modules = [words[i + 1] for words in commands() for i, word in enumerate(words[:-1]) if word == "-m"]
    ours = [module for module in modules if module.startswith(("taylorir", "tests"))]
    assert ours
    for module in ours:
        found = importlib.util.find_spec(module)
        assert found is not None, module
        if found.submodule_search_locations:
            assert importlib.util.find_spec(f"{module}.__main__") is not None, module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_of_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"`((?:taylorir|tests|notebooks|book|data)/[\w./]*)`", page.read_text()):
        assert (ROOT / target).exists() or "_executed" in target, target

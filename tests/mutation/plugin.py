"""A pytest plugin: run the collected tests against mutants of some files, instead of once.

First every test runs as it is, and the functions of those files that it calls are noted. Then, for each
mutant, a forked process exchanges the code of the changed function and runs the tests that call it, the
quickest first, until one fails. So a mutant costs the tests that could see it, and no import.
"""

from __future__ import annotations

import ast
import csv
import functools
import gc
import os
import pickle
import random
import resource
import signal
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from taylorir.rows.measured import provenance
from tests.mutation.mutants import Mutant, mutants, mutated, outer_functions

#: A function: its file, qualified name and first line.
Key = tuple[str, str, int]

_reports: list[pytest.TestReport] = []

SURVIVED, KILLED, CUT_OFF, NOT_FOUND, HARNESS = range(5)
OUTCOMES = {
    SURVIVED: "survived",
    KILLED: "killed",
    CUT_OFF: "survived the tests of the time limit",
    NOT_FOUND: "function not found",
    HARNESS: "failed outside tests",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mutation")
    group.addoption("--mutate", action="append", default=[], help="a file whose functions are mutated")
    group.addoption("--mutants", type=int, default=320, help="how many, drawn from all")
    group.addoption("--mutation-seed", type=int, default=14, help="of the draw")
    group.addoption("--mutation-rows", default="mutants.csv", help="rows; those there are not done again")
    group.addoption("--mutation-limit", type=float, default=60.0, help="CPU seconds of tests a mutant")


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Take the place of pytest's own loop."""
    option = session.config.option
    sources = {os.path.abspath(file): Path(file).read_text() for file in option.mutate}
    rows_file = Path(option.mutation_rows)
    known = rows_file.with_suffix(".calls")  # so that a run that was interrupted goes on
    if not known.exists():
        known.write_bytes(pickle.dumps(_run_once(session, set(sources))))
    callers, seconds = pickle.loads(known.read_bytes())
    drawn = [(file, mutant) for file, source in sources.items() for mutant in mutants(source)]
    random.Random(option.mutation_seed).shuffle(drawn)
    print(f"\n{len(drawn)} mutants, {option.mutants} are taken", file=sys.__stderr__)

    rows = list(csv.DictReader(rows_file.open())) if rows_file.exists() else []
    done = {int(row["draw"]) for row in rows}
    for draw, (file, mutant) in enumerate(drawn[: option.mutants]):
        if draw in done:
            continue
        row = {"draw": draw}
        row |= _row(session, file, sources[file], mutant, callers, seconds, option.mutation_limit)
        row |= provenance(seed=option.mutation_seed)
        new = not rows_file.exists()
        with rows_file.open("a", newline="") as out:
            writer = csv.DictWriter(out, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        rows.append(row)
    counts = Counter(row["outcome"] for row in rows)
    seen = counts["killed"] + counts["too long"]
    print(f"{dict(counts)}: {seen} of {len(rows)} killed, {seen / len(rows):.1%}", file=sys.__stderr__)
    return True


def _run_once(session: pytest.Session, files: set[str]) -> tuple[dict[Key, set[int]], dict[int, float]]:
    """Which functions each passing test calls (by file, name and line), and how long it takes."""
    callers: dict[Key, set[int]] = {}
    seconds: dict[int, float] = {}
    for number, item in enumerate(session.items):
        called = set()

        def note(frame: types.FrameType, event: str, argument: object, called: set = called) -> None:
            if event == "call" and frame.f_code.co_filename in files:
                called.add(_key(frame.f_code))

        start = time.process_time()
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            passed = _passes(session, number, number + 1)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        if passed:
            seconds[number] = time.process_time() - start
            for key in called:
                callers.setdefault(key, set()).add(number)
        else:
            print("not used, does not pass:", item.nodeid, file=sys.__stderr__)
    return callers, seconds


def _passes(session: pytest.Session, number: int, following: int) -> bool:
    _reports.clear()
    item, next_item = session.items[number], session.items[following % len(session.items)]
    session.config.hook.pytest_runtest_protocol(item=item, nextitem=next_item)
    return all(report.passed or (report.when == "call" and report.skipped) for report in _reports)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep what a test reports, for ``_passes``."""
    _reports.append(report)


def _row(
    session: pytest.Session,
    file: str,
    source: str,
    mutant: Mutant,
    callers: dict,
    seconds: dict,
    limit: float,
) -> dict[str, object]:
    tree, before, after = mutated(source, mutant)
    changed = _changed(file, source, tree)
    called_by = set().union(*(callers.get(key, set()) for key in changed))
    tests = sorted(called_by, key=seconds.__getitem__)
    start = time.monotonic()
    outcome = _outcome(session, tests, changed, seconds, limit) if tests else "not called"
    return {
        "file": os.path.relpath(file), "line": mutant.line, "kind": mutant.kind, "before": before[:160],
        "after": after[:160], "outcome": outcome, "tests": len(tests),
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


@dataclass(frozen=True)
class _New:
    """What a function gets: its new code, or values that are evaluated for its arguments."""

    code: types.CodeType | None = None
    defaults: ast.arguments | None = None

    def put_into(self, function: types.FunctionType) -> None:
        if self.code is not None:
            function.__code__ = self.code
        if self.defaults is not None:
            function.__defaults__ = (
                tuple(self._value(node, function) for node in self.defaults.defaults) or None
            )
            named = zip(self.defaults.kwonlyargs, self.defaults.kw_defaults, strict=True)
            function.__kwdefaults__ = {
                a.arg: self._value(node, function) for a, node in named if node
            } or None

    @staticmethod
    def _value(node: ast.expr, function: types.FunctionType) -> object:
        return eval(compile(ast.Expression(node), "<default>", "eval"), function.__globals__)


def _changed(file: str, source: str, tree: ast.Module) -> dict[Key, _New]:
    """What is new, by the function's file, name and line."""
    original = ast.parse(source)
    old, new = (
        {_key(code): code for code in _codes(compile(t, file, "exec", dont_inherit=True))}
        for t in (original, tree)
    )
    changed = {key: _New(code=code) for key, code in new.items() if code != old[key]}
    for before, after in zip(outer_functions(original), outer_functions(tree), strict=True):
        if ast.dump(before.args) != ast.dump(after.args):  # defaults are evaluated where the function is made
            first = min(line.lineno for line in [before, *before.decorator_list])
            (key,) = (key for key in new if key[2] == first and key[1].split(".")[-1] == before.name)
            changed[key] = _New(defaults=after.args)
    return changed


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)


def _key(code: types.CodeType) -> Key:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _outcome(
    session: pytest.Session,
    tests: list[int],
    changed: dict[Key, _New],
    seconds: dict[int, float],
    limit: float,
) -> str:
    """Fork, change the functions, run the tests that call them."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = HARNESS
        try:
            code = _in_child(session, tests, changed, seconds, limit)
        finally:
            os._exit(code)
    give_up = time.monotonic() + 8 * limit
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > give_up:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    if os.WIFSIGNALED(status):
        return "too long" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else "killed"
    return OUTCOMES[os.WEXITSTATUS(status)]


def _in_child(
    session: pytest.Session,
    tests: list[int],
    changed: dict[Key, _New],
    seconds: dict[int, float],
    limit: float,
) -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (int(2 * limit), int(2 * limit) + 5))  # for loops without an end
    torch.set_num_threads(1)
    torch.set_num_threads = lambda number: None  # the parent's threads are not in this process
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    functions = [thing for thing in gc.get_objects() if type(thing) is types.FunctionType]
    found = [function for function in functions if _key(function.__code__) in changed]
    for function in found:
        changed[_key(function.__code__)].put_into(function)
    if not found:
        return NOT_FOUND
    _forget(functions, {function.__code__.co_filename for function in found})
    session._setupstate.teardown_exact(session.items[tests[0]])
    spent = 0.0
    for number, following in zip(tests, [*tests[1:], tests[-1]], strict=True):
        if spent > limit:
            return CUT_OFF
        if not _passes(session, number, following):
            return KILLED
        spent += seconds[number]
    return SURVIVED


def _forget(functions: list[types.FunctionType], files: set[str]) -> None:
    """Empty what functions keep of earlier calls: results of the changed files, and of sizes everywhere."""
    for cached in [thing for thing in gc.get_objects() if isinstance(thing, functools._lru_cache_wrapper)]:
        code = getattr(cached.__wrapped__, "__code__", None)
        if code is not None and code.co_filename in files:
            cached.cache_clear()
    for function in functions:
        if hasattr(function, "kept"):  # taylorir.networks.windows.cached_by_shape
            function.kept.clear()

"""The changes that mutation testing makes are the ones that it names."""

import ast

import pytest

from tests.mutation.mutants import mutants, mutated


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return x < 1", {"return None", "return x <= 1", "return x < 2", "return x < 0"}),
        ("return x + y", {"return None", "return x - y"}),
        ("return x and y", {"return None", "return x or y"}),
        ("return -x", {"return None", "return x"}),
        ("return not x", {"return None", "return bool(x)"}),
        ("return f(x, y)", {"return None", "return f(y, x)"}),
        ("return max(x, y)", {"return None"}),
        ("return f(x, x)", {"return None"}),
        ("x += y", {"if False:\n    x += y"}),
        ("if x:\n    f()", {"if True:\n    f()", "if False:\n    f()", "if x:\n    if False:\n        f()"}),
        ("raise ValueError(x, 1)", {"if False:\n    raise ValueError(x, 1)"}),
        ("logger.info('%s', 1)", set()),
        ("return None", set()),
    ],
)
def test_each_change_of_a_function(body: str, expected: set[str]) -> None:
    def module(lines: str) -> str:
        return "def g(x, y):\n" + "\n".join("    " + line for line in lines.splitlines())

    source = module(body)
    changed = {ast.unparse(mutated(source, mutant)[0]) for mutant in mutants(source)}
    assert changed == {module(lines) for lines in expected}


def test_default_values_change_and_annotations_do_not() -> None:
    source = "def g(x: int = 3, *, y: 'f(1, 2)' = True) -> 'f(1, 2)':\n    pass"
    changed = {mutated(source, mutant)[2] for mutant in mutants(source)}
    assert changed == {"4", "2", "False"}


def test_what_lies_outside_functions_stays() -> None:
    assert mutants("LIMIT = 3\n\n\nclass A:\n    size = 4\n") == []

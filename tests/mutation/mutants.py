"""Small changes of a source file, as faults that tests should see.

A mutant changes one thing inside a function: a comparison, an operator, a constant, a condition, the order of
two arguments; or it leaves out a statement, a ``raise`` or a result. Types, decorators, the text of messages
and of logs are left alone, and so are arguments whose order means nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.MatMult: ast.Add, ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}  # fmt: skip
#: Calls whose first two arguments may change places: a mutant of them is the same program.
_SYMMETRIC = {
    "transpose", "swapaxes", "max", "min", "maximum", "minimum", "intersect1d", "mark_non_differentiable",
    "gcd", "lcm",
}  # fmt: skip
#: Calls that ask about an object: with their arguments exchanged they fail at once, which shows nothing.
_QUESTIONS = {"isinstance", "issubclass", "hasattr", "getattr", "setattr"}
_LOGGING = {"debug", "info", "warning"}

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        kind: "compare", "operator", "and/or", "sign", "constant", "condition", "exchange", "result",
            "leave out".
        line: where, counted from 1.
        node: which node of the tree, in the order of ``ast.walk``.
        choice: which change of that node.
    """

    kind: str
    line: int
    node: int
    choice: object = None


def mutants(source: str) -> list[Mutant]:
    """All changes inside the functions of a module, in the order of its tree."""
    tree = ast.parse(source)
    inside = {id(node) for function in outer_functions(tree) for node in ast.walk(function)}
    left_alone = {id(node) for part in _left_alone(tree) for node in ast.walk(part)}
    found = []
    for index, node in enumerate(ast.walk(tree)):
        if id(node) in inside and id(node) not in left_alone:
            found += [Mutant(kind, node.lineno, index, choice) for kind, choice in _changes(node)]
    return found


def mutated(source: str, mutant: Mutant) -> tuple[ast.Module, str, str]:
    """The changed tree, and the first lines of what was there and of what is there now."""
    tree = ast.parse(source)
    node = list(ast.walk(tree))[mutant.node]
    before = ast.unparse(node).splitlines()[0]
    new = _change(node, mutant.kind, mutant.choice)

    class Replace(ast.NodeTransformer):
        def visit(self, seen: ast.AST) -> ast.AST:
            return new if seen is node else self.generic_visit(seen)

    tree = ast.fix_missing_locations(Replace().visit(tree))
    return tree, before, ast.unparse(new).splitlines()[0]


def outer_functions(tree: ast.AST) -> Iterator[_Function]:
    """Functions and methods that lie in no other function."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, _Function):
            yield child
        else:
            yield from outer_functions(child)


def _left_alone(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, _Function):
            yield from node.decorator_list
            parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            yield from (parameter.annotation for parameter in parameters if parameter.annotation)
            yield from [node.returns] if node.returns else []
        elif isinstance(node, ast.AnnAssign):
            yield node.annotation
        elif isinstance(node, ast.Raise):
            yield from ast.iter_child_nodes(node)
        elif isinstance(node, ast.JoinedStr):
            yield node
        elif isinstance(node, ast.Call) and _name(node) in _LOGGING:
            yield node


def _changes(node: ast.AST) -> list[tuple[str, object]]:
    match node:
        case ast.Compare():
            return [("compare", place) for place, kind in enumerate(node.ops) if type(kind) in _COMPARISONS]
        case ast.BinOp(left=ast.Constant(value=str())):  # text % values
            return []
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return [("operator", None)]
        case ast.BoolOp():
            return [("and/or", None)]
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            return [("sign", None)]
        case ast.Constant(value=bool()):
            return [("constant", not node.value)]
        case ast.Constant(value=int() | float()):
            return [("constant", node.value + 1), ("constant", node.value - 1)]
        case ast.Return(value=ast.expr()) if not _is_none(node.value):
            return [("result", None)]
        case ast.Raise() | ast.AugAssign():
            return [("leave out", None)]
        case ast.Expr() if not isinstance(node.value, ast.Constant):
            logs = isinstance(node.value, ast.Call) and _name(node.value) in _LOGGING
            return [] if logs else [("leave out", None)]
        case ast.If():
            return [("condition", True), ("condition", False)]
        case ast.Call(args=[first, second, *_]) if _name(node) not in _SYMMETRIC | _QUESTIONS:
            starred = isinstance(first, ast.Starred) or isinstance(second, ast.Starred)
            return [] if starred or ast.dump(first) == ast.dump(second) else [("exchange", None)]
    return []


def _change(node: ast.AST, kind: str, choice: object) -> ast.AST:
    """The node changed in place, or what takes its place."""
    match kind:
        case "compare":
            node.ops[choice] = _COMPARISONS[type(node.ops[choice])]()
        case "operator":
            node.op = _OPERATORS[type(node.op)]()
        case "and/or":
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case "sign":
            return node.operand if isinstance(node.op, ast.USub) else _call("bool", node.operand)
        case "constant":
            return ast.Constant(choice)
        case "condition":
            node.test = ast.Constant(choice)
        case "exchange":
            node.args[:2] = node.args[1::-1]
        case "result":
            node.value = ast.Constant(None)
        case "leave out":  # still a generator, still the same free variables
            return ast.If(ast.Constant(False), [node], [])
    return node


def _call(name: str, argument: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), [argument], [])


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None

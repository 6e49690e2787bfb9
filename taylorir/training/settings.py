"""Settings by the types of their dataclass: values are checked, and texts of a command line become values."""

from __future__ import annotations

import dataclasses
import types
import typing

_WORDS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a word", type(None): "none"}


def parse_setting(config: type, name: str, text: str) -> object:
    """The value of a setting that a text stands for.

    Args:
        config: the dataclass that has the setting.
        name: a field of it.
        text: of bool ``true``, ``yes``, ``on``, ``1`` and their opposites; of None ``none``; of tuples items
            with commas between them, in brackets or not.

    Raises:
        ValueError: the text stands for no value of the field's type.
    """
    kind = typing.get_type_hints(config)[name]
    try:
        return _parse(kind, text.strip())
    except ValueError:
        raise ValueError(f"{name} must be {_describe(kind)}, got {text!r}") from None


def check_types(config: object) -> None:
    """Raises: ValueError: a field of the dataclass has a value of another type than it states."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not _fits(hints[field.name], value):
            raise ValueError(f"{field.name} must be {_describe(hints[field.name])}, got {value!r:.80}")


def _parse(kind: type, text: str) -> object:
    if options := _options(kind):
        for option in options:
            try:
                return _parse(option, text)
            except ValueError:
                continue
        raise ValueError
    if typing.get_origin(kind) is tuple:
        return _parse_tuple(typing.get_args(kind), text)
    if kind is str:
        return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    if kind is bool or kind is types.NoneType:
        words = _WORDS if kind is bool else {"none": None}
        if text.lower() not in words:
            raise ValueError
        return words[text.lower()]
    return kind(text)


def _parse_tuple(items: tuple, text: str) -> tuple:
    inner = text[1:-1] if text[:1] + text[-1:] in ("()", "[]") else text
    texts = [item.strip() for item in inner.removesuffix(",").split(",")] if inner.strip() else []
    if items[-1] is ...:
        return tuple(_parse(items[0], item) for item in texts)
    return tuple(_parse(item, text) for item, text in zip(items, texts, strict=True))


def _fits(kind: type, value: object) -> bool:
    if options := _options(kind):
        return any(_fits(option, value) for option in options)
    if typing.get_origin(kind) is tuple:
        items = typing.get_args(kind)
        if not isinstance(value, tuple):
            return False
        items = items[:1] * len(value) if items[-1] is ... else items
        return len(items) == len(value) and all(map(_fits, items, value))
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind)


def _options(kind: type) -> list[type]:
    """The types that a union allows, what any text serves for last; nothing for any other type."""
    if typing.get_origin(kind) not in (types.UnionType, typing.Union):
        return []
    return sorted(typing.get_args(kind), key=lambda one: (one is str, typing.get_origin(one) is tuple))


def _describe(kind: type) -> str:
    if options := _options(kind):
        return " or ".join(map(_describe, options))
    if typing.get_origin(kind) is not tuple:
        return _NAMES.get(kind, kind.__name__)
    items = typing.get_args(kind)
    what = {bool: "words true or false", int: "whole numbers", float: "numbers", str: "words"}[items[0]]
    return f"{what} with commas between" if items[-1] is ... else f"{len(items)} {what} with a comma between"

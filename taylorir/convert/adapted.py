"""How a module of others is given an adapter: it stays the module that it is, of a class with new methods."""

from __future__ import annotations

import functools

from torch import nn


class Adapter:
    """What is known of a class of others; by itself, that nothing in it has to change."""

    def set_window(self, window: tuple[int, int]) -> None:
        """Take windows of (rows, columns) tokens.

        Raises:
            ValueError: this family's windows cannot be changed.
        """
        raise ValueError(f"the windows of {type(self).__name__} cannot be changed")


class Adapted(Adapter, nn.Module):
    """An adapter that overrides methods of the class that it is made for.

    The instance keeps all that it has, its methods as well: its class becomes one that inherits from the
    adapter first and from its own class second.
    """

    DROPPED: tuple[str, ...] = ()
    """Parameters, buffers and modules of a position bias, an index map or a mask, which go."""

    def __reduce__(self):
        adapter, original = type(self).__bases__
        return _blank, (adapter, original), self.__dict__


def adapt(module: nn.Module, adapter: type[Adapted]) -> None:
    """Give the module the adapter's methods, and take from it what they do not need."""
    for name in adapter.DROPPED:
        for kind in (module._parameters, module._buffers, module._modules):
            kind.pop(name, None)
    module.__class__ = _adapted_class(adapter, type(module))


@functools.cache
def _adapted_class(adapter: type[Adapted], original: type[nn.Module]) -> type[nn.Module]:
    return type(f"Taylor{original.__name__}", (adapter, original), {"__module__": adapter.__module__})


def _blank(adapter: type[Adapted], original: type[nn.Module]) -> nn.Module:
    """An empty module of an adapted class, for ``copy`` and ``pickle`` to fill."""
    made = _adapted_class(adapter, original)
    return made.__new__(made)

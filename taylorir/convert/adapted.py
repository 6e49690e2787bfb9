"""How a module of others is given an adapter: all that it has stays, its class gets new methods."""

from __future__ import annotations

import functools

from torch import nn


class Adapter:
    """What is known of a class of others; by itself, that nothing in it has to change."""

    def set_window(self, window: tuple[int, int]) -> None:
        """Take windows of (rows, columns) tokens; here there are none.

        Raises:
            ValueError: this family's windows cannot be changed, or not to these.
        """


class Adapted(Adapter, nn.Module):
    """An adapter that overrides methods of the class that it is made for.

    The module that takes the place of another has all that that one had, its methods as well: its class
    inherits from the adapter first and from the other's class second.
    """

    DROPPED: tuple[str, ...] = ()
    """Parameters, buffers and modules of a position bias, an index map or a mask, which go."""

    def __reduce__(self):
        adapter, original = type(self).__bases__
        return _blank, (adapter, original), self.__dict__


def adapted(module: nn.Module, adapter: type[Adapted]) -> nn.Module:
    """The module with the adapter's methods, and without what they do not need."""
    made = _blank(adapter, type(module))
    made.__dict__.update(module.__dict__)
    for name in adapter.DROPPED:
        for kind in (made._parameters, made._buffers, made._modules):
            kind.pop(name, None)
    return made


@functools.cache
def _adapted_class(adapter: type[Adapted], original: type[nn.Module]) -> type[nn.Module]:
    return type(f"Taylor{original.__name__}", (adapter, original), {"__module__": adapter.__module__})


def _blank(adapter: type[Adapted], original: type[nn.Module]) -> nn.Module:
    """An empty module of an adapted class, for ``copy`` and ``pickle`` to fill."""
    made = _adapted_class(adapter, original)
    return made.__new__(made)

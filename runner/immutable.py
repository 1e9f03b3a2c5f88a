"""Immutable classes: `dataclass(frozen=True, slots=True)`, made in a third of the time.

The decorator of the standard library compiles six functions for each class, which was a fifteenth of what `validate`
does with Python 3.11. This one compiles `__init__`; the classes share the others, which are slower: not for hot paths.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # so that type checkers know what is immutable
else:

    def dataclass(*, frozen: bool, slots: bool, kw_only: bool = False) -> Any:
        """Return the decorator of a class. `frozen` and `slots` must be true."""
        assert (frozen, slots) == (True, True)

        def decorate(cls: type) -> type:
            made = dataclasses.dataclass(repr=False, eq=False, slots=True, kw_only=kw_only)(cls)
            for name in ("__setattr__", "__delattr__", "__eq__", "__hash__", "__repr__"):
                setattr(made, name, vars(_Methods)[name])
            return made

        return decorate


class _Methods:
    """The methods that all classes share."""

    def __setattr__(self: Any, name: str, value: object) -> None:
        if hasattr(self, name) or name not in self.__dataclass_fields__:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return _compared(self) == _compared(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self) -> int:
        return hash(_compared(self))

    def __repr__(self) -> str:
        shown = [f"{field.name}={getattr(self, field.name)!r}" for field in _fields(self) if field.repr]
        return f"{self.__class__.__qualname__}({', '.join(shown)})"


def _fields(value: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(value)


def _compared(value: object) -> tuple[object, ...]:
    return tuple([getattr(value, field.name) for field in _fields(value) if field.compare])

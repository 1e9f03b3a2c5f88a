"""Reads annotations from source code: finds their type, or that they are not `runner.Message`, if that is certain."""

from __future__ import annotations

import ast
import builtins
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from runner.message import Message
from runner.pipeline.annotations import EMPTY, Unresolved, message_bound_by

OTHER = object
"""A type that is certainly not `runner.Message`, but otherwise unknown: any value may fit it."""

_MAX_DEPTH = 5
_UNKNOWN = Unresolved("")
_GENERICS = (list, dict, tuple, set, frozenset)
_TYPES: Mapping[str, Any] = {
    item.__name__: item for item in (bool, int, float, complex, str, bytes, object, *_GENERICS)
}


class Names(NamedTuple):
    """The names that a module or class defines, whether they are complete, and the package for relative imports.

    `assigned` are the attributes that the module sets, as in `Service.handle`.
    """

    made: Mapping[str, ast.stmt | None]
    is_complete: bool
    package: str = ""
    assigned: frozenset[str] = frozenset()

    @classmethod
    def none(cls) -> Names:
        """Return the names of a module without source."""
        return cls({}, False)


Follow = Callable[[ast.ImportFrom, Names], Names]
"""Returns the names of the module that a statement imports from."""


def read_annotation(node: ast.expr | None, names: Names, follow: Follow) -> Any:
    """Return the type of an annotation, OTHER, or Unresolved if it may be `runner.Message`."""
    return EMPTY if node is None else _Reading(names, follow, _MAX_DEPTH).type_of(node)


class _Reading:
    """Reads the annotations of a module, and follows imports through up to `depth` modules."""

    def __init__(self, names: Names, follow: Follow, depth: int) -> None:
        self._names = names
        self._follow = follow
        self._depth = depth

    def type_of(self, node: ast.expr) -> Any:
        """Return the type that a node stands for."""
        match node:
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=str(text)):
                try:
                    return self.type_of(ast.parse(text, mode="eval").body)
                except SyntaxError:
                    return _UNKNOWN
            case ast.Name(id=name):
                return self._named(name)
            case ast.Attribute(value=inner, attr=attribute):
                owner = self.type_of(inner)
                return getattr(owner, attribute, _UNKNOWN) if isinstance(owner, types.SimpleNamespace) else _part(owner)
            case ast.Subscript(value=generic, slice=inner):
                match ast.unparse(generic).rpartition(".")[2], inner:
                    case "Literal", _:
                        return OTHER
                    case "Annotated", ast.Tuple(elts=[first, *_]):
                        found = self.type_of(first)
                        return OTHER if _is_exact(found) else found
                return self._generic(self.type_of(generic), inner)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return _union(self.type_of(left), self.type_of(right))
        return _UNKNOWN

    def _named(self, name: str) -> Any:
        if name not in self._names.made:
            is_builtin = self._names.is_complete and hasattr(builtins, name)
            return _TYPES.get(name, OTHER) if is_builtin else _UNKNOWN
        match self._names.made[name]:
            case ast.ClassDef():
                return OTHER
            case ast.Import() | ast.ImportFrom() as statement if name in (bound := dict(message_bound_by(statement))):
                return bound[name]
            case ast.Import(names=aliases) if all(_is_standard(alias.name) for alias in aliases):
                return OTHER
            case ast.ImportFrom(module=str(module), level=0) if _is_standard(module):
                return OTHER
            case ast.ImportFrom() as statement if self._depth:
                original = next(item.name for item in statement.names if (item.asname or item.name) == name)
                return _Reading(self._follow(statement, self._names), self._follow, self._depth - 1)._named(original)
        return _UNKNOWN

    def _generic(self, generic: Any, inner: ast.expr) -> Any:
        """Return the type `generic[inner]`."""
        items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        arguments = [... if _is_dots(item) else self.type_of(item) for item in items]
        if generic in _GENERICS and all(item is Message or _is_exact(item) for item in arguments):
            return generic[tuple(arguments)]
        return OTHER if _is_certain(generic) and all(_is_certain(item) for item in arguments) else _UNKNOWN


def _union(left: Any, right: Any) -> Any:
    if not (_is_certain(left) and _is_certain(right)):
        return _UNKNOWN
    return OTHER if OTHER in (left, right) or left is right is None else left | right


def _part(owner: Any) -> Any:
    """Return the type of an attribute of a module or class."""
    return OTHER if owner is OTHER else _UNKNOWN


def _is_certain(found: Any) -> bool:
    """Whether a type is known, and is not `runner.Message`."""
    return not isinstance(found, Unresolved | types.SimpleNamespace) and found is not Message


def _is_exact(found: Any) -> bool:
    """Whether a type is known exactly."""
    return _is_certain(found) and found is not OTHER


def _is_dots(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names

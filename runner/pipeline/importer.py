"""Imports the objects that import paths such as `handlers.orders:place` name, or says exactly why that fails."""

from __future__ import annotations

import builtins
import importlib
import inspect
import sys
from types import ModuleType
from typing import Any

from runner.pipeline.import_guard import guarded
from runner.pipeline.import_problems import ImportProblem, bare_method, missing_attribute, missing_module

EFFECTS: dict[str, list[ImportProblem]] = {}
"""Warnings about what modules have done when they were imported, until they are reported."""


def import_object(path: str) -> Any:
    """Return the object that `module:attribute` names. Runs the code of the module. Raises ImportProblem."""
    return _walk(path)[1]


def import_callable(path: str) -> Any:
    """Return the object like `import_object`. Raises ImportProblem for a method without an object, too."""
    owner, found = _walk(path)
    name = path.rpartition(".")[2]
    is_function = inspect.isclass(owner) and inspect.isfunction(found)
    if is_function and not isinstance(inspect.getattr_static(owner, name, None), staticmethod):
        raise bare_method(path, owner.__name__)
    return found


def _walk(path: str) -> tuple[Any, Any]:
    """Return the object that an import path names, after its owner."""
    module_name, _, attribute = path.partition(":")
    owner: Any = None
    found: Any = _import_module(module_name)
    file = getattr(found, "__file__", None)
    before = ""
    for part in attribute.split("."):
        owner = found
        try:
            found = getattr(owner, part)
        except AttributeError:
            names = [f"{before}{name}" for name in _public_names(owner)]
            has_more = attribute != f"{before}{part}"
            raise missing_attribute(module_name, f"{before}{part}", names, file, has_more=has_more) from None
        except Exception as error:  # a property runs the user's code
            raise _explained(module_name, error) from None
        before = f"{before}{part}."
    return owner, found


def import_exception(path: str) -> type[BaseException]:
    """Return the exception class that `TimeoutError` or `package.module:Class` names. Raises ImportProblem."""
    found = import_object(path) if ":" in path else getattr(builtins, path, None)
    if isinstance(found, type) and issubclass(found, BaseException):
        return found
    if found is None:
        names = [
            name
            for name, value in vars(builtins).items()
            if isinstance(value, type) and issubclass(value, BaseException)
        ]
        import difflib

        guess = difflib.get_close_matches(path, names, n=1)
        hint = f'did you mean "{guess[0]}"?' if guess else 'write "package.module:Class" for one of your own'
        raise ImportProblem("unknown-exception", f'"{path}" is not an exception of Python', hint)
    raise ImportProblem(
        "not-an-exception",
        f'"{path}" is not an exception class',
        "name a class derived from Exception",
        is_attribute=True,
    )


def _import_module(name: str) -> ModuleType:
    if (known := sys.modules.get(name)) is not None:
        return known
    with guarded(name) as guard:
        try:
            made = importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or name
            if name == missing or name.startswith(f"{missing}."):
                raise missing_module(name, missing) from None
            raise _explained(name, error) from None
        except BaseException as error:  # the import of a module may raise anything, even SystemExit
            if isinstance(error, KeyboardInterrupt) and guard.was_interrupted:
                raise
            raise _explained(name, error) from None
    EFFECTS[name] = []
    for effect in guard.effects:
        from runner.pipeline.import_failures import explain_effect

        EFFECTS[name].append(explain_effect(name, effect))
    return made


def _explained(module: str, error: BaseException) -> ImportProblem:
    from runner.pipeline.import_failures import explain_failure  # only for modules with mistakes

    return explain_failure(module, error)


def _public_names(owner: Any) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_")]

"""Imports the objects that import paths such as `handlers.orders:place` name, or says exactly why that fails."""

from __future__ import annotations

import builtins
import difflib
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from runner.config.diagnostics import display_path
from runner.config.messages import closest
from runner.outcome import error_text, error_type
from runner.pipeline.codec import summary

_NAME = re.compile(r"ImportError: cannot import name '[^']*'")
_ADVICE = re.compile(r" \(consider renaming '.*' if it has the same name as a library you intended to import\)$")


class ImportProblem(Exception):
    """Why an import path is wrong. `is_attribute` says that the name is wrong, not the module."""

    def __init__(self, code: str, message: str, hint: str = "", *, is_attribute: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint
        self.is_attribute = is_attribute


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


def bare_method(path: str, owner: str) -> ImportProblem:
    """Return the problem of a method that is named by its class, and would be called without an object."""
    module, _, attribute = path.partition(":")
    name, method = owner.lower(), attribute.rpartition(".")[2]
    hint = f'make one in the module, as in `{name} = {owner}(…)`, and write "{module}:{name}.{method}"'
    what = f'"{path}" is a method, and needs an object of class {owner}'
    return ImportProblem("wrong-parameters", what, f"{hint}, or make it a @staticmethod", is_attribute=True)


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
            raise missing_attribute(module_name, f"{before}{part}", names, file) from None
        except Exception as error:  # a property runs the user's code
            raise _failed(module_name, error) from None
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
        guess = difflib.get_close_matches(path, names, n=1)
        hint = f'did you mean "{guess[0]}"?' if guess else 'write "package.module:Class" for one of your own'
        raise ImportProblem("unknown-exception", f'"{path}" is not an exception of Python', hint)
    raise ImportProblem(
        "not-an-exception",
        f'"{path}" is not an exception class',
        "name a class derived from Exception",
        is_attribute=True,
    )


def missing_attribute(module: str, attribute: str, names: Iterable[str], file: str | None) -> ImportProblem:
    """Return the problem of a name that a module does not define."""
    where = f" ({display_path(file)})" if file else ""
    guess = closest(attribute, names)
    hint = f'did you mean "{guess}"?' if guess else f'define "{attribute}" in it, or correct the name'
    return ImportProblem(
        "attribute-not-found", f'module "{module}"{where} has no "{attribute}"', hint, is_attribute=True
    )


def missing_module(module: str, missing: str, path: Sequence[str] | None = None) -> ImportProblem:
    """Return the problem of a module that is not found on an import path, by default `sys.path`."""
    path = sys.path if path is None else path
    looked = ", ".join(dict.fromkeys(display_path(entry) for entry in path if entry and _is_of_the_user(entry)))
    what = (
        f'module "{module}" not found' if missing == module else f'module "{module}" not found: there is no "{missing}"'
    )
    hint = f"looked in {looked or 'no folder of yours'}; `python_path:` adds folders"
    guess = closest(missing, _modules_of_the_user(path)) if "." not in missing else None
    if module.endswith(".py"):
        hint = f'write "{module.removesuffix(".py")}", without the ending of the file'
    elif guess:
        hint = f'did you mean "{guess}{module.removeprefix(missing)}"? {hint}'
    return ImportProblem("module-not-found", what, hint)


def module_failed(module: str, what: str, place: str) -> ImportProblem:
    """Return the problem of a module whose import fails."""
    hint = f"see {place}" if place else "import it in a Python shell to see more"
    return ImportProblem("module-failed", f'module "{module}" failed to import: {what}', hint)


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise missing_module(name, missing) from None
        raise _failed(name, error) from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the import of a module may raise anything, even SystemExit
        raise _failed(name, error) from None


def _failed(name: str, error: BaseException) -> ImportProblem:
    """Return the problem of a module, with its error in one line and the innermost line of the user's code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_foreign(frame.filename)]
    place = ""
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{display_path(error.filename)}:{error.lineno}"
    elif frames:
        innermost = ([frame for frame in frames if _is_of_the_user(frame.filename)] or frames)[-1]
        place = f"{display_path(innermost.filename)}:{innermost.lineno}"
    return module_failed(name, _line_of(error, {frame.filename for frame in frames}), place)


def _line_of(error: BaseException, importing: Container[str]) -> str:
    """Return an error in one line, without paths, and the same in each version of Python.

    For a circular import, Python up to 3.12 says so; later versions advise renaming a module.
    """
    what = in_one_line(error)
    if not isinstance(error, ImportError) or not error.path:
        return _ADVICE.sub("", what)
    circular = _NAME.match(what) if error.path in importing else None
    if circular is not None:
        return f"{circular[0]} from '{error.name}', which is itself being imported (a circular import)"
    return _ADVICE.sub("", what.replace(f" ({error.path})", ""))


def in_one_line(error: BaseException) -> str:
    """Return the type and the text of an error; for pydantic's without the input, which may be secret."""
    if isinstance(error, ValidationError):
        return f"ValidationError for {error.title}: {summary(error, whole=error.title)}"
    text = error.msg if isinstance(error, SyntaxError) else error_text(error)
    return f"{error_type(error)}: {' '.join(text.split())}".removesuffix(": ")


def _is_foreign(filename: str) -> bool:
    """Whether a frame is neither in this module nor in the import machinery."""
    return not filename.startswith("<frozen") and filename != __file__ and filename != importlib.__file__


def _is_of_the_user(entry: str) -> bool:
    return not entry.startswith(sys.prefix) and not entry.startswith(sys.base_prefix) and not entry.endswith(".zip")


def _modules_of_the_user(path: Sequence[str]) -> list[str]:
    """Return the names of the modules and packages in the user's folders of an import path."""
    found: dict[str, None] = {}
    for entry in path:
        if entry and _is_of_the_user(entry) and os.path.isdir(entry):
            files = sorted(Path(entry).iterdir())
            found.update(dict.fromkeys(file.stem for file in files if file.suffix == ".py" or file.is_dir()))
    return [name for name in found if name.isidentifier()]


def _public_names(owner: Any) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_")]

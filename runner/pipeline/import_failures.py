"""Explains the error of a module's import: the place in the user's code, what is wrong there, and what to write."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import glob
import importlib
import importlib.util
import inspect
import itertools
import linecache
import os
import re
import shlex
import sys
import traceback
import typing
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic.errors import PydanticUserError

from runner.config.diagnostics import display_path
from runner.config.messages import closest, did_you_mean
from runner.outcome import error_text, error_type
from runner.pipeline.data_errors import validation_errors
from runner.pipeline.distributions import FREQUENT_NAMES, OWN, how_to_get, is_package, likely_module
from runner.pipeline.handler_objects import without_library
from runner.pipeline.import_effects import Effect
from runner.pipeline.import_problems import (
    EFFECT,
    ImportProblem,
    Place,
    field_place,
    folders_of_the_user,
    is_of_the_user,
    missing_help,
    module_failed,
    not_python,
    place_of,
    source_of,
)
from runner.tables import filled, read_kind, read_table

_ADVICE = re.compile(r" \(consider renaming '.*' if it has the same name as a library you intended to import\)$")
_UNCHECKABLE = re.compile(r"Unable to generate pydantic-core schema for (?:<class '([^']+)'>|(\S+?))\. ")
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_READS_VARIABLE = re.compile(r"""(?:getenv|environ\.get)\(\s*["'](\w+)["']""")
_MAX_TEXT = 300


class Frame(NamedTuple):
    """One call of the user's code: its file, line, the name of its module, and whether it is at the top of it."""

    file: str
    line: int
    module: str
    is_top: bool
    names: dict[str, Any]


class Failure:
    """The error of an import, with the frames of the user's code, outermost first."""

    def __init__(self, module: str, error: BaseException) -> None:
        self.error = error
        found = list(_frames(error))
        self.frames = [frame for frame in found if is_of_the_user(frame.file)]
        self.is_in_library = bool(found and self.frames and found[-1] is not self.frames[-1])
        self.innermost = self.frames[-1] if self.frames else None
        tops = [frame for frame in self.frames if frame.is_top]
        self.statement = tops[-1] if tops else self.innermost
        self.module = self.statement.module if self.statement else module

    def problem(self, what: str, hint: str, place: Place | None) -> ImportProblem:
        """Return the problem."""
        return module_failed(self.module, what, hint, place)

    def at(self, frame: Frame | None, word: str = "") -> Place | None:
        """Return the place of a word, or of the whole line of a frame."""
        return place_of(frame.file, frame.line, word) if frame is not None else None


def explain_failure(module: str, error: BaseException) -> ImportProblem:
    """Return the problem of a module whose import raised an error."""
    if isinstance(error, SyntaxError | UnicodeDecodeError) or (
        isinstance(error, ValueError) and "null bytes" in str(error)  # a SyntaxError since Python 3.11.4
    ):
        file = getattr(error, "filename", None) or _file_of(module)
        if file and is_of_the_user(file):
            return not_python(_name_of(file) or module, file, error)
    failure = Failure(module, error)
    for explain in _EXPLANATIONS:
        found = explain(failure)
        if found is not None:
            return found
    return failure.problem(f"failed to import: {in_one_line(error)}", _help_for(failure), failure.at(failure.innermost))


def explain_effect(module: str, effect: Effect) -> ImportProblem:
    """Return the warning about something that a module does when it is imported."""
    subject, at = effect
    name = _name_of(at.file) if at is not None else ""
    rows = (row for row in read_table("runner.pipeline", "import_failures.txt", 4) if row[0] == "warning")
    found = ((what, help_, match) for _, what, help_, pattern in rows if (match := re.search(pattern, subject)))
    what, help_, match = next(found)  # the table has a row for each
    text = f'module "{name or module}" {filled(what, match.groupdict())}'
    return ImportProblem(EFFECT, text, filled(help_, match.groupdict()), place=at)


def _type_of(source: str) -> str:
    """Return the name of the type of a literal, `int` for other expressions."""
    try:
        value = ast.literal_eval(source)
    except (SyntaxError, ValueError):
        return "int"
    return "str | None" if value is None else type(value).__name__


def in_one_line(error: BaseException) -> str:
    """Return the type and the text of an error; for pydantic's without the input, which may be secret."""
    if isinstance(error, ValidationError):
        return f"{error.title} cannot be made: {validation_errors(error, whole=error.title)}"
    text = error.msg if isinstance(error, SyntaxError) else error_text(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename else "")
    text = re.split(r"For further information visit| See https?:", text)[0]
    text = _ADVICE.sub("", " ".join(text.split()))
    text = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
    return f"{error_type(error)}: {text}".removesuffix(": ")


def _frames(error: BaseException) -> Iterator[Frame]:
    own = (importlib.__file__, os.path.dirname(__file__) + os.sep)
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if not file.startswith(("<", *own)):  # generated code is in no file
            is_top = frame.f_code.co_name == "<module>"
            yield Frame(file, line or 1, str(frame.f_globals.get("__name__")), is_top, frame.f_globals)


def _file_of(module: str) -> str:
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # a package above it may be the one that fails
        return ""
    return spec.origin or "" if spec is not None else ""


def _name_of(file: str) -> str:
    """Return the name of the module that a file has on the import path, "" if it has none."""
    path = os.path.realpath(file)
    folders = [os.path.realpath(entry) + os.sep for entry in sys.path if entry]
    inside = path.removeprefix(max(filter(path.startswith, folders), key=len, default=path))
    return inside.removesuffix(".py").replace(os.sep, ".").removesuffix(".__init__")


# Imports within the module


def _missing_module(failure: Failure) -> ImportProblem | None:
    """Explain an import of a module that is not there, together with the others of the file."""
    error, frame = failure.error, failure.statement
    if not isinstance(error, ModuleNotFoundError) or not error.name or frame is None:
        return None
    name, top = error.name, error.name.partition(".")[0]
    parent, _, last = name.rpartition(".")
    folders = folders_of_the_user(sys.path)
    what, place = f'imports "{name}", which is not found', failure.at(frame, last)
    if failure.is_in_library:
        matter, hint = how_to_get([name])
        what, place = f'needs "{name}", {matter}', failure.at(frame)
    elif not is_package(top) and (found := missing_help(name, name, folders, likeness=0.8)):
        hint = found
    elif parent and importlib.util.find_spec(top) is not None:
        hint = "correct the name, or install a version of the package that has it"
        if top == "runner":
            hint = f'write "{linecache.getline(frame.file, frame.line).strip().replace(name, top)}"'
        what, place = f'imports "{name}", which the installed "{top}" does not have', failure.at(frame)
    elif likely := likely_module(top):
        hint = f'did you mean "{likely}"?{_other_lines(frame, top)}'
    elif top in OWN:
        hint = f"create {top}.py, or add the folder that has it under `python_path:`"
    else:
        names = list(dict.fromkeys([top, *_missing_imports(frame)]))
        matter, hint = how_to_get(names)
        hint = _without_decorators(frame, top) or hint
        listed = '" and "'.join(names)
        what = f'imports "{listed}", {matter}'
    return failure.problem(what, hint, place)


def _other_lines(frame: Frame, name: str) -> str:
    """Return the rest of the help for a misspelt name that stands in other lines, too."""
    nodes = (node for statement in source_of(frame.file) for node in ast.walk(statement))
    uses = {node.lineno for node in nodes if isinstance(node, ast.Name) and node.id == name} - {frame.line}
    return f" {_lines_of(uses).capitalize()} {'has' if len(uses) == 1 else 'have'} it, too" if uses else ""


def _lines_of(numbers: Collection[int]) -> str:
    *most, last = map(str, sorted(numbers))
    return f"lines {', '.join(most)} and {last}" if most else f"line {last}"


def _without_decorators(frame: Frame, library: str) -> str:
    """Return the help for a library that is only needed to register handlers with it; "" for others."""
    names: set[str] = set()
    objects, decorators, others = set[int](), set[int](), False
    texts: list[str] = []
    for node in source_of(frame.file):
        if isinstance(node, ast.Import | ast.ImportFrom):
            source = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            is_it = (source or "").partition(".")[0] == library
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names} if is_it else set()
            continue
        if isinstance(node, ast.Assign) and _names_in(node.value) & names:
            objects.add(node.lineno)
            names |= {item.id for item in node.targets if isinstance(item, ast.Name)}
            continue
        inner = node.decorator_list if isinstance(node, _DEFINITIONS) else []
        found = [item for item in inner if _names_in(item) & names]
        decorators |= {item.lineno for item in found}
        texts += [without_library(node)] if found and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []
        others = others or bool(_names_in(node, without=found) & names)
    if not decorators or others:
        return ""
    made = f", {_lines_of(objects)}" if objects else ""
    kind = "decorator" if len(decorators) == 1 else "decorators"
    more = "".join(f", and {text}" for text in texts[:1] if text)
    return f"handlers are plain functions: remove this import{made} and the {kind} in {_lines_of(decorators)}{more}"


def _names_in(node: ast.AST, without: Sequence[ast.AST] = ()) -> set[str]:
    """Return the names that an expression or a statement uses, without some of its parts."""
    left_out = {item for part in without for item in ast.walk(part)}
    return {item.id for item in ast.walk(node) if isinstance(item, ast.Name) and item not in left_out}


def _missing_imports(frame: Frame) -> Iterator[str]:
    """Yield the modules that the statements after a failed import need, and that are not there either."""
    for node in source_of(frame.file):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in names if node.lineno > frame.line else []:
            top = name.partition(".")[0]
            if top not in sys.modules and top not in OWN and importlib.util.find_spec(top) is None:
                yield top


def _wrong_name(failure: Failure) -> ImportProblem | None:
    """Explain `from module import name` for a name that the module does not have, or does not have yet."""
    error, frame = failure.error, failure.statement
    if not isinstance(error, ImportError) or not error.path or not error.name or frame is None:
        return None
    found = re.search(r"cannot import name '([^']+)'", str(error))
    if found is None or failure.is_in_library:
        return None
    name, place = found[1], failure.at(frame, found[1])
    if error.name == "runner":
        return _name_of_runner(failure, frame)
    if error.name == "mqrunner":  # the name of the distribution
        line = linecache.getline(frame.file, frame.line).strip()
        what = f'imports "{name}" from "mqrunner", which is only the name of the package that is installed'
        return failure.problem(what, f'write "{line.replace("mqrunner", "runner", 1)}"', failure.at(frame, "mqrunner"))
    known = [item for item in dir(sys.modules.get(error.name)) if not item.startswith("_")]
    guess = closest(name, known)
    where = display_path(error.path) if is_of_the_user(error.path) else f'the installed "{error.name}"'
    hint = (
        f'did you mean "{guess}"?{_other_lines(frame, name)}' if guess else f"define it in {where}, or correct the name"
    )
    of_python = error.name in ("typing", "warnings", "types", "collections.abc")
    later = of_python and hasattr(sys.modules["typing_extensions"], name)  # pydantic needs it
    owner = FREQUENT_NAMES.get(name) or ("typing_extensions" if later else "")
    if owner and not is_of_the_user(error.path):
        hint = f'write "from {owner} import {name}"{_other_names(frame.file, frame.line, name)}'
    return failure.problem(f'imports "{name}" from "{error.name}", which has no such name', hint, place)


def _name_of_runner(failure: Failure, frame: Frame) -> ImportProblem:
    """Explain names of other libraries that a module imports from `runner`, all of one statement at once."""
    statement = next(
        (node for node in source_of(frame.file) if node.lineno <= frame.line <= (node.end_lineno or 0)), None
    )
    aliases = statement.names if isinstance(statement, ast.ImportFrom) else []
    public = sys.modules["runner"].__all__
    wrong = [alias.name for alias in aliases if not hasattr(sys.modules["runner"], alias.name)]
    rows = read_kind("runner.pipeline", "handler_styles.txt", "name").items()
    known = {name: text for names, text in rows for name in names.split()}
    hints = []
    for name in wrong:
        guess = closest(name, public)
        meant = f'did you mean "{guess}"?' if guess else f"it has {', '.join(public)}"
        others = _other_lines(frame, name)
        text = known.get(name, meant)
        hints.append(f"{text}{others}" if text.endswith("?") or not others else f"{text} ({others.strip().lower()})")
    listed = " and ".join(f'"{name}"' for name in wrong)
    shown = (
        hints[0] if len(wrong) == 1 else "; ".join(f"{name}: {hint}" for name, hint in zip(wrong, hints, strict=True))
    )
    what = f'imports {listed} from "runner", which has no such name{"s"[: len(wrong) > 1]}'
    return failure.problem(what, shown, failure.at(frame, wrong[0] if wrong else ""))


def typed_dict_of_typing(annotation: Any, error: Exception) -> ImportProblem | None:
    """Return the problem of a TypedDict that pydantic cannot check, with the place of its import."""
    if "typing_extensions.TypedDict" not in str(error):
        return None
    what, hint = "makes a TypedDict of typing, which pydantic cannot check before Python 3.12", "typing_extensions"
    module, hint = annotation.__module__, f'write "from {hint} import TypedDict"'
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    found = (number for number, text in enumerate(linecache.getlines(file), 1) if re.search("import.*TypedDict", text))
    if line := next(found, 0):
        hint += _other_names(file, line, "TypedDict")
    return module_failed(module, what, hint, place_of(file, line, "TypedDict") if line else None)


def _other_names(file: str, line: int, name: str) -> str:
    """Return the rest of the help for one of several names of an import: the others stay."""
    for node in source_of(file):
        if isinstance(node, ast.ImportFrom) and node.lineno <= line <= (node.end_lineno or 0):
            others = [alias for alias in node.names if alias.name != name]
            kept = ast.unparse(ast.ImportFrom(node.module, others, node.level))
            return f' and "{kept}" in place of this line' if others else ""
    return ""


def _circle(failure: Failure) -> ImportProblem | None:
    """Explain modules that import each other: the module that lacks a name is one of those whose imports run."""
    error, frame = failure.error, failure.statement
    if not isinstance(error, AttributeError | ImportError) or frame is None:
        return None
    other = error.name if isinstance(error, ImportError) else getattr(error.obj, "__name__", None)
    if not any(item.is_top and item.module == other for item in failure.frames):
        return None
    what, hint = f'imports "{other}", which imports it in turn', f'use "{other}" only inside of functions here'
    found = re.search(r"cannot import name '([^']+)'", str(error))
    if frame.module == other:
        what, hint = "imports itself", "remove this import, or give the module another name"
    elif found is not None:
        hint = _way_out(frame, found[1])
    return failure.problem(what, hint, failure.at(frame))


def _way_out(frame: Frame, name: str) -> str:
    """Return the help for an import that closes a circle."""
    nodes = list(ast.walk(ast.Module(source_of(frame.file), [])))
    bodies = [node.body for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inner = {item for body in bodies for statement in body for item in ast.walk(statement)}
    names = {name, *(node.asname for node in nodes if isinstance(node, ast.alias) and node.name == name)}
    uses = {node for node in nodes if isinstance(node, ast.Name) and node.id in names}
    if uses - inner:
        statements = (node for node in nodes if isinstance(node, ast.ImportFrom) and node.lineno == frame.line)
        imported = [alias.name for node in statements for alias in node.names] or [name]
        shown, own, them = '" and "'.join(imported), "its own", "it"
        if len(imported) > 1:
            own, them = "their own", "them"
        return f'move "{shown}" into a module of {own}, and import {them} from there in both'
    return (
        "move this import into the function that uses it"
        if uses
        else f'remove "{name}" here: nothing in this module uses it'
    )


def _relative_import(failure: Failure) -> ImportProblem | None:
    """Explain a relative import that leads out of the package."""
    error, frame = failure.error, failure.statement
    if not isinstance(error, ImportError) or "relative import" not in str(error) or frame is None:
        return None
    node = next((item for item in source_of(frame.file) if item.lineno == frame.line), None)
    if not isinstance(node, ast.ImportFrom):
        return None
    package = frame.module.rpartition(".")[0]
    where = f'leads out of the package "{package.partition(".")[0]}"' if package else "is not in a package"
    what = f'imports "{"." * node.level}{node.module or ""}", which {where}'
    names = ast.unparse(ast.Import(node.names)).removeprefix("import ")
    wanted = node.module or node.names[0].name
    inside = f"{package}.{wanted}" if package else wanted
    target = wanted if _file_of(wanted) and not _file_of(inside) else inside
    target = target if node.module else target.rpartition(".")[0]
    hint = f'write "from {target} import {names}"' if target else f'write "import {names}"'
    return failure.problem(what, hint, failure.at(frame))


def _in_table(failure: Failure) -> ImportProblem | None:
    """Explain what `import_failures.txt` has a row for."""
    error, text = failure.error, error_text(failure.error)
    if isinstance(error, KeyError | OSError):  # the key, or the name of the file
        text = str(error.filename or "") if isinstance(error, OSError) else str(error.args[0]) if error.args else ""
    frames = list(traceback.walk_tb(error.__traceback__))
    raiser = frames[-1][0].f_globals.get("__name__") if frames else ""
    classes = " ".join(kind.__name__ for kind in type(error).__mro__)
    subject = f"{raiser} {'library ' if failure.is_in_library else ''}{classes}: {text}"
    lines = {"statement": [*_lines(failure.statement)], "innermost": [*_lines(failure.innermost)]}
    lines["statement"] += _lines(_loop_around(failure.statement)) if "ImportTooLong" in classes else []
    for place, what, help_, pattern in read_table("runner.pipeline", "import_failures.txt", 4):
        for frame, line in lines.get(place, ()):
            if not (match := re.search(pattern, f"{subject}\n{line}")):
                continue
            shown = in_one_line(error).removeprefix("ProcessEnded: ")
            words = {"error": shown, "type": error_type(error), "text": text, "python": shlex.quote(sys.executable)}
            words |= {name: value or "" for name, value in match.groupdict().items()}
            at = failure.at(frame)
            if frame is not None and words.get("field"):
                at = field_place(frame.file, frame.line, words["field"], words.get("model", ""))
                words["rest"] = linecache.getline(frame.file, at.line).partition("=")[2].strip()
                words["kind"] = _type_of(words["rest"])
            others = _lines_with(rf"\bField\(.*\b{words['name']}=", frame) if "to Field" in what else ""
            return failure.problem(filled(what, words), f"{filled(help_, words)}{others}", at)
    return None


def _lines_with(pattern: str, frame: Frame | None) -> str:
    """Return the rest of the help for what stands in other lines of a module, too."""
    text = linecache.getlines(frame.file) if frame is not None else []
    found = [number for number, line in enumerate(text, 1) if re.search(pattern, line)]
    others = [number for number in found if frame is not None and number != frame.line]
    return f"; {_lines_of(others)} {'has' if len(others) == 1 else 'have'} it, too" if others else ""


def _loop_around(frame: Frame | None) -> Frame | None:
    """Return the place of the statement at the top of the module that a line is inside of, such as `while True:`."""
    for node in source_of(frame.file) if frame is not None else ():
        if frame is not None and node.lineno <= frame.line <= (node.end_lineno or 0):
            return frame._replace(line=node.lineno)
    return frame


def _lines(frame: Frame | None) -> Iterator[tuple[Frame | None, str]]:
    """Yield the line of a frame, and those of its class: Python 3.14 evaluates annotations at the end of it."""
    lines = linecache.getlines(frame.file)[frame.line - 1 :] if frame is not None else []
    yield frame, lines[0].rstrip() if lines else ""
    if frame is not None and lines and lines[0].lstrip().startswith("class "):
        depth = len(lines[0]) - len(lines[0].lstrip())
        block = itertools.takewhile(lambda line: not line.strip() or line[: depth + 1].isspace(), lines[1:])
        for number, line in enumerate(block, frame.line + 1):
            yield frame._replace(line=number), line.rstrip()


def _missing_file(failure: Failure) -> ImportProblem | None:
    """Explain a file that is opened by a wrong path, and that is beside the module or below it."""
    error, frame = failure.error, failure.innermost
    if not isinstance(error, FileNotFoundError) or frame is None or not isinstance(error.filename, str):
        return None
    folder, name = Path(frame.file).parent, Path(error.filename).name
    near = (path for depth in range(4) for path in sorted(folder.glob(f"{'*/' * depth}{glob.escape(name)}")))
    if (found := next(near, None)) is None:
        return None
    hint = f'write `pathlib.Path(__file__).parent / "{found.relative_to(folder)}"`, with "import pathlib" at the top'
    return failure.problem(f'opens "{name}", which is elsewhere', hint, failure.at(frame))


def _model(failure: Failure) -> ImportProblem | None:
    """Explain a pydantic model that cannot be made."""
    error, frame = failure.error, failure.innermost
    found = _UNCHECKABLE.search(str(error)) if isinstance(error, PydanticUserError) else None
    if found is None or frame is None:
        return None
    wanted, place = found[1] or found[2], failure.at(frame)
    what = f"has a model with a field of type {wanted}, which pydantic cannot check"
    hint = "annotate it with what the JSON has there, such as str or dict, and make the object in the handler"
    hint = as_dataclass(frame.names.get(wanted.rpartition(".")[2])) or hint
    mention = re.compile(rf"\s+(\w+)\s*:.*\b{wanted.rpartition('.')[2]}\b")
    for line, text in enumerate(linecache.getlines(frame.file)[frame.line :], frame.line + 1):
        if field := mention.match(text):
            what = f'has a model whose field "{field[1]}" is of type {wanted}, which pydantic cannot check'
            place = place_of(frame.file, line, field[1])
            break
    return failure.problem(what, hint, place)


def as_dataclass(owner: object) -> str:
    """Return how to make a class of the user a dataclass; "" for anything else."""
    module = sys.modules.get(getattr(owner, "__module__", ""))
    if not isinstance(owner, type) or not is_of_the_user(getattr(module, "__file__", None) or "/"):
        return ""
    hint = f'put "@dataclasses.dataclass" above "class {owner.__name__}", with "import dataclasses" at the top'
    if getattr(module, "dataclass", None) is dataclasses.dataclass:
        hint = f'put "@dataclass" above "class {owner.__name__}"'
    fields = _fields_of(owner)
    return f"{hint}, and write its fields in place of `__init__`: {', '.join(fields)}" if fields else hint


def _fields_of(owner: type) -> list[str]:
    """Return the parameters of `__init__` as fields, as in `lat: float`; none for a class without it."""
    constructor = owner.__dict__.get("__init__")
    parameters = [*inspect.signature(constructor).parameters.values()][1:] if inspect.isfunction(constructor) else []
    return [f"`{item if item.annotation is not item.empty else item.replace(annotation=Any)}`" for item in parameters]


def _wrong_validator(failure: Failure) -> ImportProblem | None:
    """Explain a validator of pydantic that names a field which the model does not have."""
    found = re.search(r"incorrect fields: (?:\w+\.)*(\w+):\w+\.(\w+)", str(failure.error))
    frame = failure.innermost
    if found is None or frame is None:
        return None
    at = field_place(frame.file, frame.line, found[2])
    fields = re.findall(r"^\s+(\w+)\s*:", "".join(linecache.getlines(frame.file)[frame.line : at.line]), re.MULTILINE)
    for line in range(at.line, frame.line, -1):
        for name in re.findall(r"""["'](\w+)["']""", linecache.getline(frame.file, line)):
            if name not in (*fields, "before", "after", "wrap", "plain"):
                what = f'has a validator of "{name}", and {found[1]} has no such field'
                return failure.problem(what, did_you_mean(name, fields), place_of(frame.file, line, name))
    return None


def _undefined(failure: Failure) -> ImportProblem | None:
    """Explain a name that is not defined."""
    error, frame = failure.error, failure.innermost
    if not isinstance(error, NameError) or not error.name or frame is None:
        return None
    defined = {node.name: node.lineno for node in source_of(frame.file) if isinstance(node, _DEFINITIONS)}
    if defined.get(error.name, 0) > frame.line:
        hint = f"move the definition of {error.name} (line {defined[error.name]}) above this line"
    else:
        hint = name_hint(error.name, [*frame.names, *defined, *dir(builtins)], frame.file)
    return failure.problem(f'uses "{error.name}", which is not defined', hint, failure.at(frame, error.name))


def name_hint(name: str, known: Sequence[str], file: str | None, where: str = "above this line") -> str:
    """Return the help for a name that a module does not define."""
    for node in source_of(file):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for item in node.body:
                aliases = item.names if isinstance(item, ast.Import | ast.ImportFrom) else []
                if any(name == (alias.asname or alias.name) for alias in aliases):
                    return f'move "{ast.unparse(item)}" out of `if {ast.unparse(node.test)}`'
    owner = "typing" if name in typing.__all__ else FREQUENT_NAMES.get(name, "")
    is_module = name in sys.stdlib_module_names and f"{name}.{name}" in "".join(linecache.getlines(file or ""))
    if owner and not is_module:
        return f'add "from {owner} import {name}" at the top of the module'
    if name in sys.stdlib_module_names:
        return f'add "import {name}" at the top of the module'
    import difflib

    names = [item for item in known if not item.startswith("_")]
    guess = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
    longer = [item for item in names if item != name and re.search(f"{name}$|^{name}[A-Z]", item)]
    guess = guess or (longer if len(longer) == 1 and len(name) > 2 else [])
    return f'did you mean "{guess[0]}"?' if guess else f"define {name} {where}, or import it"


def _help_for(failure: Failure) -> str:
    error, frame = failure.error, failure.innermost
    variable = _READS_VARIABLE.search(linecache.getline(frame.file, frame.line)) if frame is not None else None
    if variable is not None and not os.environ.get(variable[1]):
        return f"set the variable {variable[1]}: `export {variable[1]}=…`, or in a file that --env-file names"
    if isinstance(error, AttributeError) and error.name:
        inner = f"{getattr(error.obj, '__name__', '')}.{error.name}"
        if frame is not None and hasattr(error.obj, "__path__") and _file_of(inner):
            used = re.search(rf"{re.escape(inner)}[\w.]*", linecache.getline(frame.file, frame.line))
            return f'add "import {used[0].rpartition(".")[0] if used else inner}" at the top of the module'
        guess = closest(error.name, [name for name in dir(error.obj) if not name.startswith("_")])
        if guess:
            return f'did you mean "{guess}"?'
    return "correct this line: the module must be imported without an error"


_EXPLANATIONS: tuple[Callable[[Failure], ImportProblem | None], ...] = (
    _missing_module,
    _relative_import,
    _circle,
    _wrong_name,
    _wrong_validator,
    _missing_file,
    _in_table,
    _model,
    _undefined,
)

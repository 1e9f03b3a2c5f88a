"""What is wrong with an import path, and the files and names that the author may have meant. No code is run here."""

from __future__ import annotations

import ast
import itertools
import keyword
import linecache
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from runner.config.diagnostics import display_path
from runner.config.messages import closest
from runner.pipeline import sys_path
from runner.pipeline.python_source import parse_python
from runner.tables import filled, read_table

EFFECT = "import-effect"
"""The code of warnings about what a module does when it is imported."""
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_MAX_LISTED = 5
_MAX_ABOVE = 4
"""Over how many folders a package is looked for."""
_F_STRING = re.compile(r"\b[rR]?[fF][rR]?(['\"]).*\1")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Place(NamedTuple):
    """A place in a Python file. `line` and `column` count from 1."""

    file: str
    line: int
    column: int = 1
    length: int = 1


class ImportProblem(Exception):
    """Why an import path is wrong. `is_attribute` says that the name is wrong, not the module.

    `place` is where the Python file is to be corrected. With `parameter`, that is this parameter of the function that
    the path names; "" is the name of the function. `argument` is a key of `with:` that is wrong, and `bad_arguments`
    are values there that do not fit. `also` are further problems of the same function.
    """

    def __init__(
        self,
        code: str,
        message: str,
        hint: str = "",
        *,
        is_attribute: bool = False,
        place: Place | None = None,
        parameter: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint
        self.is_attribute = is_attribute
        self.place = place
        self.parameter = parameter
        self.bad_arguments: Exception | None = None
        self.argument: str | None = None
        self.also: list[ImportProblem] = []


def bare_method(path: str, owner: str) -> ImportProblem:
    """Return the problem of a method that is named by its class, and would be called without an object."""
    module, _, attribute = path.partition(":")
    name, method = owner.lower(), attribute.rpartition(".")[2]
    hint = f'make one in the module, as in `{name} = {owner}(…)`, and write "{module}:{name}.{method}"'
    what = f'"{path}" is a method, and needs an object of class {owner}'
    return ImportProblem("wrong-parameters", what, f"{hint}, or make it a @staticmethod", is_attribute=True)


def module_failed(module: str, what: str, hint: str, place: Place | None) -> ImportProblem:
    """Return the problem of a module whose import fails."""
    return ImportProblem("module-failed", f'module "{module}" {what}', hint, place=place)


def not_python(module: str, file: str, error: Exception) -> ImportProblem:
    """Return the problem of a file that is not Python, or not UTF-8."""
    encoding = _wrong_encoding(file)
    if encoding:
        bad = re.search(r"line (\d+)", encoding)
        at = Place(file, int(bad[1])) if bad else None
        return module_failed(module, f"cannot be read: {display_path(file)} is {encoding}", "save it as UTF-8", at)
    text = str(getattr(error, "msg", None) or error)
    line, column = getattr(error, "lineno", None), max(getattr(error, "offset", None) or 1, 1)
    end, end_line = getattr(error, "end_offset", None) or 0, getattr(error, "end_lineno", None)
    length = end - column if end_line == line and end > column else 1
    source = linecache.getline(file, line or 0).rstrip()
    place = Place(file, line, column, length) if line else None
    what, hint, part = _syntax_error(text, source[column - 1 : column - 1 + length], source)
    for number, other in enumerate(linecache.getlines(file), 1) if "Python 2" in what else ():
        also, write, _ = _syntax_error("Python 2", "", other.rstrip())
        hint += f"; in line {number} {write}" if number != line and also != "Python 2" and write not in hint else ""
    place = Place(file, line, part.start + 1, len(part)) if line and part else place
    return module_failed(module, f"is not valid Python: {what}", hint, place)


def _syntax_error(text: str, word: str, line: str) -> tuple[str, str, range | None]:
    """Return what is wrong in a line, what to write, and the part to underline if the message of Python has another."""
    head = f"{text}\n{word}\n"
    for what, help_, pattern in read_table("runner.pipeline", "python_syntax.txt", 3):
        if what.startswith("two values") and (slip := _misspelt_keyword(line)):
            return slip
        if match := re.search(pattern, head + line):
            words = {name: value or "" for name, value in match.groupdict().items()}
            words["close"] = _CLOSING.get(words.get("open", ""), "]" if "[" in words.get("at", "") else ")")
            part = range(*(place - len(head) for place in match.span("at"))) if words.get("at") else None
            if part is None and text.startswith("f-string") and (whole := _F_STRING.search(line)):
                part = range(*whole.span())  # before Python 3.12 it points elsewhere
            return f"it has {filled(what, words)}", filled(help_, words), part
    return _misspelt_keyword(line) or (text, "correct this line, or the one before it", None)


def _misspelt_keyword(line: str) -> tuple[str, str, range] | None:
    """Return what is wrong if a line starts with a misspelt word of Python."""
    found = re.match(r"\s*(\w{2,})(?=[\s:])", line)
    guess = closest(found[1], keyword.kwlist, likeness=0.7) if found and not keyword.iskeyword(found[1]) else None
    if found is None or guess is None:
        return None
    help_ = f'write "{guess}" in place of "{found[1]}"'
    return f'it has "{found[1]}" in place of "{guess}"', help_, range(*found.span(1))


def _wrong_encoding(file: str) -> str:
    """Return the encoding of a source file that is not UTF-8, "" if it is or says which one it has."""
    try:
        content = Path(file).read_bytes()
    except OSError:
        return ""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16, not UTF-8"
    if b"\0" in content:
        return "not a text file: it has null bytes"
    try:
        content.decode()
    except UnicodeDecodeError as error:
        head = b"\n".join(content.split(b"\n")[:2])
        is_declared = re.search(rb"^[ \t\f]*#.*?coding[:=]", head, re.MULTILINE) is not None
        return "" if is_declared else f"not UTF-8 (line {content.count(10, 0, error.start) + 1})"
    return ""


def place_of(file: str, line: int, word: str = "") -> Place:
    """Return the place of a word in a line, or of the whole line."""
    linecache.checkcache(file)
    text = linecache.getline(file, line).rstrip()
    found = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) if word else None
    if found is not None:
        return Place(file, line, found.start() + 1, len(word))
    start = len(text) - len(text.lstrip())
    return Place(file, line, start + 1, max(1, len(text) - start))


def field_place(file: str, line: int, name: str, owner: str = "") -> Place:
    """Return the place of a field, a method or a class in the class at or below a line, or in the class `owner`."""
    lines = linecache.getlines(file)
    if owner:
        line = next((number for number, text in enumerate(lines, 1) if re.match(rf"\s*class {owner}\b", text)), line)
    wanted = re.compile(rf"\s+(?:(?:class|(?:async )?def) {re.escape(name)}\b|{re.escape(name)}\s*[:=])")
    found = (number for number in range(line, len(lines)) if wanted.match(lines[number]))
    return place_of(file, next(found, line - 1) + 1, name)


# Names that a module does not have


def missing_attribute(
    module: str, attribute: str, names: Iterable[str], file: str | None, *, has_more: bool
) -> ImportProblem:
    """Return the problem of a name that a module does not define. With `has_more`, an attribute of it is named, too."""
    where = f" ({display_path(file)})" if file else ""
    message = f'module "{module}"{where} has no "{attribute}"'
    found = _hidden_definition(module, attribute, file)
    if found is not None:
        return ImportProblem("attribute-not-found", message, found[0], is_attribute=True, place=found[1])
    guess = closest(attribute, names)
    elsewhere = _defined_elsewhere(module, attribute, file)
    functions = [node.name for node in source_of(file) if isinstance(node, _FUNCTIONS)]
    guess = guess or (f"_{attribute}" if f"_{attribute}" in functions else None)
    hint = f'define "{attribute}" in it, or correct the name'
    if 0 < len(functions) <= _MAX_LISTED:
        hint += f": it has {', '.join(functions)}"
    if elsewhere:
        hint = f'it is in "{elsewhere}": write "{elsewhere}:{attribute}"'
    elif guess and has_more and guess != attribute == guess.lower():
        hint = f"add `{attribute} = {guess}(…)` to the module: {guess} is the class"
    elif guess:
        hint = f'did you mean "{guess}"?'
    return ImportProblem("attribute-not-found", message, hint, is_attribute=True)


def _hidden_definition(module: str, attribute: str, file: str | None) -> tuple[str, Place] | None:
    """Return the help and the place of a name that the module defines, but where an import does not find it."""
    if not file:
        return None
    body = source_of(file)
    owner, _, inner = attribute.partition(".")
    for node in body if inner else ():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and owner in map(_name, node.targets):
            made = f"{inner} = {owner}[{inner!r}]".replace("'", '"')
            hint = f'"{owner}" is a dict: add `{made}` to {display_path(file)}, and write "{module}:{inner}"'
            return hint, place_of(file, node.lineno, owner)
    for outer in body:
        for inside in ast.walk(outer):
            if not isinstance(inside, _FUNCTIONS) or inside is outer:
                continue
            if attribute in (inside.name, f"{_name(outer)}.{inside.name}"):
                return _how_to_reach(module, inside.name, outer), place_of(file, inside.lineno, inside.name)
    return None


def _how_to_reach(module: str, name: str, outer: ast.stmt) -> str:
    """Return the help for a function inside of another statement of a module."""
    path = f'write "{module}:{name}"'
    if isinstance(outer, ast.ClassDef):
        made, owner = outer.name.lower(), outer.name
        return f'it is a method of {owner}: add `{made} = {owner}(…)` to the module, and write "{module}:{made}.{name}"'
    if isinstance(outer, _FUNCTIONS):
        if any(isinstance(item, ast.Return) and _name(item.value) == name for item in outer.body):
            arguments = "…" if outer.args.args or outer.args.kwonlyargs else ""
            return f"{outer.name}() makes it: add `{name} = {outer.name}({arguments})` to the module, and {path}"
        return f"it is defined inside of {outer.name}(): move it out, to the left margin, and {path}"
    test = ast.unparse(outer.test).replace("'", '"') if isinstance(outer, ast.If) else ""
    where = f"under `if {test}`" if test else "in a block"
    return f"it is defined {where}, which does not run here: move it out, to the left margin"


def _name(node: ast.AST | None) -> str:
    return getattr(node, "id", "") or getattr(node, "name", "")


def _defined_elsewhere(module: str, attribute: str, file: str | None) -> str:
    """Return the module of the same folder that defines a name, "" if there is none or more than one."""
    if file is None:  # a package without __init__.py
        places = (Path(entry, *module.split("."), "__init__.py") for entry in sys.path if entry)
        file = next((str(place) for place in places if place.parent.is_dir()), "")
    if not file or sys_path.is_installed(file):
        return ""
    folder = Path(file).parent
    is_package = Path(file).name == "__init__.py"
    prefix = f"{module}." if is_package else module[: module.rfind(".") + 1]
    found = [
        f"{prefix}{other.stem}"
        for other in sorted(folder.glob("*.py"))
        if str(other) != file and other.stem.isidentifier() and other.stem not in ("__init__", "__main__", "conftest")
        if attribute in map(_name, source_of(str(other)))
    ]
    return found[0] if len(found) == 1 else ""


def source_of(file: str | None) -> list[ast.stmt]:
    """Return the statements of a Python file, none if it cannot be read or parsed."""
    if not file or not file.endswith(".py"):
        return []
    try:
        return parse_python(Path(file).read_bytes()).body
    except (SyntaxError, ValueError, OSError):
        return []


# Modules that are not found


def missing_module(module: str, missing: str, path: Sequence[str] | None = None) -> ImportProblem:
    """Return the problem of a module that is not found on an import path, by default `sys.path`."""
    path = sys.path if path is None else path
    what = f'module "{module}" not found'
    if missing != module:
        what += f': there is no "{missing}"'
    folders = folders_of_the_user(path)
    looked = ", ".join(dict.fromkeys(map(display_path, folders)))
    hint = missing_help(module, missing, folders)
    if module.endswith(".py"):
        hint = f'write "{module.removesuffix(".py")}", without the ending of the file'
    hint = hint or f"looked in {looked or 'no folder of yours'}; `python_path:` adds folders"
    return ImportProblem("module-not-found", what, hint)


def missing_help(module: str, missing: str, folders: Sequence[str], likeness: float = 0.6) -> str:
    """Return the help for a module that is not in folders of the user, "" if it may be anywhere.

    `missing` is the module, or the package of it that is not there; `likeness` that of a name it is taken for.
    """
    parent, _, name = missing.rpartition(".")
    rest, before = module.removeprefix(missing), f"{parent}." if parent else ""
    inside = [os.path.join(folder, *parent.split(".")) for folder in folders] if parent else folders
    looks = (_help_above, _help_elsewhere) if rest else (_help_elsewhere, _help_above)
    if not parent and (found := next(filter(None, (look(name, folders, rest) for look in looks)), "")):
        return found
    for folder in inside if parent else ():
        if os.path.isfile(f"{folder}.py") and os.path.isdir(folder):
            hidden, whole = display_path(f"{folder}.py"), display_path(folder)
            return f"{hidden} hides the folder {whole}/: rename one of the two, or create {whole}/__init__.py"
    if (guess := closest(name, modules_in(inside), likeness=likeness)) and guess != name:
        return f'did you mean "{before}{guess}{rest}"?'
    last = module.rpartition(".")[2]
    if last != module and any(os.path.isfile(os.path.join(folder, f"{last}.py")) for folder in folders):
        return f'did you mean "{last}"? {last}.py is there'
    if parent and (found := _help_above(module.partition(".")[0], folders, f".{module.partition('.')[2]}")):
        return found
    for folder in inside if parent else ():
        if os.path.isfile(f"{folder}.py"):
            return f'{display_path(f"{folder}.py")} is a module, not a package: write "{parent}" before the colon'
        if os.path.isdir(folder):
            return f"create {display_path(os.path.join(folder, name))}.py, or correct the name"
    return ""


def _help_elsewhere(name: str, folders: Sequence[str], rest: str) -> str:
    """Return the help for a module that is in a folder below, or whose file has a hyphen in its name.

    `rest` is what follows the name in the import path.
    """
    for folder in map(Path, folders):
        for file in _listed(str(folder)):
            if "-" in file and file.replace("-", "_") in (f"{name}.py", name):
                return f"rename {file} to {file.replace('-', '_')}: a module's name has no hyphen"
        for path in itertools.chain.from_iterable(sorted(folder.glob(f"{'*/' * depth}{name}*")) for depth in (1, 2, 3)):
            parts = path.relative_to(folder).with_suffix("").parts
            if parts[-1] != name or not all(map(str.isidentifier, parts)) or not is_of_the_user(str(path)):
                continue
            if path.suffix == ".py" or modules_in([str(path)]):
                if len(parts) == 2 and not (path.parent / "__init__.py").is_file():
                    return f"it is in {parts[0]}/: {_added(path.parent, folder)}"
                return f'did you mean "{".".join(parts)}{rest}"?'
    return ""


def _help_above(name: str, folders: Sequence[str], rest: str) -> str:
    """Return the help for a package that a folder is a part of, or that lies beside of one above it."""
    files = ["__init__.py", *([f"{rest[1:].replace('.', os.sep)}.py"] if rest else [])]
    for folder in map(Path, folders):
        for above, inner in itertools.product(folder.parents[:_MAX_ABOVE], ("", "src")):
            package = above / inner / name
            if is_of_the_user(str(package)) and any((package / file).is_file() for file in files):
                where = f'this folder is in the package "{name}"' if package in (folder, *folder.parents) else ""
                return f"{where or f'it is in {display_path(str(package.parent))}/'}: {_added(package.parent, folder)}"
    return ""


def _added(target: Path, searched: Path) -> str:
    """Return the help to add a folder, found from one that is searched, to the import path."""
    path = sys_path.python_path_to(str(target), str(searched))
    return f"add `python_path: [{path}]` at the top level of the pipeline"


def modules_in(folders: Iterable[str]) -> list[str]:
    """Return the names of the modules and packages in folders."""
    files = [file for folder in folders for file in _listed(folder)]
    names = [file.partition(".")[0] for file in files if file.endswith((".py", ".so")) or "." not in file]
    return [name for name in dict.fromkeys(names) if name.isidentifier()]


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def folders_of_the_user(path: Iterable[str]) -> list[str]:
    """Return the entries of an import path that are neither installed, nor the folder of the runner."""
    own = os.path.dirname(os.path.dirname(sys_path.PACKAGE_FILE))
    added = sys_path.added()
    return [entry for entry in path if entry and is_of_the_user(entry) and (entry != own or entry in added)]


def is_of_the_user(file: str) -> bool:
    """Whether a file or folder is neither installed, nor a part of Python or of the runner."""
    inner = os.path.join(file, "")
    others = (os.path.dirname(sys_path.PACKAGE_FILE), os.path.dirname(sys.executable))
    is_ours = any(inner.startswith(folder + os.sep) for folder in others)
    return not sys_path.is_installed(inner) and not file.endswith(".zip") and not is_ours

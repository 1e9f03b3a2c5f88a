"""Reads a pipeline file and the files that it includes into documents, each file once.

A name or a pattern in `include` is relative to the including file. Only regular files in the folder of the pipeline's
own file or below it are read. Links are resolved first, and files outside of the folder are refused without being
opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from runner.config import limits
from runner.config.document import Document, KeyPath, Node, ScalarNode, SequenceNode, child_of
from runner.config.interpolation import Interpolation, UnplacedError
from runner.config.messages import closest, describe, quoted
from runner.config.positions import Lines
from runner.config.yaml_parser import parse_yaml, read_text
from runner.errors import PipelineInvalid, Problem

_WILDCARD = re.compile(r"[*?]|\[.+\]")
_TOO_MANY_NODES = f"the pipeline's files have more than {limits.MAX_EXPANDED_NODES} keys and values together"


@dataclass(slots=True)
class IncludedFiles:
    """The documents of a pipeline, each followed by those that it includes, and the problems in them.

    `ordered` has each document after those that it includes. `files` are all files that were read, including those that
    are not YAML. `is_complete` is false if one is missing. `broken` has the problems of `${…}` with their nodes.
    """

    documents: list[Document] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    is_complete: bool = True
    ordered: list[Document] = field(default_factory=list)
    broken: list[tuple[Node, Problem]] = field(default_factory=list)


def load_includes(
    text: str | Lines,
    path: Path,
    environ: Mapping[str, str],
    index: int = 0,
    mended: Mapping[Path, Lines] = MappingProxyType({}),
) -> IncludedFiles:
    """Read the files that the text of the file `path` includes. Raises PipelineInvalid if the text is not YAML.

    The documents are numbered from `index` on. `mended` has the texts that differ from those of their files.
    """
    reader = _Reader(path, environ, index, mended)
    reader.read(text, path, (path.resolve(),))
    return reader.included


def include_nodes(document: Document) -> Iterator[tuple[KeyPath, Node]]:
    """Yield the entries of a document's `include`, with their paths."""
    node = child_of(document.root, "include")
    if isinstance(node, SequenceNode):
        yield from ((("include", index), item) for index, item in enumerate(node.nodes))
    elif node is not None:
        yield ("include",), node


class _Reader:
    """Reads the files of one pipeline, depth first."""

    def __init__(self, path: Path, environ: Mapping[str, str], index: int, mended: Mapping[Path, Lines]) -> None:
        self._mended = mended
        self.included = IncludedFiles(files=[path])
        self._index = index
        self._folder = path.parent
        self._project = path.parent.resolve()
        self._interpolation = Interpolation(environ)
        self._seen: set[Path] = {path.resolve()}
        self._weight = self._size = 0

    def read(self, text: str | Lines, path: Path, chain: tuple[Path, ...]) -> None:
        """Read a text and the files that it includes. `chain` are the real paths of the including files and its own."""
        documents = self.included.documents
        document, problems = parse_yaml(text, path, self._index + len(documents))
        self._weight += document.root.weight
        if self._weight > limits.MAX_EXPANDED_NODES and documents:
            raise UnplacedError("too-large", _TOO_MANY_NODES, "split it into several pipelines")
        problems += self._interpolation.interpolate(document, path.parent)
        self.included.broken += ((node, replace(it, file=str(path))) for node, it in self._interpolation.broken)
        documents.append(document)
        self._report(problems, path)
        for key_path, node in include_nodes(document):
            self._include(key_path, node, document, chain)
        self.included.ordered.append(document)

    def _include(self, key_path: KeyPath, node: Node, document: Document, chain: tuple[Path, ...]) -> None:
        """Read an included file. Report an error at the include."""
        if not isinstance(node, ScalarNode) or not isinstance(node.value, str) or node.is_broken:
            self.included.is_complete = False  # validation reports it
            return
        try:
            for name in self._matches(node.value, chain) if _WILDCARD.search(node.value) else [node.value]:
                self._read_file(name, chain)
        except UnplacedError as error:
            self.included.is_complete = False
            self._report([document.problem(error.code, key_path, error.message, error.help)], document.path)

    def _matches(self, pattern: str, chain: tuple[Path, ...]) -> list[str]:
        """Return the files that a pattern matches, in order, without hidden ones and without the including files."""
        parts = Path(pattern).parts
        first = next(index for index, part in enumerate(parts) if _WILDCARD.search(part))
        if any(part == ".." or ("**" in part and part != "**") for part in parts[first:]):
            help_ = 'write ".." before the first wildcard, and "**" between two slashes'
            raise UnplacedError("bad-include", f"{quoted(pattern)} is not a pattern of files", help_)
        folder = self._target(str(Path(*parts[:first], ".")), chain)
        found: list[str] = []
        for path in islice(folder.glob("/".join(parts[first:])), limits.MAX_GLOB_MATCHES):
            is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            if not is_hidden and path.is_file() and path.resolve() not in chain:
                found.append(str(path))
        if not found:
            meant = _pattern_meant(pattern, self._target(".", chain))
            raise UnplacedError("no-such-file", f"no file matches {quoted(pattern)}", meant)
        return sorted(found)

    def _read_file(self, name: str, chain: tuple[Path, ...]) -> None:
        target = self._target(name, chain)
        if target in self._seen:
            return
        self._check_limits()
        self._seen.add(target)
        path = self._folder / target.relative_to(self._project)
        try:
            if os.path.isfile(target):
                self.included.files.append(path)
            text = read_text(target)
            self._size += len(text)
            self.read(self._mended.get(path, text), path, (*chain, target))
        except PipelineInvalid as error:
            self.included.is_complete = False
            first = error.problems[0]
            if not first.line:  # the error has no position in the included file
                help_ = first.help
                raise UnplacedError(first.code, f"cannot include {quoted(name)}: {first.message}", help_) from None
            help_ = "write what it brings, or remove the include" if first.code == "empty-file" else first.help
            self._report([replace(first, help=help_)], path)

    def _target(self, name: str, chain: tuple[Path, ...]) -> Path:
        """Return the real path of an included file in the project. Raises UnplacedError."""
        if not name or "://" in name:
            raise UnplacedError(
                "bad-include", f"an include is the name of a file, not {describe(name)}", "write a path"
            )
        try:
            folder = chain[-1].parent if len(chain) > 1 else self._project  # the pipeline's own file may be a link
            target = (folder / name).resolve()
        except (OSError, RuntimeError, ValueError):  # a name that is too long, a loop of links, a NUL character
            raise UnplacedError(
                "bad-include", f"cannot include {quoted(name)}: not a file name", "write a path"
            ) from None
        if target in chain:
            circle = " → ".join(self._shown(path) for path in (*chain[chain.index(target) :], target))
            raise UnplacedError(
                "include-cycle", f"the files include each other: {circle}", "remove one of these includes"
            )
        if not target.is_relative_to(self._project):
            help_ = "put this pipeline into a folder above the included file, or move that file below this one's folder"
            raise UnplacedError(
                "include-outside", f"cannot include {quoted(name)}: outside of the project's folder", help_
            )
        if len(chain) > limits.MAX_INCLUDE_DEPTH:
            message = f"included more than {limits.MAX_INCLUDE_DEPTH} deep"
            raise UnplacedError("too-deep", message, "include it from a file further up")
        if target.suffix == ".py" or (not target.suffix and os.path.isfile(f"{target}.py")):
            help_ = "remove it: a module is imported where a handler names it, as in `handler: module:function`"
            raise UnplacedError("bad-include", f"cannot include {quoted(name)}: it is a module of Python", help_)
        return target

    def _check_limits(self) -> None:
        if self._weight > limits.MAX_EXPANDED_NODES:
            message = _TOO_MANY_NODES
        elif len(self._seen) >= limits.MAX_FILES:
            message = f"a pipeline has at most {limits.MAX_FILES} files"
        elif self._size > limits.MAX_TOTAL_BYTES:
            message = f"the pipeline's files are larger than {limits.MAX_TOTAL_BYTES // 1024**2} MiB together"
        else:
            return
        raise UnplacedError("too-large", message, "split it into several pipelines")

    def _shown(self, path: Path) -> str:
        return str(path.relative_to(self._project)) if path.is_relative_to(self._project) else path.name

    def _report(self, problems: Iterable[Problem], path: Path) -> None:
        self.included.problems += (replace(problem, file=str(path)) for problem in problems)


def _pattern_meant(pattern: str, folder: Path) -> str:
    """Return the help for a pattern without files: another ending, or a folder of nearly that name, that has some."""
    if "**" in pattern or os.path.isabs(pattern):
        return "check the pattern"
    head, ending = os.path.splitext(pattern)
    first, slash, rest = pattern.partition("/")
    others = [path.name for path in folder.glob("*/")] if folder.is_dir() else []
    near = closest(first, others) if slash and first not in others else None
    meant = [f"{head}{other}" for other in (".yaml", ".yml") if other != ending] + ([f"{near}/{rest}"] if near else [])
    found = next((other for other in meant if any(folder.glob(other))), None)
    return f'did you mean "{found}"?' if found else "check the pattern"

"""Loads pipeline files: each becomes a spec, or a list of all problems with their positions."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from runner.config.defaults import idle_defaults, merge_defaults
from runner.config.diagnostics import display_line, display_path
from runner.config.document import Document, KeyOrValue, KeyPath, MappingNode, ScalarNode, dotted_path, walk_nodes
from runner.config.file_kind import FileKind, detect_file_kind
from runner.config.include_merge import merge_documents
from runner.config.includes import IncludedFiles, load_includes
from runner.config.limits import MAX_BYTES, MAX_PROBLEMS
from runner.config.messages import closest
from runner.config.name_fields import name_problem, reserved_problem
from runner.config.overlay_merge import merge_overlays, without_misspelt_items
from runner.config.overlays import Overlay, OverlayDocuments, read_overlays
from runner.config.positions import Lines, Span
from runner.config.spec import PipelineSpec
from runner.config.validation import self_dead_lettered, validate
from runner.config.yaml_parser import read_text
from runner.errors import PipelineInvalid, Problem, Severity, has_errors
from runner.redaction import mask_passwords

_MAX_ROUNDS = 4
"""Mending one slip shows others that it has hidden."""


@dataclass(frozen=True, slots=True)
class PipelineFile:
    """A pipeline file that has been read. `spec` is None if and only if there are errors.

    `document` is None if the file is not YAML. Mistakes in a file never raise an error: they are `problems`.
    """

    path: Path
    name: str
    spec: PipelineSpec | None
    problems: list[Problem] = field(default_factory=list)
    document: Document | None = None
    recovered: PipelineSpec | None = None
    """The valid part of a file with errors, used to find more errors, never to run."""
    files: tuple[Path, ...] = ()
    """All files that were read: the pipeline's own, the included ones, and overlays."""
    elsewhere: tuple[Problem, ...] = ()
    """Problems of overlays that change what this pipeline does not have, but another one may have."""
    texts: Mapping[Path, Lines] = field(default_factory=dict, repr=False)
    """The text of the pipeline's own file, and those of the others whose slips are mended."""
    reload: Callable[[Mapping[Path, Lines]], PipelineFile] | None = field(default=None, repr=False)
    """Reads the files again with other texts."""
    slips: list[Problem] = field(default_factory=list)
    """Those of the problems that are mended in `texts`."""

    def problem(
        self,
        code: str,
        path: KeyPath,
        message: str,
        help: str = "",
        *,
        severity: Severity = "error",
        on: KeyOrValue = "value",
        offset: int = 0,
        length: int | None = None,
    ) -> Problem:
        """Return a problem at a path, or at its nearest parent in the file. It is not added to `problems`.

        `offset` and `length` select characters of the value, without its quotes.
        """
        span = self.document.span(path, on) if self.document is not None else Span(0, 0)
        file = self.document.part(span).file if self.document is not None else str(self.path)
        if (offset or length is not None) and span.line:
            quote = self._quote(path)
            rest = span.length - 2 * quote - offset
            span = replace(span, column=span.column + quote + offset, length=length or max(1, rest))
        dotted = mask_passwords(dotted_path(self._written(path)))
        return span.problem(code, mask_passwords(message), help, path=dotted, file=file, severity=severity)

    @property
    def interpolated(self) -> dict[KeyPath, tuple[str, ...]]:
        """The path of each value that comes from `${…}`, with the names of its variables and `file:` names."""
        return self.document.interpolated() if self.document is not None else {}

    def origin(self, path: KeyPath) -> str:
        """Return the origin of the value at a path: `orders.yaml:14`, with variables `orders.yaml:14 (${N})`.

        `orders.yaml:3 (defaults)` comes from `defaults`; `default` is not in any file.
        """
        from runner.config.provenance import DEFAULT, origin  # only for `runner config --origin`

        return origin(self.document, path) if self.document is not None else DEFAULT

    def location(self, path: KeyPath) -> str:
        """Return the file and line of a path or of its nearest parent, as in `orders.yaml:14`; else the file."""
        if self.document is None or not self.document.existing_prefix(path):
            return display_path(self.path)
        span = self.document.span(path)
        return display_line(self.document.part(span).file, span.line)

    def folder(self, path: KeyPath) -> Path:
        """Return the folder of the file that has the value at a path; of the pipeline's own for `--set`."""
        part = self.document.part(self.document.span(path)) if self.document is not None else None
        return (self.path if part is None or part.option else part.path).parent

    def _written(self, path: KeyPath) -> KeyPath:
        """Return a path without the index of a list that is written in its short form, as in `to: one_name`."""
        existing = self.document.existing_prefix(path) if self.document is not None else path
        while path and isinstance(path[-1], int) and len(path) > len(existing):
            path = path[:-1]
        return path

    def _quote(self, path: KeyPath) -> int:
        """Return 1 if the value at a path is written in quotes."""
        node = self.document.node(path) if self.document is not None else None
        if self.document is None or not isinstance(node, ScalarNode):
            return 0
        return int(self.document.part(node.span).text[node.start : node.start + 1] in ('"', "'"))


def load(
    path: Path, environ: Mapping[str, str], overlays: Sequence[Overlay] = (), *, is_only: bool = True
) -> PipelineFile:
    """Read a pipeline file. `environ` has the values for `${…}`. The others are those of `load_text`."""
    if is_test_file(path) and path.is_file():
        return unreadable(path, [_test_file(path)], [path])
    try:
        text = read_text(path)
    except PipelineInvalid as error:
        return unreadable(path, error.problems, [path])
    return load_text(text, path, environ, overlays, is_only=is_only)


def load_text(
    text: str, path: Path, environ: Mapping[str, str], overlays: Sequence[Overlay] = (), *, is_only: bool = True
) -> PipelineFile:
    """Read a pipeline from the text of the file `path`, and from the files that it includes.

    Overlays are merged into it. If it is not the only pipeline, they may be meant for others.
    """

    def read(texts: Mapping[Path, Lines]) -> PipelineFile:
        loaded = _load(texts, path, environ, overlays, is_only=is_only)
        return replace(loaded, texts=texts, reload=read)

    return mend_slips(read({path: Lines(text)}))


def mend_slips(loaded: PipelineFile, problems: Sequence[Problem] = ()) -> PipelineFile:
    """Return a file as it is once its slips are mended, with their problems; the same file if it has none.

    Slips are looked for if the file has problems, or others were found in it: `problems`.
    """
    if loaded.reload is None or not has_errors((*loaded.problems, *problems)):
        return loaded
    from runner.config.foreign_files import foreign_file  # only for files with mistakes

    if (foreign := foreign_file(loaded.texts[loaded.path], loaded.path.parent)) is not None:
        found = in_files([foreign], [loaded.path])
        return PipelineFile(loaded.path, loaded.name, None, found, files=loaded.files)
    for _ in range(_MAX_ROUNDS):
        texts, slips = _mended(loaded, problems)
        again = loaded.reload(texts) if texts != loaded.texts and loaded.reload is not None else None
        if again is None or (again.document is None and loaded.document is not None):
            break
        slips = [*loaded.slips, *slips]
        found = [*slips, *again.problems]
        loaded = replace(again, slips=slips, problems=found, spec=None, recovered=again.recovered or again.spec)
    return loaded


def _mended(loaded: PipelineFile, problems: Sequence[Problem]) -> tuple[Mapping[Path, Lines], list[Problem]]:
    """Return the texts of a pipeline's files with the slips mended, and the slips, which only wrong files have."""
    from runner.config.slips.mending import mend

    texts, slips = dict(loaded.texts), list[Problem]()
    document = loaded.document
    parsed = {str(part.path) for part in (document, *document.parts)} if document is not None else set()
    for file in loaded.files:
        wrong = {problem.line for problem in (*loaded.problems, *problems) if problem.file == str(file)}
        try:
            lines = texts.get(file) or Lines(read_text(file))
        except PipelineInvalid:
            continue
        mended, found = mend(lines, wrong if str(file) in parsed else None) if wrong else (lines, [])
        if mended is not lines:
            texts[file] = mended
            slips += in_files(found, [file])
    return texts, slips


def _load(
    texts: Mapping[Path, Lines], path: Path, environ: Mapping[str, str], overlays: Sequence[Overlay], *, is_only: bool
) -> PipelineFile:
    files = [path]
    try:
        included = load_includes(texts[path], path, environ, mended=texts)
        changes = read_overlays(overlays, environ, len(included.documents), texts)
        files = [*included.files, *changes.files]
        _check_order(included.documents[0], changes.documents)
        idle = list(idle_defaults(included.documents))
        found = merge_overlays(included.documents, changes.groups, is_only=is_only)
        problems = [*_without_replaced(included, changes), *changes.problems, *found.certain, *idle]
        merge_defaults(included.documents)
    except PipelineInvalid as error:
        return unreadable(path, error.problems, files)
    document = included.documents[0]
    problems += merge_documents(included.documents, changes.documents)
    spec, invalid = validate(document)
    problems += dict.fromkeys(without_misspelt_items(document, invalid))
    is_complete = included.is_complete and changes.is_complete
    name = (spec.name if spec else None) or path.stem
    wrong = name_problem(path.stem) or reserved_problem(path.stem)
    if spec is not None and spec.name is None and wrong:
        problems.append(_nameless(path.stem, wrong))
    recovered = None
    if has_errors(problems) and is_complete:  # the names in a missing file would be reported as unknown
        from runner.config.recovery import recover_spec

        recovered, hidden = recover_spec(document)
        problems += hidden
    if sound := spec or recovered:
        problems += self_dead_lettered(document, sound, sound.name or path.stem)
    return PipelineFile(
        path=path,
        name=name,
        spec=None if has_errors(problems) else spec,
        problems=in_files(problems, files),
        document=document,
        recovered=(recovered or spec) if has_errors(problems) and is_complete else None,
        files=tuple(files),
        elsewhere=tuple(found.elsewhere),
    )


def _check_order(document: Document, overlays: Sequence[Document]) -> None:
    """Raise PipelineInvalid for an overlay that is a pipeline, over a file that is none."""
    is_pipeline = ["version" in each.root.nodes for each in (document, *overlays)]
    if not is_pipeline[0] and any(is_pipeline):
        pipeline = display_path(overlays[is_pipeline.index(True) - 1].path)
        message = f'missing key "version", which the overlay {pipeline} has: the two are swapped'
        help_ = f"give {pipeline} as the pipeline, and write --overlay {display_path(document.path)}"
        raise PipelineInvalid([Problem(code="missing-key", message=message, help=help_, line=1, column=1)])


def _without_replaced(included: IncludedFiles, changes: OverlayDocuments) -> Iterator[Problem]:
    """Yield the problems of the files, without those of `${…}` in values that an overlay replaces."""
    replaced: set[Problem] = set()
    if included.broken and changes.documents:
        kept = {id(node) for document in included.documents for _, node in walk_nodes(document.root)}
        replaced = {problem for node, problem in included.broken if id(node) not in kept}
    yield from (problem for problem in included.problems if problem not in replaced)


def is_test_file(path: Path) -> bool:
    """Whether a file is one of tests, by its name: `*.test.yaml`."""
    return path.name.endswith((".test.yaml", ".test.yml"))


def unreadable(path: Path, problems: Iterable[Problem], files: list[Path]) -> PipelineFile:
    """Return a file that has nothing but problems."""
    return PipelineFile(path, path.stem, None, in_files(problems, files), files=tuple(files))


def _nameless(stem: str, wrong: str) -> Problem:
    message = f'the pipeline is named like its file, and the name "{stem}" {wrong}'
    return Problem(code="bad-name", message=message, help='add "name: …"', line=1, column=1)


def in_files(problems: Iterable[Problem], files: list[Path]) -> list[Problem]:
    """Return problems with their file, in order of their positions, without the passwords of URLs."""
    order = {str(file): index for index, file in enumerate(files)}
    located = [_without_passwords(replace(problem, file=problem.file or str(files[0]))) for problem in problems]
    return sorted(located, key=lambda item: (order.get(item.file, 0), item.line, item.column))[:MAX_PROBLEMS]


def _without_passwords(problem: Problem) -> Problem:
    return replace(problem, message=mask_passwords(problem.message), path=mask_passwords(problem.path))


def load_all(paths: Iterable[Path], environ: Mapping[str, str], overlays: Sequence[Overlay] = ()) -> list[PipelineFile]:
    """Read all pipelines that `find_pipelines` finds in paths, with overlays.

    An overlay applies to each pipeline that has what it changes, or to those that it names.

    A file in a folder that has the keys of a pipeline but no `version`, and that no pipeline includes, is read as well,
    so that its errors are reported. Raises PipelineInvalid like `find_pipelines`.
    """
    paths = list(paths)
    pipelines = find_pipelines(paths)
    found = [load(path, environ, overlays, is_only=len(pipelines) == 1) for path in pipelines]
    if left := _for_no_pipeline(found):
        first = found[0]
        recovered = first.recovered or first.spec
        found[0] = replace(first, spec=None, recovered=recovered, problems=[*first.problems, *left])
    if all(loaded.document is not None for loaded in found):  # otherwise the included files are not known
        included = {file.resolve() for loaded in found for file in loaded.files}
        parts = dict.fromkeys(part for path in paths if path.is_dir() for part in _below(path, FileKind.PART))
        found += [load(part, environ) for part in parts if part.resolve() not in included]
    return [_without_overlay(loaded, found, environ) for loaded in found]


def _without_overlay(loaded: PipelineFile, found: Sequence[PipelineFile], environ: Mapping[str, str]) -> PipelineFile:
    """Return a file as it is, or with one problem if it is only a part, and names only what another pipeline has."""
    names = _item_names(loaded)
    missing = [each.message for each in loaded.problems if each.code in ("missing-key", "no-source")]
    if not names or len(missing) < 2 or 'missing key "version"' not in missing:
        return loaded
    beside = (load(path, environ) for path in yaml_files(loaded.path.parent) if _kind(path) is FileKind.PIPELINE)
    for other in (*found, *beside):
        if other.path.resolve() != loaded.path.resolve() and names <= _item_names(other):
            file = display_path(loaded.path)
            message = f'missing key "version": this looks like an overlay of {display_path(other.path)}'
            help_ = f'pass it with --overlay {file}, or give it the key "pipeline: {other.name}"'
            problem = Problem(code="missing-key", message=message, help=help_, line=1, column=1)
            return unreadable(loaded.path, [problem], [loaded.path])
    return loaded


def _item_names(loaded: PipelineFile) -> set[tuple[str, str]]:
    """Return the sections of a pipeline with the names in them."""
    sections = loaded.document.root.nodes.items() if loaded.document is not None else ()
    return {
        (section, name)
        for section, (_, node) in sections
        if section in ("queues", "events", "producers", "subscribers") and isinstance(node, MappingNode)
        for name in node.nodes
    }


def _for_no_pipeline(found: Sequence[PipelineFile]) -> list[Problem]:
    """Return the problems of overlays that no pipeline solves: what they change is in none of them."""
    by_place: dict[tuple[str, int, int], list[Problem]] = {}
    for loaded in found:
        for problem in loaded.elsewhere:
            by_place.setdefault((problem.file, problem.line, problem.column), []).append(problem)
    names = ", ".join(loaded.name for loaded in found)
    left = []
    for problems in by_place.values():
        if len(problems) == len(found):
            guess = next((each for each in problems if each.help.startswith("did you mean")), None)
            if guess is None and problems[0].code == "unknown-pipeline":
                guess = replace(problems[0], help=f"write one of: {names}")
            left.append(guess or problems[0])
    return left


def find_pipelines(paths: Iterable[Path]) -> list[Path]:
    """Return the pipeline files in paths, each once. A path is a file, or a folder with pipelines in it or below it.

    A pipeline in a folder is a `*.yaml` or `*.yml` file with a `version:` key. Hidden files, files of other programs,
    virtual environments and `node_modules` are skipped. Raises PipelineInvalid for a path that does not exist and for a
    folder without pipelines and parts of them.
    """
    found: list[Path] = []
    problems: list[Problem] = []
    for path in paths:
        if os.path.isdir(path):  # unlike Path.is_dir before Python 3.14, it never raises
            files = sorted(_below(path, FileKind.PIPELINE))
            if not files and not any(_below(path, FileKind.PART)):
                problems.append(_no_pipelines(path))
            found += files
        elif os.path.exists(path):
            found.append(path)
        else:
            problems.append(_missing(path))
    if problems:
        raise PipelineInvalid(problems)
    each = {os.path.realpath(path): path for path in reversed(found)}
    return sorted(each.values(), key=found.index)


def _below(folder: Path, kind: FileKind) -> Iterator[Path]:
    """Yield the files of a kind below a folder. A file that cannot be read counts as a pipeline, to be reported."""
    return (path for path in yaml_files(folder) if not is_test_file(path) and _kind(path) is kind)


def yaml_files(folder: Path) -> Iterator[Path]:
    """Yield the YAML files below a folder, in order. Hidden ones are skipped, and installed packages."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_skipped_folder(Path(parent, name)))
        yield from (
            Path(parent, name)
            for name in sorted(files)
            if name.endswith((".yaml", ".yml")) and not name.startswith(".")
        )


def is_skipped_folder(folder: Path) -> bool:
    """Whether a folder is hidden, or contains installed packages."""
    is_installed = folder.name == "node_modules" or os.path.exists(folder / "pyvenv.cfg")
    return folder.name.startswith(".") or is_installed


def is_pipeline_file(path: Path) -> bool:
    """Whether a file in a folder of pipelines is one of them, or a part of one."""
    return path.suffix in (".yaml", ".yml") and not is_test_file(path) and _kind(path) is not FileKind.OTHER


def _kind(path: Path) -> FileKind:
    try:
        if not path.is_file():
            return FileKind.PIPELINE if path.is_symlink() and not path.exists() else FileKind.OTHER
        with path.open("rb") as file:
            return detect_file_kind(file.read(MAX_BYTES))
    except OSError:
        return FileKind.PIPELINE


def _no_pipelines(folder: Path) -> Problem:
    beside = [
        each for each in folder.parent.glob("*.y*ml") if not is_test_file(each) and _kind(each) is FileKind.PIPELINE
    ]
    help_ = 'a pipeline is a *.yaml file with a "version:" key'
    help_ += f", such as {display_path(beside[0])}" if len(beside) == 1 else ""
    return Problem(code="no-pipelines", message="no pipeline below this folder", help=help_, file=str(folder))


def _test_file(path: Path) -> Problem:
    message, help_ = "this is a file of tests, not a pipeline", "run it with `runner test`"
    with suppress(PipelineInvalid):
        found = re.search(r"^pipelines?:[\s\[\"'-]*([^\s\"',\]]+\.ya?ml)", read_text(path), re.MULTILINE)
        help_ += f"; its pipeline is {display_path(path.parent / found[1])}" if found else ""
    return Problem(code="test-file", message=message, help=help_, line=1, column=1)


def pipelines_here() -> list[str]:
    """Return the pipeline files in the current folder, and in its folder `pipelines`."""
    files = [file for folder in (Path(), Path("pipelines")) for file in sorted(folder.glob("*.y*ml"))]
    return [str(file) for file in files if not is_test_file(file) and _kind(file) is FileKind.PIPELINE]


def _missing(path: Path) -> Problem:
    try:
        guess = closest(path.name, os.listdir(path.parent), likeness=0.75)
    except (OSError, ValueError):
        guess = None
    here = pipelines_here()
    help_ = f'did you mean "{path.parent / guess}"?' if guess else "check the name"
    if here and not guess:
        help_ = f"check the name, or write the path of a pipeline first: {here[0]}"
    return Problem(code="no-such-file", message="there is no such file or folder", help=help_, file=str(path))

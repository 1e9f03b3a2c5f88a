"""What `runner validate --format concise` says of every wrong pipeline below this folder, and the script that keeps it.

    python -m tests.wrong.update            rewrite the .txt beside each pipeline; read the diff before you commit it
    python -m tests.wrong.update types      only one group

A case that can be fixed has what `runner validate --fix` makes of it in `<name>.fixed`. The cases of `slips` are fixed
as a whole: `<name>.meant` is what their author meant, written by hand.

A case is `<group>/<name>.yaml`, or a folder `<group>/<name>` of pipelines that run together, with `<name>.txt` beside
it. In the group `overlays` it is an overlay of `base.yml`, and its `x-set` are the options `--set` beside it. A case is
checked from inside its group's folder, where the sample modules lie, with the variables of `variables.env`.
`<name>.test.yaml` is a wrong test file, and its text is what `runner test` says of it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from runner.cli.environment import read_environment
from runner.config import diagnostics
from runner.config.loader import is_test_file
from runner.config.overlays import Overlay, Setting
from runner.config.yaml_parser import read_text
from runner.errors import PipelineInvalid, Problem
from runner.operations.fixes import fixed_text
from runner.system import load
from runner.testing.suites import load_suite

HERE = Path(__file__).resolve().parent
VARIABLES = "variables.env"
OVERLAYS = "overlays"


def cases(group: str = "*") -> list[Path]:
    """Return the wrong pipelines, in order: files, and folders that have their text beside them."""
    files = HERE.glob(f"{group}/*.yaml")
    folders = (path.with_suffix("") for path in HERE.glob(f"{group}/*.txt"))
    return sorted({*files, *(folder for folder in folders if folder.is_dir())})


def expected(case: Path) -> Path:
    """Return the file that holds what is to be said of a case."""
    return case.parent / f"{case.stem}.txt"


def said(case: Path) -> str:
    """Return what `runner validate --format concise` prints for a case; what it imports is forgotten."""
    return judged(case)[0]


def judged(case: Path) -> tuple[str, Sequence[Problem]]:
    """Return what is printed for a case, and its problems."""
    with _inside(case.parent):
        variables = read_environment(Path(VARIABLES)) if Path(VARIABLES).exists() else {}
        try:
            if is_test_file(case):
                load_suite(Path(case.name))
                return "", ()
            problems = load([_pipeline(case)], variables, _overlays(case)).warnings
        except PipelineInvalid as invalid:
            problems = invalid.problems
        return diagnostics.concise(problems).replace(sys.executable, "python"), problems


def fixed(case: Path, problems: Sequence[Problem]) -> str:
    """Return the text of a case with the fixes of its problems, "" for a folder and for a case without any."""
    own = [problem for problem in problems if problem.file == case.name and problem.fix is not None]
    return fixed_text(read_text(case), own)[0] if own and case.is_file() else ""


def _pipeline(case: Path) -> Path:
    return Path("base.yml" if case.parent.name == OVERLAYS else case.name)


def _overlays(case: Path) -> list[Overlay]:
    """Return the overlay that a case is, and its settings."""
    if case.parent.name != OVERLAYS:
        return []
    settings = yaml.safe_load(case.read_text("utf-8")).get("x-set", [])
    return [Path(case.name), *map(Setting, settings)]


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Be in a folder, with nothing of the user's on the import path, as the `runner` command is."""
    home, path, known = Path.cwd(), list(sys.path), set(sys.modules)
    os.chdir(folder)
    sys.path[:] = [entry for entry in path if entry.startswith((sys.prefix, sys.base_prefix))]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        for name in set(sys.modules) - known:
            if _lies_in(folder, sys.modules[name]):
                del sys.modules[name]
        sys.path[:] = path
        os.chdir(home)


def _lies_in(folder: Path, module: object) -> bool:
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place and Path(place).is_relative_to(folder) for place in places)


def _write(target: Path, content: bytes) -> None:
    if not target.exists() or target.read_bytes() != content:
        target.write_bytes(content)
        print(target.relative_to(HERE))


def main(group: str = "*") -> None:
    """Write what is said now of each case, and name those that have changed."""
    found = cases(group)
    for case in found:
        text, problems = judged(case)
        _write(expected(case), text.encode())
        mended, target = fixed(case, problems), case.with_suffix(".fixed")
        if mended:
            _write(target, mended.encode())
        else:
            target.unlink(missing_ok=True)
    for target in HERE.glob(f"{group}/*.txt"):
        if not any(expected(case) == target for case in found):
            target.unlink()
            print(f"{target.relative_to(HERE)} removed")


if __name__ == "__main__":
    main(*sys.argv[1:])

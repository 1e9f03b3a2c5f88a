"""Runs a Markdown document as its reader does: writes the files it shows, runs its commands, compares the output.

A fenced block whose info string has a file name (```yaml pipeline.yaml) is written to that file, in the order of the
document. A ```console block is a list of commands (`$ …`) with what they print; `…` in the output stands for anything,
also for whole lines. Times, durations and ids are not compared. Lines may come in another order, because handlers run
concurrently.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_FENCE = re.compile(r"^```(\w+)?[ ]*(\S+)?[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOISE = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\dZ+:]*"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "TIME"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "ID"),
    (re.compile(r"\b(?=\d*[a-f])(?=[a-f]*\d)[0-9a-f]{8}\b|\b\d{8}\b"), "ID"),
    (re.compile(r"\d+(\.\d+)? ms\b"), "N ms"),
    (re.compile(r'("duration_ms": )[\d.]+'), r"\1N"),
    (re.compile(r"\s+"), " "),
)
TIMEOUT_S = 50


@dataclass
class Command:
    """A command line, and the lines it is said to print."""

    line: str
    expected: list[str] = field(default_factory=list)
    number: int = 0


@dataclass
class File:
    """A file that a document shows."""

    name: str
    body: str


def steps(text: str) -> Iterator[File | Command]:
    """Yield the files and the commands of a document, in its order."""
    for match in _FENCE.finditer(text):
        kind, name, body = match.groups()
        if kind == "console":
            yield from _commands(body, text[: match.start(3)].count("\n") + 1)
        elif name:
            yield File(name, body)


def _commands(block: str, first: int) -> Iterator[Command]:
    """Yield the commands of a console block whose first line has this number."""
    command: Command | None = None
    for number, line in enumerate(block.splitlines(), first):
        if line.startswith("$ "):
            if command is not None:
                yield command
            command = Command(line[2:], number=number)
        elif command is not None:
            command.expected.append(line)
    if command is not None:
        yield command


def play(document: Path, folder: Path, env: Mapping[str, str]) -> int:
    """Do in `folder` what a document shows; return the number of commands. Fails on the first output that differs."""
    try:
        return _play(document, folder, env)
    finally:
        for path in folder.glob("*.pid"):  # what a page starts and no longer ends itself, because it is wrong
            with contextlib.suppress(ProcessLookupError):  # it has ended, and its file is still there
                os.kill(int(path.read_text()), signal.SIGTERM)


def _play(document: Path, folder: Path, env: Mapping[str, str]) -> int:
    count = 0
    for step in steps(document.read_text("utf-8")):
        if isinstance(step, File):
            path = folder / step.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.body, "utf-8")
            continue
        printed = run(step, folder, env)
        wrong = differences(step, printed)
        assert not wrong, f"{document.name}:{step.number}: $ {step.line}\n" + "\n".join(wrong) + f"\n---\n{printed}"
        count += 1
    return count


def run(command: Command, folder: Path, env: Mapping[str, str]) -> str:
    """Run a command in a shell in `folder`; return what a terminal would have shown."""
    bin_folder = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["bash", "-c", command.line],
        cwd=folder,
        env={"PATH": f"{bin_folder}:{os.environ['PATH']}", "LANG": "C.UTF-8", "HOME": str(folder), **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.stdout.decode()


def differences(command: Command, printed: str) -> list[str]:
    """Return what was promised and not printed, and what was printed and not promised."""
    left = [_plain(line) for line in printed.splitlines() if line.strip()]
    missing = []
    has_rest = any(line.strip() == "…" for line in command.expected)
    for line in command.expected:
        if not line.strip() or line.strip() == "…":
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in _plain(line).split("…")))
        found = next((candidate for candidate in left if pattern.fullmatch(candidate)), None)
        if found is None:
            missing.append(f"promised, not printed: {line}")
        else:
            left.remove(found)
    return missing + ([] if has_rest else [f"printed, not promised: {line}" for line in left])


def _plain(line: str) -> str:
    for pattern, replacement in _NOISE:
        line = pattern.sub(replacement, line)
    return line.strip()


# Links

_LINK = re.compile(r"\]\((?!https?://|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
ROOT = Path(__file__).resolve().parents[1]


def all_pages() -> list[Path]:
    """Return every Markdown file of the repository that people read."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("README.md")]
    return sorted([*found, ROOT / "benchmarks" / "README.md"])


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page whose file or heading does not exist."""
    text = _FENCE.sub("", page.read_text("utf-8"))
    broken = []
    for target, heading in _LINK.findall(text):
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (heading and heading not in _anchors(path)):
            broken.append(f"{target}#{heading}" if heading else target)
    return broken


def _anchors(path: Path) -> set[str]:
    """Return the names of a page's headings in links, as GitHub makes them."""
    headings = _HEADING.findall(_FENCE.sub("", path.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Tests that a page names

_TEST = re.compile(r"`(?:tests/)?((?:unit|e2e|security|conformance|faults|features)/[\w/]+\.py)((?:::\w+)?)`")
_EXAMPLE = re.compile(r"test_X\.py|unit/a/")


def missing_tests(page: Path) -> list[str]:
    """Return the tests that a page names and that do not exist."""
    missing = []
    for file, name in _TEST.findall(page.read_text("utf-8")):
        path = ROOT / "tests" / file
        is_there = path.is_file() and (not name or f"def {name[2:]}(" in path.read_text("utf-8"))
        if not is_there and not _EXAMPLE.search(file):
            missing.append(f"{file}{name}")
    return missing

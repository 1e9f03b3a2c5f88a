"""Runs a Markdown document as its reader would: writes the files it shows, types its commands, compares the output.

A fenced block whose info string has a file name (```yaml pipeline.yaml) is written to that file. A ```console block is
a list of commands (`$ …`) with what they print; `…` in the output stands for anything, also for whole lines. Times,
durations and ids are not compared, and lines may come in another order, because handlers run side by side.
"""

from __future__ import annotations

import os
import re
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


def files(text: str) -> dict[str, str]:
    """Return the files that a document shows, by name."""
    return {name: body for kind, name, body in _FENCE.findall(text) if name and kind != "console"}


def commands(text: str) -> Iterator[Command]:
    """Yield the commands of a document's console blocks."""
    for match in _FENCE.finditer(text):
        if match[1] != "console":
            continue
        command: Command | None = None
        first = text[: match.start(3)].count("\n") + 1
        for offset, line in enumerate(match[3].splitlines()):
            if line.startswith("$ "):
                if command is not None:
                    yield command
                command = Command(line[2:], number=first + offset)
            elif command is not None:
                command.expected.append(line)
        if command is not None:
            yield command


def run(command: Command, folder: Path, env: Mapping[str, str]) -> str:
    """Type a command into a shell in `folder`; return what a terminal would have shown."""
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

"""The project that `runner init` writes: a pipeline, its handlers, tests in YAML and in Python, a README.

Its files are in `project_template.txt`.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from runner.errors import InvalidUsage
from runner.operations.export.deployment import object_name
from runner.operations.yaml_writer import format_scalar
from runner.tables import filled


class FilesExist(InvalidUsage):
    """Files of the new project exist already. Nothing is written."""


_FILE = re.compile(r"^=== (\S+)\n(.*?)(?=^=== |\Z)", re.MULTILINE | re.DOTALL)


def template_files(name: str) -> dict[str, str]:
    """Return the files of a new project in a folder of this name, which is also that of its pipeline."""
    text = files("runner.operations").joinpath("project_template.txt").read_text("utf-8")
    title = "-".join(re.findall(r"[^\W_]+", name))[:60] or "orders"
    words = {"name": format_scalar(title), "title": title, "image": object_name([name])}
    return {file: filled(content, words) for file, content in _FILE.findall(text)}


def write_project(folder: Path) -> list[Path]:
    """Write a new project and return its files. Raises FilesExist before anything is written, and OSError."""
    found = {folder / name: text for name, text in template_files(folder.resolve().name).items()}
    present = [str(path) for path in found if path.exists() or path.is_symlink()]
    if present:
        message = "\n".join(["these files exist already; nothing was written:", *present])
        raise FilesExist(message, "choose another folder: runner init DIR")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in found.items():
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    return list(found)

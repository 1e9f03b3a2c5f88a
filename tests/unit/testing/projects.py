"""Small projects for tests of the engine."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent


def write_project(folder: Path, pipeline: str, handlers: str, *, module: str = "shop_handlers") -> Path:
    """Write a pipeline file and its module, and return the path of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(dedent(handlers))
    path = folder / "shop.yaml"
    path.write_text("version: 1\n" + dedent(pipeline))
    return path

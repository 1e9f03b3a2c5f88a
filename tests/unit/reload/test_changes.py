"""Which files and folders matter for a reload."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.reload.changes import FileChanges
from tests.unit.reload.reloading import PIPELINE, Reloads


@pytest.fixture
def changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileChanges:
    """The changes of a project in `project`, after files were read."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    reloads = Reloads(folder)
    reloads.write("shop.yaml", PIPELINE)
    reloads.loader.files = {folder / "shop.yaml": b"", folder / "sub" / "work.py": b"", folder / "env": b""}
    return reloads.reloader.changes


@pytest.mark.parametrize("name", ["shop.yaml", "sub/work.py", "env", "sub", "."])
def test_files_that_were_read_and_their_folders_matter(changes: FileChanges, tmp_path: Path, name: str) -> None:
    assert changes.is_relevant(tmp_path / "project" / name)


@pytest.mark.parametrize("name", ["other.py", "ledger", "shop.yaml~", ".shop.yaml.swp", "gone", "sub/data.json"])
def test_others_matter_only_if_the_last_version_could_not_be_loaded(
    changes: FileChanges, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "project" / name
    assert not changes.is_relevant(path)
    changes._loader.has_failed = True
    assert changes.is_relevant(path) == (path.suffix in (".py", ".json"))


@pytest.mark.parametrize(
    ("name", "text", "is_relevant"),
    [
        ("new.yaml", "version: 1\n", True),
        ("part.yaml", "queues: {}\n", True),
        ("data.yaml", "a: 1\n", False),
        ("shop.test.yaml", "version: 1\n", False),
    ],
)
def test_a_new_pipeline_in_a_folder_matters(
    changes: FileChanges, tmp_path: Path, name: str, text: str, is_relevant: bool
) -> None:
    path = tmp_path / "project" / name
    path.write_text(text)
    assert changes.is_relevant(path) == is_relevant

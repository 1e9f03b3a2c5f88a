"""A new project: what is written, and what is never overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.config.loader import load
from runner.operations.project_template import FilesExist, template_files, write_project
from runner.pipeline.resolver import resolve


@pytest.mark.parametrize("name", ["shop", "my shop", "订单", "no", "010", "...", "a_b", "x" * 300, 'q"uote: #{}'])
def test_the_pipeline_is_valid_whatever_the_folder_is_called(name: str, tmp_path: Path) -> None:
    """The folder's name becomes the pipeline's."""
    path = tmp_path / "pipeline.yaml"
    path.write_text(template_files(name)["pipeline.yaml"], "utf-8")
    loaded = load(path, {})
    assert loaded.problems == []
    assert loaded.name


def test_the_pipeline_has_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a warning."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve(load(tmp_path / "pipeline.yaml", {}), imports=False).problems == []


def test_a_folder_is_made_and_files_are_told(tmp_path: Path) -> None:
    """Also several levels of it."""
    written = write_project(tmp_path / "a" / "b")
    assert {path.name for path in written} == {
        "pipeline.yaml",
        "orders.py",
        "pipeline.test.yaml",
        "test_pipeline.py",
        "README.md",
        "Dockerfile",
        ".gitignore",
    }
    assert all(path.read_text("utf-8").endswith("\n") for path in written)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """One file in the way, and nothing at all is written; links to nowhere count."""
    (tmp_path / "orders.py").write_text("mine")
    (tmp_path / "README.md").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FilesExist) as caught:
        write_project(tmp_path)
    assert "orders.py" in str(caught.value)
    assert "README.md" in str(caught.value)
    assert caught.value.exit_code == 2
    assert {path.name for path in tmp_path.iterdir()} == {"orders.py", "README.md"}
    assert (tmp_path / "orders.py").read_text() == "mine"

"""What changed is reported once, when it is quiet, however an editor writes and whatever happens to the folder."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from threading import Event

import pytest

from runner.cli import watching as module
from runner.cli.watching import WatchUnavailable, project_folders, watch


class Changes:
    """The changes that a watch yields, from when it has begun."""

    def __init__(self, found: AsyncIterator[set[Path]]) -> None:
        self._found = found
        self._next: asyncio.Future[set[Path]] | None = None

    async def start(self) -> None:
        self._next = asyncio.ensure_future(anext(self._found))
        await asyncio.sleep(0)  # folders are watched from the first step on

    async def names(self, folder: Path) -> set[str]:
        """Return the next changes, and watch on."""
        assert self._next is not None
        async with asyncio.timeout(10):
            changed = await self._next
        await self.start()
        return {str(path.relative_to(folder)) for path in changed}


@pytest.fixture
async def watching() -> AsyncGenerator[Callable[..., Changes]]:
    opened: list[Changes] = []

    def begin(
        folders: Callable[[], list[Path]],
        is_relevant: Callable[[Path], bool] = lambda _: True,
        is_stale: Event | None = None,
    ) -> Changes:
        opened.append(Changes(watch(folders, is_relevant, is_stale)))
        return opened[-1]

    yield begin
    for changes in opened:
        assert changes._next is not None
        changes._next.cancel()
        await asyncio.gather(changes._next, return_exceptions=True)


def is_python(path: Path) -> bool:
    return path.suffix == ".py" or path.is_dir()


async def test_many_files_are_one_change(
    watching: Callable[..., Changes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_S", 1.0)  # a busy machine may let this test wait between two files
    changes = watching(lambda: [tmp_path], is_python)
    await changes.start()
    for number in range(50):
        (tmp_path / f"m{number}.py").write_text("1")
        (tmp_path / f"m{number}.txt").write_text("1")
        await asyncio.sleep(0.004)  # slower than one batch of the library
    assert await changes.names(tmp_path) == {f"m{number}.py" for number in range(50)}


async def test_a_file_in_a_new_folder(watching: Callable[..., Changes], tmp_path: Path) -> None:
    changes = watching(lambda: project_folders([tmp_path]), is_python)
    await changes.start()
    (tmp_path / "package").mkdir()
    assert await changes.names(tmp_path) == {"package"}
    (tmp_path / "package" / "m.py").write_text("1")
    assert await changes.names(tmp_path) == {"package/m.py"}


async def test_a_folder_that_is_deleted_and_made_again(watching: Callable[..., Changes], tmp_path: Path) -> None:
    """The new folder is another one, whose changes the first watch would not see."""
    folder = tmp_path / "project"
    folder.mkdir()
    changes = watching(lambda: project_folders([folder]), is_python)
    await changes.start()
    for _ in range(2):
        shutil.rmtree(folder)
        folder.mkdir()
        assert "project" in await changes.names(tmp_path)
        (folder / "m.py").write_text("1")
        assert await changes.names(tmp_path) == {"project/m.py"}


async def test_a_folder_that_comes_back_later(watching: Callable[..., Changes], tmp_path: Path) -> None:
    folder = tmp_path / "a" / "project"
    folder.mkdir(parents=True)
    changes = watching(lambda: [folder], lambda path: path.suffix == ".py" or path == folder)
    await changes.start()
    shutil.rmtree(folder.parent)
    assert await changes.names(tmp_path) == {"a/project"}
    folder.mkdir(parents=True)
    assert await changes.names(tmp_path) == {"a/project"}
    (folder / "m.py").write_text("1")
    assert await changes.names(tmp_path) == {"a/project/m.py"}


async def test_what_changes_while_the_caller_works_is_kept(watching: Callable[..., Changes], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    folders = [tmp_path]
    found = watch(lambda: folders, is_python)
    first = asyncio.ensure_future(anext(found))
    await asyncio.sleep(0)
    (tmp_path / "m.py").write_text("1")
    async with asyncio.timeout(10):
        assert {path.name for path in await first} == {"m.py"}
        (tmp_path / "n.py").write_text("1")
        folders.append(other)  # the watch is renewed, and keeps what it has seen
        assert {path.name for path in await anext(found)} == {"n.py", "other"}
        (other / "o.py").write_text("1")
        assert {path.name for path in await anext(found)} == {"o.py"}
    await found.aclose()  # type: ignore[attr-defined]  # it is a generator


async def test_other_folders_on_demand(watching: Callable[..., Changes], tmp_path: Path) -> None:
    """A folder that the caller wants from now on is watched at once, and is reported itself."""
    other = tmp_path / "other"
    other.mkdir()
    folders, is_stale = [tmp_path], Event()
    changes = watching(lambda: folders, is_python, is_stale)
    await changes.start()
    folders.append(other)
    is_stale.set()
    assert await changes.names(tmp_path) == {"other"}
    (other / "m.py").write_text("1")
    assert await changes.names(tmp_path) == {"other/m.py"}


async def test_a_change_while_the_folders_are_stale(watching: Callable[..., Changes], tmp_path: Path) -> None:
    """The library forgets what it has seen when its wait is ended from outside: no change may get lost by that."""
    is_stale = Event()
    changes = watching(lambda: [tmp_path], is_python, is_stale)
    await changes.start()
    for number in range(5):
        (tmp_path / f"m{number}.py").write_text("1")
        is_stale.set()
        assert await changes.names(tmp_path) == {f"m{number}.py"}


def test_the_folders_of_a_project(tmp_path: Path) -> None:
    for name in ("a/b", "a/__pycache__", ".git/objects", "node_modules/x", "venv/lib"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").write_text("")
    assert project_folders([tmp_path, tmp_path / "gone"]) == [
        tmp_path,
        tmp_path / "gone",
        tmp_path / "a",
        tmp_path / "a" / "b",
    ]


async def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(WatchUnavailable) as missing:
        await anext(watch(lambda: [tmp_path]))
    assert 'pip install "mqrunner[dev]"' in missing.value.hint

"""What only a terminal is shown: how far a long piece of work has come, and a question before messages are dropped."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from collections.abc import Callable

from tests.foreign import Foreign
from tests.process import ROOT
from tests.project import Project

PIPELINE = """
    version: 1
    queues: {UNIQUE.orders: {}}
    subscribers:
      handle: {from: UNIQUE.orders, handler: work:handle}
"""


def on_terminal(project: Project, *arguments: str, answer: bytes = b"", columns: int = 120) -> tuple[int, str]:
    """Run the command line on a terminal; type an answer where it asks; return the exit code and what was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "runner", *arguments, *project.place.arguments],
        cwd=project.folder,
        env={
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "COLUMNS": str(columns),
            "PYTHONPATH": str(ROOT),
        },
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    with process:
        while piece := _read(ours):
            shown += piece
            if answer and b"[y/N]" in shown:
                os.write(ours, answer)
                answer = b""
    os.close(ours)
    return process.returncode, shown.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # how Linux says that nobody is at the other end any more
        return b""


async def with_dead_letters(project: Project, foreign: Foreign, work: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    project.write(PIPELINE, "def handle(payload) -> None: note(payload)")
    await project.up_until_idle()
    headers = {"x-runner-reason": "exhausted", "x-runner-origin": project.name("orders")}
    foreign.publish(project.name("orders.dead"), b"1", b"2", b"3", headers=headers)
    return await asyncio.to_thread(work)


async def test_a_replay_shows_how_far_it_has_come(rabbit_project: Project, foreign: Foreign) -> None:
    """A bar, then the sum."""
    project = rabbit_project
    code, shown = await with_dead_letters(
        project, foreign, lambda: on_terminal(project, "dead", "replay", str(project.file))
    )
    assert code == 0
    assert "100%" in shown
    assert f"sent back: 3 of 3 (3 {project.name('orders')})" in shown


async def test_dropping_asks(rabbit_project: Project, foreign: Foreign) -> None:
    """It shows what would go; no means no, and yes means yes."""
    project = rabbit_project
    arguments = ("dead", "drop", str(project.file), "--all")
    code, shown = await with_dead_letters(project, foreign, lambda: on_terminal(project, *arguments, answer=b"n\n"))
    assert code == 1
    assert "delete 3 dead letters?" in shown
    assert foreign.count(project.name("orders.dead")) == 3
    code, shown = await asyncio.to_thread(on_terminal, project, *arguments, answer=b"y\n")
    assert code == 0, shown
    assert "dropped: 3 of 3" in shown
    assert foreign.count(project.name("orders.dead")) == 0


async def test_publishing_lines_shows_how_far_it_has_come(rabbit_project: Project, foreign: Foreign) -> None:
    """For several messages; one is there at once."""
    project = rabbit_project
    (project.folder / "lines").write_text("1\n2\n3\n")
    await with_dead_letters(project, foreign, lambda: (0, ""))
    publish = ("publish", str(project.file), project.name("orders"))
    code, shown = await asyncio.to_thread(on_terminal, project, *publish, "--lines", "@lines")
    assert code == 0, shown
    assert "publishing" in shown
    assert "100%" in shown
    _, shown = await asyncio.to_thread(on_terminal, project, *publish, "one")
    assert "publishing" not in shown


async def test_status_is_a_table(rabbit_project: Project, foreign: Foreign) -> None:
    """Headings are bold, and a table fits the terminal."""
    project = rabbit_project
    code, shown = await with_dead_letters(project, foreign, lambda: on_terminal(project, "status", str(project.file)))
    assert code == 0
    assert f"\x1b[1m{project.unique}\x1b[0m" in shown
    row = next(line for line in shown.splitlines() if project.name("orders") in line)
    assert row.split()[-1] == "3"


async def test_status_fits_into_sixty_columns(rabbit_project: Project, foreign: Foreign) -> None:
    """A queue then takes two lines, and no number is cut off."""
    project = rabbit_project
    arguments = ("status", str(project.file))
    code, shown = await with_dead_letters(project, foreign, lambda: on_terminal(project, *arguments, columns=60))
    assert code == 0
    lines = shown[shown.index("\x1b[1m") :].splitlines()[1:]
    assert max(map(len, lines)) <= 60
    assert lines[0].strip() == "QUEUE"
    assert lines[1].split() == ["READY", "UNACK", "CONS", "IN/S", "OUT/S", "OLDEST", "FAILED", "DEAD"]
    assert lines[2].strip() == project.name("orders")
    assert lines[3].split() == ["0", "–", "0", "–", "–", "0s", "–", "3"]

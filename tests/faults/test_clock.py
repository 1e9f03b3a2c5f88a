"""The wall clock is wrong, or is put right, while producers run by it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults.load import check_quiet
from tests.faults.verdict import Fault
from tests.project import Project, lines, until

PIPELINE = """
    version: 1
    queues: {UNIQUE.work: {}}
    producers:
      beat: {handler: work:beat, every: 300ms, to: UNIQUE.work}
    subscribers:
      work: {from: UNIQUE.work, handler: work:handle}
"""
# The file `clock` says how many seconds this machine's clock is wrong by.
HANDLERS = """
    import datetime, itertools, os, pathlib
    import runner.runtime.supervisor

    class Wrong(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.now(tz) + datetime.timedelta(seconds=float(pathlib.Path("clock").read_text()))

    runner.runtime.supervisor.datetime = Wrong
    numbers = itertools.count()

    def beat():
        return f"{os.getpid()}-{next(numbers)}"

    def handle(order: str) -> None:
        note(order)
"""
DAY_S = 86_400.0


def set_clock(project: Project, wrong_by_s: float) -> None:
    new = project.folder / "clock.new"
    new.write_text(str(wrong_by_s))
    new.rename(project.folder / "clock")


def beats(project: Project) -> int:
    return len(project.ledger.entries())


@pytest.mark.fault("F25", "the wall clock is put forward by a day while a producer beats")
async def test_a_clock_that_is_put_forward(rabbit_project: Project, fault: Fault) -> None:
    """One beat for all that were missed, then the rhythm goes on: no storm."""
    rabbit_project.write(PIPELINE, HANDLERS)
    set_clock(rabbit_project, 0)
    async with rabbit_project.running() as runner:
        await until(lambda: beats(rabbit_project) >= 3, "it beats")
        before = beats(rabbit_project)
        set_clock(rabbit_project, DAY_S)
        await fault.recovery(lambda: beats(rabbit_project) >= before + 3, "it goes on")
        finished = len(lines(runner, "producer.finished"))
    assert finished <= before + 10
    check_quiet(runner)
    counts = rabbit_project.ledger.counts()
    fault.judge(counts, counts, twice=0)


@pytest.mark.fault("F25", "the wall clock was a day ahead, and is put right")
@pytest.mark.parametrize("when", ["while it runs", "before the next start"])
async def test_a_clock_that_is_put_back(rabbit_project: Project, fault: Fault, when: str) -> None:
    """A producer with `every` does not stand still until the day has passed."""
    rabbit_project.write(PIPELINE, HANDLERS)
    set_clock(rabbit_project, DAY_S)
    async with rabbit_project.running():
        await until(lambda: beats(rabbit_project) >= 3, "it beats")
        if when == "while it runs":
            before = beats(rabbit_project)
            set_clock(rabbit_project, 0)
            await fault.recovery(lambda: beats(rabbit_project) >= before + 3, "it goes on", timeout=10)
    before = beats(rabbit_project)
    set_clock(rabbit_project, 0)
    async with rabbit_project.running():
        await fault.recovery(lambda: beats(rabbit_project) >= before + 3, "it goes on", timeout=10)
    counts: Counter[str] = rabbit_project.ledger.counts()
    fault.judge(counts, counts, twice=0)

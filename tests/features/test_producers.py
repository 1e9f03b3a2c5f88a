"""What brings messages in: functions called once or by the clock, files, and standard input."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import pytest

from tests.foreign import Foreign
from tests.process import RunnerProcess
from tests.project import Project, lines, started, stop, until

ONCE = """
    version: 1
    queues: {UNIQUE.work: {}}
    producers:
      read: {handler: work:read, to: UNIQUE.work}
    subscribers:
      hear: {from: UNIQUE.work, handler: work:hear}
"""
ONCE_HANDLERS = """
    async def read():
        note("read")
        for number in range(30):
            yield f"order-{number}"
    def hear(order: str) -> None: note(order)
"""
HELD_HANDLERS = (
    ONCE_HANDLERS
    + """
    import asyncio, os
    read_now = read
    async def read():
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
        async for order in read_now():
            yield order
"""
)


async def test_a_handler_without_a_schedule_runs_once_for_each_start(project: Project) -> None:
    """Each item is a message; a second start runs it again."""
    project.write(ONCE, ONCE_HANDLERS)
    orders = [f"order-{number}" for number in range(30)]
    runner = await project.up_until_idle()
    assert project.ledger.counts() == Counter(["read", *orders])
    assert [line["published"] for line in lines(runner, "producer.finished", producer="read")] == [30]
    await project.up_until_idle()
    assert project.ledger.counts() == Counter(["read", *orders] * 2)


@pytest.mark.parametrize("count", [60, 500])
async def test_messages_of_a_producer_are_handled_in_the_order_they_were_yielded(project: Project, count: int) -> None:
    """Though a hundred of them may wait for their confirm."""
    project.pipeline(ONCE.replace("handler: work:hear", "handler: work:hear, concurrency: 1"))
    project.handlers(
        f"""
        def read(): return list(range({count}))
        async def hear(number: int) -> None: note(number)
        """
    )
    await project.up_until_idle()
    assert [int(payload) for payload in project.ledger.payloads()] == list(range(count))


async def test_a_finite_producer_runs_in_one_of_the_processes_that_start_together(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """Its messages are published once in total, also when the process that did it is killed afterwards."""
    rabbit_project.pipeline(
        """
        version: 1
        queues: {UNIQUE.work: {}}
        producers:
          read: {handler: work:read, to: UNIQUE.work}
          tick: {handler: work:tick, every: 100ms, to: UNIQUE.work}
        """
    )
    rabbit_project.handlers(
        HELD_HANDLERS
        + """
    def tick(): note("tick")
    """
    )
    async with rabbit_project.up() as first, rabbit_project.up() as second:
        await started(first, second)
        (rabbit_project.folder / "go").touch()
        await until(
            lambda: (
                lines(first, "producer.finished", producer="read")
                or lines(second, "producer.finished", producer="read")
            ),
            "it has run",
        )
        leader, other = (first, second) if lines(first, "producer.finished") else (second, first)
        await other.wait_for(lambda line: line["event"] == "producers.standby")
        leader.signal(signal.SIGKILL)
        await until(lambda: has_ticked(rabbit_project, other, 3), "the other one goes on")
        await stop(other)
    assert rabbit_project.ledger.counts()["read"] == 1
    assert sorted(got.body for got in foreign.take(rabbit_project.name("work"))) == sorted(
        f"order-{number}".encode() for number in range(30)
    )


async def test_a_rolling_update_and_an_eviction_do_not_run_a_finite_producer_again(rabbit_project: Project) -> None:
    """Replicas that join while another one runs are in its start, also those that come after the producer has ended."""
    rabbit_project.write(ONCE, ONCE_HANDLERS)
    async with rabbit_project.up() as old, rabbit_project.up() as new, rabbit_project.up() as last:
        await until(lambda: sum(len(lines(each, "producer.finished")) for each in (old, new, last)) == 1, "it has run")
        (leader,) = (each for each in (old, new, last) if lines(each, "leadership.won"))
        others = [each for each in (old, new, last) if each is not leader]
        for other in others:
            await other.wait_for(lambda line: line["event"] == "producers.standby")
        async with rabbit_project.up() as replaced:
            await replaced.wait_for(lambda line: line["event"] == "producers.standby")
            await stop(leader)
            others.append(replaced)
            for _ in range(2):
                await until(lambda: any(lines(each, "leadership.won") for each in others), "another one leads")
                (leader,) = (each for each in others if lines(each, "leadership.won"))
                others.remove(leader)
                leader.signal(signal.SIGKILL)
                await leader.wait()
            await others[0].wait_for(lambda line: line["event"] == "leadership.won")
            await stop(others[0])
    assert rabbit_project.ledger.counts()["read"] == 1
    await rabbit_project.up_until_idle()  # nothing ran any more: a new start
    assert rabbit_project.ledger.counts()["read"] == 2


async def test_once_is_once_over_all_starts_and_for_each_value(rabbit_project: Project) -> None:
    """Also `--until-idle` ends well where nothing is left to produce; another value runs it once more."""
    rabbit_project.handlers(ONCE_HANDLERS)
    for value, times in (("true", 1), ("true", 1), ("v2", 2), ("v2", 2), ("true", 3), ("false", 4), ("false", 5)):
        rabbit_project.pipeline(ONCE.replace("handler: work:read", f"handler: work:read, once: {value}"))
        runner = await rabbit_project.up_until_idle()
        assert rabbit_project.ledger.counts()["read"] == times
        assert "once-forgets" not in runner.stderr


async def test_once_that_was_killed_before_its_end_is_finished_by_the_next_start_with_the_same_ids(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """At most a repetition with the same ids, and never a loss."""
    rabbit_project.pipeline(
        """
        version: 1
        queues: {UNIQUE.work: }
        producers: {read: {handler: work:read, once: true, to: UNIQUE.work}}
        """
    )
    rabbit_project.handlers(
        """
        import os, signal
        def read():
            for number in range(30):
                if number == 20 and not os.path.exists("killed"):
                    open("killed", "w").close()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield f"order-{number}"
        """
    )
    await rabbit_project.do("up", "--until-idle", code=-signal.SIGKILL)
    await rabbit_project.up_until_idle("--only", "read")
    got = foreign.take(rabbit_project.name("work"))
    assert {each.body for each in got} == {f"order-{number}".encode() for number in range(30)}
    assert len({each.properties.message_id for each in got}) == 30


async def test_once_in_process_is_once_for_each_start_and_says_so(memory_project: Project) -> None:
    """The in-process broker ends with its process, and remembers nothing."""
    memory_project.write(ONCE.replace("handler: work:read", "handler: work:read, once: true"), ONCE_HANDLERS)
    for times in (1, 2):
        runner = await memory_project.up_until_idle()
        assert memory_project.ledger.counts()["read"] == times
        assert "warning[once-forgets]" in runner.stderr


async def test_a_clock_that_is_an_hour_ahead_hides_no_start(rabbit_project: Project) -> None:
    """Clocks of two machines are not compared: the next start runs a finite producer, whatever the last one's said."""
    rabbit_project.pipeline(ONCE)
    wrong = """
    import datetime, os
    import runner.runtime.supervisor
    class Wrong(datetime.datetime):
        @classmethod
        def now(cls, tz=None): return datetime.datetime.now(tz) + datetime.timedelta(seconds=float(os.environ["WRONG"]))
    runner.runtime.supervisor.datetime = Wrong
    """
    rabbit_project.handlers(wrong + ONCE_HANDLERS)
    for times, wrong_s in enumerate((3600, 0, -3600, 0), start=1):
        await rabbit_project.up_until_idle(env={"WRONG": str(wrong_s)})
        assert rabbit_project.ledger.counts()["read"] == times


async def test_a_process_that_waits_until_idle_waits_for_the_producers_of_the_one_that_leads(
    rabbit_project: Project,
) -> None:
    """What another process still has to produce is left to do, though every queue is empty."""
    rabbit_project.write(ONCE, HELD_HANDLERS)
    async with rabbit_project.running() as first:
        await first.wait_for(lambda line: line["event"] == "leadership.won")
        async with rabbit_project.up("--until-idle") as second:
            await second.wait_for(lambda line: line["event"] == "producers.standby")
            with pytest.raises(TimeoutError):  # it would end within a third of a second
                async with asyncio.timeout(3):
                    await second.wait()
            (rabbit_project.folder / "go").touch()
            assert await second.wait() == 1  # without the management API it is not known what the first one holds
            assert "has 1 other consumer, and what they hold is not known" in second.stderr
        assert lines(first, "producer.finished", producer="read")
        assert rabbit_project.ledger.counts()["read"] == 1


def has_ticked(project: Project, runner: RunnerProcess, times: int) -> bool:
    return sum(entry == ("tick", 0, runner.pid) for entry in project.ledger.entries()) >= times


async def test_of_two_processes_one_ticks_and_the_other_goes_on_when_it_is_killed(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """Each tick once in total: within seconds of `kill -9` the next one comes, at most the last before it twice."""
    rabbit_project.pipeline(
        """
        version: 1
        queues: {UNIQUE.ticks: {}}
        producers:
          tick: {handler: work:tick, every: 200ms, to: UNIQUE.ticks}
        """
    )
    rabbit_project.handlers(
        """
        import os
        def tick():
            note("tick")
            return os.getpid()
        """
    )
    async with rabbit_project.up() as first, rabbit_project.up() as second:
        await started(first, second)
        entries = await rabbit_project.ledger.wait_for(8)
        (leading,) = {entry.pid for entry in entries}
        leader, other = (first, second) if first.pid == leading else (second, first)
        leader.signal(signal.SIGKILL)
        await leader.wait()
        before = len(rabbit_project.ledger.entries())
        await until(lambda: has_ticked(rabbit_project, other, 8), "the other goes on", timeout=10)
        await stop(other)
    assert {entry.pid for entry in rabbit_project.ledger.entries()[:before]} == {leader.pid}
    assert {entry.pid for entry in rabbit_project.ledger.entries()[before:]} == {other.pid}
    got = foreign.take(rabbit_project.name("ticks"))
    # The id of a tick's message is made of the moment at which it was due.
    twice = [number for number in Counter(each.properties.message_id for each in got).values() if number > 1]
    assert twice in ([], [2])
    assert len(got) >= 15
    assert {int(each.body) for each in got} == {leader.pid, other.pid}


async def test_ticks_do_not_drift(project: Project) -> None:
    """`every:` keeps its rhythm however long a call takes: five ticks of half a second take two seconds."""
    project.pipeline(
        """
        version: 1
        queues: {UNIQUE.ticks: {}}
        producers:
          tick: {handler: work:tick, every: 500ms, to: UNIQUE.ticks}
        """
    )
    project.handlers(
        """
        import time
        def tick():
            note(time.monotonic())
            time.sleep(0.4)
        """
    )
    async with project.running():
        entries = await project.ledger.wait_for(5)
    first, *_, fifth = (float(entry.payload) for entry in entries[:5])
    assert 1.8 <= fifth - first <= 3.2  # with pauses of half a second between the calls it would be 3.6


async def test_a_cron_producer_waits_for_its_time(project: Project) -> None:
    """It does not run at the start; everything else does, and a stop does not wait for it."""
    project.pipeline(
        ONCE.replace(
            "    subscribers:",
            '      report: {handler: work:report, cron: "0 6 29 2 mon", timezone: Europe/Berlin, to: UNIQUE.work}\n'
            "    subscribers:",
        )
    )
    project.handlers(ONCE_HANDLERS + "\n    def report(): note('report')\n")
    async with project.running() as runner:
        await project.ledger.wait_for(31)
    assert "1 subscriber · 2 producers" in runner.stderr
    assert lines(runner, "pipeline.started")[0]["producers"] == 2
    assert "report" not in project.ledger.payloads()


FILE = """
    version: 1
    queues: {UNIQUE.work: {}}
    producers:
      fill: {file: FILE, to: UNIQUE.work}
    subscribers:
      hear: {from: UNIQUE.work, handler: work:hear, concurrency: 1}
"""
FILE_HANDLERS = """
    import json
    def hear(row) -> None: note(json.dumps(row, ensure_ascii=False))
"""


@pytest.mark.parametrize(
    ("name", "content", "payloads"),
    [
        ("data/o.jsonl", b'{"a": 1}\n\n  [2, "x"]  \r\n"three"\n4', ['{"a": 1}', '[2, "x"]', '"three"', "4"]),
        ("o.jsonl", b'\xef\xbb\xbf{"a": 1}\n', ['{"a": 1}']),
        (
            "o.csv",
            'id,name\n1,"Åsa, the ""first"""\n2,"two\nlines"\n'.encode("utf-8-sig"),
            ['{"id": "1", "name": "Åsa, the \\"first\\""}', '{"id": "2", "name": "two\\nlines"}'],
        ),
    ],
    ids=["JSON lines", "JSON lines with a byte order mark", "CSV"],
)
async def test_each_line_of_a_file_is_a_message(
    project: Project, name: str, content: bytes, payloads: list[str]
) -> None:
    """JSON lines byte for byte, empty ones passed over; CSV rows as maps of the header's names to texts."""
    project.write(FILE.replace("FILE", name), FILE_HANDLERS)
    (project.folder / name).parent.mkdir(exist_ok=True)
    (project.folder / name).write_bytes(content)
    await project.up_until_idle()
    assert project.ledger.payloads() == payloads


async def test_each_line_of_standard_input_is_a_message(project: Project) -> None:
    """`file: -`, as in `zcat orders.gz | runner up … --until-idle`."""
    project.write(FILE.replace("FILE", "'-'"), FILE_HANDLERS)
    text = "".join(f'{{"n": {number}}}\n' for number in range(50)).encode()
    await project.do("up", "--until-idle", stdin=text)
    assert project.ledger.payloads() == [f'{{"n": {number}}}' for number in range(50)]


ROW = """
    from pydantic import BaseModel
    class Row(BaseModel):
        n: int
    def hear(row: Row) -> None: note(row.n)
"""


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("o.jsonl", b'{"n": 1}\n{"n": 2}\n\n{n: 3}\n{"n": 4}\n', "o.jsonl:4: not JSON"),
        ("o.jsonl", b'{"n": 1}\n{"n": 2}\n\xff\n{"n": 4}\n', "o.jsonl:3: not JSON"),
        ("o.csv", b"n\n1\n2\n3,three\n4\n", "o.csv:4: 2 fields, the header has 1"),
        ("o.csv", b'n\n1\n2\n"\xff"\n4\n', "o.csv:4: not UTF-8"),
        ("o.jsonl", b'{"n": 1}\n{"n": 2}\n{"m": 3}\n', "o.jsonl:3: the payload does not fit the schema of "),
        ("o.csv", b"n\n1\n2\nthree\n4\n", "o.csv:4: the payload does not fit the schema of "),
        ("-", b'{"n": 1}\n{"n": 2}\nthree\n{"n": 4}\n', "standard input:3: not JSON"),
    ],
)
async def test_a_bad_line_is_named_and_ends_its_producer(
    project: Project, name: str, content: bytes, error: str
) -> None:
    """File and line; what stood before it is published once, and nothing behind it: trying again cannot help."""
    project.write(FILE.replace("FILE", f"'{name}'").replace("{}", "{schema: work:Row}"), ROW)
    if name != "-":
        (project.folder / name).write_bytes(content)
    runner = await project.do("up", "--until-idle", stdin=content, code=1)
    (failed,) = lines(runner, "producer.failed", producer="fill", level="error")
    assert failed["error"].startswith(error)
    assert "error: producer fill failed and was not restarted" in runner.stderr
    assert project.ledger.payloads() == ["1", "2"]


async def test_a_file_is_published_no_faster_than_its_rate(project: Project) -> None:
    """`rate: 20/s`: thirty lines take a second and a half."""
    project.pipeline(FILE.replace("FILE", "o.jsonl, rate: 20/s"))
    project.handlers(
        """
        import time
        async def hear(number: int) -> None: note(time.monotonic())
        """
    )
    (project.folder / "o.jsonl").write_text("".join(f"{number}\n" for number in range(30)))
    await project.up_until_idle()
    times = [float(payload) for payload in project.ledger.payloads()]
    assert len(times) == 30
    assert times[-1] - times[0] >= 1.25

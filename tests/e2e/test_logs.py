"""What the runner writes: log lines for machines and people on stdout, all else on stderr."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from tests.foreign import Foreign
from tests.log_events import COMMON, EVENTS
from tests.process import LogLine, RunnerProcess
from tests.project import Project, until

EVERY_LINE = {"timestamp", "level", "event"}
EVERY_DELIVERY = {"pipeline", "subscriber", "queue", "message_id", "correlation_id", "attempt", "duration_ms"}

THREE_ENDS = """
    version: 1
    queues: {UNIQUE.work: {}}
    producers:
      send: {handler: work:send, to: UNIQUE.work}
    subscribers:
      handle:
        from: UNIQUE.work
        handler: work:handle
        retry: {attempts: 3, backoff: fixed, delay: 10ms}
"""
THREE_ENDS_HANDLERS = """
    from runner import Message, Reject

    def send():
        yield from ("fine", "again", "never")

    async def handle(order: str, message: Message) -> None:
        if order == "again" and message.attempt == 1:
            raise TimeoutError("no answer")
        if order == "never":
            raise Reject("nobody wants it")
"""

TALKATIVE = """
    version: 1
    queues: {UNIQUE.async: {}, UNIQUE.sync: {}}
    subscribers:
      in_loop: {from: UNIQUE.async, handler: work:in_loop}
      in_thread: {from: UNIQUE.sync, handler: work:in_thread}
"""
TALKATIVE_HANDLERS = """
    import asyncio, logging
    import structlog

    log = structlog.get_logger()
    bound = structlog.get_logger().bind(part="bound at import")
    old = logging.getLogger("shop.orders")

    async def in_loop(order: str) -> None:
        log.info("by structlog", where="loop")
        await asyncio.create_task(in_task())
        old.warning("by logging in the %s", "loop", extra={"colour": "red"})

    async def in_task() -> None:
        log.info("by structlog", where="task")

    def in_thread(order: str) -> None:
        log.info("by structlog", where="thread")
        bound.info("by a bound logger")
        old.warning("by logging in the %s", "thread")
        try:
            1 / 0
        except ZeroDivisionError:
            old.exception("it failed")
"""


def of(logs: list[LogLine], event: str) -> list[LogLine]:
    return [line for line in logs if line["event"] == event]


def parsed(runner: RunnerProcess) -> list[Any]:
    """Return every line of stdout as JSON, or fail."""
    return [json.loads(line) for line in runner.stdout.splitlines()]


async def test_each_delivery_ends_in_one_line_that_says_what_became_of_it(project: Project) -> None:
    """Handled, tried again, dead-lettered: one line each, with the fields that the language promises."""
    project.write(THREE_ENDS, THREE_ENDS_HANDLERS)
    runner = await project.up_until_idle()

    handled = of(runner.logs, "message.handled")
    (retried,) = of(runner.logs, "message.retry")
    (dead,) = of(runner.logs, "message.dead_lettered")
    assert [line["level"] for line in (*handled, retried, dead)] == ["info", "info", "warning", "error"]
    assert all(line.keys() >= EVERY_LINE | EVERY_DELIVERY for line in (*handled, retried, dead))
    assert all(line["subscriber"] == "handle" and line["queue"] == project.name("work") for line in handled)
    assert [line["published"] for line in handled] == [0, 0]
    assert {(line["attempt"]) for line in handled} == {1, 2}
    assert (retried["error"], retried["error_type"], retried["attempt"]) == ("no answer", "TimeoutError", 1)
    assert (retried["delay_ms"], retried["attempts"]) == (10, 3)
    assert (dead["error"], dead["error_type"], dead["reason"]) == ("nobody wants it", "Reject", "rejected")
    assert dead["dead_letter"] == project.name("work.dead")


async def test_each_publication_of_a_producer_has_a_line(project: Project) -> None:
    """What a producer has published can be followed by its id to where it was handled."""
    project.write(THREE_ENDS, THREE_ENDS_HANDLERS)
    runner = await project.up_until_idle()

    published = of(runner.logs, "message.published")
    assert len(published) == 3
    assert all(line.keys() >= EVERY_LINE | {"pipeline", "producer", "to", "message_id"} for line in published)
    assert {(line["producer"], line["to"], line["level"]) for line in published} == {
        ("send", project.name("work"), "info")
    }
    ended = [line["message_id"] for line in runner.logs if "duration_ms" in line and "subscriber" in line]
    assert set(ended) == {line["message_id"] for line in published}
    (finished,) = of(runner.logs, "producer.finished")
    assert (finished["producer"], finished["published"]) == ("send", 3)


async def test_the_life_of_a_pipeline_can_be_read_in_the_log(project: Project) -> None:
    """Connected, started with its counts, draining, stopped with its totals: once each, in this order."""
    project.write(THREE_ENDS, THREE_ENDS_HANDLERS)
    runner = await project.up_until_idle()

    states = [line for line in runner.logs if line["event"].startswith(("broker.", "pipeline."))]
    assert [line["event"] for line in states] == [
        "broker.connected",
        "pipeline.started",
        "pipeline.draining",
        "pipeline.stopped",
    ]
    started, stopped = states[1], states[3]
    assert started["pipeline"] == project.unique
    assert (started["subscribers"], started["producers"]) == (1, 1)
    totals = {name: stopped[name] for name in ("handled", "retried", "dead_lettered", "published")}
    assert totals == {"handled": 2, "retried": 1, "dead_lettered": 1, "published": 3}


async def test_the_terminal_shows_a_checklist_and_totals_and_stdout_only_log_lines(project: Project) -> None:
    """stderr tells people what was loaded, where it runs and what it did; stdout is JSON lines and nothing else."""
    project.write(THREE_ENDS, THREE_ENDS_HANDLERS)
    runner = await project.up_until_idle()

    said = [line for line in runner.stderr.splitlines() if line.split()[0] != "with"]  # features of RabbitMQ 4
    assert [line.split()[0] for line in said] == ["pipeline", "broker", "topology", "running", "stopped:"]
    assert project.unique in said[0]
    assert ("in-process" if project.place.is_memory else "RabbitMQ ") in said[1]
    assert "guest:guest" not in runner.stderr
    assert "1 subscriber · 1 producer" in said[3]
    assert said[4] == "stopped: 3 published · 2 handled · 1 retried · 1 dead-lettered"
    assert all(line.keys() >= EVERY_LINE for line in parsed(runner))


async def test_a_second_start_finds_everything_there(rabbit_project: Project) -> None:
    """The checklist says how many exchanges and queues were new: none, the second time."""
    rabbit_project.write(THREE_ENDS, THREE_ENDS_HANDLERS)
    first = await rabbit_project.up_until_idle("--only", "handle")
    second = await rabbit_project.up_until_idle("--only", "handle")

    topology = [next(line for line in run.stderr.splitlines() if "topology" in line) for run in (first, second)]
    assert "new)" in topology[0]
    assert "new)" not in topology[1]


async def test_handlers_own_lines_carry_the_message_they_are_about(rabbit_project: Project, foreign: Foreign) -> None:
    """Lines of structlog and of logging, from the loop, its tasks and threads, name the message and the subscriber."""
    rabbit_project.write(TALKATIVE, TALKATIVE_HANDLERS)
    async with rabbit_project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        foreign.publish(rabbit_project.name("async"), b"one", message_id="id-1", correlation_id="flow-1")
        foreign.publish(rabbit_project.name("sync"), b"two", message_id="id-2", correlation_id="flow-2")
        for subscriber in ("in_loop", "in_thread"):
            await runner.wait_for(
                partial(
                    lambda name, line: line["event"] == "message.handled" and line["subscriber"] == name, subscriber
                )
            )

    expected = {
        "in_loop": ("id-1", "flow-1", rabbit_project.name("async")),
        "in_thread": ("id-2", "flow-2", rabbit_project.name("sync")),
    }
    own = [line for line in parsed(runner) if line["event"].startswith(("by ", "it failed"))]
    assert sorted(line["event"] for line in own) == [
        "by a bound logger",
        "by logging in the loop",
        "by logging in the thread",
        *["by structlog"] * 3,
        "it failed",
    ]
    for line in own:
        ids = (line["message_id"], line["correlation_id"], line["queue"])
        assert ids == expected[line["subscriber"]]
        assert (line["pipeline"], line["attempt"]) == (rabbit_project.unique, 1)
    (by_logging,) = of(own, "by logging in the loop")
    assert (by_logging["logger"], by_logging["level"], by_logging["colour"]) == ("shop.orders", "warning", "red")
    (failed,) = of(own, "it failed")
    assert "ZeroDivisionError" in failed["exception"]


async def test_producers_own_lines_carry_their_name(project: Project) -> None:
    """A line that a producer's code writes says which producer it was."""
    project.pipeline(
        """
        version: 1
        queues: {UNIQUE.work: {}}
        producers:
          in_loop: {handler: work:in_loop, to: UNIQUE.work}
          in_thread: {handler: work:in_thread, to: UNIQUE.work}
        """
    )
    project.handlers(
        """
        import logging
        import structlog

        async def in_loop():
            structlog.get_logger().info("reading")
            yield 1

        def in_thread():
            logging.getLogger("shop").warning("reading")
            yield 2
        """
    )
    runner = await project.up_until_idle()
    assert {line["producer"] for line in of(runner.logs, "reading")} == {"in_loop", "in_thread"}
    assert {line["pipeline"] for line in of(runner.logs, "reading")} == {project.unique}


async def test_a_message_id_cannot_forge_a_log_line(rabbit_project: Project, foreign: Foreign) -> None:
    """Line breaks, terminal codes and Unicode's own separators in a foreign message id come out escaped."""
    rabbit_project.write(TALKATIVE, TALKATIVE_HANDLERS)
    evil = 'x\n{"event": "message.handled", "forged": true}\x1b[31m\u2028\u2029\x85\x00end'
    async with rabbit_project.up("--only", "in_loop") as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        foreign.publish(rabbit_project.name("async"), b"one", message_id=evil, correlation_id=evil)
        await runner.wait_for(lambda line: line["event"] == "message.handled")

    lines = parsed(runner)  # `splitlines` splits at every separator that Unicode knows
    assert not any("forged" in line for line in lines)
    assert "\x1b" not in runner.stdout
    (handled,) = of(lines, "message.handled")
    assert handled["message_id"] == evil.encode("unicode_escape").decode().replace('\\"', '"')


async def test_a_message_id_cannot_drive_a_terminal(rabbit_project: Project, foreign: Foreign) -> None:
    """The console's lines, too, show control characters escaped."""
    rabbit_project.write(TALKATIVE, TALKATIVE_HANDLERS)
    async with rabbit_project.up("--only", "in_loop", "--log-format", "console") as runner:
        await until(lambda: "running" in runner.stderr, "the start")
        foreign.publish(rabbit_project.name("async"), b"one", message_id="\x1b[31m\nid", correlation_id="\x1b[2J")
        await until(lambda: "message.handled" in runner.stdout, "the message's end")
    assert "\x1b" not in runner.stdout


@pytest.mark.parametrize("is_wanted", [False, True])
async def test_payloads_are_logged_only_where_the_pipeline_says_so(project: Project, is_wanted: bool) -> None:
    """A payload may be a secret: it is in no line unless `logging: {payloads: true}`."""
    project.pipeline(THREE_ENDS + ("    logging: {payloads: true}\n" if is_wanted else ""))
    project.handlers(
        """
        from runner import Message

        def send():
            yield "S3CR3T"
            yield {"deep": "S3CR3T"}

        def handle(order, message: Message) -> None:
            if message.attempt == 1:
                raise ValueError("no luck")
        """
    )
    runner = await project.up_until_idle()
    assert len(of(runner.logs, "message.retry")) == 2
    assert ("S3CR3T" in runner.stdout) == is_wanted
    assert "S3CR3T" not in runner.stderr


async def test_a_level_hides_what_is_below_it(project: Project) -> None:
    """--log-level warning leaves warnings and errors, of handlers' loggers as well."""
    project.write(THREE_ENDS, THREE_ENDS_HANDLERS)
    runner = await project.up_until_idle("--log-level", "warning")
    assert sorted(line["event"] for line in parsed(runner)) == ["message.dead_lettered", "message.retry"]
    assert {line["level"] for line in runner.logs} == {"warning", "error"}
    assert "stopped: 3 published" in runner.stderr


async def test_the_pipeline_chooses_level_and_message_lines(memory_project: Project) -> None:
    """`logging:` in the file does what the options do, and more: no message lines, debug lines of one logger."""
    memory_project.pipeline(
        THREE_ENDS + "    logging: {messages: false, level: warning, levels: {shop.orders: debug}}\n"
    )
    memory_project.handlers(
        """
        import logging

        def send():
            yield "one"

        def handle(order: str) -> None:
            logging.getLogger("shop.orders").debug("looked up")
            logging.getLogger("shop.stock").info("not to be seen")
        """
    )
    runner = await memory_project.up_until_idle()
    assert [line["event"] for line in parsed(runner)] == ["looked up"]


async def test_the_console_format_is_text_for_people(project: Project) -> None:
    """--log-format console has no JSON, and no colours where stdout is not a terminal."""
    project.write(THREE_ENDS, THREE_ENDS_HANDLERS)
    runner = await project.up_until_idle("--log-format", "console")
    assert runner.logs == []
    assert "\x1b" not in runner.stdout
    (dead,) = [line for line in runner.stdout.splitlines() if "message.dead_lettered" in line]
    assert "handle" in dead
    assert '"nobody wants it"' in dead


async def test_colours_can_be_forced_and_forbidden(memory_project: Project) -> None:
    """FORCE_COLOR colours the console's lines in a pipe, NO_COLOR wins over it."""
    memory_project.write(THREE_ENDS, THREE_ENDS_HANDLERS)
    forced = await memory_project.up_until_idle("--log-format", "console", env={"FORCE_COLOR": "1"})
    forbidden = await memory_project.up_until_idle("--log-format", "console", env={"FORCE_COLOR": "1", "NO_COLOR": "1"})
    assert "\x1b[" in forced.stdout
    assert "\x1b" not in forbidden.stdout + forbidden.stderr


TAKEN_OVER = """
    import contextlib, faulthandler, logging, logging.config, os, subprocess, sys, warnings
    import structlog

    def send():
        print("from a producer")
        yield from range(20)

    async def handle(order: int) -> None:
        structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
        structlog.get_logger().info("theirs", order=order)
        logging.basicConfig(force=True, stream=sys.stdout, level=logging.DEBUG)
        logging.getLogger("shop").warning("by logging")
        logging.config.dictConfig({"version": 1, "root": {"handlers": [], "level": "DEBUG"}})
        print("printed", order)
        print("no end", order, end="")
        warnings.warn(f"old {order}")
        faulthandler.dump_traceback(file=sys.stderr)
        subprocess.run(["echo", "from a program"])
        os.write(1, b"raw\\n")
        with contextlib.redirect_stdout(sys.stderr):
            print("on stderr", order)
        if order == 3:
            raise ValueError("at amqp://shop:S3CR3T@host/")
        if order == 10:
            logging.disable(logging.CRITICAL)
            sys.stdout = open(os.devnull, "w")
            os.close(1)
        if order == 11:
            os.open(os.devnull, os.O_WRONLY)  # gets the number of what was closed
"""


async def test_our_lines_stay_ours_whatever_handlers_do(project: Project) -> None:
    """With structlog, logging, sys.stdout and its descriptor; what they print is a line that says whose it is."""
    project.pipeline(
        THREE_ENDS.replace("retry: {attempts: 3, backoff: fixed, delay: 10ms}", "retry: none\n        concurrency: 1")
    )
    project.handlers(TAKEN_OVER)
    runner = await project.up_until_idle()

    foreign = [line for line in runner.stdout.splitlines() if not line.startswith("{")]
    assert set(foreign) == {"from a program", "raw"}
    assert all(line.keys() >= EVERY_LINE for line in runner.logs)
    assert len(runner.logs) + len(foreign) == len(runner.stdout.splitlines())
    ended = [*of(runner.logs, "message.handled"), *of(runner.logs, "message.dead_lettered")]
    assert len(ended) == 20
    assert all(line.keys() >= EVERY_DELIVERY for line in ended)
    assert "S3CR3T" not in runner.stdout
    ids = {line["message_id"] for line in ended}
    printed = of(runner.logs, "stdout")
    texts = [line["text"] for line in printed if line.get("subscriber") == "handle"]
    assert {line["message_id"] for line in printed if line.get("subscriber")} <= ids
    assert [text for text in texts if text.startswith("printed ")] == [f"printed {order}" for order in range(11)]
    assert "no end 0" in texts
    assert "order=0 event='theirs'" in " ".join(texts)
    assert "WARNING:shop:by logging" in texts
    assert [line["producer"] for line in printed if line["text"] == "from a producer"] == ["send"]
    assert "UserWarning: old 0" in runner.stderr
    assert "on stderr 0" in runner.stderr
    assert "most recent call first" in runner.stderr


async def test_every_line_of_a_run_is_documented(project: Project) -> None:
    """Event, level and fields are in the tables of docs/reference/logs.md."""
    project.write(THREE_ENDS, THREE_ENDS_HANDLERS)
    runner = await project.up_until_idle("--log-level", "debug", "--http", "127.0.0.1:0")
    events = {event.name: event for event in EVENTS}
    assert len(runner.logs) > 10
    for line in [line for line in runner.logs if "logger" not in line]:
        event = events[line["event"]]
        assert line["level"] in event.levels
        assert line.keys() <= {*COMMON, *event.fields}, line


async def test_a_tick_is_one_line(memory_project: Project) -> None:
    """Of a producer with `every`, at info; with the id of its message, where there is one."""
    memory_project.pipeline(
        """
        version: 1
        queues: {UNIQUE.work: {}}
        producers:
          one: {handler: work:one, every: 50ms, to: UNIQUE.work}
          many: {handler: work:many, every: 50ms, to: UNIQUE.work}
          none: {handler: work:none, every: 50ms, to: UNIQUE.work}
        subscribers: {handle: {from: UNIQUE.work, handler: work:handle}}
        """
    )
    memory_project.handlers(
        """
        def one(): return 1
        def many(): yield from range(5)
        def none(): return None
        def handle(order): note(order)
        """
    )
    async with memory_project.running() as runner:
        await memory_project.ledger.wait_for(30)
    told = [line for line in runner.logs if "producer" in line]
    assert {(line["event"], line["producer"], line["published"]) for line in told} == {
        ("producer.finished", "one", 1),
        ("producer.finished", "many", 5),
    }
    handled = {line["message_id"] for line in of(runner.logs, "message.handled")}
    assert {line["message_id"] for line in told if line["producer"] == "one"} & handled


async def test_lines_stay_whole_when_many_threads_write_at_once(memory_project: Project) -> None:
    """Sixteen handlers in threads log by both ways at the same time: every line is one JSON object."""
    memory_project.one_queue(
        """
        import logging
        import structlog

        log, old = structlog.get_logger(), logging.getLogger("shop")

        def send():
            yield from range(64)

        def handle(number: int) -> None:
            for turn in range(10):
                log.info("new", number=number, turn=turn, filler="x" * 500)
                old.warning("old", extra={"number": number, "turn": turn, "filler": "y" * 500})
        """,
        "concurrency: 16",
    )
    runner = await memory_project.up_until_idle()
    lines = parsed(runner)
    every = {(number, turn) for number in range(64) for turn in range(10)}
    for event in ("new", "old"):
        written = [(line["number"], line["turn"]) for line in of(lines, event)]
        assert len(written) == 640
        assert set(written) == every


async def test_who_no_longer_reads_the_lines_ends_the_run_in_order(memory_project: Project) -> None:
    """As `up | head -1` does: what runs is finished, and stderr says why it stopped."""
    memory_project.one_queue(
        """
        import asyncio

        async def send():
            for number in range(100_000):
                yield number
                await asyncio.sleep(0.001)

        async def handle(number: int) -> None:
            note(number)
        """,
    )
    async with memory_project.up() as runner:
        await memory_project.ledger.wait_for(1)
        runner.stop_reading()
        code = await runner.wait()
    assert code == ("lost with the in-process broker" in runner.stderr), runner.stderr
    assert "log lines cannot be written" in runner.stderr
    assert "stopped: " in runner.stderr
    assert "Traceback" not in runner.stderr

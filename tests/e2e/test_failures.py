"""Handlers that fail, in every way that Python knows: tried again as the policy says, then kept with the reason."""

from __future__ import annotations

import socket

import pytest

from tests.foreign import Foreign
from tests.process import LogLine
from tests.project import Project

# A message names what its handler raises.
RAISING = """
    import asyncio
    from runner import Message

    class Mine(BaseException):
        pass

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    class Deaf(Exception):
        def __repr__(self):
            raise RuntimeError("no words")

    KINDS = {
        "ValueError": lambda: ValueError("bad value"),
        "SystemExit": lambda: SystemExit(3),
        "KeyboardInterrupt": lambda: KeyboardInterrupt(),
        "CancelledError": lambda: asyncio.CancelledError("by nobody"),
        "GeneratorExit": lambda: GeneratorExit(),
        "Mine": lambda: Mine("my own"),
        "Mute": lambda: Mute(),
        "Deaf": lambda: Deaf("heard"),
        "ExceptionGroup": lambda: ExceptionGroup("several", [ValueError(1), TypeError(2)]),
        "StopAsyncIteration": lambda: StopAsyncIteration(),
        "MemoryError": lambda: MemoryError(),
        "TimeoutError": lambda: TimeoutError("elsewhere"),
    }

    def send():
        yield from ("fine-1", *KINDS, "fine-2")

    def fail(kind: str) -> None:
        if kind in KINDS:
            raise KINDS[kind]()

    async def in_loop(kind: str, message: Message) -> None:
        note(f"loop {kind}", message.attempt)
        await asyncio.sleep(0)
        fail(kind)

    def in_thread(kind: str, message: Message) -> None:
        note(f"thread {kind}", message.attempt)
        fail(kind)

    async def in_async_generator(kind: str, message: Message):
        note(f"generator {kind}", message.attempt)
        if kind == "StopAsyncIteration":
            kind = "ValueError"
        yield kind
        fail(kind)
"""
KINDS = [
    "ValueError",
    "SystemExit",
    "KeyboardInterrupt",
    "CancelledError",
    "GeneratorExit",
    "Mine",
    "Mute",
    "Deaf",
    "ExceptionGroup",
    "StopAsyncIteration",
    "MemoryError",
    "TimeoutError",
]
ERROR_TEXTS = {
    "ValueError": "bad value",
    "Mine": "my own",
    "Mute": "",
    "Deaf": "heard",
    "ValueError, TypeError": "ValueError: 1; TypeError: 2",
}


def of(logs: list[LogLine], event: str, **fields: object) -> list[LogLine]:
    return [line for line in logs if line["event"] == event and fields.items() <= line.items()]


async def test_whatever_a_handler_raises_is_its_own_failure_and_nobody_elses(project: Project) -> None:
    """Retried after the policy's delays, dead-lettered as exhausted; other messages and the process are unaffected."""
    project.pipeline(
        """
        version: 1
        events: {UNIQUE.event: }
        defaults:
          subscriber: {from: UNIQUE.event, retry: {attempts: 3, delay: 20ms}}
        producers:
          send: {handler: work:send, to: UNIQUE.event}
        subscribers:
          loop: {handler: work:in_loop}
          thread: {handler: work:in_thread}
          generator: {handler: work:in_async_generator}
        """
    )
    project.handlers(RAISING)
    runner = await project.up_until_idle()

    counts = project.ledger.counts()
    for subscriber in ("loop", "thread", "generator"):
        assert {name: counts[f"{subscriber} {name}"] for name in ("fine-1", "fine-2")} == {"fine-1": 1, "fine-2": 1}
        assert {name: counts[f"{subscriber} {name}"] for name in KINDS} == dict.fromkeys(KINDS, 3)
        dead = of(runner.logs, "message.dead_lettered", subscriber=subscriber)
        other = {"ExceptionGroup": "ValueError, TypeError"}
        if subscriber == "generator":
            other["StopAsyncIteration"] = "ValueError"
        assert sorted(line["error_type"] for line in dead) == sorted(other.get(name, name) for name in KINDS)
        assert {(line["reason"], line["attempt"]) for line in dead} == {("exhausted", 3)}
        assert all(
            line["error"] == ERROR_TEXTS[line["error_type"]] for line in dead if line["error_type"] in ERROR_TEXTS
        )
        assert all(line["at"].startswith("work.py:") for line in dead)
        for line in dead:
            retries = of(runner.logs, "message.retry", subscriber=subscriber, message_id=line["message_id"])
            assert [(retry["attempt"], retry["delay_ms"]) for retry in retries] == [(1, 20), (2, 40)]
    entries = [entry for entry in project.ledger.entries() if entry.payload == "loop Mine"]
    assert [entry.attempt for entry in entries] == [1, 2, 3]
    assert f"{3 * 2} handled · {3 * 2 * len(KINDS)} retried · {3 * len(KINDS)} dead-lettered" in runner.stderr


async def test_a_dead_letter_carries_its_story(rabbit_project: Project, foreign: Foreign) -> None:
    """Headers say the reason, the error, its type, the attempts, when it first failed, and where it came from."""
    rabbit_project.pipeline(
        """
        version: 1
        queues: {UNIQUE.work: {}}
        subscribers:
          handle: {from: UNIQUE.work, handler: work:in_loop, retry: {attempts: 2, delay: 20ms}}
        """
    )
    rabbit_project.handlers(RAISING)
    async with rabbit_project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        foreign.publish(
            rabbit_project.name("work"),
            b"ValueError",
            message_id="id-1",
            content_type="text/plain",
            headers={"tenant": "north"},
            reply_to="answers",
            type="order",
            priority=3,
        )
        await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")
    (kept,) = foreign.take(rabbit_project.name("work.dead"))
    assert kept.body == b"ValueError"
    story = {name.removeprefix("x-runner-"): value for name, value in kept.headers.items() if "runner" in name}
    assert story.pop("first-failed-at").startswith("20")
    assert story.pop("traceback").endswith("ValueError: bad value")
    assert story.pop("host") == socket.gethostname()
    assert story == {
        "reason": "exhausted",
        "error": "bad value",
        "error-type": "ValueError",
        "attempt": 2,
        "origin": rabbit_project.name("work"),
        "origin-exchange": "",
        "origin-key": rabbit_project.name("work"),
        "subscriber": f"{rabbit_project.unique}.handle",
    }
    assert kept.headers["tenant"] == "north"
    properties = kept.properties
    assert (properties.message_id, properties.reply_to, properties.type) == ("id-1", "answers", "order")
    assert (properties.priority, properties.content_type, properties.delivery_mode) == (3, "text/plain", 2)


async def test_attempts_are_at_least_the_policys_delays_apart(project: Project) -> None:
    """With `delay: 200ms` and exponential backoff the second try comes after 200 ms, the third after 400 ms more."""
    project.one_queue(
        """
        import time
        def send(): return "order"
        def handle(order: str) -> None:
            note(time.time())
            raise ValueError
        """,
        "retry: {attempts: 3, delay: 200ms}",
    )
    await project.up_until_idle()
    first, second, third = (float(payload) for payload in project.ledger.payloads())
    assert second - first >= 0.2
    assert third - second >= 0.4


async def test_only_the_listed_errors_are_tried_again(project: Project) -> None:
    """With `on:`, subclasses included, what is listed is retried; all else is dead-lettered after one attempt."""
    project.one_queue(
        """
        import builtins
        from runner import Message

        class Busy(Exception): ...
        class VeryBusy(Busy): ...

        def send(): yield from ("ConnectionError", "VeryBusy", "ValueError", "SystemExit")

        def handle(kind: str, message: Message) -> None:
            note(kind, message.attempt)
            raise {"VeryBusy": VeryBusy}.get(kind) or getattr(builtins, kind)
        """,
        "retry: {attempts: 2, delay: 10ms, on: [OSError, 'work:Busy']}",
    )
    runner = await project.up_until_idle()
    assert project.ledger.counts() == {"ConnectionError": 2, "VeryBusy": 2, "ValueError": 1, "SystemExit": 1}
    assert len(of(runner.logs, "message.dead_lettered", reason="exhausted", attempt=2)) == 2
    assert len(of(runner.logs, "message.dead_lettered", reason="rejected", attempt=1)) == 2


async def test_a_handler_chooses_when_it_gets_its_message_again_and_that_it_never_does(project: Project) -> None:
    """RetryLater overrides the policy's delay and uses up an attempt; Reject dead-letters at once."""
    project.one_queue(
        """
        from runner import Message, Reject, RetryLater

        def send(): yield from ("later", "always later", "never")

        async def handle(order: str, message: Message) -> None:
            note(order, message.attempt)
            if order == "never":
                raise Reject("nobody wants it")
            if order == "always later" or message.attempt == 1:
                raise RetryLater(after="50ms")
        """,
        "retry: {attempts: 3, delay: 1h, max_delay: 1h}",
    )
    runner = await project.up_until_idle()
    assert project.ledger.counts() == {"later": 2, "always later": 3, "never": 1}
    assert {line["delay_ms"] for line in of(runner.logs, "message.retry")} == {50}
    dead = of(runner.logs, "message.dead_lettered")
    assert sorted((line["reason"], line["error_type"], line["attempt"]) for line in dead) == [
        ("exhausted", "RetryLater", 3),
        ("rejected", "Reject", 1),
    ]


async def test_an_attempt_that_takes_too_long_has_failed(project: Project) -> None:
    """A timeout ends async handlers, whatever they do about it; threads count as timed out when they return."""
    project.pipeline(
        """
        version: 1
        events: {UNIQUE.event: }
        defaults:
          subscriber: {from: UNIQUE.event, timeout: 150ms, retry: {attempts: 2, delay: 10ms}}
        producers:
          send: {handler: work:send, to: UNIQUE.event}
        subscribers:
          loop: {handler: work:in_loop}
          tidy: {handler: work:tidy}
          generator: {handler: work:in_generator}
          thread: {handler: work:in_thread}
          quick: {handler: work:quick}
        """
    )
    project.handlers(
        """
        import asyncio, time
        from runner import Message

        def send(): return "order"

        async def in_loop(order: str, message: Message) -> None:
            note("loop", message.attempt)
            if message.attempt == 1:
                await asyncio.sleep(3600)

        async def tidy(order: str, message: Message) -> None:
            note("tidy", message.attempt)
            try:
                if message.attempt == 1:
                    await asyncio.sleep(3600)
            except asyncio.CancelledError:
                note("tidied up")

        async def in_generator(order: str, message: Message):
            note("generator", message.attempt)
            yield 1
            if message.attempt == 1:
                await asyncio.sleep(3600)

        def in_thread(order: str, message: Message) -> None:
            note("thread", message.attempt)
            if message.attempt == 1:
                time.sleep(0.4)

        async def quick(order: str) -> None:
            note("quick", 1)
        """
    )
    runner = await project.up_until_idle()
    assert project.ledger.counts() == {
        "loop": 2,
        "tidy": 2,
        "tidied up": 1,
        "generator": 2,
        "thread": 2,
        "quick": 1,
    }
    retries = of(runner.logs, "message.retry")
    assert sorted(line["subscriber"] for line in retries) == ["generator", "loop", "thread", "tidy"]
    assert {(line["error_type"], line["error"]) for line in retries} == {
        ("TimeoutError", "the handler took longer than its timeout of 0.15 s")
    }


async def test_a_failing_message_does_not_hold_up_the_others(project: Project) -> None:
    """While one message waits an hour for its retry, a subscriber with one handler at a time goes on with the rest."""
    project.one_queue(
        """
        def send(): yield from ("bad", "good-1", "good-2")

        async def handle(order: str) -> None:
            note(order)
            if order == "bad":
                raise ValueError("not today")
        """,
        "concurrency: 1, retry: {delay: 1h, max_delay: 1h}",
    )
    async with project.up() as runner:
        await project.ledger.wait_for(3)
        await runner.wait_for(lambda _: sum(line["event"] == "message.handled" for line in runner.logs) == 2)
    assert project.ledger.payloads() == ["bad", "good-1", "good-2"]


@pytest.mark.parametrize("kind", ["decorated", "partial", "returns a coroutine", "callable object"])
async def test_an_async_handler_in_disguise_is_awaited(project: Project, kind: str) -> None:
    """Behind a decorator that is a plain function an `async def` runs all the same, and its failures count."""
    project.pipeline(
        """
        version: 1
        queues: {UNIQUE.work: {}}
        producers:
          send: {handler: work:send, to: UNIQUE.work}
        subscribers:
          handle: {from: UNIQUE.work, handler: work:handle, retry: {attempts: 2, delay: 10ms}}
        """
    )
    disguise = {
        "decorated": "handle = decorate(work)",
        "partial": "handle = functools.partial(work)",
        "returns a coroutine": "handle = lambda order: work(order)",
        "callable object": "handle = Handler()",
    }
    project.handlers(
        f"""
        import asyncio, functools

        def decorate(function):
            @functools.wraps(function)
            def wrapper(*arguments, **more):
                return function(*arguments, **more)
            return wrapper

        def send():
            yield from ("good", "bad")

        async def work(order):
            await asyncio.sleep(0)
            note(order)
            if order == "bad":
                raise ValueError("not today")

        class Handler:
            async def __call__(self, order):
                await work(order)

        {disguise[kind]}
        """
    )
    runner = await project.up_until_idle()
    assert project.ledger.counts() == {"good": 1, "bad": 2}
    assert len(of(runner.logs, "message.dead_lettered", reason="exhausted", error="not today")) == 1

"""The engine runs the real pipeline: what it promises in time, it does in virtual time."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.errors import PipelineInvalid, PublishFailed, RunnerError
from runner.outcome import RetryPolicy
from runner.pipeline.topology import wait_milliseconds
from runner.runtime.resources import ResourceFailed
from runner.testing import NeverIdle, Replacement, recorder, running, running_sync
from runner.testing.records import Record
from runner.units import format_duration
from tests.unit.testing.projects import write_project

START = datetime(2026, 3, 28, tzinfo=UTC)
QUEUE = """
    queues: {work: %s}
    subscribers:
      do:
        from: work
        handler: shop_handlers:do
        %s
    """
SLEEPING = """
    import asyncio
    async def do(item):
        await asyncio.sleep(item)
    """
FAILING = """
    def do(item):
        raise TimeoutError("away")
    """


def _seconds(records: list[Record]) -> list[float]:
    return [(record.at - START).total_seconds() for record in records]


@settings(max_examples=25)
@given(
    attempts=st.integers(1, 6),
    backoff=st.sampled_from(["exponential", "linear", "fixed"]),
    delay=st.integers(1, 200_000).map(lambda milliseconds: milliseconds / 1000),
    max_delay=st.integers(1, 3600),
)
def test_retries_come_when_the_file_says(
    tmp_path_factory: pytest.TempPathFactory, attempts: int, backoff: str, delay: float, max_delay: int
) -> None:
    policy = RetryPolicy(attempts, backoff, delay, float(max_delay))  # type: ignore[arg-type]
    retry = f"{{attempts: {attempts}, backoff: {backoff}, delay: {format_duration(delay)}, max_delay: {max_delay}s}}"
    path = write_project(tmp_path_factory.mktemp("retries"), QUEUE % ("", f"retry: {retry}"), FAILING)
    if delay > max_delay:
        with pytest.raises(PipelineInvalid):
            running_sync(path).__enter__()
        return
    with running_sync(path, now=START) as pipelines:
        pipelines.publish("work", 1)
        pipelines.until_idle()
        promised = [policy.delay_after(attempt) for attempt in range(1, attempts)]
        assert [record.after for record in pipelines.retried("do")] == pytest.approx(promised)
        waits = [wait_milliseconds(each) / 1000 for each in promised]  # rounded up, so that wait queues stay few
        times = _seconds([*pipelines.retried("do"), *pipelines.dead("work")])
        assert times == pytest.approx([sum(waits[:count]) for count in range(attempts)], abs=0.001)


def test_a_handler_sleeps_in_virtual_time(tmp_path: Path) -> None:
    with running_sync(write_project(tmp_path, QUEUE % ("", "concurrency: 2"), SLEEPING), now=START) as pipelines:
        for hours in (3, 1, 2):
            pipelines.publish("work", hours * 3600)
        pipelines.until_idle()
        assert _seconds(pipelines.handled("do")) == [3600.0, 10_800.0, 10_800.0]


def test_a_timeout_is_in_virtual_time(tmp_path: Path) -> None:
    path = write_project(tmp_path, QUEUE % ("", "timeout: 10m\n        retry: none"), SLEEPING)
    with running_sync(path, now=START) as pipelines:
        pipelines.publish("work", 3600)
        pipelines.until_idle()
        (dead,) = pipelines.dead("work")
        assert (_seconds([dead]), dead.error_type) == ([600.0], "TimeoutError")


def test_a_rate_is_kept(tmp_path: Path) -> None:
    path = write_project(tmp_path, QUEUE % ("", "rate: 6/m"), "def do(item): pass\n")
    with running_sync(path, now=START) as pipelines:
        for item in range(4):
            pipelines.publish("work", item)
        pipelines.until_idle()
        assert _seconds(pipelines.handled("do")) == [0.0, 10.0, 20.0, 30.0]


def test_a_batch_waits_for_more(tmp_path: Path) -> None:
    path = write_project(tmp_path, QUEUE % ("", "batch: {size: 3, wait: 30s}"), "def do(items: list[int]): pass\n")
    with running_sync(path, now=START) as pipelines:
        for item in range(4):
            pipelines.publish("work", item)
        assert _seconds(pipelines.handled("do")) == [0.0, 0.0, 0.0]
        pipelines.until_idle()
        assert _seconds(pipelines.handled("do")) == [0.0, 0.0, 0.0, 30.0]


def test_a_duplicate_is_handled_again_after_the_window(tmp_path: Path) -> None:
    path = write_project(tmp_path, QUEUE % ("", "dedupe: {window: 1h}"), "def do(item): pass\n")
    with running_sync(path, now=START) as pipelines:
        for wait in ("0s", "59m", "61m"):
            pipelines.advance(wait)
            pipelines.publish("work", 1, id="one")
            pipelines.until_idle()
        assert [record.kind for record in pipelines.records if record.subscriber] == ["handled", "duplicate", "handled"]


def test_a_message_expires(tmp_path: Path) -> None:
    path = write_project(tmp_path, QUEUE % ("{message_ttl: 1h}", "concurrency: 1\n        prefetch: 1"), SLEEPING)
    with running_sync(path, now=START) as pipelines:
        pipelines.publish("work", 7200, id="slow")
        pipelines.publish("work", 0, id="late")
        pipelines.until_idle()
        (expired,) = pipelines.dead("work")
        assert (expired.message_id, expired.reason, _seconds([expired])) == ("late", "expired", [3600.0])
        assert (expired.subscriber, expired.to) == (None, "work.dead")


def test_a_queue_that_only_delays_is_waited_for(tmp_path: Path) -> None:
    pipeline = """
        queues: {later: {message_ttl: 24h, dead_letter: work}, work: , unread: {message_ttl: 1h}}
        subscribers: {do: {from: work, handler: shop_handlers:do}}
        """
    with running_sync(write_project(tmp_path, pipeline, "def do(item): pass\n"), now=START) as pipelines:
        pipelines.publish("later", 1)
        pipelines.publish("unread", 1)
        pipelines.until_idle()
        assert _seconds(pipelines.handled("do")) == [86_400.0]
        assert [record.queue for record in pipelines.dead()] == ["unread"]  # what was only delayed is not dead


def test_order_by_retries_in_this_process(tmp_path: Path) -> None:
    handlers = """
        def do(item: dict):
            if item.get("fails"):
                raise TimeoutError("away")
        """
    path = write_project(tmp_path, QUEUE % ("", "order_by: key\n        retry: {attempts: 2, delay: 1m}"), handlers)
    with running_sync(path, now=START) as pipelines:
        pipelines.publish("work", {"key": 1, "fails": True}, id="first")
        pipelines.publish("work", {"key": 1}, id="second")
        pipelines.until_idle()
        story = [(record.kind, record.message_id, record.attempt) for record in pipelines.records if record.subscriber]
        assert story == [("retried", "first", 1), ("dead", "first", 2), ("handled", "second", 1)]


def test_a_finite_producer_ends_before_the_pipeline_is_idle(tmp_path: Path) -> None:
    pipeline = """
        queues: {work: }
        producers: {import: {handler: shop_handlers:read, to: work, rate: 1/m}}
        subscribers: {do: {from: work, handler: shop_handlers:do}}
        """
    handlers = """
        def read(): yield from range(5)
        def do(item: int): pass
        """
    with running_sync(write_project(tmp_path, pipeline, handlers), now=START) as pipelines:
        pipelines.until_idle()
        assert [record.payload for record in pipelines.published("work")] == [0, 1, 2, 3, 4]
        assert {record.producer for record in pipelines.published("work")} == {"import"}
        assert _seconds(pipelines.handled("do")) == [0.0, 60.0, 120.0, 180.0, 240.0]


def test_a_producer_that_always_fails_is_named(tmp_path: Path) -> None:
    pipeline = """
        queues: {work: }
        producers: {import: {handler: shop_handlers:read, to: work}}
        subscribers: {do: {from: work, handler: shop_handlers:read}}
        """
    handlers = """
        async def read(*_): raise OSError("no such file")
        """
    text = r"not idle: producer import has not ended \(21 failures\)"
    path = write_project(tmp_path, pipeline, handlers)
    with running_sync(path) as pipelines, pytest.raises(NeverIdle, match=text):
        pipelines.until_idle()


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_a_producer_that_does_not_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(recorder, "MAX_AT_ONCE", 500)
    pipeline = """
        queues: {work: }
        producers: {count: {handler: shop_handlers:count, to: work}}
        subscribers: {do: {from: work, handler: shop_handlers:do}}
        """
    handlers = f"""
        import itertools
        {kind} count():
            for number in itertools.count(): yield number
        async def do(item): pass
        """
    path = write_project(tmp_path, pipeline, handlers)
    with running_sync(path) as pipelines, pytest.raises(NeverIdle, match="count does not end: more than 500 things"):
        pipelines.until_idle()


def test_a_background_task_that_exits_ends_the_test_and_not_the_process(tmp_path: Path) -> None:
    handlers = """
        import asyncio, sys
        async def leave(): sys.exit(3)
        async def do(item):
            asyncio.create_task(leave())
            await asyncio.sleep(1)
        """
    with running_sync(write_project(tmp_path, QUEUE % ("", ""), handlers)) as pipelines:
        pipelines.publish("work", 1)
        with pytest.raises(RuntimeError, match="SystemExit was raised in a background task"):
            pipelines.until_idle()


def test_a_full_queue_takes_a_message_when_there_is_room(tmp_path: Path) -> None:
    path = write_project(tmp_path, QUEUE % ("{max_length: 1}", "concurrency: 1\n        prefetch: 1"), SLEEPING)
    with running_sync(path, now=START) as pipelines:
        for _ in range(4):
            pipelines.publish("work", 10)
        assert timedelta(seconds=20) <= pipelines.now - START < timedelta(seconds=26)
        for _ in range(2):
            pipelines.publish("work", 60)
        with pytest.raises(PublishFailed, match="full"):
            pipelines.publish("work", 10)


def test_only_what_is_named_runs(tmp_path: Path) -> None:
    pipeline = """
        queues: {work: }
        producers: {beat: {handler: shop_handlers:beat, every: 1s, to: work}}
        subscribers: {do: {from: work, handler: shop_handlers:do}}
        """
    handlers = """
        def beat(): return 1
        def do(item): pass
        """
    with running_sync(write_project(tmp_path, pipeline, handlers), only=("do",)) as pipelines:
        pipelines.advance("1m")
        assert pipelines.records == []


async def test_several_pipelines_share_their_events(tmp_path: Path) -> None:
    first = write_project(
        tmp_path, "events: {a: , b: }\nsubscribers: {x: {from: a, handler: one:f, to: b}}", "", module="e"
    )
    second = tmp_path / "other.yaml"
    second.write_text("version: 1\nevents: {b: }\nsubscribers: {y: {from: b, handler: one:f}}\n")
    (tmp_path / "one.py").write_text("async def f(payload): return payload\n")
    async with running(first, second) as pipelines:
        await pipelines.publish("a", "text")
        await pipelines.until_idle()
        assert [(record.pipeline, record.payload) for record in pipelines.handled()] == [
            ("shop", "text"),
            ("other", "text"),
        ]


def test_what_only_rabbitmq_has_does_not_prevent_a_test(tmp_path: Path) -> None:
    """Queues of other programs are made, and a stream takes messages."""
    pipeline = """
        broker: {url: "${RABBITMQ_URL:?amqps://user:password@host}", tls: {ca: ca.pem}, topology: verify}
        exchanges: {erp: {type: direct, declare: false}}
        queues:
          work: {declare: false}
          log: {type: stream}
          stock: {bind: [{exchange: erp, key: stock}]}
        subscribers:
          do: {from: work, handler: shop_handlers:do, to: log}
          count: {from: stock, handler: shop_handlers:do}
        """
    with running_sync(write_project(tmp_path, pipeline, "async def do(item): return item\n")) as pipelines:
        pipelines.publish("work", 1)
        pipelines.until_idle()
        assert [record.payload for record in pipelines.published("log")] == [1]


def test_a_stream_is_a_queue_so_a_test_has_one_of_its_subscribers(tmp_path: Path) -> None:
    pipeline = """
        broker: amqp://host
        queues: {log: {type: stream}}
        subscribers:
          one: {from: log, handler: shop_handlers:do, offset: next, retry: {attempts: 2}}
          two: {from: log, handler: shop_handlers:do}
        """
    path = write_project(tmp_path, pipeline, "def do(item): raise ValueError(item)\n")
    with pytest.raises(RunnerError, match='several subscribers read the stream "log"'), running_sync(path):
        pass
    with running_sync(path, only=["one"]) as pipelines:
        pipelines.publish("log", 1)
        pipelines.until_idle()
        assert [(each.attempt, each.to) for each in pipelines.dead("shop.one.dead")] == [(2, "shop.one.dead")]


def test_overlays_change_the_pipeline(tmp_path: Path) -> None:
    path = write_project(tmp_path, QUEUE % ("", "retry: {attempts: 5}"), FAILING)
    overlay = tmp_path / "quick.yaml"
    overlay.write_text("subscribers: {do: {retry: none}}\n")
    for overlays, retries in ([overlay], 0), ([], 4):
        with running_sync(path, overlays=overlays) as pipelines:
            pipelines.publish("work", 1)
            pipelines.until_idle()
            assert len(pipelines.retried("do")) == retries


def test_wrong_pipelines_fail_as_validate_says(tmp_path: Path) -> None:
    path = write_project(tmp_path, QUEUE % ("", "concurency: 5"), "def do(item): pass\n")
    with pytest.raises(PipelineInvalid) as wrong, running_sync(path):
        pass
    assert [problem.code for problem in wrong.value.problems] == ["unknown-key"]
    assert 'did you mean "concurrency"?' in str(wrong.value)
    assert f"{path}:8:5" in str(wrong.value)


def test_a_resource_that_cannot_be_opened_fails_the_test(tmp_path: Path) -> None:
    pipeline = """
        resources: {db: {factory: shop_handlers:connect}, other: {factory: shop_handlers:hang}}
        queues: {work: }
        subscribers: {do: {from: work, handler: shop_handlers:do}}
        """
    handlers = """
        import asyncio, contextlib
        closed = []
        @contextlib.contextmanager
        def connect():
            yield "db"
            closed.append("db")
        async def hang(): raise OSError("no answer")
        def do(item, db): pass
        """
    with pytest.raises(ResourceFailed, match="no answer"), running_sync(write_project(tmp_path, pipeline, handlers)):
        pass
    assert [thread.name for thread in threading.enumerate() if thread.name == "pipelines-under-test"] == []


def test_variables_come_from_the_test_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_CARRIER", "real")
    pipeline = QUEUE % ("", "with: {carrier: '${SHOP_CARRIER:-none}', home: '${HOME}'}")
    path = write_project(tmp_path, pipeline, "def do(item, carrier, home): assert item == carrier and home\n")
    for env, carrier in ({}, "none"), ({"SHOP_CARRIER": "dhl"}, "dhl"):
        with running_sync(path, env=env) as pipelines:
            pipelines.publish("work", carrier)
            pipelines.until_idle()
            assert len(pipelines.handled("do")) == 1


def test_a_handler_in_a_process_runs_in_one(tmp_path: Path) -> None:
    handlers = """
        import os
        def do(parent):
            assert os.getppid() == parent
        """
    import os

    path = write_project(tmp_path, QUEUE % ("", "run_in: process\n        concurrency: 1"), handlers)
    with running_sync(path) as pipelines:
        pipelines.publish("work", os.getpid())
        pipelines.until_idle()
        assert len(pipelines.handled("do")) == 1


def test_time_is_the_same_for_messages_and_dead_letters(tmp_path: Path) -> None:
    """The stamps that a handler sees come from the same clock as the records."""
    seen: list[object] = []
    from runner import Message

    def do(item: int, message: Message) -> None:
        seen.append(message.timestamp)
        raise TimeoutError

    path = write_project(tmp_path, QUEUE % ("", "retry: {attempts: 2, delay: 1h, max_delay: 1h}"), FAILING)
    with running_sync(path, replace={"do": do}, now=START) as pipelines:
        pipelines.advance("1d")
        pipelines.publish("work", 1)
        pipelines.until_idle()
        assert seen == [START + timedelta(days=1)] * 2
        letter = pipelines.engine._transport.queue("work.dead").buffer[0].envelope  # type: ignore[union-attr]
        assert letter.headers["x-runner-first-failed-at"] == "2026-03-29T00:00:00+00:00"


def test_the_first_failures_are_as_asked_for(tmp_path: Path) -> None:
    path = write_project(tmp_path, QUEUE % ("", "retry: {attempts: 3, delay: 1s}"), "async def do(item): pass\n")
    with running_sync(path, replace={"do": Replacement(raises=TimeoutError("away"), times=2)}) as pipelines:
        pipelines.publish("work", 1)
        pipelines.until_idle()
        assert [record.kind for record in pipelines.records if record.subscriber] == ["retried", "retried", "handled"]

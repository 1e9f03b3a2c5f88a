"""`dedupe` with a store: one call for one key, over processes, restarts, retries and replays; SQLite and Redis."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.features.test_http import post, serve
from tests.foreign import Foreign
from tests.node import free_port
from tests.project import Project, lines, started, stop, until
from tests.redis_server import RedisServer

PIPELINE = """
    version: 1
    stores: {seen: "STORE"}
    queues: {UNIQUE.work: {}}
    subscribers:
      charge:
        from: UNIQUE.work
        handler: work:charge
        dedupe: {window: 1h, key: order.id, store: seen}
        OPTIONS
"""
CHARGE = """
    import asyncio
    async def charge(payment: dict) -> None:
        await asyncio.sleep(0.3)
        note(payment["order"]["id"])
"""


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return "sqlite:seen.db"
    server: RedisServer = request.getfixturevalue("redis_server")
    server.ask("FLUSHALL")
    return server.url


def payments(*ids: int, **more: object) -> list[bytes]:
    """Return payments of orders, each another message."""
    return [json.dumps({"order": {"id": id}, "number": number, **more}).encode() for number, id in enumerate(ids)]


def pipeline(project: Project, store: str, options: str = "") -> None:
    project.pipeline(PIPELINE.replace("STORE", store).replace("OPTIONS", options))


async def test_two_processes_that_get_one_order_twice_charge_it_once(
    rabbit_project: Project, foreign: Foreign, store: str
) -> None:
    """The second waits until the first is done, on whichever process it is, and costs no attempt."""
    pipeline(rabbit_project, store, "concurrency: 1")
    rabbit_project.handlers(CHARGE)
    async with rabbit_project.up() as one, rabbit_project.up() as two:
        await started(one, two)
        foreign.publish(rabbit_project.name("work"), *payments(1, 1, 2, 2, 1, 3))
        await until(lambda: sum(len(lines(each, "message.handled")) for each in (one, two)) == 6, "all are done")
        await asyncio.gather(stop(one), stop(two))
    assert rabbit_project.ledger.counts() == Counter({"1": 1, "2": 1, "3": 1})
    by_one, by_two = lines(one, "message.handled"), lines(two, "message.handled")
    assert by_one  # the broker gives each its share, charged by whichever is first
    assert by_two
    assert sum(line.get("duplicate", False) for line in by_one + by_two) == 3
    assert {line["attempt"] for line in by_one + by_two} == {1}
    assert ":secret@" not in one.stderr


async def test_what_was_handled_is_known_after_a_restart_and_failed_work_is_not_done_work(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """Retries are not held up by their own claim; a replayed dead letter is let through; then it is done."""
    pipeline(rabbit_project, "sqlite:seen.db", "retry: {attempts: 2, delay: 50ms}")
    rabbit_project.handlers(
        """
        import os
        from runner import Message
        def charge(payment: dict, message: Message) -> None:
            note(payment["order"]["id"], message.attempt)
            if payment["order"]["id"] == 2 and not os.path.exists("repaired"):
                raise ConnectionError("the bank is away")
        """
    )
    queue = rabbit_project.name("work")
    async with rabbit_project.running() as runner:
        foreign.publish(queue, *payments(1, 2))
        await until(lambda: lines(runner, "message.dead_lettered"), "the second is given up")
    (rabbit_project.folder / "repaired").touch()
    async with rabbit_project.running() as runner:
        foreign.publish(queue, *payments(1))
        await rabbit_project.run_to_end("dead", "replay", rabbit_project.file, *rabbit_project.place.arguments)
        await until(lambda: len(lines(runner, "message.handled")) == 2, "both are done")
        foreign.publish(queue, *payments(2))
        await until(lambda: len(lines(runner, "message.handled")) == 3, "it comes again")
    entries = [(entry.payload, entry.attempt) for entry in rabbit_project.ledger.entries()]
    assert sorted(entries) == [("1", 1), ("2", 1), ("2", 1), ("2", 2)]


async def test_a_message_without_the_key_is_a_dead_letter_and_each_message_of_a_batch_counts(project: Project) -> None:
    project.pipeline(
        PIPELINE.replace("STORE", "sqlite:seen.db").replace("OPTIONS", "batch: {size: 10, wait: 100ms}")
        + """
    producers:
      send: {handler: work:send, to: UNIQUE.work}
        """
    )
    project.handlers(
        """
        def send():
            for id in (1, 2, 1, 3, 2, 1):
                yield {"order": {"id": id}, "more": "x" * id}
            yield {"order": {}}
            yield {"order": {"id": None}}
        def charge(payments: list[dict]) -> None:
            for payment in payments:
                note(payment["order"]["id"])
        """
    )
    runner = await project.up_until_idle()
    assert project.ledger.counts() == Counter({"1": 1, "2": 1, "3": 1})
    assert len(lines(runner, "message.handled", duplicate=True)) == 3
    dead = lines(runner, "message.dead_lettered", reason="invalid")
    assert [line["error"] for line in dead] == ['the payload has nothing at "order.id", the key of dedupe'] * 2


async def test_a_store_that_is_away_at_the_start_is_waited_for(project: Project, redis_server: RedisServer) -> None:
    """Nothing is handled, no attempt is spent, and /readyz says what it waits for."""
    redis_server.kill()
    try:
        project.pipeline(
            PIPELINE.replace("STORE", redis_server.url).replace("OPTIONS", "timeout: 200ms")
            + """
    producers:
      send: {handler: work:send, to: UNIQUE.work}
            """
        )
        project.handlers(
            """
            def send(): return [{"order": {"id": id % 3}, "n": id} for id in range(6)]
            async def charge(payment: dict) -> None: note(payment["order"]["id"])
            """
        )
        runner, port = serve(project, "--until-idle")
        async with runner:
            line = await runner.wait_for(lambda line: line["event"] == "store.unavailable")
            assert (line["store"], "secret" in line["url"]) == ("seen", False)
            await started(runner)
            answer = await asyncio.to_thread(post, port, "/readyz", b"", None, "GET")
            assert answer[0] == 503
            assert 'the store "seen" cannot be used' in str(answer[1])
            assert project.ledger.entries() == []
            redis_server.start()
            assert await runner.wait() == 0
        assert project.ledger.counts() == Counter({"0": 1, "1": 1, "2": 1})
        assert len(lines(runner, "store.unavailable")) == len(lines(runner, "store.available")) == 1
        assert {line["attempt"] for line in lines(runner, "message.handled")} == {1}
        assert lines(runner, "handler.slow") == []
    finally:
        redis_server.kill()
        redis_server.start()


async def test_a_stop_and_a_pause_give_back_what_waits_for_a_store(rabbit_project: Project, foreign: Foreign) -> None:
    pipeline(rabbit_project, f"redis://127.0.0.1:{free_port()}/0")
    rabbit_project.handlers(CHARGE)
    queue = rabbit_project.name("work")
    async with rabbit_project.up() as runner:
        await started(runner)
        foreign.publish(queue, *payments(1, 2))
        await until(lambda: foreign.count(queue) == 0, "they are held")
        await rabbit_project.do("pause", "charge", "--reason", "no store")
        await until(lambda: foreign.count(queue) == 2, "they are in the queue")
        await rabbit_project.do("resume", "charge")
        await until(lambda: foreign.count(queue) == 0, "they are held again")
        runner.signal(signal.SIGTERM)
        assert await runner.wait(10) == 0
    assert foreign.count(queue) == 2
    assert rabbit_project.ledger.entries() == []


async def test_a_handler_that_has_done_its_work_is_not_called_again_while_the_store_is_away(
    project: Project, redis_server: RedisServer
) -> None:
    """The message is acknowledged when the store knows that it is done."""
    project.pipeline(
        PIPELINE.replace("STORE", redis_server.url).replace("OPTIONS", "concurrency: 1")
        + """
    producers:
      send: {handler: work:send, to: UNIQUE.work}
        """
    )
    project.handlers(
        """
        import asyncio, os
        def send(): return [{"order": {"id": 1}}, {"order": {"id": 1}, "n": 2}]
        async def charge(payment: dict) -> None:
            note("begun")
            while not os.path.exists("go"):
                await asyncio.sleep(0.02)
            note("done")
        """
    )
    try:
        async with project.up("--until-idle") as runner:
            await project.ledger.wait_for(1)
            redis_server.kill()
            (project.folder / "go").touch()
            await runner.wait_for(lambda line: line["event"] == "store.unavailable")
            assert lines(runner, "message.handled") == []
            redis_server.start()
            assert await runner.wait() == 0
    finally:
        redis_server.kill()
        redis_server.start()
    assert project.ledger.payloads() == ["begun", "done"]
    assert [line.get("duplicate") for line in lines(runner, "message.handled")] == [None, True]


HTTP = """
    version: 1
    stores: {seen: "sqlite:seen.db"}
    queues: {UNIQUE.work: {}}
    producers:
      orders: {http: /orders, to: UNIQUE.work, idempotency: {window: 1h, store: seen}}
      forgetful: {http: /forgetful, to: UNIQUE.work}
"""


async def test_a_repeated_post_gets_the_first_answer(rabbit_project: Project, foreign: Foreign) -> None:
    """With a store also from another process; without one from the same process. The key is the id of the message."""
    rabbit_project.pipeline(HTTP)
    answers: list[tuple[int, object]] = []
    queue = rabbit_project.name("work")

    async def send(port: int, path: str, body: bytes, key: str) -> tuple[int, object]:
        headers = {"Idempotency-Key": key}
        return await asyncio.to_thread(post, port, path, body, "application/json", "POST", headers)

    for _ in range(2):
        runner, port = serve(rabbit_project)
        async with runner:
            await started(runner)
            answers += [await send(port, "/orders", b"1", '"key-1"'), await send(port, "/orders", b"1", "key-1")]
            answers += [await send(port, "/forgetful", b"2", "key-2"), await send(port, "/forgetful", b"2", "key-2")]
            status, text = await send(port, "/orders", b"other", "key-1")
            assert (status, "another body" in str(text)) == (422, True)
            assert (await send(port, "/orders", b"1", "k" * 256))[0] == 400
            assert (await send(port, "/orders", b"{", "key-3"))[0] == 422
            assert (await send(port, "/orders", b"{}", "key-3"))[0] == 202, "what was refused was not done"
            await stop(runner)
    assert answers == [(202, {"ids": ["key-1"]})] * 2 + [(202, {"ids": ["key-2"]})] * 2 + answers[:4]
    assert foreign.count(queue) == 4, "key-1 and key-3 once, key-2 once for each process"

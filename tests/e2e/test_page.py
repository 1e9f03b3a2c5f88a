"""The page: what it tells of a running pipeline, what it does with dead letters, and its bad days."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.foreign import Foreign
from tests.node import Broker, free_port
from tests.page import TOKEN, Page, token_of
from tests.process import RunnerProcess
from tests.project import Place, Project, lines, started, stop, until
from tests.proxy import Proxy
from tests.scraping import Scrape

pytestmark = pytest.mark.timeout(120)

PIPELINE = """
    version: 1
    telemetry: {http: "127.0.0.1:PORT"}
    release: "2026.11"
    queues: {UNIQUE.work: {}}
    producers: {bring: {http: /bring, to: UNIQUE.work}}
    subscribers: {hear: {from: UNIQUE.work, handler: work:hear, retry: none, concurrency: 3}}
"""
HANDLERS = """
    import os
    def hear(order: dict) -> None:
        if order["n"] >= 0 and not os.path.exists("mended"):
            raise LookupError(f"no order {order['n']}")
        note(order["n"])
"""
ACTING = {"RUNNER_TOKEN": TOKEN}


def prepare(project: Project) -> Page:
    """Write the pipeline, and return its page."""
    page = Page(free_port())
    project.write(PIPELINE.replace("PORT", str(page.port)), HANDLERS)
    return page


def bring(page: Page, *numbers: int) -> None:
    for number in numbers:
        body = json.dumps({"n": number}).encode()
        assert page.send("POST", "/bring", body, {"Content-Type": "application/json"})[0] == 202


def row(told: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the one row of this kind."""
    (only,) = told[kind]
    return dict(only)


async def test_it_tells_what_runs_and_what_it_does(project: Project) -> None:
    """Counts, rates and times as they are counted, and what waits as the broker says."""
    page, queue = prepare(project), project.name("work")
    async with project.running(env=ACTING) as runner:
        page.state()
        bring(page, *range(-20, 0), 1, 2)
        await page.dead(f"{queue}.dead", 2)
        told = page.state()
        assert (told["runner"]["state"], told["runner"]["trouble"]) == ("running", [])
        assert told["runner"]["release"] == "2026.11"
        assert told["runner"]["process"] == str(runner.pid)
        hear, work, brought = row(told, "subscribers"), row(told, "queues"), row(told, "producers")
        assert (hear["failed"], hear["dead_lettered"], hear["errors"]) == (2, 2, [["LookupError", 2]])
        assert (hear["in_flight"], hear["concurrency"], hear["queue"]) == (0, 3, queue)
        assert hear["rate"] > 0
        assert hear["failure_rate"] > 0
        assert 0 <= hear["p50"] <= hear["p99"] < 5
        assert (work["queue"], work["ready"], work["consumers"], work["dead"]) == (queue, 0, 1, 2)
        assert (brought["name"], brought["published"]) == ("bring", 22)
        assert [each["id"] for each in told["destinations"]] == [f"queue:{queue}"]
        drawing = page.get("/-/flow")[2]
        for each in (hear["id"], brought["id"], f"queue:{queue}"):
            assert f'data-node="{each}"' in drawing


async def test_a_dead_letter_is_opened_tried_and_sent_back(project: Project) -> None:
    """Where it failed is told with the traceback; trying changes nothing; what is sent back is handled."""
    page, dead = prepare(project), project.name("work.dead")
    async with project.running("--allow-actions", env=ACTING) as runner:
        for number in (1, 2, 3):  # one after the other: the order in which two fail together is open
            bring(page, number)
            await page.dead(dead, number)
        listed = await page.act("list", {"queue": dead})
        (group,) = listed["groups"]
        assert (listed["total"], group["count"], group["error_type"]) == (3, 3, "LookupError")
        assert (group["origin"], group["reason"]) == (project.name("work"), "exhausted")
        first, second, _ = (letter["id"] for letter in group["letters"])

        letter = await page.act("open", {"queue": dead, "id": first})
        assert json.loads(letter["body"]) == {"n": 1}
        assert letter["facts"]["error"] == "no order 1"
        assert letter["headers"]["x-runner-origin"] == project.name("work")
        assert 'work.py", line' in letter["traceback"]
        assert "raise LookupError" in letter["traceback"]

        (tried,) = (await page.act("try", {"queue": dead, "ids": [first]}))["results"]
        assert (tried["outcome"], "LookupError" in tried["text"]) == ("dead-lettered", True)
        assert "raise LookupError" in tried["traceback"]
        (project.folder / "mended").touch()
        (tried,) = (await page.act("try", {"queue": dead, "ids": [first]}))["results"]
        assert tried["outcome"] == "handled"
        assert page.counts() == {dead: 3}
        assert len(lines(runner, "message.dead_lettered")) == 4  # the one that was tried is marked
        assert [line["message_id"] for line in lines(runner, "message.dead_lettered", local_replay=True)] == [first]
        assert row(page.state(), "subscribers")["failed"] == 3  # and not counted

        assert (await page.act("replay", {"queue": dead, "ids": [second]}))["moved"] == 1
        await page.dead(dead, 2)
        rest = {"queue": dead, "origin": group["origin"], "reason": group["reason"], "error_type": "LookupError"}
        assert (await page.act("replay", rest))["moved"] == 2
        await page.dead(dead, 0)
        await until(lambda: project.ledger.counts() == {"1": 2, "2": 1, "3": 1}, "handled")


async def test_dropping_takes_what_was_said_and_no_more(project: Project) -> None:
    page, dead = prepare(project), project.name("work.dead")
    async with project.running("--allow-actions", env=ACTING):
        bring(page, 1, 2)
        assert page.send("POST", "/bring", b'"no order"', {"Content-Type": "application/json"})[0] == 202
        await page.dead(dead, 3)
        groups = {group["error_type"]: group for group in (await page.act("list", {"queue": dead}))["groups"]}
        assert {error_type: group["count"] for error_type, group in groups.items()} == {
            "LookupError": 2,
            "InvalidMessage": 1,
        }
        group = groups["LookupError"]
        selected = {name: group[name] for name in ("origin", "reason", "error_type")}
        assert (await page.act("drop", {"queue": dead, **selected}))["moved"] == 2
        await page.dead(dead, 1)
        (left,) = (await page.act("list", {"queue": dead}))["groups"]
        assert left["error_type"] == "InvalidMessage"
        status, told = page.ask("open", {"queue": dead, "id": group["letters"][0]["id"]})
        assert (status, told) == (404, {"error": "the message is no longer in the queue"})


async def test_looking_leaves_the_letters_in_their_order(project: Project) -> None:
    page, dead = prepare(project), project.name("work.dead")
    async with project.running(env=ACTING):
        for number in range(5):
            bring(page, number)
            await page.dead(dead, number + 1)
        looks = []
        for _ in range(3):
            (group,) = (await page.act("list", {"queue": dead}))["groups"]
            looks.append([letter["error"] for letter in group["letters"]])
        assert looks == [[f"no order {number}" for number in range(5)]] * 3


async def test_the_page_of_a_broker_runs_nothing(rabbit_project: Project, foreign: Foreign) -> None:
    """Depths and dead letters; what only a running process counts is said to be unknown."""
    page, dead = prepare(rabbit_project), rabbit_project.name("work.dead")
    async with rabbit_project.running() as runner:
        bring(page, 1)
        await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")
    foreign.publish(rabbit_project.name("work"), b'{"n": -1}', b'{"n": -2}')
    arguments = (*rabbit_project.place.arguments, "--http", f"127.0.0.1:{page.port}", "--allow-actions")
    async with rabbit_project.run("page", rabbit_project.file, *arguments) as runner:
        await until(lambda: "#token=" in runner.stderr, "the address")
        page.token = token_of(runner)
        await page.dead(dead, 1)
        told = page.state()
        assert (told["runner"]["state"], told["has_figures"]) == ("watching", False)
        hear, work = row(told, "subscribers"), row(told, "queues")
        assert (hear["rate"], hear["p99"], hear["in_flight"], hear["failed"]) == (None, None, None, None)
        assert (work["ready"], work["consumers"]) == (2, 0)
        assert rabbit_project.ledger.entries() == []
        (group,) = (await page.act("list", {"queue": dead}))["groups"]
        (rabbit_project.folder / "mended").touch()
        selected = {"queue": dead, "ids": [group["letters"][0]["id"]]}
        (tried,) = (await page.act("try", selected))["results"]
        assert tried["outcome"] == "handled"
        assert (await page.act("replay", selected))["moved"] == 1
        await until(lambda: row(page.state(), "queues")["ready"] == 3, "sent back")
        await stop(runner)


async def test_the_in_process_broker_has_no_page_of_its_own(memory_project: Project) -> None:
    prepare(memory_project)
    runner = await memory_project.do("page", code=2)
    assert "no live broker to inspect" in runner.stderr


async def test_with_workers_the_figures_are_for_all(rabbit_project: Project) -> None:
    page, dead = prepare(rabbit_project), rabbit_project.name("work.dead")
    async with rabbit_project.up("--workers", "2", "--allow-actions") as runner:
        await until(lambda: len(lines(runner, "worker.started")) == 2, "two workers")
        page.token = token_of(runner)
        bring(page, *range(-40, 0), *range(4))
        await page.dead(dead, 4)
        pids = {entry.pid for entry in rabbit_project.ledger.entries()}
        told = page.state()
        assert row(told, "subscribers")["failed"] == 4
        assert row(told, "subscribers")["concurrency"] == 6
        assert told["runner"]["process"].endswith(", 2 workers")
        assert len(pids) == 2
        assert (await page.act("list", {"queue": dead}))["total"] == 4
        await stop(runner)


# Bad days


async def test_a_port_that_is_in_use_is_said(memory_project: Project) -> None:
    """Two runners on one port: the second one says so and ends."""
    page = prepare(memory_project)
    async with memory_project.running():
        second = await memory_project.do("up", code=1)
        assert f"cannot listen on 127.0.0.1:{page.port}" in second.stderr
        assert page.get("/")[0] == 200


@pytest.mark.timeout(150)
@pytest.mark.slow
async def test_it_is_there_while_the_broker_is_not(rabbit_project: Project, rabbitmq: Broker) -> None:
    """From the start on, with words for what is missing; figures of the broker come when it does, and stay known."""
    page = prepare(rabbit_project)
    async with Proxy(rabbitmq.port) as proxy:
        rabbit_project.place = Place.at(proxy.url)
        proxy.blackhole()
        async with rabbit_project.up(env=ACTING) as runner:
            await until(lambda: page.get("/")[0] == 200, "the page")
            assert page.state()["runner"]["state"] == "starting"
            status, told = await asyncio.to_thread(page.ask, "list", {"queue": rabbit_project.name("work.dead")})
            assert (status, list(told)) == (503, ["error"])
            proxy.pass_through()
            proxy.cut()
            await started(runner)
            await until(lambda: row(page.state(), "queues")["ready"] == 0, "depths", timeout=40)
            proxy.blackhole()
            proxy.cut()
            await until(lambda: page.state()["runner"]["trouble"], "trouble")
            await until(lambda: page.state()["broker_error"], "the page cannot read the broker", timeout=60)
            proxy.pass_through()
            proxy.cut()
            await until(lambda: not page.state()["broker_error"], "the broker tells again", timeout=60)
            await until(lambda: not page.state()["runner"]["trouble"], "its consumer is back", timeout=60)
            await stop(runner)


async def test_a_process_that_drains_is_still_seen(project: Project) -> None:
    """What listens for producers refuses while it drains; without them the page says that it is stopping."""
    page = prepare(project)
    text = PIPELINE.replace("producers: {bring: {http: /bring, to: UNIQUE.work}}", "producers: {bring: work:make}")
    project.pipeline(
        text.replace("PORT", str(page.port)).replace("bring: work:make", "bring: {handler: work:make, to: UNIQUE.work}")
    )
    project.handlers("""
        import os, time
        def make(): return {"n": 1}
        def hear(order) -> None:
            note("begun")
            while not os.path.exists("go"): time.sleep(0.01)
    """)
    async with project.up() as runner:
        await project.ledger.wait_for(1)
        page.state()
        runner.signal(signal.SIGTERM)
        await runner.wait_for(lambda line: line["event"] == "pipeline.draining")
        await until(lambda: page.state()["runner"]["state"] == "stopping", "stopping")
        (project.folder / "go").touch()
        assert await runner.wait() == 0
    assert "Traceback" not in runner.stderr


async def test_ten_pages_cost_next_to_nothing(project: Project) -> None:
    """Ten that ask every two seconds are served by one look at the broker and one answer a second."""
    page = prepare(project)
    async with project.running(env=ACTING) as runner:
        page.state()
        before, began = cpu_s(runner), time.monotonic()
        for _ in range(5):
            await asyncio.gather(*(asyncio.to_thread(page.state) for _ in range(10)))
            await asyncio.sleep(2)
        assert cpu_s(runner) - before < 0.1 * (time.monotonic() - began)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_thousand_subscribers_are_shown(memory_project: Project) -> None:
    """In an answer of less than a megabyte, made in less than a second; there is no drawing then, and it says why."""
    project = memory_project
    page = prepare(project)
    count = 1000
    text = [
        "version: 1",
        f'telemetry: {{http: "127.0.0.1:{page.port}"}}',
        "defaults: {queue: {type: classic}, subscriber: {handler: work:hear, prefetch: 1}}",
        "queues:",
        *(f"  {project.unique}.q{number}:" for number in range(count)),
        "subscribers:",
        *(f"  s{number}: {{from: {project.unique}.q{number}}}" for number in range(count)),
    ]
    (project.folder / project.file).write_text("\n".join(text))
    async with project.up(env=ACTING) as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started", timeout=200)
        await until(lambda: len(page.state()["queues"]) == count, "all queues", timeout=60)
        for _ in range(3):
            began = time.monotonic()
            told = page.state()
            assert time.monotonic() - began < 1.0
            assert len(json.dumps(told)) < 1_000_000
            await asyncio.sleep(1.1)
        assert len(told["subscribers"]) == count
        status, _, drawing = page.get("/-/flow")
        assert (status, "too many to draw here" in drawing) == (404, True)
        await stop(runner)


def cpu_s(runner: RunnerProcess) -> float:
    """Return how much processor time a process has taken."""
    fields = Path(f"/proc/{runner.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def test_it_pauses_and_resumes_a_subscriber(project: Project) -> None:
    """For all processes; it shows since when and why, as `status`, the metrics and the probe do, which stays green."""
    page = prepare(project)
    about = {"pipeline": project.unique, "name": "hear"}
    async with project.running("--allow-actions", env=ACTING) as runner:
        told = await page.act("pause", {**about, "reason": "carrier is down"}, "subscriber")
        assert told["text"].startswith("hear is paused since ")
        await until(lambda: lines(runner, "subscriber.paused"), "the process has paused it")
        bring(page, -1, -2)
        pause = row(page.state(), "subscribers")["pause"]
        assert pause == {"since": lines(runner, "subscriber.paused")[0]["since"], "reason": "carrier is down"}
        assert page.get("/readyz")[0] == 200
        assert Scrape(page.port)("runner_paused", subscriber="hear") == 1
        place = ("--http", f"127.0.0.1:{page.port}", *project.place.arguments)
        status = await project.run_to_end("status", project.file, "--json", *place)
        (shown,) = json.loads(status.stdout)
        assert shown["pauses"] == [{"subscriber": "hear", **pause}]
        assert shown["queues"][0]["paused"] is True
        assert project.ledger.payloads() == []
        assert page.ask("pause", {**about, "name": "other"}, "subscriber")[0] == 404
        assert page.ask("pause", {**about, "reason": 1}, "subscriber")[0] == 400
        await page.act("resume", about, "subscriber")
        await project.ledger.wait_for(2)
        await until(lambda: row(page.state(), "subscribers")["pause"] is None, "the page knows it")

"""`runner dead`: what was given up on is seen, sent back and dropped, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from tests.foreign import Foreign, Got
from tests.node import Broker
from tests.process import RunnerProcess
from tests.project import Project, until

PIPELINE = """
    version: 1
    queues:
      UNIQUE.orders:
      UNIQUE.bills:
    events:
      UNIQUE.paid:
    subscribers:
      handle: {from: UNIQUE.orders, handler: work:handle, retry: none}
      charge: {from: UNIQUE.bills, handler: work:charge, retry: none}
      hear: {from: UNIQUE.paid, handler: work:handle, retry: {attempts: 2, delay: 10ms}}
      listen: {from: UNIQUE.paid, handler: work:listen}
"""
HANDLERS = """
    import os
    from runner import Reject
    def handle(payload) -> None:
        if os.environ.get("BROKEN"):
            raise ValueError(f"cannot handle {payload}")
        note(payload)
    def charge(payload) -> None:
        if os.environ.get("BROKEN"):
            raise Reject("no money")
        note(f"charged {payload}")
    def listen(payload) -> None: note(f"listened to {payload}")
"""
BROKEN = {"BROKEN": "1"}


@pytest.fixture
def shop(rabbit_project: Project) -> Project:
    """A project whose handlers fail while BROKEN is set."""
    rabbit_project.write(PIPELINE, HANDLERS)
    return rabbit_project


async def dead(
    project: Project, verb: str, *arguments: str, code: int = 0, env: dict[str, str] | None = None
) -> RunnerProcess:
    """Run `runner dead` to its end."""
    broker = project.place.arguments
    return await project.run_to_end("dead", verb, project.file, *arguments, *broker, env=env, code=code)


async def found(project: Project, *arguments: str) -> list[dict[str, Any]]:
    """Return what `dead list --json` says."""
    runner = await dead(project, "list", *arguments, "--json")
    return [json.loads(line) for line in runner.stdout.splitlines()]


async def fail(project: Project, foreign: Foreign, *bodies: str, queue: str = "orders", **properties: Any) -> None:
    """Let a handler give up on these."""
    await declared(project)
    foreign.publish(project.name(queue), *(body.encode() for body in bodies), **properties)
    await project.up_until_idle(env=BROKEN)


async def declared(project: Project) -> None:
    """Let everything of the pipeline exist."""
    await project.up_until_idle(env=BROKEN)


def bury(
    foreign: Foreign, project: Project, *bodies: bytes, queue: str = "orders", id_: str = "id-", **headers: Any
) -> None:
    """Put messages into a dead-letter queue as the runner does."""
    for body in bodies:
        number = body[:20].decode(errors="replace")
        said = {
            "x-runner-reason": "exhausted",
            "x-runner-error-type": "ValueError",
            "x-runner-error": f"cannot handle {number}",
            "x-runner-origin": project.name(queue),
            "x-runner-origin-exchange": "",
            "x-runner-origin-key": project.name(queue),
            "x-runner-attempt": 3,
            "x-runner-first-failed-at": "2026-01-01T00:00:00+00:00",
            **headers,
        }
        foreign.publish_confirmed(project.name(f"{queue}.dead"), body, headers=said, message_id=f"{id_}{number}")


def bodies(got: list[Got]) -> list[str]:
    return [each.body.decode() for each in got]


async def test_a_dead_letter_is_listed_with_its_reason(shop: Project, foreign: Foreign) -> None:
    """Reason, error, attempts, age, where it failed, id and size; and it is still there."""
    await fail(shop, foreign, "order 1", message_id="first")
    (letter,) = await found(shop)
    assert letter.pop("age_s") < 60
    since = datetime.fromisoformat(letter.pop("since"))
    assert datetime.now(UTC) - since < timedelta(minutes=1)
    assert letter == {
        "id": "first",
        "dead_letter": shop.name("orders.dead"),
        "queue": shop.name("orders"),
        "reason": "exhausted",
        "by": "runner",
        "error_type": "ValueError",
        "error": "cannot handle order 1",
        "attempts": 1,
        "subscriber": f"{shop.unique}.handle",
        "message_id": "first",
        "event": None,
        "size": 7,
        "replays": 0,
    }
    table = await dead(shop, "list")
    assert "first" in table.stdout
    assert "ValueError: cannot handle order 1" in table.stdout
    assert foreign.count(shop.name("orders.dead")) == 1


async def test_looking_changes_nothing(shop: Project, foreign: Foreign) -> None:
    """After many looks, some of them cut short, everything is there, in its order, ready at once."""
    await declared(shop)
    names = [str(number) for number in range(30)]
    bury(foreign, shop, *(name.encode() for name in names))
    for _ in range(4):
        assert [letter["id"] for letter in await found(shop)] == [f"id-{name}" for name in names]
        assert len(await found(shop, "--limit", "3")) == 3
        assert len(await found(shop, "--error", "handle 7", "--limit", "1")) == 1
        await dead(shop, "show", "--id", "id-20")
    assert foreign.count(shop.name("orders.dead")) == 30
    assert bodies(foreign.take(shop.name("orders.dead"))) == names


async def test_what_the_broker_gave_up_is_listed_and_sent_back(rabbit_project: Project, foreign: Foreign) -> None:
    """Expired, dropped from a full queue, delivered too often: no header of ours, the broker's own account instead."""
    project = rabbit_project
    project.pipeline(
        """
        version: 1
        queues:
          UNIQUE.late: {message_ttl: 1ms}
          UNIQUE.full: {type: classic, max_length: 1, overflow: drop-head, dead_letter: UNIQUE.over}
          UNIQUE.killed: {delivery_limit: 2}
        subscribers:
          handle: {from: UNIQUE.killed, handler: work:handle}
          other: {from: UNIQUE.late, handler: work:handle}
          third: {from: UNIQUE.full, handler: work:handle}
        """
    )
    project.handlers("def handle(payload) -> None: note(payload)")
    await declared(project)
    foreign.publish(project.name("late"), b"too late")
    foreign.publish(project.name("full"), b"over", b"stays")
    foreign.publish(project.name("killed"), b"kills", message_id="killer")
    for _ in range(3):  # as a process that dies with it in hand
        channel = foreign.channel
        await until(partial(lambda channel: channel.basic_get(project.name("killed"))[0], channel), "the message comes")
        channel.close()
    for name in ("late.dead", "over", "killed.dead"):
        await until(partial(lambda name: foreign.count(project.name(name)) == 1, name), f"one in {name}")
    letters = {letter["reason"]: letter for letter in await found(project)}
    assert {reason: (each["by"], each["queue"], each["attempts"]) for reason, each in letters.items()} == {
        "expired": ("broker", project.name("late"), None),
        "maxlen": ("broker", project.name("full"), None),
        "delivery_limit": ("broker", project.name("killed"), None),
    }
    foreign.take(project.name("full"))
    await dead(project, "replay", "killed", code=2)  # a typo is not everything
    await dead(project, "replay", project.name("killed"))
    await dead(project, "replay", "third")
    (killer,) = foreign.take(project.name("killed"))
    assert (killer.body, killer.properties.message_id) == (b"kills", "killer")
    assert not [name for name in killer.headers if "death" in name]
    assert bodies(foreign.take(project.name("full"))) == ["over"]


async def test_filters_choose(shop: Project, foreign: Foreign) -> None:
    """By id, by error or reason, by age, by queue, by subscriber; all that are given must fit."""
    await declared(shop)
    now = datetime.now(UTC).isoformat()
    bury(foreign, shop, b"1", b"2")
    bury(foreign, shop, b"3", **{"x-runner-first-failed-at": now, "x-runner-error-type": "TimeoutError"})
    bury(foreign, shop, b"4", queue="bills", **{"x-runner-reason": "rejected"})

    async def ids(*arguments: str) -> list[str]:
        return sorted(letter["id"] for letter in await found(shop, *arguments))

    assert await ids() == ["id-1", "id-2", "id-3", "id-4"]
    assert await ids("--id", "id-2", "--id", "id-4") == ["id-2", "id-4"]
    assert await ids("--error", "timeouterror") == ["id-3"]
    assert await ids("--error", "handle 2") == ["id-2"]
    assert await ids("--error", "rejected") == ["id-4"]
    assert await ids("--older-than", "1h") == ["id-1", "id-2", "id-4"]
    assert await ids("--older-than", "1h", "--error", "timeout") == []
    assert await ids(shop.name("bills")) == ["id-4"]
    assert await ids(shop.name("orders.dead"), "--limit", "2") == ["id-1", "id-2"]
    assert await ids("charge") == ["id-4"]
    foreign.publish_confirmed(shop.name("orders.dead"), b'{"n": 5}', headers={"tenant": "a"}, message_id="id-5")
    assert await ids("--header", "tenant=a", "--body", "n=5") == ["id-5"]
    assert await ids("--header", "tenant=b") == []
    assert await ids("--event", shop.name("orders"), "--error", "handle 2") == ["id-2"]
    await dead(shop, "list", "--body", "n", code=2)


async def test_a_replay_goes_to_the_queue_it_failed_in_alone(shop: Project, foreign: Foreign) -> None:
    """Not to the event: its other subscribers have handled it. First attempt again, marked, without the old error."""
    await declared(shop)
    foreign.publish(shop.name("paid"), b'{"n": 1}', exchange="events", type=shop.name("paid"), message_id="m",
                    headers={"mine": "stays"})  # fmt: skip
    await shop.up_until_idle(env=BROKEN)
    assert shop.ledger.payloads() == ["listened to {'n': 1}"]
    runner = await dead(shop, "replay")
    assert f"sent back: 1 of 1 (1 {shop.unique}.hear)" in runner.stderr
    (got,) = foreign.take(f"{shop.unique}.hear")
    assert got.headers.pop("x-runner-replayed-at")
    assert got.headers.pop("x-delivery-count", 0) == 0
    assert got.headers == {
        "mine": "stays",
        "x-runner-replays": 1,
        "x-runner-origin-exchange": "events",
        "x-runner-origin-key": shop.name("paid"),
    }
    assert (got.properties.message_id, got.properties.type) == ("m", shop.name("paid"))
    assert foreign.count(f"{shop.unique}.listen") == 0
    assert foreign.count(f"{shop.unique}.hear.dead") == 0
    assert "sent back: 0 of 0" in (await dead(shop, "replay")).stderr


async def test_a_replay_may_go_elsewhere(shop: Project, foreign: Foreign) -> None:
    """To a queue or an event of the pipeline, whatever queue they failed in; what is no name of it is refused."""
    await declared(shop)
    bury(foreign, shop, b"1")
    runner = await dead(shop, "replay", "--to", shop.name("nowhere"), code=2)
    assert "no queue or event" in runner.stderr
    assert foreign.count(shop.name("orders.dead")) == 1
    await dead(shop, "replay", "--to", shop.name("bills"))
    (got,) = foreign.take(shop.name("bills"))
    assert (got.body, got.properties.message_id, got.headers["x-runner-replays"]) == (b"1", "id-1", 1)
    assert foreign.count(shop.name("orders.dead")) == 0
    bury(foreign, shop, b"2")
    await dead(shop, "replay", "--to", shop.name("paid"))
    assert (foreign.count(f"{shop.unique}.hear"), foreign.count(f"{shop.unique}.listen")) == (1, 1)


async def test_a_body_can_be_edited_before_its_replay(shop: Project, foreign: Foreign) -> None:
    """The editor gets it indented; id and headers stay. What is not changed, or no longer JSON, stays where it is."""
    await declared(shop)
    bury(foreign, shop, b'{"n": 1}', **{"x-tenant": "a"})
    editor = shop.folder / "editor.sh"
    editor.write_text('#!/bin/sh\nsed -i "$EDIT" "$1"\n')
    editor.chmod(0o755)
    chosen = ("--id", 'id-{"n": 1}', "--edit")

    async def edit(script: str, code: int) -> str:
        return (await dead(shop, "replay", *chosen, code=code, env={"EDITOR": str(editor), "EDIT": script})).stderr

    assert "stayed: 1, it was not changed in the editor" in await edit("s/nothing//", 1)
    assert "stayed: 1, what the editor saved is not JSON" in await edit("s/1/one/", 1)
    assert "sent back: 1 of 1" in await edit("s/1/2/", 0)
    (got,) = foreign.take(shop.name("orders"))
    assert (json.loads(got.body), got.properties.message_id) == ({"n": 2}, 'id-{"n": 1}')
    assert got.headers["x-tenant"] == "a"
    assert got.headers["x-runner-edited-at"]
    assert foreign.count(shop.name("orders.dead")) == 0
    await dead(shop, "replay", "--edit", code=2)


async def test_a_replay_that_fails_again_is_counted(shop: Project, foreign: Foreign) -> None:
    """It is dead again, after all its attempts, with where it was first published and how often it was sent back."""
    await declared(shop)
    foreign.publish(shop.name("paid"), b"x", exchange="events", message_id="m")
    await shop.up_until_idle(env=BROKEN)
    for replays in (1, 2):
        await dead(shop, "replay")
        await shop.up_until_idle(env=BROKEN)
        (letter,) = await found(shop)
        assert (letter["replays"], letter["attempts"], letter["reason"]) == (replays, 2, "exhausted")
    shown = json.loads((await dead(shop, "show", "--id", "m", "--json")).stdout)
    assert (shown["exchange"], shown["routing_key"]) == ("events", shop.name("paid"))
    await dead(shop, "replay")
    await shop.up_until_idle()
    assert "x" in shop.ledger.payloads()


async def test_a_replay_ends_with_what_was_there(shop: Project, foreign: Foreign) -> None:
    """A handler that fails at once puts everything back: each message is sent once all the same."""
    await declared(shop)
    bury(foreign, shop, *(str(number).encode() for number in range(40)))
    async with shop.up(env=BROKEN) as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        replay = await dead(shop, "replay", "--json")
        assert json.loads(replay.stdout)["moved"] == 40
        await until(lambda: foreign.count(shop.name("orders.dead")) == 40, "all are dead again")
    assert {letter["replays"] for letter in await found(shop)} == {1}


async def test_what_does_not_fit_stays_in_order(shop: Project, foreign: Foreign) -> None:
    """Those that are sent back leave gaps, and nothing else moves."""
    await declared(shop)
    names = [str(number) for number in range(60)]
    bury(foreign, shop, *(name.encode() for name in names))
    await dead(shop, "replay", "--error", "7")
    assert bodies(foreign.take(shop.name("orders"))) == ["7", "17", "27", "37", "47", "57"]
    assert bodies(foreign.take(shop.name("orders.dead"))) == [name for name in names if "7" not in name]


async def test_more_may_stay_than_is_looked_at_at_once(shop: Project, foreign: Foreign) -> None:
    """The few that fit are found behind thousands that do not, also by the beginning of an id."""
    await declared(shop)
    queue = shop.name("orders.dead")
    foreign.publish(queue, *[b"stays"] * 2500)
    bury(foreign, shop, b"needle", id_="4f1c22aa")
    foreign.publish(queue, b"last")
    await dead(shop, "replay", "--id", "4f1c")
    assert bodies(foreign.take(shop.name("orders"))) == ["needle"]
    await until(lambda: foreign.count(queue) == 2501, "the broker gives back what was looked at")
    assert Counter(bodies(foreign.take(queue))) == {"stays": 2500, "last": 1}


async def test_a_queue_that_is_gone_keeps_its_dead_letters(shop: Project, foreign: Foreign) -> None:
    """Exit 1, saying how many stay and why; the others are sent back."""
    await declared(shop)
    bury(foreign, shop, b"1", b"2")
    bury(foreign, shop, b"3", queue="bills")
    foreign.channel.queue_delete(shop.name("orders"))
    runner = await dead(shop, "replay", code=1)
    assert f'stayed: 2, queue "{shop.name("orders")}" no longer exists' in runner.stderr
    assert bodies(foreign.take(shop.name("bills"))) == ["3"]
    assert bodies(foreign.take(shop.name("orders.dead"))) == ["1", "2"]


async def test_a_full_queue_keeps_its_dead_letters(rabbit_project: Project, foreign: Foreign) -> None:
    """What it refuses stays."""
    rabbit_project.pipeline(
        """
        version: 1
        queues:
          UNIQUE.orders: {max_length: 1}
        subscribers:
          handle: {from: UNIQUE.orders, handler: work:handle, retry: none}
        """
    )
    rabbit_project.handlers(HANDLERS)
    await declared(rabbit_project)
    bury(foreign, rabbit_project, *(str(number).encode() for number in range(20)))
    runner = await dead(rabbit_project, "replay", code=1)
    assert "is full" in runner.stderr
    there = bodies(foreign.take(rabbit_project.name("orders")))
    kept = bodies(foreign.take(rabbit_project.name("orders.dead")))
    assert there + kept == [str(number) for number in range(20)]
    assert kept


async def test_nobody_is_made_to_send_it_elsewhere(shop: Project, foreign: Foreign) -> None:
    """A message that says it comes from a queue whose dead letters go elsewhere stays, and is shown as saying so."""
    await declared(shop)
    bury(foreign, shop, b"forged", **{"x-runner-origin": shop.name("bills")})
    foreign.publish(shop.name("orders.dead"), b"stranger")
    forged, stranger = await found(shop)
    assert (forged["queue"], stranger["queue"], stranger["by"], stranger["reason"]) == (None, None, None, "unknown")
    assert stranger["id"].startswith("~")
    runner = await dead(shop, "replay", code=1)
    assert "which does not dead-letter to this queue" in runner.stderr
    assert "does not say which queue" in runner.stderr
    assert foreign.count(shop.name("bills")) == 0
    assert bodies(foreign.take(shop.name("orders.dead"))) == ["forged", "stranger"]


async def test_a_dry_run_only_shows(shop: Project, foreign: Foreign) -> None:
    """What would be sent back or dropped is listed, and stays."""
    await declared(shop)
    bury(foreign, shop, b"1", b"2")
    replayed = await dead(shop, "replay", "--dry-run", "--id", "id-2")
    assert "id-2" in replayed.stdout
    assert "id-1" not in replayed.stdout
    assert "would send back: 1" in replayed.stderr
    dropped = await dead(shop, "drop", "--dry-run", "--all")
    assert "would drop: 2" in dropped.stderr
    assert foreign.count(shop.name("orders.dead")) == 2
    assert foreign.count(shop.name("orders")) == 0


async def test_a_rate_holds_it_back(shop: Project, foreign: Foreign) -> None:
    """At 20 a second, 11 messages take half a second."""
    await declared(shop)
    bury(foreign, shop, *(str(number).encode() for number in range(11)))
    loop = asyncio.get_running_loop()
    started = loop.time()
    await dead(shop, "replay", "--rate", "20/s")
    assert loop.time() - started > 0.5
    assert foreign.count(shop.name("orders")) == 11


async def test_dropping_needs_to_be_meant(shop: Project, foreign: Foreign) -> None:
    """Without a filter --all, without a terminal --yes; then what fits is gone and the rest stays."""
    await declared(shop)
    bury(foreign, shop, b"1", b"2", b"3")
    assert "--all" in (await dead(shop, "drop", "--yes", code=2)).stderr
    assert "--yes" in (await dead(shop, "drop", "--all", code=2)).stderr
    assert foreign.count(shop.name("orders.dead")) == 3
    assert "dropped: 1 of 3" in (await dead(shop, "drop", "--id", "id-2", "--yes")).stderr
    assert [letter["id"] for letter in await found(shop)] == ["id-1", "id-3"]
    await dead(shop, "drop", "--all", "--yes", shop.name("orders"))
    assert foreign.count(shop.name("orders.dead")) == 0


async def test_a_fix_is_tried_here_first(shop: Project, foreign: Foreign) -> None:
    """--local says how each would end with the handler as it is, with the error and its place; nothing moves."""
    await fail(shop, foreign, "order 1", message_id="m1")
    foreign.publish(shop.name("bills"), b"bill", message_id="m2")
    foreign.publish(shop.name("paid"), b"event", exchange="events", message_id="m3")
    await shop.up_until_idle(env=BROKEN)
    before = await found(shop)
    broken = await dead(shop, "replay", "--local", env=BROKEN, code=1)
    lines = dict(line.split("  ", 1) for line in broken.stdout.splitlines())
    assert lines["m1"] == "would be dead-lettered (exhausted): ValueError: cannot handle order 1, at work.py:7"
    assert lines["m2"] == "would be dead-lettered (rejected): Reject: no money, at work.py:11"
    assert lines["m3"] == "would be retried after 10ms: ValueError: cannot handle event, at work.py:7"
    mended = await dead(shop, "replay", "--local", "--json")
    assert {each["id"]: each["outcome"] for each in map(json.loads, mended.stdout.splitlines())} == {
        "m1": "handled",
        "m2": "handled",
        "m3": "handled",
    }
    assert "would be handled: 3 of 3" in mended.stderr
    after = await found(shop)
    assert [letter["id"] for letter in after] == [letter["id"] for letter in before]
    assert foreign.count(shop.name("orders")) == 0


async def test_hostile_messages_are_shown_and_do_no_harm(shop: Project, foreign: Foreign) -> None:
    """10 MB of bytes, control characters, colours, text that runs backwards, deep and long headers."""
    await declared(shop)
    nasty = "\x1b[31mred\x07\nerror: forged\u2028\u202eevil\x9b"
    nested: Any = "end"
    for _ in range(40):
        nested = {nasty: nested}
    named = dict.fromkeys(("x-runner-error", "x-runner-error-type", "x-runner-reason"), nasty)
    bury(foreign, shop, bytes(range(256)) * 40_000, **named, **{nasty: nested, "big": "x" * 9000})
    foreign.publish(
        shop.name("orders.dead"),
        '{"a": [1.10, 12345678901234567890], "": {}, "é": "\u202e"}'.encode(),
        message_id=nasty,
        headers={"x-runner-attempt": "many", "x-runner-replays": -5, "x-death": "no"},
    )
    table = await dead(shop, "list")
    shown = await dead(shop, "show", "--error", "red")
    as_json = await dead(shop, "show", "--error", "red", "--json")
    second = await dead(shop, "show", "--error", "unknown")
    for runner in (table, shown, as_json, second):
        assert not set(runner.stdout) & set("\x1b\x07\u2028\u202e\x9b")
    assert len(table.stdout.splitlines()) == 4
    assert len(shown.stdout) < 100_000
    assert "10,240,000 bytes" in shown.stdout
    said = json.loads(as_json.stdout)
    assert said["body_is_cut"] is True
    assert said["size"] == 10_240_000
    assert "1.10" in second.stdout
    assert "12345678901234567890" in second.stdout
    await dead(shop, "replay", "--error", "red")
    (got,) = foreign.take(shop.name("orders"))
    assert len(got.body) == 10_240_000


async def test_an_odd_message_stands_in_the_way_of_no_other(shop: Project, foreign: Foreign) -> None:
    """A moment that Python does not know is shown with the others; all with a place to go back to are sent back."""
    await declared(shop)
    bury(foreign, shop, b"1", b"2")
    foreign.publish(shop.name("orders.dead"), b"odd", timestamp=10**17)
    bury(foreign, shop, b"3")
    listed = await dead(shop, "list")
    assert [line.split()[-1] for line in listed.stdout.splitlines() if "exhausted" in line] == ["1", "2", "3"]
    assert "4 dead letters" in listed.stderr
    replayed = await dead(shop, "replay", code=1)
    assert "stayed: 1, it does not say which queue it failed in" in replayed.stderr
    assert sorted(bodies(foreign.take(shop.name("orders")))) == ["1", "2", "3"]
    assert bodies(foreign.take(shop.name("orders.dead"))) == ["odd"]


@pytest.mark.slow
async def test_killing_it_loses_nothing(shop: Project, foreign: Foreign) -> None:
    """Killed again and again while it sends back: each message is there, and each kill makes at most one twice."""
    await declared(shop)
    names = [str(number) for number in range(1500)]
    queue = shop.name("orders.dead")
    origin = {"x-runner-reason": "exhausted", "x-runner-origin": shop.name("orders")}
    for name in names:
        foreign.publish(queue, name.encode(), headers=origin)
    kills = 0
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        at_least = foreign.count(shop.name("orders")) + 50
        async with shop.command("dead replay") as runner:
            await until(partial(lambda least: foreign.count(shop.name("orders")) >= least, at_least), "it goes on")
            runner.signal(number)
            code = await runner.wait()
        kills += number == signal.SIGKILL
        if number != signal.SIGKILL:
            assert code == 130, runner.stderr
            assert "interrupted" in runner.stderr
    await until(lambda: foreign.count(queue) > 0, "what was in hand is given back")
    await dead(shop, "replay")
    got = Counter(bodies(foreign.take(shop.name("orders"))))
    assert foreign.count(queue) == 0
    assert set(got) == set(names)
    assert got.total() - len(names) <= kills


@pytest.mark.slow
async def test_many_looks_do_not_use_up_a_message(rabbit_project: Project, foreign: Foreign) -> None:
    """A dead-letter queue that gives a message up after some deliveries keeps it, however often it is looked at."""
    rabbit_project.pipeline(
        """
        version: 1
        queues:
          UNIQUE.orders: {dead_letter: UNIQUE.grave}
          UNIQUE.grave: {delivery_limit: 4, dead_letter: false}
        subscribers:
          handle: {from: UNIQUE.orders, handler: work:handle, retry: none}
        """
    )
    rabbit_project.handlers(HANDLERS)
    await declared(rabbit_project)
    foreign.publish(rabbit_project.name("orders"), b"1", b"2", message_id="m")
    await rabbit_project.up_until_idle(env=BROKEN)
    (first, *_) = await found(rabbit_project)
    for arguments in [("--limit", "1"), (), ("--error", "handle 2")] * 4:
        await found(rabbit_project, *arguments)
    letters = await found(rabbit_project)
    assert len(letters) == 2
    assert {letter["since"] for letter in letters} == {first["since"]}
    assert {letter["error"] for letter in letters} == {"cannot handle 1", "cannot handle 2"}
    await dead(rabbit_project, "replay")
    assert sorted(bodies(foreign.take(rabbit_project.name("orders")))) == ["1", "2"]


async def test_what_cannot_be_looked_at_is_one_line(
    shop: Project, memory_project: Project, rabbitmq: Broker, foreign: Foreign, unique: str
) -> None:
    """No broker, none that answers, no queue yet, no right: an exit code and words, and no traceback."""
    memory_project.write(PIPELINE, HANDLERS)
    runner = await dead(memory_project, "list", code=2)
    assert "the pipeline runs on the in-process broker: there is no live broker to inspect" in runner.stderr
    assert "--broker" in runner.stderr
    runner = await dead(shop, "list")
    assert f'queue "{shop.name("orders.dead")}" does not exist' in runner.stderr
    runner = await dead(shop, "list", "nonsense", code=2)
    assert 'called "nonsense"' in runner.stderr
    rabbitmq.ctl("add_user", unique, "secret-word")
    try:
        await fail(shop, foreign, "1")
        rabbitmq.ctl("set_permissions", unique, "nothing", "nothing", "nothing")
        url = rabbitmq.url.replace("guest:guest", f"{unique}:secret-word")
        runner = await shop.run_to_end("dead", "list", shop.file, "--broker", url, code=69)
        assert "refused" in runner.stderr
        assert "secret-word" not in runner.stderr
    finally:
        rabbitmq.ctl("delete_user", unique)


async def test_a_broker_that_is_not_there(shop: Project) -> None:
    """Exit 69, naming the broker without its password."""
    text = (shop.folder / shop.file).read_text()
    (shop.folder / shop.file).write_text(
        text + "broker: {url: 'amqp://u:secret@127.0.0.1:1', connect_timeout: 100ms}\n"
    )
    runner = await shop.run_to_end("dead", "list", shop.file, code=69)
    assert "127.0.0.1:1" in runner.stderr
    assert "secret" not in runner.stderr

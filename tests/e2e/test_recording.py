"""`dead show --record` and `tap --record` write tests from real messages, which fail and pass as the handler does."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.foreign import Foreign
from tests.project import Project, until

PIPELINE = """
    version: 1
    broker: ${UNUSED:-memory}
    queues:
      UNIQUE.orders: {events: [UNIQUE.placed]}
    events:
      UNIQUE.placed:
      UNIQUE.paid:
    subscribers:
      handle: {from: UNIQUE.orders, handler: work:handle, retry: none}
      hear: {from: UNIQUE.paid, handler: work:handle, retry: none}
      listen: {from: UNIQUE.paid, handler: work:listen}
"""
BROKEN = """
    from runner import Message
    def handle(order: dict, message: Message) -> None:
        assert order["price"] >= 0
        assert message.headers["tenant"] in ("a", "b")
    def listen(order: dict) -> None: raise AssertionError("must not run")
"""
FILE = "shop.test.yaml"


@pytest.fixture
def shop(rabbit_project: Project) -> Project:
    rabbit_project.write(PIPELINE, BROKEN)
    return rabbit_project


async def outcomes(project: Project, code: int) -> dict[str, str]:
    """Run the recorded tests; return the outcome of each."""
    runner = await project.run_to_end("test", FILE, "--format", "json", code=code)
    return {test["name"]: test["outcome"] for test in json.loads(runner.stdout)["tests"]}


async def dead_letters(project: Project) -> list[Any]:
    listed = await project.do("dead list", "--json")
    return [json.loads(line) for line in listed.stdout.splitlines()]


async def test_a_dead_letter_becomes_a_test_that_passes_after_the_handler_is_corrected(
    shop: Project, foreign: Foreign
) -> None:
    """Of a queue and of a subscriber's own queue, compressed or not; the dead letters stay where they are."""
    await shop.do("apply")
    more: dict[str, Any] = {"headers": {"tenant": "a", "api_token": "hunter2"}, "content_type": "application/json"}
    foreign.publish(shop.name("orders"), b'{"id": 1, "email": "a@b"}', message_id="o-1", **more)
    packed = gzip.compress(b'{"id": 2}')
    foreign.publish(shop.name("paid"), packed, exchange="events", message_id="p-2", content_encoding="gzip", **more)
    await shop.up_until_idle("--only", "handle", "--only", "hear")
    assert sorted(letter["message_id"] for letter in await dead_letters(shop)) == ["o-1", "p-2"]
    for letter in ("o-1", "p-2", "o-1"):
        runner = await shop.do("dead show", "--id", letter, "--record", FILE, "--redact", "email")
        assert f" handles {letter}" in runner.stderr
    text = (shop.folder / FILE).read_text()
    assert "hunter2" not in text
    assert "a@b" not in text
    assert await outcomes(shop, 1) == {
        "handle handles o-1": "failed",
        "hear handles p-2": "failed",
        "handle handles o-1 (2)": "failed",
    }
    shop.handlers(BROKEN.replace('order["price"]', 'order.get("price", 0)'))
    assert set((await outcomes(shop, 0)).values()) == {"passed"}
    assert len(await dead_letters(shop)) == 2


async def test_tapped_messages_become_one_test(shop: Project, foreign: Foreign) -> None:
    await shop.do("apply")
    async with shop.command("tap", shop.name("orders"), "--record", FILE, "--limit", "3") as runner:
        await until(lambda: "listening to" in runner.stderr, "the tap listens")
        bodies = [b'{"price": 7}', b"\xff\xfe\x00", b'{"price": 8}']
        foreign.publish(shop.name("placed"), *bodies, exchange="events", headers={"tenant": "b"}, message_id="m")
        assert await runner.wait() == 0, runner.stderr
    assert "1 not recorded: a test takes 100 messages of JSON or text" in runner.stderr
    assert f"recorded: 2 messages in {FILE}" in runner.stderr
    assert await outcomes(shop, 0) == {f"messages of {shop.name('orders')} are handled": "passed"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("dead show", "--id", "x", "--record", "tests.yaml"), "a test file is called *.test.yaml"),
        (("tap", "UNIQUE.orders", "--record", "x.jsonl", "--redact", "a"), "--redact needs --record with a FILE"),
    ],
)
async def test_another_file_is_wrong_usage(shop: Project, options: tuple[str, ...], text: str) -> None:
    command, *others = (option.replace("UNIQUE", shop.unique) for option in options)
    runner = await shop.do(command, *others, code=2)
    assert text in runner.stderr

"""Messages that no handler should see: kept in the dead-letter queue as they came, after one attempt."""

from __future__ import annotations

import pytest

from tests.foreign import Foreign
from tests.project import Project

PIPELINE = """
    version: 1
    queues:
      UNIQUE.model: {}
      UNIQUE.text: {}
      UNIQUE.checked: {schema: work:Order}
      UNIQUE.filed: {schema: order.json}
    subscribers:
      model: {from: UNIQUE.model, handler: work:model}
      text: {from: UNIQUE.text, handler: work:text}
      checked: {from: UNIQUE.checked, handler: work:checked}
      filed: {from: UNIQUE.filed, handler: work:filed}
"""
SCHEMA = '{"type": "object", "required": ["article"], "properties": {"number": {"type": "integer"}}}'
HANDLERS = """
    from pydantic import BaseModel

    class Order(BaseModel):
        number: int
        article: str

    def model(order: Order) -> None: note(f"model {order.number}")
    def text(order: str) -> None: note(f"text {order}")
    def checked(order) -> None: note(f"checked {order['number']}")
    def filed(order: dict) -> None: note(f"filed {order['number']}")
"""
BAD = {
    "not JSON": ("model", b'{"number": 1, ', {"content_type": "application/json"}),
    "empty": ("model", b"", {}),
    "not UTF-8": ("text", b"caf\xe9", {"content_type": "text/plain"}),
    "wrong type": ("model", b'{"number": "many", "article": "lamp"}', {"content_type": "application/json"}),
    "field missing": ("checked", b'{"number": 1}', {"content_type": "application/json"}),
    "not as the JSON Schema": ("filed", b'{"number": 1}', {"content_type": "application/json"}),
    "not a number": ("checked", b'{"number": NaN, "article": "lamp"}', {"content_type": "application/json"}),
    "too deep": ("checked", b"[" * 100_000, {"content_type": "application/json"}),
    "compressed": ("text", b"\x1f\x8b\x08\x00", {"content_encoding": "gzip"}),
}


def prepare(project: Project, more: str = "") -> None:
    """Write the pipeline, with further lines, and its schema."""
    project.pipeline(PIPELINE + more)
    (project.folder / "order.json").write_text(SCHEMA)


@pytest.mark.parametrize("kind", BAD)
async def test_a_body_that_cannot_be_read_is_kept_as_it_came(
    rabbit_project: Project, foreign: Foreign, kind: str
) -> None:
    """One attempt, reason `invalid`, the handler is not called; body, id and foreign headers are as they were."""
    queue, body, properties = BAD[kind]
    prepare(rabbit_project)
    rabbit_project.handlers(HANDLERS)
    source = rabbit_project.name(queue)
    headers = {"x-shop": "north", "count": 3, "nested": {"list": [1, "two"]}, "x-death": [{"count": 7}]}
    good = b'{"number": 2, "article": "chair"}'
    async with rabbit_project.running() as runner:
        foreign.publish(source, body, message_id="bad-1", correlation_id="flow", headers=headers, **properties)
        dead = await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")
        foreign.publish(source, good)  # what comes after it is not disturbed
        await runner.wait_for(lambda line: line["event"] == "message.handled")
    assert (dead["reason"], dead["attempt"], dead["message_id"]) == ("invalid", 1, "bad-1")
    assert "exception" not in dead
    assert not any(line["event"] == "message.retry" for line in runner.logs)
    assert len(rabbit_project.ledger.entries()) == 1

    (kept,) = foreign.take(f"{source}.dead")
    assert kept.body == body
    assert (kept.properties.message_id, kept.properties.correlation_id) == ("bad-1", "flow")
    assert kept.properties.content_type == properties.get("content_type")
    assert kept.properties.content_encoding == properties.get("content_encoding")
    assert {name: kept.headers[name] for name in ("x-shop", "count", "nested")} == {
        "x-shop": "north",
        "count": 3,
        "nested": {"list": [1, "two"]},
    }
    assert kept.headers["x-runner-reason"] == "invalid"
    assert kept.headers["x-runner-attempt"] == 1
    assert kept.headers["x-runner-origin"] == source
    assert kept.headers["x-runner-subscriber"] == f"{rabbit_project.unique}.{queue}"
    assert foreign.count(source) == 0


async def test_what_a_stranger_writes_into_our_headers_is_not_believed(
    rabbit_project: Project, foreign: Foreign
) -> None:
    """Garbage as the attempt counts as the first; a forged reason does not survive."""
    prepare(rabbit_project)
    rabbit_project.handlers(HANDLERS)
    async with rabbit_project.up() as runner:
        await runner.wait_for(lambda line: line["event"] == "pipeline.started")
        for index, attempt in enumerate(("abc", -3, 10**12, {"a": 1})):
            headers = {"x-runner-attempt": attempt, "x-runner-reason": "because", "x-runner-origin": 7}
            foreign.publish(rabbit_project.name("text"), f"{index}".encode(), headers=headers)
            foreign.publish(rabbit_project.name("text"), b"\xff", headers=headers)
        for _ in range(4):
            await runner.wait_for(lambda line: line["event"] == "message.dead_lettered")
        await rabbit_project.ledger.wait_for(4)
        await runner.wait_for(lambda line: sum(each["event"] == "message.dead_lettered" for each in runner.logs) == 4)
    ended = [line for line in runner.logs if "duration_ms" in line]
    assert {line["attempt"] for line in ended} == {1}
    assert {line["reason"] for line in ended if "reason" in line} == {"invalid"}
    dead = foreign.take(rabbit_project.name("text.dead"))
    assert {got.headers["x-runner-reason"] for got in dead} == {"invalid"}
    assert {got.headers["x-runner-origin"] for got in dead} == {rabbit_project.name("text")}


@pytest.mark.parametrize("queue", ["checked", "filed"])
async def test_a_payload_that_breaks_its_schema_is_not_published(project: Project, queue: str) -> None:
    """The schema is checked before a producer's message leaves: the producer fails and says which field is wrong."""
    prepare(project, f"    producers: {{send: {{handler: work:send, to: UNIQUE.{queue}, every: 1h}}}}\n")
    project.handlers(HANDLERS + "\n    def send(): return {'number': 'many', 'article': 'lamp'}\n")
    async with project.up() as runner:
        failed = await runner.wait_for(lambda line: line["event"] == "producer.failed")
    assert "number" in failed["error"]
    assert "many" not in failed["error"]
    assert project.ledger.entries() == []
    assert not any(line["event"] == "message.published" for line in runner.logs)
